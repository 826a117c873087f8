"""How far a run is, told from heartbeats alone."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from synthetic_run import make_plan

from streamsal.heartbeat import Log, heartbeat_path
from streamsal.status import STALLED_SECONDS, run_status


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Four tasks of 10 frames: done, running at 2 frames per second, stopped, never started."""
    make_plan({"a.mp4": 40}, {"a.mp4": [10, 20, 30]}).save(tmp_path / "plan.json")
    for task, (done, holes) in enumerate([(10, 1), (4, 0), (5, 2)]):
        log = Log(run=tmp_path, task=task)
        log.start(rows=10, done=0, holes=0, device="cpu")
        log.beat(force=True, done=done, holes=holes, fps=2.0)
        if task != 1:
            log.end("done" if task == 0 else "stopped", "" if task == 0 else "by hand")
    return tmp_path


def test_states_and_sums(run: Path) -> None:
    status = run_status(run)
    assert [task.state for task in status.tasks] == ["done", "running", "stopped", "waiting"]
    assert [task.done for task in status.tasks] == [10, 4, 5, 0]
    assert (status.done, status.rows, status.holes, status.missing) == (19, 40, 3, "1-3")
    assert not status.complete
    assert (status.fps, status.eta_seconds) == (2.0, 21 / 2)
    assert status.tasks[2].error == "by hand"
    assert status.tasks[3].heartbeat_age_seconds is None


def test_a_silent_task_is_stalled(run: Path) -> None:
    now = time.time() + STALLED_SECONDS + 1
    assert [task.state for task in run_status(run, now=now).tasks] == ["done", "stalled", "stopped", "waiting"]
    assert run_status(run, now=now).eta_seconds is None


def test_a_run_is_complete_when_every_task_with_frames_is_done(tmp_path: Path) -> None:
    make_plan({"a.mp4": 10, "b.mp4": 0}, {"a.mp4": [], "b.mp4": []}).save(tmp_path / "plan.json")
    log = Log(run=tmp_path, task=0)
    log.start(rows=10, done=10, holes=0, device="cpu")
    assert not run_status(tmp_path).complete
    log.end("done")
    assert run_status(tmp_path).complete


@pytest.mark.parametrize("skew", [-7200, 7200])
@pytest.mark.parametrize("which", ["the task's host", "the file system"])
def test_one_clock_that_is_hours_wrong_neither_stalls_a_task_nor_hides_that_it_is(
    run: Path, skew: int, which: str
) -> None:
    path, now = heartbeat_path(run, 1), time.time()

    def beaten(seconds_ago: float) -> str:
        written = {which: now - seconds_ago + skew}
        time_there = written.get("the task's host", now - seconds_ago)
        path.write_text(json.dumps({**json.loads(path.read_text()), "time": time_there}))
        touched = written.get("the file system", now - seconds_ago)
        os.utime(path, (touched, touched))
        return run_status(run, now=now).tasks[1].state

    assert beaten(5) == "running"
    assert beaten(STALLED_SECONDS + 60) == "stalled"


def test_a_run_in_a_line(run: Path) -> None:
    assert run_status(run).summary() == (
        "19 of 40 results (47.5 %), 1 task running, 1 task stopped, 1 task waiting, 2.0 fps, about 0m10s to go"
    )

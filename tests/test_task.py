"""One task: what its heartbeat and its log say, and when it does nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from films import destroy_packets, write_film

from streamsal.errors import Held, PlanMismatch, Stopped
from streamsal.heartbeat import read_heartbeat
from streamsal.locks import lock
from streamsal.prepare import Request, make_plan
from streamsal.store import shard_path
from streamsal.task import infer


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run of 40 frames in two tasks; frames 25 and 30, of the second one, are holes."""
    film = write_film(tmp_path / "film.mov", 40, codec="mjpeg")
    destroy_packets(film, [25, 30])
    make_plan([film], tmp_path / "r", Request(model="uniform", tasks=2, batch_size=2))
    return tmp_path / "r"


def events(run: Path, task: int) -> list[str]:
    lines = (run / "logs" / f"{task:04d}.jsonl").read_text().splitlines()
    return [json.loads(line)["event"] for line in lines]


def test_heartbeat_of_a_task_that_is_done(run: Path) -> None:
    rows = [infer(run, task) for task in (0, 1)]
    beats = [read_heartbeat(run, task) for task in (0, 1)]
    assert sum(rows) == 40
    for task, (beat, n_rows) in enumerate(zip(beats, rows, strict=True)):
        assert beat is not None
        assert (beat["task"], beat["rows"], beat["done"], beat["state"]) == (task, n_rows, n_rows, "done")
        assert (beat["pid"], beat["device"], beat["restarts"], beat["error"]) == (os.getpid(), "cpu", 0, "")
    assert sum(beat["holes"] for beat in beats if beat) == 2
    assert events(run, 0) == ["start", "done"]


def test_a_task_that_is_done_does_nothing(run: Path) -> None:
    infer(run, 1)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    infer(run, 1)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


def test_holes_are_counted_once_over_stops(run: Path) -> None:
    stops = 0
    while True:
        try:
            infer(run, 1, stop=lambda: "SIGTERM")
        except Stopped as error:
            stops += 1
            beat = read_heartbeat(run, 1)
            assert beat and beat["state"] == "stopped" and beat["error"] == str(error)
            assert f"task 1 has {beat['done']} of {beat['rows']} results safe" in str(error)
        else:
            break
    beat = read_heartbeat(run, 1)
    assert beat and stops > 3
    assert (beat["holes"], beat["restarts"], beat["error"]) == (2, stops, "")


def test_a_task_that_fails_early_keeps_what_its_heartbeat_knew(run: Path) -> None:
    with pytest.raises(Stopped):
        infer(run, 1, stop=lambda: "SIGTERM")
    before = read_heartbeat(run, 1)
    film = run.parent / "film.mov"
    film.write_bytes(film.read_bytes()[:-1])
    with pytest.raises(PlanMismatch):
        infer(run, 1)
    after = read_heartbeat(run, 1)
    assert before and after and before["done"] > 0
    assert (after["done"], after["rows"], after["state"]) == (before["done"], before["rows"], "failed")
    assert "has changed" in after["error"]


def test_another_copy_leaves_the_log_alone(run: Path) -> None:
    with pytest.raises(Stopped):
        infer(run, 1, stop=lambda: "SIGTERM")
    log = (run / "logs" / "0001.jsonl").read_text()
    with lock(shard_path(run, 1), wait=False) as ours:
        assert ours
        with pytest.raises(Held, match=r"0001\.h5"):
            infer(run, 1)
    assert (run / "logs" / "0001.jsonl").read_text() == log


def test_tasks_without_frames(run: Path) -> None:
    assert infer(run, 2) == 0
    assert not (run / "logs").exists()
    with pytest.raises(ValueError, match="negative"):
        infer(run, -1)

"""One task: what its heartbeat and its log say, and when it does nothing."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
from films import destroy_packets, write_film

from streamsal.errors import Held, MissingInput, PlanMismatch, Stopped
from streamsal.heartbeat import Log, read_heartbeat
from streamsal.locks import lock
from streamsal.plan import Plan
from streamsal.prepare import Request, make_plan
from streamsal.store import shard_path
from streamsal.task import Worker, holes_if_whole, infer


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


def test_who_reads_that_a_task_is_done_finds_its_shard_free(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan, found, end = Plan.load(run / "plan.json"), [], Log.end

    def looking(log: Log, event: str, *arguments: str, **facts: object) -> None:
        end(log, event, *arguments, **facts)
        found.append((event, holes_if_whole(run, 1, plan)))

    monkeypatch.setattr(Log, "end", looking)
    infer(run, 1)
    assert found == [("done", 2)]


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


def test_finished_tasks_are_passed_over_unopened_unless_their_size_has_changed(run: Path) -> None:
    assert Worker(run).infer_free() == []
    whole = [shard_path(run, task).read_bytes() for task in (0, 1)]
    shard_path(run, 0).write_bytes(bytes(len(whole[0])))  # nobody who opens it could take this for a shard
    shard_path(run, 1).write_bytes(whole[1][:-1])
    assert Worker(run).infer_free() == []
    assert shard_path(run, 0).read_bytes() == bytes(len(whole[0]))
    assert events(run, 1) == ["start", "done", "resume", "done"]
    infer(run, 0)  # named, a task is looked at more closely
    assert events(run, 0) == ["start", "done", "resume", "done"]


def test_what_is_known_of_another_plan_is_not_believed(run: Path) -> None:
    Worker(run).infer_free()
    (run / "plan.json").unlink()
    make_plan([run.parent / "film.mov"], run, Request(model="uniform", tasks=2, batch_size=4))
    Worker(run).infer_free()
    assert events(run, 0)[-2:] == ["resume", "done"]


@pytest.mark.parametrize("no_flock", ["", "5"])
def test_a_task_of_another_is_left_to_it_before_anything_else_is_looked_at(
    run: Path, no_flock: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSAL_TEST_NO_FLOCK", no_flock)
    shard_path(run, 1).parent.mkdir()
    with lock(shard_path(run, 0), wait=False) as ours:
        assert ours
        assert Worker(run).infer_free() == [0]
        assert events(run, 1) == ["start", "done"] and not (run / "logs" / "0000.jsonl").exists()
        (run.parent / "film.mov").unlink()
        assert Worker(run).infer_free() == [0]
    with pytest.raises(MissingInput):
        Worker(run).infer_free()


def test_a_video_that_is_gone_keeps_no_worker_from_the_others(tmp_path: Path) -> None:
    films = [write_film(tmp_path / f"film{number}.mov", 20, codec="mjpeg") for number in range(3)]
    make_plan(films, tmp_path / "r", Request(model="uniform", tasks=3, batch_size=2))
    films[1].unlink()
    with pytest.raises(MissingInput, match="film1"):
        Worker(tmp_path / "r").infer_free()
    assert sorted(os.listdir(tmp_path / "r" / "shards")) == ["0000.h5", "0002.h5"]


def test_a_task_that_never_began_leaves_no_shard(run: Path) -> None:
    (run.parent / "film.mov").unlink()
    with pytest.raises(MissingInput):
        infer(run, 0)
    assert os.listdir(run / "shards") == []


@pytest.mark.parametrize("skew", [-7200, 7200])
def test_a_lock_left_by_a_lost_host_is_taken_over_by_who_is_patient(
    run: Path, skew: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STREAMSAL_TEST_NO_FLOCK", "60")
    lease = shard_path(run, 0).with_name("0000.h5.lock")
    lease.parent.mkdir()
    lease.write_text('{"host": "lost"}\n000000000003\n')
    os.utime(lease, (time.time() + skew, time.time() + skew))
    assert Worker(run).infer_free() == [0]
    monkeypatch.setenv("STREAMSAL_TEST_NO_FLOCK", "0.02")
    assert infer(run, 0) > 0
    assert sorted(os.listdir(run / "shards")) == ["0000.h5", "0001.h5"]


def test_who_waits_to_see_whether_a_lock_is_alive_can_be_stopped(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSAL_TEST_NO_FLOCK", "5")
    lease = shard_path(run, 0).with_name("0000.h5.lock")
    lease.parent.mkdir()
    lease.write_text('{"host": "lost"}\n000000000003\n')
    with pytest.raises(Stopped, match="SIGTERM: task 0"):
        infer(run, 0, stop=lambda: "SIGTERM")
    assert lease.exists()

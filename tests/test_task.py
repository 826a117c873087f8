"""One task: what its heartbeat and its log say, and when it does nothing."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest
from films import destroy_packets, write_film

from streamsal.errors import Held, Interrupted, PlanMismatch, Stopped, WriteError
from streamsal.files import lock
from streamsal.heartbeat import Log, read_heartbeat
from streamsal.prepare import Request, make_plan
from streamsal.signals import leave_on_signals, stop_on_signals, stopped
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


def test_a_heartbeat_that_was_cut_off_counts_as_none(tmp_path: Path) -> None:
    log = Log(run=tmp_path, task=3)
    log.start(rows=10, done=0, holes=0, device="cpu")
    assert read_heartbeat(tmp_path, 3)
    path = tmp_path / "logs" / "0003.json"
    path.write_bytes(path.read_bytes()[:20])
    assert read_heartbeat(tmp_path, 3) is None


def test_heartbeats_are_not_written_at_every_block(tmp_path: Path) -> None:
    log = Log(run=tmp_path, task=0)
    log.start(rows=10, done=0, holes=0, device="cpu")
    log.beat(done=5)
    beat = read_heartbeat(tmp_path, 0)
    assert beat and beat["done"] == 0
    log.end("stopped", "by hand")
    beat = read_heartbeat(tmp_path, 0)
    assert beat and (beat["done"], beat["state"], beat["error"]) == (5, "stopped", "by hand")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        Log(run=tmp_path / "file", task=0)
    log = Log(run=tmp_path, task=0)
    (tmp_path / "logs" / "0000.jsonl").mkdir()
    with pytest.raises(WriteError, match=r"0000\.jsonl"):
        log.event("start")
    log.end("failed", "the reason")  # best effort: the reason itself must reach the user


def test_signals_set_a_flag_and_nothing_else() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        assert stop() == ""
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert stop() == "SIGUSR1"  # the first one
        with pytest.raises(KeyboardInterrupt):  # Ctrl-C once more
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGTERM) == before


def test_signals_where_no_flag_is_asked_for() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGTERM"), leave_on_signals():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) == before


def test_reasons_to_stop_have_their_exit_codes() -> None:
    assert stopped("SIGTERM", "here").exit_code == 75
    assert isinstance(stopped("Ctrl-C", "here"), Interrupted) and Interrupted.exit_code == 130

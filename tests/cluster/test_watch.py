"""The state of a run on a terminal and in a log, looked at again and again until the run is complete."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import select
from pathlib import Path

import pytest
from program import call, end, start
from synthetic_run import make_plan

from streamsal.cli import main
from streamsal.cluster.watch import Look, show
from streamsal.heartbeat import Log, heartbeat_path
from streamsal.status import STALLED_SECONDS


@pytest.fixture
def planned(tmp_path: Path) -> Path:
    """Two tasks of ten frames, none of them begun."""
    run = tmp_path / "r"
    run.mkdir()
    make_plan({"a.mp4": 20}, {"a.mp4": [10]}).save(run / "plan.json")
    return run


def finish(planned: Path, task: int, holes: int = 0) -> None:
    log = Log(run=planned, task=task)
    log.start(rows=10, done=0, holes=0, device="cpu")
    log.end("done", done=10, holes=holes)


def test_lines_of_a_log_until_the_run_is_complete(planned: Path) -> None:
    process = start("status", planned, "--watch")
    assert process.stdout
    assert process.stdout.readline() == f"{planned}: 0 of 20 results (0.0 %), 2 tasks waiting\n"
    finish(planned, 0)
    assert process.stdout.readline() == f"{planned}: 10 of 20 results (50.0 %), 1 task waiting\n"
    finish(planned, 1)
    out, err = end(process, 0)
    assert out == f"{planned}: 20 of 20 results (100.0 %)\n" and not err


def test_json_lines_until_the_run_is_complete(planned: Path) -> None:
    process = start("status", planned, "--watch", "--json")
    assert process.stdout and json.loads(process.stdout.readline())["missing"] == "0-1"
    finish(planned, 0)
    finish(planned, 1, holes=3)
    out, err = end(process, 1)
    assert json.loads(out.splitlines()[-1])["holes"] == 3 and "3 frames without a picture" in err


def test_in_place_on_a_terminal(planned: Path) -> None:
    Log(run=planned, task=1).start(rows=10, done=4, holes=0, device="cpu")
    ours, theirs = pty.openpty()
    process = start("status", planned, "--watch", stdout=theirs, env={"TERM": "xterm", "COLUMNS": "200"})
    os.close(theirs)
    shown = b""
    while b"1 task waiting" not in shown:
        assert select.select([ours], [], [], 60)[0], shown
        shown += os.read(ours, 1 << 16)
    assert b"running" in shown and b"4/10" in shown
    finish(planned, 0)
    finish(planned, 1)
    with contextlib.suppress(OSError):  # Linux: the other side is closed
        while select.select([ours], [], [], 60)[0] and (piece := os.read(ours, 1 << 16)):
            shown += piece
    os.close(ours)
    end(process, 0)
    assert b"(100.0 %)" in shown and b"\x1b[" in shown


def test_a_run_that_is_stalled_says_so(planned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Log(run=planned, task=1).start(rows=10, done=4, holes=0, device="cpu")
    path = heartbeat_path(planned, 1)
    beat = json.loads(path.read_text())
    then = beat["time"] - STALLED_SECONDS - 60
    path.write_text(json.dumps({**beat, "time": then}))
    os.utime(path, (then, then))
    assert main(["status", str(planned)]) == 3
    out, err = capsys.readouterr()
    assert "stalled" in out and "1 task stalled" in err and "silent for 10 minutes" in err and err.endswith("again\n")


def test_without_slurm_its_column_is_left_out_in_a_line(planned: Path) -> None:
    Log(run=planned, task=0).start(rows=10, done=0, holes=0, device="cpu", job="1_0", requeues=0)
    out, err = call("status", planned, "--slurm", env={"PATH": str(planned)}, code=3)
    assert "slurm" not in out
    assert err.splitlines()[0] == "streamsal: there is no squeue on this machine, so Slurm's column is left out"


def test_slurm_s_column(planned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Log(run=planned, task=0).start(rows=10, done=0, holes=0, device="cpu", job="1_0", requeues=0)
    look = Look(planned, slurm=True)
    look._asked = float("inf")  # not now
    look.queue = {0: "RUNNING"}
    show(look, as_json=False)
    assert capsys.readouterr().out.splitlines()[1].split()[-1] == "RUNNING"
    show(look, as_json=True)
    assert [task["slurm"] for task in json.loads(capsys.readouterr().out)["tasks"]] == ["RUNNING", ""]


def test_what_was_done_is_not_read_again(planned: Path) -> None:
    finish(planned, 0)
    look = Look(planned, slurm=False)
    look.again()
    heartbeat_path(planned, 0).unlink()
    assert [task.state for task in look.again().tasks] == ["done", "waiting"]

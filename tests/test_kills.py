"""kill -9 where it hurts: while a run is being begun, as its files appear, in the middle of a shard. And signals in a
crowd, and a task that is done already.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import time
from pathlib import Path

import pytest
from films import write_film
from program import TELLTALE, call, end, start, wait_until
from undisturbed import N_FRAMES, assert_as_undisturbed

MODEL = ("--model", TELLTALE, "--batch-size", "4")
FROM_NOTHING = ("infer", "film.mp4", *MODEL)
COMMAND = (*FROM_NOTHING, "--num-tasks", "2")
SLOW = {"STREAMSAL_TEST_DELAY_MS": "50"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4 and good.streamsal, computed by one task and merged."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_film(folder / "film.mp4", N_FRAMES)
    call(*FROM_NOTHING, "-o", "good.streamsal", cwd=folder)
    call("merge", "good.streamsal", cwd=folder)
    return folder


@pytest.fixture
def folder(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with the film alone."""
    (tmp_path / "film.mp4").write_bytes((undisturbed / "film.mp4").read_bytes())
    return tmp_path


def names(folder: Path) -> set[str]:
    """The files of the run directory, temporary ones without the number of their process."""
    files = {path.name for path in (folder / "film.streamsal").rglob("*") if not path.is_dir()}
    return {re.sub(r"\.\d+\.part", ".part", name) for name in files} - {".plan.lock"}


def test_what_is_left_the_moment_each_name_appears_is_gone_on_with(folder: Path, undisturbed: Path) -> None:
    """Stopped for that moment: what is on disk then is what a process leaves that is killed."""
    process, seen, left = start(*FROM_NOTHING, cwd=folder), set[str](), list[Path]()
    while process.poll() is None:
        if names(folder) <= seen:
            time.sleep(0.001)
            continue
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
        seen |= names(folder)
        left.append(folder / f"left_{len(left)}")
        shutil.copytree(folder / "film.streamsal", left[-1] / "film.streamsal")
        process.send_signal(signal.SIGCONT)
    end(process, 0)
    assert seen >= {"plan.json", "film.mp4.npz", "0000.h5", "0000.json"}
    for copied in left:
        call("infer", folder / "film.mp4", *MODEL, "-o", copied / "film.streamsal")
        assert_as_undisturbed(copied, undisturbed, n_tasks=1)


def test_signals_in_a_crowd_stop_a_task_once(folder: Path, undisturbed: Path) -> None:
    process = start(*COMMAND, cwd=folder, env=SLOW)
    wait_until((folder / "film.streamsal" / "logs" / "0000.json").exists, process)
    for number in (signal.SIGCONT, signal.SIGUSR1, signal.SIGTERM, signal.SIGCONT, signal.SIGTERM):
        process.send_signal(number)
    _, err = end(process, 75)
    assert "run the same command again" in err and err.count("stopped by") == 1
    call(*COMMAND, cwd=folder)
    assert_as_undisturbed(folder, undisturbed, n_tasks=2)


def test_a_finished_task_run_again_touches_nothing(folder: Path) -> None:
    call(*COMMAND, cwd=folder)
    call("merge", "film.streamsal", cwd=folder)

    def facts() -> dict[str, tuple[int, int]]:
        files = (path for path in (folder / "film.streamsal").rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}

    before = facts()
    call(*COMMAND, cwd=folder)
    call("infer", "film.streamsal", "--task-id", "any", cwd=folder)
    assert facts() == before

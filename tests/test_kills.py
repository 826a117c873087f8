"""kill -9 where it hurts: while a run is being begun, as its files appear, in the middle of a shard. And signals in a
crowd, and a task that is done already.
"""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path

import pytest
from films import write_film
from program import TELLTALE, end, run, start, wait_until
from undisturbed import N_FRAMES, assert_as_undisturbed

FROM_NOTHING = ("infer", "film.mp4", "--model", TELLTALE, "--batch-size", "4")
COMMAND = (*FROM_NOTHING, "--num-tasks", "2")
SLOW = {"STREAMSAL_TEST_DELAY_MS": "50"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4 and good.streamsal, computed by one task and merged."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_film(folder / "film.mp4", N_FRAMES)
    run(*FROM_NOTHING, "-o", "good.streamsal", cwd=folder)
    run("merge", "good.streamsal", cwd=folder)
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


def test_killed_the_moment_each_name_appears(folder: Path, undisturbed: Path) -> None:
    seen: set[str] = set()
    while True:
        process = start(*FROM_NOTHING, cwd=folder)
        while process.poll() is None and names(folder) <= seen:
            time.sleep(0.001)
        if process.poll() is not None:
            break
        process.kill()
        end(process, -signal.SIGKILL)
        seen |= names(folder)
    end(process, 0)
    assert seen >= {"plan.json", "film.mp4.npz", "0000.h5", "0000.json"}
    assert_as_undisturbed(folder, undisturbed, n_tasks=1)


def test_signals_in_a_crowd_stop_a_task_once(folder: Path, undisturbed: Path) -> None:
    process = start(*COMMAND, cwd=folder, env=SLOW)
    wait_until((folder / "film.streamsal" / "logs" / "0000.json").exists, process)
    for number in (signal.SIGCONT, signal.SIGUSR1, signal.SIGTERM, signal.SIGCONT, signal.SIGTERM):
        process.send_signal(number)
    _, err = end(process, 75)
    assert "run the same command again" in err and err.count("stopped by") == 1
    run(*COMMAND, cwd=folder)
    assert_as_undisturbed(folder, undisturbed, n_tasks=2)


def test_a_finished_task_run_again_touches_nothing(folder: Path) -> None:
    run(*COMMAND, cwd=folder)
    run("merge", "film.streamsal", cwd=folder)

    def facts() -> dict[str, tuple[int, int]]:
        files = (path for path in (folder / "film.streamsal").rglob("*") if path.is_file())
        return {str(path): (path.stat().st_mtime_ns, path.stat().st_ino) for path in files}

    before = facts()
    run(*COMMAND, cwd=folder)
    run("infer", "film.streamsal", "--task-id", "any", cwd=folder)
    assert facts() == before

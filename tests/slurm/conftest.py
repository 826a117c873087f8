"""A private Slurm cluster for the tests of this folder, which all bear the mark `slurm`, and a run to do on it."""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster import TOOL, Cluster, running
from films import write_film
from program import SCHEDULERS, TELLTALE, call
from undisturbed import N_FRAMES
from victim import N_TASKS, VICTIM


def pytest_itemcollected(item: pytest.Item) -> None:
    """Called for this folder's tests alone."""
    item.add_marker(pytest.mark.slurm)


def pytest_runtest_setup(item: pytest.Item) -> None:
    if lacking := what_slurm_lacks():
        if os.environ.get("STREAMSAL_REQUIRE_SLURM") == "1":
            pytest.fail(f"STREAMSAL_REQUIRE_SLURM=1, and Slurm is not complete here: {lacking}")
        pytest.skip(f"needs Slurm (STREAMSAL_REQUIRE_SLURM=1 turns this into a failure): {lacking}")


@functools.cache
def what_slurm_lacks() -> str:
    """The programs that are missing and the line that installs them, or nothing."""
    done = subprocess.run([TOOL, "check"], capture_output=True, text=True)
    lines = [line.removeprefix(f"{TOOL.name}: ") for line in done.stderr.splitlines()]
    return "; ".join(lines) if done.returncode else ""


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Jobs there know no run and no scheduler but this one, and find this environment's `streamsal`."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith((*SCHEDULERS, "SBATCH_"))}
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with running(tmp_path_factory.mktemp("slurm"), {**environment, "PATH": path}) as cluster:
        yield cluster


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4 and good.streamsal, computed by one task and merged.

    For copies also planned.streamsal, nothing computed, and half_done.streamsal, all tasks but the last two computed.
    """
    folder = tmp_path_factory.mktemp("undisturbed")
    write_film(folder / "film.mp4", N_FRAMES)
    model = ("--model", TELLTALE, "--batch-size", "4")
    call("infer", "film.mp4", *model, "-o", "good.streamsal", cwd=folder)
    call("merge", "good.streamsal", cwd=folder)
    call("plan", "film.mp4", *model, "--tasks", str(N_TASKS), "-o", "planned.streamsal", cwd=folder)
    shutil.copytree(folder / "planned.streamsal", folder / "half_done.streamsal")
    for task in range(VICTIM - 1):
        call("infer", "half_done.streamsal", "--task-id", str(task), cwd=folder)
    return folder


@pytest.fixture
def planned(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with the film and film.streamsal, where nothing is computed yet."""
    return copy_of(undisturbed, "planned.streamsal", tmp_path)


@pytest.fixture
def half_done(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with the film and film.streamsal, where the last two tasks are not computed yet."""
    return copy_of(undisturbed, "half_done.streamsal", tmp_path)


def copy_of(undisturbed: Path, run_folder: str, folder: Path) -> Path:
    shutil.copy(undisturbed / "film.mp4", folder)
    shutil.copytree(undisturbed / run_folder, folder / "film.streamsal")
    plan = folder / "film.streamsal" / "plan.json"
    plan.write_text(plan.read_text().replace(str(undisturbed), str(folder)))
    return folder

"""What tests of several modules need: awkward videos, a run that is computed, and one that never saw a video."""

from __future__ import annotations

import fcntl
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from corpus import CASES


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_cuda"):
        import torch

        if not torch.cuda.is_available():
            if os.environ.get("STREAMSAL_REQUIRE_CUDA") == "1":
                pytest.fail("STREAMSAL_REQUIRE_CUDA=1, and there is no CUDA device")
            pytest.skip("needs a CUDA device (STREAMSAL_REQUIRE_CUDA=1 turns this into a failure)")
    if item.get_closest_marker("needs_reference") and importlib.util.find_spec("deepgaze_pytorch") is None:
        if os.environ.get("STREAMSAL_REQUIRE_REFERENCE") == "1":
            pytest.fail("STREAMSAL_REQUIRE_REFERENCE=1, and deepgaze-pytorch is not installed")
        pytest.skip("needs deepgaze-pytorch (STREAMSAL_REQUIRE_REFERENCE=1 turns this into a failure)")
    if item.get_closest_marker("needs_matplotlib") and importlib.util.find_spec("matplotlib") is None:
        if os.environ.get("STREAMSAL_REQUIRE_MATPLOTLIB") == "1":
            pytest.fail("STREAMSAL_REQUIRE_MATPLOTLIB=1, and matplotlib is not installed")
        pytest.skip("needs matplotlib (STREAMSAL_REQUIRE_MATPLOTLIB=1 turns this into a failure)")
    if item.get_closest_marker("needs_notebooks"):
        missing = [name for name in ("nbclient", "ipykernel", "matplotlib") if importlib.util.find_spec(name) is None]
        if missing and os.environ.get("STREAMSAL_REQUIRE_NOTEBOOKS") == "1":
            pytest.fail(f"STREAMSAL_REQUIRE_NOTEBOOKS=1, and {', '.join(missing)} not installed")
        if missing:
            pytest.skip(f"needs {', '.join(missing)} (STREAMSAL_REQUIRE_NOTEBOOKS=1 turns this into a failure)")


LONGEST = ("tests/slurm/", "tests/test_notebooks.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What one worker takes as a whole and takes minutes comes first: begun late, it would be all that still runs."""
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Bytes are named by their argument: what they hold may be another in each worker, which then disagree on names."""
    return argname if isinstance(val, bytes) else None


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """A worker takes a file at a time, with its fixtures; one of them takes all that needs the cluster."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):  # --dist loadgroup of pytest-xdist 3.8 does nothing under pytest 9.2
        def _split_scope(self, nodeid: str) -> str:
            return "tests/slurm" if nodeid.startswith("tests/slurm/") else nodeid.partition("::")[0]

    config.option.loadscopereorder = False  # most tests is not most work
    return ByFile(config, log)


@dataclass(frozen=True, slots=True)
class Corpus:
    """The videos of corpus.py by name of their case, each written when it is first asked for."""

    folder: Path

    def path(self, name: str) -> Path:
        self._written(name)
        return self.folder / CASES[name].file

    def n_pictures(self, name: str) -> int:
        """How many pictures went into the encoder."""
        return self._written(name)

    def _written(self, name: str) -> int:
        with open(self.folder / "lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            count = self.folder / f"{name}.json"
            if not count.exists():
                count.write_text(json.dumps(CASES[name].write(self.folder / CASES[name].file)))
            return json.loads(count.read_text())


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent  # shared by the workers of one run
    folder = base / "corpus"
    folder.mkdir(exist_ok=True)
    return Corpus(folder)


@pytest.fixture(scope="session")
def computed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4, 40 frames, and film.streamsal, all of it computed in two tasks."""
    from films import write_film  # with torch, which takes seconds
    from program import call

    folder = tmp_path_factory.mktemp("computed")
    write_film(folder / "film.mp4", 40)
    call("infer", "film.mp4", "--model", "center", "--num-tasks", "2", cwd=folder)
    return folder


@pytest.fixture
def here(computed: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """That folder as the working directory, in an environment that names no run and no task."""
    monkeypatch.chdir(computed)
    for name in ("STREAMSAL_RUN", "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_COUNT", "JOB_COMPLETION_INDEX"):
        monkeypatch.delenv(name, raising=False)
    return computed


@pytest.fixture
def talks(tmp_path: Path) -> Path:
    """A run of two synthetic videos in six shards, not merged."""
    from synthetic_run import CUTS, VIDEOS, make_plan, make_run

    return make_run(tmp_path / "talks.streamsal", make_plan(VIDEOS, CUTS))

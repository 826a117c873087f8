"""What tests of several modules need: the folder of awkward videos."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass
from pathlib import Path

import pytest
from corpus import CASES


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

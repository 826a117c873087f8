"""The folder of a training: what in it is ours, to be written over and removed. All else in it is somebody's own."""

from __future__ import annotations

import contextlib
from pathlib import Path

from ..errors import UsageError
from ..files import writing
from . import judge

FILES = ("last.pt", "best.pt", "validation.h5", "log.jsonl")


def check_ours(folder: Path) -> None:
    """Raises UsageError where no training has been and yet something has a name that we would write to."""
    if (folder / "train.lock").exists() or (folder / "last.pt").exists():  # what is no last.pt of ours is refused later
        return
    for name in (*FILES, "config.json"):
        if (folder / name).exists():
            raise UsageError(
                f"{folder / name} is of no training that was begun there: name another folder with -o, "
                "or have it written over (--resume no)"
            )


def clear(folder: Path) -> None:
    """Removes what a training and its tests have written, file by file: a folder `test` may hold somebody's clips."""
    judge.clear(folder / "test")
    events = (folder / "tensorboard").glob("events.out.tfevents.*")
    for path in (folder / "test/predictions.h5", *events, *(folder / name for name in FILES)):
        with writing(path):
            path.unlink(missing_ok=True)
    for name in ("tensorboard", "test"):
        with contextlib.suppress(OSError):
            (folder / name).rmdir()

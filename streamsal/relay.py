"""State that passes from a shard to the next one of its video, for models whose memory has no end.

    shard 0   look, remember, answer ──┐ state
    shard 1   look ... waits           └─ remember ─┬─ answer
    shard 2   look ... waits                        └─ remember ─ answer

What a model sees in its frames does not depend on the state, so all shards look at once and keep what they saw on disk;
only remembering waits for the shard before. The file of a state appears whole and stays: a shard that is resumed begins
with it again.
"""

from __future__ import annotations

import io
import pickle
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import BadInput
from .files import make_folder, write_bytes, writing

PLAN = "plan"  # the array that says whose state it is


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What a part of a shard, the frames start ... stop - 1 of `video`, goes on from, and what it hands on.

    `takes`, `gives`: whether the run has frames of the video before and behind it. `alive` is called while nothing
    comes of the work that could be stored, with what is being waited for, if anything is; it may raise.
    """

    run: Path
    plan_id: str
    video: str
    start: int
    stop: int
    takes: bool
    gives: bool
    alive: Callable[[Path | None], None]

    @property
    def given(self) -> bool:
        return not self.gives or self._path(self.stop).exists()

    def take(self) -> dict[str, np.ndarray] | None:
        """What the part before left; None where that is still at work. Raises BadInput for another run's."""
        path = self._path(self.start)
        try:
            with np.load(path) as file:
                arrays = {name: file[name] for name in file.files}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, EOFError):
            raise BadInput(f"{path} is damaged: delete it and the shard before it, and compute that again") from None
        if str(arrays.pop(PLAN, "")) != self.plan_id:
            raise BadInput(f"{path} is of another plan: delete the folder {path.parent} and the shards, and run again")
        return arrays

    def wait(self) -> dict[str, np.ndarray]:
        while (arrays := self.take()) is None:
            self.alive(self._path(self.start))
        return arrays

    def give(self, arrays: Mapping[str, np.ndarray]) -> None:
        if not self.gives:
            return
        path, content = self._path(self.stop), io.BytesIO()
        named: dict[str, Any] = {**arrays, PLAN: np.array(self.plan_id)}
        np.savez(content, **named)
        make_folder(path.parent)
        write_bytes(path, content.getvalue())

    def _path(self, frame: int) -> Path:
        return self.run / "states" / f"{self.video}.{frame}.npz"


class Spool:
    """Things kept on disk in order; in the folder for temporary files, which forgets them however the process ends."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def put(self, thing: Any) -> None:
        with writing(tempfile.gettempdir()):
            pickle.dump(thing, self._file, protocol=pickle.HIGHEST_PROTOCOL)

    def __iter__(self) -> Iterator[Any]:
        """What was put in so far."""
        end = self._file.seek(0, io.SEEK_END)
        self._file.seek(0)
        while self._file.tell() < end:
            yield pickle.load(self._file)


@contextmanager
def spool() -> Iterator[Spool]:
    with tempfile.TemporaryFile() as file:
        yield Spool(file)

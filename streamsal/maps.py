"""The stored results of one video, read frame by frame from wherever they lie.

In flow frame numbers; out come arrays, at the stored resolution or at the size of the displayed frame, each checked
against the checksum it was written with. Reads shards and merged files alike, one compressed frame at a time, with a
few files open however many shards there are. Knows no plan.
"""

from __future__ import annotations

import bisect
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .blockfile import open_h5
from .density import enlarged, unpack
from .errors import BadInput, IncompleteRun, MissingInput
from .layout import DONE, H5, HOLE, load_outputs, offset_name, read_constant, read_row
from .models.spec import Output

OPEN_FILES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Rows first_row, first_row + 1, ... of a video, stored as rows 0, 1, ... of a group of a file.

    `shard` is the task that computed them; -1 in a file that holds the whole video itself.
    """

    first_row: int
    path: Path
    group: str
    shard: int = -1

    @property
    def command(self) -> str:
        """What computes it again, for error messages."""
        return f"`streamsal infer {self.path.parents[1]} --task-id {self.shard}`"  # RUN/shards/0003.h5


class OpenFiles:
    """The files read last, kept open; HDF5 itself would keep every shard of a virtual dataset open and run out."""

    def __init__(self) -> None:
        self._files: OrderedDict[Path, H5] = OrderedDict()
        self._lock = threading.Lock()

    def read_row(self, path: Path, dataset: str, row: int) -> tuple[np.ndarray, int]:
        with self._lock:
            return read_row(self._open(path)[dataset], row)

    def read_constant(self, path: Path, group: str, name: str) -> np.ndarray:
        with self._lock:
            return read_constant(self._open(path)[group], name)

    def _open(self, path: Path) -> H5:
        if path not in self._files:
            self._files[path] = open_h5(path)
            if len(self._files) > OPEN_FILES:
                self._files.popitem(last=False)[1].close()
        self._files.move_to_end(path)
        return self._files[path]

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()


class Maps:
    """What a run holds for one video. Frames are display-order numbers in the video, never rows of the file.

    `frame` int64, `pts_seconds` float64, `status` uint8 (1 done, 2 hole): one entry per stored frame. `outputs`:
    {name: Output}. `info`: every attribute the file carries. `height`, `width`: displayed size in pixels.

    `segments` {output: where its frames lie, in order}; `home`: where the constants lie.
    """

    def __init__(
        self,
        *,
        info: Mapping[str, Any],
        outputs: Sequence[Output],
        arrays: Mapping[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
        segments: Mapping[str, Sequence[Segment]],
        home: Segment,
    ) -> None:
        self.info = dict(info)
        self.name: str = self.info["video"]
        self.outputs = {output.name: output for output in outputs}
        self.height, self.width = int(self.info["height"]), int(self.info["width"])
        self.frame, self.pts_seconds, self.status = (arrays[name] for name in ("frame", "pts_seconds", "status"))
        self._arrays, self._shapes, self._segments, self._home = arrays, shapes, segments, home
        self._constants: dict[str, np.ndarray] = {}
        self._files = OpenFiles()

    def __len__(self) -> int:
        return len(self.frame)

    def __repr__(self) -> str:
        outputs = ", ".join(f"{name} {self._shapes[name]}" for name in self.outputs)
        return f"Maps({self.name!r}, {len(self)} frames {self.width}x{self.height}, {outputs})"

    @property
    def holes(self) -> np.ndarray:
        """Numbers of the frames the video has no picture for."""
        return self.frame[self.status == HOLE]

    @property
    def first(self) -> Output:
        """What the run is about. Raises IncompleteRun where it is still to be made, by merging."""
        return self._output(None)

    @property
    def constants(self) -> Mapping[str, np.ndarray]:
        """Arrays, float32, that the model gave for the whole video, such as those that reading its maps back needs.

        Raises BadInput where the file is damaged.
        """
        for name in json.loads(self.info.get("constants", "[]")):
            if name not in self._constants:
                self._constants[name] = self._constant(name)
        return self._constants

    def scalar(self, name: str) -> np.ndarray:
        """An output that is one number per frame: (n,) float32, NaN at holes."""
        output = self._output(name)
        if not output.scalar:
            raise ValueError(f"{name} is not one number per frame: use output()")
        return self._arrays[name]

    @property
    def scalars(self) -> dict[str, np.ndarray]:
        """Every output that is one number per frame."""
        return {name: self.scalar(name) for name, output in self.outputs.items() if output.scalar}

    def frames(self, start: int = 0, stop: int | None = None, every: int = 1) -> Iterator[int]:
        """Stored frame numbers in [start, stop): the first of them, and those a multiple of `every` after it."""
        first = int(np.searchsorted(self.frame, start))
        for frame in self.frame[first:]:
            if stop is not None and frame >= stop:
                return
            if (frame - self.frame[first]) % every == 0:
                yield int(frame)

    def at(self, seconds: float) -> int:
        """The stored frame on screen at a time of the video's clock; the first one before it begins."""
        return int(self.frame[max(0, int(np.searchsorted(self.pts_seconds, seconds, side="right")) - 1)])

    def shape(self, name: str | None = None) -> tuple[int, ...]:
        """Shape of one stored frame of an output."""
        return self._shapes[self._output(name).name]

    def output(self, name: str, frame: int) -> np.ndarray:
        """One frame of any output as the model gave it, float32, at the stored resolution; NaN at a hole.

        Raises BadInput naming the frame where the file is damaged, ValueError for a frame the run does not hold.
        """
        output, row = self._output(name), self._row(frame)
        shape = self._shapes[output.name]
        if output.scalar:
            return np.asarray(self._arrays[output.name][row])
        if self.status[row] != DONE:
            return np.full(shape, np.nan, np.float32)
        stored = self._stored(output.name, row)
        if offsets := offset_name(output):
            return unpack(stored[None], self._arrays[offsets][row : row + 1])[0]
        return stored.astype(np.float32)

    def native(self, frame: int) -> np.ndarray:
        """The first output at the stored resolution; log densities sum to 1 there."""
        return self.output(self.first.name, frame)

    def log_density(
        self,
        frames: int | slice | Sequence[int] | np.ndarray,
        name: str | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """Natural-log density of every displayed pixel, float32, logsumexp 0 per frame, NaN at holes.

        (H, W) for a frame number, (n, H, W) for a slice or several: `log_density(slice(100, 200))` reads the stored
        frames among 100 ... 199. `size` (height, width): of a frame of that size instead. Raises ValueError where the
        output is no density.
        """
        output = self._output(name)
        if not output.is_density:
            raise ValueError(f"{output.name} of {self.info['model']} is a {output.kind}, no density: use full_size()")
        return self.full_size(frames, output.name, size=size)

    def full_size(
        self,
        frames: int | slice | Sequence[int] | np.ndarray,
        name: str | None = None,
        *,
        size: tuple[int, int] | None = None,
    ) -> np.ndarray:
        """A map at displayed size, or at `size`, float32: of any output that has a read-back rule."""
        output = self._output(name)
        if output.readback is None:
            raise ValueError(f"{output.name} is stored as the model gave it and has no larger size: use output()")
        size = size or (self.height, self.width)
        if isinstance(frames, (int, np.integer)):
            return self._enlarge(output, int(frames), size)
        if isinstance(frames, slice):
            frames = list(self.frames(frames.start or 0, frames.stop, frames.step or 1))
        found = np.empty((len(frames), *size), np.float32)
        for i, frame in enumerate(frames):
            found[i] = self._enlarge(output, int(frame), size)
        return found

    def close(self) -> None:
        self._files.close()
        self._constants.clear()

    def _enlarge(self, output: Output, frame: int, size: tuple[int, int]) -> np.ndarray:
        if self.status[self._row(frame)] != DONE:
            return np.full(size, np.nan, np.float32)
        import torch

        native = torch.from_numpy(self.output(output.name, frame))[None]
        constants = {name: torch.from_numpy(array) for name, array in self.constants.items()}
        return enlarged(native, *size, output, constants)[0].numpy()

    def _output(self, name: str | None) -> Output:
        unmade = [output.name for output in load_outputs(self.info.get("derived", "[]"))]
        if unmade and (name or unmade[0]) in unmade and unmade[0] not in self.outputs:
            run = self._home.path.parents[1]
            raise IncompleteRun(
                f"{unmade[0]} of {self.name} is made of what the tasks stored: run `streamsal merge {run}` first"
            )
        if name is None:
            return next(iter(self.outputs.values()))
        if name not in self.outputs:
            raise ValueError(f"no output {name!r} in this run; it holds {', '.join(self.outputs)}")
        return self.outputs[name]

    def _row(self, frame: int) -> int:
        row = int(np.searchsorted(self.frame, frame))
        if row == len(self.frame) or self.frame[row] != frame:
            held = f"every {self.info['every']} frames" if int(self.info["every"]) > 1 else "frames"
            raise ValueError(
                f"no frame {frame} of {self.name}: the run holds {held} {self.frame[0]} to {self.frame[-1]}"
            )
        return row

    def _constant(self, name: str) -> np.ndarray:
        try:
            return self._files.read_constant(self._home.path, self._home.group, name)
        except FileNotFoundError:
            raise _gone(self._home) from None
        except (OSError, RuntimeError, KeyError, ValueError):
            raise damaged_constant(self.name, name, self._home) from None

    def _stored(self, name: str, row: int) -> np.ndarray:
        segments = self._segments[name]
        segment = segments[bisect.bisect_right(segments, row, key=lambda segment: segment.first_row) - 1]
        try:
            stored, crc32 = self._files.read_row(segment.path, f"{segment.group}/{name}", row - segment.first_row)
        except FileNotFoundError:
            raise _gone(segment) from None
        except (OSError, RuntimeError, KeyError, ValueError):
            raise damaged_frame(self.name, int(self.frame[row]), segment) from None
        if crc32 != self._arrays[f"{name}_crc32"][row]:
            raise damaged_frame(self.name, int(self.frame[row]), segment)
        return stored


def damaged_frame(video: str, frame: int, segment: Segment) -> BadInput:
    return _damaged(f"frame {frame} of {video}", segment)


def damaged_constant(video: str, name: str, segment: Segment) -> BadInput:
    return _damaged(f"the constant {name} of {video}", segment)


def _damaged(what: str, segment: Segment) -> BadInput:
    redo = f"delete that file, run {segment.command} and merge again"
    if segment.shard < 0:
        redo = "delete that file and merge again"
    return BadInput(f"{what} is damaged in {segment.path}: {redo}")


def _gone(segment: Segment) -> IncompleteRun | MissingInput:
    if segment.shard < 0:
        return MissingInput(f"{segment.path} is gone: merge again")
    return IncompleteRun(
        f"{segment.path} is missing: run {segment.command}, or keep merged files together with their shards folder"
    )

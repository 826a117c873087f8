"""The stored results of one video, read frame by frame from wherever they lie.

In flow frame numbers; out come arrays, at the stored resolution or at the size of the displayed frame, each checked
against the checksum it was written with. Reads shards and merged files alike, one compressed frame at a time, with a
few files open however many shards there are. Knows no plan.
"""

from __future__ import annotations

import bisect
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import h5py
import numpy as np

from .density import full_size, unpack
from .errors import BadInput, IncompleteRun, MissingInput
from .layout import DONE, H5, HOLE, offset_name, read_row
from .models.spec import Output, Readback

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
            if path not in self._files:
                self._files[path] = h5py.File(path, "r", locking="best-effort")
                if len(self._files) > OPEN_FILES:
                    self._files.popitem(last=False)[1].close()
            self._files.move_to_end(path)
            return read_row(self._files[path][dataset], row)

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()


class Maps:
    """What a run holds for one video. Frames are display-order numbers in the video, never rows of the file.

    `frame` int64, `pts_seconds` float64, `status` uint8 (1 done, 2 hole): one entry per stored frame. `outputs`:
    {name: Output}, the first is what the run is about. `info`: every attribute the file carries. `height`, `width`:
    displayed size in pixels.
    """

    def __init__(
        self,
        *,
        info: Mapping[str, Any],
        outputs: Sequence[Output],
        arrays: Mapping[str, np.ndarray],
        shapes: Mapping[str, tuple[int, ...]],
        segments: Sequence[Segment],
    ) -> None:
        self.info = dict(info)
        self.name: str = self.info["video"]
        self.outputs = {output.name: output for output in outputs}
        self.height, self.width = int(self.info["height"]), int(self.info["width"])
        self.frame, self.pts_seconds, self.status = (arrays[name] for name in ("frame", "pts_seconds", "status"))
        self._arrays, self._shapes, self._segments = arrays, shapes, sorted(segments, key=lambda s: s.first_row)
        self._first_rows = [segment.first_row for segment in self._segments]
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
        if self.status[row] != DONE:
            return np.full(shape, np.nan, np.float32)
        stored = self._stored(output.name, row)
        if offsets := offset_name(list(self.outputs.values()), output.name):
            return unpack(stored[None], self._arrays[offsets][row : row + 1])[0]
        return stored.astype(np.float32)

    def native(self, frame: int) -> np.ndarray:
        """The first output at the stored resolution; densities sum to 1 there."""
        return self.output(self._output(None).name, frame)

    def log_density(self, frames: int | slice | Sequence[int] | np.ndarray, name: str | None = None) -> np.ndarray:
        """Natural-log density of every displayed pixel, float32, logsumexp 0 per frame, NaN at holes.

        (H, W) for a frame number, (n, H, W) for a slice or several: `log_density(slice(100, 200))` reads the stored
        frames among 100 ... 199. Raises ValueError where the output is no density.
        """
        output = self._output(name)
        if output.kind != "log_density":
            raise ValueError(f"{output.name} of {self.info['model']} is a {output.kind}, no density: use full_size()")
        return self.full_size(frames, output.name)

    def full_size(self, frames: int | slice | Sequence[int] | np.ndarray, name: str | None = None) -> np.ndarray:
        """A map at displayed size, float32: of any output that has a read-back rule."""
        output = self._output(name)
        if output.readback is None:
            raise ValueError(f"{output.name} is stored as the model gave it and has no larger size: use output()")
        if isinstance(frames, (int, np.integer)):
            return self._enlarge(output, int(frames))
        if isinstance(frames, slice):
            frames = list(self.frames(frames.start or 0, frames.stop, frames.step or 1))
        found = np.empty((len(frames), self.height, self.width), np.float32)
        for i, frame in enumerate(frames):
            found[i] = self._enlarge(output, int(frame))
        return found

    def close(self) -> None:
        self._files.close()

    def _enlarge(self, output: Output, frame: int) -> np.ndarray:
        if self.status[self._row(frame)] != DONE:
            return np.full((self.height, self.width), np.nan, np.float32)
        import torch
        from torch.nn.functional import interpolate

        size = (self.height, self.width)
        native = torch.from_numpy(self.output(output.name, frame))[None]
        if output.kind == "log_density":
            return full_size(native, *size, cast(Readback, output.readback))[0].numpy()
        return interpolate(native[None], size, mode="bilinear", align_corners=False)[0, 0].numpy()

    def _output(self, name: str | None) -> Output:
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

    def _stored(self, name: str, row: int) -> np.ndarray:
        segment = self._segments[bisect.bisect_right(self._first_rows, row) - 1]
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
    redo = f"delete that file, run {segment.command} and merge again"
    if segment.shard < 0:
        redo = "delete that file and merge again"
    return BadInput(f"frame {frame} of {video} is damaged in {segment.path}: {redo}")


def _gone(segment: Segment) -> IncompleteRun | MissingInput:
    if segment.shard < 0:
        return MissingInput(f"{segment.path} is gone: merge again")
    return IncompleteRun(
        f"{segment.path} is missing: run {segment.command}, or keep merged files together with their shards folder"
    )

"""Clips on disk in, uint8 windows of them out, in the order asked for, decoded by worker processes.

Which frames make a window is integer arithmetic; pictures come from the engine's own reader, holes filled as there.
What comes out does not depend on the number of workers. This module does not resize, mirror or normalize: that is the
caller's, on the device.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..decode import VideoReader
from ..errors import StreamsalError, VideoError
from ..index import index_video
from .manifest import Manifest

Order = Literal["natural", "legacy"]
At = float | int | Literal["all"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """Windows of one clip. `at` is where they begin, a float u in [0, 1): one window, at floor(u * (n - frames + 1));
    an int k: k windows spread evenly, the first at frame 0; "all": one behind the other."""

    row: int
    at: At = 0.0
    flip: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    row: int
    windows_ktHWC: Tensor  # uint8 RGB
    flip: bool


def windows(n: int, frames: int, at: At, order: Order = "natural") -> np.ndarray:
    """(k, frames) int64: numbers of the frames in each window of a clip of n frames; the last one is repeated.

    "legacy" is the order of frame numbers as text, as in a sorted list of files: 0 1 10 11 ... 19 2 20.
    """
    if at == "all":
        starts = np.arange(0, n, frames)
    elif isinstance(at, int):
        starts = np.rint(np.linspace(0, max(n - frames, 0), at)).astype(np.int64)
    else:
        starts = np.array([int(at * max(n - frames + 1, 1))])
    numbers = starts[:, None] + np.arange(frames)
    if order == "legacy":
        numbers = np.array([sorted(window, key=str) for window in numbers.tolist()])
    return np.minimum(numbers, n - 1)


def decoded(path: Path, at: At = 0.0, *, frames: int, order: Order = "natural") -> np.ndarray:
    """(k, frames, H, W, 3) uint8 RGB windows of a clip. Raises MissingInput, VideoError."""
    index = index_video(path)
    numbers = windows(index.n_frames, frames, at, order)
    needed, places = np.unique(numbers, return_inverse=True)
    with VideoReader(index) as reader:
        pictures = [None if f.picture is None else f.convert(f.picture) for f in reader.read(needed.tolist())]
    return np.stack(_filled(pictures, path))[places.reshape(numbers.shape)]


def _filled(pictures: list[np.ndarray | None], path: Path) -> list[np.ndarray]:
    """A stretch in which nothing can be decoded shows the picture before it, else the next."""
    known = [number for number, picture in enumerate(pictures) if picture is not None]
    if not known:
        raise VideoError(f"none of the wanted pictures of {path} can be decoded: mend the file, or leave it out")
    before = np.searchsorted(known, range(len(pictures)), side="right") - 1
    return [found for number in np.maximum(before, 0) if (found := pictures[known[number]]) is not None]


class Reading(Dataset):
    """What is wanted, by its place in the order; an error is an item too, so that it keeps its one sentence on its way
    from a worker."""

    def __init__(self, manifest: Manifest, wanted: Sequence[Wanted], *, frames: int, order: Order) -> None:
        self.manifest, self.wanted, self.frames = manifest, wanted, frames
        self.order: Order = order

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, number: int) -> tuple[Wanted, np.ndarray | StreamsalError]:
        wanted = self.wanted[number]
        try:
            path = self.manifest.clips[wanted.row].path
            return wanted, decoded(path, wanted.at, frames=self.frames, order=self.order)
        except StreamsalError as error:
            return wanted, error


def batches(
    manifest: Manifest,
    wanted: Sequence[Wanted],
    *,
    batch: int,
    frames: int,
    order: Order = "natural",
    workers: int = 0,
) -> Iterator[list[Read]]:
    """Lists of `batch` clips (the last may be shorter) in the order of `wanted`; 0 workers: this process decodes.

    Raises MissingInput, VideoError naming the clip.
    """
    loader = DataLoader(
        Reading(manifest, wanted, frames=frames, order=order),
        batch_size=batch,
        num_workers=min(workers, -(-len(wanted) // batch)),
        collate_fn=list,
        worker_init_fn=_deaf,
        generator=torch.Generator(),  # PyTorch 2.11 draws a seed for workers: not from the random numbers of training
    )
    for found in loader:
        yield [_read(one, windows) for one, windows in found]


def _read(wanted: Wanted, found: np.ndarray | StreamsalError) -> Read:
    if isinstance(found, StreamsalError):
        raise found
    return Read(row=wanted.row, windows_ktHWC=torch.from_numpy(found), flip=wanted.flip)


def _deaf(worker: int) -> None:
    """Signals go to whole process groups; what they mean is decided by the process that reads, whose end ends us."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)

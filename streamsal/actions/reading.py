"""Clips on disk in, uint8 windows of them out, in the order asked for, decoded by worker processes.

Which frames make a window is integer arithmetic; pictures come from the engine's own reader, holes filled as there.
Of each only those rows and columns are kept, as they are, that count for the side of the network's input, so that clips
of any size are small. What comes out does not depend on the number of workers. This module does not blend, mirror or
normalize: that is the caller's, on the device.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ..decode import VideoReader
from ..errors import StreamsalError, VideoError
from ..index import VideoIndex, index_video
from ..models.bilinear import thinned
from ..models.design import Design
from .manifest import Manifest

# Forked workers know what this process knows. Spawned ones import torch first, which takes seconds in every epoch.
START = "fork" if sys.platform == "linux" else "spawn"

# To index a clip of 3 seconds takes longer than to decode 32 frames of it (4 and 3 ms at 70x70), and 8 kB to remember.
REMEMBERED = 1 << 15
_indexes: dict[Path, VideoIndex] = {}

LOOK_SECONDS = 0.2
IGNORED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # by workers

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
    """`windows_ktHWC` is uint8 RGB, `bilinear.thinned`; `size` is the clip's own height and width in pixels."""

    row: int
    windows_ktHWC: Tensor
    size: tuple[int, int]
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


def decoded(
    index: VideoIndex, at: At = 0.0, *, frames: int, order: Order = "natural", side: int | None = None
) -> np.ndarray:
    """(k, frames, H, W, 3) uint8 RGB: windows of a clip, a missing picture filled as the engine does.

    With `side` H and W are at most 2 side: what `bilinear.thinned` leaves of each picture, of which one at a time is
    whole. Raises VideoError where that cannot be, PlanMismatch or MissingInput where the file is another one by now.
    """
    numbers = windows(index.n_frames, frames, at, order)
    needed, places = np.unique(numbers, return_inverse=True)
    pictures = []
    with VideoReader(index) as reader:
        for frame in reader.read(needed.tolist()):
            if frame.picture is None:
                raise VideoError(
                    f"neither frame {frame.index} of {index.path} can be decoded nor those around it: leave it out"
                )
            rgb = frame.convert(frame.picture)
            pictures.append(rgb if side is None else thinned(rgb, side))
    return np.stack(pictures)[places.reshape(numbers.shape)]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Decoded:
    """What a worker sends: arrays, as tensors would take shared memory and an open file each. An error is sent, too,
    because one that is raised there arrives with the text of a traceback for its sentence."""

    wanted: Wanted
    windows: np.ndarray | StreamsalError
    size: tuple[int, int] = (0, 0)
    index: VideoIndex | None = None  # if it had to be made


class Reading(Dataset[_Decoded]):
    """What is wanted, by its place in the order. `indexes` are those of clips that were read before."""

    def __init__(
        self, manifest: Manifest, wanted: Sequence[Wanted], design: Design, *, indexes: Mapping[Path, VideoIndex]
    ) -> None:
        self.manifest, self.wanted, self.design, self.indexes = manifest, wanted, design, indexes

    def __len__(self) -> int:
        return len(self.wanted)

    def __getitem__(self, number: int) -> _Decoded:
        wanted, design = self.wanted[number], self.design
        path = self.manifest.clips[wanted.row].path
        known = self.indexes.get(path)
        try:
            index = known or index_video(path)
            found = decoded(index, wanted.at, frames=design.frames, order=design.order, side=design.side_in)
        except StreamsalError as error:
            return _Decoded(wanted=wanted, windows=error)
        size = (index.display_height, index.display_width)
        return _Decoded(wanted=wanted, windows=found, size=size, index=None if known else index)


class Loader(DataLoader[_Decoded]):
    def check_worker_number_rationality(self) -> None:
        """PyTorch 2.11 warns of more workers than cores, in every epoch; a job with one core may well have two."""


def batches(
    manifest: Manifest, wanted: Sequence[Wanted], design: Design, *, batch: int, workers: int = 0
) -> Generator[list[Read]]:
    """Lists of `batch` clips (the last may be shorter) in the order of `wanted`; 0 workers: this process decodes.

    `design` says how many frames make a window, their order, and the side that they are thinned for. Each worker holds
    at most three batches. Raises VideoError or MissingInput naming the clip when its turn comes, StreamsalError if a
    worker was killed.
    """
    workers = min(workers, -(-len(wanted) // batch))
    loader = Loader(
        Reading(manifest, wanted, design, indexes=_indexes),
        batch_size=batch,
        num_workers=workers,
        collate_fn=list,
        worker_init_fn=partial(_obey, os.getpid()),
        multiprocessing_context=START if workers else None,
        generator=torch.Generator(),  # PyTorch 2.11 draws a seed for workers: not from the random numbers of training
    )
    try:
        for found in _iterated(loader):
            yield [_read(manifest, one) for one in found]
    except RuntimeError as error:
        if "DataLoader worker (pid" not in str(error):  # as PyTorch 2.11 speaks of the dead
            raise
        raise StreamsalError(
            "a process that decoded clips was killed: run again, with fewer workers if memory was short"
        ) from error


def _read(manifest: Manifest, found: _Decoded) -> Read:
    if isinstance(found.windows, StreamsalError):
        raise found.windows
    if found.index and len(_indexes) < REMEMBERED:
        _indexes[manifest.clips[found.wanted.row].path] = found.index
    windows_ktHWC = torch.from_numpy(found.windows)
    return Read(row=found.wanted.row, windows_ktHWC=windows_ktHWC, size=found.size, flip=found.wanted.flip)


def _iterated(loader: DataLoader[_Decoded]) -> Iterator[list[_Decoded]]:
    """PyTorch 2.11 has a signal handler raise wherever the main thread is when a worker dies. Without it the death is
    found here, by who waits for that worker."""
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, IGNORED)  # which workers inherit, until they can ignore signals
    try:
        if threading.current_thread() is not threading.main_thread():
            return iter(loader)
        before = signal.getsignal(signal.SIGCHLD) or signal.SIG_DFL
        found = iter(loader)
        signal.signal(signal.SIGCHLD, before)
        return found
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def _obey(parent: int, worker: int) -> None:
    """Signals go to whole process groups, but what they mean is for the process that reads, with whose end we end."""
    for number in IGNORED:
        signal.signal(number, signal.SIG_IGN)
    waits = (signal.SIGTERM,) if hasattr(signal, "sigtimedwait") else ()  # which macOS has not
    for number in waits:
        signal.signal(number, signal.SIG_DFL)  # and blocked: what is ignored cannot be waited for
    signal.pthread_sigmask(signal.SIG_UNBLOCK, set(IGNORED) - set(waits))
    threading.Thread(target=_end_with, args=(parent, waits), daemon=True).start()


def _end_with(parent: int, waits: tuple[signal.Signals, ...]) -> None:
    """Until the parent has ended, or ends this process: Python does that by SIGTERM when it leaves, and then waits.

    PyTorch 2.11 looks after the first, too, but a worker with arrays to send waits for ever for somebody to take them.
    """
    while os.getppid() == parent:
        if not waits:
            time.sleep(LOOK_SECONDS)
        elif (found := signal.sigtimedwait(waits, LOOK_SECONDS)) and found.si_pid == parent:
            break
    os._exit(1)

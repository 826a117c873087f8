"""One HDF5 shard: what one task computed, appended block by block, resumed after any end.

In flow the values of consecutive frames, float32; out comes RUN/shards/0003.h5 with one group per video and, in it,
one dataset per output, compressed frame by frame on worker threads, beside `frame`, `pts_seconds`, `status` and a
checksum per frame. Only rows below the group's `committed` attribute are ever believed. Knows no models, no decoding
and no other shard.
"""

from __future__ import annotations

import contextlib
import os
import time
import weakref
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np

from .blockfile import BlockFile
from .errors import PlanMismatch, WriteError
from .files import sync_folder, write_error
from .layout import (
    CONSTANTS,
    DONE,
    FORMAT,
    H5,
    HISTORY,
    HOLE,
    NOT_COMPUTED,
    STATUS_MEANING,
    Packed,
    PartInfo,
    alike,
    create_output,
    damaged,
    pack_frame,
    read_constant,
    write_constant,
    write_rows,
)
from .models.spec import Output

# Old file structures: attributes stay in the group's header, where changing `committed` is one small write. "latest"
# and SWMR cannot be opened after a kill (HDF5 2.0).
LIBVER = "earliest"
SYNC_SECONDS = 30.0
TAIL_ROWS = 64  # checked against their checksums on resume: a lost node can lose more than a killed process


def shard_path(run: str | Path, number: int) -> Path:
    return Path(run) / "shards" / f"{number:04d}.h5"


@dataclass(slots=True)
class _Group:
    """A part being written. `appended` >= `written` >= `committed`: handed over, in h5py's hands, safe."""

    info: PartInfo
    group: H5
    committed: int
    written: int
    appended: int


@dataclass(frozen=True, slots=True)
class _Block:
    """Rows of one append that worker threads are packing; None stands for a hole. Scalars need no packing."""

    target: _Group
    row: int
    pts_seconds: np.ndarray
    hole: np.ndarray
    packed: dict[str, list[Future[Packed] | None]]
    scalars: dict[str, np.ndarray]

    @property
    def ready(self) -> bool:
        return all(future is None or future.done() for futures in self.packed.values() for future in futures)


class ShardWriter:
    """Writes the shard at `path`, or goes on with it where it was begun for the same `parts`.

    Instead of a path it takes a file that is locked already. A file that cannot be read or belongs to other work
    is moved aside to `.broken-N`. One thread at a time may call.
    Memory holds the packed rows since the last commit and the values of two appends.
    """

    def __init__(self, path: str | Path | BlockFile, parts: Sequence[PartInfo], *, threads: int = 2) -> None:
        self.path = path.path if isinstance(path, BlockFile) else Path(path)
        self.parts = tuple(parts)
        if len({part.video for part in self.parts}) != len(self.parts):
            raise ValueError("two parts of one shard have the same video")
        self._blocks: deque[_Block] = deque()
        self._synced = time.monotonic()
        self._file = path if isinstance(path, BlockFile) else BlockFile(path)
        try:
            self._h5: H5 = self._resume() or self._start()
        except BaseException:
            self._file.close()
            raise
        self._pool = ThreadPoolExecutor(max(1, threads), thread_name_prefix="store")
        # HDF5 must be through with its callbacks into Python before the interpreter ends, whoever forgot close().
        self._finalizer = weakref.finalize(self, _close, self._pool, self._h5, self._file)

    def committed(self, part: PartInfo) -> int:
        """Rows of `part` that are safe in the file."""
        return self._groups[part.video].committed

    def holes(self, part: PartInfo) -> int:
        """How many of the rows of `part` that are safe have no picture."""
        return int((self._groups[part.video].group["status"][: self.committed(part)] == HOLE).sum())

    @property
    def complete(self) -> bool:
        return bool(self._h5.attrs["complete"])

    def put_constants(self, part: PartInfo, constants: Mapping[str, np.ndarray]) -> None:
        """Hand over what reading `part` back needs beside its rows; before the first append, and again on resume.

        Raises PlanMismatch where the part was begun with others.
        """
        group = self._groups[part.video].group
        for name in part.constants:
            if name not in group.get(CONSTANTS, ()):
                write_constant(group, name, constants[name])
            elif not alike(read_constant(group, name), constants[name]):
                raise PlanMismatch(
                    f"{self.path} was begun with another {name} of {part.video} than the model gives now: put back "
                    "what the model was made of, or delete that file and run again"
                )

    def append(
        self,
        part: PartInfo,
        *,
        frame: np.ndarray,
        pts_seconds: np.ndarray,
        hole: np.ndarray,
        values: Mapping[str, np.ndarray],
    ) -> None:
        """Hand over the next rows of `part`; values (n, ...) float32 per output, not to be changed afterwards.

        Returns once at most one earlier append is still being compressed. Nothing is safe before `commit`.
        """
        target = self._groups[part.video]
        row, count = target.appended, len(frame)
        if lacking := [name for name in part.constants if name not in target.group.get(CONSTANTS, ())]:
            raise ValueError(f"{part.video}: the constants {', '.join(lacking)} come before the first row")
        if list(part.frames[row : row + count]) != list(frame):
            raise ValueError(f"{part.video}: row {row} is not the next one for frames {list(frame)[:3]} ...")
        while len(self._blocks) > 1:
            self._write(self._blocks.popleft())
        block = _Block(target, row, np.asarray(pts_seconds, np.float64), np.asarray(hole, np.bool_), {}, {})
        for output in part.outputs:
            value = values[output.name]
            dtype = self._dataset(target, output, np.shape(value)[1:]).dtype
            if output.scalar:
                block.scalars[output.name] = np.where(hole, np.nan, value).astype(dtype)
                continue
            block.packed[output.name] = [
                None if hole[i] else self._pool.submit(pack_frame, output, dtype, value[i : i + 1], int(frame[i]))
                for i in range(count)
            ]
        target.appended += count
        self._blocks.append(block)

    def commit(self, *, wait: bool = True) -> None:
        """Make every appended row safe: rows first, then the counters that vouch for them. Raises WriteError.

        With `wait` off, blocks that are still being compressed are left to the next commit.
        """
        while self._blocks and (wait or self._blocks[0].ready):
            self._write(self._blocks.popleft())
        advanced = [group for group in self._groups.values() if group.written > group.committed]
        if advanced:
            self._flush()
            for group in advanced:
                group.group.attrs.modify("committed", np.int64(group.written))
            self._flush()
            for group in advanced:
                group.committed = group.written
        if time.monotonic() - self._synced >= SYNC_SECONDS:
            self._file.sync()
            self._synced = time.monotonic()

    def finish(self) -> None:
        """Commit and mark the shard as whole. Raises ValueError where rows are missing."""
        self.commit()
        for group in self._groups.values():
            if group.committed < (n_rows := len(group.info.frames)):
                raise ValueError(f"{self.path}: {group.info.video} has {group.committed} of {n_rows} rows")
        self._file.sync()
        if not self.complete:
            self._h5.attrs.modify("complete", np.int64(1))
            self._flush()
            self._file.sync()
        sync_folder(self.path.parent)

    def close(self) -> None:
        """Let go of the file; rows appended since the last commit are dropped. Never raises for the disk."""
        self._finalizer()

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> H5:
        fresh = self._file.size == 0
        if not fresh:
            self._move_aside()
        h5: H5 = h5py.File(self._file, "w", libver=LIBVER)
        h5.attrs.update({"format": FORMAT, "plan_id": self.parts[0].plan_id if self.parts else ""})
        h5.attrs["complete"] = np.int64(0)
        self._groups = {part.video: _make_group(h5, part) for part in self.parts}
        h5.flush()
        try:
            self._file.commit()
        except WriteError:
            _close(None, h5, self._file)
            raise
        sync_folder(self.path.parent)
        return h5

    def _resume(self) -> H5 | None:
        """The file as it was left, counters and tail checked; None where it must be begun anew."""
        if self._file.size == 0:
            return None
        h5: H5 = None
        try:
            h5 = h5py.File(self._file, "r+", libver=LIBVER)
            if h5.attrs["format"] == FORMAT and set(h5) == {part.video for part in self.parts}:
                groups = [_open_group(h5[part.video], part) for part in self.parts]
                self._groups = {group.info.video: group for group in groups if group is not None}
                if None not in groups:
                    whole = all(group.committed == len(group.info.frames) for group in self._groups.values())
                    h5.attrs.modify("complete", np.int64(whole and h5.attrs["complete"]))
                    self._flush_to(h5)
                    return h5
        except (OSError, RuntimeError, KeyError, ValueError):
            pass  # HDF5 says "unreadable" in all of these ways
        except WriteError:
            _close(None, h5, self._file)
            raise
        if h5 is not None:
            with contextlib.suppress(OSError, RuntimeError):
                h5.close()
        return None

    def _move_aside(self) -> None:
        number = 1
        while (aside := self.path.with_name(f"{self.path.name}.broken-{number}")).exists():
            number += 1
        self._file.close()
        try:
            os.rename(self.path, aside)
        except OSError as error:
            raise write_error(self.path, error) from error
        self._file = BlockFile(self.path)

    def _flush(self) -> None:
        self._flush_to(self._h5)

    def _flush_to(self, h5: H5) -> None:
        h5.flush()
        self._file.commit()

    def _dataset(self, target: _Group, output: Output, shape: tuple[int, ...]) -> H5:
        """The dataset of an output, made at the first append, when its shape is known."""
        if output.name in target.group:
            dataset = target.group[output.name]
            if dataset.shape[1:] != shape:
                raise ValueError(f"{output.name} had shape {dataset.shape[1:]} before and has {shape} now")
            return dataset
        info = target.info
        return create_output(target.group, output, info.store_dtype, len(info.frames), shape)

    def _write(self, block: _Block) -> None:
        target, stop = block.target, block.row + len(block.hole)
        try:
            frames = {name: [f.result() if f else None for f in futures] for name, futures in block.packed.items()}
        except BaseException:
            self._forget_blocks()
            raise
        for output in target.info.outputs:
            if output.scalar:
                target.group[output.name][block.row : stop] = block.scalars[output.name]
            else:
                write_rows(target.group, output, block.row, frames[output.name])
        target.group["pts_seconds"][block.row : stop] = block.pts_seconds
        target.group["status"][block.row : stop] = np.where(block.hole, HOLE, DONE)
        target.written = stop

    def _forget_blocks(self) -> None:
        """After a failure: the next row expected is the first one not written, so that no gap can be vouched for."""
        self._blocks.clear()
        for group in self._groups.values():
            group.appended = group.written


def _close(pool: ThreadPoolExecutor | None, h5: H5, file: BlockFile) -> None:
    if pool is not None:
        pool.shutdown(wait=True, cancel_futures=True)
    with contextlib.suppress(OSError, RuntimeError):
        h5.close()
    file.close()


def _make_group(h5: H5, info: PartInfo) -> _Group:
    group = h5.create_group(info.video)
    group.attrs.update(info.attributes())
    group.attrs["committed"] = np.int64(0)
    n_rows = len(info.frames)
    group.create_dataset("frame", data=np.array(info.frames, np.int64))
    group.create_dataset("pts_seconds", data=np.full(n_rows, np.nan))
    group.create_dataset("status", data=np.zeros(n_rows, np.uint8))
    group["status"].attrs["meaning"] = STATUS_MEANING
    return _Group(info, group, 0, 0, 0)


def _open_group(group: H5, info: PartInfo) -> _Group | None:
    """A group to go on with; None where it holds other work or lost rows it vouches for."""
    ours = info.attributes()
    if any(group.attrs[name] != ours[name] for name in ours if name not in (*HISTORY, "time_base", "orientation")):
        return None
    committed = int(group.attrs["committed"])
    done = int((group["status"][:committed] == DONE).sum())
    constants = list(group.get(CONSTANTS, ()))
    if committed and set(constants) != set(info.constants):
        return None
    for name in constants:
        read_constant(group, name)  # raises where damaged
    for output in info.outputs:
        if committed and not output.scalar and group[output.name].id.get_num_chunks() < done:
            return None
    tail = range(max(0, committed - TAIL_ROWS), committed)
    safe = next((row for row in tail if damaged(group, info.outputs, row)), committed)
    group.attrs.modify("committed", np.int64(safe))
    if np.any(group["status"][safe:] != NOT_COMPUTED):
        group["status"][safe:] = NOT_COMPUTED
    for name in HISTORY:
        if ours[name] not in (before := str(group.attrs[name]).split("; ")):
            group.attrs[name] = "; ".join([*before, ours[name]])
    return _Group(info, group, safe, safe, safe)

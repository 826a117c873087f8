"""A file for h5py in which nothing reaches the disk before `commit`, and a failed write leaves what was there.

HDF5 takes a failing disk badly: the write raises RuntimeError, close() raises again, and the interpreter crashes at
exit (HDF5 2.0). So it never meets one. It writes into memory here, and `commit` writes the growth of the file in one
piece, then the changes inside the old part; where the growth does not fit, the file is cut back to what it was. What
a killed process leaves behind is therefore its last commit. Knows nothing of what is in the file.
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import Any

import h5py

from .errors import Held, WriteError
from .files import write_error
from .locks import NO_LOCKS, Claim, Watch

COMMIT_BYTES = 64 << 20  # what an owner who writes much should let wait in memory
SPARE_BYTES = 1 << 16  # left free for the logs that will tell of the full disk


def open_h5(path: str | Path) -> Any:
    """An HDF5 file for reading. Raises what h5py raises: BlockingIOError where another process is writing it."""
    try:
        return h5py.File(path, "r", locking="best-effort")
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
    return h5py.File(path, "r", locking=False)  # HDF5 2.0 takes ENOSYS alone for "no locks here"


class BlockFile:
    """Opened for reading and writing, made if missing, locked as HDF5 itself would lock it, or else by a lease.

    Pass it to `h5py.File(BlockFile(path), mode)`. Raises Held where another process holds the file, WriteError
    where it cannot be opened.
    """

    def __init__(self, path: str | Path, watch: Watch | None = None) -> None:
        self.path = Path(path)
        self.failed = False
        self._claim = Claim(self.path, watch)
        self._descriptor = self._claim.descriptor
        self.size = os.fstat(self._descriptor).st_size  # on disk
        self._end = self.size  # as h5py sees it
        self._position = 0
        self._writes: list[tuple[int, bytes]] = []
        self.pending_bytes = 0

    # What h5py's "fileobj" driver calls.

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self._position = offset + {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        return self._position

    def tell(self) -> int:
        return self._position

    def write(self, data: memoryview | bytes) -> int:
        block = bytes(data)
        self._writes.append((self._position, block))
        self.pending_bytes += len(block)
        self._position += len(block)
        self._end = max(self._end, self._position)
        return len(block)

    def readinto(self, buffer: memoryview) -> int:
        start, length = self._position, len(buffer)
        block = bytearray(length)
        on_disk = os.pread(self._descriptor, length, start) if self._descriptor >= 0 and start < self.size else b""
        block[: len(on_disk)] = on_disk
        for offset, data in self._writes:
            low, high = max(start, offset), min(start + length, offset + len(data))
            if low < high:
                block[low - start : high - start] = data[low - offset : high - offset]
        buffer[:] = block
        self._position += length
        return length

    def read(self, size: int) -> bytes:
        block = bytearray(size)
        self.readinto(memoryview(block))
        return bytes(block)

    def truncate(self, size: int) -> int:
        self._end = size
        return size

    def flush(self) -> None:
        """HDF5 flushes when it likes; the disk is written in `commit` alone."""

    # What the owner of the file calls.

    def commit(self) -> None:
        """Write everything since the last commit; call after h5py's flush(). Raises WriteError, then and ever after.

        Raises Held where another process has taken the file over, because this one gave no sign for minutes.
        """
        if self.failed:
            raise WriteError(f"cannot write {self.path}: an earlier write failed")
        if self._claim.lost:
            self.failed = True
            raise Held(f"another process has taken {self.path} over, while this one was held up")
        try:
            self._write_growth()
            self._write_inside()
        except OSError as error:
            self.failed = True
            raise write_error(self.path, error) from error
        self.size, self._writes, self.pending_bytes = self._end, [], 0

    def sync(self) -> None:
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self.failed = True
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Drop what was not committed. A file in which there is nothing goes, too."""
        if self._descriptor >= 0 and self.size == 0:
            self._claim.unlink()
        self._claim.close()
        self._descriptor = -1

    def _write_growth(self) -> None:
        growth = bytearray(max(0, self._end - self.size))
        if not growth:
            if self._end < self.size:
                os.ftruncate(self._descriptor, self._end)
            return
        for offset, data in self._writes:
            outside = data[max(0, self.size - offset) :]
            at = max(0, offset - self.size)
            outside = outside[: max(0, len(growth) - at)]
            growth[at : at + len(outside)] = outside
        self._check_room(len(growth))
        try:
            self._write_at(self.size, growth)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self.size)
            raise

    def _write_inside(self) -> None:
        for offset, data in self._writes:
            inside = data[: max(0, min(self.size, self._end) - offset)]
            if inside:
                self._write_at(offset, inside)

    def _check_room(self, n_bytes: int) -> None:
        room = os.fstatvfs(self._descriptor)
        if room.f_blocks and room.f_bavail * room.f_frsize < n_bytes + SPARE_BYTES:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _write_at(self, offset: int, data: bytes | bytearray) -> None:
        view = memoryview(data)
        while view:
            written = os.pwrite(self._descriptor, view, offset)
            view, offset = view[written:], offset + written

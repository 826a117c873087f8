"""Files that appear whole or not at all, and what the disk's refusals mean."""

from __future__ import annotations

import contextlib
import errno
import functools
import glob
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from .errors import WriteError

DEBRIS_SECONDS = 86400.0


@contextlib.contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place, synced to disk, when the block ends without an error.

    The suffix is kept, because encoders and HDF5 tools look at it. Raises WriteError with the reason.
    """
    path = Path(path)
    part = path.with_name(f".{path.stem}.{socket.gethostname()}.{os.getpid()}.part{path.suffix}")
    _remove_debris(path)
    try:
        with writing(path):
            yield part
            with open(part, "rb") as file:
                os.fsync(file.fileno())
            os.replace(part, path)
            sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):  # on a read-only file system not even what is not there can be removed
            part.unlink()


@functools.cache  # once per process: a heartbeat must not list its folder every few seconds
def _remove_debris(path: Path) -> None:
    """Temporary files of writers of `path` that were killed: on this host, or anywhere a day ago."""
    ours = f".{path.stem}.{socket.gethostname()}."
    for name in glob.glob(f".{glob.escape(path.stem)}.*.part{glob.escape(path.suffix)}", root_dir=path.parent):
        part = path.with_name(name)
        pid = name.removeprefix(ours).partition(".")[0] if name.startswith(ours) else ""
        with contextlib.suppress(OSError):  # its writer may just have finished, or another may have removed it
            if (pid.isdigit() and _is_dead(int(pid))) or part.stat().st_mtime < time.time() - DEBRIS_SECONDS:
                part.unlink()


def _is_dead(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


@contextlib.contextmanager
def writing(path: str | Path, errors: tuple[type[Exception], ...] = (OSError,)) -> Iterator[None]:
    """Turns what the disk refuses into a WriteError that names `path`. `errors` carry an errno as OSError does."""
    try:
        yield
    except errors as error:
        if getattr(error, "errno", None) in REASONS:
            raise write_error(path, error) from error
        raise


def write_bytes(path: str | Path, data: bytes) -> None:
    with replacing(path) as part:
        part.write_bytes(data)


def sync_folder(folder: Path) -> None:
    """A rename is on disk only when its folder is; some network file systems cannot sync one, which is no error."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the quota is used up",
    errno.EFBIG: "the file would be larger than allowed",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.ENOENT: "the folder does not exist",
    errno.ENOTDIR: "a part of the path is not a folder",
    errno.EISDIR: "a folder of that name is in the way",
    errno.EMFILE: "too many files are open (see ulimit -n)",
    errno.ENAMETOOLONG: "the name is too long",
    errno.EIO: "input/output error",
}


def write_error(path: str | Path, error: Exception) -> WriteError:
    reason = REASONS.get(getattr(error, "errno", None) or 0) or getattr(error, "strerror", None) or str(error)
    return WriteError(f"cannot write {path}: {reason}; mend that and run the same command again, it resumes")


def make_folder(path: str | Path) -> Path:
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise WriteError(f"cannot make the folder {path}: a file of that name is in the way") from None
    except OSError as error:
        raise write_error(path, error) from error
    return path

"""Locks that die with their holder: flock where the file system has it, else a file that its holder keeps changing.

Locks save work and order planners; correctness rests on renames, commits and checksums. Clocks of different hosts are
never compared, nor time stamps of files: whether a holder is alive is judged by one process's own monotonic clock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Literal

from .errors import Held
from .files import write_error

NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, 524)  # 524: the kernel's ENOTSUPP, seen on Lustre
LOCAL_LOCKS = {"nolock", "local_lock=flock", "local_lock=all", "localflock"}  # mount options: flock binds one host only
BEAT_SECONDS = 10.0
STALE_BEATS = 12
COUNT = b"%012d\n"


class Watch:
    """What one process has seen of the lock files of others, and when by its own clock."""

    def __init__(self) -> None:
        self._seen: dict[Path, tuple[bytes, float, bool]] = {}

    def judge(self, path: Path, content: bytes, *, now: float | None = None) -> Literal["alive", "dead", "unsure"]:
        """Alive once it was seen to change, dead after 12 beats without a change, unsure until one of these."""
        now = time.monotonic() if now is None else now
        before, since, moved = self._seen.get(path, (content, now, False))
        if content != before:
            since, moved = now, True
        self._seen[path] = (content, since, moved)
        if now - since >= STALE_BEATS * beat_seconds():
            return "dead"
        return "alive" if moved else "unsure"


class Lease:
    """The lock file PATH.lock: who holds it, and a number that a thread of the holder counts up.

    Raises Held where another has it that is not known to be dead. `inherited`: it was another's that may yet wake up.
    """

    def __init__(self, path: Path, watch: Watch) -> None:
        self.path = path.with_name(f"{path.name}.lock")
        self.inherited = False
        self.lost = False  # whether another process has taken it over
        while (descriptor := self._make()) is None:
            content = _content(self.path)
            if content is None:
                continue
            if not (gone := _ended_here(content)) and (verdict := watch.judge(self.path, content)) != "dead":
                raise Held(f"another process works on {path}, as {self.path.name} says", unsure=verdict == "unsure")
            self._break(content)
            self.inherited |= not gone
        self._descriptor = descriptor
        identity = json.dumps(_identity()).encode() + b"\n"
        os.write(descriptor, identity + COUNT % 0)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(len(identity),), daemon=True, name="lease")
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        self._thread.join()
        if _same_file(self.path, self._descriptor):
            with contextlib.suppress(OSError):
                self.path.unlink()
        os.close(self._descriptor)

    def _make(self) -> int | None:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            return None
        except OSError as error:
            raise write_error(self.path, error) from error

    def _break(self, content: bytes) -> None:
        """Put the lock out of the way, unless it is no longer the one that was judged."""
        aside = self.path.with_name(f".{self.path.name}.{socket.gethostname()}.{os.getpid()}.stale")
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.path, aside)
            if _content(aside) != content:  # another process was quicker, and this is its lock
                with contextlib.suppress(OSError):
                    os.link(aside, self.path)
            aside.unlink()

    def _beat(self, offset: int) -> None:
        """In place: a file that has become another's is never touched."""
        count = 0
        while not self._ended.wait(beat_seconds()):
            count += 1
            try:
                os.pwrite(self._descriptor, COUNT % count, offset)
                os.fsync(self._descriptor)
            except OSError as error:
                self.lost |= error.errno == errno.ESTALE
            self.lost |= not _same_file(self.path, self._descriptor)


class Claim:
    """`path`, made if missing, open for reading and writing in `descriptor` and locked; Held where another has it."""

    def __init__(self, path: str | Path, watch: Watch | None = None, *, wait: bool = False) -> None:
        self.path = Path(path)
        self.lease: Lease | None = None
        self._wait = wait  # where the kernel can
        self.descriptor = self._open()
        try:
            while not self._locked(watch or Watch()):
                os.close(self.descriptor)
                self.descriptor = self._open()
        except BaseException:
            self.close()
            raise

    @property
    def lost(self) -> bool:
        return self.lease is not None and self.lease.lost

    def unlink(self) -> None:
        """Remove the file, if it is still ours; who opened it before us and gets the lock after us will notice."""
        if _same_file(self.path, self.descriptor):
            with contextlib.suppress(OSError):
                self.path.unlink()

    def close(self) -> None:
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        if self.lease:
            self.lease.close()
            self.lease = None

    def _open(self) -> int:
        try:
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise write_error(self.path, error) from error

    def _locked(self, watch: Watch) -> bool:
        """Whether the file that is open is locked and still the one of that name."""
        if self.lease is None:
            locked = _flock(self.path, self.descriptor, wait=self._wait)
            if locked is False:
                raise Held(f"another process has {self.path} open: wait for it, or end it, and run again")
            if locked is None:
                self.lease = Lease(self.path, watch)
                if self.lease.inherited:
                    self._copy()
        return _same_file(self.path, self.descriptor)

    def _copy(self) -> None:
        """A new file in place of the old one: should the former holder wake up, it writes where nobody reads."""
        part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")
        try:
            shutil.copyfile(self.path, part)
            os.replace(part, self.path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise write_error(self.path, error) from error


@contextlib.contextmanager
def lock(path: str | Path, *, wait: bool) -> Iterator[bool]:
    """An advisory lock on `path`; yields False at once when it is held by another and `wait` is off."""
    watch, claim = Watch(), None
    while claim is None:
        try:
            claim = Claim(path, watch, wait=wait)
        except Held:
            if not wait:
                yield False
                return
            time.sleep(beat_seconds() / 10)
    try:
        yield True
    finally:
        claim.close()


def beat_seconds() -> float:
    return float(os.environ.get("STREAMSAL_TEST_NO_FLOCK") or BEAT_SECONDS)


def _flock(path: Path, descriptor: int, *, wait: bool) -> bool | None:
    """Whether we have the lock; None where the file system has none that other hosts respect."""
    if os.environ.get("STREAMSAL_TEST_NO_FLOCK") or _locks_are_local(path.parent):
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno in NO_LOCKS:
            return None
        raise write_error(path, error) from error
    return True


@cache
def _locks_are_local(folder: Path) -> bool:
    try:
        return bool(LOCAL_LOCKS & mount_options(folder.resolve(), Path("/proc/self/mounts").read_text()))
    except OSError:
        return False


def mount_options(folder: Path, mounts: str) -> set[str]:
    """Options of the file system that a folder lies on, from the lines of /proc/self/mounts."""
    found, longest = "", -1
    for line in mounts.splitlines():
        _, point, _, options, *_ = line.split()
        point = point.replace("\\040", " ")
        if len(point) >= longest and folder.is_relative_to(point):
            found, longest = options, len(point)
    return set(found.split(","))


def _identity() -> dict[str, str | int]:
    return {**_host(), "pid": os.getpid(), "born": _born(os.getpid())}


def _host() -> dict[str, str]:
    """This host since its last start, and the name space of its process numbers: containers have their own."""
    found = {"host": socket.gethostname()}
    with contextlib.suppress(OSError):
        found["boot"] = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        found["processes"] = os.readlink("/proc/self/ns/pid")
    return found


def _born(pid: int) -> str:
    """When a process started, to tell it from a later one of its number; empty where there is none that runs."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return "" if state in "ZX" else fields[18]
    except OSError:
        pass
    if Path("/proc/self").exists():
        return ""
    try:  # no Linux
        os.kill(pid, 0)
    except ProcessLookupError:
        return ""
    except OSError:
        pass
    return "running"


def _ended_here(content: bytes) -> bool:
    """Whether a holder was a process of this host and has ended."""
    try:
        holder = json.loads(content.splitlines()[0])
        return {name: holder.get(name) for name in _host()} == _host() and _born(holder["pid"]) != holder["born"]
    except (ValueError, IndexError, KeyError, AttributeError, TypeError):
        return False  # still being written


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ESTALE:
            return None
        raise write_error(path, error) from error


def _same_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except OSError:
        return False

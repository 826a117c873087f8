"""Files appear whole or not at all, and what a disk refuses is said in words."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from streamsal.errors import WriteError
from streamsal.files import make_folder, replacing, write_bytes, write_error

pytest_plugins = ("small_disk",)


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_bytes(path, b"old")
    with replacing(path) as part:
        assert part.parent == tmp_path and part.suffix == ".json"
        part.write_bytes(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a.json"]


def test_what_a_killed_writer_left_is_removed_by_the_next(tmp_path: Path) -> None:
    write = "import sys, time\nfrom streamsal.files import replacing\n"
    write += "with replacing(sys.argv[1]) as part: part.touch(); print(flush=True); time.sleep(60)"
    path = tmp_path / "a.json"
    killed, living = (
        subprocess.Popen([sys.executable, "-c", write, str(path)], stdout=subprocess.PIPE) for _ in range(2)
    )
    for process in (killed, living):
        assert process.stdout and process.stdout.readline()
    killed.kill()
    killed.communicate()
    old = tmp_path / ".a.elsewhere.1.part.json"
    old.touch()
    os.utime(old, (0, 0))
    others = [".a.elsewhere.2.part.json", ".b.elsewhere.1.part.json", ".a.json"]
    for name in others:
        (tmp_path / name).touch()
    write_bytes(path, b"{}")
    left = set(os.listdir(tmp_path)) - {"a.json", *others}
    living.kill()
    living.communicate()
    assert len(left) == 1 and str(living.pid) in left.pop()


def test_an_error_leaves_the_old_file_and_no_debris(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_bytes(path, b"old")
    with pytest.raises(ZeroDivisionError), replacing(path) as part:
        part.write_bytes(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.json"]


def test_a_full_disk_is_a_write_error_without_debris(small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=64k")
    write_bytes(disk / "a", b"old")
    with pytest.raises(WriteError, match=r"cannot write .*/a: the disk is full; mend that and run the same command"):
        write_bytes(disk / "a", bytes(100_000))
    assert (disk / "a").read_bytes() == b"old" and os.listdir(disk) == ["a"]


def test_folders_that_cannot_be(tmp_path: Path) -> None:
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()
    (tmp_path / "file").touch()
    with pytest.raises(WriteError, match="a file of that name is in the way"):
        make_folder(tmp_path / "file")
    with pytest.raises(WriteError, match="a part of the path is not a folder"):
        make_folder(tmp_path / "file" / "a")
    with pytest.raises(WriteError, match="the folder does not exist"):
        write_bytes(tmp_path / "no" / "a", b"")


@pytest.mark.parametrize(
    ("number", "reason"),
    [(errno.EDQUOT, "the quota is used up"), (errno.EROFS, "read-only"), (errno.EMFILE, "too many files are open")],
)
def test_reasons_are_words(number: int, reason: str) -> None:
    assert reason in str(write_error("a", OSError(number, "errno speaks")))


def test_reasons_that_are_not_known_are_the_system_s_own() -> None:
    assert "Stale file handle" in str(write_error("a", OSError(errno.ESTALE, os.strerror(errno.ESTALE))))

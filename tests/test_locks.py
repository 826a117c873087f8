"""Locks die with their holder, never with a clock; where there is no flock a file that keeps changing stands for it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from streamsal.blockfile import BlockFile
from streamsal.errors import Held, WriteError
from streamsal.locks import STALE_BEATS, Claim, Watch, lock, mount_options

BEAT = 0.05
SKEW_SECONDS = 7200
HOLD = """
import sys, time
from streamsal.locks import Claim
claim = Claim(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture(params=["flock", "lease"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("STREAMSAL_TEST_NO_FLOCK", raising=False)
    if request.param == "lease":
        monkeypatch.setenv("STREAMSAL_TEST_NO_FLOCK", str(BEAT))
    return request.param


@pytest.fixture
def no_flock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSAL_TEST_NO_FLOCK", str(BEAT))


@contextmanager
def holder(path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    try:
        assert process.stdout and process.stdout.readline() == b"held\n"
        yield process
    finally:
        process.kill()
        process.wait()


def judged_dead(path: Path, watch: Watch) -> bool:
    """Whether a lock that is looked at until something is certain is ours in the end."""
    while True:
        try:
            Claim(path, watch).close()
            return True
        except Held as held:
            if not held.unsure:
                return False
            time.sleep(BEAT / 2)


def test_a_lock_keeps_others_out_and_leaves_nothing_behind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    with lock(path, wait=True) as ours:
        assert ours
        with lock(path, wait=False) as theirs:
            assert not theirs
    with lock(path, wait=False) as ours:
        assert ours
    assert os.listdir(tmp_path) == ["x"]


def test_the_lock_of_a_killed_process_is_free_at_once(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    with holder(path) as process:
        with pytest.raises(Held, match="another process"):
            Claim(path)
        process.kill()
        process.wait()
        Claim(path).close()
    assert os.listdir(tmp_path) == ["x"]


def test_a_killed_process_whose_parent_has_not_noticed_is_dead(kind: str, tmp_path: Path) -> None:
    with holder(tmp_path / "x") as process:
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on
        Claim(tmp_path / "x").close()


def test_a_lock_that_cannot_be_made(kind: str, tmp_path: Path) -> None:
    with pytest.raises(WriteError), lock(tmp_path / "no" / "lock", wait=True):
        pass


@pytest.mark.parametrize("skew", [-SKEW_SECONDS, 0, SKEW_SECONDS])
def test_a_living_lock_is_never_taken_whatever_the_clocks_say(no_flock: None, tmp_path: Path, skew: int) -> None:
    path, then = tmp_path / "x", time.time() + skew
    with holder(path):
        os.utime(path.with_name("x.lock"), (then, then))
        assert not judged_dead(path, Watch())


@pytest.mark.parametrize("skew", [-SKEW_SECONDS, 0, SKEW_SECONDS])
def test_a_lock_of_another_host_is_taken_when_it_has_not_moved_while_we_looked(
    no_flock: None, tmp_path: Path, skew: int
) -> None:
    path, then, lease = tmp_path / "x", time.time() + skew, tmp_path / "x.lock"
    path.write_bytes(b"content")
    foreign = {"host": "another", "boot": "b", "processes": "p", "pid": os.getpid(), "born": "1"}
    lease.write_text(json.dumps(foreign) + "\n000000000007\n")
    os.utime(lease, (then, then))
    with pytest.raises(Held) as caught:  # a first look proves nothing, however old the file
        Claim(path)
    assert caught.value.unsure
    began, inode = time.monotonic(), path.stat().st_ino
    assert judged_dead(path, Watch())
    assert time.monotonic() - began >= STALE_BEATS * BEAT
    assert path.read_bytes() == b"content" and path.stat().st_ino != inode
    assert os.listdir(tmp_path) == ["x"]


def test_a_holder_that_was_held_up_finds_out_and_harms_nothing(no_flock: None, tmp_path: Path) -> None:
    path, watch = tmp_path / "x", Watch()
    first = BlockFile(path)
    first.write(b"first")
    first.commit()
    lease = tmp_path / "x.lock"
    lease.rename(tmp_path / "aside")  # its thread counts on in there
    stale = json.dumps({"host": "another"}).encode() + b"\n000000000007\n"
    lease.write_bytes(stale)
    assert judged_dead(path, watch)
    second = BlockFile(path)
    assert second.read(5) == b"first"
    second.seek(0)
    second.write(b"SECOND")
    second.commit()
    with pytest.raises(Held, match="held up"):
        while True:
            first.commit()
            time.sleep(BEAT)
    first.close()
    second.close()
    assert path.read_bytes() == b"SECOND" and not lease.exists()


def test_a_lock_that_is_still_being_written_is_nobody_s_yet(no_flock: None, tmp_path: Path) -> None:
    for content in (b"", b"{", b"[]\n", b"1\n", b"{}\n"):
        (tmp_path / "x.lock").write_bytes(content)
        with pytest.raises(Held):
            Claim(tmp_path / "x")


def test_a_process_number_used_again_is_another_process(no_flock: None, tmp_path: Path) -> None:
    path = tmp_path / "x"
    with holder(path) as process:
        identity, count = path.with_name("x.lock").read_bytes().splitlines()
        assert json.loads(identity)["host"] == socket.gethostname()
        process.send_signal(signal.SIGSTOP)
        older = {**json.loads(identity), "born": "1"}
        path.with_name("x.lock").write_bytes(json.dumps(older).encode() + b"\n" + count + b"\n")
        Claim(path).close()


def test_a_file_that_was_replaced_meanwhile_is_not_what_gets_locked(tmp_path: Path) -> None:
    path = tmp_path / "x"
    first = Claim(path)
    path.rename(tmp_path / "aside")
    second = Claim(path)
    assert os.fstat(second.descriptor).st_ino == path.stat().st_ino != os.fstat(first.descriptor).st_ino
    first.close()
    second.close()


def test_judgement_by_one_clock() -> None:
    watch, path, seconds = Watch(), Path("x"), STALE_BEATS * 10.0
    assert watch.judge(path, b"1", now=0) == "unsure"
    assert watch.judge(path, b"1", now=seconds - 1) == "unsure"
    assert watch.judge(path, b"2", now=seconds) == "alive"
    assert watch.judge(path, b"2", now=2 * seconds - 1) == "alive"
    assert watch.judge(path, b"2", now=2 * seconds) == "dead"
    assert watch.judge(Path("y"), b"2", now=2 * seconds) == "unsure"


MOUNTS = """\
/dev/sda1 / ext4 rw,relatime 0 0
home:/ /home nfs rw,vers=3,nolock,local_lock=all 0 0
data@tcp:/lustre /my\\040data lustre rw,localflock 0 0
data@tcp:/lustre /my\\040data/shared lustre rw,flock 0 0
"""


@pytest.mark.parametrize(
    ("folder", "option"),
    [("/homes", "relatime"), ("/home/me/r", "nolock"), ("/my data/r", "localflock"), ("/my data/shared", "flock")],
)
def test_the_options_a_folder_is_mounted_with(folder: str, option: str) -> None:
    assert option in mount_options(Path(folder), MOUNTS)

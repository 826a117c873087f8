"""What happens when something goes wrong, seen through the command line: exit codes, messages, and that nothing is
lost, invented or computed twice.
"""

from __future__ import annotations

import errno
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from glob import glob
from pathlib import Path

import h5py
import pytest
from films import destroy_packets, overwrite, write_film, write_sound
from program import SPEC_ONLY, TELLTALE, call, end, start, wait_until, without_scheduler

from streamsal.locks import lock

pytest_plugins = ("small_disk",)

N_FRAMES = 120
ROOM_BYTES = (64 + 34) << 10  # for half a shard, beside what is kept free for logs
SLOW = {"STREAMSAL_TEST_DELAY_MS": "50"}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with film.mp4, planned.streamsal (two tasks, nothing computed) and good.streamsal (merged)."""
    folder = tmp_path_factory.mktemp("undisturbed")
    write_film(folder / "film.mp4", N_FRAMES)
    plan = ("--model", TELLTALE, "--tasks", "2", "--batch-size", "4")
    out, err = call("plan", "film.mp4", *plan, "-o", "planned.streamsal", cwd=folder)
    assert out.splitlines()[-1] == "planned.streamsal" and "120 frames" in err
    shutil.copytree(folder / "planned.streamsal", folder / "good.streamsal")
    call("infer", "good.streamsal", cwd=folder)
    call("merge", "good.streamsal", "--materialise", cwd=folder)
    return folder


@pytest.fixture
def planned(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with the film and film.streamsal, where nothing is computed yet."""
    shutil.copy(undisturbed / "film.mp4", tmp_path)
    shutil.copytree(undisturbed / "planned.streamsal", tmp_path / "film.streamsal")
    plan = tmp_path / "film.streamsal" / "plan.json"
    plan.write_text(plan.read_text().replace(str(undisturbed), str(tmp_path)))
    return tmp_path


def assert_equals_undisturbed(folder: Path, undisturbed: Path) -> None:
    call("merge", folder / "film.streamsal", "--materialise")
    merged = (folder / "film.streamsal" / "film.mp4.h5").read_bytes()
    assert merged == (undisturbed / "good.streamsal" / "film.mp4.h5").read_bytes()


def events(run_folder: Path, task: int) -> list[dict]:
    return [json.loads(line) for line in (run_folder / "logs" / f"{task:04d}.jsonl").read_text().splitlines()]


def grown(shard: Path) -> Callable[[], bool]:
    """Whether a shard has been seen to grow by two blocks, its first bytes apart, since this was called."""
    sizes = set()

    def grew() -> bool:
        sizes.add(shard.stat().st_size if shard.exists() else 0)
        return len(sizes) > 3

    return grew


def test_missing_input(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, named in (
        (("infer", "no.mp4"), "no such file: no.mp4"),
        (("plan", "empty", "-o", "r"), "no video in the directory empty"),
        (("probe", "*.mkv"), "no file matches *.mkv"),
        (("status", "no.streamsal"), "no run directory no.streamsal"),
    ):
        _, err = call(*arguments, cwd=tmp_path, code=66)
        assert named in err


@pytest.mark.parametrize("kind", ["text", "empty", "sound", "truncated"])
def test_files_that_are_no_video(kind: str, undisturbed: Path, tmp_path: Path) -> None:
    path = tmp_path / f"{kind}.mp4"
    if kind == "text":
        path.write_text("Dear diary, today I renamed a text file.\n" * 100)
    elif kind == "empty":
        path.touch()
    elif kind == "sound":
        write_sound(path)
    else:
        path.write_bytes((undisturbed / "film.mp4").read_bytes()[:5000])
    _, err = call("infer", path, "-o", tmp_path / "r", "--model", SPEC_ONLY, code=65)
    assert str(path) in err and err.count("\n") == 1


def test_video_that_changed_since_the_plan(planned: Path, undisturbed: Path) -> None:
    film = planned / "film.mp4"
    whole = film.read_bytes()
    overwrite(film, len(whole) // 2, b"\0" * 64)
    _, err = call("infer", "film.streamsal", "--task-id", "1", cwd=planned, code=65)
    assert "same size" in err and "film.mp4" in err and "put the old file back, or plan a new run with -o" in err
    film.write_bytes(whole[:-100])
    _, err = call("infer", "film.streamsal", "--task-id", "1", cwd=planned, code=65)
    assert f"{len(whole) - 100} bytes, not {len(whole)}" in err
    film.unlink()
    _, err = call("infer", "film.streamsal", "--task-id", "1", cwd=planned, code=66)
    assert str(film) in err
    status, _ = call("status", "film.streamsal", cwd=planned, code=3)
    assert "failed" in status and str(film) in status
    film.write_bytes(whole)
    call("infer", "film.streamsal", cwd=planned)
    assert_equals_undisturbed(planned, undisturbed)


def test_change_in_the_middle_of_a_long_video_is_found_where_it_is_read(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mkv", 400, codec="rawvideo")
    size = film.stat().st_size
    assert size > 3 << 20  # more than is read to tell whether a file is the same
    call("plan", film, "-o", "r", "--model", "center", "--tasks", "4", cwd=tmp_path)
    overwrite(film, size // 2, b"\xff" * 20)
    call("infer", "r", "--task-id", "0", cwd=tmp_path)
    _, err = call("infer", "r", cwd=tmp_path, code=65)
    assert "film.mkv" in err and "packet" in err and "put the old file back" in err


def test_other_model_or_settings_in_the_same_run(planned: Path) -> None:
    ask = ("infer", "film.mp4", "-o", "film.streamsal", "--batch-size", "4", "--task-id", "0")
    _, err = call(*ask, "--model", SPEC_ONLY, cwd=planned, code=65)
    assert "model name" in err and "spec_only.py" in err and "telltale.py" in err
    _, err = call(*ask, "--model", TELLTALE, "--every", "2", "--store-dtype", "float32", cwd=planned, code=65)
    assert "every 1 in the plan, 2 now" in err and "store dtype float16 in the plan, float32 now" in err
    _, err = call("infer", "film.streamsal", "--every", "2", cwd=planned, code=2)
    assert "--every" in err


def test_edited_model_file_and_edited_plan(planned: Path) -> None:
    mine = planned / "mine.py"
    shutil.copy(SPEC_ONLY, mine)
    call("plan", "film.mp4", "-o", "r", "--model", "mine.py", cwd=planned)
    mine.write_text(mine.read_text() + "# edited\n")
    _, err = call("infer", "r", cwd=planned, code=65)
    assert "mine.py has changed since the plan was made" in err
    plan = planned / "film.streamsal" / "plan.json"
    plan.write_text(plan.read_text().replace('"every": 1', '"every": 2'))
    _, err = call("infer", "film.streamsal", cwd=planned, code=65)
    assert "plan.json was edited" in err
    for nonsense in ("", "[]", "{}", '{"format": 1}', '{"format": 99}'):
        plan.write_text(nonsense)
        _, err = call("infer", "film.streamsal", cwd=planned, code=65)
        assert "film.streamsal/plan.json is no" in err and err.count("\n") == 1


def test_task_numbers(planned: Path) -> None:
    _, err = call("infer", "film.streamsal", "--task-id", "2", cwd=planned)
    assert "nothing to do, the plan has 2 tasks" in err
    assert not (planned / "film.streamsal" / "shards").exists()
    _, err = call("infer", "film.streamsal", "--task-id", "-1", cwd=planned, code=2)
    assert "-1" in err
    gaps = {"SLURM_ARRAY_TASK_COUNT": "2", "SLURM_ARRAY_TASK_MIN": "3", "SLURM_ARRAY_TASK_MAX": "7"}
    _, err = call("infer", "film.mp4", "-o", "r", cwd=planned, env={**gaps, "SLURM_ARRAY_TASK_ID": "3"}, code=2)
    assert "--num-tasks" in err and "--task-base" in err and not (planned / "r").exists()


def test_weights_for_a_model_without(planned: Path) -> None:
    _, err = call("infer", "film.mp4", "-o", "r", "--weights", "w.pt", "--model", "center", cwd=planned, code=2)
    assert "center has no weights" in err


def test_device_that_is_not_there(planned: Path) -> None:
    _, err = call("infer", "film.streamsal", "--task-id", "0", "--device", "cuda:99", cwd=planned, code=69)
    assert "cuda:99" in err and "--device cpu" in err


def test_output_that_cannot_be_written(planned: Path, small_disk: Callable[[str], Path]) -> None:
    (planned / "file").touch()
    for output in ("file", "file/r"):
        _, err = call("infer", "film.mp4", "--model", SPEC_ONLY, "-o", output, cwd=planned, code=74)
        assert "file" in err and err.count("\n") == 1
    disk = small_disk("size=1m")
    shutil.copytree(planned / "film.streamsal", disk / "film.streamsal")
    small_disk("ro")
    _, err = call("infer", disk / "film.streamsal", code=74)
    assert "read-only" in err and err.count("\n") == 1
    _, err = call("infer", planned / "film.mp4", "--model", SPEC_ONLY, "-o", disk / "new", code=74)
    assert "read-only" in err and err.count("\n") == 1


def test_full_disk(planned: Path, undisturbed: Path, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=400k")
    shutil.move(planned / "film.streamsal", disk)
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - ROOM_BYTES))
    _, err = call("infer", disk / "film.streamsal", "--task-id", "1", code=74)
    assert "the disk is full" in err and err.count("\n") == 1
    assert not [path for path in disk.rglob("*") if ".part" in path.name]
    status, _ = call("status", disk / "film.streamsal", code=3)
    assert "failed" in status and "the disk is full" in status
    filler.unlink()
    small_disk("size=2m")
    call("infer", disk / "film.streamsal")
    assert 0 < events(disk / "film.streamsal", 1)[2]["done"] < N_FRAMES / 2
    assert_equals_undisturbed(disk, undisturbed)


def test_file_size_limit(planned: Path, undisturbed: Path) -> None:
    limit = (22_000, resource.getrlimit(resource.RLIMIT_FSIZE)[1])
    command = ("infer", "film.streamsal", "--task-id", "1")
    process = start(*command, cwd=planned, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
    _, err = end(process, 74)
    assert "larger than allowed" in err and "0001.h5" in err and err.count("\n") == 1
    call("infer", "film.streamsal", cwd=planned)
    assert_equals_undisturbed(planned, undisturbed)


def test_killed_three_times(planned: Path, undisturbed: Path) -> None:
    shard = planned / "film.streamsal" / "shards" / "0001.h5"
    for _ in range(3):
        process = start("infer", "film.streamsal", "--task-id", "1", cwd=planned, env=SLOW)
        wait_until(grown(shard), process)
        process.kill()
        end(process, -signal.SIGKILL)
    call("infer", "film.streamsal", cwd=planned)
    resumed = [event["done"] for event in events(planned / "film.streamsal", 1) if event["event"] == "resume"]
    assert len(resumed) == 3 and 0 < resumed[0] < resumed[1] < resumed[2] < N_FRAMES / 2
    assert_equals_undisturbed(planned, undisturbed)


def test_stopped_by_signals(planned: Path, undisturbed: Path) -> None:
    shard = planned / "film.streamsal" / "shards" / "0001.h5"
    for number, code in ((signal.SIGTERM, 75), (signal.SIGUSR1, 75), (signal.SIGINT, 130)):
        process = start("infer", "film.streamsal", "--task-id", "1", cwd=planned, env=SLOW)
        wait_until(grown(shard), process)
        process.send_signal(number)
        _, err = end(process, code)
        assert ("Ctrl-C" if code == 130 else number.name) in err and "run the same command again" in err
        safe = re.search(r"task 1 has (\d+) of \d+ results safe", err)
        assert safe and events(planned / "film.streamsal", 1)[-1]["done"] == int(safe[1])
    out, err = call("status", "film.streamsal", cwd=planned, code=3)
    assert "stopped" in out and f"{safe[1]}/" in out and "tasks not done: 0-1" in err
    call("infer", "film.streamsal", cwd=planned)
    assert_equals_undisturbed(planned, undisturbed)


def test_two_copies_of_a_task(planned: Path, undisturbed: Path) -> None:
    first = start("infer", "film.streamsal", "--task-id", "0", cwd=planned, env=SLOW)
    wait_until(grown(planned / "film.streamsal" / "shards" / "0000.h5"), first)
    first.send_signal(signal.SIGSTOP)
    _, err = call("infer", "film.streamsal", "--task-id", "0", cwd=planned, code=75)
    assert "another" in err and "0000.h5" in err
    call("infer", "film.streamsal", "--task-id", "any", cwd=planned)  # goes on to the task that is free
    _, err = call("merge", "film.streamsal", cwd=planned, code=3)
    assert "task 0 of film.streamsal is not done (0: still being written)" in err
    first.send_signal(signal.SIGCONT)
    end(first, 0)
    assert [event["event"] for event in events(planned / "film.streamsal", 0)] == ["start", "done"]
    assert_equals_undisturbed(planned, undisturbed)


NO_FLOCK = """\
#include <errno.h>
#include <stdlib.h>
int flock(int file, int how) { errno = atoi(getenv("FLOCK_ERRNO")); return -1; }
"""
COMPUTE_ALL = """\
import os, sys
from streamsal.cli import main
for number in sys.argv[1:]:
    os.environ["FLOCK_ERRNO"] = number
    assert main(["infer", number]) == main(["merge", number, "--materialise", "--verify"]) == 0
"""


def test_file_systems_without_locks(planned: Path, undisturbed: Path) -> None:
    """As libc would answer there, to us and to HDF5."""
    if shutil.which("cc") is None:
        if os.environ.get("STREAMSAL_REQUIRE_CC") == "1":
            pytest.fail("STREAMSAL_REQUIRE_CC=1, and there is no C compiler")
        pytest.skip("needs a C compiler (STREAMSAL_REQUIRE_CC=1 turns this into a failure)")
    (planned / "none.c").write_text(NO_FLOCK)
    subprocess.run(["cc", "-shared", "-fPIC", "-o", planned / "none.so", planned / "none.c"], check=True)
    answers = [str(number) for number in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, 524)]
    for answer in answers:
        shutil.copytree(planned / "film.streamsal", planned / answer)
    environment = without_scheduler({"LD_PRELOAD": str(planned / "none.so")})
    subprocess.run([sys.executable, "-c", COMPUTE_ALL, *answers], cwd=planned, env=environment, check=True)
    good = (undisturbed / "good.streamsal" / "film.mp4.h5").read_bytes()
    for answer in answers:
        assert sorted(os.listdir(planned / answer / "shards")) == ["0000.h5", "0001.h5"]
        assert (planned / answer / "film.mp4.h5").read_bytes() == good


def test_killed_before_the_last_heartbeat(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "good.streamsal", tmp_path / "r")
    heartbeat = tmp_path / "r" / "logs" / "0001.json"
    heartbeat.write_text(json.dumps({**json.loads(heartbeat.read_text()), "state": "running", "done": 48}))
    call("status", tmp_path / "r", code=3)
    _, err = call("infer", tmp_path / "r")
    assert "task 1: already done" in err
    out, _ = call("status", tmp_path / "r", "--json")
    assert json.loads(out)["done"] == N_FRAMES


def test_broken_video_among_good_ones(undisturbed: Path, tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    for name in ("a.mp4", "c.mp4"):
        shutil.copy(undisturbed / "film.mp4", tmp_path / "films" / name)
    (tmp_path / "films" / "b.mp4").write_text("no film")
    out, err = call("plan", "films", "-o", "p", "--model", SPEC_ONLY, cwd=tmp_path, code=1)
    assert "b.mp4" in err and "a.mp4" in out and "c.mp4" in out
    _, err = call("run", "films", "-o", "r", "--model", "center", "--no-render", cwd=tmp_path, code=1)
    assert "b.mp4" in err
    assert sorted(path.name for path in (tmp_path / "r").glob("*.h5")) == ["a.mp4.h5", "c.mp4.h5"]


def test_damaged_video_has_holes_that_keep_their_numbers(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mov", 60, codec="mjpeg")
    destroy_packets(film, [5, 6, 40])
    call("plan", film, "-o", "r", "--model", "center", "--tasks", "2", cwd=tmp_path)
    call("infer", "r", cwd=tmp_path)
    merged, _ = call("merge", "r", cwd=tmp_path)
    with h5py.File(tmp_path / merged.strip()) as h5:
        assert h5["frame"][h5["status"][...] == 2].tolist() == [5, 6, 40]
        assert h5["frame"][...].tolist() == list(range(60))
    out, err = call("status", "r", cwd=tmp_path, code=1)
    assert "2 holes" in out and "1 hole\n" in out and "3 frames without a picture, NaN for a map (tasks 0-1)" in err
    out, _ = call("probe", film, "--verify", code=1)
    assert "3 (frames 5-6,40)" in out
    _, err = call("run", film, "-o", "r", "--model", "center", "--no-render", cwd=tmp_path, code=1)
    assert "film.mov: 3 holes" in err and "5-6,40" in err


def test_damaged_shards_are_named_and_computed_again(undisturbed: Path, tmp_path: Path) -> None:
    shutil.copytree(undisturbed / "good.streamsal", tmp_path / "film.streamsal")
    shutil.copy(undisturbed / "film.mp4", tmp_path)
    shard = tmp_path / "film.streamsal" / "shards" / "0001.h5"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    _, err = call("merge", "film.streamsal", cwd=tmp_path, code=3)
    assert "task 1 of film.streamsal is not done" in err and "infer film.streamsal --task-id 1`" in err
    call("infer", "film.streamsal", cwd=tmp_path)
    assert shard.with_name("0001.h5.broken-1").exists()
    assert_equals_undisturbed(tmp_path, undisturbed)


def has_open(pid: int, path: str) -> bool:
    with suppress(FileNotFoundError):  # descriptors close while they are looked at
        return path in map(os.path.realpath, glob(f"/proc/{pid}/fd/*"))
    return False


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_stopped_while_planning(undisturbed: Path, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "r").mkdir()
    lock_file = str(tmp_path / "r" / ".plan.lock")
    with lock(lock_file, wait=True):
        process = start("infer", undisturbed / "film.mp4", "--model", SPEC_ONLY, "-o", tmp_path / "r")
        wait_until(lambda: has_open(process.pid, lock_file), process)
        process.send_signal(number)
        _, err = end(process, 75)
    assert f"stopped by {number.name}" in err
    assert os.listdir(tmp_path / "r") == [".plan.lock"]

"""What is committed stays, what is not is not believed, whatever ends the process."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
import synthetic_run
from synthetic_run import (
    PRIOR,
    append_frames,
    compute_shard,
    contents,
    make_plan,
    make_run,
    parts_of,
    values_of,
)

from streamsal.errors import PlanMismatch, Stopped, UsageError, WriteError
from streamsal.plan import Plan
from streamsal.store import DONE, HOLE, NOT_COMPUTED, PartInfo, ShardWriter, shard_path

pytest_plugins = ("small_disk",)

N_FRAMES = 400
PROGRAM = [sys.executable, synthetic_run.__file__]


def plan_of(n_frames: int = N_FRAMES, **options: object) -> Plan:
    return make_plan({"talk.mp4": n_frames}, {"talk.mp4": []}, **options)  # type: ignore[arg-type]


def empty_run(folder: Path, plan: Plan) -> Path:
    return make_run(folder / "talk.streamsal", plan, skip=(0,))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = make_run(tmp_path_factory.mktemp("undisturbed") / "talk.streamsal", plan_of())
    return contents(shard_path(run, 0))


def committed_rows(path: Path) -> int:
    """As another process sees it while the shard is being written."""
    try:
        with h5py.File(path, "r", locking=False) as file:
            return int(file["talk.mp4"].attrs["committed"])
    except (OSError, KeyError, RuntimeError):
        return 0


def test_a_killed_writer_resumes_to_equal_bytes(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    plan = plan_of()
    path = shard_path(empty_run(tmp_path, plan), 0)
    chance = random.Random(5)
    safe = [0]
    for _ in range(6):
        task = subprocess.Popen([*PROGRAM, path.parents[1], "0", "2"])
        goal = safe[-1] + chance.randrange(10, 60)
        while committed_rows(path) < goal and task.poll() is None:
            time.sleep(chance.random() * 0.004)
        task.send_signal(signal.SIGKILL)
        task.wait()
        safe.append(committed_rows(path))
    assert safe == sorted(safe)
    assert any(0 < rows < N_FRAMES for rows in safe)  # on a busy machine the last ones may have come to their end
    compute_shard(path.parents[1], 0)
    assert contents(path) == undisturbed
    assert [file.name for file in path.parent.iterdir()] == ["0000.h5"]


def test_division_into_blocks_does_not_show(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    run = empty_run(tmp_path, plan_of())
    compute_shard(run, 0, batch=37)
    assert contents(shard_path(run, 0)) == undisturbed


def test_rows_that_were_not_committed_are_dropped(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(), 0)
    path = tmp_path / "0000.h5"
    with ShardWriter(path, [part]) as shard:
        append_frames(shard, part, np.arange(0, 8))
        shard.commit()
        append_frames(shard, part, np.arange(8, 16))
        assert shard.committed(part) == 8
    with ShardWriter(path, [part]) as shard:
        assert shard.committed(part) == 8
        append_frames(shard, part, np.arange(8, 12))


def test_rows_behind_the_counter_are_not_believed(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """A process can die after its rows and before the counter that vouches for them."""
    path = shard_path(make_run(tmp_path / "talk.streamsal", plan_of()), 0)
    with h5py.File(path, "r+") as file:
        file["talk.mp4"].attrs.modify("committed", np.int64(100))
        file["talk.mp4/status"][100:] = DONE
        file["talk.mp4/log_offset"][100:] = 5
    (part,) = parts_of(plan_of(), 0)
    with ShardWriter(path, [part]) as shard:
        assert shard.committed(part) == 100 and not shard.complete
    with h5py.File(path) as file:
        assert set(file["talk.mp4/status"][100:]) == {NOT_COMPUTED}
    compute_shard(path.parents[1], 0)
    assert contents(path) == undisturbed


def test_a_damaged_tail_is_computed_again(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    path = shard_path(make_run(tmp_path / "talk.streamsal", plan_of()), 0)
    with h5py.File(path) as file:
        where = file["talk.mp4/log_density"].id.get_chunk_info_by_coord((390, 0, 0))
    with open(path, "r+b") as file:
        file.seek(where.byte_offset + 5)
        file.write(b"\xff\xff\xff\xff")
    (part,) = parts_of(plan_of(), 0)
    with ShardWriter(path, [part]) as shard:
        assert shard.committed(part) == 390
    compute_shard(path.parents[1], 0)
    assert contents(path) == undisturbed


@pytest.mark.parametrize("other", ["another plan", "other frames", "no HDF5", "cut off", "lost its chunks"])
def test_a_foreign_or_broken_shard_is_moved_aside(tmp_path: Path, other: str, undisturbed: dict[str, bytes]) -> None:
    run = empty_run(tmp_path, plan_of())
    path = shard_path(run, 0)
    if other == "another plan":
        path.write_bytes(shard_path(make_run(tmp_path / "b", plan_of(store_dtype="float32")), 0).read_bytes())
    elif other == "other frames":
        path.write_bytes(shard_path(make_run(tmp_path / "b", plan_of(50)), 0).read_bytes())
    elif other == "no HDF5":
        path.write_bytes(b"Not a shard\n" * 100)
    else:
        compute_shard(run, 0)
        if other == "cut off":
            os.truncate(path, path.stat().st_size // 2)
        else:
            with h5py.File(path, "r+") as file:
                del file["talk.mp4/saliency"]
    was = path.read_bytes()
    compute_shard(run, 0)
    assert contents(path) == undisturbed
    assert path.with_name("0000.h5.broken-1").read_bytes() == was
    path.write_bytes(b"again")
    compute_shard(run, 0)
    assert path.with_name("0000.h5.broken-2").read_bytes() == b"again"


def test_only_one_writer_at_a_time(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(), 0)
    path = tmp_path / "0000.h5"
    with ShardWriter(path, [part]) as shard:
        with pytest.raises(Stopped, match="another process"):
            ShardWriter(path, [part])
        with pytest.raises(BlockingIOError):
            h5py.File(path, "r", locking=True)
        append_frames(shard, part, np.arange(4))
        shard.commit()
    with ShardWriter(path, [part]) as shard:
        assert shard.committed(part) == 4


def test_one_shard_ends_a_video_and_begins_the_next(tmp_path: Path) -> None:
    plan = make_plan({"a.mp4": 30, "b.mp4": 40}, {"a.mp4": [20], "b.mp4": [10]})
    last, first = parts_of(plan, 1)[0], parts_of(plan, 2)[0]
    path = tmp_path / "0001.h5"
    with ShardWriter(path, [last, first]) as shard:
        append_frames(shard, last, np.arange(20, 30))
        append_frames(shard, first, np.arange(0, 6))
        shard.commit()
        with pytest.raises(ValueError, match=r"b\.mp4 has 6 of 10 rows"):
            shard.finish()
    with ShardWriter(path, [last, first]) as shard:
        assert (shard.committed(last), shard.committed(first), shard.complete) == (10, 6, False)
        append_frames(shard, first, np.arange(6, 10))
        shard.finish()
        assert shard.complete
    with h5py.File(path) as file:
        assert list(file["a.mp4/frame"]) == list(range(20, 30))
        assert np.array_equal(file["b.mp4/features"], values_of(np.arange(10))["features"], equal_nan=True) is False
        assert set(file["b.mp4/status"]) == {DONE, HOLE}


def test_rows_come_in_the_order_of_the_plan(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(every=3), 0)
    with ShardWriter(tmp_path / "0000.h5", [part]) as shard:
        append_frames(shard, part, np.array([0, 3]))
        with pytest.raises(ValueError, match="row 2"):
            append_frames(shard, part, np.array([3, 6]))
        append_frames(shard, part, np.array([6, 9]))
        shard.commit()
        assert shard.committed(part) == 4


def test_commit_without_waiting_loses_nothing(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    run = empty_run(tmp_path, plan_of())
    (part,) = parts_of(plan_of(), 0)
    with ShardWriter(shard_path(run, 0), [part]) as shard:
        for row in range(0, N_FRAMES, 8):
            append_frames(shard, part, np.arange(row, row + 8))
            shard.commit(wait=False)
            assert shard.committed(part) >= row - 8
        shard.finish()
    assert contents(shard_path(run, 0)) == undisturbed


def test_too_large_for_half_precision_is_said_not_stored(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(8), 0)
    values = values_of(np.arange(4))
    values["features"][2, 1] = 7e4
    with ShardWriter(tmp_path / "0000.h5", [part]) as shard:
        shard.append(part, frame=np.arange(4), pts_seconds=np.arange(4), hole=np.zeros(4, bool), values=values)
        with pytest.raises(UsageError, match="features of frame 2 is too large for float16"):
            shard.commit()
        shard.commit()
        assert shard.committed(part) == 0
        append_frames(shard, part, np.arange(4))
        shard.commit()
        assert shard.committed(part) == 4


def test_every_device_of_a_shard_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "0000.h5"
    for device in ("cpu", "NVIDIA A100", "cpu"):
        parts: list[PartInfo] = parts_of(plan_of(), 0, device=device)
        ShardWriter(path, parts).close()
    with h5py.File(path) as file:
        assert file["talk.mp4"].attrs["device"] == "cpu; NVIDIA A100"


def test_constants_come_before_the_first_row_and_are_written_once(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(8), 0, constants=("prior",))
    path = tmp_path / "0000.h5"
    with ShardWriter(path, [part]) as shard:
        with pytest.raises(ValueError, match="the constants prior come before the first row"):
            append_frames(shard, part, np.arange(4))
        shard.put_constants(part, {"prior": PRIOR})
        append_frames(shard, part, np.arange(4))
        shard.commit()
    with ShardWriter(path, [part]) as shard:
        assert shard.committed(part) == 4
        shard.put_constants(part, {"prior": PRIOR * np.float32(1 + 1e-7)})  # on another machine
        append_frames(shard, part, np.arange(4, 8))
        shard.finish()
    with h5py.File(path) as file:
        assert np.array_equal(file["talk.mp4/constants/prior"], PRIOR)


def test_a_part_begun_with_other_constants_is_not_gone_on_with(tmp_path: Path) -> None:
    (part,) = parts_of(plan_of(8), 0, constants=("prior",))
    path = tmp_path / "0000.h5"
    with ShardWriter(path, [part]) as shard:
        shard.put_constants(part, {"prior": PRIOR})
        append_frames(shard, part, np.arange(4))
        shard.commit()
    with (
        ShardWriter(path, [part]) as shard,
        pytest.raises(PlanMismatch, match=r"0000\.h5 was begun with another prior of talk\.mp4"),
    ):
        shard.put_constants(part, {"prior": PRIOR + 1})


def test_a_shard_with_damaged_constants_is_moved_aside(tmp_path: Path) -> None:
    run = empty_run(tmp_path, plan_of(8))
    compute_shard(run, 0, constants={"prior": PRIOR})
    path = shard_path(run, 0)
    whole = contents(path)
    with h5py.File(path, "r+") as file:
        file["talk.mp4/constants/prior"][3] = 1
    compute_shard(run, 0, constants={"prior": PRIOR})
    assert contents(path) == whole
    assert path.with_name("0000.h5.broken-1").exists()


WRITE_UNTIL_FULL = """
import sys
sys.path.insert(0, {tests!r})
from pathlib import Path
from synthetic_run import compute_shard
from streamsal.errors import StreamsalError
try:
    compute_shard(Path({run!r}), 0)
except StreamsalError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def write_until_full(run: Path, limit: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    code = WRITE_UNTIL_FULL.format(tests=str(Path(__file__).parent), run=str(run))
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, preexec_fn=limit)


def test_a_full_disk_is_said_and_survived(
    tmp_path: Path, small_disk: Callable[[str], Path], undisturbed: dict[str, bytes]
) -> None:
    run = empty_run(small_disk("size=320k"), plan_of())
    done = write_until_full(run)
    assert (done.returncode, done.stderr) == (74, "")
    assert "0000.h5: the disk is full" in done.stdout
    assert [file.name for file in (run / "shards").iterdir()] == ["0000.h5"]
    safe = committed_rows(shard_path(run, 0))
    assert 0 < safe < N_FRAMES
    small_disk("size=4m")
    assert write_until_full(run).returncode == 0
    assert contents(shard_path(run, 0)) == undisturbed


def test_a_disk_without_room_for_a_first_block_leaves_no_debris(small_disk: Callable[[str], Path]) -> None:
    run = empty_run(small_disk("size=48k"), plan_of())
    done = write_until_full(run)
    assert (done.returncode, done.stderr) == (74, "")
    assert list((run / "shards").iterdir()) == []


def test_a_file_limit_in_mid_write_is_said_and_survived(tmp_path: Path, undisturbed: dict[str, bytes]) -> None:
    """No check of free space foresees this one: the write itself fails, and what it left is cut off again."""
    run = empty_run(tmp_path, plan_of())
    done = write_until_full(run, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000)))
    assert (done.returncode, done.stderr) == (74, "")
    assert "the file would be larger than allowed" in done.stdout
    assert 0 < committed_rows(shard_path(run, 0)) < N_FRAMES
    compute_shard(run, 0)
    assert contents(shard_path(run, 0)) == undisturbed


def test_a_read_only_disk_is_said(small_disk: Callable[[str], Path]) -> None:
    run = empty_run(small_disk("size=1m"), plan_of())
    small_disk("size=1m,ro")
    with pytest.raises(WriteError, match="read-only"):
        compute_shard(run, 0)
    small_disk("size=1m,rw")


def test_a_writer_never_closed_does_not_crash_the_interpreter(tmp_path: Path) -> None:
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import builtins, numpy as np
from synthetic_run import *
part, = parts_of(make_plan({{"talk.mp4": 20}}, {{"talk.mp4": []}}), 0)
builtins.shard = ShardWriter({str(tmp_path / "0000.h5")!r}, [part])
append_frames(builtins.shard, part, np.arange(8))
builtins.shard.commit()
append_frames(builtins.shard, part, np.arange(8, 16))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert committed_rows(tmp_path / "0000.h5") == 8

"""One file per video, equal to its shards, or none at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic_run import HEIGHT, HOLES, OUTPUTS, WIDTH, compute_shard, contents, make_plan, make_run, values_of

from streamsal.errors import BadInput, IncompleteRun, MissingInput
from streamsal.merge import merge, open_run
from streamsal.plan import Plan
from streamsal.store import shard_path

VIDEOS = {"a__talk.mp4": 50, "b__50%b off.mkv": 30}
CUTS = {"a__talk.mp4": [4, 20, 33], "b__50%b off.mkv": [10]}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "talks.streamsal", make_plan(VIDEOS, CUTS))


@pytest.fixture(scope="module")
def undivided(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, bytes]]:
    folder = tmp_path_factory.mktemp("undivided") / "talks.streamsal"
    merge(make_run(folder, make_plan(VIDEOS, {name: [] for name in VIDEOS})))
    return {name: without_shard(folder / f"{name}.h5") for name in VIDEOS}


def without_shard(path: Path) -> dict[str, bytes]:
    found = contents(path)
    del found["shard"]
    return found


def damage(run: Path, number: int, video: str, row: int, name: str = "log_density") -> None:
    """Turn over some bytes of one stored frame."""
    path = shard_path(run, number)
    with h5py.File(path) as file:
        dataset = file[video][name]
        where = dataset.id.get_chunk_info_by_coord((row,) + (0,) * (dataset.ndim - 1))
    with open(path, "r+b") as file:
        file.seek(where.byte_offset + where.size // 2)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 0x55]))


@pytest.mark.parametrize("materialise", [False, True])
def test_merged_equals_undivided(run: Path, undivided: dict[str, dict[str, bytes]], materialise: bool) -> None:
    paths = merge(run, materialise=materialise)
    assert [path.name for path in paths] == ["a__talk.mp4.h5", "b__50%b off.mkv.h5"]
    assert {name: without_shard(path) for name, path in zip(VIDEOS, paths, strict=True)} == undivided


def test_a_materialised_file_needs_no_shards(run: Path, undivided: dict[str, dict[str, bytes]]) -> None:
    (path, _) = merge(run, materialise=True)
    shutil.rmtree(run / "shards")
    assert without_shard(path) == undivided["a__talk.mp4"]
    with h5py.File(path) as file:
        assert file["log_density"].compression == "gzip" and file["log_density"].chunks == (1, 12, 20)


def test_a_merged_run_can_be_moved_and_read_from_anywhere(
    run: Path, undivided: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(run)
    moved = tmp_path / "elsewhere" / "x.streamsal"
    moved.parent.mkdir()
    run.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert without_shard(moved / "b__50%b off.mkv.h5") == undivided["b__50%b off.mkv"]


def test_a_merged_file_says_how_to_read_it(run: Path) -> None:
    (path, _) = merge(run)
    with h5py.File(path) as file:
        assert file.attrs["model"] == "synthetic" and file.attrs["video"] == "a__talk.mp4"
        assert (file.attrs["start"], file.attrs["stop"], file.attrs["every"]) == (0, 50, 1)
        assert file["log_density"].attrs["units"] == "nat"
        read = file["log_density"][40].astype("float32") + file["log_offset"][40]
        np.testing.assert_allclose(read, values_of(np.array([40]))["log_density"][0], atol=2e-2)
        assert list(file["frame"]) == list(range(50)) and list(file["shard"][:6]) == [0, 0, 0, 0, 1, 1]
        assert np.isnan(file["log_density"][7]).all()


def test_a_run_with_gaps_is_refused_and_the_old_file_stays(run: Path) -> None:
    (path, _) = merge(run)
    before = path.read_bytes()
    shard_path(run, 0).unlink()
    shard_path(run, 1).write_bytes(b"no HDF5")
    with h5py.File(shard_path(run, 2), "r+") as file:
        file["a__talk.mp4"].attrs.modify("committed", np.int64(5))
    shutil.copy(shard_path(run, 4), shard_path(run, 5))
    with pytest.raises(IncompleteRun, match=r"tasks 0-2,5 of .*0: missing; 1: unreadable; 2: 5 of 13 frames; 5: "):
        merge(run)
    assert path.read_bytes() == before
    assert sorted(file.name for file in run.iterdir()) == sorted(
        ["a__talk.mp4.h5", "b__50%b off.mkv.h5", "plan.json", "shards"]
    )


def test_a_shard_of_another_plan_is_not_merged(run: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "b", make_plan(VIDEOS, CUTS, store_dtype="float32"))
    shutil.copy(shard_path(other, 3), shard_path(run, 3))
    with pytest.raises(IncompleteRun, match=r"task 3 of .* is not done \(3: of another plan\)"):
        merge(run)


def test_an_unfinished_shard_can_be_finished_and_merged(run: Path, undivided: dict[str, dict[str, bytes]]) -> None:
    shard_path(run, 1).unlink()
    with pytest.raises(
        IncompleteRun, match=r"task 1 of .* is not done .*run `streamsal infer .*talks\.streamsal --task-id 1`"
    ):
        merge(run)
    compute_shard(run, 1)
    assert without_shard(merge(run)[0]) == undivided["a__talk.mp4"]


def test_tasks_beyond_the_last_frame_are_not_missed(tmp_path: Path) -> None:
    plan = make_plan({"a.mp4": 2}, {"a.mp4": [1]})
    empty = Plan(
        **{**{f: getattr(plan, f) for f in ("model", "settings", "batch_size", "videos")}, "shards": (*plan.shards, ())}
    )
    run = make_run(tmp_path / "a.streamsal", empty, skip=(2,))
    assert list(open_run(run)["a.mp4"].frame) == [0, 1]
    assert len(merge(run)) == 1


def test_a_damaged_frame_is_named(run: Path) -> None:
    damage(run, 2, "a__talk.mp4", 5)
    merge(run)
    with pytest.raises(
        BadInput, match=r"frame 25 of a__talk\.mp4 is damaged in .*0002\.h5: .*infer .*talks\.streamsal --task-id 2`"
    ):
        merge(run, verify=True)
    maps = open_run(run)["talk.mp4"]
    maps.log_density(24)
    with pytest.raises(BadInput, match=r"frame 25 of a__talk\.mp4 is damaged in .*0002\.h5"):
        maps.log_density(25)
    shard_path(run, 2).unlink()
    compute_shard(run, 2)
    merge(run, verify=True)
    open_run(run)["talk.mp4"].log_density(25)


def test_a_frame_of_another_computation_is_noticed(run: Path) -> None:
    """The merged file vouches for what it was merged from."""
    merge(run)
    with h5py.File(shard_path(run, 2), "r+") as file:
        file["a__talk.mp4/log_density"][3] = 0
    with pytest.raises(BadInput, match="frame 23 "):
        open_run(run)["a__talk.mp4"].log_density(23)


@pytest.mark.parametrize("state", ["not merged", "merged", "materialised", "one file"])
def test_a_run_reads_the_same_in_every_state(run: Path, state: str) -> None:
    if state != "not merged":
        merge(run, materialise=state == "materialised")
    opened = open_run(run / "a__talk.mp4.h5" if state == "one file" else run)
    assert opened.videos == (("a__talk.mp4",) if state == "one file" else tuple(VIDEOS))
    maps = opened["talk.mp4"]
    assert maps is opened["a__talk.mp4"] is opened[Path("/films/talk.mp4")]
    assert len(maps) == 50 and list(maps.frame) == list(range(50)) and list(maps.holes) == list(HOLES)
    assert maps.outputs == {output.name: output for output in OUTPUTS}
    assert maps.info["weights_sha256"] == "ab" * 32 and maps.info["stop"] == 50
    expected = values_of(np.arange(50))
    for frame in (0, 3, 4, 19, 20, 49):
        np.testing.assert_allclose(maps.native(frame), expected["log_density"][frame], atol=2e-2)
        np.testing.assert_array_equal(maps.output("features", frame), expected["features"][frame])
        full = maps.log_density(frame)
        assert full.shape == (HEIGHT, WIDTH) and full.dtype == np.float32
        assert abs(np.exp(full, dtype=np.float64).sum() - 1) < 1e-5
    assert np.isnan(maps.log_density(7)).all() and np.isnan(maps.output("features", 31)).all()
    opened.close()


def test_frames_are_chosen_by_number_slice_and_time(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.streamsal", make_plan({"a.mp4": 60}, {"a.mp4": [15, 45]}, every=3))
    maps = open_run(run)["a.mp4"]
    assert len(maps) == 20
    assert list(maps.frames(10, 30)) == [12, 15, 18, 21, 24, 27]
    assert list(maps.frames(10, 30, 6)) == [12, 18, 24]
    several = maps.log_density(slice(10, 30, 6))
    assert several.shape == (3, HEIGHT, WIDTH)
    np.testing.assert_array_equal(several, maps.log_density([12, 18, 24]))
    np.testing.assert_array_equal(several[1], maps.log_density(np.int64(18)))
    assert [maps.at(t) for t in (-1.0, 0.0, 0.119, 0.12, 0.47, 0.48, 99.0)] == [0, 0, 0, 3, 9, 12, 57]
    with pytest.raises(ValueError, match=r"no frame 13 of a\.mp4: the run holds every 3 frames 0 to 57"):
        maps.log_density(13)
    with pytest.raises(ValueError, match="no output 'speed'"):
        maps.output("speed", 12)
    with pytest.raises(ValueError, match="is a saliency_map, no density"):
        maps.log_density(12, "saliency")
    assert maps.full_size(12, "saliency").shape == (HEIGHT, WIDTH)


def test_only_the_video_asked_for_has_to_be_complete(run: Path) -> None:
    shard_path(run, 5).unlink()
    opened = open_run(run)
    assert len(opened["talk.mp4"]) == 50
    with pytest.raises(IncompleteRun, match="task 5 "):
        opened["50%b off.mkv"]


def test_a_shard_missing_after_the_merge_is_named(run: Path) -> None:
    merge(run)
    shard_path(run, 2).unlink()
    maps = open_run(run)["a__talk.mp4"]
    maps.native(0)
    with pytest.raises(
        IncompleteRun, match=r"0002\.h5 is missing: run `streamsal infer .*talks\.streamsal --task-id 2`"
    ):
        maps.native(20)


def test_what_is_no_run_is_refused(tmp_path: Path, run: Path) -> None:
    with pytest.raises(MissingInput, match="no run at"):
        open_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInput, match="is no run"):
        open_run(tmp_path / "empty")
    with pytest.raises(BadInput, match="is a shard"):
        open_run(shard_path(run, 0))
    with pytest.raises(KeyError, match="no such videos"):
        open_run(run)["other.mp4"]


def test_many_shards_are_read_with_few_files_open(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a.streamsal", make_plan({"a.mp4": 30}, {"a.mp4": list(range(1, 30))}))
    merge(run)
    maps = open_run(run)["a.mp4"]
    before = len(os.listdir("/proc/self/fd"))
    for frame in maps.frames():
        maps.native(frame)
    assert len(os.listdir("/proc/self/fd")) - before <= 16

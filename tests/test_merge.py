"""One file per video, equal to its shards, or none at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic_run import PRIOR, VIDEOS, compute_shard, contents, make_plan, make_run, run_with_constants, values_of

from streamsal.errors import BadInput, IncompleteRun, MissingInput
from streamsal.merge import merge, open_run
from streamsal.store import shard_path


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
def test_merged_equals_undivided(talks: Path, undivided: dict[str, dict[str, bytes]], materialise: bool) -> None:
    paths = merge(talks, materialise=materialise)
    assert [path.name for path in paths] == ["a__talk.mp4.h5", "b__50%b off.mkv.h5"]
    assert {name: without_shard(path) for name, path in zip(VIDEOS, paths, strict=True)} == undivided


def test_a_materialised_file_needs_no_shards(talks: Path, undivided: dict[str, dict[str, bytes]]) -> None:
    (path, _) = merge(talks, materialise=True)
    shutil.rmtree(talks / "shards")
    assert without_shard(path) == undivided["a__talk.mp4"]
    with h5py.File(path) as file:
        assert file["log_density"].compression == "gzip" and file["log_density"].chunks == (1, 12, 20)


def test_a_merged_run_can_be_moved_and_read_from_anywhere(
    talks: Path, undivided: dict[str, dict[str, bytes]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    merge(talks)
    moved = tmp_path / "elsewhere" / "x.streamsal"
    moved.parent.mkdir()
    talks.rename(moved)
    monkeypatch.chdir(tmp_path)
    assert without_shard(moved / "b__50%b off.mkv.h5") == undivided["b__50%b off.mkv"]


def test_a_merged_file_says_how_to_read_it(talks: Path) -> None:
    (path, _) = merge(talks)
    with h5py.File(path) as file:
        assert file.attrs["model"] == "synthetic" and file.attrs["video"] == "a__talk.mp4"
        assert (file.attrs["start"], file.attrs["stop"], file.attrs["every"]) == (0, 50, 1)
        assert file["log_density"].attrs["units"] == "nat"
        read = file["log_density"][40].astype("float32") + file["log_offset"][40]
        np.testing.assert_allclose(read, values_of(np.array([40]))["log_density"][0], atol=2e-2)
        assert list(file["frame"]) == list(range(50)) and list(file["shard"][:6]) == [0, 0, 0, 0, 1, 1]
        assert np.isnan(file["log_density"][7]).all()


def test_a_run_with_gaps_is_refused_and_the_old_file_stays(talks: Path) -> None:
    (path, _) = merge(talks)
    before = path.read_bytes()
    shard_path(talks, 0).unlink()
    shard_path(talks, 1).write_bytes(b"no HDF5")
    with h5py.File(shard_path(talks, 2), "r+") as file:
        file["a__talk.mp4"].attrs.modify("committed", np.int64(5))
    shutil.copy(shard_path(talks, 4), shard_path(talks, 5))
    with pytest.raises(IncompleteRun, match=r"tasks 0-2,5 of .*0: missing; 1: unreadable; 2: 5 of 13 frames; 5: "):
        merge(talks)
    assert path.read_bytes() == before
    assert sorted(file.name for file in talks.iterdir()) == sorted(
        ["a__talk.mp4.h5", "b__50%b off.mkv.h5", "plan.json", "shards"]
    )


def test_an_unfinished_shard_can_be_finished_and_merged(talks: Path, undivided: dict[str, dict[str, bytes]]) -> None:
    shard_path(talks, 1).unlink()
    with pytest.raises(
        IncompleteRun, match=r"task 1 of .* is not done .*run `streamsal infer .*talks\.streamsal --task-id 1`"
    ):
        merge(talks)
    compute_shard(talks, 1)
    assert without_shard(merge(talks)[0]) == undivided["a__talk.mp4"]


def test_a_damaged_frame_is_named(talks: Path) -> None:
    damage(talks, 2, "a__talk.mp4", 5)
    merge(talks)
    with pytest.raises(
        BadInput, match=r"frame 25 of a__talk\.mp4 is damaged in .*0002\.h5: .*infer .*talks\.streamsal --task-id 2`"
    ):
        merge(talks, verify=True)
    maps = open_run(talks)["talk.mp4"]
    maps.log_density(24)
    with pytest.raises(BadInput, match=r"frame 25 of a__talk\.mp4 is damaged in .*0002\.h5"):
        maps.log_density(25)
    shard_path(talks, 2).unlink()
    compute_shard(talks, 2)
    merge(talks, verify=True)
    open_run(talks)["talk.mp4"].log_density(25)


@pytest.mark.parametrize("materialise", [False, True])
def test_constants_come_with_the_merged_file(tmp_path: Path, materialise: bool) -> None:
    almost = np.nextafter(PRIOR, np.float32(1))  # computed on a machine of another kind
    run = run_with_constants(tmp_path, PRIOR, PRIOR, almost)
    np.testing.assert_array_equal(open_run(run)["a.mp4"].constants["prior"], PRIOR)
    merge(run, materialise=materialise, verify=True)
    shutil.rmtree(run / "shards")
    np.testing.assert_array_equal(open_run(run)["a.mp4"].constants["prior"], PRIOR)


def test_damaged_constants_are_named(tmp_path: Path) -> None:
    run = run_with_constants(tmp_path, PRIOR, PRIOR)
    (path,) = merge(run)
    with h5py.File(path, "r+") as file:
        file["constants/prior"][3] = 1
    with pytest.raises(BadInput, match=r"constant prior of a\.mp4 is damaged in .*a\.mp4\.h5: delete that file and"):
        _ = open_run(path)["a.mp4"].constants
    with h5py.File(shard_path(run, 1), "r+") as file:
        file["a.mp4/constants/prior"][3] = 1
    merge(run)  # copies them from the first shard
    with pytest.raises(BadInput, match=r"constant prior of a\.mp4 is damaged in .*0001\.h5: .*--task-id 1`"):
        merge(run, verify=True)


def test_only_the_video_asked_for_has_to_be_complete(talks: Path) -> None:
    shard_path(talks, 5).unlink()
    opened = open_run(talks)
    assert len(opened["talk.mp4"]) == 50
    with pytest.raises(IncompleteRun, match="task 5 "):
        opened["50%b off.mkv"]


def test_what_is_no_run_is_refused(tmp_path: Path, talks: Path) -> None:
    with pytest.raises(MissingInput, match="no run at"):
        open_run(tmp_path / "nothing")
    (tmp_path / "empty").mkdir()
    with pytest.raises(MissingInput, match="is no run"):
        open_run(tmp_path / "empty")
    with pytest.raises(BadInput, match="is a shard"):
        open_run(shard_path(talks, 0))
    with pytest.raises(KeyError, match="no such videos"):
        open_run(talks)["other.mp4"]

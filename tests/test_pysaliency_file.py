"""The file is what pysaliency looks for: a dataset per stimulus file, a log density of the stimulus' size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from synthetic_run import HEIGHT, HOLES, WIDTH, make_plan, make_run

from streamsal.errors import WriteError
from streamsal.export import export
from streamsal.merge import Run, open_run

pytest_plugins = ("small_disk",)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plan = make_plan({"a.mp4": 12, "b.mkv": 5}, {"a.mp4": [5], "b.mkv": []})
    return open_run(make_run(tmp_path_factory.mktemp("run") / "two.streamsal", plan))


def keys_of(file: h5py.File) -> list[str]:
    """As pysaliency lists them: every dataset by its path."""
    return [f"{video}/{name}" for video, group in file.items() for name in group]


def test_every_frame_of_every_video_is_a_density_under_the_name_of_its_picture(run: Run, tmp_path: Path) -> None:
    (path,) = export(run, tmp_path, format="pysaliency")
    assert path == tmp_path / "predictions.hdf5"
    with h5py.File(path) as file:
        names = keys_of(file)
        expected = {
            f"{video}/{k:06d}" for video, n in (("a.mp4", 12), ("b.mkv", 5)) for k in range(n) if k not in HOLES
        }
        assert {name for name in names if not name.endswith(".png")} == expected
        assert {name.removesuffix(".png") for name in names if name.endswith(".png")} == expected
        for name in expected:
            video, frame = name.split("/")
            values = file[name][:]
            assert values.shape == (HEIGHT, WIDTH) and values.dtype == np.float32
            assert abs(np.log(np.exp(values.astype(np.float64)).sum())) < 0.001  # the strictest of its own limits
            np.testing.assert_array_equal(values, run[video].log_density(int(frame)))
            assert file[f"{name}.png"] == file[name]  # one dataset, two names
        assert file["a.mp4/000006"].attrs["pts_seconds"] == pytest.approx(6 / 25)
        assert file["a.mp4"].attrs["model"] == "synthetic" and file["a.mp4"].attrs["holes"].tolist() == [7]


def test_a_part_goes_into_a_file_of_any_name(run: Run, tmp_path: Path) -> None:
    wanted = {"video": "a.mp4", "start": 2, "stop": 9, "every": 3, "native": True}
    (path,) = export(run, tmp_path / "new" / "part.hdf5", format="pysaliency", **wanted)
    with h5py.File(path) as file:
        assert sorted(file["a.mp4"]) == ["000002", "000002.png", "000005", "000005.png", "000008", "000008.png"]
        assert file["a.mp4/000005"].shape == (HEIGHT // 2, WIDTH // 2)


def test_a_full_disk_is_said_and_leaves_nothing(run: Run, small_disk: Callable[[str], Path]) -> None:
    disk = small_disk("size=16k")
    with pytest.raises(WriteError, match="disk is full"):
        export(run, disk / "part.hdf5", format="pysaliency")
    assert list(disk.iterdir()) == []

"""What other programs read is what the run holds."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
import two_passes
from films import destroy_packets, write_film
from synthetic_run import HEIGHT, WIDTH, make_plan, make_run, parts_of, values_of

from streamsal.errors import UsageError, WriteError
from streamsal.export import export
from streamsal.exported import COLUMNS
from streamsal.index import index_video
from streamsal.merge import Run, open_run
from streamsal.prepare import Request
from streamsal.prepare import make_plan as make_real_plan
from streamsal.store import ShardWriter, shard_path
from streamsal.task import infer

pytest_plugins = ("small_disk",)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plan = make_plan({"talk.mp4": 40}, {"talk.mp4": [15]})
    return open_run(make_run(tmp_path_factory.mktemp("run") / "talk.streamsal", plan))


@pytest.fixture(scope="module")
def two_videos(tmp_path_factory: pytest.TempPathFactory) -> Run:
    plan = make_plan({"a.mp4": 5, "b.mp4": 6}, {"a.mp4": [], "b.mp4": []})
    return open_run(make_run(tmp_path_factory.mktemp("two") / "two.streamsal", plan))


def left_over(folder: Path) -> list[str]:
    return [file.name for file in folder.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize(("native", "size"), [(False, (HEIGHT, WIDTH)), (True, (HEIGHT // 2, WIDTH // 2))])
def test_npy_is_the_maps_and_can_be_memory_mapped(
    run: Run, tmp_path: Path, native: bool, size: tuple[int, int]
) -> None:
    (path,) = export(run, tmp_path / "maps.npy", format="npy", native=native)
    array = np.load(path, mmap_mode="r")
    assert isinstance(array, np.memmap) and array.shape == (40, *size) and array.dtype == np.float32
    maps = run["talk.mp4"]
    for frame in (0, 7, 20):
        np.testing.assert_array_equal(array[frame], maps.native(frame) if native else maps.log_density(frame))
    facts = json.loads((tmp_path / "maps.json").read_text())
    assert facts["frame"] == list(range(40)) and facts["units"] == "nat" and facts["status"][7] == 2
    assert not left_over(tmp_path)


def test_npz_holds_numbers_times_and_maps(run: Run, tmp_path: Path) -> None:
    (path,) = export(run, tmp_path / "out", format="npz", start=6, stop=20, every=5)
    assert path == tmp_path / "out" / "talk.mp4.npz"
    with np.load(path) as arrays:
        assert list(arrays["frame"]) == [6, 11, 16]
        np.testing.assert_allclose(arrays["pts_seconds"], np.array([6, 11, 16]) / 25)
        np.testing.assert_array_equal(arrays["log_density"], run["talk.mp4"].log_density([6, 11, 16]))
        assert list(arrays["status"]) == [1, 1, 1]


def read_png(path: Path) -> np.ndarray:
    with av.open(str(path)) as file:
        picture = next(file.decode(video=0))
        assert picture.format.name == "gray16be"
        return picture.to_ndarray()


def test_png_is_density_relative_to_the_films_highest(run: Run, tmp_path: Path) -> None:
    (folder,) = export(run, tmp_path, format="png", start=4, stop=12)
    assert sorted(file.name for file in folder.iterdir()) == [*(f"{k:06d}.png" for k in range(4, 12)), "scale.json"]
    maps = run["talk.mp4"]
    seen = np.exp(maps.log_density([4, 5, 6, 8, 9, 10, 11]))
    scale = json.loads((folder / "scale.json").read_text())
    assert np.exp(scale["highest"]) == pytest.approx(seen.max())
    np.testing.assert_allclose(read_png(folder / "000005.png") / 65535, seen[1] / seen.max(), atol=1e-5)
    assert max(int(read_png(folder / f"{k:06d}.png").max()) for k in range(4, 12)) == 65535
    assert not read_png(folder / "000007.png").any()
    export(run, tmp_path, format="png", start=4, stop=6)
    assert len(list(folder.iterdir())) == 3
    (folder / "scale.json").unlink()
    with pytest.raises(UsageError, match="something else"):
        export(run, tmp_path, format="png", start=4, stop=6)


@pytest.mark.parametrize("native", [False, True])
def test_csv_summarizes_each_frame(run: Run, tmp_path: Path, native: bool) -> None:
    (path,) = export(run, tmp_path / "summary.csv", format="csv", native=native)
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS and [int(row["frame"]) for row in rows] == list(range(40))
    assert rows[7]["status"] == "hole" and rows[7]["entropy_bits"] == ""
    row, log_density = rows[12], run["talk.mp4"].log_density(12).astype(np.float64)
    density = np.exp(log_density)
    y, x = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    tolerance = 0.6 if native else 1e-3  # a stored pixel is two displayed ones wide
    assert float(row["pts_seconds"]) == pytest.approx(0.48)
    assert float(row["centroid_x_px"]) == pytest.approx((density * x).sum(), abs=tolerance)
    assert float(row["centroid_y_px"]) == pytest.approx((density * y).sum(), abs=tolerance)
    top, left = np.unravel_index(density.argmax(), density.shape)
    assert float(row["peak_x_px"]) == pytest.approx(left + 0.5, abs=tolerance)
    assert float(row["peak_y_px"]) == pytest.approx(top + 0.5, abs=tolerance)
    inside = density[HEIGHT // 3 : 2 * HEIGHT // 3].sum(0)
    central = inside[14:26].sum() + (inside[13] * 2 + inside[26] * 2) / 3  # thirds of 40 columns cut a pixel
    assert float(row["mass_central_third"]) == pytest.approx(central, abs=0.03 if native else 1e-5)
    if not native:
        assert float(row["peak_log_density"]) == pytest.approx(log_density.max(), abs=1e-3)
        assert float(row["entropy_bits"]) == pytest.approx(-(density * log_density).sum() / np.log(2), abs=1e-3)


def test_each_video_gets_its_file(two_videos: Run, tmp_path: Path) -> None:
    paths = export(two_videos, tmp_path / "all.npy", format="npy", native=True)
    assert paths == [tmp_path / "all.npy" / "a.mp4.npy", tmp_path / "all.npy" / "b.mp4.npy"]
    assert [len(np.load(path)) for path in paths] == [5, 6]
    assert export(two_videos.path, tmp_path / "b.csv", format="csv", video="b.mp4") == [tmp_path / "b.csv"]


def write_clip(path: Path, n_frames: int) -> None:
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mpeg4", rate=25)
        stream.width, stream.height = WIDTH, HEIGHT
        for _ in range(n_frames):
            picture = av.VideoFrame.from_ndarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8), format="rgb24")
            file.mux(stream.encode(picture))
        file.mux(stream.encode(None))


def test_a_range_may_be_given_in_seconds(tmp_path: Path) -> None:
    plan = make_plan({"talk.mp4": 40}, {"talk.mp4": []}, every=3)
    run = make_run(tmp_path / "talk.streamsal", plan)
    write_clip(tmp_path / "talk.mp4", 40)
    (run / "index").mkdir()
    index_video(tmp_path / "talk.mp4").save(run / "index" / "talk.mp4.npz")
    (path,) = export(run, tmp_path / "x.npz", format="npz", start="0.4s", stop="0:01")
    with np.load(path) as arrays:
        assert list(arrays["frame"]) == [12, 15, 18, 21, 24]


def test_an_empty_range_is_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"talk\.mp4 has no stored frames from 90 to the end"):
        export(run, tmp_path, format="csv", start=90)


def test_a_full_disk_leaves_no_debris(run: Run, small_disk: Callable[[str], Path]) -> None:
    folder = small_disk("size=64k")
    for format in ("npy", "npz", "png"):
        with pytest.raises(WriteError, match="the disk is full"):
            export(run, folder, format=format)
        assert list(folder.iterdir()) == []


@pytest.fixture(scope="module")
def priorities(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that stores priority maps and a number per frame; frame 3 is a hole."""
    folder = tmp_path_factory.mktemp("priorities")
    film = write_film(folder / "film.mov", 6, codec="mjpeg")
    destroy_packets(film, [3])
    make_real_plan([film], folder / "r", Request(model=two_passes.__file__, options={"derived": False}))
    infer(folder / "r", 0, device="cpu")
    return open_run(folder / "r")


def test_priority_maps_are_exported_as_the_densities_they_become(priorities: Run, tmp_path: Path) -> None:
    maps = priorities["film.mov"]
    full = maps.log_density(range(6))
    (path,) = export(priorities, tmp_path / "maps.npy", format="npy")
    np.testing.assert_array_equal(np.load(path), full)
    facts = json.loads((tmp_path / "maps.json").read_text())
    assert (facts["kind"], facts["units"], facts["history_len"]) == ("log_density", "nats", [1, 2, 3, None, 4, 4])
    (path,) = export(priorities, tmp_path / "maps.npz", format="npz", start=1)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["log_density"], full[1:])
        np.testing.assert_array_equal(arrays["history_len"], [2, 3, np.nan, 4, 4])
    (folder,) = export(priorities, tmp_path, format="png")
    shown = read_png(folder / "000002.png") / 65535
    np.testing.assert_allclose(shown, np.exp(full[2] - np.nanmax(full)), atol=1e-4)
    (path,) = export(priorities, tmp_path / "maps.csv", format="csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["history_len"] for row in rows] == ["1", "2", "3", "", "4", "4"]
    assert float(rows[5]["peak_log_density"]) == pytest.approx(float(full[5].max()), abs=1e-4)


def test_priority_maps_as_they_are_stored_are_no_densities(priorities: Run, tmp_path: Path) -> None:
    (path,) = export(priorities, tmp_path / "maps.npz", format="npz", native=True)
    with np.load(path) as arrays:
        np.testing.assert_array_equal(arrays["priority"][2], priorities["film.mov"].output("priority", 2))
    for format in ("png", "csv"):
        with pytest.raises(UsageError, match="priority is a density only without --native"):
            export(priorities, tmp_path / "x", format=format, native=True)


def test_frames_that_a_model_has_no_map_for_stay_empty(tmp_path: Path) -> None:
    plan = make_plan({"talk.mp4": 4}, {"talk.mp4": []})
    folder = make_run(tmp_path / "talk.streamsal", plan, skip=(0,))
    frames, values = np.arange(4), values_of(np.arange(4))
    values["log_density"][0] = np.nan
    (part,) = parts_of(plan, 0)
    with ShardWriter(shard_path(folder, 0), [part]) as shard:
        shard.append(part, frame=frames, pts_seconds=frames / 25, hole=np.zeros(4, bool), values=values)
        shard.finish()
    (path,) = export(folder, tmp_path / "maps.csv", format="csv")
    with open(path, newline="") as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["status"], rows[0]["peak_x_px"], rows[0]["entropy_bits"]) == ("done", "", "")
    (pictures,) = export(folder, tmp_path, format="png")
    peaks = [int(read_png(pictures / f"{k:06d}.png").max()) for k in range(4)]
    assert peaks[0] == 0 and max(peaks) == 65535

"""DHF1K's trails and fixation pictures, and pysaliency's files, give the gaze that is known to be in them."""

from __future__ import annotations

from pathlib import Path

import av
import h5py
import numpy as np
import pytest

from streamsal.errors import BadInput, UsageError
from streamsal.gaze.read import read_gaze
from streamsal.gaze.table import on_frames

METRICS = Path(__file__).parents[1] / "fixtures" / "metrics"
SIZE = {"001.AVI": (640, 360)}


def test_dhf1k_trails_are_taken_from_the_letterboxed_screen(tmp_path: Path) -> None:
    for name in ("P001", "P002"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}_Trail0001.txt").write_text(
            "Time\tX\tY\tEvent\n0\t720\t450\tF\n20000\t0\t45\tF\n40000\t10\t10\tS\n66700\t1440\t450\tF\n"
        )
    (tmp_path / "P001" / "P001_Trail0002.txt").write_text("Time\tX\tY\tEvent\n0\t720\t450\tF\n")
    gaze = read_gaze(tmp_path, size_px=SIZE)
    assert gaze.video.tolist() == ["001.AVI"] * 6 and gaze.subject.tolist() == ["P001"] * 3 + ["P002"] * 3
    # 1440 screen pixels are 640 of the film; it leaves 45 of the screen free above.
    np.testing.assert_allclose(gaze.x_px[:3], [320, 0, 640])
    np.testing.assert_allclose(gaze.y_px[:3], [180, 0, 180])
    assert on_frames(gaze, np.arange(5) / 30, 5 / 30).frame.tolist() == [0, 0, 0, 0, 2, 2]


def test_bad_trails_are_named_by_line(tmp_path: Path) -> None:
    path = tmp_path / "P001_Trail0001.txt"
    path.write_text("Time\tX\tY\tEvent\n0\t1\t2\tF\n0\tx\t2\tF\n")
    with pytest.raises(BadInput, match=r"line 3 of .*Trail0001\.txt: time, x and y"):
        read_gaze(path, size_px=SIZE)
    path.write_text("Time\tX\tY\tEvent\n0\t1\n")
    with pytest.raises(BadInput, match=r"line 2 of .* has 2 columns"):
        read_gaze(path, size_px=SIZE)
    with pytest.raises(BadInput, match="no trail of a film of this run"):
        read_gaze(path, size_px={"009.AVI": (640, 360)})
    path.write_text("Time\tX\tY\tEvent\n0\t1\t2\tF\n")
    with pytest.raises(UsageError, match="size of 1 is not known"):
        read_gaze(path)


def save_picture(path: Path, grey: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format="image2", options={"update": "1"}) as container:
        stream = container.add_stream("png", rate=1)
        stream.height, stream.width = grey.shape
        stream.pix_fmt = "gray"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(grey, format="gray")))
        container.mux(stream.encode(None))


def fixation_pictures(folder: Path) -> None:
    """Pictures of half the film's size, with one fixation in the first and two in the third."""
    for number, pixels in enumerate([[(10, 20)], [], [(0, 0), (179, 319)]], start=1):
        grey = np.zeros((180, 320), np.uint8)
        for row, column in pixels:
            grey[row, column] = 255
        save_picture(folder / f"{number:04d}.png", grey)


def test_fixation_pictures_are_aligned_by_their_rate(tmp_path: Path) -> None:
    fixation_pictures(tmp_path / "0001" / "fixation")
    (tmp_path / "0001" / "maps").mkdir()
    gaze = read_gaze(tmp_path, size_px=SIZE)
    assert gaze.x_px.tolist() == [41, 1, 639] and gaze.y_px.tolist() == [21, 1, 359]
    assert on_frames(gaze, np.arange(3) / 30, 0.1).frame.tolist() == [0, 2, 2]
    assert "30 make a second" in gaze.notes[0]


def test_the_rate_of_other_fixation_pictures_has_to_be_said(tmp_path: Path) -> None:
    fixation_pictures(tmp_path / "Diving-1" / "fixation")
    sizes = {"Diving-1.avi": (320, 180)}
    with pytest.raises(UsageError, match="--gaze-rate"):
        read_gaze(tmp_path, size_px=sizes)
    gaze = read_gaze(tmp_path, size_px=sizes, rate_hz=10)
    np.testing.assert_allclose(gaze.t_seconds, [0.05, 0.25, 0.25])
    with pytest.raises(BadInput, match="no fixation pictures of a film of this run"):
        read_gaze(tmp_path, size_px={"Golf.avi": (320, 180)}, rate_hz=10)
    (tmp_path / "Diving-1" / "fixation" / "0002.png").write_bytes(b"no picture")
    with pytest.raises(BadInput, match=r"0002\.png is no picture"):
        read_gaze(tmp_path, size_px=sizes, rate_hz=10)


@pytest.mark.parametrize("name", ["pysaliency_fixations.hdf5", "pysaliency_scanpath_fixations.hdf5"])
def test_files_that_pysaliency_wrote_hold_what_it_put_there(name: str) -> None:
    expected = np.load(METRICS / "pysaliency_hdf5_expected.npz")
    gaze = read_gaze(METRICS / name)
    for ours, theirs in {"x_px": "x", "y_px": "y", "t_seconds": "t", "duration_s": "duration"}.items():
        np.testing.assert_array_equal(getattr(gaze, ours), expected[theirs])
    assert gaze.video.tolist() == [str(n) for n in expected["n"]]
    assert gaze.subject.tolist() == [str(n) for n in expected["subject"]]


def test_stimuli_of_pysaliency_are_the_videos_in_their_order() -> None:
    sizes = {f"{name}.mp4": (40, 24) for name in "cab"}
    numbers = np.load(METRICS / "pysaliency_hdf5_expected.npz")["n"]
    gaze = read_gaze(METRICS / "pysaliency_fixations.hdf5", size_px=sizes)
    assert gaze.video.tolist() == [list(sizes)[n] for n in numbers]
    with pytest.raises(BadInput, match="stimulus 2, and there are 2 videos"):
        read_gaze(METRICS / "pysaliency_fixations.hdf5", size_px={"a": (40, 24), "b": (40, 24)})


def test_trains_of_older_pysaliency_are_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "trains.hdf5", "w") as file:
        file.attrs["type"], file.attrs["version"] = np.bytes_("FixationTrains"), np.bytes_("1.2")
        file["train_xs"] = [[1.0, 2, np.nan], [3, 4, 5]]
        file["train_ys"] = [[6.0, 7, np.nan], [8, 9, 10]]
        file["train_ts"] = [[0.1, 0.2, np.nan], [0.3, 0.4, 0.5]]
        file["train_ns"], file["train_subjects"] = [1, 0], [5, 6]
    gaze = read_gaze(tmp_path / "trains.hdf5")
    assert gaze.x_px.tolist() == [1, 2, 3, 4, 5] and gaze.video.tolist() == ["1", "1", "0", "0", "0"]
    assert gaze.subject.tolist() == ["5", "5", "6", "6", "6"] and gaze.duration_s.tolist() == [0] * 5


def test_other_hdf5_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.hdf5").write_bytes(b"x")
    with pytest.raises(BadInput, match="is no HDF5 file of pysaliency"):
        read_gaze(tmp_path / "a.hdf5")
    with h5py.File(tmp_path / "b.hdf5", "w") as file:
        file.attrs["type"] = np.bytes_("Stimuli")
    with pytest.raises(BadInput, match="holds Stimuli instead of fixations"):
        read_gaze(tmp_path / "b.hdf5")
    with h5py.File(tmp_path / "c.hdf5", "w") as file:
        file.attrs["type"] = np.bytes_("Fixations")
    with pytest.raises(BadInput, match="pysaliency's fixations"):
        read_gaze(tmp_path / "c.hdf5")

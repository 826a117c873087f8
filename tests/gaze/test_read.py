"""Whose gaze a file or a folder holds, and what is said where it holds none."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsal.errors import BadInput, MissingInput, UsageError
from streamsal.gaze.read import FORMATS, read_gaze

SIZE = {"a.mp4": (200, 100), "b.mp4": (400, 300)}


def test_rows_get_the_names_of_the_run_and_other_videos_are_left_out_with_a_note(tmp_path: Path) -> None:
    path = tmp_path / "gaze.csv"
    path.write_text("video,t_seconds,x_px,y_px\na,0,1,2\nB.MP4,1,3,4\nz,2,5,6\n")
    gaze = read_gaze(path, size_px=SIZE)
    assert gaze.video.tolist() == ["a.mp4", "b.mp4"] and gaze.x_px.tolist() == [1, 3]
    assert gaze.notes == ("left out: gaze on 1 other videos (z)",)
    assert read_gaze(path).video.tolist() == ["a", "B.MP4", "z"]
    assert len(gaze.of("a.mp4")) == 1


def test_gaze_that_names_no_video_needs_a_run_of_one(tmp_path: Path) -> None:
    path = tmp_path / "gaze.csv"
    path.write_text("t_seconds,x_px,y_px\n0,1,2\n")
    assert read_gaze(path, size_px={"a.mp4": (2, 2)}).video.tolist() == ["a.mp4"]
    with pytest.raises(UsageError, match="names no video and there are 2"):
        read_gaze(path, size_px=SIZE)


def test_several_files_are_one_table(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / f"{name}.csv").write_text("t_seconds,x_px,y_px\n0,1,2\n")
    folder = read_gaze(tmp_path, size_px=SIZE)
    assert folder.video.tolist() == ["a.mp4", "b.mp4"]  # by the files' names
    listed = read_gaze([tmp_path / "a.csv", tmp_path / "b.csv"], size_px={"a.mp4": (2, 2)})
    assert listed.video.tolist() == ["a.mp4", "a.mp4"]


def test_what_is_no_gaze_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"no gaze at .*none\.csv"):
        read_gaze(tmp_path / "none.csv")
    (tmp_path / "gaze.mat").write_text("")
    with pytest.raises(BadInput, match=r"gaze\.mat is of no kind .*--gaze-format"):
        read_gaze(tmp_path / "gaze.mat")
    with pytest.raises(UsageError, match=r"'matlab'.*one of auto, table"):
        read_gaze(tmp_path / "gaze.mat", format="matlab")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="empty holds no gaze"):
        read_gaze(tmp_path / "empty")
    assert "pysaliency" in FORMATS

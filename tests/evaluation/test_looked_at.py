"""Fixations find the frame that was on screen, in whatever part and rhythm of the film the run holds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from maps_run import bump, maps_run

from streamsal.errors import BadInput
from streamsal.evaluation.looked_at import films_of, read_frames
from streamsal.gaze.table import Gaze
from streamsal.index import index_video
from streamsal.merge import open_run
from streamsal.prepare import index_path


def flat(n: int) -> np.ndarray:
    return bump(n, 24, 40, np.full(n, 20), np.full(n, 12))


def looks(seconds: list[float]) -> Gaze:
    return Gaze.rows(video="a.mp4", t_seconds=seconds, x_px=3.5, y_px=2.5)


def test_without_an_index_the_stored_frames_are_the_film(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(6)}, first_seconds=3.0)) as run:
        (film,) = films_of(run, looks([0.01, 0.21, 0.25]))
        assert film.fixations.frame.tolist() == [0, 5] and film.outside == 0
        np.testing.assert_allclose(film.places, [[3.5 / 40, 2.5 / 24]] * 2)


def test_every_fifth_frame_is_shown_for_a_fifth_of_the_time(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(3)}, every=5)) as run:
        (film,) = films_of(run, looks([0.03, 0.05, 0.21, 0.41]))
        assert film.fixations.frame.tolist() == [0, 1, 2]  # rows of the run's maps, frames 0, 5 and 10
        assert film.maps.frame.tolist() == [0, 5, 10]


def test_the_index_knows_frames_that_the_run_does_not_hold(tmp_path: Path) -> None:
    from films import write_film

    run = maps_run(tmp_path / "r", {"a.mp4": flat(3)}, every=5)
    index = index_video(write_film(tmp_path / "a.mp4", 15))
    index_path(run, "a.mp4").parent.mkdir()
    index.save(index_path(run, "a.mp4"))
    with open_run(run) as opened:
        (film,) = films_of(opened, Gaze.rows(video="a.mp4", t_seconds=0.0, x_px=1, y_px=1, duration_s=1.0))
        assert film.fixations.frame.tolist() == [0, 1, 2]


def test_one_degree_is_what_the_plan_said_or_a_fortieth_of_the_frame(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(2)})) as run:
        assert films_of(run, looks([0.0]))[0].sigma_px == 1.0
        assert films_of(run, looks([0.0]), blur_px=7.5)[0].sigma_px == 7.5


def test_videos_without_gaze_are_left_out_and_no_gaze_at_all_is_refused(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(2), "b.mp4": flat(2)})) as run:
        assert [film.name for film in films_of(run, looks([0.0]))] == ["a.mp4"]
        with pytest.raises(BadInput, match=r"no gaze falls into the frames of .*a\.mp4, b\.mp4"):
            films_of(run, looks([5.0]))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("video,time\na,1\n", r"mask\.csv has no column frame"),
        ("video,frame\na,1.5\n", "line 2 of .*frame is no whole number"),
        ("video,frame\na,x\n", "line 2 of .*frame is 'x'"),
        ("video,frame,mask\na,1,maybe\n", "line 2 of .*mask is 'maybe'"),
        ("video,frame,mask\na,1,False\n", "chooses no frame"),
        ("video,frame\nz,1\n", "chooses no frame"),
    ],
)
def test_a_bad_mask_is_named_by_line(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "mask.csv").write_text(text)
    with pytest.raises(BadInput, match=says):
        read_frames(tmp_path / "mask.csv", ["a.mp4"], None)

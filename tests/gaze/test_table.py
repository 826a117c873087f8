"""Which frame was on screen when somebody looked, and which video a name means."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.gaze.table import FrameFixations, Gaze, known_as, on_frames

PTS = np.array([0.0, 0.04, 0.08, 0.12])


def frames_of(gaze: Gaze, **how: float) -> list[int]:
    return on_frames(gaze, PTS, 0.16, **how).frame.tolist()


def looked(t: float | list[float], duration: float | list[float] = 0.0) -> Gaze:
    return Gaze.rows(t_seconds=t, x_px=1.0, y_px=2.0, duration_s=duration, video="a.mp4")


@pytest.mark.parametrize(
    ("t", "duration", "frames"),
    [
        (0.0, 0.0, [0]),
        (0.0399, 0.0, [0]),
        (0.04, 0.0, [1]),
        (0.159, 0.0, [3]),
        (0.16, 0.0, []),
        (-0.01, 0.0, []),
        (0.01, 0.02, [0]),
        (0.01, 0.03, [0]),  # ends as the next frame comes
        (0.01, 0.0301, [0, 1]),
        (0.05, 0.04, [1, 2]),
        (-0.1, 0.11, [0]),
        (-0.1, 0.1, []),
        (0.1, 9.0, [2, 3]),
        (-1.0, 9.0, [0, 1, 2, 3]),
    ],
)
def test_a_fixation_counts_in_every_frame_on_screen_during_it(t: float, duration: float, frames: list[int]) -> None:
    assert frames_of(looked(t, duration)) == frames


def test_times_written_with_six_digits_begin_with_the_frame_they_begin_with() -> None:
    pts = np.arange(300) / 29.97
    written = np.round(pts, 6)
    found = on_frames(looked(written.tolist()), pts, pts[-1] + 1 / 29.97)
    assert found.frame.tolist() == list(range(300))


def test_the_clock_begins_with_the_first_frame_wherever_its_time_stamps_begin() -> None:
    gaze = looked([0.01, 0.05])
    assert on_frames(gaze, PTS + 7.5, 7.66).frame.tolist() == [0, 1]
    # Only the second half of a film is there; its first frame was shown at 7.5 s.
    assert on_frames(gaze, PTS[1:] + 7.5, 7.66, zero_seconds=7.5).frame.tolist() == [0]


def test_a_fixation_does_not_count_in_a_frame_that_has_left_the_screen() -> None:
    sparse, ends = np.array([0.0, 0.2, 0.4]), np.array([0.04, 0.24, 0.44])  # every fifth frame of a film
    assert on_frames(looked([0.03, 0.1, 0.21]), sparse, ends).frame.tolist() == [0, 1]
    assert on_frames(looked(0.1, 0.15), sparse, ends).frame.tolist() == [1]
    assert on_frames(looked(0.05, 0.1), sparse, ends).frame.tolist() == []


@given(
    st.lists(st.floats(0.001, 0.2), min_size=1, max_size=12),
    st.lists(st.tuples(st.floats(-0.5, 2), st.sampled_from([0.0, 0.03, 0.3])), max_size=12),
)
def test_alignment_is_that_of_asking_each_frame(steps: list[float], looks: list[tuple[float, float]]) -> None:
    edges = np.round(np.cumsum([0, *steps]), 3)
    looks = [(round(t, 3) + 0.0004, d) for t, d in looks]  # never on an edge
    gaze = Gaze.rows(t_seconds=[t for t, _ in looks], x_px=0, y_px=0, duration_s=[d for _, d in looks])
    found = on_frames(Gaze.rows(t_seconds=[], x_px=[], y_px=[]) if not looks else gaze, edges[:-1], float(edges[-1]))
    expected = [
        k
        for k, (start, stop) in enumerate(pairwise(edges))
        for t, d in looks
        if t < stop and t + d > start and (d or start <= t)
    ]
    assert found.frame.tolist() == expected


def test_fixations_beside_the_picture_are_not_within_it() -> None:
    gaze = Gaze.rows(t_seconds=[0, 0.01, 0.02, 0.03], x_px=[0, 9.99, 10, 5], y_px=[0, 4.99, 2, -0.1])
    inside = on_frames(gaze, PTS, 0.16).within(5, 10)
    assert isinstance(inside, FrameFixations) and inside.x_px.tolist() == [0, 9.99]


def test_no_frames_have_no_fixations() -> None:
    assert len(on_frames(looked(0.0), np.zeros(0), 1.0)) == 0


@pytest.mark.parametrize(
    ("name", "video"),
    [
        ("a__talk.mp4", "a__talk.mp4"),
        ("talk.mp4", "a__talk.mp4"),
        ("Talk", "a__talk.mp4"),
        (r"C:\films\talk.mp4", "a__talk.mp4"),
        ("0007", "DHF1K__007.AVI"),
        ("7", "DHF1K__007.AVI"),
        ("walk", None),
        ("twice", None),
        ("", None),
    ],
)
def test_videos_are_known_by_path_file_name_stem_or_number(name: str, video: str | None) -> None:
    assert known_as(name, ["a__talk.mp4", "DHF1K__007.AVI", "x__twice.mp4", "y__twice.mp4"]) == video


def test_no_name_means_the_only_video() -> None:
    assert known_as("", ["a.mp4"]) == "a.mp4"


def test_a_table_of_gaze_is_refused_where_its_columns_disagree() -> None:
    with pytest.raises(ValueError, match="t_seconds of a fixation is not finite"):
        Gaze.rows(t_seconds=[np.nan], x_px=[0], y_px=[0])
    with pytest.raises(ValueError, match="different lengths"):
        Gaze(video=["a"], subject=["b"], t_seconds=[1, 2], x_px=[0], y_px=[0], duration_s=[0])  # type: ignore[arg-type]

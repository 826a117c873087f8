"""Which marks of gaze are seen when, and where they lie on pictures of every layout and orientation."""

from __future__ import annotations

import numpy as np
import pytest
from painting import HEIGHT, TURNS, WIDTH, canvas_of, gaze_of, noise, painter

from streamsal.color import Orientation
from streamsal.drawing.canvas import plane_views
from streamsal.drawing.gaze_marks import FADE_SECONDS, GazeTrack, Marks, density_of
from streamsal.gaze.table import Gaze

PTS = np.arange(100) / 25 + 0.3


def marks_at(*places: tuple[float, float], opacity: float = 1.0) -> Marks:
    x, y = np.array(places).T
    color = np.zeros(len(places), int)
    return Marks(x_px=x, y_px=y, opacity=np.full(len(places), opacity), color=color, colors=np.array([[255, 255, 255]]))


def test_a_fixation_is_seen_while_it_lasts_and_fades_behind_it() -> None:
    track = GazeTrack.of(gaze_of(("a", 1.0, 10, 20, 0.4)), PTS)  # from 1.3 to 1.7 by the film's clock
    assert len(track.during(1.26, 1.3)) == 0
    assert track.during(1.28, 1.32).opacity.tolist() == [1]
    assert track.during(1.66, 1.70).opacity.tolist() == [1]
    assert track.during(1.7 + FADE_SECONDS / 2, 2).opacity == pytest.approx([0.5])
    assert len(track.during(1.71 + FADE_SECONDS, 2)) == 0


def test_of_a_viewer_s_samples_the_last_one_of_each_frame_is_kept() -> None:
    samples = [(subject, k / 250, k, 5.0, 0.0) for subject in "ab" for k in range(100)]  # 10 to a frame
    track = GazeTrack.of(gaze_of(*samples, ("c", 0.1, 7, 7, 0.3)), PTS)
    assert len(track.begin) == 2 * 10 + 1
    of_a = track.x_px[track.color == 0]
    assert of_a.tolist() == [10 * k + 9 for k in range(10)]
    assert (np.diff(track.begin) >= 0).all()


def test_a_viewer_s_next_sample_takes_the_place_of_the_last_one() -> None:
    samples = [(subject, k / 25, k, 5.0, 0.0) for subject in "ab" for k in range(10)]
    track = GazeTrack.of(gaze_of(*samples), PTS)
    marks = track.during(PTS[6], PTS[7])
    assert marks.x_px.tolist() == [6, 6] and marks.opacity.tolist() == [1, 1]
    behind = track.during(PTS[9] + FADE_SECONDS / 2, PTS[9] + FADE_SECONDS)
    assert behind.x_px.tolist() == [9, 9] and behind.opacity == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize(("n", "colors"), [(1, 1), (2, 2), (6, 6), (7, 1)])
def test_a_few_viewers_have_a_color_each_and_many_are_white(n: int, colors: int) -> None:
    track = GazeTrack.of(gaze_of(*((f"s{k}", 0.0, 1.0, 1.0, 1.0) for k in range(n))), PTS)
    assert len(track.colors) == colors and len(set(track.color.tolist())) == colors
    assert (track.colors[0] == 255).all() == (colors == 1)


def test_without_gaze_there_are_no_marks() -> None:
    nobody = Gaze(**dict.fromkeys(("video", "subject", "t_seconds", "x_px", "y_px", "duration_s"), np.zeros(0)))
    assert len(GazeTrack.of(nobody, PTS).during(0, 9)) == 0


def test_a_density_is_the_sum_of_gaussians_in_displayed_pixels() -> None:
    marks = marks_at((50, 20), (150, 90))
    density = density_of(marks, (HEIGHT, WIDTH), (HEIGHT, WIDTH), 9.0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    distance = [(columns - x) ** 2 + (rows - y) ** 2 for x, y in ((50, 20), (150, 90))]
    expected = sum(np.exp(-d / 162) for d in distance)
    np.testing.assert_allclose(density, expected / expected.mean(), rtol=1e-4, atol=1e-4)
    small = density_of(marks, (HEIGHT, WIDTH), (HEIGHT // 4, WIDTH // 4), 9.0)
    np.testing.assert_allclose(small, density.reshape(30, 4, 50, 4).mean((1, 3)), atol=0.4)
    assert not density_of(marks_at((-900, 0)), (HEIGHT, WIDTH), (9, 9), 9.0).any()


@pytest.mark.parametrize("turn", TURNS)
def test_a_ring_lies_around_its_place_as_shown(turn: Orientation) -> None:
    canvas = canvas_of("yuv444p", turn)
    picture = noise(canvas)
    height, width = canvas.displayed_size
    x, y = 0.75 * width, 0.25 * height
    drawn = painter(canvas)(picture, None, maximum=1, marks=marks_at((x, y)))
    for after, before in zip(plane_views(drawn), plane_views(picture), strict=True):
        rows, columns = np.nonzero(turn.displayed(after) != turn.displayed(before))
        assert rows.mean() + 0.5 == pytest.approx(y, abs=0.6) and columns.mean() + 0.5 == pytest.approx(x, abs=0.6)
        away = np.hypot(rows + 0.5 - y, columns + 0.5 - x)
        assert away.min() > 2 and away.max() < 9


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv420p10le"])
def test_a_ring_is_light_cased_in_black_on_any_picture(pixel_format: str) -> None:
    canvas = canvas_of(pixel_format)
    for gray in (0, 255):
        picture = noise(canvas)
        for plane, sample in zip(plane_views(picture), canvas.samples(np.full(3, gray)), strict=True):
            plane[...] = sample
        luma = plane_views(painter(canvas)(picture, None, maximum=1, marks=marks_at((100, 60))))[0]
        white, black = canvas.samples(np.full(3, 255))[0], canvas.samples(np.zeros(3))[0]
        assert luma.max() > black + 0.9 * (white - black) and luma.min() < black + 0.5 * (white - black)


def test_a_ring_at_the_border_is_cut_and_one_outside_is_not_drawn() -> None:
    canvas = canvas_of()
    picture = noise(canvas)
    at_corner = painter(canvas)(picture, None, maximum=1, marks=marks_at((0, 0), (WIDTH, HEIGHT)))
    assert (plane_views(at_corner)[0] != plane_views(picture)[0]).any()
    outside = painter(canvas)(picture, None, maximum=1, marks=marks_at((-50, 30), (WIDTH + 50, 30), (9, 999)))
    np.testing.assert_array_equal(plane_views(outside)[0], plane_views(picture)[0])

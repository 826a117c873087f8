from __future__ import annotations

import av
import numpy as np
import pytest
from painting import HEIGHT, TABLE, TURNS, WIDTH, canvas_of, noise, painter

from streamsal.color import Orientation
from streamsal.drawing.canvas import blank_picture, plane_views
from streamsal.drawing.colormaps import colormap
from streamsal.drawing.overlay import Ink, Painter, Style, reduced


def bump(height: int, width: int, y: float, x: float, sigma: float) -> np.ndarray:
    """Density relative to uniform, with cell centers at half cells."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    density = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * sigma**2))
    return (density / density.mean()).astype(np.float32)


@pytest.mark.parametrize("style", ["overlay", "heatmap", "contour"])
@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv444p10le"])
def test_a_picture_without_a_map_is_bit_equal(style: Style, pixel_format: str) -> None:
    canvas = canvas_of(pixel_format)
    picture = noise(canvas)
    plain = painter(canvas, style, legend=True)(picture, None, maximum=10)
    for before, after in zip(plane_views(picture), plane_views(plain), strict=True):
        np.testing.assert_array_equal(after, before)


@pytest.mark.parametrize("style", ["overlay", "contour"])
def test_samples_are_bit_equal_where_nothing_is_drawn(style: Style) -> None:
    canvas = canvas_of()
    picture = noise(canvas)
    drawn = painter(canvas, style)(picture, bump(30, 50, 7, 7, 1.2), maximum=20)
    for before, after in zip(plane_views(picture), plane_views(drawn), strict=True):
        half_y, half_x = after.shape[0] // 2, after.shape[1] // 2
        np.testing.assert_array_equal(after[half_y:], before[half_y:])
        np.testing.assert_array_equal(after[:, half_x:], before[:, half_x:])
        assert (after != before).any()


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv422p10le"])
def test_blending_is_that_of_real_numbers_to_one_step(pixel_format: str) -> None:
    canvas = canvas_of(pixel_format)
    picture = noise(canvas)
    for value in (0.0, 0.2, 0.6, 1.0, 3.0):
        level = round(min(value, 1.0) * 255)
        drawn = painter(canvas)(picture, np.full((6, 10), value * 8, np.float32), maximum=8)
        share = level / 255
        alpha = 0.7 * share * (2 - share)
        color = canvas.samples(TABLE[level])
        for before, after, sample in zip(plane_views(picture), plane_views(drawn), color, strict=True):
            expected = before * (1 - alpha) + sample * alpha
            assert np.abs(after - expected).max() <= 0.5 + (1 << canvas.depth) / 512  # opacity is in 1/256


def test_a_peak_is_drawn_where_the_map_has_it() -> None:
    canvas = canvas_of("yuv444p")
    drawn = painter(canvas, "heatmap")(blank_picture(canvas), bump(30, 50, 10, 35, 3), maximum=10)
    luma = plane_views(drawn)[0].astype(float) - 16
    rows, columns = np.mgrid[:HEIGHT, :WIDTH] + 0.5
    center = (rows * luma).sum() / luma.sum(), (columns * luma).sum() / luma.sum()
    assert center == pytest.approx((10 * HEIGHT / 30, 35 * WIDTH / 50), abs=0.5)


def test_contours_lie_where_half_and_more_of_the_mass_is_inside() -> None:
    canvas = canvas_of("yuv444p", width=480, height=480)
    density = bump(120, 120, 60, 60, 12)
    drawn = painter(canvas, "contour")(blank_picture(canvas), density, maximum=10)
    across = plane_views(drawn)[0][240].astype(int)  # luma from the center to the right
    lit = np.flatnonzero(across[240:] > 60)
    lines = [run.mean() + 0.5 for run in np.split(lit, np.flatnonzero(np.diff(lit) > 2) + 1)]
    radii = [4 * 12 * np.sqrt(-2 * np.log(1 - mass)) for mass in (0.5, 0.75, 0.9)]
    assert lines == pytest.approx(radii, abs=1.5)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_maps_and_legends_are_turned_back_onto_the_decoded_picture(turn: Orientation) -> None:
    canvas = canvas_of("yuv444p", turn, height=240, width=400)
    height, width = canvas.displayed_size
    density = bump(height // 4, width // 4, 5, 5, 2)
    drawn = painter(canvas, "heatmap", legend=True)(
        blank_picture(canvas), density, maximum=float(density.max()), caption="max of video"
    )
    luma = turn.displayed(plane_views(drawn)[0])
    bottom_right = luma[height // 2 :, width // 3 :]
    assert np.unravel_index(luma[: height // 3].argmax(), luma[: height // 3].shape) == pytest.approx((20, 20), abs=3)
    assert bottom_right.max() > 200  # the legend's letters
    assert luma[: height // 3, width // 2 :].max() < 20 and luma[height // 2 :, : width // 8].max() < 20


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_side_by_side_has_the_original_on_the_left_as_shown(turn: Orientation) -> None:
    canvas = canvas_of("yuv420p", turn)
    picture = noise(canvas)
    height, width = canvas.displayed_size
    drawn = painter(canvas, "side")(picture, np.full((6, 10), 9, np.float32), maximum=9)
    luma, before = turn.displayed(plane_views(drawn)[0]), turn.displayed(plane_views(picture)[0])
    assert luma.shape == (height, 2 * width)
    np.testing.assert_array_equal(luma[:, :width], before)
    assert (luma[:, width:] != before).mean() > 0.9


def test_a_picture_of_another_size_or_layout_is_fitted() -> None:
    canvas = canvas_of()
    other = noise(canvas_of("yuv444p", width=96, height=64))
    assert (painter(canvas)(other, None, maximum=1).width, painter(canvas)(other, None, maximum=1).height) == (200, 120)
    odd = noise(canvas_of(width=97, height=63))
    fitted = painter(canvas_of("yuv444p", width=97, height=63))(odd, None, maximum=1)
    np.testing.assert_array_equal(plane_views(fitted)[0], plane_views(odd)[0])  # chroma grows, luma stays


def test_gray_pictures_keep_their_levels() -> None:
    canvas = canvas_of(matrix=2, full_range=True)
    gray = av.VideoFrame(WIDTH, HEIGHT, "gray")
    levels = np.linspace(0, 255, WIDTH).astype(np.uint8)
    np.frombuffer(gray.planes[0], np.uint8).reshape(HEIGHT, -1)[:, :WIDTH] = levels
    plain = painter(canvas)(gray, None, maximum=1)
    assert np.abs(plane_views(plain)[0].astype(int) - levels).max() <= 1


def test_reduced_maps_keep_their_mean_and_their_center() -> None:
    density = bump(541, 962, 200, 700, 40)
    small = reduced(density)
    assert 100_000 < small.size < 160_000
    assert small.mean() == pytest.approx(1, abs=2e-3)
    rows, columns = (np.mgrid[: small.shape[0], : small.shape[1]] + 0.5).astype(float)
    scale = 541 / small.shape[0], 962 / small.shape[1]
    center = [(axis * small).sum() / small.sum() * s for axis, s in zip((rows, columns), scale, strict=True)]
    assert center == pytest.approx([200, 700], abs=1.0)
    assert reduced(density[:40, :40]).shape == (40, 40)


def test_ink_of_no_opacity_changes_nothing() -> None:
    ink = Ink.of(TABLE, np.zeros(256), canvas_of())
    assert (ink.keep == 256).all() and (ink.add == 128).all()


def test_a_difference_has_one_color_for_each_sign_and_none_for_zero() -> None:
    canvas = canvas_of("yuv444p")
    picture = noise(canvas)
    table = colormap("blue_orange")
    compare = Painter(canvas, style="overlay", table=table, opacity=1, legend=False, difference_of=("a", "b"))
    bits = np.repeat(np.array([[-3.0, 0.0, 3.0]], np.float32), 40, axis=1)
    drawn = compare(picture, np.repeat(bits, 60, axis=0), maximum=3)
    planes = [plane.astype(int) for plane in plane_views(drawn)]
    for columns, color in ((slice(0, 60), table[0]), (slice(140, 200), table[255])):
        for plane, sample in zip(planes, canvas.samples(color), strict=True):
            assert np.abs(plane[:, columns] - sample).max() <= 2
    middle = slice(70, 130)
    np.testing.assert_array_equal(planes[0][:, middle], plane_views(picture)[0][:, middle])
    assert (planes[1][:, middle] == 128).all() and (planes[2][:, middle] == 128).all()


def test_a_note_lies_top_left_as_shown() -> None:
    for turn in TURNS:
        canvas = canvas_of("yuv444p", turn)
        picture = noise(canvas)
        drawn = painter(canvas)(picture, None, maximum=1, note="12  0:00:01.000")
        luma, before = turn.displayed(plane_views(drawn)[0]), turn.displayed(plane_views(picture)[0])
        rows, columns = np.nonzero(luma != before)
        assert 2 <= rows.min() == columns.min() <= 5 and rows.max() < 24 and 60 < columns.max() < 110

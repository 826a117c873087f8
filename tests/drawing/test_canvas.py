"""Colors become samples, and planes of pictures become arrays, in every layout that films have."""

from __future__ import annotations

import av
import numpy as np
import pytest

from streamsal.color import Orientation, planes
from streamsal.drawing.canvas import Canvas, blank_picture, plane_views
from streamsal.drawing.colormaps import colormap

TABLE = colormap("inferno")


def canvas_of(pixel_format: str, *, matrix: int = 1, full_range: bool = False, width: int = 97) -> Canvas:
    return Canvas(
        width=width,
        height=63,
        pixel_format=pixel_format,
        matrix=matrix,
        full_range=full_range,
        depth=av.VideoFormat(pixel_format).components[0].bits,
        orientation=Orientation(transpose=True),
    )


@pytest.mark.parametrize("matrix", [1, 5, 9])
@pytest.mark.parametrize("full_range", [False, True])
def test_colors_come_back_from_their_samples(matrix: int, full_range: bool) -> None:
    canvas = canvas_of("yuv444p", matrix=matrix, full_range=full_range, width=256)
    picture = av.VideoFrame(canvas.width, canvas.height, "yuv444p")
    picture.colorspace, picture.color_range = matrix, 2 if full_range else 1
    for plane, sample in zip(plane_views(picture), canvas.samples(TABLE).T, strict=True):
        plane[...] = sample
    assert planes(picture) is not None
    shown = picture.to_ndarray(format="rgb24", interpolation="BILINEAR")[0].astype(int)
    assert np.abs(shown - TABLE).max() <= 4  # two roundings, and swscale's own


@pytest.mark.parametrize("matrix", [0, 2, 3])
def test_a_matrix_that_is_unspecified_means_bt601(matrix: int) -> None:
    unknown, bt601 = canvas_of("yuv420p", matrix=matrix), canvas_of("yuv420p", matrix=5)
    np.testing.assert_array_equal(unknown.samples(TABLE), bt601.samples(TABLE))


@pytest.mark.parametrize(
    ("pixel_format", "chroma", "black"),
    [
        ("yuv420p", (32, 49), (16, 128, 128)),
        ("yuv422p10le", (63, 49), (64, 512, 512)),
        ("yuv444p", (63, 97), (16, 128, 128)),
    ],
)
def test_planes_are_as_large_as_the_layout_says_and_can_be_written(
    pixel_format: str, chroma: tuple[int, int], black: tuple[int, int, int]
) -> None:
    canvas = canvas_of(pixel_format)
    blank = blank_picture(canvas)
    views = plane_views(blank)
    assert [view.shape for view in views] == [(63, 97), chroma, chroma]
    assert [set(view.flat) for view in views] == [{sample} for sample in black]
    views[0][5, 7] = 200
    assert plane_views(blank)[0][5, 7] == 200
    assert canvas.displayed_size == (97, 63)

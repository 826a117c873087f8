from __future__ import annotations

import numpy as np
import pytest

from streamsal.drawing.colormaps import colormap
from streamsal.drawing.legend import Drawing, contour_legend, difference_legend, line_panel, scale_legend

TABLE = colormap("inferno")


@pytest.mark.parametrize("maximum", [4.0, 15.4, 123.4, 0.0456, 31000.0])
@pytest.mark.parametrize("scale", ["video", "frame"])
def test_any_maximum_can_be_written(maximum: float, scale: str) -> None:
    rgb, opacity = scale_legend(TABLE, maximum, "x uniform", f"max of {scale}", 1080, 1920)
    assert rgb.shape[:2] == opacity.shape
    assert 0 < opacity.max() <= 1


@pytest.mark.parametrize("size", [(64, 160), (270, 480), (1080, 1920), (2160, 3840), (1920, 1080)])
def test_a_legend_is_readable_and_small_at_every_size(size: tuple[int, int]) -> None:
    drawings: list[Drawing] = [
        scale_legend(TABLE, 12, "x uniform", "max of video", *size),
        contour_legend({"50%": TABLE[9]}, *size),
        difference_legend(TABLE, 3, ("a", "b"), *size),
    ]
    for rgb, opacity in drawings:
        height, width = opacity.shape
        assert height < size[0] / 1.2 and width < size[1]
        assert height > size[0] / 40
        assert height % 2 == width % 2 == 0  # so that it lies on the grid of subsampled chroma
        assert rgb.min() >= 0 and rgb.max() <= 255


def test_the_bar_runs_from_the_first_color_to_the_last() -> None:
    rgb, _ = scale_legend(TABLE, 12, "x uniform", "max of video", 270, 480)
    row = rgb[8]
    colored = np.flatnonzero((row == TABLE[255]).all(axis=-1))
    assert (row[6] == TABLE[0]).all()
    assert colored.size and colored[0] > 60


def test_a_difference_names_the_model_at_either_end() -> None:
    ends = [difference_legend(TABLE, 3, names, 1080, 1920)[1] for names in (("unisal", "center"), ("center", "unisal"))]
    assert ends[0].shape == ends[1].shape and (ends[0] != ends[1]).any()


@pytest.mark.parametrize("size", [(64, 160), (1080, 1920), (1920, 1080)])
def test_a_line_of_text_has_a_margin_towards_its_corner(size: tuple[int, int]) -> None:
    _, opacity = line_panel("123  0:04.9", *size)
    assert opacity.shape[0] % 2 == opacity.shape[1] % 2 == 0
    assert not opacity[:2].any() and not opacity[:, :2].any()
    assert 0 < opacity[-1, -1] < 1  # the pane begins at its text and is seen through

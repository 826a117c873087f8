from __future__ import annotations

import numpy as np
import pytest

from streamsal.colormaps import colormap
from streamsal.legend import contour_legend, scale_legend, text

TABLE = colormap("inferno")


def test_letters_are_seven_dots_high_and_stand_apart() -> None:
    assert text("0").shape == (7, 5)
    assert text("10").shape == (7, 11)
    assert not text("10")[:, 5].any()
    assert len({text(letter).tobytes() for letter in "0123456789.%x"}) == 13


@pytest.mark.parametrize("maximum", [4.0, 15.4, 123.4, 0.0456, 31000.0])
@pytest.mark.parametrize("scale", ["video", "frame"])
def test_any_maximum_can_be_written(maximum: float, scale: str) -> None:
    rgb, opacity = scale_legend(TABLE, maximum, f"max of {scale}", 1080, 1920)
    assert rgb.shape[:2] == opacity.shape
    assert 0 < opacity.max() <= 1


@pytest.mark.parametrize("size", [(64, 160), (270, 480), (1080, 1920), (2160, 3840), (1920, 1080)])
def test_a_legend_is_readable_and_small_at_every_size(size: tuple[int, int]) -> None:
    for rgb, opacity in (scale_legend(TABLE, 12, "max of video", *size), contour_legend({"50%": TABLE[9]}, *size)):
        height, width = opacity.shape
        assert height < size[0] / 1.2 and width < size[1]
        assert height > size[0] / 40
        assert height % 2 == width % 2 == 0  # so that it lies on the grid of subsampled chroma
        assert rgb.min() >= 0 and rgb.max() <= 255


def test_the_bar_runs_from_the_first_color_to_the_last() -> None:
    rgb, _ = scale_legend(TABLE, 12, "max of video", 270, 480)
    row = rgb[8]
    colored = np.flatnonzero((row == TABLE[255]).all(axis=-1))
    assert (row[6] == TABLE[0]).all()
    assert colored.size and colored[0] > 60

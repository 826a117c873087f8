from __future__ import annotations

import zlib

import numpy as np
import pytest

from streamsal.drawing.colormaps import COLORMAPS, colormap
from streamsal.errors import UsageError

# First, 128th and last color, and CRC-32 of all 768 bytes, of the published tables rounded to 8 bits.
PUBLISHED = {
    "inferno": ((0, 0, 4), (188, 55, 84), (252, 255, 164), 0x40DD6EBE),
    "viridis": ((68, 1, 84), (33, 145, 140), (253, 231, 37), 0xF4078EB3),
    "magma": ((0, 0, 4), (183, 55, 121), (252, 253, 191), 0xD090A2A2),
    "cividis": ((0, 34, 78), (125, 124, 120), (254, 232, 56), 0x51B636DC),
    "turbo": ((48, 18, 59), (164, 252, 60), (122, 4, 3), 0xDAC3C2DC),
    "gray": ((0, 0, 0), (128, 128, 128), (255, 255, 255), 0xA4205DE0),
    "coolwarm": ((59, 76, 192), (221, 220, 220), (180, 4, 38), 0xE585E989),
    "jet": ((0, 0, 128), (125, 255, 122), (128, 0, 0), 0x9435D4D0),
}


def lightness(table: np.ndarray) -> np.ndarray:
    """CIE L* of sRGB colors."""
    srgb = table / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 216 / 24389, 116 * np.cbrt(luminance) - 16, luminance * 24389 / 27)


@pytest.mark.parametrize("name", PUBLISHED)
def test_table_equals_the_published_one(name):
    table = colormap(name)
    assert table.shape == (256, 3) and table.dtype == np.uint8
    first, middle, last, checksum = PUBLISHED[name]
    assert [tuple(table[k].tolist()) for k in (0, 128, 255)] == [first, middle, last]
    assert zlib.crc32(table.tobytes()) == checksum


@pytest.mark.parametrize("name", ["inferno", "magma", "viridis", "cividis", "gray"])
def test_sequential_tables_only_get_lighter(name):
    # 8-bit rounding lets L* dip by hundredths; the trend over three steps never falls.
    steps = lightness(colormap(name))
    assert (steps[3:] > steps[:-3]).all()


def test_differences_get_lighter_and_more_colored_towards_both_ends() -> None:
    table = colormap("blue_orange")
    assert tuple(table[0].tolist()) == (86, 180, 233) and tuple(table[255].tolist()) == (230, 159, 0)
    steps = lightness(table)
    below, above = steps[127::-1], steps[128:]
    assert (below[3:] > below[:-3]).all() and (above[3:] > above[:-3]).all()
    np.testing.assert_allclose(below, above, atol=3)  # neither sign looks larger
    assert np.ptp(table[127:129].astype(int), axis=1).max() <= 2  # gray where there is no difference


def test_every_table_of_the_list_can_be_had() -> None:
    assert set(COLORMAPS) == {*PUBLISHED, "blue_orange"}
    for name in COLORMAPS:
        assert colormap(name).shape == (256, 3)


@pytest.mark.parametrize(("name", "brightest"), [("jet", 0.64), ("turbo", 0.49), ("coolwarm", 0.5)])
def test_other_tables_get_darker_again(name, brightest):
    steps = lightness(colormap(name))
    assert abs(steps.argmax() / 255 - brightest) < 0.02
    assert steps[-1] < steps.max() - 20


def test_a_table_cannot_be_changed_by_whoever_got_it():
    with pytest.raises(ValueError, match="read-only"):
        colormap("viridis")[0] = 0


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        UsageError, match=r"rainbow.*inferno, viridis, magma, cividis, turbo, gray, coolwarm, jet, blue_orange"
    ):
        colormap("rainbow")

"""The contact sheet: which frames stand for a film, and what is drawn where."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from films import destroy_packets, write_film
from hypothesis import given
from hypothesis import strategies as st
from torchvision.io import ImageReadMode, decode_jpeg

from streamsal.drawing.colormaps import colormap
from streamsal.index import index_video
from streamsal.report.contact_sheet import chosen_frames, draw, evenly, jpeg, mark, pictures, smaller

INFERNO = colormap("inferno")


@given(st.integers(0, 50), st.integers(0, 200), st.integers(0, 30))
def test_evenly_spread_frames_lie_in_the_middle_of_equal_parts(start: int, length: int, n: int) -> None:
    frames = evenly(start, start + length, n)
    assert len(frames) == min(n, length) == len(set(frames))
    if frames:
        gaps = np.diff([start, *frames, start + length])
        assert gaps.min() >= 0 and gaps[1:-1].max(initial=0) - gaps[1:-1].min(initial=length) <= 1


def test_each_shot_has_a_stored_frame_of_its_middle() -> None:
    stored = np.arange(0, 100, 2)
    assert chosen_frames([(0, 20), (20, 50), (50, 100)], stored, 24) == [10, 36, 76]


def test_of_many_shots_the_longest_of_each_group_stays() -> None:
    shots = [(0, 10), (10, 40), (40, 45), (45, 100)]
    assert chosen_frames(shots, np.arange(100), 2) == [25, 72]


def test_a_film_of_one_shot_is_shown_at_even_times() -> None:
    assert chosen_frames([(0, 100)], np.arange(100), 4) == [12, 37, 62, 87]


def test_pictures_are_those_of_their_frames_and_holes_have_none(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.avi", 12, codec="mjpeg", size=(64, 96))
    destroy_packets(film, [4])
    found = dict(pictures(index_video(film), [2, 4, 7], long_side=48))
    assert found[4] is None
    for frame in (2, 7):
        assert found[frame].shape == (32, 48, 3)
        bits = [found[frame][1, 48 * bit // 16 + 1].mean() > 128 for bit in range(16)]
        assert sum(on << bit for bit, on in enumerate(bits)) == frame


def test_a_picture_is_never_enlarged() -> None:
    rgb = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    assert smaller(rgb, 100) is rgb
    assert smaller(np.full((400, 100, 3), 77, np.uint8), 100).tolist() == np.full((100, 25, 3), 77).tolist()


def test_lines_enclose_the_named_part_of_the_mass() -> None:
    """Of a round Gaussian, the share p lies within sigma * sqrt(-2 ln(1 - p))."""
    size, sigma = 201, 25
    y, x = np.mgrid[:size, :size] - 100.0
    density = np.exp(-(y**2 + x**2) / (2 * sigma**2))
    density *= density.size / density.sum()
    gray = np.full((size, size, 3), 120, np.uint8)
    drawn = draw(gray, density, INFERNO, maximum=1e9).astype(int)  # so faint that only the lines show
    changed = np.abs(drawn - 120).max(axis=-1) > 60
    assert not changed[100, 100] and not changed[:5].any()
    for mass, place in ((0.5, 0.97), (0.9, 0.62)):
        radius = sigma * np.sqrt(-2 * np.log(1 - mass))
        row = np.abs(drawn[100, 100:] - INFERNO[round(255 * place)].astype(int)).sum(axis=-1)
        assert abs(int(np.argmin(row)) - radius) <= 1.5


def test_the_highest_density_gets_the_last_color_and_none_leaves_the_picture() -> None:
    gray = np.full((40, 60, 3), 120, np.uint8)
    density = np.repeat([[2.0, 0.0]], 4, axis=0).repeat(3, axis=1)
    drawn = draw(gray, density, INFERNO, maximum=2.0)
    np.testing.assert_allclose(drawn[:, :20], np.broadcast_to(0.3 * 120 + 0.7 * INFERNO[255], (40, 20, 3)), atol=1)
    assert (drawn[:, 50:] == 120).all()


def test_a_uniform_map_has_no_lines() -> None:
    gray = np.full((40, 60, 3), 120, np.uint8)
    drawn = draw(gray, np.ones((4, 6)), INFERNO, maximum=1e9)
    assert (drawn == 120).all()


def test_rings_are_where_people_looked() -> None:
    gray = np.full((90, 160, 3), 120, np.uint8)
    drawn = mark(gray, np.array([[0.25, 0.5]])).astype(int)
    rows, columns = np.nonzero(np.abs(drawn - 120).max(axis=-1) > 30)
    assert rows.mean() + 0.5 == pytest.approx(45, abs=0.6) and columns.mean() + 0.5 == pytest.approx(40, abs=0.6)
    assert (drawn[45, 40] == 120).all() and drawn.max() > 240
    assert (mark(gray, np.empty((0, 2))) == gray).all()


def test_jpeg_is_read_back_and_smaller_with_less_quality() -> None:
    smooth = np.tile(np.linspace(0, 255, 128).astype(np.uint8)[None, :, None], (64, 1, 3))
    fine, coarse = jpeg(smooth, 90), jpeg(smooth, 20)
    assert len(coarse) < len(fine)
    back = decode_jpeg(torch.frombuffer(bytearray(fine), dtype=torch.uint8), ImageReadMode.RGB)
    assert np.abs(back.permute(1, 2, 0).numpy().astype(int) - smooth).max() < 8

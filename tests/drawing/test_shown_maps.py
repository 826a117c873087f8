"""Differences of two runs and the density of gaze, for any frame of a film. Densities of one run: test_render.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from painting import gaze_of
from talk import make_run, write_talk

from streamsal.drawing.gaze_marks import GazeTrack
from streamsal.drawing.shown_maps import (
    FLAT,
    SMALL_BITS,
    UNIFORM_SHARE,
    Densities,
    Differences,
    GazeDensities,
    film_maximum,
)
from streamsal.merge import open_run


class Fixed:
    """Maps that are given."""

    least = FLAT

    def __init__(self, *maps: np.ndarray | None) -> None:
        self.maps = maps

    def at(self, frame: int) -> np.ndarray | None:
        return self.maps[frame]

    computed = at

    @property
    def frames(self) -> np.ndarray:
        return np.arange(len(self.maps))


def test_a_difference_is_in_bits_and_unlikely_places_do_not_differ() -> None:
    first, second = np.array([[4.0, 1.0, 1e-9, 2.0]]), np.array([[1.0, 4.0, 1e-3, 1e-9]])
    differences = Differences(Fixed(first, None), Fixed(second, second))  # pyright: ignore[reportArgumentType]
    bits = np.log2((4 + UNIFORM_SHARE) / (1 + UNIFORM_SHARE))
    assert bits == pytest.approx(2, abs=0.15)
    np.testing.assert_allclose(differences.at(0), [[bits, -bits, 0, np.log2(2 / UNIFORM_SHARE + 1)]], atol=0.02)
    assert differences.at(1) is None


def test_the_scale_of_a_difference_covers_both_signs_and_has_a_least() -> None:
    far = Fixed(*(np.array([[-5.0, 1.0]]),) * 3)
    assert film_maximum(far) == 5
    same = Differences(Fixed(np.ones((2, 2))), Fixed(np.ones((2, 2))))  # pyright: ignore[reportArgumentType]
    assert film_maximum(same) == SMALL_BITS


def test_runs_of_unequal_grids_are_compared_at_one_size(tmp_path: Path) -> None:
    talk = write_talk(tmp_path / "talk.mp4", 12)
    index = make_run(talk, tmp_path / "run")
    make_run(talk, tmp_path / "sparse", every=4)
    with open_run(tmp_path / "run") as one, open_run(tmp_path / "sparse") as other:
        size = (48, 80)
        first = Densities(one["talk.mp4"], index, "interpolate", size=size)
        second = Densities(other["talk.mp4"], index, "interpolate", size=size)
        differences = Differences(first, second)
        at_4 = differences.at(4)
        assert at_4 is not None and at_4.shape == size
        np.testing.assert_allclose(at_4, 0, atol=1e-3)  # both hold frame 4
        at_6 = differences.at(6)
        assert at_6 is not None and np.abs(at_6).max() > 0.5
        assert np.unravel_index(at_6.argmax(), size)[1] == pytest.approx(6.5 * 5, abs=3)


def test_where_nobody_looks_the_density_of_gaze_is_nothing(tmp_path: Path) -> None:
    index = make_run(write_talk(tmp_path / "talk.mp4", 40), tmp_path / "run")
    track = GazeTrack.of(gaze_of(("a", 0.5, 40, 30, 0.2)), index.pts_seconds)
    shown = GazeDensities(track, index, 8)
    late = int(np.searchsorted(index.pts_seconds, index.pts_seconds[0] + 0.6))
    density = shown.at(late)
    assert density is not None and density.mean() == pytest.approx(1, rel=1e-5)
    y, x = np.unravel_index(density.argmax(), density.shape)
    assert (x, y) == pytest.approx((40, 30), abs=1)
    assert not np.any(shown.at(0))
    assert film_maximum(shown) == pytest.approx(density.max())

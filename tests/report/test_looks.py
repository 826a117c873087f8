"""Fixations in a page are those that were given, frame by frame, and take few bytes."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from streamsal.report.looks import GRID, columns, looks, n_bytes

PLACES = st.integers(-2, GRID + 1).map(lambda cell: (cell + 0.5) / GRID)
FIXATIONS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 9), PLACES, PLACES), max_size=12)


def of_frames(fixations: list[tuple[int, int, float, float]]) -> np.ndarray:
    """(3, n) frame, x, y: a row for each frame of each fixation."""
    rows = [(frame, x, y) for first, count, x, y in fixations for frame in range(first, first + count)]
    return np.array(rows, np.float64).reshape(-1, 3).T


@given(FIXATIONS)
def test_every_frame_has_the_places_that_were_given(fixations: list[tuple[int, int, float, float]]) -> None:
    frame, x, y = of_frames(fixations)
    given_places = sorted(zip(frame.tolist(), x.tolist(), y.tolist(), strict=True))
    read = json.loads(json.dumps(columns(looks(frame, x, y))))
    first = np.cumsum(read["after"], dtype=np.int64).tolist()
    drawn = [
        (float(number), (column + 0.5) / GRID, (row + 0.5) / GRID)
        for start, count, column, row in zip(first, read["frames"], read["x"], read["y"], strict=True)
        for number in range(start, start + count)
    ]
    assert sorted(drawn) == given_places


def test_a_fixation_is_one_row_however_long_it_is_and_rows_come_in_order() -> None:
    found = looks(*of_frames([(40, 3, 0.5, 0.25), (0, 500, 0.9, 0.1), (43, 2, 0.5, 0.25)]))
    assert found.tolist() == [[0, 500, 3686, 409], [40, 5, 2048, 1024]]


def test_ten_minutes_of_twenty_viewers_take_less_than_a_megabyte() -> None:
    rng = np.random.default_rng(0)
    fixations = [(8 * k, 7, *rng.random(2)) for k in range(15_000 // 8) for _ in range(20)]
    found = looks(*of_frames(fixations))
    assert len(found) == len(fixations)
    assert n_bytes(found) < 1e6

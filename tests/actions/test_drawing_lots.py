"""The clips of an epoch: arithmetic, no video."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.actions.config import Data, Train
from streamsal.actions.drawing_lots import epoch_of, share, weights_of

DATA, TRAIN = Data(train="clips.csv"), Train(seed=7)
ROWS = tuple(range(100, 140))
RARE = np.zeros((40, 2), np.uint8)
RARE[:36, 0] = 1  # 36 clips of one class, 4 of the other
RARE[36:, 1] = 1


def test_an_epoch_shows_every_clip_once_in_an_order_of_its_own() -> None:
    first, second = (epoch_of(ROWS, RARE, DATA, TRAIN, epoch) for epoch in (0, 1))
    assert sorted(wanted.row for wanted in first) == sorted(wanted.row for wanted in second) == list(ROWS)
    assert [wanted.row for wanted in first] != [wanted.row for wanted in second]
    assert {wanted.flip for wanted in first} == {True, False}
    assert len({wanted.at for wanted in first}) == len(ROWS) and all(0 <= float(w.at) < 1 for w in first)


def test_an_epoch_depends_on_seed_and_epoch_alone() -> None:
    np.random.seed(1)
    again = epoch_of(ROWS, RARE, DATA, TRAIN, 3)
    np.random.seed(2)
    assert epoch_of(ROWS, RARE, DATA, TRAIN, 3) == again
    assert epoch_of(ROWS, RARE, DATA, replace(TRAIN, seed=8), 3) != again


def test_clips_begin_at_their_first_frame_and_are_not_mirrored_where_it_is_said() -> None:
    wanted = epoch_of(ROWS, RARE, replace(DATA, start="first", flip=0.0), TRAIN, 0)
    assert {(one.at, one.flip) for one in wanted} == {(0.0, False)}
    assert all(one.flip for one in epoch_of(ROWS, RARE, replace(DATA, flip=1.0), TRAIN, 0))


def test_clips_of_rare_classes_are_drawn_as_often_as_their_weight_says() -> None:
    weights = weights_of(RARE)
    assert weights.tolist() == [1.0] * 36 + [3.0] * 4  # sqrt(36 / 4)
    epochs = [epoch_of(ROWS, RARE, DATA, replace(TRAIN, balance="classes"), epoch) for epoch in range(50)]
    shown = Counter(wanted.row for epoch in epochs for wanted in epoch)
    for place, row in enumerate(ROWS):
        times = [sum(wanted.row == row for wanted in epoch) for epoch in epochs]
        expected = 40 * weights[place] / weights.sum()
        assert {*times} <= {int(expected), int(expected) + 1}
        assert shown[row] / 50 == pytest.approx(expected, abs=0.35)


def test_a_clip_weighs_by_its_rarest_class_and_one_of_none_as_a_common_one() -> None:
    assert weights_of(np.array([[1, 0], [1, 0], [1, 0], [1, 1], [0, 0]])).tolist() == [1.0, 1.0, 1.0, 2.0, 1.0]
    assert weights_of(np.zeros((2, 3), np.uint8)).tolist() == [1.0, 1.0]


@given(n=st.integers(1, 40), world=st.integers(1, 7))
def test_processes_share_an_epoch_in_parts_of_one_length(n: int, world: int) -> None:
    parts = [share(range(n), rank, world) for rank in range(world)]
    assert {len(part) for part in parts} == {-(-n // world)}
    together = [one for step in zip(*parts, strict=True) for one in step]
    assert together[:n] == list(range(n))
    assert set(together[n:]) <= set(range(n))

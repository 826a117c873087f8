"""The learning rate: pure arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.actions.config import Train
from streamsal.actions.schedule import learning_rate


def test_it_rises_in_equal_parts_and_falls_as_a_cosine() -> None:
    train = Train(lr=1.0, epochs=10, warmup=1.0)
    rates = [learning_rate(step, 100, train) for step in range(100)]
    assert rates[:11] == pytest.approx([(step + 1) / 11 for step in range(11)])
    assert rates[10] == 1.0 and rates[55] == pytest.approx(0.5)
    assert 0 < rates[99] < 0.001


def test_without_warm_up_it_begins_at_its_largest() -> None:
    assert learning_rate(0, 100, Train(lr=0.3, warmup=0.0)) == 0.3


@given(n_steps=st.integers(1, 300), epochs=st.integers(1, 30), warmup=st.floats(0, 40))
def test_it_is_never_zero_nor_too_large_and_rises_only_before_it_falls(
    n_steps: int, epochs: int, warmup: float
) -> None:
    train = Train(lr=0.1, epochs=epochs, warmup=warmup)
    rates = [learning_rate(step, n_steps, train) for step in range(n_steps)]
    assert all(0 < rate <= 0.1 for rate in rates) and max(rates) == 0.1
    highest = rates.index(0.1)
    assert rates[:highest] == sorted(rates[:highest])
    assert rates[highest:] == sorted(rates[highest:], reverse=True)

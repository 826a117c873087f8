"""What a clip is and where clips begin: what may be said of it, and that it cannot change later."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.errors import UsageError
from streamsal.timing import Clip, Sampling, Tail, Timing


@pytest.mark.parametrize(
    ("length", "step", "rate", "seconds"),
    [(13, 6, 30, 2.6), (4, 16, 30, 64 / 30), (16, 1, 7.5, 16 / 7.5), (1, 1, 1, 1)],
)
def test_a_window_lasts_as_in_training_whatever_the_video(length: int, step: int, rate: float, seconds: float) -> None:
    assert Clip(length=length, step=step, rate=rate).seconds == pytest.approx(seconds)


@pytest.mark.parametrize("wrong", [{"length": 0}, {"step": 0}, {"rate": 0.0}])
def test_clips_of_nothing(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="no such clip"):
        Clip(**{"length": 4, "step": 2, "rate": 30.0, **wrong})  # type: ignore[arg-type]


@given(st.decimals(min_value="0.001", max_value=10**4, places=3))
def test_a_stride_in_seconds_is_that_number(seconds: object) -> None:
    assert Timing(stride=f"{seconds}s").stride_seconds == float(str(seconds))


@given(st.integers(1, 10**9))
def test_a_stride_in_frames_is_in_no_seconds(frames: int) -> None:
    assert Timing(stride=str(frames)).stride_seconds is None


@pytest.mark.parametrize(
    "stride", ["1e3s", "0.5 s", "0.5S", "s", ".s", "1.s", "nan", "infs", "-0.5s", "00", "16f", "½s"]
)
def test_what_else_is_no_stride(stride: str) -> None:
    with pytest.raises(UsageError, match=r"is no stride: give seconds \(0\.5s\) or a number of frames \(16\)"):
        Timing(stride=stride)


def test_every_word_that_is_known_and_no_other() -> None:
    for sampling in get_args(Sampling):
        assert Timing(sampling=sampling).sampling == sampling
    for tail in get_args(Tail):
        assert Timing(tail=tail).tail == tail
    with pytest.raises(UsageError, match="no sampling is named 'dense': take model, pyslowfast, strided, latent"):
        Timing(sampling="dense")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no tail is named 'cut': take shift, clamp, drop"):
        Timing(tail="cut")  # type: ignore[arg-type]


def test_what_a_plan_recorded_cannot_change_later() -> None:
    with pytest.raises(FrozenInstanceError):
        Timing().stride = "1s"  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Clip(length=1, step=1, rate=1).length = 2  # type: ignore[misc]

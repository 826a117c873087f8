from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from streamsal.models.spec import ModelSpec, Output, Window

OUTPUT = Output(name="density", kind="log_density", units="nat")


@pytest.mark.parametrize(("past", "future", "length"), [(0, 0, 1), (3, 0, 4), (0, 2, 3), (15, 16, 32)])
def test_a_window_is_as_long_as_its_sides_and_the_frame_itself(past: int, future: int, length: int) -> None:
    assert Window(past=past, future=future).length == length


@pytest.mark.parametrize("sides", [{"past": -1}, {"future": -1}, {"past": 4, "future": -4}])
def test_a_negative_window_is_refused(sides: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=f"cannot be negative: Window.*{next(reversed(sides))}=-"):
        Window(**sides)


def test_a_spec_without_more_is_of_single_frames_at_any_rate() -> None:
    spec = ModelSpec(name="m", summary="", licence="Apache-2.0", citation="", outputs=(OUTPUT,))
    assert {spec.window(rate) for rate in (1.0, 25.0, 1000.0)} == {Window()}
    assert (spec.state, spec.pixel_step, spec.autocast, spec.px_per_degree) == ("none", 1, False, None)


def test_what_a_model_says_of_itself_cannot_change_later() -> None:
    with pytest.raises(FrozenInstanceError):
        OUTPUT.units = "bit"  # type: ignore[misc]

"""A model that can be planned for and not run: it says what it is without torch, which takes seconds to load."""

from __future__ import annotations

from typing import NoReturn

from streamsal.models.spec import ModelSpec, Output


def spec() -> ModelSpec:
    outputs = (Output(name="nothing", kind="features", units="none"),)
    return ModelSpec(name="spec_only", summary="", licence="Apache-2.0", citation="none needed", outputs=outputs)


def build(weights: None = None, *, device: object) -> NoReturn:
    raise AssertionError("nothing is to be computed here")

"""signature: sigmotion without its motion channel, with the same causal filter and cuts.

For stills, slide shows and as the static baseline of sigmotion. It looks back only as far as the filter and the
detection of cuts reach.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from . import sigmotion
from .spec import ModelSpec


def spec(*, center_bias: bool = True) -> ModelSpec:
    return replace(
        sigmotion.spec(center_bias=center_bias),
        name="signature",
        summary="image signature without motion; needs no weights",
        window=lambda frame_rate: sigmotion.history(frame_rate, motion=False),
    )


def build(weights: None = None, *, device: torch.device | str, center_bias: bool = True) -> sigmotion.Sigmotion:
    del weights  # there are none
    model_spec = spec(center_bias=center_bias)
    return sigmotion.Sigmotion(model_spec, motion_weight=0.0, prior_weight=float(center_bias), device=device)

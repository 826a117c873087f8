"""uniform: every place equally likely in every frame; the chance level of a saliency model.

It is `center` with no weight on the prior.
"""

from __future__ import annotations

import torch

from .center import Constant
from .sigmotion import log_density_output
from .spec import ModelSpec


def spec() -> ModelSpec:
    return ModelSpec(
        name="uniform",
        summary="every place equally likely; the chance level",
        licence="Apache-2.0",
        citation="none needed",
        outputs=(log_density_output(prior_weight=0.0),),
    )


def build(weights: None = None, *, device: torch.device | str) -> Constant:
    del weights  # there are none
    return Constant(spec(), prior_weight=0.0, device=device)

"""center: the center prior of sigmotion alone, the same for every frame; the baseline a saliency model has to beat.

It looks at no pixel. Its grid is sigmotion's, so that the two can be compared cell by cell.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .sigmotion import center_prior, log_density_output, work_size
from .spec import Batch, ModelSpec, Result, Video


def spec() -> ModelSpec:
    return ModelSpec(
        name="center",
        summary="Gaussian center prior alone, the same for every frame; a baseline",
        licence="Apache-2.0",
        citation="Tatler 2007, The central fixation bias in scene viewing, Journal of Vision 7(14):4",
        outputs=(log_density_output(prior_weight=1.0),),
    )


def build(weights: None = None, *, device: torch.device | str) -> Constant:
    del weights  # there are none
    return Constant(spec(), prior_weight=1.0, device=device)


class Constant:
    """One log density for all frames of a video: the prior times its weight, normalized."""

    def __init__(self, spec: ModelSpec, *, prior_weight: float, device: torch.device | str):
        self.spec = spec
        self.prior_weight = prior_weight
        self.device = torch.device(device)

    def begin(self, video: Video) -> Tensor:
        h, w = work_size(video.height, video.width)
        prior_hw = torch.from_numpy(self.prior_weight * center_prior(h // 2, w // 2))
        return (prior_hw - prior_hw.logsumexp((0, 1))).to(self.device, torch.float32)

    def step(self, batch: Batch, state: Tensor) -> Result:
        frame = batch.frame[batch.present]
        return Result(frame=frame, values={"log_density": state.expand(len(frame), -1, -1)})

    def end(self, state: Tensor) -> None:
        return None

"""DeepGaze I: a linear readout of one AlexNet layer; almost free, and a baseline that beats all that came before it.

Kümmerer, Theis & Bethge 2015, in the form the authors publish for PyTorch.

    frame[::2, ::2] > AlexNet conv5 > one 1x1 convolution > blur, center bias, normalize
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..density import nearest_indices
from ..weights import checkpoints
from . import center_bias as bias
from . import finalizer
from .backbones import alexnet, alexnet_template, normalized
from .finalizer import Finalizer, Parameters
from .precision import Precisions, at_wanted_precision
from .readout import on_meta
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video

BLOCK = 4  # pixels per value, along both sides
STRIDE = 8  # pixels per position of the readout grid


def spec(*, center_bias: str = "mit1003") -> ModelSpec:
    del center_bias
    readback = Readback(interpolation="nearest", block=BLOCK)
    return ModelSpec(
        name="deepgaze_i",
        summary="fixation density of each frame as a picture: one AlexNet layer; a fast baseline",
        licence="weights: none stated by their authors",
        citation="Kümmerer, Theis & Bethge 2015, Deep Gaze I: Boosting saliency prediction with feature maps trained "
        "on ImageNet, ICLR workshop, arXiv 1411.1045",
        outputs=(Output(name="log_density", kind="log_density", units="nats", readback=readback),),
        pixel_step=2,
        px_per_degree=35,
        long_side=1024,
        min_side=64,
        bytes_per_px=20,
        constants=("center_bias",),
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    center_bias: str = "mit1003",
) -> Model:
    """`weights` as for `checkpoints.load`, `center_bias` as for `center_bias.template`."""
    loaded = checkpoints.load("deepgaze_i", weights, template())
    return DeepGazeI(loaded, center_bias=bias.template(center_bias), device=torch.device(device))


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors."""
    return {
        **alexnet_template("features.features.1."),
        **on_meta("readout_network", {"conv0.weight": (1, 256, 1, 1)}),
        **finalizer.template("finalizer"),
    }


@dataclass(slots=True)
class State:
    size: tuple[int, int]
    center_bias: np.ndarray
    finalizer: Finalizer | None = None


class DeepGazeI:
    def __init__(self, weights: Mapping[str, Tensor], *, center_bias: np.ndarray, device: torch.device) -> None:
        self.spec = spec()
        self.device = device
        self.center_bias = center_bias
        self.backbones = Precisions(alexnet(weights, "features.features.1.").to(device))
        self.readout = weights["readout_network.conv0.weight"].float().to(device).flatten(1)
        self.parameters = Parameters.of(weights, ["finalizer"])

    def begin(self, video: Video) -> State:
        return State(size=(video.height, video.width), center_bias=bias.of_video(self.center_bias, video))

    def constants(self, state: State) -> dict[str, np.ndarray]:
        return {"center_bias": finalizer.on_grid(state.center_bias, BLOCK)}

    def step(self, batch: Batch, state: State) -> Result:
        height, width = state.size
        frames = batch.frames_nhwc[:, : height // 2, : width // 2]  # the rest is never looked at
        log_density = at_wanted_precision(self.device, lambda dtype: self.log_density(frames, state, dtype))
        return Result(frame=batch.frame[batch.present], values={"log_density": log_density[batch.present]})

    def end(self, state: State) -> None:
        return None

    def log_density(self, frames_nhwc: Tensor, state: State, dtype: torch.dtype) -> Tensor:
        """(n, H // 4, W // 4) natural-log density on the stored grid, summing to 1 there."""
        (features,) = self.backbones[dtype](normalized(frames_nhwc, dtype))
        priority = (self.readout @ features.flatten(2).float()).unflatten(-1, features.shape[-2:])
        if state.finalizer is None:
            readout = [-(-n // STRIDE) for n in state.size]
            rows, columns = (nearest_indices(n, r) for n, r in zip(features.shape[-2:], readout, strict=True))
            state.finalizer = Finalizer.make(
                self.parameters,
                size=state.size,
                block=BLOCK,
                sources=(rows, columns),
                center_bias=state.center_bias,
                device=self.device,
            )
        return finalizer.log_density(state.finalizer.density_sum(priority))

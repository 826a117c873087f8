"""DeepGaze IIE: where people look in a picture, from four image classifiers and 120 small readout networks.

Linardos, Kümmerer, Press & Bethge 2021. Each frame is a picture of its own. The numbers are those of the authors'
program, computed in another order: backbones stop at the last layer that is read, readouts share their normalization
and run on the features' own grid, and the 120 densities are mixed at half the frame's resolution, where the original
computes them, too, before it repeats every value over 2 x 2 pixels.

    frame[::2, ::2] > backbone > features > saliency networks > fixation networks > blur, center bias, normalize > mean
                      4 of them             30 for each of them                     120 densities
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..weights import checkpoints
from . import center_bias as bias
from . import finalizer
from .backbones import (
    densenet201,
    densenet201_template,
    efficientnet_b5,
    efficientnet_b5_template,
    normalized,
    resnet50,
    resnet50_template,
    resnext50,
    resnext50_template,
)
from .cuda_graph import Recordings
from .finalizer import Finalizer, Parameters
from .precision import Precisions, at_wanted_precision
from .readout import FixationNetworks, Grid, SaliencyNetworks, fixation_template, saliency_template
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video

BLOCK = 2  # pixels per value, along both sides
STRIDE = 32  # pixels per position of the readout grid
N_COMPONENTS = 30  # per backbone: 3 instances of 10 cross-validation folds
WORKING_BYTES = 128 << 20  # of one intermediate of the readout on a GPU; a CPU takes frame by frame

# In the order in which their features were concatenated, prefix in the checkpoint, channels that are read.
BACKBONES = (
    (resnet50, resnet50_template, "module.", 2048),
    (efficientnet_b5, efficientnet_b5_template, "", 2416),
    (densenet201, densenet201_template, "", 2048),
    (resnext50, resnext50_template, "", 2560),
)


def spec(*, center_bias: str = "mit1003", cuda_graph: bool = False) -> ModelSpec:
    del center_bias, cuda_graph
    return ModelSpec(
        name="deepgaze_iie",
        summary="fixation density of each frame as a picture: four backbones, 120 readouts",
        licence="weights: none stated by their authors",
        citation="Linardos, Kümmerer, Press & Bethge 2021, DeepGaze IIE: Calibrated prediction in and out-of-domain "
        "for state-of-the-art saliency modeling, ICCV, 12899-12908",
        outputs=(
            Output(
                name="log_density",
                kind="log_density",
                units="nats",
                readback=Readback(interpolation="nearest", block=BLOCK),
            ),
        ),
        pixel_step=2,
        px_per_degree=35,
        long_side=1024,
        min_side=64,
        bytes_per_px=120,
        constants=("center_bias",),
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    center_bias: str = "mit1003",
    cuda_graph: bool = False,
) -> Model:
    """`weights` as for `checkpoints.load`, `center_bias` as for `center_bias.template`.

    `cuda_graph`: on a CUDA device record each batch size's work once and replay it.
    """
    loaded = checkpoints.load("deepgaze_iie", weights, template())
    template_hw, where = bias.template(center_bias), torch.device(device)
    return DeepGazeIIE(loaded, center_bias=template_hw, device=where, cuda_graph=cuda_graph)


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors; what lies behind the last layer read, too."""
    entries: dict[str, Tensor] = {}
    for b, (_, backbone_template, prefix, channels) in enumerate(BACKBONES):
        entries |= backbone_template(f"models.{b}.features.features.1.{prefix}")
        for k in range(N_COMPONENTS):
            entries |= saliency_template(f"models.{b}.saliency_networks.{k}", channels)
        for k in range(N_COMPONENTS):
            entries |= fixation_template(f"models.{b}.fixation_selection_networks.{k}")
        for k in range(N_COMPONENTS):
            entries |= finalizer.template(f"models.{b}.finalizers.{k}")
    return entries


class Branch:
    """One backbone with its 30 readouts."""

    def __init__(self, weights: Mapping[str, Tensor], number: int, device: torch.device) -> None:
        make, _, prefix, _ = BACKBONES[number]

        def prefixes(network: str) -> list[str]:
            return [f"models.{number}.{network}.{k}" for k in range(N_COMPONENTS)]

        self.backbones = Precisions(make(weights, f"models.{number}.features.features.1.{prefix}").to(device))
        self.saliency = SaliencyNetworks(weights, prefixes("saliency_networks"), device)
        self.fixations = FixationNetworks(weights, prefixes("fixation_selection_networks"), device)
        self.parameters = Parameters.of(weights, prefixes("finalizers"))

    def taps(self, frames_nhwc: Tensor, dtype: torch.dtype) -> list[Tensor]:
        return self.backbones[dtype](normalized(frames_nhwc, dtype))

    def priority(self, taps_nchw: list[Tensor], grid: Grid) -> Tensor:
        """(n, 30, h, w) priority maps, a few frames at a time."""
        n = len(taps_nchw[0])
        cpu = taps_nchw[0].device.type == "cpu"
        at_once = 1 if cpu else max(1, WORKING_BYTES // (N_COMPONENTS * 128 * 4 * len(grid.weights)))
        parts = [[tap[i : i + at_once] for tap in taps_nchw] for i in range(0, n, at_once)]
        return torch.cat([self.fixations(self.saliency(part, grid), grid) for part in parts])


@dataclass(slots=True)
class State:
    """`tables`: per branch what depends on the frame's size, made with the first batch."""

    size: tuple[int, int]
    center_bias: np.ndarray
    tables: list[tuple[Grid, Finalizer]] = field(default_factory=list)
    recordings: Recordings = field(default_factory=Recordings)


class DeepGazeIIE:
    def __init__(
        self,
        weights: Mapping[str, Tensor],
        *,
        center_bias: np.ndarray,
        device: torch.device,
        cuda_graph: bool = False,
    ) -> None:
        self.spec = spec()
        self.device = device
        self.center_bias = center_bias
        self.cuda_graph = cuda_graph
        self.branches = [Branch(weights, number, device) for number in range(len(BACKBONES))]

    def begin(self, video: Video) -> State:
        return State(size=(video.height, video.width), center_bias=bias.of_video(self.center_bias, video))

    def constants(self, state: State) -> dict[str, np.ndarray]:
        return {"center_bias": finalizer.on_grid(state.center_bias, BLOCK)}

    def step(self, batch: Batch, state: State) -> Result:
        height, width = state.size
        frames = batch.frames_nhwc[:, : height // BLOCK, : width // BLOCK]  # the rest is never looked at

        def compute(dtype: torch.dtype) -> Tensor:
            if self.cuda_graph:
                return state.recordings(dtype, lambda frames: self.log_density(frames, state, dtype), frames)
            return self.log_density(frames, state, dtype)

        log_density = at_wanted_precision(self.device, compute)
        return Result(frame=batch.frame[batch.present], values={"log_density": log_density[batch.present]})

    def end(self, state: State) -> None:
        return None

    def log_density(self, frames_nhwc: Tensor, state: State, dtype: torch.dtype) -> Tensor:
        """(n, H // 2, W // 2) natural-log density on the stored grid, summing to 1 there."""
        total = torch.zeros((), device=self.device)
        for number, branch in enumerate(self.branches):
            taps = branch.taps(frames_nhwc, dtype)
            if number == len(state.tables):
                state.tables.append(self.make_tables(branch, taps, state))
            grid, mixture = state.tables[number]
            priority = branch.priority(taps, grid)
            del taps
            total = total + mixture.density_sum(priority)
        return finalizer.log_density(total)

    def make_tables(self, branch: Branch, taps_nchw: list[Tensor], state: State) -> tuple[Grid, Finalizer]:
        height, width = state.size
        readout = -(-height // STRIDE), -(-width // STRIDE)
        grid = Grid.make(readout, [(tap.shape[-2], tap.shape[-1]) for tap in taps_nchw], self.device)
        mixture = Finalizer.make(
            branch.parameters,
            size=state.size,
            block=BLOCK,
            sources=(grid.rows, grid.columns),
            center_bias=state.center_bias,
            device=self.device,
        )
        return grid, mixture

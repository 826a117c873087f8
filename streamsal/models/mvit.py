"""MViT: the vector of a clip from a transformer that pools its queries, keys and values; prepared clips in.

Fan et al. 2021 (version 1) and Li et al. 2022 (version 2), as trained with PySlowFast (Apache-2.0). torchvision has the
network; this file tells it how one looks whose weights are given, because published files of one name differ in
depth and kernels. Weights come with torchvision's keys; which frames make a clip is no matter of this file.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models.video.mvit import MSBlockConfig, MViT

from ..errors import BadInput
from ..timing import Clip
from ..weights import checkpoints
from .clip_frames import GRAY_MEAN, GRAY_STD, Recipe
from .clip_model import ClipModel, clip_spec
from .spec import Model, ModelSpec

Weights = Mapping[str, Tensor]
Kernel = tuple[int, ...]  # times, rows, columns; empty: nothing is pooled


WIDTH = 96  # channels of the first block, and of every head
PATCH = (2, 4, 4)  # frames, rows and columns from one token to the next
WIDEST_STEP = 8  # tokens from one key to the next in the first blocks; half of it each time the width doubles


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """How the blocks follow one another; all that files of one version differ in.

    `doublings`: blocks that work on twice the width of the one before and on a quarter of its tokens. `kernels_q` and
    `kernels_kv`: what pools queries and what pools keys and values, per block.
    """

    version: Literal[1, 2]
    doublings: tuple[int, ...]
    kernels_q: tuple[Kernel, ...]
    kernels_kv: tuple[Kernel, ...]

    def blocks(self) -> Iterator[MSBlockConfig]:
        """One entry per block. The strides are those of all published networks, since weights do not tell them."""
        widths = [WIDTH << self.stage(i) for i in range(len(self.kernels_q))]
        for i, (width, kernel_q, kernel_kv) in enumerate(zip(widths, self.kernels_q, self.kernels_kv, strict=True)):
            # Version 1 widens at the end of the block before, version 2 inside the attention.
            width_in = width if self.version == 1 else widths[max(0, i - 1)]
            width_out = width if self.version == 2 else widths[min(i + 1, len(widths) - 1)]
            step_q, step_kv = 2 if i in self.doublings else 1, WIDEST_STEP >> self.stage(i)
            yield MSBlockConfig(
                num_heads=width // WIDTH,
                input_channels=width_in,
                output_channels=width_out,
                kernel_q=list(kernel_q),
                kernel_kv=list(kernel_kv),
                stride_q=[1, step_q, step_q] if kernel_q else [],
                stride_kv=[1, step_kv, step_kv] if kernel_kv else [],
            )

    def stage(self, block: int) -> int:
        return sum(first <= block for first in self.doublings)


def _layout_1(blocks: int, doublings: tuple[int, ...], kernel_q: Kernel, *kernels_kv: Kernel) -> Layout:
    stages = [sum(first <= i for first in doublings) for i in range(blocks)]
    return Layout(
        version=1,
        doublings=doublings,
        kernels_q=tuple(kernel_q if i in doublings else () for i in range(blocks)),
        kernels_kv=tuple(kernels_kv[stage] for stage in stages),
    )


def _layout_2(blocks: int, doublings: tuple[int, ...]) -> Layout:
    return Layout(version=2, doublings=doublings, kernels_q=((3, 3, 3),) * blocks, kernels_kv=((3, 3, 3),) * blocks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What has to be known before there are weights.

    frames      of one clip, `step` apart at `rate` frames per second
    crop        side of the square that it was trained on, in pixels, cut from frames whose short side is `short_side`
    features    length of the vector
    gmac        10^9 multiply-adds for one clip
    layout      of the published weights; others are read as they are
    """

    frames: int
    step: int
    rate: float = 30
    crop: int = 224
    short_side: int = 256
    classes: int = 400
    features: int = 768
    gmac: float
    layout: Layout


# PySlowFast, configs/Kinetics/MVIT_B_32x3_CONV, MVITv2_S_16x4 and MVITv2_B_32x3.
VARIANTS: dict[str, Variant] = {
    "mvit_v1_b_32x3": Variant(
        frames=32,
        step=3,
        gmac=235.8,
        layout=_layout_1(24, (2, 5, 21), (1, 3, 3), (1, 9, 9), (1, 5, 5), (1, 3, 3), ()),
    ),
    "mvit_v2_s_16x4": Variant(frames=16, step=4, gmac=64.2, layout=_layout_2(16, (1, 3, 14))),
    "mvit_v2_b_32x3": Variant(frames=32, step=3, gmac=224.5, layout=_layout_2(24, (2, 5, 21))),
}


def spec(*, variant: str, logits: bool = False, pool: str = "") -> ModelSpec:
    """`logits` as for `clip_spec`; `pool` is refused, for want of a map."""
    facts = VARIANTS[variant]
    clip = Clip(length=facts.frames, step=facts.step, rate=facts.rate)
    return clip_spec(variant, clip, recipe(variant), logits=logits, pool=pool, averages=False)


def build(
    weights: str | Path | Weights | None = None,
    *,
    device: torch.device | str,
    variant: str,
    logits: bool = False,
    pool: str = "",
) -> Model:
    """`weights` as for `checkpoints.clip_weights`, the rest as for `spec`."""
    wanted = spec(variant=variant, logits=logits, pool=pool)
    found = checkpoints.clip_weights(variant, weights, partial(template, variant))
    return ClipModel(wanted, network(found.weights, variant).to(device), recipe(variant))


def recipe(variant: str) -> Recipe:
    facts = VARIANTS[variant]
    return Recipe(family="pyslowfast", resize=facts.short_side, crop=facts.crop, mean=GRAY_MEAN, std=GRAY_STD)


class ClassToken(nn.Module):
    """An MViT whose vector is what its class token holds after the last norm. There is no map that it averages."""

    def __init__(self, net: MViT):
        super().__init__()
        projection = net.head[1]
        assert isinstance(projection, nn.Linear)
        self.projection = projection
        net.head = nn.Sequential()
        self.net = net

    def features(self, clips_ncthw: Tensor) -> Tensor:
        """(n, D) the vector that the projection onto classes reads."""
        return self.net(clips_ncthw).float()

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., classes), before the softmax."""
        return linear(features, self.projection)


def linear(x: Tensor, layer: nn.Linear | nn.Conv3d) -> Tensor:
    """A projection of the last axis in float32, also under autocast."""
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x.float(), layer.weight.flatten(1), layer.bias)


def network(weights: Weights, variant: str) -> ClassToken:
    """The network that `weights` are of, sharing their memory, for inference only.

    Raises BadInput for weights of other clips than those of the variant: they would have to be interpolated.
    """
    facts = VARIANTS[variant]
    frames, crop = clip_size(weights)
    if (frames, crop) != (facts.frames, facts.crop):
        raise BadInput(
            f"these weights of an MViT are for clips of {frames} frames and {crop} pixels, and {variant} takes "
            f"{facts.frames} frames and {facts.crop} pixels: get those of {variant}"
        )
    return assembled(weights)


def assembled(weights: Weights) -> ClassToken:
    """The network that `weights` are of, whatever clips it takes."""
    frames, crop = clip_size(weights)
    with torch.device("meta"):
        net = _mvit(layout_of(weights), frames=frames, crop=crop, classes=len(weights["head.1.weight"]))
    net.load_state_dict(weights, assign=True)
    return ClassToken(net).eval().requires_grad_(False)


def template(variant: str, found: Weights | None = None) -> dict[str, Tensor]:
    """Every entry of a checkpoint of this variant, in torchvision's order, as meta tensors.

    Where `found` in a file is an MViT, the template follows its version, blocks, kernels and classes.
    """
    facts, found = VARIANTS[variant], found or {}
    classes = len(found["head.1.weight"]) if "head.1.weight" in found else facts.classes
    layout = layout_of(found) if "blocks.0.norm2.weight" in found else facts.layout
    with torch.device("meta"):
        return _mvit(layout, frames=facts.frames, crop=facts.crop, classes=classes).state_dict()


def _mvit(layout: Layout, *, frames: int, crop: int, classes: int) -> MViT:
    second = layout.version == 2
    return MViT(
        spatial_size=(crop, crop),
        temporal_size=frames,
        block_setting=list(layout.blocks()),
        residual_pool=second,
        residual_with_cls_embed=not second,
        rel_pos_embed=second,
        proj_after_attn=second,
        num_classes=classes,
    )


def layout_of(weights: Weights) -> Layout:
    """Read from keys and shapes. Raises BadInput where the width grows and no queries are pooled."""
    numbered = (f"blocks.{i}" for i in itertools.count())
    names = list(itertools.takewhile(lambda name: f"{name}.norm2.weight" in weights, numbered))
    widths = [len(weights[f"{name}.norm2.weight"]) for name in names]
    layout = Layout(
        version=2 if "blocks.0.attn.rel_pos_h" in weights else 1,
        doublings=tuple(i for i in range(1, len(widths)) if widths[i] != widths[i - 1]),
        kernels_q=tuple(_kernel(weights, f"{name}.attn.pool_q") for name in names),
        kernels_kv=tuple(_kernel(weights, f"{name}.attn.pool_k") for name in names),
    )
    for i in layout.doublings:
        if not layout.kernels_q[i]:
            raise BadInput(f"these weights are of no MViT that is known: block {i} is wider, but pools no queries")
    return layout


def _kernel(weights: Weights, pool: str) -> Kernel:
    key = f"{pool}.pool.weight"
    return tuple(weights[key].shape[2:]) if key in weights else ()


def clip_size(weights: Weights) -> tuple[int, int]:
    """Frames of a clip and the side of its square in pixels, which positions were trained for."""
    if "pos_encoding.spatial_pos" in weights:
        times, rows = len(weights["pos_encoding.temporal_pos"]), math.isqrt(len(weights["pos_encoding.spatial_pos"]))
    else:  # one entry per distance between two tokens, from the farthest before to the farthest after
        times, rows = ((len(weights[f"blocks.0.attn.rel_pos_{axis}"]) + 1) // 2 for axis in "th")
    return times * PATCH[0], rows * PATCH[1]

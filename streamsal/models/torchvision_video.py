"""Clip networks of torchvision, as published with their weights; prepared clips in, one vector per clip out.

Tran et al. 2018 (R3D, MC3, R(2+1)D), Xie et al. 2018 (S3D), Liu et al. 2022 (Video Swin), Fan et al. 2021 and Li et al.
2022 (MViT). torchvision has the networks; this file says where their vectors come out and what they were trained on.
Which frames make a clip, and how a frame is prepared, is no matter of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import video
from torchvision.models.video.mvit import MViT
from torchvision.models.video.swin_transformer import ShiftedWindowAttention3d

from ..timing import Clip
from ..weights import checkpoints
from .clip_frames import GRAY_MEAN, GRAY_STD, Recipe
from .clip_model import ClipModel, clip_spec
from .mvit import ClassToken, linear
from .spec import Model, ModelSpec

Weights = Mapping[str, Tensor]

# Recipes, clip lengths and frame rates: the presets and notes beside the weights in torchvision 0.26.
KINETICS = Recipe(
    family="torchvision",
    resize=(128, 171),
    crop=112,
    mean=(0.43216, 0.394666, 0.37645),
    std=(0.22803, 0.22145, 0.216989),
)
KINETICS_LARGE = Recipe(family="torchvision", resize=(256, 256), crop=224, mean=KINETICS.mean, std=KINETICS.std)
IMAGENET = Recipe(family="torchvision", resize=256, crop=224, mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
GRAY = Recipe(family="torchvision", resize=256, crop=224, mean=GRAY_MEAN, std=GRAY_STD)


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What has to be known before there are weights.

    constructor  gives the network of torchvision
    frames       of one clip, `step` apart at `rate` frames per second
    recipe       how a frame is prepared
    features     length of the vector
    gmac         10^9 multiply-adds for one clip
    """

    constructor: Callable[..., nn.Module]
    frames: int
    step: int = 1
    rate: float = 15
    recipe: Recipe
    classes: int = 400
    features: int
    gmac: float


resnet = partial(Variant, frames=16, recipe=KINETICS, features=512)
swin = partial(Variant, frames=32, recipe=IMAGENET)
transformer = partial(Variant, frames=16, rate=7.5, recipe=GRAY, features=768)

VARIANTS: dict[str, Variant] = {
    "r3d_18": resnet(constructor=video.r3d_18, gmac=40.7),
    "mc3_18": resnet(constructor=video.mc3_18, gmac=43.3),
    "r2plus1d_18": resnet(constructor=video.r2plus1d_18, gmac=40.5),
    "s3d": Variant(constructor=video.s3d, frames=128, recipe=KINETICS_LARGE, features=1024, gmac=143.8),
    "swin3d_t": swin(constructor=video.swin3d_t, features=768, gmac=87.8),
    "swin3d_s": swin(constructor=video.swin3d_s, features=768, gmac=165.7),
    "swin3d_b": swin(constructor=video.swin3d_b, features=1024, gmac=281.3),
    "mvit_v1_b": transformer(constructor=video.mvit_v1_b, gmac=70.6),
    "mvit_v2_s": transformer(constructor=video.mvit_v2_s, gmac=64.2),
}


def spec(*, variant: str, logits: bool = False, pool: str = "") -> ModelSpec:
    """`logits`, `pool` as for `clip_spec`."""
    facts = VARIANTS[variant]
    clip = Clip(length=facts.frames, step=facts.step, rate=facts.rate, sampling="strided")
    averages = not variant.startswith("mvit")
    return clip_spec(variant, clip, facts.recipe, logits=logits, pool=pool, averages=averages)


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
    return ClipModel(wanted, network(found.weights, variant).to(device), VARIANTS[variant].recipe)


class Averaged(nn.Module):
    """A network of torchvision whose vector is the average of one map over all times and places."""

    def __init__(self, net: nn.Module, last_map: Callable[[Any, Tensor], Tensor], projection: nn.Linear | nn.Conv3d):
        super().__init__()
        self.net, self.last_map, self.projection = net, last_map, projection

    def features(self, clips_ncthw: Tensor) -> Tensor:
        """(n, D) the vector that the projection onto classes reads."""
        return self.vector([x.float().mean((2, 3, 4)) for x in self.maps(clips_ncthw)])

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., classes), before the softmax."""
        return linear(features, self.projection)

    def maps(self, clips_ncthw: Tensor) -> list[Tensor]:
        """What is averaged: one map (n, D, t, h, w)."""
        return [self.last_map(self.net, clips_ncthw)]

    def vector(self, pooled: list[Tensor]) -> Tensor:
        """(..., D) from averages of the map with channels last."""
        (average,) = pooled
        return average


def resnet_map(net: Any, x: Tensor) -> Tensor:
    """(n, 512, T/8, H/16, W/16); mc3_18 keeps T."""
    return net.layer4(net.layer3(net.layer2(net.layer1(net.stem(x)))))


def s3d_map(net: Any, x: Tensor) -> Tensor:
    """(n, 1024, T/8 - 1, H/32, W/32).

    S3D averages over pairs of times first, and then over the pairs: the first and the last time count half.
    """
    return functional.avg_pool3d(net.features(x), (2, 1, 1), stride=1)


def swin_map(net: Any, x: Tensor) -> Tensor:
    """(n, D, T/2, H/32, W/32), after the last norm."""
    return net.norm(net.features(net.pos_drop(net.patch_embed(x)))).permute(0, 4, 1, 2, 3)


def network(weights: Weights, variant: str) -> Averaged | ClassToken:
    """The network that `weights` are of, sharing their memory, for inference only."""
    net: Any = _unweighted(variant, classes_of(weights))
    net.load_state_dict(weights, assign=True)
    for module in net.modules():
        if isinstance(module, ShiftedWindowAttention3d):
            module.define_relative_position_index()  # a constant, which stand-in weights do not have
    return _with_vector(net).eval().requires_grad_(False)


def template(variant: str, found: Weights | None = None) -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors; with as many classes as `found` in a file."""
    return _unweighted(variant, classes_of(found or {}) or VARIANTS[variant].classes).state_dict()


def _with_vector(net: Any) -> Averaged | ClassToken:
    if isinstance(net, MViT):
        return ClassToken(net)
    if hasattr(net, "classifier"):
        return Averaged(net, s3d_map, net.classifier[1])
    if hasattr(net, "head"):
        return Averaged(net, swin_map, net.head)
    return Averaged(net, resnet_map, net.fc)


def classes_of(weights: Weights) -> int:
    """0 where there is no projection onto classes."""
    projections = (weights.get(f"{name}.weight") for name in ("fc", "classifier.1", "head", "head.1"))
    return next((len(weight) for weight in projections if weight is not None), 0)


def _unweighted(variant: str, classes: int) -> nn.Module:
    with torch.device("meta"):
        return VARIANTS[variant].constructor(num_classes=classes)

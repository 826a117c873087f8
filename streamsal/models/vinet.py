"""ViNet and ViNet-S: where people look in each frame of a video, from a clip that ends with it.

Jain et al. 2021, ViNet: Pushing the Limits of Visual Modality for Audio-Visual Saliency Prediction (samyak0210/ViNet,
MIT); Girmaji et al. 2025, Minimalistic Video Saliency Prediction via Efficient Decoder & Spatio Temporal Action Cues
(ViNet-S, CC-BY-NC-SA-4.0). One network twice: ViNet-S has grouped kernels in its decoder, told by their shapes. RGB
frames in, a saliency map of 224 x 384 values in 0 ... 1 out; checked against numbers of both authors' programs.

    base1 ─────────────────────────────┐     time steps of 32 frames: 16, 16, 8, 4
      base2 ────────────────────┐      │     each level is put behind the one below it along time,
        base3 ─────────┐        │      │     and kernels as long as their stride shorten it again
          base4 > 4 > 12 > 4 > 20 > 4 > 20 > 4 > 2 > 1 map
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import BadInput, StreamsalError, UsageError
from ..weights import cache, checkpoints
from . import s3d_trunk as s3d
from .backbones import Weights, constant, normalized
from .precision import Precisions
from .resize import resized
from .sliding_clip import SALIENCY, First, SlidingClip, check_first, check_size, window
from .spec import Model, ModelSpec

CHANNELS = (1024, 832, 480, 192, 64, 32)  # from base4 to the last but one kernel of the decoder
GROUPS_S = (32, 16, 8, 4, 2)  # of ViNet-S, one per kernel of more than one pixel
BACKBONE = "backbone."

FRAMES = (8, 16, 32, 48)  # of a clip; ViNet-S has 32
CITATIONS = {
    "vinet": "Jain, Yarlagadda, Jyoti, Karthik, Subramanian & Gandhi 2021, ViNet: Pushing the Limits of Visual "
    "Modality for Audio-Visual Saliency Prediction, IROS",
    "vinet_s": "Girmaji, Jain, Beri, Bansal & Gandhi 2025, Minimalistic Video Saliency Prediction via Efficient "
    "Decoder & Spatio Temporal Action Cues, ICASSP",
}
SUMMARIES = {
    "vinet": "saliency map of each frame of a video from the last 32: an S3D, and a decoder of all its levels",
    "vinet_s": "saliency map of each frame of a video from the last 32: ViNet with grouped kernels, a third as large",
}
LICENCES = {"vinet": "MIT; weights: none stated by their authors", "vinet_s": "CC-BY-NC-SA-4.0 (no commercial use)"}


def spec(
    *, variant: str = "vinet", frames: int = 32, first: First = "replicate", height: int = 224, width: int = 384
) -> ModelSpec:
    """`frames` of a clip: networks of 8, 16 and 48 are other checkpoints of ViNet. `first`: see `SlidingClip`.

    `height`, `width`: what frames are resized to, 224 x 384 in training; multiples of 32.
    """
    if frames not in (FRAMES if variant == "vinet" else (32,)):
        raise UsageError(f"{variant} has no network of {frames} frames: vinet has 8, 16, 32 and 48, vinet_s has 32")
    check_first(variant, first)
    check_size(variant, height, width)
    return ModelSpec(
        name=variant,
        summary=SUMMARIES[variant],
        licence=LICENCES[variant],
        citation=CITATIONS[variant],
        outputs=(SALIENCY,),
        window=lambda frame_rate: window(frames, first),
        state="window",
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    variant: str = "vinet",
    frames: int = 32,
    first: First = "replicate",
    height: int = 224,
    width: int = 384,
) -> Model:
    """`weights` as for `checkpoints.load`, the rest as for `spec`. Raises BadInput, saying what it is, for another
    network's checkpoint."""
    checked = spec(variant=variant, frames=frames, first=first, height=height, width=width)
    try:
        loaded = checkpoints.load(variant, weights, template(frames, grouped=variant == "vinet_s"), adjust={})
    except BadInput as error:
        raise BadInput(f"{error}{meant(weights or cache.find(variant))}") from error
    network = Prepared(ViNet(loaded).to(device), height=height, width=width)
    return SlidingClip(checked, network, device=torch.device(device), frames=frames, first=first)


def meant(weights: Any) -> str:
    """Which of the networks of this file a checkpoint that did not fit is of, by its shapes; or nothing."""
    with suppress(StreamsalError):
        found = decoder(checkpoints.bare(weights if isinstance(weights, Mapping) else checkpoints.read(Path(weights))))
        for variant, frames in (*(("vinet", frames) for frames in FRAMES), ("vinet_s", 32)):
            if found == decoder(template(frames, grouped=variant == "vinet_s")):
                option = "" if frames == 32 else f" --option frames={frames}"
                return f"; by its shapes it is one for --model {variant}{option}"
    return ""


def decoder(weights: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(getattr(value, "shape", ())) for key, value in weights.items() if key.startswith("decoder.")}


class Prepared:
    """ViNet in each precision, and what a frame is for it: resized as PIL does, ImageNet's mean and deviation."""

    def __init__(self, float32: ViNet, *, height: int, width: int) -> None:
        self.networks = Precisions(float32)
        self.height, self.width = height, width

    def __getitem__(self, dtype: torch.dtype) -> ViNet:
        return cast(ViNet, self.networks[dtype])

    def prepared(self, frames_nhwc: Tensor) -> Tensor:
        return resized(frames_nhwc, self.height, self.width, antialias=True)

    def normalized(self, pictures_nhwc: Tensor, dtype: torch.dtype) -> Tensor:
        return normalized(pictures_nhwc, dtype)

    def base1(self, dtype: torch.dtype) -> s3d.Base1:
        return self[dtype].base1

    def logits(self, base1_tchw: Tensor, dtype: torch.dtype) -> Tensor:
        return self[dtype](base1_tchw)


class ViNet(nn.Module):
    """`base1` of a clip, and `forward` for what is behind it: (t, 192, h / 4, w / 4) -> logits (h, w)."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.base1 = s3d.Base1(weights, BACKBONE)
        self.later = s3d.Later(weights, BACKBONE)
        self.base4 = s3d.base4(weights, BACKBONE)
        self.decoder = Decoder(weights)

    def forward(self, y3: Tensor) -> Tensor:
        y2, y1, x = self.later(y3)
        return self.decoder(self.base4(functional.max_pool2d(x, 2)), y1, y2, y3)


class Decoder(nn.Module):
    def __init__(self, weights: Weights):
        super().__init__()
        names = [f"decoder.convtsp{level}.0" for level in (1, 2, 3, 4)] + ["decoder.convtsp4.3"]
        self.levels = nn.ModuleList(
            Shortening(weights, name, channels) for name, channels in zip(names, CHANNELS, strict=False)
        )
        last = [name for name in ("decoder.convtsp4.6", "decoder.convtsp4.8") if f"{name}.weight" in weights]
        self.last = nn.ModuleList(Shortening(weights, name, CHANNELS[-1]) for name in last)

    def forward(self, x: Tensor, *skipped: Tensor) -> Tensor:
        for level, skip in zip(self.levels, (*skipped, None, None), strict=True):
            x = doubled(level(x).relu_())
            x = x if skip is None else torch.cat([x, skip])
        for level in self.last[:-1]:
            x = level(x).relu_()
        return self.last[-1](x)[0, 0]


class Shortening(nn.Module):
    """A kernel (out, in / groups, k, s, s) with stride k in time: k frames are a picture of k times the channels."""

    def __init__(self, weights: Weights, name: str, channels: int):
        super().__init__()
        weight = weights[f"{name}.weight"]
        self.frames, self.padding = weight.shape[2], weight.shape[3] // 2
        self.groups = channels // weight.shape[1]
        self.weight = constant(weight.flatten(1, 2))
        self.bias = constant(weights[f"{name}.bias"]) if f"{name}.bias" in weights else None

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(0, (-1, self.frames)).transpose(1, 2).flatten(1, 2)
        return functional.conv2d(x, self.weight, self.bias, padding=self.padding, groups=self.groups)


def doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


def template(frames: int = 32, *, grouped: bool = False) -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors; `grouped`: of ViNet-S."""
    entries = s3d.template(BACKBONE)

    def add(name: str, *shape: int) -> None:
        entries[f"decoder.{name}"] = torch.empty(shape, device="meta")

    halves = {8: (1,), 16: (2,), 32: (2, 2), 48: (2, 3)}[frames]  # frames under the kernels behind the last level
    sizes = zip((1, 3, 5, 5, halves[0]), GROUPS_S if grouped else (1,) * 5, pairwise(CHANNELS), strict=True)
    names = ("convtsp1.0", "convtsp2.0", "convtsp3.0", "convtsp4.0", "convtsp4.3")
    for name, (size, groups, (inside, outside)) in zip(names, sizes, strict=True):
        add(f"{name}.weight", outside, inside // groups, size, 3, 3)
    width = CHANNELS[-1]
    for size in halves[1:]:
        add("convtsp4.6.weight", width, width, size, 1, 1)
        if frames == 48:
            add("convtsp4.6.bias", width)
    last = f"convtsp4.{6 if len(halves) == 1 else 8}"
    add(f"{last}.weight", 1, width, 1, 1, 1)
    add(f"{last}.bias", 1)
    return entries

"""TASED-Net: where people look in each frame of a video, from the 32 frames that end with it.

Min & Corso 2019, TASED-Net: Temporally-Aggregating Spatial Encoder-Decoder Network for Video Saliency Detection
(MichiganCOG/TASED-Net, MIT; the "updated" network of 2020). RGB frames in, a saliency map of 224 x 384 values in
0 ... 1 out; checked against numbers of the authors' program on a CPU, which alone gives the same numbers twice: where
several maxima share a place, their GPU writes whichever comes last (see `unpooled`).

    base1 ─────── highest of 4 ────────────── where the maxima are ──────────┐
      base2 ───── highest of 4 ─── where the maxima are ─────────┐           │
        base3 > highest of 2 > where ────────────────┐           │           │
          base4 > two kernels ─────────────── back to where > back to where > back to where > 4 time steps > 1 map
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from ..weights import checkpoints
from . import s3d_trunk as s3d
from .backbones import Weights, constant
from .precision import Precisions
from .resize import resized
from .sliding_clip import SALIENCY, First, SlidingClip, check_first, check_size, window
from .spec import Model, ModelSpec

FRAMES = 32
SIGMA_PX, RADIUS_PX = 7, 28  # of the authors' blur, at 224 x 384: scipy's gaussian_filter ends at 4 sigma

Post = Literal["none", "upstream"]
POSTS = ("none", "upstream")


def spec(*, first: First = "replicate", post: Post = "none", height: int = 224, width: int = 384) -> ModelSpec:
    """`first`: see `SlidingClip`. `post`: "upstream" cuts maps off to 255 levels and blurs them, as the authors do.

    `height`, `width`: what frames are resized to, 224 x 384 in training; multiples of 32.
    """
    check_first("tased", first)
    check_size("tased", height, width)
    if post not in POSTS:
        raise UsageError(f"tased has no post-processing {post!r}: choose {', '.join(POSTS)}")
    return ModelSpec(
        name="tased",
        summary="saliency map of each frame of a video from the last 32: an S3D, decoded to where its maxima were",
        licence="MIT; weights: none stated by their authors",
        citation="Min & Corso 2019, TASED-Net: Temporally-Aggregating Spatial Encoder-Decoder Network for Video "
        "Saliency Detection, ICCV",
        outputs=(SALIENCY,),
        window=lambda frame_rate: window(FRAMES, first),
        state="window",
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    first: First = "replicate",
    post: Post = "none",
    height: int = 224,
    width: int = 384,
) -> Model:
    """`weights` as for `checkpoints.load`, the rest as for `spec`."""
    checked = spec(first=first, post=post, height=height, width=width)
    where = torch.device(device)
    loaded = checkpoints.load("tased", weights, template(), adjust={})
    network = Tased(loaded, device=where, height=height, width=width)
    finish = torch.sigmoid
    if post == "upstream":
        rows, columns = (gaussian(n).to(where) for n in (height, width))
        finish = partial(finished, rows=rows, columns=columns)
    return SlidingClip(checked, network, device=where, frames=FRAMES, first=first, finish=finish)


class Tased:
    """The network, and what a frame is for it: resized as OpenCV does, in -1 ... 1.

    In any precision the encoder is float32: which of two maxima is higher by a last place decides where a value goes.
    With an encoder in float16 the maps of stand-in weights have a correlation of 0.986 with those of float32.
    """

    def __init__(self, weights: Weights, *, device: torch.device, height: int, width: int) -> None:
        self.encoder = Encoder(weights).to(device)
        self.decoders = Precisions(Decoder(weights).to(device))
        self.height, self.width = height, width

    def prepared(self, frames_nhwc: Tensor) -> Tensor:
        return resized(frames_nhwc, self.height, self.width, antialias=False)

    def normalized(self, pictures_nhwc: Tensor, dtype: torch.dtype) -> Tensor:
        return normalized(pictures_nhwc)

    def base1(self, dtype: torch.dtype) -> s3d.Base1:
        return self.encoder.base1

    def logits(self, base1_tchw: Tensor, dtype: torch.dtype) -> Tensor:
        x, indices = self.encoder(base1_tchw)
        return self.decoders[dtype](x.to(dtype), indices)


class Encoder(nn.Module):
    """`base1` of a clip, and `forward` for what is behind it up to the last choice of a maximum."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.base1 = s3d.Base1(weights)
        self.later = s3d.Later(weights)

    def forward(self, y3: Tensor) -> tuple[Tensor, list[Tensor]]:
        """(t, 192, h, w) -> (t / 4, 832, h / 8, w / 8), and where the maxima were: of 2 x 2, of 3 x 3, of 3 x 3."""
        y2, _, x = self.later(y3)
        x, i0 = functional.max_pool2d(x, 2, return_indices=True)
        i1, i2 = (functional.max_pool2d(s3d.pool_time(y, 4), 3, 2, 1, return_indices=True)[1] for y in (y2, y3))
        return x, [i0, i1, i2]


class Decoder(nn.Module):
    def __init__(self, weights: Weights):
        super().__init__()
        self.base4 = s3d.base4(weights)
        self.bottom = nn.Sequential(
            s3d.Conv(weights, "convtsp1.0", "convtsp1.1"), Turned(weights, "convtsp1.3", "convtsp1.4")
        )
        self.levels = nn.ModuleList(Turned(weights, f"convtsp{level}.0", f"convtsp{level}.1") for level in (2, 3))
        self.top = nn.Sequential(
            Turned(weights, "convtsp4.0", "convtsp4.1", stride=2),
            s3d.Conv(weights, "convtsp4.3", "convtsp4.4", stride=2, padded=False),
            Turned(weights, "convtsp4.6", "convtsp4.7"),
            s3d.Conv(weights, "convtsp4.9", "convtsp4.10", stride=2, padded=False),
            Turned(weights, "convtsp4.12", stride=2),
        )
        self.last_weight = constant(weights["convtsp4.13.weight"][:, :, 0])
        self.last_bias = constant(weights["convtsp4.13.bias"])

    def forward(self, x: Tensor, indices: list[Tensor]) -> Tensor:
        """Logits (h, w), four times as many as those of `y3` each way."""
        x = self.bottom(self.base4(x))
        for level, index in zip(self.levels, indices, strict=False):
            x = level(unpooled(x, index))
        x = self.top(unpooled(x, indices[-1]))
        return functional.conv2d(x, self.last_weight, self.last_bias)[0, 0]


class Turned(nn.Module):
    """A transposed kernel of one frame, the batch norm behind it and a ReLU; of the last one neither."""

    def __init__(self, weights: Weights, name: str, norm: str = "", *, stride: int = 1):
        super().__init__()
        self.bias = None
        weight = weights[f"{name}.weight"]
        if norm:
            weight, self.bias = s3d.folded(weights, name, norm, transposed=True)
        self.stride, self.padding = stride, (weight.shape[3] - 1) // 2
        self.weight = constant(weight[:, :, 0])

    def forward(self, x: Tensor) -> Tensor:
        y = functional.conv_transpose2d(x, self.weight, self.bias, self.stride, self.padding)
        return y if self.bias is None else y.relu_()


def normalized(frames_nhwc: Tensor) -> Tensor:
    """(n, 3, h, w) in -1 ... 1, in channels_last, from uint8 RGB."""
    return frames_nhwc.permute(0, 3, 1, 2).float().mul_(2).sub_(255).div_(255)


def unpooled(x: Tensor, index: Tensor) -> Tensor:
    """(t, c, h, w) put back to where the maxima were, (t, c, 2 h, 2 w), zero elsewhere.

    Windows of 3 x 3 overlap, so that several can have the same maximum: the last one in raster order is written, as
    torch's MaxUnpool does on a CPU; on a GPU it is whichever comes last. Maps of stand-in weights differ by up to 0.7.
    """
    t, c, h, w = x.shape
    place, cell = index.flatten(2), torch.arange(h * w, device=x.device).expand(t, c, -1)
    winner = torch.full((t, c, 4 * h * w), -1, device=x.device).scatter_reduce_(2, place, cell, "amax")
    values = x.flatten(2).gather(2, winner.clamp(min=0)).masked_fill_(winner < 0, 0)
    return values.view(t, c, 2 * h, 2 * w).contiguous(memory_format=torch.channels_last)


def finished(logits_hw: Tensor, *, rows: Tensor, columns: Tensor) -> Tensor:
    """The authors' map: probabilities cut off to 255 levels, and blurred. They store it divided by its maximum."""
    return rows @ logits_hw.sigmoid().mul_(255).floor_().div_(255) @ columns.mT


def gaussian(n: int) -> Tensor:
    """(n, n) float32: the blur of n pixels in a row, mirrored at the border as often as it takes, which repeats the
    last pixel (scipy's "reflect")."""
    offset = np.arange(-RADIUS_PX, RADIUS_PX + 1)
    kernel = np.exp(-0.5 * (offset / SIGMA_PX) ** 2)
    folded = (np.arange(n)[:, None] + offset) % (2 * n)
    matrix = np.zeros((n, n))
    np.add.at(matrix, (np.arange(n)[:, None], np.minimum(folded, 2 * n - 1 - folded)), kernel / kernel.sum())
    return torch.from_numpy(matrix).float()


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors."""
    entries = s3d.template()

    def add(level: int, index: int, *shape: int, channels: int | None = None) -> None:
        """A kernel with the batch norm behind it."""
        name = f"convtsp{level}"
        entries.update(s3d.conv_template(f"{name}.{index}", f"{name}.{index + 1}", shape, channels=channels))

    add(1, 0, 1024, 1024, 1, 1, 1)
    add(1, 3, 1024, 832, 1, 3, 3, channels=832)
    add(2, 0, 832, 480, 1, 3, 3, channels=480)
    add(3, 0, 480, 192, 1, 3, 3, channels=192)
    add(4, 0, 192, 64, 1, 4, 4, channels=64)
    add(4, 3, 64, 64, 2, 1, 1)
    add(4, 6, 64, 4, 1, 1, 1, channels=4)
    add(4, 9, 4, 4, 2, 1, 1)
    for name, shape in (("12.weight", (4, 4, 1, 4, 4)), ("13.weight", (1, 4, 1, 1, 1)), ("13.bias", (1,))):
        entries[f"convtsp4.{name}"] = torch.empty(shape, device="meta")
    return entries

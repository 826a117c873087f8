"""Learned resizers (Talebi & Milanfar 2021) for clips: small frames in, frames of the size that a classifier wants out.

One network for all kinds. What looks at single frames ("2d", "transformer") runs on all frames of a batch as pictures,
which gives the numbers of convolutions over clips whose kernels are one frame long, and is several times faster. Its
weights keep the shapes of those, so that files of any kind are what the program of 2022 this replaces wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .design import LAST_TAP, Design, ResizerKind
from .spatial_transformer import (
    HIDDEN,
    LAST_CHANNELS,
    affine,
    folded,
    frames_of,
    length_of_vector,
    planes,
    thetas,
    unfolded,
    warped,
)

CHANNELS = 16
WIDE = 32  # after the first convolution, where there is a transformer
SLOPE = 0.2  # of negative values
# Taps of `Resizer.run`: channels of the picture there, and the last one before it is enlarged.
TAP_CHANNELS = {1: WIDE, 2: CHANNELS, 3: CHANNELS, 4: CHANNELS, 5: CHANNELS, 6: CHANNELS}
LAST_SMALL_TAP = 2
Norm = nn.BatchNorm2d | nn.BatchNorm3d


class Resizer(nn.Module):
    """Clips (n, channels, T, side_in, side_in) -> (n, channels, T, side, side), arguments as in `Design`.

    What comes out has no bounds. `legacy_layout` has two quirks of the weights that want it: planes for frames (see
    spatial_transformer.py), and a scale of 1 + sigmoid, which begins at 1.5: the picture shrunk to two thirds, with a
    black frame. Without, it is 0.5 + sigmoid, so that a new transformer changes nothing.
    """

    def __init__(
        self,
        kind: ResizerKind,
        *,
        side_in: int,
        side: int,
        blocks: int = 1,
        read: int = 0,
        apply: int = 0,
        legacy_layout: bool = False,
        channels: int = 3,
    ) -> None:
        super().__init__()
        self.kind, self.side, self.legacy_layout = kind, side, legacy_layout
        self.taps = (read, apply) if kind == "transformer" else (None, None)
        if kind == "none":
            return
        if kind == "transformer":
            self.localization, self.fc_loc, self.scalar = _localizer(
                TAP_CHANNELS.get(read, channels), side_in if read <= LAST_SMALL_TAP else side
            )
        wide = WIDE if kind == "transformer" else CHANNELS
        self.c1 = Unit(kind, channels, wide, 7, slope=True)
        self.c2 = Unit(kind, wide, CHANNELS, 1, slope=True, norm=True)
        self.residual_blocks = nn.Sequential(*(Block(kind) for _ in range(blocks)))
        self.c3 = Unit(kind, CHANNELS, CHANNELS, 3, norm=True)
        self.c4 = Unit(kind, CHANNELS, channels, 3 if kind == "3d" else 7)

    @classmethod
    def of(cls, design: Design) -> Resizer:
        names = ("side_in", "side", "blocks", "read", "apply", "legacy_layout", "channels")
        return cls(design.resizer, **{name: getattr(design, name) for name in names})

    def forward(self, clips_ncthw: Tensor) -> Tensor:
        return self.run(clips_ncthw)[0]

    def thetas(self, clips_ncthw: Tensor) -> Tensor | None:
        """(n T, 2, 3) what a transformer reads: six numbers per frame, or per plane in the legacy layout."""
        return self.run(clips_ncthw)[1]

    def run(self, clips_ncthw: Tensor) -> tuple[Tensor, Tensor | None]:
        """What `forward` and what `thetas` give."""
        if self.kind == "3d":
            return self._through(clips_ncthw, clips_ncthw.shape[2])
        frames = clips_ncthw.shape[2]
        shown, theta = self._through(folded(clips_ncthw), frames)
        return unfolded(shown, frames), theta

    def _through(self, x: Tensor, frames: int) -> tuple[Tensor, Tensor | None]:
        theta = None

        def tap(number: int, x: Tensor) -> Tensor:
            nonlocal theta
            if number not in self.taps:
                return x
            seen = planes(x, frames, self.legacy_layout)
            if number == self.taps[0]:
                theta = thetas(self.localization, self.fc_loc, seen, self._scale)
            if number == self.taps[1] and theta is not None:
                seen = warped(seen, theta)
            return frames_of(seen, frames, self.legacy_layout)

        enlarged = _resized(x, self.side)
        if self.kind == "none":
            return enlarged, None
        x = tap(0, x)
        x = tap(1, self.c1(x))
        x = tap(2, self.c2(x))
        x = inner = tap(3, _resized(x, self.side))
        x = tap(4, self.residual_blocks(x))
        x = tap(5, self.c3(x))
        x = tap(6, x + inner)
        x = tap(7, self.c4(x))
        return tap(8, x + enlarged), theta

    def _scale(self, found: Tensor) -> Tensor:
        return self.scalar(found) + (1.0 if self.legacy_layout else 0.5)


class Convolution(nn.Conv3d):
    """Of clips, with "same" padding; or of pictures, with the weights of kernels that are one frame long."""

    def __init__(self, kind: ResizerKind, n_in: int, n_out: int, kernel: int, *, bias: bool) -> None:
        times = kernel if kind == "3d" else 1
        around = (times // 2, kernel // 2, kernel // 2)
        super().__init__(n_in, n_out, (times, kernel, kernel), padding=around, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        return self.by(self.weight, self.bias, input)

    def by(self, weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
        """The convolution of `x` by other weights than its own."""
        if x.ndim == 5:
            return functional.conv3d(x, weight, bias, padding=self.padding)
        if bias is None and len(weight) < 4 and not (x.shape[2] % 2 or x.shape[3] % 2):
            return in_blocks(x, weight[:, :, 0])
        return functional.conv2d(x, weight[:, :, 0], bias, padding=self.padding[1:])

    def normed(self, norm: Norm, x: Tensor) -> Tensor:
        """`norm` of the convolution. In inference they are one operation: its scale and shift are in the weights."""
        if norm.training or norm.running_mean is None or norm.running_var is None:
            return norm(self(x))
        scale = norm.weight * torch.rsqrt(norm.running_var + norm.eps)
        mean = norm.running_mean if self.bias is None else norm.running_mean - self.bias
        return self.by(self.weight * scale.view(-1, 1, 1, 1, 1), norm.bias - mean * scale, x)


class Unit(nn.Module):
    """Convolution, then a leaky ReLU, then batch norm: in this order, unlike in most networks."""

    def __init__(
        self, kind: ResizerKind, n_in: int, n_out: int, kernel: int, *, slope: bool = False, norm: bool = False
    ) -> None:
        super().__init__()
        self.conv3d = Convolution(kind, n_in, n_out, kernel, bias=False)
        self.slope = slope
        self.bn = _norm(kind, n_out, eps=1e-3, momentum=0.01) if norm else None

    def forward(self, x: Tensor) -> Tensor:
        if self.bn is not None and not self.slope:
            return self.conv3d.normed(self.bn, x)
        x = self.conv3d(x)
        x = functional.leaky_relu_(x, SLOPE) if self.slope else x
        return x if self.bn is None else self.bn(x)


class Block(nn.Module):
    """x + what two convolutions make of it."""

    def __init__(self, kind: ResizerKind) -> None:
        super().__init__()
        self.conv1, self.bn1 = Convolution(kind, CHANNELS, CHANNELS, 3, bias=True), _norm(kind, CHANNELS)
        self.conv2, self.bn2 = Convolution(kind, CHANNELS, CHANNELS, 3, bias=True), _norm(kind, CHANNELS)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.leaky_relu_(self.conv1.normed(self.bn1, x), SLOPE)
        return self.conv2.normed(self.bn2, y).add_(x)


def in_blocks(x: Tensor, weight: Tensor) -> Tensor:
    """`conv2d` with "same" padding, of an even height and width, computed for 2 x 2 places at once.

    Three output channels leave most of a processor's vector unit idle. Twelve, one for each color and place of a block,
    cost a third more multiplications and half of the time (16 -> 3 channels, 7 x 7, 112 pixels, AVX-512: 21 for 47 ms).
    """
    shifted = [functional.pad(weight, (j, 1 - j, i, 1 - i)) for i in (0, 1) for j in (0, 1)]
    blocks = functional.conv2d(x, torch.stack(shifted, 1).flatten(0, 1), stride=2, padding=weight.shape[-1] // 2)
    return functional.pixel_shuffle(blocks, 2)


def _norm(kind: ResizerKind, channels: int, eps: float = 1e-5, momentum: float = 0.1) -> Norm:
    return (nn.BatchNorm3d if kind == "3d" else nn.BatchNorm2d)(channels, eps, momentum)


def _localizer(channels: int, side: int) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    """What sees pictures of `side` pixels, and what of that becomes six numbers and their scale."""
    localization = nn.Sequential(
        nn.Conv2d(channels, 16, 5, padding=2),
        nn.MaxPool2d(3, 2, 1),
        nn.BatchNorm2d(16),
        nn.Tanh(),
        nn.Conv2d(16, LAST_CHANNELS, 3, padding=1),
        nn.MaxPool2d(2),
        nn.BatchNorm2d(LAST_CHANNELS),
        nn.Tanh(),
    )
    last = nn.Linear(HIDDEN, 1)
    nn.init.zeros_(last.weight)  # a sigmoid of 0 is 0.5, for every picture
    nn.init.zeros_(last.bias)
    scalar = nn.Sequential(nn.Linear(length_of_vector(side), HIDDEN), nn.Tanh(), last, nn.Sigmoid())
    return localization, affine(side), scalar


def _resized(x: Tensor, side: int) -> Tensor:
    """Pictures (n, c, h, w) or clips (n, c, T, h, w), whose times stay as they are."""
    mode, times = ("bilinear", ()) if x.ndim == 4 else ("trilinear", (x.shape[2],))
    return functional.interpolate(x, (*times, side, side), mode=mode, align_corners=True)


def told_by(found: Mapping[str, Any], *, side_in: int, side: int) -> dict[str, Any]:
    """The fields of `Design` that the shapes in a resizer's file tell, and under "reads" the taps that it may read at.

    Raises KeyError where it is the file of no resizer.
    """
    blocks = {key.split(".")[1] for key in found if key.startswith("residual_blocks.")}
    told: dict[str, Any] = {"blocks": len(blocks), "reads": []}
    if "scalar.0.weight" not in found:
        return told | {"resizer": "3d" if found["c1.conv3d.weight"].shape[2] > 1 else "2d"}
    channels = found["localization.0.weight"].shape[1]
    seen = found["fc_loc.0.weight"].shape[1]
    reads = [
        tap
        for tap in range(LAST_TAP + 1)
        if TAP_CHANNELS.get(tap, len(found["c4.conv3d.weight"])) == channels
        and length_of_vector(side_in if tap <= LAST_SMALL_TAP else side) == seen
    ]
    return told | {"resizer": "transformer", "reads": reads}


def template(design: Design) -> dict[str, Tensor]:
    """Every entry of a resizer's file, as meta tensors."""
    with torch.device("meta"):
        return Resizer.of(design).state_dict()

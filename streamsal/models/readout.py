"""DeepGaze's readout: backbone features in, one small priority map per component out.

The originals run each of up to 120 components by itself over features that were enlarged for it. Here the components
share what is the same for all: features are normalized once, one stacked 1x1 convolution on the features' own grid
serves all components (it commutes with the enlargement), and the small networks behind it run as one batched product.
Layer normalization runs over channels and positions together; where a grid stands for a finer one, each position
counts as often as it is repeated there. Everything is float32. Knows no backbone and no frame sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..density import nearest_indices

EPSILON = 1e-12  # of every layer normalization


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """The positions at which the component networks are computed, given the readout grid and the features' sizes.

    Where all features have one size, that is their own grid, `weights` say what share of the readout grid each of its
    positions stands for, and `rows`, `columns` which of its rows and columns each of the readout grid's shows. Else it
    is the readout grid itself.
    """

    size: tuple[int, int]
    rows: np.ndarray  # readout grid's rows, int64
    columns: np.ndarray
    weights: Tensor  # P, sums to 1
    tap_weights: tuple[Tensor, ...]  # per tap h * w: share of each position, sums to 1
    gather: tuple[Tensor | None, ...]  # per tap P: flat position shown at each position of this grid; None: all

    @classmethod
    def make(cls, readout: tuple[int, int], taps: Sequence[tuple[int, int]], device: torch.device) -> Grid:
        indices = [tuple(nearest_indices(n, size) for n, size in zip(tap, readout, strict=True)) for tap in taps]

        def shares(tap: tuple[int, int], rows: np.ndarray, columns: np.ndarray) -> Tensor:
            down, across = (np.bincount(i, minlength=n) / len(i) for i, n in zip((rows, columns), tap, strict=True))
            return torch.from_numpy(np.outer(down, across).astype(np.float32).ravel()).to(device)

        tap_weights = tuple(shares(tap, *index) for tap, index in zip(taps, indices, strict=True))
        if len(set(taps)) == 1:
            return cls(
                size=taps[0],
                rows=indices[0][0],
                columns=indices[0][1],
                weights=tap_weights[0],
                tap_weights=tap_weights,
                gather=(None,) * len(taps),
            )
        flat = [
            torch.from_numpy((rows[:, None] * tap[1] + columns).ravel()).to(device)
            for tap, (rows, columns) in zip(taps, indices, strict=True)
        ]
        return cls(
            size=readout,
            rows=np.arange(readout[0]),
            columns=np.arange(readout[1]),
            weights=torch.full((readout[0] * readout[1],), 1 / (readout[0] * readout[1]), device=device),
            tap_weights=tap_weights,
            gather=tuple(flat),
        )


def centered(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """x (..., c, P) less its mean over channels and positions, and 1 / standard deviation (..., 1, 1).

    Centered twice: with an epsilon of 1e-12 a constant map has to come out as exactly nothing, and what rounding
    leaves of the first mean would be amplified a million times.
    """
    x = x - _mean(x, weights)
    x -= _mean(x, weights)
    return x, (_mean(x.square(), weights) + EPSILON).rsqrt()


def _mean(x: Tensor, weights: Tensor) -> Tensor:
    return (x @ weights).mean(-1)[..., None, None]


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)), as accurate as torch's where the result is small, too.

    On a CPU torch's (2.11) is its log1p, 13 ns per value on an AMD EPYC with AVX-512 and two thirds of the readout; its
    log takes 1 ns. The second term gives back what 1 + exp(-|x|) loses to rounding.
    """
    if x.device.type != "cpu":
        return functional.softplus(x)
    power = x.abs().neg_().exp_()
    total = power + 1
    lost = power.sub_(total - 1).div_(total)
    return total.log_().add_(lost).add_(x.clamp_min(0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """Layer normalization, then a 1x1 convolution with a bias, for K components; the normalization's scale and shift
    are part of `weight` (K, o, c) and `bias` (K, o, 1)."""

    weight: Tensor
    bias: Tensor

    def __getitem__(self, which: slice) -> Layer:
        """For some of the components."""
        return Layer(weight=self.weight[which], bias=self.bias[which])

    def __call__(self, x: Tensor, weights: Tensor) -> Tensor:
        """(n, K, c, P) to (n, K, o, P)."""
        x, scale = centered(x, weights)
        return torch.addcmul(self.bias, self.weight @ x, scale)


def layer(weights: Mapping[str, Tensor], prefixes: Iterable[str], number: int) -> Layer:
    """Layer `number` of the networks whose entries in a state dict begin with `prefixes`."""
    return folded(weights, prefixes, f"layernorm{number}", f"conv{number}", f"bias{number}")


def folded(weights: Mapping[str, Tensor], prefixes: Iterable[str], norm: str, conv: str, bias: str | None) -> Layer:
    """Computed in float64: the shift sums over up to 2560 channels."""
    made = []
    for prefix in prefixes:
        kernel = weights[f"{prefix}.{conv}.weight"].double().flatten(1)
        shift = kernel @ weights[f"{prefix}.{norm}.bias"].double()
        if bias is not None:
            shift = shift + weights[f"{prefix}.{bias}.bias"].double()
        made.append((kernel * weights[f"{prefix}.{norm}.weight"].double(), shift[:, None]))
    kernels, shifts = zip(*made, strict=True)
    return Layer(weight=torch.stack(kernels).float().contiguous(), bias=torch.stack(shifts).float().contiguous())


def to(layers: Sequence[Layer], device: torch.device) -> tuple[Layer, ...]:
    return tuple(Layer(weight=each.weight.to(device), bias=each.bias.to(device)) for each in layers)


class SaliencyNetworks:
    """K saliency networks: LN, C > 8, softplus, LN, 8 > 16, softplus, LN, 16 > 1, softplus."""

    def __init__(self, weights: Mapping[str, Tensor], prefixes: Sequence[str], device: torch.device) -> None:
        first, *self.rest = to([layer(weights, prefixes, number) for number in range(3)], device)
        self.n_components, self.width = first.weight.shape[:2]
        self.weight = first.weight.flatten(0, 1)  # K * 8, C
        self.bias = first.bias

    def __call__(self, taps_nchw: Sequence[Tensor], grid: Grid) -> Tensor:
        """(n, K, 1, P) saliency maps on the grid. NaN where a feature is not finite."""
        taps, scale = normalized_features([tap.flatten(2).float() for tap in taps_nchw], grid)
        weights = self.weight.split([tap.shape[1] for tap in taps], dim=1)
        terms = (
            part @ tap if index is None else (part @ tap)[..., index]
            for part, tap, index in zip(weights, taps, grid.gather, strict=True)
        )
        x = reduce(Tensor.add_, terms).unflatten(1, (self.n_components, self.width))
        x = softplus(torch.addcmul(self.bias, x, scale))
        for each in self.rest:
            x = softplus(each(x, grid.weights))
        return x


def normalized_features(taps_ncp: list[Tensor], grid: Grid) -> tuple[list[Tensor], Tensor]:
    """Features (n, c, p) less their common mean, and 1 / their common standard deviation (n, 1, 1, 1).

    Sums run in float64, in two passes: up to 5 million features of very different size share one mean and variance.
    """
    channels = sum(tap.shape[1] for tap in taps_ncp)
    weights = [each.double() for each in grid.tap_weights]

    def mean(sums: Iterable[Tensor]) -> Tensor:
        return reduce(Tensor.add, (each @ w for each, w in zip(sums, weights, strict=True))) / channels

    average = mean(tap.sum(1, dtype=torch.float64) for tap in taps_ncp)
    taps = [tap - average.float()[:, None, None] for tap in taps_ncp]
    variance = mean(tap.square().sum(1, dtype=torch.float64) for tap in taps)
    return taps, (variance + EPSILON).rsqrt().float()[:, None, None, None]


class FixationNetworks:
    """K fixation selection networks: LN, 1 > 128, softplus, LN, 128 > 16, softplus, 16 > 1."""

    def __init__(self, weights: Mapping[str, Tensor], prefixes: Sequence[str], device: torch.device) -> None:
        first = folded(weights, prefixes, "layernorm0.layernorm_part0", "conv0.conv_part0", "bias0")
        self.layers = to([first, layer(weights, prefixes, 1)], device)
        last = torch.stack([weights[f"{prefix}.conv2.weight"].flatten(1) for prefix in prefixes])
        self.last = last.float().to(device)  # K 1 16

    def __call__(self, saliency: Tensor, grid: Grid) -> Tensor:
        """(n, K, 1, P) saliency maps to (n, K, h, w) priority maps."""
        n_components = saliency.shape[1]
        # On a CPU a few components at a time: as fast, and the 128 channels of all would be most of the memory.
        at_once = 5 if saliency.device.type == "cpu" else n_components
        chunks = [slice(k, k + at_once) for k in range(0, n_components, at_once)]
        return torch.cat([self.priority(saliency[:, k], k, grid) for k in chunks], 1).unflatten(-1, grid.size)

    def priority(self, saliency: Tensor, which: slice, grid: Grid) -> Tensor:
        """(n, k, P) priority maps of some components."""
        x = saliency
        for each in self.layers:
            x = softplus(each[which](x, grid.weights))
        return (self.last[which] @ x)[:, :, 0]


def saliency_template(prefix: str, channels: int) -> dict[str, Tensor]:
    """The entries of one saliency network in an official state dict, in order, as meta tensors."""
    sizes = [channels, 8, 16, 1]
    shapes: dict[str, tuple[int, ...]] = {}
    for number, (c, o) in enumerate(pairwise(sizes)):
        shapes[f"layernorm{number}.weight"] = shapes[f"layernorm{number}.bias"] = (c,)
        shapes[f"conv{number}.weight"] = (o, c, 1, 1)
        shapes[f"bias{number}.bias"] = (o,)
    return on_meta(prefix, shapes)


def fixation_template(prefix: str, extra_parts: Sequence[int] = ()) -> dict[str, Tensor]:
    """The entries of one fixation selection network; `extra_parts`: channels of what it reads beside the saliency."""
    shapes: dict[str, tuple[int, ...]] = {}
    parts = [1, *extra_parts]
    for number, c in enumerate(parts):
        shapes[f"layernorm0.layernorm_part{number}.weight"] = shapes[f"layernorm0.layernorm_part{number}.bias"] = (c,)
    for number, c in enumerate(parts):
        shapes[f"conv0.conv_part{number}.weight"] = (128, c, 1, 1)
    shapes["bias0.bias"] = shapes["layernorm1.weight"] = shapes["layernorm1.bias"] = (128,)
    shapes |= {"conv1.weight": (16, 128, 1, 1), "bias1.bias": (16,), "conv2.weight": (1, 16, 1, 1)}
    return on_meta(prefix, shapes)


def on_meta(prefix: str, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": torch.empty(shape, device="meta") for name, shape in shapes.items()}

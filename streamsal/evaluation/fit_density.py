"""Saliency maps and fixations in, the density that the maps are best understood as out, by maximum likelihood.

A saliency map orders places and promises no probabilities. As in pysaliency's optimization for information gain, the
density is a monotone function of the blurred map times a center bias, both piecewise linear in the log domain. Fitted
on small copies of the maps, applied to maps of any size. Pure numerics on tensors; knows no files and no videos.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import interpolate, softplus

from .metrics import blurred

KNOTS = 20  # of the nonlinearity, 12 of the center bias: those of pysaliency
CENTER_KNOTS = 12
LONG_SIDE = 96  # of the copies that are fitted
STEPS = 60  # twice as many change the gain by less than 1e-4 bits
ROUGHNESS = 1e-4  # nats: holds knots in place that no fixation is near
FURTHEST = math.sqrt(2.0)  # distance of a corner from the middle in half frames, before alpha


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Sample:
    """Saliency maps (n, H, W) of one size and the fixations on them, in units of width and height."""

    maps_nhw: Tensor
    frame: Tensor
    x: Tensor
    y: Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class Fit:
    """log p = f(blurred map) + c(distance from the middle), up to a constant.

    `knots`, `levels` (20,): f, rising, in nats. `center` (12,): c in nats, at equal distances from 0 to the corner's;
    the distance counts half frames, and vertical ones times `alpha`. `sigma`: of the blur, in units of the longer side.
    `n_frames`, `n_fixations`, `gain_bits`: what it was fitted on, and its information gain over uniform there.
    """

    knots: tuple[float, ...]
    levels: tuple[float, ...]
    center: tuple[float, ...]
    alpha: float
    sigma: float
    n_frames: int
    n_fixations: int
    gain_bits: float

    @property
    def n_parameters(self) -> int:
        """Degrees of freedom: a constant of f and one of c change nothing."""
        return len(self.levels) - 1 + len(self.center) - 1 + 2

    def to_dict(self) -> dict[str, Any]:
        return {"format": "streamsal density fit 1", "parameters": self.n_parameters, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Fit:
        """Raises KeyError, TypeError or ValueError where it is none."""
        if values["format"] != "streamsal density fit 1":
            raise ValueError(f"unknown format {values['format']}")
        numbers = {name: tuple(map(float, values[name])) for name in ("knots", "levels", "center")}
        rest = {name: values[name] for name in ("alpha", "sigma", "n_frames", "n_fixations", "gain_bits")}
        return cls(**numbers, **rest)

    def log_density(self, maps_nhw: Tensor) -> Tensor:
        """(n, H, W) float32 log densities of saliency maps of any size."""
        sigma_px = self.sigma * max(maps_nhw.shape[1:])
        smooth = blurred(maps_nhw, sigma_px, edges="reflect") if sigma_px > 0.3 else maps_nhw
        knots, levels, center = (
            torch.tensor(each, dtype=torch.float32, device=maps_nhw.device)
            for each in (self.knots, self.levels, self.center)
        )
        alpha = torch.tensor(self.alpha, device=maps_nhw.device)
        raw = _between(smooth.float(), knots, levels) + _center(maps_nhw, alpha, center)
        return raw - raw.flatten(1).logsumexp(1)[:, None, None]


def fit_density(samples: Sequence[Sample]) -> Fit:
    """The fit with the highest likelihood of all fixations of the samples. Raises ValueError where there are none."""
    small = joined([replace(sample, maps_nhw=shrunk(sample.maps_nhw)) for sample in samples if len(sample.frame)])
    n_fixations = sum(len(sample.frame) for sample in small)
    if not n_fixations:
        raise ValueError("a density is fitted to fixations, and there are none")
    knots = _knots(torch.cat([sample.maps_nhw.flatten() for sample in small]))
    device = knots.device
    # Rises of f (softplus, so that it is monotone), c but for its first, log alpha, log sigma. It begins as a density
    # of e^3 times more in the map's highest places, without center bias, hardly blurred.
    start = math.log(math.expm1(3.0 / (KNOTS - 1)))
    rises = torch.full((KNOTS - 1,), start, device=device, requires_grad=True)
    center = torch.zeros(CENTER_KNOTS - 1, device=device, requires_grad=True)
    shape = torch.tensor([0.0, math.log(0.02)], device=device, requires_grad=True)
    optimizer = torch.optim.LBFGS([rises, center, shape], max_iter=STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        levels, c = _levels(rises), torch.cat([torch.zeros(1, device=device), center])
        total = torch.zeros((), device=device)
        for sample in small:
            total = total - _log_likelihood(sample, knots, levels, c, *shape.exp()).sum()
        rough = levels.diff().diff().square().sum() + c.diff().diff().square().sum()
        return total / n_fixations + ROUGHNESS * (rough + shape[0].square())

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(closure)
    with torch.no_grad():
        levels, c = _levels(rises), torch.cat([torch.zeros(1, device=device), center])
        alpha, sigma = shape.exp().tolist()
        gains = [
            _log_likelihood(sample, knots, levels, c, *shape.exp()) + math.log(math.prod(sample.maps_nhw.shape[1:]))
            for sample in small
        ]
    return Fit(
        knots=tuple(knots.tolist()),
        levels=tuple(levels.tolist()),
        center=tuple(c.tolist()),
        alpha=alpha,
        sigma=sigma,
        n_frames=sum(len(sample.maps_nhw) for sample in small),
        n_fixations=n_fixations,
        gain_bits=float(torch.cat(gains).mean()) / math.log(2),
    )


def _levels(rises: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, device=rises.device), softplus(rises).cumsum(0)])


def joined(samples: Sequence[Sample]) -> list[Sample]:
    """One sample of all whose maps have one size, in order: fewer and larger operations for many films of few maps."""
    by_size: dict[torch.Size, list[Sample]] = {}
    for sample in samples:
        by_size.setdefault(sample.maps_nhw.shape[1:], []).append(sample)
    return [_one_of(alike) for alike in by_size.values()]


def _one_of(samples: Sequence[Sample]) -> Sample:
    before = itertools.accumulate((len(sample.maps_nhw) for sample in samples[:-1]), initial=0)
    return Sample(
        maps_nhw=torch.cat([sample.maps_nhw for sample in samples]),
        frame=torch.cat([sample.frame + n for sample, n in zip(samples, before, strict=True)]),
        x=torch.cat([sample.x for sample in samples]),
        y=torch.cat([sample.y for sample in samples]),
    )


def shrunk(maps_nhw: Tensor) -> Tensor:
    """(n, h, w) copies as small as a fit looks at them, each pixel the mean of its area."""
    height, width = maps_nhw.shape[1:]
    factor = min(1.0, LONG_SIDE / max(height, width))
    size = [max(1, round(height * factor)), max(1, round(width * factor))]
    return interpolate(maps_nhw.float()[:, None], size, mode="area")[:, 0]


def _knots(values: Tensor) -> Tensor:
    """(20,) rising values: half by rank, so that maps with few high places have knots where their pixels are."""
    step = max(1, len(values) // 1_000_000)
    rising = values[::step].sort().values
    low, high = float(values.min()), float(values.max())
    even = torch.linspace(low, high, KNOTS, device=values.device)
    at = torch.linspace(0, len(rising) - 1, KNOTS, device=values.device).long()
    if high <= low:  # a constant map says nothing, and no knot is reached
        return low + torch.linspace(0, 1, KNOTS, device=values.device)
    return (even + rising[at]) / 2


def _between(values: Tensor, knots: Tensor, levels: Tensor) -> Tensor:
    """Levels at values between rising knots; beyond them, the outermost level."""
    values = values.clamp(float(knots[0]), float(knots[-1])).contiguous()
    upper = torch.bucketize(values.detach(), knots).clamp(1, len(knots) - 1)
    slope = levels.diff() / knots.diff()
    # index_select: plain indexing has a gradient that takes three times as long on a CPU (torch 2.11).
    at = upper.flatten() - 1
    slopes, offsets = (each.index_select(0, at).view_as(values) for each in (slope, levels[:-1] - slope * knots[:-1]))
    return offsets + slopes * values


def _center(maps_nhw: Tensor, alpha: Tensor, center: Tensor) -> Tensor:
    """(H, W) log of the center bias."""
    height, width = maps_nhw.shape[1:]
    x, y = (((torch.arange(n, device=maps_nhw.device) + 0.5) / n - 0.5) * 2 for n in (width, height))
    distance = (x**2 + (alpha * y[:, None]) ** 2 + 1e-12).sqrt()
    knots = torch.linspace(0, FURTHEST, len(center), device=maps_nhw.device)
    return _between(distance, knots, center)


def _blur(maps_nhw: Tensor, sigma_px: Tensor) -> Tensor:
    """As `metrics.blurred` with mirrored edges, for small maps, so that sigma has a gradient."""
    height, width = maps_nhw.shape[1:]
    rows, columns = (_blur_matrix(n, sigma_px) for n in (height, width))
    return rows @ maps_nhw @ columns.T


def _blur_matrix(n: int, sigma_px: Tensor) -> Tensor:
    at = torch.arange(n, device=sigma_px.device)
    distances = [at[:, None] - at, at[:, None] + at + 1, at[:, None] + at + 1 - 2 * n]  # itself and its two images
    weights = sum((-(d.float() ** 2) / (2 * sigma_px**2)).exp() for d in distances)
    assert isinstance(weights, Tensor)
    return weights / weights.sum(1, keepdim=True)


def _log_likelihood(
    sample: Sample, knots: Tensor, levels: Tensor, center: Tensor, alpha: Tensor, sigma: Tensor
) -> Tensor:
    """(k,) of the fixations, in nats per pixel of the small maps."""
    height, width = sample.maps_nhw.shape[1:]
    smooth = _blur(sample.maps_nhw, sigma.clamp(1e-3, 0.5) * max(height, width))
    raw = _between(smooth, knots, levels) + _center(sample.maps_nhw, alpha, center)
    row, col = (sample.y * height).long().clamp(0, height - 1), (sample.x * width).long().clamp(0, width - 1)
    flat = raw.flatten(1)
    return flat[sample.frame, row * width + col] - flat.logsumexp(1)[sample.frame]

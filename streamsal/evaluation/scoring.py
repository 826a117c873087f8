"""Frames with their fixations in, a number per frame and metric out: which map is scored against what, by protocol.

A density is not the best map for every metric, so `exact` scores each metric with the map that the density says has the
highest expected score (Kuemmerer, Wallis and Bethge, ECCV 2018, Saliency Benchmarking Made Easy): itself, its ratio to
the center bias, or itself blurred. `mit` scores every metric with the density, or the map, as it is. Knows no files.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from . import metrics, metrics_mit

UNIFORM_SHARE = 0.01  # of a saliency map that is taken for a density as it is, so that no place is impossible


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Batch:
    """Frames of one video and all that they are scored with, on the device.

    `maps_nhw`: log densities, or saliency maps. `frame`, `row`, `col`: fixations; `frame` counts the maps. `number`: of
    each frame in its video. `baseline_hw`: log density; None is the uniform one. `others_hw`: log density of where
    others are fixated, whom the negatives come from; None where that is not known. `negatives`: (frame, or None where
    they are the same for all frames; row; col), None where there are none.
    """

    maps_nhw: Tensor
    is_density: bool
    number: np.ndarray
    frame: Tensor
    row: Tensor
    col: Tensor
    baseline_hw: Tensor | None
    others_hw: Tensor | None
    negatives: tuple[Tensor | None, Tensor, Tensor] | None
    sigma_px: float

    def empirical(self) -> Tensor:
        """(n, H, W) maps of the fixations."""
        n, height, width = self.maps_nhw.shape
        return metrics.empirical_map(self.frame, self.row, self.col, n, height, width, self.sigma_px)


def exact(batch: Batch) -> dict[str, Tensor]:
    """{metric with its unit: (n,) float64} by the exact protocol; NaN where a frame has no value."""
    n, height, width = batch.maps_nhw.shape
    at = (batch.frame, batch.row, batch.col)

    def mean(values: Tensor) -> Tensor:
        return metrics.per_frame(values, batch.frame, n)

    ratio = batch.maps_nhw
    if batch.is_density:
        log_density = batch.maps_nhw
        gain = metrics.information_gain(log_density, batch.baseline_hw, *at)
        likelihood = metrics.log_likelihood(log_density, *at)
        scores = {
            "information_gain_bits": mean(gain),
            "log_likelihood_nats": mean(likelihood),
            "log_likelihood_over_uniform_bits": mean((likelihood + math.log(height * width)) / math.log(2)),
        }
        values = log_density.exp()
        smooth = metrics.blurred(values, batch.sigma_px)
        if batch.others_hw is not None:
            ratio = metrics.shuffled_auc_map(log_density, batch.others_hw)
    else:
        values = smooth = batch.maps_nhw
        gain = metrics.information_gain(unfitted(values), batch.baseline_hw, *at)
        scores = {"information_gain_of_the_unfitted_map_bits": mean(gain)}
    empirical = batch.empirical()
    negatives = batch.negatives
    return {
        **scores,
        "auc": mean(metrics.auc(batch.maps_nhw, *at)),
        "shuffled_auc": mean(metrics.shuffled_auc(ratio, *at, *negatives)) if negatives else _nothing(scores),
        "nss_sd": mean(metrics.nss(values, *at)),
        "cc": metrics.cc(smooth, empirical),
        "sim": metrics.sim(smooth, empirical),
        "kl_divergence_nats": metrics.kl_divergence(empirical, smooth),
    }


def mit(batch: Batch) -> dict[str, Tensor]:
    """{metric: (n,) float64} as the MATLAB code of the MIT benchmark computes them; draws depend on the frame alone."""
    rows = [_mit_frame(batch, i) for i in range(len(batch.maps_nhw))]
    return {name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in rows[0]}


def _mit_frame(batch: Batch, i: int) -> dict[str, float]:
    saliency = batch.maps_nhw[i].double()
    saliency = (saliency.exp() if batch.is_density else saliency).cpu().numpy()
    mine = batch.frame == i
    fixated = metrics_mit.fixation_map(batch.row[mine].cpu().numpy(), batch.col[mine].cpu().numpy(), *saliency.shape)
    truth = batch.empirical()[i].double().cpu().numpy()
    random = np.random.Generator(np.random.Philox(key=int(batch.number[i])))
    n = int(fixated.sum())
    jitter = random.random(saliency.shape)
    drawn = metrics_mit.draw_pixels(random, saliency.size, n)
    others = _fixated_by_others(batch, i, saliency.shape)
    shuffled = math.nan
    if others is not None and n:
        shuffled = metrics_mit.auc_shuffled(saliency, fixated, metrics_mit.draw_others(random, others, n))
    found = {
        "mit_auc_judd": metrics_mit.auc_judd(saliency, fixated, jitter),
        "mit_auc_borji": metrics_mit.auc_borji(saliency, fixated, drawn) if n else math.nan,
        "mit_auc_shuffled": shuffled,
        "mit_nss_sd": metrics_mit.nss(saliency, fixated) if n else math.nan,
        "mit_cc": metrics_mit.cc(saliency, truth),
        "mit_sim": metrics_mit.sim(saliency, truth),
        "mit_kl_divergence_nats": metrics_mit.kl_divergence(truth, saliency),
    }
    if batch.baseline_hw is not None:  # stretched to 0 ... 1, a uniform one is 0 / 0
        baseline = batch.baseline_hw.double().exp().cpu().numpy()
        found["mit_information_gain"] = metrics_mit.information_gain(saliency, fixated, baseline)
    return found


def _fixated_by_others(batch: Batch, i: int, shape: tuple[int, ...]) -> np.ndarray | None:
    if batch.negatives is None:
        return None
    frame, row, col = batch.negatives
    mine = slice(None) if frame is None else frame == i
    found = metrics_mit.fixation_map(row[mine].cpu().numpy(), col[mine].cpu().numpy(), *shape)
    return found if found.any() else None


def _nothing(scores: dict[str, Tensor]) -> Tensor:
    return torch.full_like(next(iter(scores.values())), torch.nan)


def unfitted(maps_nhw: Tensor) -> Tensor:
    """Log densities that saliency maps are when their values are taken for probabilities, 1 % of it spread evenly."""
    height, width = maps_nhw.shape[1:]
    lowest = maps_nhw.flatten(1).amin(1).clamp(max=0.0)[:, None, None]
    mass = maps_nhw.double() - lowest
    total = mass.sum((1, 2), keepdim=True)
    share = torch.where(total > 0, mass / total, 1 / (height * width))
    return ((1 - UNIFORM_SHARE) * share + UNIFORM_SHARE / (height * width)).log()


PROTOCOLS: dict[str, Callable[[Batch], dict[str, Tensor]]] = {"exact": exact, "mit": mit}
UNITS = {
    "information_gain_bits": "bits per fixation over the baseline",
    "information_gain_of_the_unfitted_map_bits": "bits per fixation over the baseline; the map's values divided by "
    "their sum and mixed with 1 % of the uniform density, which nobody claims to be its meaning",
    "log_likelihood_nats": "nats per fixation",
    "log_likelihood_over_uniform_bits": "bits per fixation over the uniform density",
    "auc": "share of the frame's pixels below the fixated one, ties counting half; chance is 0.5",
    "shuffled_auc": "share of the others' fixations below the fixated pixel, ties counting half; chance is 0.5",
    "nss_sd": "standard deviations (of the population) above the frame's mean",
    "cc": "Pearson correlation with the map of fixations",
    "sim": "mass shared with the map of fixations, 0 to 1",
    "kl_divergence_nats": "nats from the map of fixations, smaller is better",
    "mit_auc_judd": "area, thresholds at fixated values; chance is above 0.5 and depends on the number of fixations",
    "mit_auc_borji": "area, thresholds at tenths of the range",
    "mit_auc_shuffled": "area, thresholds at tenths of the range, against others' fixations",
    "mit_nss_sd": "standard deviations (of the sample) above the frame's mean",
    "mit_cc": "Pearson correlation with the map of fixations",
    "mit_sim": "mass shared with the map of fixations, both stretched to 0 ... 1 before",
    "mit_kl_divergence_nats": "nats from the map of fixations, smaller is better",
    "mit_information_gain": "called bits, but not bits of anything: both maps are stretched to 0 ... 1 before",
}

"""One map and one binary fixation map in, scores out, as the MATLAB code of the MIT saliency benchmark computes them.

Only for comparison with published tables: DHF1K, STAViS and ViNet score with the same code (`code_forMetrics` of
cvzoya/saliency). Its quirks are kept on purpose and said below; its numbers must not stand beside those of `metrics`.
All is numpy in float64. Random numbers come in as arguments, so a score can be had twice; maps must have the size of
the fixation map already, to which the original enlarges them bicubically. Frames without fixations score NaN.
"""

from __future__ import annotations

import numpy as np

from . import metrics

EPSILON = 2.0**-52  # MATLAB's eps
JITTER = 1e-7  # AUC_Judd.m
SPLITS = 100  # AUC_Borji.m, AUC_shuffled.m
STEP = 0.1  # between their thresholds


def fixation_map(row: np.ndarray, col: np.ndarray, height: int, width: int) -> np.ndarray:
    """(H, W) bool: where anybody looked. Several fixations of one pixel become one, as in all of this code."""
    fixated = np.zeros((height, width), bool)
    fixated[np.asarray(row), np.asarray(col)] = True
    return fixated


def draw_pixels(random: np.random.Generator, n_pixels: int, n_fixated: int, *, splits: int = SPLITS) -> np.ndarray:
    """(splits, n_fixated) flat pixels for `auc_borji`: anywhere, the same one perhaps twice."""
    return random.integers(n_pixels, size=(splits, n_fixated))


def draw_others(
    random: np.random.Generator, others_hw: np.ndarray, n_fixated: int, *, splits: int = SPLITS
) -> np.ndarray:
    """(splits, m) flat pixels for `auc_shuffled`: in each split other ones of those that others fixated.

    `others_hw` bool: the union of what was fixated elsewhere. m is `n_fixated`, or all of them where they are fewer.
    """
    fixated = np.flatnonzero(others_hw)
    m = min(n_fixated, len(fixated))
    return np.stack([random.choice(fixated, m, replace=False) for _ in range(splits)])


def auc_judd(map_hw: np.ndarray, fixated_hw: np.ndarray, jitter_hw: np.ndarray | None = None) -> float:
    """Area under the ROC curve that has a point at each fixated value, joined by straight lines.

    With few fixations this is far above the exact AUC: with one, chance is 0.75. `jitter_hw`, uniform in 0 ... 1,
    breaks ties as the original does by default; without it a map with many ties scores far too low. NaN for constant
    maps.
    """
    values, fixated = _values(map_hw if jitter_hw is None else map_hw + JITTER * jitter_hw, fixated_hw)
    if not len(fixated) or np.isnan(values).any():
        return np.nan
    thresholds = np.sort(fixated)[::-1]
    hits = np.arange(1, len(fixated) + 1)
    at_or_above = len(values) - np.searchsorted(np.sort(values), thresholds)
    return _area((at_or_above - hits) / (len(values) - len(fixated)), hits / len(fixated))


def auc_judd_of_fixations(
    map_hw: np.ndarray, row: np.ndarray, col: np.ndarray, jitter_hw: np.ndarray | None = None
) -> float:
    """`auc_judd` as pysaliency has it: several fixations of one pixel count as many, and equal values as one point.

    `jitter_hw`, there normal with a standard deviation of 1e-7, is added as it is. A constant map has 0.5.
    """
    values = _float64(map_hw) if jitter_hw is None else _float64(map_hw) + jitter_hw
    fixated, unfixated = values[row, col], values[~fixation_map(row, col, *values.shape)]
    if not len(fixated):
        return np.nan
    thresholds = np.sort(fixated)[::-1]
    false_alarms, hits = (
        1 - np.searchsorted(np.sort(sample), thresholds) / len(sample) for sample in (unfixated, fixated)
    )
    return _area(false_alarms, hits)


def auc_borji(map_hw: np.ndarray, fixated_hw: np.ndarray, drawn: np.ndarray) -> float:
    """Mean over the splits of the area under a ROC curve that has a point at every tenth of the map's range.

    `drawn` (splits, n): what `draw_pixels` gave. Ten thresholds see next to nothing of a peaked map: `equalized` maps
    do better. NaN for constant maps, and with a single fixation, where the original fails.
    """
    if np.count_nonzero(fixated_hw) == 1:
        return np.nan
    return auc_shuffled(map_hw, fixated_hw, drawn)


def auc_shuffled(map_hw: np.ndarray, fixated_hw: np.ndarray, drawn: np.ndarray) -> float:
    """As `auc_borji`, against pixels that others fixated: `drawn` (splits, m) is what `draw_others` gave.

    Which others is up to who publishes: any videos, or other frames of the same one, which is another test altogether.
    """
    values, fixated = _values(map_hw, fixated_hw)
    if not len(fixated) or np.isnan(values).any():
        return np.nan
    areas = []
    for negatives in values[drawn]:
        highest = max(fixated.max(), negatives.max(initial=0))
        # Where the highest value is a multiple of the step, rounding must not lose the threshold.
        thresholds = STEP * np.arange(int(highest / STEP + 1e-10), -1, -1)[:, None]
        areas.append(_area((negatives >= thresholds).mean(1), (fixated >= thresholds).mean(1)))
    return float(np.mean(areas))


def nss(map_hw: np.ndarray, fixated_hw: np.ndarray) -> float:
    """Mean value at the fixated pixels in standard deviations of the sample (n - 1) above the mean; 0 if constant."""
    row, col = np.nonzero(fixated_hw)
    exact = metrics.nss(_float64(map_hw)[None], np.zeros_like(row), row, col)
    return float(exact.mean()) * np.sqrt(1 - 1 / np.size(map_hw))


def information_gain(map_hw: np.ndarray, fixated_hw: np.ndarray, baseline_hw: np.ndarray) -> float:
    """Called bits per fixated pixel, and bits of nothing: both maps first lose their minimum.

    So the darkest pixel of the baseline gets probability 0, and where somebody looked there the gain is nearly 52.
    """
    at = np.asarray(fixated_hw, bool)
    if not at.any():
        return np.nan
    model, baseline = (_density(_unit_range(_float64(x)))[at] for x in (map_hw, baseline_hw))
    return float((np.log2(EPSILON + model) - np.log2(EPSILON + baseline)).mean())


def cc(map_hw: np.ndarray, truth_hw: np.ndarray) -> float:
    """Pearson correlation with an empirical map: the one score on which the protocols agree."""
    if not np.any(truth_hw):
        return np.nan
    return float(metrics.cc(_float64(map_hw)[None], _float64(truth_hw)[None]))


def sim(map_hw: np.ndarray, truth_hw: np.ndarray) -> float:
    """Mass that both maps share after each was stretched to 0 ... 1 and made to sum to 1; NaN if one is constant."""
    model, truth = (_density(_unit_range(_float64(x))) for x in (map_hw, truth_hw))
    return float(np.minimum(model, truth).sum())


def kl_divergence(truth_hw: np.ndarray, map_hw: np.ndarray) -> float:
    """Nats, both maps made to sum to 1; NaN for a map with negative values, where the original turns complex."""
    if np.min(map_hw) < 0 or not np.any(truth_hw):
        return np.nan
    model, truth = (_density(_float64(x)) for x in (map_hw, truth_hw))
    return float((truth * np.log(EPSILON + truth / (model + EPSILON))).sum())


def _float64(maps: np.ndarray) -> np.ndarray:
    return np.asarray(maps, np.float64)


def _values(map_hw: np.ndarray, fixated_hw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Values of all pixels of the map stretched to 0 ... 1, and of those that were fixated."""
    if np.shape(map_hw) != np.shape(fixated_hw):
        raise ValueError(f"a map of {np.shape(map_hw)} does not fit fixations on {np.shape(fixated_hw)} pixels")
    stretched = _unit_range(_float64(map_hw))
    return stretched.ravel(), stretched[np.asarray(fixated_hw, bool)]


def _unit_range(map_hw: np.ndarray) -> np.ndarray:
    """From 0 to 1; NaN all over where the map is constant, as in the original."""
    with np.errstate(invalid="ignore"):
        return (map_hw - map_hw.min()) / (map_hw.max() - map_hw.min())


def _density(map_hw: np.ndarray) -> np.ndarray:
    return map_hw / map_hw.sum() if map_hw.any() else map_hw


def _area(false_alarms: np.ndarray, hits: np.ndarray) -> float:
    """Trapezoids under a curve of rising rates, with (0, 0) before it and (1, 1) after it."""
    x, y = (np.concatenate([[0.0], rates, [1.0]]) for rates in (false_alarms, hits))
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum())

"""Maps and fixations in, scores out: the exact definitions, one value per fixation or per frame, and the best maps.

Maps are tensors (n, H, W) of frames, on any device; fixations are flat arrays `frame`, `row`, `col` of equal length, in
any order, where `frame` counts the maps given. A numpy array is welcome wherever a tensor is, and shares its memory;
what comes out is a tensor beside the maps, scores always in float64. Frames that are NaN (holes) score NaN. Nothing
here knows of videos, times or files: what is averaged over what is the caller's to say, and the protocol of the
published tables is `metrics_mit`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Literal

import numpy as np
import torch
from torch import Tensor

Array = Tensor | np.ndarray

MASS_TOLERANCE_NATS = 0.01  # of pysaliency's log densities, models.py
KL_EPSILON = 2.2204e-16  # of the MIT benchmark's KLdiv, as pysaliency's MIT_KLDiv writes it
CONSTANT = 1e-12  # a map varies by less of its largest value from rounding alone
# With up to this many fixations in a frame it is faster to count the pixels below each of them than to sort the frame:
# 0.11 ms each against 1.8 ms at 540x960 on one core with AVX-512, numpy 2.4.
COUNT_AT_MOST = 12
BLOCK = 128  # rows or columns blurred at once: 540x960 under sigma 24 in 12 ms instead of 28 (2 cores)


def pixels(x_px: Array, y_px: Array, *, scale: tuple[float, float] = (1.0, 1.0)) -> tuple[Tensor, Tensor]:
    """(row, col) int64 of the pixels that gaze falls into: pixel j spans j ... j + 1, so 3.98 is in pixel 3.

    `scale` (x, y): gaze on a frame of another size, multiplied by this frame's width and height over the other's.
    """
    x, y = (torch.as_tensor(values).double() * by for values, by in zip((x_px, y_px), scale, strict=True))
    return y.floor().long(), x.floor().long()


def check_log_density(log_density_nhw: Array) -> None:
    """Raises ValueError where a map's exponentials do not sum to 1, with what they sum to; NaN frames pass."""
    total = _each(lambda map_hw: map_hw.double().logsumexp((0, 1)), _floating(log_density_nhw))
    wrong = (total.abs() > MASS_TOLERANCE_NATS).nonzero()
    if len(wrong):
        first = int(wrong[0])
        raise ValueError(f"map {first} is no log density: its logsumexp is {float(total[first]):.4g} nats, not 0")


def log_likelihood(log_density_nhw: Array, frame: Array, row: Array, col: Array) -> Tensor:
    """(k,) log density at each fixation, in nats."""
    return _at(_floating(log_density_nhw), frame, row, col).double()


def information_gain(
    log_density_nhw: Array, baseline_log_density: Array | None, frame: Array, row: Array, col: Array
) -> Tensor:
    """(k,) bits by which a density predicts each fixation better than a baseline does.

    The baseline is one log density (H, W), one per frame (n, H, W), or None for the uniform density.
    """
    log_density = _floating(log_density_nhw)
    found = log_likelihood(log_density, frame, row, col)
    if baseline_log_density is None:
        expected = -math.log(math.prod(log_density.shape[1:]))
    else:
        baseline = _floating(baseline_log_density)
        if baseline.ndim == 2:
            baseline = baseline.expand(len(log_density), -1, -1)
        expected = log_likelihood(baseline, frame, row, col)
    return (found - expected) / math.log(2)


def auc(
    map_nhw: Array,
    frame: Array,
    row: Array,
    col: Array,
    *,
    negatives: Literal["all", "unfixated"] = "all",
) -> Tensor:
    """(k,) share of the frame's pixels that lie below the fixated one, those equal to it counting half.

    The mean over a frame's fixations is the area under its whole ROC curve; ties are exact, so a constant map has 0.5.
    Only the order of the values matters. `negatives`: every pixel, the fixated ones too, or those that nobody fixated.
    """
    maps = _floating(map_nhw)
    frame, row, col = _indices(maps, frame, row, col)
    values = _at(maps, frame, row, col)
    found = torch.full(values.shape, torch.nan, dtype=torch.float64, device=maps.device)
    for i, mine in _by_frame(frame, len(maps)):
        values_m = maps[i].flatten()
        if negatives == "unfixated":
            unfixated = torch.ones_like(maps[i], dtype=torch.bool)
            unfixated[row[mine], col[mine]] = False
            values_m = values_m[unfixated.flatten()]
        found[mine] = _share_below(values_m, values[mine])
    return found


def shuffled_auc(
    map_nhw: Array,
    frame: Array,
    row: Array,
    col: Array,
    negative_frame: Array | None,
    negative_row: Array,
    negative_col: Array,
) -> Tensor:
    """(k,) AUC against the map's values where others were fixated, every one of those with its multiplicity.

    `negative_frame` says in which frame's map each negative is read; None reads all of them in every frame. NaN in
    frames without negatives.
    """
    maps = _floating(map_nhw)
    frame, row, col = _indices(maps, frame, row, col)
    values = _at(maps, frame, row, col)
    if negative_frame is None:
        shared = _pixel(maps, *_indices(maps, negative_row, negative_col))
        in_frame = {i: maps[i].flatten()[shared] for i in set(frame.tolist())}
    else:
        negative_frame, *where = _indices(maps, negative_frame, negative_row, negative_col)
        read = _at(maps, negative_frame, *where)
        in_frame = {i: read[theirs] for i, theirs in _by_frame(negative_frame, len(maps))}
    found = torch.full(values.shape, torch.nan, dtype=torch.float64, device=maps.device)
    for i, mine in _by_frame(frame, len(maps)):
        if i in in_frame:
            found[mine] = _share_below(in_frame[i], values[mine])
    return found


def nss(map_nhw: Array, frame: Array, row: Array, col: Array) -> Tensor:
    """(k,) value at each fixation in standard deviations (of the population) above the frame's mean; 0 if constant."""
    maps = _floating(map_nhw)
    frame, row, col = _indices(maps, frame, row, col)
    mean, std = _each(_mean, maps), _each(_std, maps)
    scores = (_at(maps, frame, row, col).double() - mean[frame]) / std[frame]
    return scores.where(std[frame] != 0, 0.0)


def cc(a_nhw: Array, b_nhw: Array) -> Tensor:
    """(n,) Pearson correlation over pixels; 0 where one of the two is constant, NaN where both are."""

    def one(a_hw: Tensor, b_hw: Tensor) -> Tensor:
        std_a, std_b = _std(a_hw), _std(b_hw)
        correlation = _covariance(a_hw, b_hw) / (std_a * std_b)
        return correlation.where(std_a * std_b != 0, 0.0).where(std_a + std_b != 0, torch.nan)

    return _each(one, _floating(a_nhw), _floating(b_nhw))


def sim(a_nhw: Array, b_nhw: Array) -> Tensor:
    """(n,) mass, 0 ... 1, that two maps share once each sums to 1; negative maps are raised to a minimum of 0 first."""

    def one(a_hw: Tensor, b_hw: Tensor) -> Tensor:
        return _total(torch.minimum(_distribution(a_hw), _distribution(b_hw)))

    return _each(one, _floating(a_nhw), _floating(b_nhw))


def kl_divergence(truth_nhw: Array, map_nhw: Array, *, floor: float | None = None) -> Tensor:
    """(n,) nats by which a map, made to sum to 1, falls short of the true one; 0 where they agree.

    What keeps the logarithm finite is a convention: an epsilon of the MIT benchmark's inside it, or `floor` added to
    both maps before they are made to sum to 1 (pysaliency's KLDiv: 1e-20, visible in float64 only).
    """

    def one(truth_hw: Tensor, map_hw: Tensor) -> Tensor:
        truth, model = (_distribution(values, floor or 0.0) for values in (truth_hw, map_hw))
        ratio = truth / model if floor is not None else KL_EPSILON + truth / (model + KL_EPSILON)
        return _total(truth * ratio.log())

    return _each(one, _floating(truth_nhw), _floating(map_nhw))


def kl_of_densities(log_truth_nhw: Array, log_density_nhw: Array) -> Tensor:
    """(n,) nats by which a density falls short of the true one, without any epsilon: infinite where it rules out."""

    def one(truth_hw: Tensor, model_hw: Tensor) -> Tensor:
        return _total(truth_hw.exp() * (truth_hw - model_hw).where(truth_hw != -torch.inf, 0.0))

    return _each(one, _floating(log_truth_nhw), _floating(log_density_nhw))


def per_frame(values: Array, frame: Array, n: int) -> Tensor:
    """(n,) mean of each frame's values, NaN in frames without any: those say nothing and must not count."""
    values = torch.as_tensor(values).double()
    frame = torch.as_tensor(frame, device=values.device).long()
    totals = torch.zeros(n, dtype=torch.float64, device=values.device).index_add_(0, frame, values)
    return totals / torch.bincount(frame, minlength=n)


def equalized(map_nhw: Array) -> Tensor:
    """Each pixel's rank in its frame, 0 ... (H W - 1) / (H W); equal ones rank in reading order.

    What the Tübingen benchmark does to maps before the AUCs, because codes with few thresholds see nothing otherwise.
    """
    maps = _floating(map_nhw)
    order = maps.flatten(1).argsort(dim=1, stable=True)
    ranks = torch.arange(order.shape[1], dtype=maps.dtype, device=maps.device).expand_as(order)
    return torch.empty_like(ranks).scatter_(1, order, ranks).view(maps.shape) / order.shape[1]


def shuffled_auc_map(log_density_nhw: Array, others_log_density: Array) -> Tensor:
    """The map with the highest expected shuffled AUC: the log ratio to what is fixated elsewhere (the center bias)."""
    return _floating(log_density_nhw) - _floating(others_log_density)


def blurred(map_nhw: Array, sigma_px: float, *, edges: Literal["zero", "reflect"] = "zero") -> Tensor:
    """Maps under a Gaussian cut off at 4 sigma; beyond the frame there is nothing, or its mirror image.

    Of a density, blurred as the empirical maps were, it is the map that CC, SIM and KL are meant for.
    """
    maps = _floating(map_nhw)
    down, across = (_blur_matrix(n, sigma_px, edges).to(maps) for n in maps.shape[1:])
    found = torch.empty_like(maps)
    for i, map_hw in enumerate(maps):
        found[i] = _across(_down(map_hw, down), across)
    return found


def empirical_map(
    frame: Array,
    row: Array,
    col: Array,
    n: int,
    height: int,
    width: int,
    sigma_px: float,
    *,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(n, H, W) counts of fixations under a Gaussian, mirrored at the edges; 0 in frames without fixations.

    One degree of visual angle is the custom for `sigma_px`. Blurring a count is adding one outer product, so nothing
    is convolved.
    """
    frame, row, col = (torch.as_tensor(x).long() for x in (frame, row, col))
    found = torch.zeros(n, height, width, dtype=dtype, device=frame.device)
    _pixel(found, row, col)  # all inside
    down, across = (_blur_matrix(size, sigma_px, "reflect").to(found) for size in (height, width))
    for i, mine in _by_frame(frame, n):
        found[i] = down[row[mine]].T @ across[col[mine]]
    return found


def center_bias(
    x: Array, y: Array, height: int, width: int, *, bandwidth: float, eps: float, keep_aspect: bool = False
) -> Tensor:
    """(H, W) float64 log density of where fixations fall whatever is shown; pysaliency's BaselineModel.

    `x`, `y`: fixations in units of frame width and height. Their counts are blurred by `bandwidth` times height and
    width, or times the longer side in both directions (`keep_aspect`), and mixed with `eps` of the uniform density. The
    counts are not divided by their number before, as there: eps weighs less the more fixations there are. Raises
    ValueError where there is neither a fixation nor an eps.
    """
    rows, columns = pixels(x, y, scale=(width, height))
    at = _pixel(torch.empty(1, height, width), rows, columns)
    if not len(at) and not eps:
        raise ValueError("a center bias needs fixations, or eps")
    counts = torch.bincount(at, minlength=height * width).view(height, width).double()
    sigmas = (bandwidth * max(height, width),) * 2 if keep_aspect else (bandwidth * height, bandwidth * width)
    down, across = (_blur_matrix(n, s, "reflect") for n, s in zip((height, width), sigmas, strict=True))
    mass = (1 - eps) * (down.T @ counts @ across) + eps / (height * width)
    return mass.log() - mass.sum().log()


def gold_standard(x: Array, y: Array, height: int, width: int, *, bandwidth: float, eps: float) -> Tensor:
    """(H, W) float64 log density of the fixations of others: Gaussian kernels at pixel centers, mixed with uniform.

    `x`, `y` in units of frame width and height, and so is `bandwidth`. What one observer's fixations score under the
    others' density is how well gaze can be predicted at all.
    """
    x, y = (torch.as_tensor(values).double() for values in (x, y))
    if not len(x):
        raise ValueError("a gold standard needs fixations")

    def kernels(n: int, center: Tensor) -> Tensor:
        position = (torch.arange(n, dtype=torch.float64, device=center.device) + 0.5) / n
        return (-((position - center[:, None]) ** 2) / (2 * bandwidth**2)).exp()

    mass = kernels(height, y).T @ kernels(width, x)
    return ((1 - eps) * mass / mass.sum() + eps / (height * width)).log()


def _floating(maps: Array) -> Tensor:
    """float32 or float64: narrower types become float32, which keeps their order and their ties."""
    maps = torch.as_tensor(maps)
    return maps if maps.dtype in (torch.float32, torch.float64) else maps.float()


def _indices(maps: Tensor, *arrays: Array) -> tuple[Tensor, ...]:
    return tuple(torch.as_tensor(array, device=maps.device).long() for array in arrays)


def _pixel(maps: Tensor, row: Tensor, col: Tensor) -> Tensor:
    """Position of each pixel in a flattened map. Raises ValueError outside of it: a negative index would wrap."""
    height, width = maps.shape[-2:]
    if ((row < 0) | (row >= height) | (col < 0) | (col >= width)).any():
        raise ValueError(f"fixations lie outside of the frame of {width}x{height} pixels")
    return row * width + col


def _at(maps: Tensor, frame: Array, row: Array, col: Array) -> Tensor:
    frame, row, col = _indices(maps, frame, row, col)
    if ((frame < 0) | (frame >= len(maps))).any():
        raise ValueError(f"fixations are on frames that are not among the {len(maps)} maps")
    return maps.flatten(1)[frame, _pixel(maps, row, col)]


def _by_frame(frame: Tensor, n: int) -> Iterator[tuple[int, Tensor]]:
    """(frame, which of the fixations are its own) for every frame that has any."""
    counts = torch.bincount(frame, minlength=n).tolist()
    for i, mine in enumerate(frame.argsort(stable=True).split(counts)):
        if len(mine):
            yield i, mine


def _share_below(negatives_m: Tensor, values_k: Tensor) -> Tensor:
    """(k,) share of the negatives below each value, those equal to it counting half."""
    if negatives_m.device.type != "cpu":
        rising = negatives_m.sort().values
    elif len(values_k) <= COUNT_AT_MOST:
        numbers = negatives_m.numpy()
        twice = [np.count_nonzero(numbers < v) + np.count_nonzero(numbers <= v) for v in values_k.numpy()]
        return torch.tensor(twice, dtype=torch.float64).where(~values_k.isnan(), torch.nan) / (2 * len(numbers))
    else:
        rising = torch.from_numpy(np.sort(negatives_m.numpy()))  # torch's own takes twenty times as long on a processor
    twice = torch.searchsorted(rising, values_k) + torch.searchsorted(rising, values_k, right=True)
    return twice.double().where(~values_k.isnan(), torch.nan) / (2 * len(rising))


def _each(function: Callable[..., Tensor], *maps_nhw: Tensor) -> Tensor:
    """(n,) float64: a score of each frame. One at a time, so that what lies between stays in the processor's caches."""
    found = [function(*maps_hw) for maps_hw in zip(*maps_nhw, strict=True)]
    return torch.stack(found) if found else maps_nhw[0].new_zeros(0, dtype=torch.float64)


def _total(map_hw: Tensor) -> Tensor:
    return map_hw.sum(dtype=torch.float64)


def _mean(map_hw: Tensor) -> Tensor:
    return _total(map_hw) / map_hw.numel()


def _covariance(a_hw: Tensor, b_hw: Tensor) -> Tensor:
    """Over the pixels, as good in float32 as in float64: what rounding the means has moved is taken off again."""
    deviation_a, deviation_b = (map_hw - _mean(map_hw).to(map_hw.dtype) for map_hw in (a_hw, b_hw))
    return _mean(deviation_a * deviation_b) - _mean(deviation_a) * _mean(deviation_b)


def _std(map_hw: Tensor) -> Tensor:
    """Of the population; 0 where rounding alone makes a map vary, as the mean of many 0.3 is not 0.3."""
    std = _covariance(map_hw, map_hw).clamp(min=0).sqrt()
    lowest, highest = map_hw.aminmax()
    return std.where(~(std <= CONSTANT * torch.maximum(-lowest, highest)), 0.0)


def _distribution(map_hw: Tensor, floor: float = 0.0) -> Tensor:
    """A map that sums to 1: a negative one is raised to a minimum of 0 first, an all-zero one becomes uniform."""
    map_hw = map_hw - map_hw.amin().clamp(max=0) + floor
    total = _total(map_hw).to(map_hw.dtype)
    return (map_hw / total).where(total != 0, 1 / map_hw.numel())


def _blur_matrix(n: int, sigma: float, edges: Literal["zero", "reflect"]) -> Tensor:
    """(n, n) float64: row i is what the Gaussian makes of a 1 at i; as scipy.ndimage.gaussian_filter, truncate 4."""
    if sigma <= 0:
        return torch.eye(n, dtype=torch.float64)
    radius = int(4 * sigma + 0.5)
    offset = torch.arange(-radius, radius + 1)
    kernel = (-0.5 * (offset.double() / sigma) ** 2).exp()
    target = torch.arange(n)[:, None].expand(-1, len(offset))
    source = target + offset
    weight = (kernel / kernel.sum()).expand(n, -1)
    if edges == "reflect":
        source = source.remainder(2 * n)  # the mirror image of a mirror image repeats
        source = source.where(source < n, 2 * n - 1 - source)
    else:
        weight = weight.where((source >= 0) & (source < n), 0.0)
        source = source.clamp(0, n - 1)
    at = source * n + target
    return torch.zeros(n * n, dtype=torch.float64).index_add_(0, at.flatten(), weight.flatten()).view(n, n)


def _down(map_hw: Tensor, matrix: Tensor) -> Tensor:
    """matrix.T @ map without the zeros far from the diagonal."""
    found = torch.empty_like(map_hw)
    for start, low, high, block in _bands(matrix):
        found[start : start + BLOCK] = block.T @ map_hw[low:high]
    return found


def _across(map_hw: Tensor, matrix: Tensor) -> Tensor:
    """map @ matrix without the zeros far from the diagonal."""
    found = torch.empty_like(map_hw)
    for start, low, high, block in _bands(matrix):
        found[:, start : start + BLOCK] = map_hw[:, low:high] @ block
    return found


def _bands(matrix: Tensor) -> Iterator[tuple[int, int, int, Tensor]]:
    """(first column, low, high, matrix[low:high, BLOCK columns]): all that is not 0 in those columns."""
    for start in range(0, matrix.shape[1], BLOCK):
        block = matrix[:, start : start + BLOCK]
        used = block.any(1).nonzero()
        low, high = int(used[0]), int(used[-1]) + 1
        yield start, low, high, block[low:high]

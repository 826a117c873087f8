"""A density fitted to saliency maps finds the curve, the blur and the center bias that gaze was drawn with."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from maps_run import bump

from streamsal.evaluation.fit_density import KNOTS, Fit, Sample, fit_density, joined, shrunk

HEIGHT, WIDTH = 27, 48


def drawn(
    log_density: np.ndarray, per_frame: int = 40, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(frame, x, y) of fixations drawn from densities (n, h, w), in units of width and height."""
    random = np.random.default_rng(seed)
    n, height, width = log_density.shape
    places = [
        random.choice(height * width, per_frame, p=np.exp(each).ravel() / np.exp(each).sum()) for each in log_density
    ]
    row, col = np.divmod(np.concatenate(places), width)
    x, y = (col + random.random(len(col))) / width, (row + random.random(len(row))) / height
    return torch.arange(n).repeat_interleave(per_frame), torch.tensor(x), torch.tensor(y)


def sample(maps: np.ndarray, log_density: np.ndarray, seed: int = 0) -> Sample:
    frame, x, y = drawn(log_density, seed=seed)
    return Sample(maps_nhw=torch.tensor(maps, dtype=torch.float32), frame=frame, x=x.float(), y=y.float())


def truth(n: int = 20) -> np.ndarray:
    random = np.random.default_rng(1)
    return bump(n, HEIGHT, WIDTH, random.uniform(8, 40, n), random.uniform(5, 22, n), sigma=3)


def mean_bits(log_density: torch.Tensor, fixations: Sample) -> float:
    row, col = (fixations.y * HEIGHT).long(), (fixations.x * WIDTH).long()
    nats = log_density[fixations.frame, row, col].mean() + math.log(HEIGHT * WIDTH)
    return float(nats) / math.log(2)


def test_whatever_curve_the_map_is_seen_through_the_density_is_found() -> None:
    log_density = truth()
    density = np.exp(log_density) / np.exp(log_density).max((1, 2), keepdims=True)
    unseen = sample(density, log_density, seed=9)
    best = mean_bits(torch.tensor(log_density), unseen)
    for curve in (lambda p: 255 * p**0.25, lambda p: p**2 - 7, lambda p: np.log(p + 0.01)):
        maps = curve(density)
        fit = fit_density([sample(maps, log_density)])
        found = fit.log_density(torch.tensor(maps, dtype=torch.float32))
        torch.testing.assert_close(found.logsumexp((1, 2)), torch.zeros(20), atol=1e-4, rtol=0)
        assert best - 0.35 < mean_bits(found, unseen) < best + 0.05
        assert all(a <= b for a, b in zip(fit.levels, fit.levels[1:], strict=False))  # monotone
        assert fit.gain_bits == pytest.approx(best, abs=0.35)


def test_a_map_that_says_nothing_leaves_the_center_bias() -> None:
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    distance = ((x + 0.5) / WIDTH - 0.5) ** 2 + ((y + 0.5) / HEIGHT - 0.5) ** 2
    center = -distance / (2 * 0.15**2)
    log_density = np.repeat((center - np.log(np.exp(center).sum()))[None], 10, 0)
    fit = fit_density([sample(np.full((10, HEIGHT, WIDTH), 3.0), log_density)])
    found = fit.log_density(torch.full((1, HEIGHT, WIDTH), 3.0))
    kl = float((np.exp(log_density[0]) * (log_density[0] - found[0].double().numpy())).sum())
    assert kl < 0.02
    assert fit.center[0] > fit.center[4] > fit.center[8]


def test_noise_in_the_maps_is_blurred_away() -> None:
    log_density = truth()
    noise = np.random.default_rng(2).normal(0, 0.5, log_density.shape)
    clean, noisy = (fit_density([sample(log_density + extra, log_density)]) for extra in (0.0, noise))
    assert noisy.sigma > 1.5 * clean.sigma


def test_a_fit_is_of_no_size() -> None:
    """Applied to maps twice as large it gives the same density."""
    log_density = truth()
    maps = torch.tensor(np.exp(log_density), dtype=torch.float32)
    fit = fit_density([sample(np.exp(log_density), log_density)])
    large = torch.nn.functional.interpolate(maps[:, None], scale_factor=2, mode="bilinear")[:, 0]
    together = fit.log_density(large).exp().unfold(1, 2, 2).unfold(2, 2, 2).sum((3, 4))
    apart = (together - fit.log_density(maps).exp()).abs().sum((1, 2)) / 2
    assert float(apart.max()) < 0.05  # of the mass


def test_a_fit_survives_its_file() -> None:
    log_density = truth(4)
    fit = fit_density([sample(log_density, log_density)])
    again = Fit.from_dict(json.loads(json.dumps(fit.to_dict())))
    assert again == fit
    assert fit.n_parameters == 32 and len(fit.levels) == KNOTS and (fit.n_frames, fit.n_fixations) == (4, 160)
    with pytest.raises(ValueError, match="unknown format"):
        Fit.from_dict({**fit.to_dict(), "format": "x"})


def test_copies_are_small_and_keep_the_mean() -> None:
    maps = torch.rand(2, 180, 320, generator=torch.Generator().manual_seed(0))
    small = shrunk(maps)
    assert small.shape == (2, 54, 96)
    torch.testing.assert_close(small.mean(), maps.mean(), rtol=5e-3, atol=0)
    assert shrunk(maps[:, :5, :9]).shape == (2, 5, 9)


def test_without_fixations_there_is_nothing_to_fit() -> None:
    none = torch.zeros(0)
    with pytest.raises(ValueError, match="there are none"):
        fit_density([Sample(maps_nhw=torch.rand(2, 4, 4), frame=none.long(), x=none, y=none)])


def test_samples_of_one_size_are_one_sample_of_the_same_fixations_on_the_same_maps() -> None:
    def numbered(n: int, height: int, first: int) -> Sample:
        maps = torch.arange(first, first + n).float()[:, None, None].expand(n, height, 8)
        return Sample(maps_nhw=maps, frame=torch.arange(n), x=torch.full((n,), first / 10), y=torch.zeros(n))

    wide, other = joined([numbered(2, 4, 0), numbered(1, 5, 2), numbered(3, 4, 3)])
    assert wide.maps_nhw.shape == (5, 4, 8) and other.maps_nhw.shape == (1, 5, 8)
    assert wide.maps_nhw[wide.frame, 0, 0].tolist() == [0, 1, 3, 4, 5]
    torch.testing.assert_close(wide.x, torch.tensor([0, 0, 0.3, 0.3, 0.3]))

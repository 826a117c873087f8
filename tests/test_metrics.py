from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streamsal import metrics
from streamsal.metrics import (
    auc,
    blurred,
    cc,
    center_bias,
    check_log_density,
    empirical_map,
    equalized,
    gold_standard,
    information_gain,
    kl_divergence,
    kl_of_densities,
    log_likelihood,
    nss,
    per_frame,
    pixels,
    shuffled_auc,
    shuffled_auc_map,
    sim,
)

FIXTURES = Path(__file__).parent / "fixtures/metrics"
CASES = ("smooth", "uint8", "sparse", "constant")


class Case:
    """What pysaliency 0.2.22 measured: frames, real-valued fixations, and its scores of them."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.file = dict(np.load(FIXTURES / f"pysaliency_{name}.npz"))
        self.log_density, self.saliency = self.file["in/log_density"], self.file["in/saliency"]
        self.center_bias = self.file["in/centerbias_log_density"]
        self.n, self.height, self.width = self.log_density.shape
        self.at = (self.file["in/n"], *pixels(self.file["in/x"], self.file["in/y"]))
        self.sigma = float(self.file["kernel_size"])

    @property
    def negatives(self) -> tuple[Tensor, Tensor, Tensor]:
        """Every fixation of all other frames, in each frame."""
        frame, row, col = (torch.as_tensor(x) for x in self.at)
        others = [(torch.full_like(row[frame != i], i), row[frame != i], col[frame != i]) for i in range(self.n)]
        return tuple(torch.cat(column) for column in zip(*others, strict=True))

    def maps(self, kind: str) -> np.ndarray | Tensor:
        density = np.exp(self.log_density)
        return {"map": self.saliency, "density": density, "blurred_density": blurred(density, self.sigma)}[kind]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.file[f"out/{key}"]


@cache
def case(name: str) -> Case:
    return Case(name)


def differ(found: Tensor, expected: np.ndarray) -> float:
    """Largest difference; NaN must be where NaN is expected."""
    assert found.shape == expected.shape
    assert found.dtype == torch.float64
    assert np.array_equal(found.isnan().numpy(), np.isnan(expected))
    return float(np.nanmax(abs(found.numpy() - expected)))


@pytest.mark.parametrize("name", CASES)
def test_likelihoods_and_information_gains_are_pysaliencys(name: str) -> None:
    c = case(name)
    check_log_density(c.log_density)
    gain = information_gain(c.log_density, c.center_bias, *c.at)
    assert differ(log_likelihood(c.log_density, *c.at), c["ll_nats"]) <= 1e-9
    assert differ(information_gain(c.log_density, None, *c.at), c["ig_uniform_bits"]) <= 1e-9
    assert differ(gain, c["ig_centerbias_bits"]) <= 1e-9
    assert differ(gain.mean(), c["ig_centerbias_bits_mean_over_fixations"]) <= 1e-9
    by_frame = per_frame(gain, c.at[0], c.n)
    assert differ(by_frame.nanmean(), c["ig_centerbias_bits_mean_over_frames"]) <= 1e-9
    truth = np.broadcast_to(c.center_bias, c.log_density.shape).copy()
    assert differ(kl_of_densities(truth, c.log_density), c["kl_density_vs_centerbias_nats"]) <= 1e-9


@pytest.mark.parametrize("kind", ["map", "density"])
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("count_at_most", [0, 1000], ids=["sorted", "counted"])
def test_aucs_are_pysaliencys(name: str, kind: str, count_at_most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "COUNT_AT_MOST", count_at_most)
    c = case(name)
    maps = c.maps(kind)
    uniform, shuffled = auc(maps, *c.at), shuffled_auc(maps, *c.at, *c.negatives)
    assert differ(uniform, c[f"{kind}/auc_uniform"]) <= 1e-12
    assert differ(auc(maps, *c.at, negatives="unfixated"), c[f"{kind}/auc_unfixated"]) <= 1e-12
    assert differ(shuffled, c[f"{kind}/auc_shuffled"]) <= 1e-12
    assert differ(per_frame(uniform, c.at[0], c.n), c[f"{kind}/auc_uniform_per_frame"]) <= 1e-12
    assert differ(per_frame(shuffled, c.at[0], c.n), c[f"{kind}/auc_shuffled_per_frame"]) <= 1e-12
    assert differ(uniform.mean(), c[f"{kind}/auc_uniform_mean_over_fixations"]) <= 1e-12
    assert differ(per_frame(uniform, c.at[0], c.n).nanmean(), c[f"{kind}/auc_uniform_mean_over_frames"]) <= 1e-12


@pytest.mark.parametrize("name, kind", [(name, kind) for name in CASES for kind in ("map", "density")])
def test_nss_is_pysaliencys_but_for_constant_maps(name: str, kind: str) -> None:
    c = case(name)
    found = nss(c.maps(kind), *c.at)
    if (name, kind) == ("constant", "map"):
        # There the mean of many 0.3 is not 0.3, and dividing rounding by rounding gave 1.
        assert (c["map/nss"] == 1).any()
        assert not found.any()
    else:
        assert differ(found, c[f"{kind}/nss"]) <= 1e-9


MAP_SCORES: dict[str, Callable] = {
    "cc": cc,
    "sim": sim,
    "kldiv_mit": kl_divergence,
    "kldiv_min1e-20": lambda truth, maps: kl_divergence(truth, maps, floor=1e-20),
}


@pytest.mark.parametrize("kind", ["map", "density", "blurred_density"])
@pytest.mark.parametrize("name", CASES)
def test_scores_of_maps_against_empirical_maps_are_pysaliencys(name: str, kind: str) -> None:
    c = case(name)
    truth = empirical_map(*c.at, c.n, c.height, c.width, c.sigma, dtype=torch.float64)
    assert differ(truth, c["empirical_map"]) <= 1e-9
    seen = c["frame_has_fixations"]
    assert np.array_equal(truth.sum((1, 2)).numpy() > 0, seen)
    for score, function in MAP_SCORES.items():
        found = function(truth, c.maps(kind)).where(torch.from_numpy(seen), torch.nan)
        assert differ(found, c[f"{kind}/{score}"]) <= 1e-9, score


@pytest.mark.parametrize("name", CASES)
def test_the_maps_made_for_the_aucs_are_pysaliencys(name: str) -> None:
    c = case(name)
    ratio = shuffled_auc_map(c.log_density, c.center_bias)
    assert differ(ratio, c["sauc_map"]) <= 1e-9
    assert differ(equalized(ratio), c["sauc_map_equalized"]) <= 1e-12
    assert differ(auc(c.log_density, *c.at), c["auc_map/auc_uniform"]) <= 1e-12
    assert differ(shuffled_auc(ratio, *c.at, *c.negatives), c["sauc_map/auc_shuffled"]) <= 1e-12


def test_fixations_of_frames_of_other_sizes_are_scaled_before_they_are_cut_to_pixels() -> None:
    file = np.load(FIXTURES / "pysaliency_mixed_sizes.npz")
    x, y, n = file["in/x"], file["in/y"], file["in/n"]
    maps = [file[f"in/saliency_{i}"] for i in range(3)]
    for i, own in enumerate(maps):
        row, col = pixels(x[n == i], y[n == i])
        here = torch.zeros_like(row)
        others = [j for j in range(3) if j != i]
        scales = {j: (own.shape[1] / maps[j].shape[1], own.shape[0] / maps[j].shape[0]) for j in others}
        rows, cols = zip(*(pixels(x[n == j], y[n == j], scale=scales[j]) for j in others), strict=True)
        found = shuffled_auc(own[None], here, row, col, None, torch.cat(rows), torch.cat(cols))
        assert differ(found, file["out/auc_shuffled"][n == i]) <= 1e-12
        assert differ(nss(own[None], here, row, col), file["out/nss"][n == i]) <= 1e-9


def test_center_biases_and_gold_standards_are_pysaliencys() -> None:
    file = np.load(FIXTURES / "pysaliency_centerbias.npz")
    n, (height, width) = file["in/n"], (int(size) for size in file["in/shape"])
    x, y = file["in/x"] / width, file["in/y"] / height
    options = {"height": height, "width": width, "eps": float(file["in/eps"])}
    bandwidth = float(file["in/bandwidth"])
    assert differ(center_bias(x, y, **options, bandwidth=bandwidth), file["out/centerbias_all"]) <= 1e-9
    same_aspect = center_bias(x, y, **options, bandwidth=bandwidth, keep_aspect=True)
    assert differ(same_aspect, file["out/centerbias_all_keep_aspect"]) <= 1e-9
    for i in range(4):
        others = center_bias(x[n != i], y[n != i], **options, bandwidth=bandwidth)
        assert differ(others, file["out/centerbias_leave_one_out"][i]) <= 1e-9
        row, col = pixels(file["in/x"][n == i], file["in/y"][n == i])
        found = log_likelihood(others[None], torch.zeros_like(row), row, col)
        assert differ(found, file["out/centerbias_leave_one_out_ll"][n == i]) <= 1e-9
        gold = gold_standard(x[n == i], y[n == i], **options, bandwidth=0.06)
        assert differ(gold, file["out/kde_gold_bandwidth0.06"][i]) <= 1e-9

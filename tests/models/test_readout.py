"""The fused readout against the networks as they are defined, one component after the other, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import interpolate, softplus

from streamsal.models.readout import (
    EPSILON,
    FixationNetworks,
    Grid,
    SaliencyNetworks,
    fixation_template,
    saliency_template,
)
from streamsal.models.readout import softplus as our_softplus
from streamsal.weights import synthetic

CPU = torch.device("cpu")
COMPONENTS = 3
SALIENCY = [f"s.{k}" for k in range(COMPONENTS)]
FIXATION = [f"f.{k}" for k in range(COMPONENTS)]


def stand_ins(channels: int) -> dict[str, Tensor]:
    entries: dict[str, Tensor] = {}
    for prefix in SALIENCY:
        entries |= saliency_template(prefix, channels)
    for prefix in FIXATION:
        entries |= fixation_template(prefix)
    return synthetic.state_dict(entries)


def normalized(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    """Over channels and positions together, then a scale and shift per channel."""
    dims = (1, 2, 3)
    x = x - x.mean(dims, keepdim=True)
    x = x / (x.square().mean(dims, keepdim=True) + EPSILON).sqrt()
    return x * weights[f"{name}.weight"].double()[:, None, None] + weights[f"{name}.bias"].double()[:, None, None]


def convolved(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    return torch.nn.functional.conv2d(x, weights[f"{name}.weight"].double())


def naive(taps: list[Tensor], readout: tuple[int, int], weights: dict[str, Tensor], k: int) -> tuple[Tensor, Tensor]:
    """Saliency and priority map (n, h, w) of one component on the readout grid."""
    x = torch.cat([interpolate(tap, size=readout, mode="nearest") for tap in taps], dim=1).double()
    for i in range(3):
        x = convolved(normalized(x, weights, f"s.{k}.layernorm{i}"), weights, f"s.{k}.conv{i}")
        x = softplus(x + weights[f"s.{k}.bias{i}.bias"].double()[:, None, None])
    y = normalized(x, weights, f"f.{k}.layernorm0.layernorm_part0")
    y = convolved(y, weights, f"f.{k}.conv0.conv_part0") + weights[f"f.{k}.bias0.bias"].double()[:, None, None]
    y = normalized(softplus(y), weights, f"f.{k}.layernorm1")
    y = convolved(y, weights, f"f.{k}.conv1") + weights[f"f.{k}.bias1.bias"].double()[:, None, None]
    return x[:, 0], convolved(softplus(y), weights, f"f.{k}.conv2")[:, 0]


def features(channels: int, size: tuple[int, int], seed: int) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return 50 * torch.randn(2, channels, *size, generator=rng) + 100 * torch.randn(1, channels, 1, 1, generator=rng)


@pytest.mark.parametrize(
    ("sizes", "readout"),
    [
        ([(6, 8), (6, 8), (3, 4)], (3, 4)),  # finer taps are reduced
        ([(7, 9), (4, 5)], (4, 5)),
        ([(2, 3), (2, 3)], (3, 4)),  # one grid for all, coarser than the readout grid
        ([(2, 3)], (12, 17)),
        ([(5, 6), (5, 6)], (5, 6)),
    ],
    ids=str,
)
def test_fused_networks_are_the_networks(sizes: list[tuple[int, int]], readout: tuple[int, int]) -> None:
    taps = [features(20 + i, size, i) for i, size in enumerate(sizes)]
    weights = stand_ins(sum(tap.shape[1] for tap in taps))
    grid = Grid.make(readout, sizes, CPU)
    saliency = SaliencyNetworks(weights, SALIENCY, CPU)(taps, grid)
    priority = FixationNetworks(weights, FIXATION, CPU)(saliency, grid)
    for k in range(COMPONENTS):
        wanted_saliency, wanted_priority = naive(taps, readout, weights, k)
        found = saliency[:, k, 0].unflatten(-1, grid.size)[:, grid.rows][:, :, grid.columns]
        torch.testing.assert_close(found.double(), wanted_saliency, atol=1e-5, rtol=0)
        found = priority[:, k][:, grid.rows][:, :, grid.columns]
        torch.testing.assert_close(found.double(), wanted_priority, atol=3e-5, rtol=0)


def test_networks_run_on_the_features_own_grid_where_they_share_one() -> None:
    assert Grid.make((68, 120), [(16, 30)] * 3, CPU).size == (16, 30)
    assert Grid.make((34, 60), [(34, 60), (17, 30)], CPU).size == (34, 60)


def test_constant_features_give_a_constant_map_and_no_amplified_rounding() -> None:
    taps = [torch.full((1, 8, 3, 4), 1234.567), torch.full((1, 4, 3, 4), 1234.567)]
    weights, grid = stand_ins(12), Grid.make((3, 4), [(3, 4), (3, 4)], CPU)
    saliency = SaliencyNetworks(weights, SALIENCY, CPU)(taps, grid)
    priority = FixationNetworks(weights, FIXATION, CPU)(saliency, grid)
    for k in range(COMPONENTS):
        bias = weights[f"f.{k}.layernorm0.layernorm_part0.bias"]
        assert (priority[0, k] == priority[0, k, 0, 0]).all(), f"{bias = }"


def test_a_frame_does_not_depend_on_its_neighbors_and_infinity_becomes_nan() -> None:
    taps = [features(24, (4, 5), 0)]
    weights, grid = stand_ins(24), Grid.make((4, 5), [(4, 5)], CPU)
    networks = SaliencyNetworks(weights, SALIENCY, CPU)
    alone = networks([taps[0][:1]], grid)
    taps[0][1, 3, 2, 2] = torch.inf
    together = networks(taps, grid)
    torch.testing.assert_close(together[:1], alone, atol=1e-6, rtol=0)
    assert together[1].isnan().all()


def test_shares_of_a_coarse_grid_count_its_repetitions() -> None:
    grid = Grid.make((3, 4), [(2, 3)], CPU)
    counts = np.zeros((2, 3))
    np.add.at(counts, (grid.rows[:, None], grid.columns), 1)
    np.testing.assert_allclose(grid.weights.reshape(2, 3), counts / 12)


def test_softplus_is_exact_to_float32_however_small() -> None:
    x = torch.linspace(-80, 80, 100_001)
    torch.testing.assert_close(our_softplus(x).double(), softplus(x.double(), threshold=100), rtol=3e-7, atol=0)
    extremes = torch.tensor([-torch.inf, torch.inf, torch.nan])
    torch.testing.assert_close(our_softplus(extremes), torch.tensor([0, torch.inf, torch.nan]), equal_nan=True)

"""The finalizer's matrices against the same thing done step by step, component by component, in float64."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from streamsal.density import full_size, nearest_indices
from streamsal.models.finalizer import Finalizer, Parameters, blur_matrix, log_density, on_grid, repeats
from streamsal.models.spec import Readback

CPU = torch.device("cpu")


def blurred(line: np.ndarray, sigma: float, radius: int) -> np.ndarray:
    padded = np.pad(line, radius, mode="edge")
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma) ** 2)
    return np.convolve(padded, kernel / kernel.sum(), mode="valid")


def naive_log_density(
    priority: np.ndarray, parameters: Parameters, size: tuple[int, int], block: int, center_bias: np.ndarray
) -> np.ndarray:
    """(H, W) as the originals compute it: every component enlarged, blurred, normalized at full size, then mixed."""
    grid = size[0] // block, size[1] // block
    mixture = np.full(size, -np.inf)
    for k, (sigma, weight) in enumerate(zip(parameters.sigma, parameters.center_bias_weight, strict=True)):
        radius = int(np.ceil(np.float32(3 * np.float32(sigma))))
        rows, columns = (nearest_indices(n, g) for n, g in zip(priority.shape[1:], grid, strict=True))
        large = priority[k].astype(np.float64)[rows][:, columns]
        large = np.apply_along_axis(blurred, 0, large, sigma, radius)
        large = np.apply_along_axis(blurred, 1, large, sigma, radius)
        large = large + weight * on_grid(center_bias, block)
        rows, columns = (nearest_indices(g, n) for g, n in zip(grid, size, strict=True))
        large = large[rows][:, columns]
        mixture = np.logaddexp(mixture, large - np.logaddexp.reduce(large, axis=None))
    return mixture - np.log(len(priority))


@pytest.mark.parametrize("block", [2, 4])
@pytest.mark.parametrize("size", [(64, 96), (65, 97), (100, 131), (71, 244)], ids=str)
def test_mixture_is_that_of_the_components_at_full_size(size: tuple[int, int], block: int) -> None:
    rng = np.random.default_rng(0)
    parameters = Parameters(sigma=(2.3, 8.0, 11.7), center_bias_weight=(0.4, 1.0, 1.7))
    readout = -(-size[0] // 32), -(-size[1] // 32)
    priority = rng.normal(scale=3, size=(2, 3, *readout)).astype(np.float32)
    center_bias = rng.normal(size=size).astype(np.float32)
    made = Finalizer.make(
        parameters,
        size=size,
        block=block,
        sources=(np.arange(readout[0]), np.arange(readout[1])),
        center_bias=center_bias,
        device=CPU,
    )
    native = log_density(made.density_sum(torch.from_numpy(priority)))
    found = full_size(native, *size, Readback(interpolation="nearest", block=block)).numpy()
    for i in range(2):
        wanted = naive_log_density(priority[i], parameters, size, block, center_bias)
        np.testing.assert_allclose(found[i], wanted, atol=5e-6)


@pytest.mark.parametrize("n", [8, 9, 64, 101, 1081])
@pytest.mark.parametrize("block", [1, 2, 4])
def test_every_pixel_repeats_one_grid_value(n: int, block: int) -> None:
    assert repeats(n, block).sum() == n
    assert len(repeats(n, block)) == n // block
    assert repeats(n, block).min() >= 1


def test_a_blur_keeps_what_is_constant_and_spreads_a_step() -> None:
    matrix = blur_matrix(np.repeat(np.arange(4), 25), 4, sigma=8.0, radius=24)
    np.testing.assert_allclose(matrix.sum(1), 1)
    assert (np.count_nonzero(matrix, axis=1) <= 4).all()
    assert matrix[0, 0] == pytest.approx(1, abs=1e-3)
    np.testing.assert_allclose(matrix[24, :2].sum(), 1)


def test_a_map_that_shows_another_grid_is_the_enlarged_map() -> None:
    """Priority maps on the features' own grid, with the index map absorbed, equal those on the readout grid."""
    parameters = Parameters(sigma=(5.0,), center_bias_weight=(1.0,))
    size, small, readout = (96, 128), (2, 3), (3, 4)
    priority = torch.randn(1, 1, *small, generator=torch.Generator().manual_seed(0))
    rows, columns = (nearest_indices(n, r) for n, r in zip(small, readout, strict=True))
    bias = np.zeros(size, np.float32)
    absorbed = Finalizer.make(parameters, size=size, block=2, sources=(rows, columns), center_bias=bias, device=CPU)
    plain = (np.arange(readout[0]), np.arange(readout[1]))
    explicit = Finalizer.make(parameters, size=size, block=2, sources=plain, center_bias=bias, device=CPU)
    torch.testing.assert_close(
        absorbed.density_sum(priority), explicit.density_sum(priority[:, :, rows][:, :, :, columns]), atol=1e-7, rtol=0
    )


def test_impossible_places_stay_finite_and_nan_stays_nan() -> None:
    parameters = Parameters(sigma=(2.0,), center_bias_weight=(1.0,))
    bias = np.zeros((64, 64), np.float32)
    bias[:32] = -np.inf
    made = Finalizer.make(
        parameters, size=(64, 64), block=2, sources=(np.arange(2), np.arange(2)), center_bias=bias, device=CPU
    )
    priority = torch.zeros(2, 1, 2, 2)
    priority[1] = torch.nan
    found = log_density(made.density_sum(priority))
    assert (found[0, :16] < -80).all()
    assert found[0].isfinite().all()
    torch.testing.assert_close(found[0, 16:], torch.full((16, 32), -np.log(16 * 32)).float())
    assert found[1].isnan().all()

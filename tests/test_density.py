from __future__ import annotations

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from streamsal.density import (
    FLOOR_NATS,
    UINT16_STEP,
    central_third_mass,
    centroid,
    entropy_bits,
    full_size,
    gaussian_prior,
    mass_in_box,
    mass_thresholds,
    normalize,
    pack,
    peak,
    unpack,
)
from streamsal.models.spec import Readback


def some_maps(n: int = 3, height: int = 30, width: int = 44, spread: float = 3.0) -> torch.Tensor:
    """Smooth random log densities in float32."""
    noise = torch.randn(n, 1, 5, 7, generator=torch.Generator().manual_seed(height * width))
    smooth = torch.nn.functional.interpolate(noise, (height, width), mode="bicubic", align_corners=False)[:, 0]
    return normalize(smooth * spread)


def mass(log_density: torch.Tensor) -> torch.Tensor:
    return log_density.double().exp().sum((-2, -1))


def test_normalized_frames_sum_to_one_and_keep_their_shape():
    raw = some_maps(2, 540, 960) + torch.tensor([700.0, -700.0])[:, None, None]
    normal = normalize(raw)
    assert (mass(normal) - 1).abs().max() < 2e-6
    assert torch.allclose(normal[0] - normal[0, 0, 0], raw[0] - raw[0, 0, 0], atol=2e-4)  # 700 has an ulp of 6e-5


def test_normalize_leaves_holes_nan_and_their_neighbors_alone():
    maps = some_maps()
    maps[1] = torch.nan
    normal = normalize(maps)
    assert normal[1].isnan().all()
    assert normal[[0, 2]].isfinite().all()


def test_normalize_accepts_pixels_of_probability_zero():
    maps = torch.zeros(1, 2, 4)
    maps[0, :, 2:] = -torch.inf
    assert torch.equal(normalize(maps).exp()[0, 0], torch.tensor([0.25, 0.25, 0, 0]))


@pytest.mark.parametrize("size", [(180, 320), (181, 333), (30, 44), (17, 9)])
@pytest.mark.parametrize("prior", [None, (0.25, 0.25, 1.0), (0.2, 0.35, 0.6)])
def test_read_back_equals_the_model_computed_at_full_size(size, prior):
    """The model: bilinear to the requested size, then minus the prior, then minus the logsumexp, here in float64."""
    score = some_maps(2).double()

    def model(height, width):
        maps = torch.nn.functional.interpolate(score[:, None], (height, width), mode="bilinear", align_corners=False)
        maps = maps[:, 0]
        if prior:
            sigma_y, sigma_x, weight = prior
            u = (torch.arange(height).double() + 0.5) / height - 0.5
            v = (torch.arange(width).double() + 0.5) / width - 0.5
            maps = maps - weight * (u[:, None] ** 2 / (2 * sigma_y**2) + v[None] ** 2 / (2 * sigma_x**2))
        return maps - maps.logsumexp((1, 2), keepdim=True)

    stored = model(30, 44).float()
    found = full_size(stored, *size, Readback(gaussian_prior=prior))
    assert found.shape == (2, *size) and found.dtype == torch.float32
    # float32 sample positions, ulp 4e-6 of a stored pixel, on slopes of up to 2.5 nats per stored pixel
    assert (found - model(*size)).abs().max() < 2e-5
    assert (mass(found) - 1).abs().max() < 2e-6


def test_read_back_at_the_stored_size_changes_nothing():
    stored = some_maps()
    found = full_size(stored, 30, 44, Readback(gaussian_prior=(0.25, 0.25, 1.0)))
    assert (found - stored).abs().max() < 5e-6


def test_read_back_keeps_holes_nan_and_probability_zero_at_zero():
    stored = some_maps()
    stored[0] = torch.nan
    stored[1, :, :22] = -torch.inf
    found = full_size(stored, 60, 88, Readback())
    assert found[0].isnan().all()
    assert not found[1:].isnan().any() and (mass(found[1:]) - 1).abs().max() < 2e-6
    assert (found[1, :, :43].exp() == 0).all() and found.nan_to_num(0).min() >= FLOOR_NATS - 50


def test_unknown_interpolation_is_refused():
    with pytest.raises(ValueError, match="cubic"):
        full_size(some_maps(), 60, 88, Readback(interpolation="cubic"))  # type: ignore[arg-type]


def test_prior_is_the_stated_gaussian():
    prior = gaussian_prior(4, 3, 0.25, 0.5, 2.0)
    u, v = (0 + 0.5) / 4 - 0.5, (2 + 0.5) / 3 - 0.5
    assert prior.shape == (4, 3) and prior.dtype == torch.float32
    assert prior[0, 2].item() == pytest.approx(-2 * (u**2 / (2 * 0.25**2) + v**2 / (2 * 0.5**2)), rel=1e-6)
    assert torch.equal(prior, prior.flip(0, 1))


def test_uniform_density_has_known_statistics():
    uniform = normalize(torch.zeros(1, 30, 48))
    assert entropy_bits(uniform).item() == pytest.approx(math.log2(30 * 48), rel=1e-6)
    assert centroid(uniform)[0].tolist() == pytest.approx([24, 15], rel=1e-5)
    assert central_third_mass(uniform).item() == pytest.approx(1 / 9, rel=1e-5)


def test_one_sure_pixel_has_known_statistics():
    sure = torch.full((1, 5, 8), -torch.inf)
    sure[0, 3, 6] = 0
    assert entropy_bits(sure).item() == 0
    assert centroid(sure)[0].tolist() == [6.5, 3.5]
    assert peak(sure)[0].tolist() == [6.5, 3.5]
    assert mass_thresholds(sure.exp(), [0.5, 1.0])[0].tolist() == [1.0, 1.0]


def test_peak_is_the_first_of_equals_in_reading_order():
    maps = torch.zeros(1, 4, 5)
    maps[0, 1, 4] = maps[0, 2, 0] = 1
    assert peak(maps)[0].tolist() == [4.5, 1.5]


def test_box_counts_cut_pixels_by_their_area():
    density = torch.tensor([[[0.1, 0.2], [0.3, 0.4]]])
    assert mass_in_box(density.log(), 0.5, 0, 2, 1).item() == pytest.approx(0.5 * 0.1 + 0.2)
    assert mass_in_box(density.log(), -9, 0.25, 1, 99).item() == pytest.approx(0.75 * 0.1 + 0.3)
    assert mass_in_box(density.log(), 0, 0, 2, 2).item() == pytest.approx(1)


def test_boxes_that_tile_the_frame_share_out_all_mass():
    maps = some_maps()
    edges = [0, 10.3, 21.7, 44]
    parts = [mass_in_box(maps, a, 0, b, 30) for a, b in itertools.pairwise(edges)]
    assert torch.allclose(sum(parts), torch.ones(3), atol=1e-5)


def test_pixels_above_a_threshold_are_the_fewest_that_hold_the_mass():
    density = some_maps().exp()
    fractions = [0.5, 0.75, 0.9]
    levels = mass_thresholds(density, fractions)
    assert levels.shape == (3, 3)
    for frame, frame_levels in zip(density.double(), levels, strict=True):
        for fraction, level in zip(fractions, frame_levels, strict=True):
            assert frame[frame >= level].sum() >= fraction * frame.sum() - 1e-12
            assert frame[frame > level].sum() < fraction * frame.sum()


def test_threshold_fractions_outside_zero_to_one_are_refused():
    with pytest.raises(ValueError, match="fractions"):
        mass_thresholds(some_maps().exp(), [0.5, 90])


def test_statistics_of_a_hole_are_nan():
    hole = torch.full((1, 6, 6), torch.nan)
    for statistic in (entropy_bits, centroid, peak, central_third_mass, lambda m: mass_thresholds(m.exp(), [0.5])):
        assert statistic(hole).isnan().all()


@pytest.mark.parametrize("dtype", ["float16", "uint16", "float32"])
def test_unpacked_density_sums_to_one_on_the_stored_grid(dtype):
    maps = some_maps(spread=6).numpy()
    stored, log_offset = pack(maps, dtype)
    assert stored.dtype == dtype and log_offset.dtype == np.float32 and log_offset.shape == (3,)
    assert np.abs(np.exp(unpack(stored, log_offset).astype(np.float64)).sum((1, 2)) - 1).max() < 3e-6


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_packing_errs_by_no_more_than_it_states(dtype):
    maps = some_maps(spread=6).numpy()
    maps -= np.float32(11)  # what is packed need not be normalized
    distance = maps.max((1, 2), keepdims=True) - maps
    assert distance.max() > 16
    unpacked = unpack(*pack(maps, dtype))
    error = np.abs(unpacked.max((1, 2), keepdims=True) - unpacked - distance)
    bound = distance * 2**-11 if dtype == "float16" else 3.1e-5 * (1 + distance)
    assert (error <= bound + 4e-6).all()


def test_float32_keeps_every_bit():
    maps = some_maps().numpy()
    maps[0, 0, :3] = [-np.inf, np.nan, -1e30]
    stored, log_offset = pack(maps, "float32")
    assert stored.tobytes() == maps.tobytes() and not log_offset.any()


def test_very_low_values_reach_the_stated_floor():
    maps = np.zeros((1, 3, 4), np.float32)
    maps[0, 0] = [-np.inf, -60, -7e4, -1e30]
    half = unpack(*pack(maps, "float16"))
    assert np.exp(half[0, 1:]).sum() == pytest.approx(1)
    assert half[0, 0, 1] == pytest.approx(-60 - math.log(8)) and (half[0, 0, [0, 2, 3]] == -np.inf).all()
    quantized = unpack(*pack(maps, "uint16"))
    floor = -math.expm1(65535 * UINT16_STEP)
    assert floor == pytest.approx(-50.0, abs=0.1)
    assert quantized[0, 0] == pytest.approx([floor - math.log(8)] * 4, rel=1e-5)
    assert np.exp(quantized[0, 1:]).sum() == pytest.approx(1)


@pytest.mark.parametrize("dtype", ["float16", "uint16", "float32"])
def test_packed_holes_are_read_back_as_nan_and_spare_their_neighbors(dtype):
    maps = some_maps().numpy()
    maps[1] = np.nan
    unpacked = unpack(*pack(maps, dtype))
    assert np.isnan(unpacked[1]).all() and np.isfinite(unpacked[[0, 2]]).all()


@pytest.mark.parametrize("dtype", ["float16", "uint16"])
def test_a_frame_that_is_no_density_is_read_back_as_nan(dtype):
    maps = np.zeros((3, 2, 2), np.float32)
    maps[0] = -np.inf
    maps[1, 0, 0] = np.nan
    maps[2, 0, 0] = np.inf
    assert np.isnan(unpack(*pack(maps, dtype))).all()


@settings(max_examples=60, deadline=None)
@given(
    maps=hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=3, max_dims=3, max_side=6), elements=st.floats(-2e5, 2e5, width=32)
    ),
    dtype=st.sampled_from(["float16", "uint16"]),
)
def test_any_finite_frame_survives_packing_with_its_peak_in_place(maps, dtype):
    unpacked = unpack(*pack(maps, dtype))
    assert np.allclose(np.exp(unpacked.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)
    for before, after in zip(maps, unpacked, strict=True):
        assert after.flat[before.argmax()] == after.max()


def test_each_frame_is_packed_as_if_alone():
    maps = some_maps().numpy()
    for dtype in ("float16", "uint16"):
        stored, log_offset = pack(maps, dtype)
        alone = [pack(maps[i : i + 1], dtype) for i in range(3)]
        assert np.array_equal(stored, np.concatenate([item[0] for item in alone]))
        assert np.array_equal(log_offset, np.concatenate([item[1] for item in alone]))


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match="uint8"):
        pack(some_maps().numpy(), "uint8")  # type: ignore[arg-type]


def test_packing_needs_no_torch():
    code = "import sys; from streamsal.density import pack, unpack; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

"""What UNISAL's network is made of: the keys of the official checkpoint, and shortcuts that change no number."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch.nn import functional

from streamsal.models.unisal_network import (
    DOMAINS,
    SMOOTHING,
    gaussian_maps,
    one_domain,
    phase_kernels,
    smooth,
    template,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"


def test_template_is_the_official_checkpoint() -> None:
    official = json.loads((FIXTURES / "unisal_keys.json").read_text())
    assert {key: list(value.shape) for key, value in template().items()} == official
    assert list(template()) == list(official)


def test_domains_share_what_none_of_them_owns() -> None:
    weights = template()
    found = {domain: one_domain(weights, domain) for domain in DOMAINS}
    assert len({tuple(own) for own in found.values()}) == 1, "the same keys, which name no domain"
    owned = sum(len(own) for own in found.values()) - len(weights)
    shared = [key for key in found["dhf1k"] if key in weights]
    assert owned == 3 * len(shared)


def test_smoothing_by_phases_is_the_direct_one() -> None:
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(1, 1, SMOOTHING, SMOOTHING, generator=generator, dtype=torch.float64)
    for height, width in ((4, 6), (1, 1), (2, 9)):
        x = torch.randn(2, 1, height, width, generator=generator, dtype=torch.float64)
        large = functional.interpolate(x, scale_factor=8, mode="nearest")
        direct = functional.conv2d(functional.pad(large, [SMOOTHING // 2] * 4, mode="replicate"), kernel)[:, 0]
        torch.testing.assert_close(smooth(x, phase_kernels(kernel)), direct, rtol=0, atol=1e-11)


def test_gaussian_is_as_wide_as_its_sigma() -> None:
    parameters = torch.zeros(16, 2, 2)
    parameters[:, :, 0] = 0.5  # mean of both axes
    parameters[:, 1, 1] = torch.tensor(0.25).log()  # sigma across
    maps = gaussian_maps(parameters, 5, 9)
    assert maps.shape == (1, 16, 5, 9)
    torch.testing.assert_close(maps[0, 0, 2, [4, 2]], 6 * torch.tensor([0.0, -0.5]).exp())
    torch.testing.assert_close(maps[0, 0, [2, 0], 4], 6 * torch.tensor([0.0, -0.125]).exp())
    assert gaussian_maps(parameters, 1, 1).shape == (1, 16, 1, 1)

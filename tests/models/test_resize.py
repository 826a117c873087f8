"""Frames of another size keep what is flat, and what they are on average."""

from __future__ import annotations

import torch

from streamsal.models.resize import resized


def test_resize_keeps_flat_pictures_and_means() -> None:
    flat = torch.full((2, 30, 50, 3), 77, dtype=torch.uint8)
    assert torch.equal(resized(flat, 7, 11, antialias=True), torch.full((2, 7, 11, 3), 77, dtype=torch.uint8))
    noise = torch.randint(0, 256, (1, 64, 64, 3), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    halves = noise.double().view(1, 8, 8, 8, 8, 3).mean((2, 4))
    assert (resized(noise, 8, 8, antialias=True).double() - halves).abs().mean() < 10

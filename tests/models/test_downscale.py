from __future__ import annotations

import numpy as np
import pytest
import torch

from streamsal.models.downscale import Downscale


@pytest.mark.parametrize("height, width", [(1080, 1920), (608, 1080), (97, 161), (17, 33), (2, 2), (1, 1), (3, 2000)])
def test_equals_interpolation_with_antialias(height: int, width: int) -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8))
    sizes = [(80, 128), (18, 32)]
    planes = frames.permute(0, 3, 1, 2).float() / 255
    for size, found in zip(sizes, Downscale(height, width, sizes, device="cpu")(frames), strict=True):
        wanted = torch.nn.functional.interpolate(planes, size=size, mode="bilinear", antialias=True)
        torch.testing.assert_close(
            found, wanted, rtol=0, atol=5e-6
        )  # torch rounds its weights to float32 before it normalizes them


def test_frame_does_not_depend_on_its_neighbors_in_the_batch() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 90, 160, 3), dtype=np.uint8))
    downscale = Downscale(90, 160, [(80, 128)], device="cpu")
    (together,) = downscale(frames)
    for k in range(4):
        (alone,) = downscale(frames[k : k + 1])
        assert torch.equal(alone[0], together[k])

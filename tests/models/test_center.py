from __future__ import annotations

import numpy as np
import pytest
import torch

from streamsal import density
from streamsal.models import create_model
from streamsal.models.spec import Batch, Video


def log_density(height: int, width: int) -> torch.Tensor:
    model = create_model("center")
    state = model.begin(Video(name="clip", n_frames=3, frame_rate=25.0, height=height, width=width))
    frames = torch.zeros(3, height, width, 3, dtype=torch.uint8)
    batch = Batch(frames_nhwc=frames, frame=np.arange(3), pts_seconds=np.arange(3) / 25, present=slice(1, 3))
    result = model.step(batch, state)
    assert result.frame.tolist() == [1, 2]
    return result.values["log_density"]


def test_is_a_gaussian_of_a_quarter_of_the_frame() -> None:
    found = log_density(1080, 1920)
    assert found.shape == (2, 40, 64)
    v = (torch.arange(40) + 0.5) / 40 - 0.5
    u = (torch.arange(64) + 0.5) / 64 - 0.5
    wanted = torch.log_softmax((-(v[:, None] ** 2 + u**2) / (2 * 0.25**2)).flatten(), 0).view(40, 64)
    torch.testing.assert_close(found, wanted.expand(2, -1, -1), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(90, 160), (161, 97)])
def test_reads_back_exactly_at_full_size(size: tuple[int, int]) -> None:
    height, width = size
    readback = create_model("center").spec.outputs[0].readback
    found = density.full_size(log_density(height, width), height, width, readback)
    v = (torch.arange(height) + 0.5) / height - 0.5
    u = (torch.arange(width) + 0.5) / width - 0.5
    wanted = torch.log_softmax((-(v[:, None] ** 2 + u**2) / (2 * 0.25**2)).flatten(), 0).view(height, width)
    torch.testing.assert_close(found[0], wanted, rtol=0, atol=1e-5)

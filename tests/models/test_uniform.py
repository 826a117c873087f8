from __future__ import annotations

import math

import numpy as np
import torch

from streamsal import density
from streamsal.models import create_model
from streamsal.models.spec import Batch, Video


def test_every_place_is_equally_likely() -> None:
    model = create_model("uniform")
    state = model.begin(Video(name="clip", n_frames=2, frame_rate=25.0, height=90, width=160))
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 90, 160, 3), dtype=np.uint8))
    batch = Batch(frames_nhwc=frames, frame=np.arange(2), pts_seconds=np.arange(2) / 25, present=slice(0, 2))
    found = model.step(batch, state).values["log_density"]
    cells = found.shape[1] * found.shape[2]
    torch.testing.assert_close(found, torch.full_like(found, -math.log(cells)), rtol=0, atol=1e-6)

    full = density.full_size(found, 90, 160, model.spec.outputs[0].readback)
    torch.testing.assert_close(full, torch.full((2, 90, 160), -math.log(90 * 160)), rtol=0, atol=1e-5)

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from streamsal.models import create_model, sigmotion
from streamsal.models.spec import Batch, Video

FIXTURES = Path(__file__).parents[1] / "fixtures"


def clip() -> np.ndarray:
    with np.load(FIXTURES / "sigmotion_a.npz") as fixture:
        return fixture["frames"]


def trace(name: str, frames: np.ndarray) -> sigmotion.Trace:
    model = create_model(name)
    assert isinstance(model, sigmotion.Sigmotion)
    n, height, width = frames.shape[:3]
    state = model.begin(Video(name="clip", n_frames=n, frame_rate=25.0, height=height, width=width))
    numbers = np.arange(n)
    batch = Batch(frames_nhwc=torch.from_numpy(frames), frame=numbers, pts_seconds=numbers / 25, present=slice(0, n))
    return model.trace(batch, state.tables, state.memory)


def test_equals_sigmotion_where_a_scene_is_too_young_for_motion() -> None:
    signature, whole = trace("signature", clip()), trace("sigmotion", clip())
    young = [0, 1, 2, 12, 13, 14]  # the lag is 3 frames, the cut is at 12
    assert torch.equal(signature.raw[young], whole.raw[young])
    assert not torch.equal(signature.raw[3:12], whole.raw[3:12])


def test_motion_has_no_weight() -> None:
    found = trace("signature", clip())
    assert found.weights[:, 3].eq(0).all()
    assert found.weights[:, :3].gt(0).any()


def test_looks_back_over_the_filter_and_the_cut_only() -> None:
    window = create_model("signature").spec.window(25.0)
    assert (window.past, window.future) == (10, 0)

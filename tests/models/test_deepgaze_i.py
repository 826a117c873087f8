"""DeepGaze I against numbers measured on the authors' program, with stand-in weights in both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from streamsal import predict
from streamsal.models import deepgaze_i
from streamsal.models.spec import Model

FIXTURES = Path(__file__).parents[1] / "fixtures/deepgaze"


@pytest.fixture(scope="module")
def model() -> Model:
    return deepgaze_i.build("synthetic", device="cpu", center_bias="gaussian")


def test_log_density_is_the_originals(model: Model) -> None:
    measured = np.load(FIXTURES / "i_195x262_b2.npz")
    for image, center_bias, wanted in zip(
        measured["image"], measured["centerbias"], measured["log_density"], strict=True
    ):
        frames = image.transpose(1, 2, 0)[None]
        found = predict(frames, model=model, device="cpu", batch_size=1, center_bias=center_bias)[0]
        assert abs(found - wanted).max() <= 2e-5
        assert abs(np.exp(found.astype(np.float64)).sum() - 1) <= 1e-5


def test_template_is_the_official_checkpoints() -> None:
    official = json.loads((FIXTURES / "keys_i.json").read_text())
    assert {key: list(value.shape) for key, value in deepgaze_i.template().items()} == official
    assert list(deepgaze_i.template()) == list(official)


def test_a_small_frame_does_not_need_the_classifier(model: Model) -> None:
    found = predict(np.zeros((1, 64, 64, 3), np.uint8), model=model, device="cpu", batch_size=1)
    assert found.shape == (1, 64, 64)
    assert np.isfinite(found).all()

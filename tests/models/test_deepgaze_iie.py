"""DeepGaze IIE against numbers measured on the authors' program, with stand-in weights in both."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streamsal import predict
from streamsal.density import full_size
from streamsal.models import deepgaze_iie
from streamsal.models.deepgaze_iie import DeepGazeIIE, State
from streamsal.models.spec import Batch, Video

FIXTURES = Path(__file__).parents[1] / "fixtures/deepgaze"
TOLERANCE = 2e-5  # nats
PICTURES = ["iie_96x128", "iie_101x135_b2", "iie_100x244_index_trap"]


def begun(model: DeepGazeIIE, size: tuple[int, ...], center_bias: np.ndarray | None = None) -> State:
    height, width = size
    video = Video(name="picture", n_frames=1, frame_rate=25, height=height, width=width, center_bias=center_bias)
    return model.begin(video)


def half_resolution(image_chw: np.ndarray) -> Tensor:
    """(1, ceil(H / 2), ceil(W / 2), 3) as the engine hands it over."""
    return torch.from_numpy(np.ascontiguousarray(image_chw.transpose(1, 2, 0)[None, ::2, ::2]))


@pytest.mark.parametrize("name", PICTURES)
def test_log_density_is_the_originals(iie: DeepGazeIIE, name: str) -> None:
    measured = np.load(FIXTURES / f"{name}.npz")
    for image, center_bias, wanted in zip(
        measured["image"], measured["centerbias"], measured["log_density"][:, 0], strict=True
    ):
        frames = image.transpose(1, 2, 0)[None]
        found = predict(frames, model=iie, device="cpu", batch_size=1, center_bias=center_bias)[0]
        assert abs(found - wanted).max() <= TOLERANCE
        assert abs(np.exp(found.astype(np.float64)).sum() - 1) <= 1e-5


def test_every_step_on_the_way_is_the_originals(iie: DeepGazeIIE) -> None:
    measured = np.load(FIXTURES / "iie_96x128.npz")
    state = begun(iie, (96, 128), measured["centerbias"][0])
    with torch.no_grad():
        for number, branch in enumerate(iie.branches):
            taps = branch.taps(half_resolution(measured["image"][0]), torch.float32)
            grid, mixture = iie.make_tables(branch, taps, state)
            saliency = branch.saliency(taps, grid)
            priority = branch.priority(taps, grid)
            found = saliency[0, :, 0].unflatten(-1, grid.size)[:, grid.rows][:, :, grid.columns]
            assert abs(found.numpy() - measured[f"saliency{number}"][0]).max() <= 1e-4
            found = priority[0][:, grid.rows][:, :, grid.columns]
            assert abs(found.numpy() - measured[f"priority{number}"][0]).max() <= 1e-4
            backbone = full_size((mixture.density_sum(priority) / 30).log(), 96, 128, iie.spec.outputs[0].readback)
            assert abs(backbone[0].numpy() - measured["per_backbone"][0, number]).max() <= TOLERANCE


def test_template_is_the_official_checkpoints() -> None:
    official = json.loads((FIXTURES / "keys_iie.json").read_text())
    assert {key: list(value.shape) for key, value in deepgaze_iie.template().items()} == official
    assert list(deepgaze_iie.template()) == list(official)


def test_only_every_second_pixel_counts_and_an_odd_last_one_never(iie: DeepGazeIIE) -> None:
    rng = np.random.default_rng(0)
    frames = rng.integers(0, 256, (1, 101, 135, 3), np.uint8)
    changed = frames.copy()
    changed[:, 1::2] = 0
    changed[:, :, 1::2] = 255
    changed[:, 100] = changed[:, :, 134] = 7
    one, two = (predict(f, model=iie, device="cpu", batch_size=1) for f in (frames, changed))
    np.testing.assert_array_equal(one, two)
    assert one.shape == (1, 101, 135)


def test_a_frame_is_a_function_of_its_slot_and_picture_alone(iie: DeepGazeIIE) -> None:
    rng = np.random.default_rng(0)
    frames = torch.from_numpy(rng.integers(0, 256, (3, 48, 64, 3), np.uint8))
    other = frames.clone()
    other[[0, 2]] = 0
    state = begun(iie, (96, 128))

    def middle(frames_nhwc: Tensor) -> Tensor:
        batch = Batch(
            frames_nhwc=frames_nhwc, frame=np.array([-1, 5, -1]), pts_seconds=np.zeros(3), present=slice(1, 2)
        )
        with torch.no_grad():
            result = iie.step(batch, state)
        assert result.frame.tolist() == [5]
        return result.values["log_density"]

    assert middle(frames).equal(middle(other))


def test_black_and_white_frames_are_finite(iie: DeepGazeIIE) -> None:
    frames = np.zeros((2, 96, 128, 3), np.uint8)
    frames[1] = 255
    found = predict(frames, model=iie, device="cpu", batch_size=2)
    assert np.isfinite(found).all()


@pytest.mark.parametrize(("dtype", "bits"), [("bf16", 1e-3), ("fp16", 1e-4)])
def test_lower_precision_costs_few_bits_and_reaches_the_backbones(iie: DeepGazeIIE, dtype: str, bits: float) -> None:
    frames = np.load(FIXTURES / "iie_96x128.npz")["image"].transpose(0, 2, 3, 1)
    exact = predict(frames, model=iie, device="cpu", batch_size=1)[0].astype(np.float64)
    lower = predict(frames, model=iie, device="cpu", batch_size=1, dtype=dtype)[0]
    divergence = (np.exp(exact) * (exact - lower)).sum() / np.log(2)
    assert 0 < divergence < bits
    assert abs(exact - lower).max() > 1e-5


def test_constants_hold_the_center_bias_on_the_stored_grid(iie: DeepGazeIIE) -> None:
    bias = np.random.default_rng(0).normal(size=(101, 135)).astype(np.float32)
    found = iie.constants(begun(iie, (101, 135), bias))["center_bias"]
    assert found.shape == (50, 67)
    difference = found - bias[:100:2, :134:2]
    np.testing.assert_allclose(difference, difference[0, 0], atol=1e-5)

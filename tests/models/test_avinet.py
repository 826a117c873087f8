"""AViNet: the numbers of its authors' program, and which frames and which sound a map rests on."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from streamsal.audio import Moments, Recording, Sound
from streamsal.engine import predict
from streamsal.errors import BadInput, UsageError
from streamsal.models import avinet
from streamsal.models.avinet import AViNet
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
TOLERANCE = 1e-5  # of the range of the values
RATE = 22050
inputs = runpy.run_path(str(FIXTURES / "inputs.py"))


@cache
def weights(height: int, width: int) -> dict[str, Tensor]:
    return synthetic.state_dict(avinet.template(height, width), adjust={})


@cache
def small() -> AViNet:
    model = avinet.build(weights(32, 64), device="cpu", height=32, width=64)
    assert isinstance(model, AViNet)
    return model


def test_maps_match_the_fixture_with_sound_and_in_silence() -> None:
    model = avinet.build(weights(224, 384), device="cpu")
    assert isinstance(model, AViNet)
    frames, sound = inputs["frames"](1, 32, 224, 384), torch.from_numpy(inputs["audio"](2, 70560))
    with torch.no_grad(), np.load(FIXTURES / "avinet_s0.npz") as z:
        base1 = model.network.base1(torch.float32)(model.network.normalized(torch.from_numpy(frames), torch.float32))
        found = {
            "out": model.logits(base1, sound, torch.float32).sigmoid()[::2, ::2],
            "out_silent": model.logits(base1, model.silence, torch.float32).sigmoid()[::2, ::2],
        }
        for key, value in found.items():
            np.testing.assert_allclose(value, z[key], rtol=0, atol=TOLERANCE * np.ptp(z[key]), err_msg=key)


def test_template_lists_the_entries_of_the_official_checkpoint() -> None:
    wanted = json.loads((FIXTURES / "avinet_keys.json").read_text())
    assert [(key, list(value.shape)) for key, value in avinet.template().items()] == list(wanted.items())


def test_a_map_rests_on_31_frames_before_and_their_sound() -> None:
    n, fps, model = 36, 25.0, small()
    frames = inputs["frames"](3, n, 32, 64)
    sound = np.random.default_rng(3).uniform(-1, 1, int(n / fps * RATE)).astype(np.float32)
    found = predict(frames, model=model, fps=fps, batch_size=5, device="cpu", native=True, sound=(sound, RATE))
    moments = Moments(start=np.arange(n) / fps, duration=np.full(n, 1 / fps), frame_rate=fps, told=n)
    assert model.spec.audio is not None and model.spec.audio.samples == 70560
    hearing = Sound(Recording(samples=sound, rate_hz=RATE), moments, model.spec.audio)
    for t in (0, 7, 31, 35):
        clip = torch.from_numpy(frames[np.arange(t - 31, t + 1).clip(0)])
        with torch.no_grad():
            wanted = model.of_clip(clip, torch.from_numpy(hearing.row(t))).sigmoid()
        np.testing.assert_allclose(found[t], wanted, rtol=0, atol=1e-4, err_msg=str(t))  # sums in another order


def test_maps_are_the_same_bits_in_any_batches_and_silence_is_heard() -> None:
    frames, model = inputs["frames"](3, 6, 32, 64), small()
    sound = (np.sin(np.arange(RATE)).astype(np.float32), RATE)
    heard = predict(frames, model=model, device="cpu", batch_size=6, sound=sound)
    np.testing.assert_array_equal(predict(frames, model=model, device="cpu", batch_size=1, sound=sound), heard)
    assert (predict(frames, model=model, device="cpu") != heard).any((1, 2)).all()


def test_the_official_weights_are_for_one_size() -> None:
    with pytest.raises(BadInput, match=r"bilinear\.weight is \(8, 1, 3\), not \(336, 42, 3\)"):
        avinet.build(weights(32, 64), device="cpu")
    with pytest.raises(UsageError, match="multiples of 32 pixels, not at 224 x 380"):
        avinet.spec(width=380)

"""sigmotion: the numbers of the fixtures, and the laws it was designed to."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal import density
from streamsal.models import create_model, sigmotion
from streamsal.models.spec import Batch, Video

FIXTURES = Path(__file__).parents[1] / "fixtures"
BOTH_FIXTURES = pytest.mark.parametrize("name", ["sigmotion_a", "sigmotion_b_nocut"])
TOLERANCE = 2e-4  # nats; the peak of the phase correlation is the only discrete step


def traced(
    frames: np.ndarray, frame_rate: float = 25.0, *, center_bias: bool = True, motion: bool = True
) -> sigmotion.Trace:
    """All intermediate values of a clip, as one batch."""
    model = create_model("sigmotion" if motion else "signature", center_bias=center_bias)
    assert isinstance(model, sigmotion.Sigmotion)
    n, height, width = frames.shape[:3]
    state = model.begin(Video(name="clip", n_frames=n, frame_rate=frame_rate, height=height, width=width))
    return model.trace(batch_of(frames, frame_rate), state.tables, state.memory)


def batch_of(frames: np.ndarray, frame_rate: float = 25.0) -> Batch:
    n = len(frames)
    numbers = np.arange(n)
    return Batch(
        frames_nhwc=torch.from_numpy(frames), frame=numbers, pts_seconds=numbers / frame_rate, present=slice(0, n)
    )


def textured(n: int, height: int = 72, width: int = 128, *, seed: int = 0, pan: int = 0) -> np.ndarray:
    """(n, height, width, 3) uint8: smooth colored blobs seen by a camera that pans `pan` pixels per frame."""
    rng = np.random.default_rng(seed)
    coarse = torch.from_numpy(rng.random((1, 3, 12, 40))).float()
    wide = torch.nn.functional.interpolate(coarse, size=(height, width + pan * n), mode="bicubic")
    scene = (wide[0].permute(1, 2, 0).clamp(0, 1) * 255).to(torch.uint8).numpy()
    return np.stack([scene[:, pan * k : pan * k + width] for k in range(n)])


def total_variation(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a.exp() - b.exp()).abs().sum() / 2)


@BOTH_FIXTURES
def test_every_step_matches_the_fixture(name: str) -> None:
    with np.load(FIXTURES / f"{name}.npz") as wanted:
        found = traced(wanted["frames"], float(wanted["fps"]))
        assert found.ages == wanted["age"].tolist()
        np.testing.assert_allclose(found.weights, wanted["weights"], atol=1e-5)
        np.testing.assert_allclose(found.motion[-3:], wanted["motion_last3"], atol=1e-6)
        np.testing.assert_allclose(found.raw[-4:], wanted["raw_last4"], atol=5e-5)
        np.testing.assert_allclose(found.smoothed[-4:], wanted["smoothed_last4"], atol=5e-5)
        np.testing.assert_allclose(found.log_density, wanted["log_density"], atol=TOLERANCE)


@BOTH_FIXTURES
def test_map_without_prior_matches_the_fixture(name: str) -> None:
    with np.load(FIXTURES / f"{name}.npz") as wanted:
        found = traced(wanted["frames"], float(wanted["fps"]), center_bias=False)
        np.testing.assert_allclose(found.log_density[-1], wanted["log_density_no_prior"], atol=TOLERANCE)


@BOTH_FIXTURES
def test_map_read_back_at_another_size_matches_the_fixture(name: str) -> None:
    readback = create_model("sigmotion").spec.outputs[0].readback
    with np.load(FIXTURES / f"{name}.npz") as wanted:
        native = traced(wanted["frames"], float(wanted["fps"])).log_density[-1:]
        height, width = wanted["log_density_resized_last"].shape[1:]
        found = density.full_size(native, height, width, readback)
        np.testing.assert_allclose(found, wanted["log_density_resized_last"], atol=TOLERANCE)


@pytest.mark.parametrize(
    ("frame_rate", "past"), [(25, 16), (30, 17), (24.999999999999996, 16), (10, 7), (60, 32), (1, 4)]
)
def test_history_is_filter_two_lags_and_two_frames(frame_rate: float, past: int) -> None:
    assert sigmotion.spec().window(frame_rate).past == past


@pytest.mark.parametrize(
    ("size", "work"),
    [((1080, 1920), (80, 128)), ((1920, 1080), (128, 80)), ((2, 2), (128, 128)), ((10, 1000), (32, 128))],
)
def test_work_size_is_in_sixteens(size: tuple[int, int], work: tuple[int, int]) -> None:
    assert sigmotion.work_size(*size) == work


def test_history_is_not_longer_than_needed() -> None:
    frames = textured(40)
    frames[25:, 20:40, 30:60] = 255 - frames[25:, 20:40, 30:60]
    for k in range(40):
        frames[k, 50:60, 2 * k : 2 * k + 12] = (255, 30, 30)
    past, whole = sigmotion.spec().window(25.0).past, traced(frames).log_density
    for frame in (22, 30):
        enough = traced(frames[frame - past : frame + 1]).log_density[-1]
        short = traced(frames[frame - past + 6 : frame + 1]).log_density[-1]
        assert total_variation(enough, whole[frame]) < 1e-5
        assert total_variation(short, whole[frame]) > 1e-4


def test_black_video_gives_the_center_prior() -> None:
    black = traced(np.zeros((5, 72, 128, 3), np.uint8))
    center = create_model("center")
    prior = center.begin(Video(name="clip", n_frames=5, frame_rate=25.0, height=72, width=128))
    np.testing.assert_allclose(black.log_density, prior.expand(5, -1, -1), atol=2e-6)


def test_static_video_gives_a_constant_map_free_of_motion() -> None:
    still = np.repeat(textured(1), 20, axis=0)
    found = traced(still).log_density
    np.testing.assert_allclose(found, found[:1].expand_as(found), atol=5e-6)
    np.testing.assert_allclose(found, traced(still, motion=False).log_density, atol=5e-6)
    assert float(found.max() - found.min()) > 1, "the picture is salient somewhere"


def test_pan_of_the_camera_is_no_motion() -> None:
    pan = traced(textured(20, pan=3))
    assert float(pan.motion[10:, :, 20:-20].mean()) < 0.001  # at the border something new comes into view
    moving = textured(20)
    for k in range(20):
        moving[k, 30:50, 4 * k : 4 * k + 20] = 255
    assert float(traced(moving).motion[10:, :, 20:-20].mean()) > 0.005


def test_moving_thing_attracts_more_than_in_a_still() -> None:
    frames = np.repeat(textured(1), 20, axis=0)
    for k in range(20):
        frames[k, 50:60, 2 * k + 10 : 2 * k + 22] = 128
    place = slice(24, 32), slice(18, 32)  # native cells the thing crosses in the end

    def mass(trace: sigmotion.Trace) -> float:
        return float(trace.log_density[-1].exp()[place].sum())

    assert mass(traced(frames)) > 1.15 * mass(traced(frames, motion=False))


def test_cut_changes_the_map_at_once_and_leaves_no_ghost() -> None:
    first, second = textured(15, seed=1), textured(15, seed=2)
    found = traced(np.concatenate([np.repeat(first[:1], 15, axis=0), np.repeat(second[:1], 15, axis=0)]))
    assert found.ages == [*range(15), *range(15)]
    changes = [total_variation(a, b) for a, b in pairwise(found.log_density)]
    assert changes[14] > 0.1
    assert max(changes[:14] + changes[15:]) < 0.01
    alone = traced(np.repeat(second[:1], 15, axis=0))
    np.testing.assert_allclose(found.log_density[15:], alone.log_density, atol=1e-5)


def test_noise_and_fade_move_little_mass() -> None:
    still = np.repeat(textured(1), 20, axis=0)
    plain = traced(still).log_density[-1]
    noise = np.random.default_rng(3).normal(0, 0.02 * 255, still.shape)
    noisy = np.clip(still + noise, 0, 255).astype(np.uint8)
    assert total_variation(traced(noisy).log_density[-1], plain) < 0.1
    faded = (still * np.linspace(1, 0.1, 20)[:, None, None, None]).astype(np.uint8)
    assert total_variation(traced(faded).log_density[-1], plain) < 0.2


def test_step_that_fails_late_leaves_the_state_as_it_was() -> None:
    model = create_model("sigmotion")
    state = model.begin(Video(name="clip", n_frames=8, frame_rate=25.0, height=72, width=128))
    frames = textured(8, pan=2)
    model.step(batch_of(frames[:4]), state)
    tables, memory = state.tables, state.memory
    state.tables = replace(tables, prior_hw=torch.zeros(3, 3))  # wrong for the last operation of all
    with pytest.raises(RuntimeError):
        model.step(batch_of(frames[4:]), state)
    assert state.memory is memory


def test_autocast_of_the_caller_changes_nothing() -> None:
    model, frames = create_model("sigmotion"), textured(12, pan=2)
    video = Video(name="clip", n_frames=12, frame_rate=25.0, height=72, width=128)
    plain = model.step(batch_of(frames), model.begin(video)).values["log_density"]
    with torch.autocast("cpu", torch.bfloat16):
        cast = model.step(batch_of(frames), model.begin(video)).values["log_density"]
    assert cast.dtype == torch.float32
    assert torch.equal(cast, plain)


@pytest.mark.needs_cuda
@BOTH_FIXTURES
def test_cuda_matches_the_fixture(name: str) -> None:
    with np.load(FIXTURES / f"{name}.npz") as wanted:
        model = create_model("sigmotion", device="cuda")
        n, height, width = wanted["frames"].shape[:3]
        video = Video(name="clip", n_frames=n, frame_rate=float(wanted["fps"]), height=height, width=width)
        batch = batch_of(wanted["frames"])
        batch = replace(batch, frames_nhwc=batch.frames_nhwc.cuda())
        found = model.step(batch, model.begin(video)).values["log_density"].cpu()
        np.testing.assert_allclose(found, wanted["log_density"], atol=TOLERANCE)

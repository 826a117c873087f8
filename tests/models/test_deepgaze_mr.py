"""DeepGaze MR: the numbers of the authors' program, and that no number depends on how a video was divided."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal import density
from streamsal.devices import inference
from streamsal.engine import predict
from streamsal.errors import UsageError
from streamsal.models import deepgaze_mr
from streamsal.models.spec import Batch, Video
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "deepgaze"
BOTH_FIXTURES = pytest.mark.parametrize("name", ["mr_64x96_t20", "mr_75x131_t18_cb48x80"])
EVERY_HISTORY = pytest.mark.parametrize("history", deepgaze_mr.HISTORIES)
TOLERANCE = 2e-5  # nats, of a log density
SLOTS = 4

Values = dict[str, np.ndarray]


@pytest.fixture(scope="module")
def weights() -> dict[str, torch.Tensor]:
    return synthetic.state_dict(deepgaze_mr.template())


@pytest.fixture(scope="module")
def model(weights: dict[str, torch.Tensor]) -> deepgaze_mr.DeepGazeMR:
    return make(weights)


def make(weights: object, **options: object) -> deepgaze_mr.DeepGazeMR:
    return deepgaze_mr.build(weights, device="cpu", **{"center_bias": "gaussian", **options})


def blobs(n: int, height: int = 32, width: int = 32) -> np.ndarray:
    """(n, height, width, 3) uint8: smooth colors that change from frame to frame."""
    rng = np.random.default_rng(0)
    coarse = torch.from_numpy(rng.random((n, 3, 5, 7))).float()
    smooth = torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return (smooth.permute(0, 2, 3, 1).clamp(0, 1) * 255).to(torch.uint8).numpy()


def video_of(frames: np.ndarray, center_bias: np.ndarray | None = None) -> Video:
    n, height, width = frames.shape[:3]
    return Video(name="clip", n_frames=n, frame_rate=25.0, height=height, width=width, center_bias=center_bias)


def predicted(
    model: deepgaze_mr.DeepGazeMR,
    frames: np.ndarray,
    numbers: Iterable[int],
    *,
    slots: int = SLOTS,
    first_rank: int | None = None,
    center_bias: np.ndarray | None = None,
) -> dict[int, Values]:
    """Values by frame of one shard that sees the frames `numbers`. Slots without a frame of its own hold noise."""
    noise = np.random.default_rng(1).integers(0, 256, (slots, *frames.shape[1:]), dtype=np.uint8)
    state = model.begin(video_of(frames, center_bias))
    waiting, found = list(numbers), {}
    rank = waiting[0] if first_rank is None else first_rank
    while waiting:
        present = slice(rank % slots, min(slots, rank % slots + len(waiting)))
        taken = [waiting.pop(0) for _ in range(present.stop - present.start)]
        rank += len(taken)
        pictures, frame = torch.from_numpy(noise.copy()), np.full(slots, -1, np.int64)
        pictures[present], frame[present] = torch.from_numpy(frames[taken]), taken
        batch = Batch(frames_nhwc=pictures, frame=frame, pts_seconds=frame / 25, present=present)
        with torch.no_grad():
            result = model.step(batch, state)
        assert result.frame.tolist() == taken
        for row, number in enumerate(taken):
            found[number] = {name: value[row].numpy().copy() for name, value in result.values.items()}
    return found


def log_density(model: deepgaze_mr.DeepGazeMR, video: Video, values: Sequence[Values]) -> np.ndarray:
    """(n, H, W) as it is read back from a file, which holds the outputs and the constants."""
    constants = {name: torch.from_numpy(value) for name, value in model.constants(model.begin(video)).items()}
    priority = torch.from_numpy(np.stack([value["priority"] for value in values]))
    readback = model.spec.outputs[0].readback
    assert readback is not None
    return density.full_size(priority, video.height, video.width, readback, constants).numpy()


def assert_same_bits(found: Values, wanted: Values, what: str) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=f"{what}, {name}")


@BOTH_FIXTURES
def test_log_density_matches_the_fixture(model: deepgaze_mr.DeepGazeMR, name: str) -> None:
    with np.load(FIXTURES / f"{name}.npz") as wanted:
        frames = np.ascontiguousarray(wanted["video"].transpose(0, 2, 3, 1))
        center_bias = np.log(wanted["center_bias"])
        clip = partial(predict, model=model, device="cpu", dtype="fp32", center_bias=center_bias)
        found = clip(frames)[15:]
        np.testing.assert_allclose(found, wanted["log_density"], rtol=0, atol=TOLERANCE)
        np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)
        priority = clip(frames[:16], native=True)[15]
        np.testing.assert_allclose(priority, wanted["priority15"], rtol=0, atol=TOLERANCE)


@BOTH_FIXTURES
def test_backbone_matches_the_fixture(model: deepgaze_mr.DeepGazeMR, name: str) -> None:
    with np.load(FIXTURES / f"{name}.npz") as wanted:
        frame = torch.from_numpy(np.ascontiguousarray(wanted["video"].transpose(0, 2, 3, 1)[15:16]))
        with torch.no_grad():
            features = model.features(frame, torch.float32)[0].numpy()
        mean, std = wanted["features15_mean_std"]
        np.testing.assert_allclose(features[:8], wanted["features15_first8"], rtol=0, atol=1e-4 * std)
        np.testing.assert_allclose([features.mean(), features.std()], [mean, std], rtol=1e-5)


def test_template_lists_the_entries_of_the_official_checkpoint() -> None:
    wanted = json.loads((FIXTURES / "keys_mr.json").read_text())
    template = deepgaze_mr.template()
    assert [(key, list(value.shape)) for key, value in template.items()] == list(wanted.items())
    for axis in "xy":
        assert template[f"finalizer.gauss_{axis}.grid"].flatten().tolist() == list(range(-48, 49))


def test_official_file_keeps_the_weights_one_level_down(
    tmp_path: Path, weights: dict[str, torch.Tensor], model: deepgaze_mr.DeepGazeMR
) -> None:
    torch.save({"epoch": 3, "model_state_dict": weights}, tmp_path / "official.pt")
    frames = blobs(2)
    for frame, wanted in predicted(model, frames, range(2)).items():
        assert_same_bits(predicted(make(tmp_path / "official.pt"), frames, range(2))[frame], wanted, f"frame {frame}")


@pytest.mark.parametrize(("history", "frames_at_once"), [("grow", 1), ("grow", 3), ("none", 100), ("repeat", 100)])
def test_shards_with_warm_up_equal_the_whole(
    weights: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch, history: str, frames_at_once: int
) -> None:
    monkeypatch.setattr(deepgaze_mr, "PIXELS_AT_ONCE", frames_at_once * 32 * 32)
    model, frames = make(weights, history=history), blobs(31)
    past = model.spec.window(25.0).past
    whole = predicted(model, frames, range(31))
    for owned in (range(10), range(10, 21), range(21, 31)):
        part = predicted(model, frames, range(max(0, owned.start - past), owned.stop))
        for frame in owned:
            assert_same_bits(part[frame], whole[frame], f"frame {frame} of {owned}")


def test_one_warm_up_frame_less_would_show(model: deepgaze_mr.DeepGazeMR) -> None:
    frames = blobs(24)
    whole, short = predicted(model, frames, range(24)), predicted(model, frames, range(6, 24))
    assert np.abs(short[20]["priority"] - whole[20]["priority"]).max() > 1e-3
    assert_same_bits(short[21], whole[21], "frame 21, whose window is complete")


def test_batch_size_changes_only_the_last_places(model: deepgaze_mr.DeepGazeMR) -> None:
    frames = blobs(18)
    one = predicted(model, frames, range(18), slots=1)
    for slots in (3, 16):
        many = predicted(model, frames, range(18), slots=slots)
        for frame in range(18):
            for name in one[frame]:
                np.testing.assert_allclose(many[frame][name], one[frame][name], rtol=0, atol=TOLERANCE)


def test_priority_is_the_readout_of_the_mean_features(
    model: deepgaze_mr.DeepGazeMR, weights: dict[str, torch.Tensor]
) -> None:
    frames = blobs(19, 32, 48)
    with torch.no_grad():
        features = model.features(torch.from_numpy(frames), torch.float32).numpy().astype(np.float64)
    w = {name: value.numpy().astype(np.float64) for name, value in weights.items() if name.startswith("readout")}
    values = predicted(model, frames, range(19))
    for frame, value in values.items():
        x = features[max(0, frame - 15) : frame + 1].mean(0)
        for layer in (1, 2, 3):
            x = np.einsum("oc,chw->ohw", w[f"readout.conv{layer}.weight"][:, :, 0, 0], x)
            x += w[f"readout.conv{layer}.bias"][:, None, None]
            if layer < 3:
                x = (x - x.mean()) / np.sqrt(x.var() + 1e-5)
                x = x * w[f"readout.norm{layer}.weight"][:, None, None] + w[f"readout.norm{layer}.bias"][:, None, None]
                x = np.logaddexp(x, 0)
        np.testing.assert_allclose(value["priority"], x[0], rtol=0, atol=TOLERANCE)
        assert value["history_len"] == min(16, frame + 1)


def test_log_normalizer_makes_single_points_readable(model: deepgaze_mr.DeepGazeMR) -> None:
    frames = blobs(17, 47, 70)
    video = video_of(frames)
    value = predicted(model, frames, range(17))[16]
    constants = model.constants(model.begin(video))
    assert all(array.dtype == np.float32 for array in constants.values())
    rows, columns, prior = (constants[name].astype(np.float64) for name in model.spec.constants)
    unnormalized = rows @ value["priority"].astype(np.float64) @ columns.T + prior
    assert abs(np.logaddexp.reduce(unnormalized, axis=None) - value["log_normalizer"]) < 5e-6
    point = rows[40] @ value["priority"] @ columns[3] + prior[40, 3] - value["log_normalizer"]
    assert abs(point - log_density(model, video, [value])[0, 40, 3]) < TOLERANCE


def test_history_none_leaves_the_first_frames_without_a_map(
    weights: dict[str, torch.Tensor], model: deepgaze_mr.DeepGazeMR
) -> None:
    frames = blobs(18)
    grown, none = predicted(model, frames, range(18)), predicted(make(weights, history="none"), frames, range(18))
    for frame in range(15):
        assert np.isnan(none[frame]["priority"]).all()
        assert np.isnan(none[frame]["log_normalizer"])
        assert none[frame]["history_len"] == frame + 1
    for frame in range(15, 18):
        assert_same_bits(none[frame], grown[frame], f"frame {frame}")


def test_history_repeat_is_a_video_that_begins_with_a_still(
    weights: dict[str, torch.Tensor], model: deepgaze_mr.DeepGazeMR
) -> None:
    frames = blobs(18)
    still = np.concatenate([np.repeat(frames[:1], 15, axis=0), frames])
    repeated = predicted(make(weights, history="repeat"), frames, range(18))
    wanted = predicted(model, still, range(33))
    for frame in range(18):
        np.testing.assert_allclose(repeated[frame]["priority"], wanted[frame + 15]["priority"], rtol=0, atol=TOLERANCE)
        assert repeated[frame]["history_len"] == min(16, frame + 1)
    assert np.abs(repeated[4]["priority"] - predicted(model, frames, range(5))[4]["priority"]).max() > 1e-3


@EVERY_HISTORY
def test_jump_in_frame_numbers_ends_the_state(weights: dict[str, torch.Tensor], history: str) -> None:
    model, frames = make(weights, history=history), blobs(28)
    jumped = predicted(model, frames, [*range(2, 8), *range(10, 28)], first_rank=0)
    for run, rank in ((range(2, 8), 0), (range(10, 28), 6)):
        alone = predicted(model, frames, run, first_rank=rank)
        for age, frame in enumerate(run):
            assert_same_bits(jumped[frame], alone[frame], f"frame {frame}")
            assert jumped[frame]["history_len"] == min(16, age + 1)


def test_failed_step_leaves_the_state_as_it_was(model: deepgaze_mr.DeepGazeMR, monkeypatch: pytest.MonkeyPatch) -> None:
    frames = blobs(8)
    numbers = np.arange(4)
    first, second = (
        Batch(
            frames_nhwc=torch.from_numpy(frames[k : k + 4]), frame=numbers + k, pts_seconds=numbers, present=slice(0, 4)
        )
        for k in (0, 4)
    )
    state = model.begin(video_of(frames))
    with torch.no_grad():
        model.step(first, state)
        before = state.memory
        with monkeypatch.context() as broken:
            broken.setattr(deepgaze_mr.Tables, "log_normalizer", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                model.step(second, state)
        assert state.memory is before


def test_black_video_has_a_density(model: deepgaze_mr.DeepGazeMR) -> None:
    frames = np.zeros((20, 64, 64, 3), np.uint8)
    values = list(predicted(model, frames, range(20)).values())
    found = log_density(model, video_of(frames), values)
    np.testing.assert_allclose(np.exp(found.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_allclose(found, found[:1].repeat(20, axis=0), rtol=0, atol=TOLERANCE)


def test_center_bias_of_zero_probability_is_finite_and_stays_zero(model: deepgaze_mr.DeepGazeMR) -> None:
    frames = blobs(1, 48, 64)
    left_half = np.full((6, 8), -np.inf, np.float32)
    left_half[:, :4] = 2.5  # not normalized: a constant makes no difference
    video = video_of(frames, left_half)
    assert all(np.isfinite(array).all() for array in model.constants(model.begin(video)).values())
    value = predicted(model, frames, [0], center_bias=left_half)[0]
    mass = np.exp(log_density(model, video, [value])[0].astype(np.float64))
    assert abs(mass[:, :32].sum() - 1) < 1e-5
    assert mass[:, 32:].max() == 0


def test_usual_center_bias_is_the_probability_in_the_official_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, weights: dict[str, torch.Tensor]
) -> None:
    probability = torch.rand(9, 16, generator=torch.Generator().manual_seed(0))
    probability[0, 0] = 0
    torch.save(probability / probability.sum(), tmp_path / "center-bias-ledov.pt")
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path))
    model = deepgaze_mr.build(weights, device="cpu")
    prior = model.constants(model.begin(video_of(blobs(1, 90, 160))))["prior"]
    found = np.exp(prior.astype(np.float64) / model.center_bias_weight)
    wanted = np.kron(probability / probability.sum(), np.full((10, 10), 0.01))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-8)


def test_center_bias_is_resized_as_torch_resizes_to_the_nearest() -> None:
    template = np.log(np.random.default_rng(3).random((8, 20)).astype(np.float32))
    found = deepgaze_mr.nearest(template, 122, 305)
    wanted = torch.nn.functional.interpolate(torch.from_numpy(template)[None, None], (122, 305))[0, 0]
    wanted = torch.log_softmax(wanted.double().flatten(), 0).view(122, 305)
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-12)


def test_backbone_computes_in_the_precision_of_the_autocast_around_it(model: deepgaze_mr.DeepGazeMR) -> None:
    frames = blobs(20)
    wanted = predicted(model, frames, range(20))
    with inference(torch.device("cpu"), torch.bfloat16, autocast=True):
        found = predicted(model, frames, range(20))
    differences = [np.abs(found[frame]["priority"] - wanted[frame]["priority"]).max() for frame in range(20)]
    assert 0 < max(differences) < 0.1
    assert all(value.dtype == np.float32 for value in found[19].values())
    assert_same_bits(predicted(model, frames, range(20))[19], wanted[19], "float32 again")


def test_frame_too_large_for_float16_leaves_the_others_their_bits(weights: dict[str, torch.Tensor]) -> None:
    first = "features.vgg.features.0.weight"
    model = make({**weights, first: 3e4 * weights[first]})
    gray = np.tile(np.array([124, 116, 104], np.uint8), (2, 32, 32, 1))  # what the backbone sees as almost nothing
    gray[:, ::2, :, 0] += 2
    with_white = gray.copy()
    with_white[1] = 255

    def rows(frames: np.ndarray, n_present: int) -> torch.Tensor:
        numbers = np.arange(2)
        present = slice(0, n_present)
        batch = Batch(frames_nhwc=torch.from_numpy(frames), frame=numbers, pts_seconds=numbers / 25, present=present)
        with inference(torch.device("cpu"), torch.float16, autocast=True):
            return model.rows(batch)

    with torch.no_grad():
        assert not model.features(torch.from_numpy(with_white), torch.float16)[1].isfinite().any()
    assert rows(with_white, 2).isfinite().all()
    torch.testing.assert_close(rows(with_white, 2)[0], rows(gray, 1)[0], rtol=0, atol=0)


def test_unknown_history_is_refused_before_anything_is_loaded() -> None:
    with pytest.raises(UsageError, match=r"mirror.*grow"):
        deepgaze_mr.spec(history="mirror")
    with pytest.raises(UsageError, match="mirror"):
        deepgaze_mr.build(None, device="cpu", history="mirror")

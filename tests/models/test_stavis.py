"""STAViS: the numbers of its authors' program, which frames and which sound a map rests on, and their files."""

from __future__ import annotations

import json
import runpy
from fractions import Fraction
from functools import cache
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torch import Tensor

from streamsal import stream
from streamsal.audio import Moments, Recording, Sound
from streamsal.engine import predict
from streamsal.errors import BadInput, UsageError
from streamsal.models import stavis
from streamsal.models.stavis import Stavis
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
TOLERANCE = 1e-5  # of the largest logit
SMALL = {"height": 32, "width": 32}
RATE = 22050
inputs = runpy.run_path(str(FIXTURES / "inputs.py"))


@cache
def weights() -> dict[str, Tensor]:
    return synthetic.state_dict(stavis.template(), adjust={})


@cache
def built(**options: str) -> Stavis:
    model = stavis.build(weights(), device="cpu", **SMALL, **options)
    assert isinstance(model, Stavis)
    return model


@pytest.mark.parametrize(("hears", "key"), [(True, "audiovisual_logit"), (False, "visual_logit")])
def test_logits_match_the_fixture(hears: bool, key: str) -> None:
    network = stavis.Network(weights(), hears=hears)
    with np.load(FIXTURES / "stavis_s0.npz") as z:
        wanted = z[key]
    for one, (frames_seed, sound_seed) in enumerate([(1, 3), (2, 4)]):
        frames, sound = inputs["frames"](frames_seed, 16, 112, 112), inputs["audio"](sound_seed, 35280)
        clip = torch.from_numpy(frames).permute(3, 0, 1, 2).float() - torch.tensor(stavis.MEAN)[:, None, None, None]
        with torch.no_grad():
            # Divided by 64: stand-in weights make larger numbers infinite in the authors' softmax.
            found = network(clip / 64, torch.from_numpy(sound)).numpy()
        np.testing.assert_allclose(found, wanted[one], rtol=0, atol=TOLERANCE * np.abs(wanted).max())


def test_template_lists_the_entries_of_the_official_checkpoint() -> None:
    wanted = json.loads((FIXTURES / "stavis_keys.json").read_text())
    assert [(key, list(value.shape)) for key, value in stavis.template().items()] == list(wanted.items())


def test_attention_of_any_score_is_finite() -> None:
    """Exponentials alone, as the authors have them, end at 88."""
    side = stavis.Side({**weights(), "score_dsn.0.score_dsn.bias": torch.tensor([1e4])}, "score_dsn.0", 2)
    with torch.no_grad():
        weighed, _ = side(torch.rand(1, 64, 2, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert weighed.isfinite().all()


def test_official_files_are_read_in_their_wrapper_and_with_or_without_idle_sound() -> None:
    def official(entries: dict[str, Tensor]) -> dict[str, object]:
        return {"arch": "resnet-50", "epoch": 60, "state_dict": {f"module.{key}": entries[key] for key in entries}}

    sees = {key: value for key, value in weights().items() if not key.startswith(stavis.OF_SOUND)}
    for entries in (weights(), sees):
        stavis.build(official(entries), device="cpu", variant="stavis_visual")  # type: ignore[arg-type]
    stavis.build(official(weights()), device="cpu")  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="a checkpoint of stavis or stavis_visual; 50 of 341 tensors missing"):
        stavis.build(official(sees), device="cpu")  # type: ignore[arg-type]


def test_small_frames_are_those_of_pillow() -> None:
    image = pytest.importorskip("PIL.Image")
    frame = inputs["frames"](5, 1, 540, 720)[0]
    pillow = image.fromarray(frame).resize((320, 240), image.BICUBIC).resize((112, 112), image.BILINEAR)
    ours = stavis.small(torch.from_numpy(frame), (112, 112)).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - np.asarray(pillow)).max() <= 1


def mapped(model: Stavis, frames: np.ndarray, sound_n: np.ndarray) -> np.ndarray:
    """The network's map of one clip, frame by frame as the model has them."""
    clip = torch.stack([stavis.small(torch.from_numpy(frame), (32, 32)) for frame in frames], 1).float()
    with torch.no_grad():
        return model.network(clip - model.mean, torch.from_numpy(sound_n)).sigmoid().numpy()


def test_a_map_rests_on_8_frames_before_7_behind_and_their_sound() -> None:
    n, fps = 20, 25.0
    frames = inputs["frames"](3, n, 48, 64)
    sound = np.random.default_rng(3).uniform(-1, 1, int(n / fps * 44_100)).astype(np.float32)
    model = built()
    found = predict(frames, model=model, fps=fps, batch_size=3, device="cpu", native=True, sound=(sound, 44_100))
    moments = Moments(start=np.arange(n) / fps, duration=np.full(n, 1 / fps), frame_rate=fps, told=n)
    assert model.spec.audio is not None
    hearing = Sound(Recording(samples=sound, rate_hz=44_100), moments, model.spec.audio)
    for t in (0, 5, 9, 12, 13, 19):
        around = np.arange(t - 8, t + 8).clip(0, n - 1)
        np.testing.assert_array_equal(found[t], mapped(model, frames[around], hearing.row(t)), err_msg=str(t))


def test_sound_off_is_silence_and_sound_matters() -> None:
    frames = inputs["frames"](3, 10, 48, 64)
    sound = (np.sin(np.arange(RATE)).astype(np.float32), RATE)
    silent = predict(frames, model=built(), device="cpu")
    np.testing.assert_array_equal(predict(frames, model=built(audio="off"), device="cpu"), silent)
    assert (predict(frames, model=built(), device="cpu", sound=sound) != silent).any((1, 2)).all()
    for deaf in (built(audio="off"), built(variant="stavis_visual")):
        with pytest.raises(ValueError, match="does not hear"):
            predict(frames, model=deaf, device="cpu", sound=sound)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 frames at 25 per second with noise in stereo."""
    path = tmp_path_factory.mktemp("films") / "noise.mp4"
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=25, options={"threads": "1", "g": "12"})
        video.width, video.height = 64, 48
        track = container.add_stream("aac", rate=44_100, layout="stereo")
        for frame in inputs["frames"](4, 24, 48, 64):
            container.mux(video.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        for first in range(0, 44_100, 1024):
            noise = np.random.default_rng(first).uniform(-0.5, 0.5, (2, 1024)).astype(np.float32)
            piece = av.AudioFrame.from_ndarray(noise, format="fltp", layout="stereo")
            piece.sample_rate, piece.pts, piece.time_base = 44_100, first, Fraction(1, 44_100)
            container.mux(track.encode(piece))
        container.mux([*video.encode(None), *track.encode(None)])
    return path


def maps_of(film: Path, borders: list[int], **options: int) -> dict[int, np.ndarray]:
    found = {}
    for start, stop in pairwise(borders):
        for chunk in stream(film, model=built(), start=start, stop=stop, device="cpu", **options):  # type: ignore[arg-type]
            found.update(zip(chunk.frame.tolist(), chunk.values["saliency"].numpy(), strict=True))
    return found


def test_shards_equal_the_unsplit_run_in_every_bit(film: Path) -> None:
    whole = maps_of(film, [0, 24], batch_size=8)
    assert list(whole) == list(range(24))
    for n_shards in (2, 7):
        parts = maps_of(film, np.linspace(0, 24, n_shards + 1).astype(int).tolist(), batch_size=8)
        for frame in whole:
            np.testing.assert_array_equal(parts[frame], whole[frame], err_msg=f"frame {frame} of {n_shards} shards")


def test_only_wanted_frames_cost_a_clip(film: Path) -> None:
    computed: list[int] = []
    hook = built().network.register_forward_hook(lambda *_: computed.append(1))
    try:
        found = maps_of(film, [3, 23], every=8)
    finally:
        hook.remove()
    assert list(found) == [3, 11, 19] and len(computed) == 3
    whole = maps_of(film, [0, 24])
    for frame, saliency in found.items():
        np.testing.assert_array_equal(saliency, whole[frame])


def test_wrong_sizes_are_named() -> None:
    with pytest.raises(UsageError, match="multiples of 16 pixels, not at 112 x 100"):
        stavis.spec(width=100)

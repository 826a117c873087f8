"""A clip slid over a video: what is computed once is what every clip would compute, however the video is divided."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch

from streamsal.devices import inference
from streamsal.errors import UsageError
from streamsal.models import sliding_clip, tased, vinet
from streamsal.models.sliding_clip import SlidingClip
from streamsal.models.spec import Batch, Video
from streamsal.weights import synthetic

CPU = torch.device("cpu")
SMALL = {"height": 32, "width": 32}
SLOTS = 4
ROUNDING = 2e-5  # of maps whose values are in 0 ... 1
EVERY_MODEL = pytest.mark.parametrize("name", ["vinet_s", "vinet_16", "vinet_8", "tased"])

Maps = dict[int, np.ndarray]


@cache
def model(name: str, first: str = "replicate") -> SlidingClip:
    if name == "tased":
        return tased.build("synthetic", device=CPU, first=first, **SMALL)
    if name == "vinet_s":
        return vinet.build("synthetic", device=CPU, variant=name, first=first, **SMALL)
    return vinet.build("synthetic", device=CPU, frames=int(name.removeprefix("vinet_")), first=first, **SMALL)


@cache
def film(n: int) -> np.ndarray:
    """(n, 40, 48, 3) uint8: smooth colors that change from frame to frame."""
    coarse = torch.from_numpy(np.random.default_rng(0).random((n, 3, 5, 6))).float()
    smooth = torch.nn.functional.interpolate(coarse, size=(40, 48), mode="bicubic")
    return (smooth.permute(0, 2, 3, 1).clamp(0, 1) * 255).to(torch.uint8).numpy()


def maps(
    model: SlidingClip,
    frames: np.ndarray,
    numbers: Iterable[int],
    *,
    wanted: Iterable[int] | None = None,
    slots: int = SLOTS,
    dtype: torch.dtype = torch.float32,
) -> Maps:
    """Maps by frame of one shard that sees the frames `numbers`, a batch at a time; other slots hold noise."""
    kept, waiting, found = set(numbers if wanted is None else wanted), list(numbers), {}
    noise = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (slots, *frames.shape[1:]), dtype=np.uint8))
    state = model.begin(Video(name="film", n_frames=len(frames), frame_rate=25, height=40, width=48))
    rank = waiting[0]

    def keep(result: sliding_clip.Result | None) -> bool:
        if result is None:
            return False
        found.update(zip(result.frame.tolist(), result.values["saliency"].numpy(), strict=True))
        return True

    with inference(CPU, dtype, autocast=True):
        while waiting:
            present = slice(rank % slots, min(slots, rank % slots + len(waiting)))
            taken = [waiting.pop(0) for _ in range(present.stop - present.start)]
            pictures, frame = noise.clone(), np.full(slots, -1, np.int64)
            pictures[present], frame[present] = torch.from_numpy(frames[taken]), taken
            mask = np.isin(frame, list(kept))
            keep(
                model.step(
                    Batch(frames_nhwc=pictures, frame=frame, pts_seconds=frame / 25, present=present, wanted=mask),
                    state,
                )
            )
            pictures.zero_()
            rank += len(taken)
        while keep(model.end(state)):
            pass
    assert list(found) == sorted(found)
    return found


def whole(model: SlidingClip, frames: np.ndarray, members: Iterable[int]) -> np.ndarray:
    """The map of one clip, nothing of which is known from others."""
    pictures = [model.network.prepared(torch.from_numpy(frames[[member]])) for member in members]
    with torch.no_grad():
        return model.of_pictures(pictures, torch.float32).numpy()


@EVERY_MODEL
def test_what_is_shared_by_clips_is_what_each_would_compute(name: str) -> None:
    sliding, n = model(name), model(name).frames + 6
    checked = [0, 1, 4, sliding.past - 1, sliding.past, n - 1]
    found = maps(sliding, film(n), range(n), wanted=checked)
    assert list(found) == sorted(set(checked))
    for frame, saliency in found.items():
        members = np.maximum(np.arange(frame - sliding.past, frame + 1), 0)
        np.testing.assert_allclose(saliency, whole(sliding, film(n), members), rtol=0, atol=ROUNDING)


@pytest.mark.parametrize(("name", "first"), [("vinet_s", "replicate"), ("vinet_s", "reverse"), ("tased", "replicate")])
def test_shards_with_warm_up_equal_the_whole_to_the_bit(name: str, first: str) -> None:
    sliding, n = model(name, first), 70
    window = sliding.spec.window(25)
    watched = {0, 1, 16, 17, 18, 30, 31, 34, 35, 60, 69}
    unsplit = maps(sliding, film(n), range(n), wanted=watched)
    assert set(unsplit) == watched
    for start, stop in pairwise([0, 17, 35, n]):
        seen = range(max(0, start - window.past), min(n, stop + window.future))
        found = maps(sliding, film(n), seen, wanted=watched & set(range(start, stop)))
        assert set(found) == watched & set(range(start, stop))
        for frame, saliency in found.items():
            np.testing.assert_array_equal(saliency, unsplit[frame], err_msg=f"frame {frame} of [{start}, {stop})")


def test_any_batch_gives_the_same_bits() -> None:
    sliding, n = model("vinet_s"), 6
    one = maps(sliding, film(n), range(n), slots=1)
    for slots in (2, 5):
        for frame, saliency in maps(sliding, film(n), range(n), slots=slots).items():
            np.testing.assert_array_equal(saliency, one[frame])


@pytest.mark.parametrize("first", sliding_clip.FIRSTS)
def test_a_jump_in_frame_numbers_begins_anew(first: str) -> None:
    sliding = model("vinet_16", first)
    jumped = maps(sliding, film(60), [3, 4, 5, 40, 41])
    assert list(jumped) == [3, 4, 5, 40, 41]
    for run in ([3, 4, 5], [40, 41]):
        alone = maps(sliding, film(60), run)
        for frame in run:
            np.testing.assert_array_equal(jumped[frame], alone[frame])


def test_first_frames_may_rest_on_the_clip_that_begins_with_them_shown_backwards() -> None:
    sliding, n = model("vinet_16", "reverse"), 24
    assert (sliding.spec.window(25).past, sliding.spec.window(25).future) == (15, 15)
    checked = [0, 1, 8, 9, 14, 15, 23]
    found = maps(sliding, film(n), range(n), wanted=checked)
    assert list(found) == checked
    for frame in (0, 1, 8):  # the last with 15 frames behind it
        np.testing.assert_array_equal(found[frame], whole(sliding, film(n), range(frame + 15, frame - 1, -1)))
    replicated = maps(model("vinet_16"), film(n), range(n), wanted=checked)
    for frame in (9, 14):  # the video is too short for them
        np.testing.assert_allclose(found[frame], replicated[frame], rtol=0, atol=ROUNDING)
    for frame in (15, 23):
        np.testing.assert_array_equal(found[frame], replicated[frame])


@pytest.mark.parametrize("first", sliding_clip.FIRSTS)
def test_a_video_of_one_frame_has_a_map(first: str) -> None:
    sliding = model("tased", first)
    (saliency,) = maps(sliding, film(1), [0]).values()
    np.testing.assert_allclose(saliency, whole(sliding, film(1), [0] * 32), rtol=0, atol=ROUNDING)
    assert saliency.dtype == np.float32
    assert saliency.shape == (32, 32)


def test_a_batch_without_a_wanted_frame_gives_no_maps() -> None:
    assert maps(model("vinet_s"), film(3), range(3), wanted=[]) == {}


@pytest.mark.parametrize(("name", "first"), [("vinet_s", "replicate"), ("vinet_16", "reverse"), ("tased", "replicate")])
def test_half_precision_changes_only_the_last_places(name: str, first: str) -> None:
    sliding = model(name, first)
    exact, half = (maps(sliding, film(3), range(3), dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    for frame in exact:
        assert 0 < abs(half[frame] - exact[frame]).max() < 0.02


def test_a_clip_that_float16_cannot_hold_is_computed_in_float32() -> None:
    weights = synthetic.state_dict(vinet.template(16), adjust={})
    weights["backbone.base1.0.bn_s.weight"] *= 1e6
    weights["backbone.base1.0.bn_t.running_var"] *= 1e12
    sliding = vinet.build(weights, device=CPU, frames=16, **SMALL)
    assert isinstance(sliding, SlidingClip)
    found = maps(sliding, film(2), range(2), dtype=torch.float16)
    for frame, saliency in found.items():
        members = np.maximum(np.arange(frame - 15, frame + 1), 0)
        np.testing.assert_array_equal(saliency, whole(sliding, film(2), members))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"first": "mirror"}, r"'mirror'.*replicate, reverse"),
        ({"height": 200}, r"multiples of 32 pixels, not at 200 x 384"),
        ({"width": 0}, r"not at 224 x 0"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], said: str) -> None:
    for spec in (vinet.spec, tased.spec):
        with pytest.raises(UsageError, match=said):
            spec(**options)

"""ViNet-A: the numbers of its authors' program, and exactly the frames around each that it is to look at."""

from __future__ import annotations

import hashlib
import json
import runpy
from collections.abc import Iterable
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.devices import inference
from streamsal.errors import UsageError
from streamsal.models import spec_of, vinet_a
from streamsal.models.spec import Batch, Result, Video
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
TOLERANCE = 5e-5  # of the largest logit; the sum of many hundreds
SLOTS = 4
frames_of = runpy.run_path(str(FIXTURES / "inputs.py"))["frames"]


@cache
def weights() -> dict[str, torch.Tensor]:
    return synthetic.state_dict(vinet_a.template(), adjust={})


def test_logits_match_the_fixture() -> None:
    frames = frames_of(1, 32, 256, 456)
    with np.load(FIXTURES / "vinet_a_s0.npz") as wanted, torch.no_grad():
        assert hashlib.sha256(frames.tobytes()).hexdigest() == str(wanted["frames_sha256"])
        found = vinet_a.Network(weights())(vinet_a.normalized(torch.from_numpy(frames))).numpy()
        logits = wanted["logit"]
    np.testing.assert_allclose(found[::2, ::2], logits, rtol=0, atol=TOLERANCE * abs(logits).max())


def test_template_lists_the_entries_of_the_official_checkpoint() -> None:
    wanted = json.loads((FIXTURES / "vinet_a_keys.json").read_text())
    assert [(key, list(value.shape)) for key, value in vinet_a.template().items()] == list(wanted.items())


def test_a_half_of_the_time_becomes_a_channel_as_where_memory_is_read_in_another_shape() -> None:
    x = torch.arange(32 * 3 * 2 * 5).view(32, 3, 2, 5).mul(7).remainder(1009).float()
    view = x.transpose(0, 1).contiguous().view(6, 16, 2, 5)
    wanted = torch.nn.functional.adaptive_max_pool3d(view[None], (8, 2, 5))[0].transpose(0, 1)
    assert torch.equal(vinet_a.halves_as_channels(x), wanted)


class Telling(torch.nn.Module):
    """Instead of a network: logits (2, 16) whose numbers are those drawn into the 32 frames that it is shown."""

    def forward(self, frames_tchw: torch.Tensor) -> torch.Tensor:
        numbers = frames_tchw.mean((1, 2, 3)) * (255 * vinet_a.GRAY_STD) + 255 * vinet_a.GRAY_MEAN
        return numbers.view(2, 16) / 64


def shown(seen: Iterable[int], n: int, wanted: Iterable[int]) -> dict[int, list[int]]:
    """By frame, the numbers of the frames that its map rests on, where a shard sees the frames `seen` of n."""
    model = vinet_a.ViNetA(spec_of("vinet_a"), Telling(), height=8, width=8, device=torch.device("cpu"))  # type: ignore
    state, waiting, found = (
        model.begin(Video(name="film", n_frames=n, frame_rate=25, height=8, width=8)),
        list(seen),
        {},
    )

    def keep(result: Result) -> None:
        for frame, saliency in zip(result.frame.tolist(), result.values["saliency"], strict=True):
            found[frame] = (saliency.logit() * 64).round().long().flatten().tolist()

    while waiting:
        taken, waiting = np.array(waiting[:SLOTS]), waiting[SLOTS:]
        pictures = torch.from_numpy(taken.astype(np.uint8)).view(-1, 1, 1, 1).expand(-1, 8, 8, 3)
        mask = np.isin(taken, list(wanted))
        keep(
            model.step(
                Batch(
                    frames_nhwc=pictures,
                    frame=taken,
                    pts_seconds=taken / 25,
                    present=slice(0, len(taken)),
                    wanted=mask,
                ),
                state,
            )
        )
    while (last := model.end(state)) is not None:
        keep(last)
    assert list(found) == sorted(found)
    return found


@pytest.mark.parametrize("n_shards", [1, 2, 7])
def test_a_map_rests_on_every_second_frame_around_it_however_the_film_is_divided(n_shards: int) -> None:
    n, window = 150, spec_of("vinet_a").window(25)
    found: dict[int, list[int]] = {}
    for start, stop in pairwise(n * shard // n_shards for shard in range(n_shards + 1)):
        seen = range(max(0, start - window.past), min(n, stop + window.future))
        found |= shown(seen, n, range(start, stop))
    assert list(found) == list(range(n))
    for frame, numbers in found.items():
        assert numbers == np.clip(np.arange(frame - 31, frame + 32, 2), 0, n - 1).tolist()


def test_a_jump_ends_what_is_around_a_frame() -> None:
    found = shown([3, 4, 50], 60, [3, 4, 50])
    assert found[4] == [3] * 16 + [4] * 16
    assert found[50] == [50] * 32


def test_half_precision_changes_only_the_last_places() -> None:
    model = vinet_a.build(weights(), device="cpu", height=64, width=64)
    batch = Batch(
        frames_nhwc=torch.from_numpy(frames_of(1, 1, 64, 64)),
        frame=np.array([0]),
        pts_seconds=np.array([0.0]),
        present=slice(0, 1),
    )
    maps = []
    for dtype in (torch.float32, torch.bfloat16):
        state = model.begin(Video(name="film", n_frames=1, frame_rate=25, height=64, width=64))
        with inference(torch.device("cpu"), dtype, autocast=True):
            assert len(model.step(batch, state).frame) == 0
            maps.append(model.end(state).values["saliency"][0])
    assert 0 < (maps[1] - maps[0]).abs().mean() < 0.05


def test_sizes_are_multiples_of_eight() -> None:
    with pytest.raises(UsageError, match="multiples of 8 pixels, not at 250 x 456"):
        spec_of("vinet_a", height=250)

"""UNISAL: the numbers of its authors' program, and that no number depends on how a video was divided."""

from __future__ import annotations

import pickle
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
import torch

from streamsal import density
from streamsal.engine import predict
from streamsal.errors import UsageError
from streamsal.models import unisal
from streamsal.models.spec import Batch, Readback, Result, Video, Window
from streamsal.models.unisal import SEGMENT, WARM_UP, Memory, Unisal, network_size, plan_visits

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
TOLERANCE = 1e-3  # nats; float32 rounds both programs by 1.3e-4 in these networks, whose densities span 20 nats
SMALL = {"height": 64, "width": 96}
SLOTS = 4

frames_of = run_path(str(FIXTURES / "inputs.py"))["frames"]


@cache
def made(**options: str | int) -> Unisal:
    model = unisal.build("synthetic", device="cpu", **options)  # type: ignore[arg-type]
    assert isinstance(model, Unisal)
    return model


def video_of(clip: np.ndarray, frame_rate: float) -> Video:
    n, height, width = clip.shape[:3]
    return Video(name="clip", n_frames=n, frame_rate=frame_rate, height=height, width=width)


def run(
    model: Unisal,
    clip: np.ndarray,
    frames: Sequence[int],
    *,
    wanted: Collection[int] | None = None,
    frame_rate: float = 25.0,
    state: unisal.State | None = None,
) -> dict[int, np.ndarray]:
    """Log densities by frame, of the wanted among consecutive ones."""
    state = state or model.begin(video_of(clip, frame_rate))
    found: dict[int, np.ndarray] = {}
    for batch in batches(clip, frames, wanted, frame_rate):
        with torch.no_grad():
            found |= by_frame(model.step(batch, state))
    return found


def by_frame(result: Result) -> dict[int, np.ndarray]:
    return dict(zip(result.frame.tolist(), result.values["log_density"].numpy(), strict=True))


def batches(
    clip: np.ndarray, frames: Sequence[int], wanted: Collection[int] | None, frame_rate: float
) -> Iterator[Batch]:
    """As the engine makes them of consecutive frames; slots without a frame hold noise."""
    noise = np.random.default_rng(1).integers(0, 256, (SLOTS, *clip.shape[1:]), dtype=np.uint8)
    for base in range(frames[0] // SLOTS * SLOTS, frames[-1] + 1, SLOTS):
        numbers = np.arange(base, base + SLOTS)
        present = slice(max(frames[0], base) - base, min(frames[-1] + 1, base + SLOTS) - base)
        pictures = noise.copy()
        pictures[present] = clip[numbers[present]]
        yield Batch(
            frames_nhwc=torch.from_numpy(pictures),
            frame=numbers,
            pts_seconds=numbers / frame_rate,
            present=present,
            wanted=np.array([wanted is None or number in wanted for number in numbers.tolist()]),
        )


def assert_same(found: dict[int, np.ndarray], wanted: dict[int, np.ndarray], frames: Sequence[int]) -> None:
    for frame in frames:
        np.testing.assert_array_equal(found[frame], wanted[frame], err_msg=f"frame {frame}")


@pytest.mark.parametrize("domain", ["dhf1k", "hollywood", "ucfsports", "salicon"])
def test_every_domain_computes_the_authors_numbers(domain: str) -> None:
    dynamic, others = (np.load(FIXTURES / f"unisal_{name}_s0.npz") for name in ("dynamic", "domains"))
    suffix = {"dhf1k": "DHF1K", "hollywood": "Hollywood", "ucfsports": "UCFSports", "salicon": "SALICON"}[domain]
    frames = dynamic["frames"]

    def computed(mode: str, clip: np.ndarray) -> np.ndarray:
        model = made(domain=domain, mode=mode, height=128, width=192, state="relay", step="auto")
        maps = predict(clip, model=model, device="cpu", dtype="fp32", fps=6, native=True)  # one chain
        np.testing.assert_allclose(np.exp(maps.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)
        return maps

    maps = computed("dynamic", frames)
    if domain == "dhf1k":
        np.testing.assert_allclose(maps, dynamic["dynamic_DHF1K"], rtol=0, atol=TOLERANCE)
        smaller = density.full_size(torch.from_numpy(maps[-1:]), 90, 160, Readback())[0].numpy()
        np.testing.assert_allclose(smaller, others["dynamic_target_DHF1K"], rtol=0, atol=TOLERANCE)
    else:
        np.testing.assert_allclose(maps[-1], others[f"dynamic_{suffix}"], rtol=0, atol=TOLERANCE)
    static = computed("static", frames[:1])
    np.testing.assert_allclose(static[0], others[f"static_{suffix}"], rtol=0, atol=TOLERANCE)


def test_memory_is_that_of_the_authors_program() -> None:
    fixture = np.load(FIXTURES / "unisal_dynamic_s0.npz")
    model = made(height=128, width=192, state="relay", step="auto")
    state = model.begin(video_of(fixture["frames"], 6.0))
    run(model, fixture["frames"], range(6), frame_rate=6.0, state=state)
    np.testing.assert_allclose(model.save(state)["hidden"], fixture["hidden_DHF1K"], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("policy", ["anchored", "shot", "relay"])
def test_whole_clip_gives_the_authors_densities_at_its_own_size(policy: str) -> None:
    fixture = np.load(FIXTURES / "unisal_pipeline_dhf1k_s0.npz")
    maps = predict(fixture["frames"], model=made(state=policy), device="cpu", dtype="fp32", batch_size=SLOTS)
    np.testing.assert_allclose(maps[:, ::2, ::2], fixture["log_density"], rtol=0, atol=TOLERANCE)
    shown = np.exp(maps - maps.max((1, 2), keepdims=True))
    assert np.abs((255 * shown).astype(np.uint8).astype(int) - fixture["png"]).max() <= 1


@pytest.mark.parametrize(
    ("domain", "frame", "wanted"),
    [
        ("dhf1k", (360, 640), (224, 384)),
        ("hollywood", (360, 640), (224, 416)),
        ("ucfsports", (480, 720), (256, 384)),
        ("salicon", (360, 640), (256, 416)),
        ("dhf1k", (1080, 1920), (256, 416)),
        ("dhf1k", (720, 1280), (256, 416)),
        ("dhf1k", (480, 640), (288, 384)),
        ("dhf1k", (240, 320), (288, 384)),
        ("dhf1k", (1920, 1080), (416, 256)),
        ("dhf1k", (1000, 1000), (320, 320)),
        ("dhf1k", (800, 1920), (256, 416)),
    ],
)
def test_network_sees_the_size_that_upstream_gives_it(
    domain: unisal.Domain, frame: tuple[int, int], wanted: tuple[int, int]
) -> None:
    assert network_size(domain, *frame) == wanted


@pytest.mark.parametrize(("frame_rate", "chains"), [(10, 2), (25, 4), (30, 5), (59.94, 10), (1, 1), (2, 1)])
def test_automatic_step_takes_six_a_second(frame_rate: float, chains: int) -> None:
    spec = unisal.spec(step="auto")
    assert spec.window(frame_rate) == Window(past=(SEGMENT + WARM_UP - 1) * chains)
    clip = np.zeros((1, 32, 48, 3), np.uint8)
    assert len(made(step="auto").begin(video_of(clip, frame_rate)).memory.chains) == chains


CUT, CHAINS, RATE = 151, 2, 12.0
CLIP = frames_of(3, 2 * SEGMENT * CHAINS + 20, 24, 36)
CLIP[CUT:] = 255 - CLIP[CUT:]


@pytest.mark.parametrize(("policy", "shards"), [("anchored", 5), ("shot", 4)])
def test_shards_compute_the_same_bits(policy: str, shards: int) -> None:
    model = made(state=policy, step="auto", **SMALL)
    window = model.spec.window(RATE)
    n, whole = len(CLIP), whole_of(policy)
    for shard in range(shards):
        start, stop = n * shard // shards, n * (shard + 1) // shards
        part = run(
            model,
            CLIP,
            range(max(0, start - window.past), stop),
            wanted=range(start, stop),
            frame_rate=RATE,
        )
        assert sorted(part) == list(range(start, stop))
        assert_same(part, whole, range(start, stop))


def test_slots_computed_together_are_as_those_computed_one_by_one() -> None:
    """As on a GPU: all slots of a batch at once, the wanted and the others."""
    model = unisal.build("synthetic", device="cpu", step="auto", height=64, width=96)
    assert isinstance(model, Unisal)
    model.one_by_one = False
    window = model.spec.window(RATE)
    whole = whole_of("anchored")
    for start, stop in ((0, 9), (CHAINS * SEGMENT - 3, CHAINS * SEGMENT + 2)):
        part = run(model, CLIP, range(max(0, start - window.past), stop), wanted=range(start, stop), frame_rate=RATE)
        assert sorted(part) == list(range(start, stop))
        for frame in part:
            np.testing.assert_allclose(part[frame], whole[frame], rtol=0, atol=TOLERANCE)


@cache
def whole_of(policy: str) -> dict[int, np.ndarray]:
    return run(made(state=policy, step="auto", **SMALL), CLIP, range(len(CLIP)), frame_rate=RATE)


def test_window_has_no_frame_too_many() -> None:
    model, window = made(state="anchored", step="auto", **SMALL), made(step="auto").spec.window(RATE)
    last = 2 * SEGMENT * CHAINS - 1  # of the segment: the one that reaches back furthest
    seen = range(last - window.past + 1, last + 1)
    short = run(model, CLIP, seen, wanted=[last], frame_rate=RATE)
    assert not np.array_equal(short[last], whole_of("anchored")[last])


def test_segment_rests_on_twelve_steps_before_it() -> None:
    first, begin = CHAINS * (SEGMENT - WARM_UP), CHAINS * SEGMENT
    unbroken = run(made(state="relay", step="auto", **SMALL), CLIP, range(first, begin + 9), frame_rate=RATE)
    assert_same(whole_of("anchored"), unbroken, range(begin, begin + 9))
    before = begin - 1  # still of the segment before, which knows more
    assert not np.array_equal(whole_of("anchored")[before], unbroken[before])


def test_nothing_is_encoded_that_no_wanted_frame_rests_on() -> None:
    start = CHAINS * (2 * SEGMENT + 30)
    numbers = np.arange(start - CHAINS * (SEGMENT + WARM_UP - 1), start + 1)
    batch = Batch(
        frames_nhwc=torch.zeros(len(numbers), 1, 1, 3, dtype=torch.uint8),
        frame=numbers,
        pts_seconds=numbers / RATE,
        present=slice(0, len(numbers)),
        wanted=numbers >= start,
    )
    nothing = Memory(frame=None, chains=(unisal.Chain(),) * CHAINS)
    visits, _ = plan_visits(batch, nothing, set(), anchored=True)
    visited = [int(numbers[visit.slot]) for visit in visits]
    assert visited == list(range(CHAINS * (2 * SEGMENT - WARM_UP), start + 1))
    assert [visit.chain for visit in visits] == [frame % CHAINS for frame in visited]


@pytest.mark.parametrize("cut", [1, 2, 7, 30])
def test_relay_goes_on_to_the_bit_where_a_state_was_saved(cut: int) -> None:
    model = made(state="relay", step="auto", **SMALL)
    assert model.spec.window(RATE) == Window()
    assert model.spec.state == "relay"
    whole = run(model, CLIP, range(40), frame_rate=RATE)
    before = model.begin(video_of(CLIP, RATE))
    run(model, CLIP, range(cut), wanted=[], frame_rate=RATE, state=before)
    after = model.begin(video_of(CLIP, RATE))
    model.load(after, model.save(before))
    assert_same(run(model, CLIP, range(cut, 40), frame_rate=RATE, state=after), whole, range(cut, 40))


@pytest.mark.parametrize("together", [False, True])
def test_frames_can_be_looked_at_before_the_state_is_there(together: bool) -> None:
    model = unisal.build("synthetic", device="cpu", state="relay", step="auto", height=64, width=96)
    assert isinstance(model, Unisal)
    model.one_by_one = not together
    whole = run(model, CLIP, range(24), frame_rate=RATE)
    before, after = (model.begin(video_of(CLIP, RATE)) for _ in range(2))
    run(model, CLIP, range(9), wanted=[], frame_rate=RATE, state=before)
    wanted = range(11, 24, 2)
    with torch.no_grad():
        seen = [
            (replace(batch, frames_nhwc=torch.empty(0)), pickle.dumps(model.look(batch, after)))
            for batch in batches(CLIP, range(9, 24), wanted, RATE)
        ]
        assert max(len(looked) for _, looked in seen) < SLOTS * 250_000, "views of each other would be larger"
        model.load(after, model.save(before))
        known = [(batch, pickle.dumps(model.remember(batch, pickle.loads(looked), after))) for batch, looked in seen]
        found = {}
        for batch, remembered in known:
            found |= by_frame(model.answer(batch, pickle.loads(remembered), after))
    assert list(found) == list(wanted)
    assert_same(found, whole, wanted)


def test_state_of_the_first_shard_is_that_of_no_frame() -> None:
    model = made(state="relay", step="auto", **SMALL)
    state, fresh = (model.begin(video_of(CLIP, RATE)) for _ in range(2))
    model.load(state, model.save(fresh))
    assert_same(run(model, CLIP, range(8), state=state), run(model, CLIP, range(8), frame_rate=RATE), range(8))


def test_state_of_another_frame_rate_is_refused() -> None:
    model = made(state="relay", step="auto", **SMALL)
    saved = model.save(model.begin(video_of(CLIP, RATE)))
    with pytest.raises(ValueError, match=r"\(2, 256, 2, 3\) is not one of \(5, 256, 2, 3\)"):
        model.load(model.begin(video_of(CLIP, 30.0)), saved)


def test_every_chain_begins_anew_at_a_cut() -> None:
    found = whole_of("shot")
    behind = run(made(state="relay", step="auto", **SMALL), CLIP[CUT:], range(40), frame_rate=RATE)
    for frame in range(40):
        np.testing.assert_allclose(found[CUT + frame], behind[frame], rtol=0, atol=TOLERANCE)
    assert np.abs(found[CUT] - whole_of("anchored")[CUT]).max() > 0.1
    assert_same(found, whole_of("anchored"), range(CUT))


def test_jump_in_frame_numbers_ends_the_state() -> None:
    for policy in ("anchored", "shot", "relay"):
        model = made(state=policy, step="auto", **SMALL)
        state = model.begin(video_of(CLIP, RATE))
        jumped = [run(model, CLIP, frames, frame_rate=RATE, state=state) for frames in (range(3, 8), range(11, 14))]
        for found, frames in zip(jumped, (range(3, 8), range(11, 14)), strict=True):
            assert_same(found, run(model, CLIP, frames, frame_rate=RATE), frames)


@pytest.mark.parametrize("size", [(40, 24), (2, 2), (1, 90)], ids=str)
def test_one_frame_of_any_shape_gives_a_density(size: tuple[int, int]) -> None:
    for mode in ("dynamic", "static"):
        maps = predict(frames_of(4, 1, *size), model=made(mode=mode), device="cpu", dtype="fp32")
        assert maps.shape == (1, *size)
        np.testing.assert_allclose(np.exp(maps.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)


def test_pictures_have_no_memory() -> None:
    assert unisal.spec(domain="salicon").state == "none"
    assert unisal.spec(domain="salicon").window(25.0) == Window()
    assert unisal.spec(domain="salicon", mode="dynamic").state == "window"
    model = made(domain="salicon", **SMALL)
    assert_same(run(model, CLIP, range(9)), run(model, CLIP, range(7, 9)), range(7, 9))


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("domain", "DHF1K", "dhf1k, hollywood, ucfsports, salicon"),
        ("mode", "video", "auto, dynamic, static"),
        ("step", "5", "upstream, auto"),
        ("state", "none", "anchored, shot, relay"),
        ("height", 224, "height and width, multiples of 32"),
        ("width", -32, "height and width, multiples of 32"),
    ],
)
def test_unknown_option_is_refused_with_what_there_is(option: str, value: object, choices: str) -> None:
    with pytest.raises(UsageError, match=f"{value}.*{choices}"):
        unisal.spec(**{option: value})  # type: ignore[arg-type]

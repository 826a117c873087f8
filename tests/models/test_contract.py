"""Every registered model, and a user's own file, through the contract that the engine relies on."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from inspect import signature
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.engine import predict
from streamsal.errors import MissingInput, StreamsalError, UsageError
from streamsal.models import MODELS, code_sha256, create_model, model_module, spec_of, weights_sha256
from streamsal.models.spec import Batch, Model, Result, Video
from streamsal.prepare import check_size

TELLTALE = Path(__file__).parents[1] / "telltale.py"
telltale = model_module(TELLTALE)
OF_FRAMES = [  # else: test_clip_model, test_lowres_classifier
    name for name, entry in MODELS.items() if entry.kind not in ("features", "probabilities")
]
NETWORKS = [name for name in OF_FRAMES if MODELS[name].weights]
EVERY_MODEL = pytest.mark.parametrize("name", [*OF_FRAMES, str(TELLTALE)], ids=[*OF_FRAMES, "telltale"])
SLOTS = 4
CUT = 31


@cache
def built(name: str) -> Model:
    """A model of the table or a user's; networks with stand-in weights, which take seconds to make, and those that
    compute at a size of their own at a small one."""
    sides = {"height", "width"} & signature(model_module(name).build).parameters.keys()
    return create_model(name, weights="synthetic" if name in NETWORKS else None, **dict.fromkeys(sides, 32))


def small_clip(name: str, n: int, cut: int = CUT) -> np.ndarray:
    """As large as the model's network allows to be quick."""
    return numbered_clip(n, 64, 80, cut) if name in NETWORKS else numbered_clip(n, cut=cut)


def numbered_clip(n: int, height: int = 96, width: int = 160, cut: int = CUT) -> np.ndarray:
    """(n, height, width, 3) uint8: moving texture with a cut, each frame carrying its number."""
    y, x = np.mgrid[:height, :width]
    clip = np.empty((n, height, width, 3), np.uint8)
    noise = np.random.default_rng(7).integers(0, 40, (height, width, 3))
    for k in range(n):
        waves = [np.sin((x + 3 * k) / 11), np.sin((y - 2 * k) / 7 + x / 23), np.cos((x + y + 5 * k) / 17)]
        scene = 108 + 100 * np.stack(waves if k < cut else [-waves[2], waves[0], waves[1]], axis=-1)
        clip[k] = np.clip(scene + np.roll(noise, 2 * k, axis=1), 0, 255)
        top, left = (5 * k) % max(1, height - 20), (3 * k) % max(1, width - 20)
        clip[k, top : top + 12, left : left + 12] = (255, 220, 40)
        telltale.draw_number(clip[k], k)
    return clip


def run(
    model: Model,
    clip: np.ndarray,
    frames: Sequence[int],
    *,
    slots: int = SLOTS,
    first_rank: int | None = None,
    frame_rate: float = 25.0,
    wanted: Sequence[int] | None = None,
) -> dict[int, dict[str, np.ndarray]]:
    """Values by frame. As in the engine, a frame's slot is fixed, and the memory of a batch is used again after it.

    Slots without a frame hold noise, which would show in any result that it reached.
    """
    noise = np.random.default_rng(1).integers(0, 256, (slots, *clip.shape[1:]), dtype=np.uint8)
    state, step = model.begin(video_of(clip, frame_rate)), model.spec.pixel_step
    results: list[Result] = []
    rank, waiting = frames[0] if first_rank is None else first_rank, list(frames)
    while waiting:
        present = slice(rank % slots, min(slots, rank % slots + len(waiting)))
        taken = [waiting.pop(0) for _ in range(present.stop - present.start)]
        pictures, numbers = torch.from_numpy(noise.copy())[:, ::step, ::step], np.full(slots, -1, np.int64)
        pictures[present] = torch.from_numpy(clip[taken][:, ::step, ::step])
        numbers[present] = taken
        times = np.where(numbers < 0, np.nan, numbers / frame_rate)
        kept = np.isin(numbers, frames if wanted is None else wanted)
        batch = Batch(frames_nhwc=pictures, frame=numbers, pts_seconds=times, present=present, wanted=kept)
        with torch.no_grad():
            results.append(model.step(batch, state))
        pictures.zero_()
        rank += len(taken)
    while (last := model.end(state)) is not None:
        results.append(last)
    found = [int(frame) for result in results for frame in result.frame]
    assert found == sorted(set(found)), "a frame has one result, in order"
    return {
        int(frame): {name: value[row].numpy() for name, value in result.values.items()}
        for result in results
        for row, frame in enumerate(result.frame)
    }


def assert_maps(model: Model, maps: np.ndarray) -> None:
    """Densities sum to 1; saliency is between 0 and 1."""
    if (*model.spec.derived, *model.spec.outputs)[0].is_density:
        np.testing.assert_allclose(np.exp(maps.astype(np.float64)).sum((1, 2)), 1, atol=1e-5)
    else:
        assert maps.min() >= 0 and maps.max() <= 1


def video_of(clip: np.ndarray, frame_rate: float = 25.0) -> Video:
    n, height, width = clip.shape[:3]
    return Video(name="clip", n_frames=n, frame_rate=frame_rate, height=height, width=width)


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray], what: str) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=f"{what}, {name}")


@EVERY_MODEL
def test_spec_agrees_with_table_and_results(name: str) -> None:
    spec = spec_of(name)
    model = built(name)
    assert model.spec.name == spec.name == (name if name in MODELS else "telltale")
    if name in MODELS:
        entry, first = MODELS[name], (*spec.derived, *spec.outputs)[0]
        assert (entry.summary, entry.licence, entry.kind) == (spec.summary, spec.licence, first.kind)
    for frame_rate in (1, 10, 23.976, 25, 60, 240):
        window = spec.window(frame_rate)
        assert spec.state == "window" or window.past == window.future == 0
    values = run(model, small_clip(name, 3), range(3))
    assert list(values) == list(range(3))
    assert all(list(value) == [output.name for output in spec.outputs] for value in values.values())
    assert all(array.dtype == np.float32 for value in values.values() for array in value.values())


@EVERY_MODEL
@pytest.mark.parametrize("frame_rate", [10.0, 25.0, 60.0])
def test_shard_with_warm_up_equals_unsplit(name: str, frame_rate: float) -> None:
    model = built(name)
    if name in NETWORKS and frame_rate != 25.0:
        assert model.spec.window(frame_rate) == model.spec.window(25.0)  # so one rate shows it all
        return
    window = model.spec.window(frame_rate)
    cut = window.past + 3
    if name in NETWORKS:  # shards that have nothing before them, a part of their warm-up, and all of it
        n, shards = window.length + 6, [(0, 1), (1, 3), (cut, window.length + 6)]
        asked = [0, 1, 2, cut, cut + 1, n - 1]
    else:
        n, shards = window.length + 26, list(pairwise([0, 1, cut, cut + 1, window.length + 26]))
        asked = list(range(n))
    clip = small_clip(name, n, cut=cut)
    whole = run(model, clip, range(n), frame_rate=frame_rate, wanted=asked)
    assert whole.keys() >= set(asked)
    for start, stop in shards:
        seen = range(max(0, start - window.past), min(n, stop + window.future))
        wanted = [frame for frame in asked if start <= frame < stop]
        part = run(model, clip, seen, frame_rate=frame_rate, wanted=wanted)
        for frame in wanted:
            assert_equal(part[frame], whole[frame], f"frame {frame} of shard [{start}, {stop})")


@EVERY_MODEL
def test_batch_size_changes_only_the_last_places(name: str) -> None:
    n, many_slots = (4, 3) if name in NETWORKS else (40, 16)
    model, clip = built(name), small_clip(name, n)
    one, many = run(model, clip, range(n), slots=1), run(model, clip, range(n), slots=many_slots)
    for frame in range(n):
        for output in one[frame]:
            np.testing.assert_allclose(many[frame][output], one[frame][output], atol=2e-4)


@EVERY_MODEL
def test_jump_in_frame_numbers_ends_the_state(name: str) -> None:
    model, clip = built(name), small_clip(name, 60)
    runs = [range(2, 5), range(7, 9)] if name in NETWORKS else [range(3, 21), range(24, 44), range(57, 60)]
    frames = [frame for run_of_frames in runs for frame in run_of_frames]
    jumped = run(model, clip, frames, first_rank=0)
    assert list(jumped) == frames
    for run_of_frames in runs:
        alone = run(model, clip, run_of_frames, first_rank=frames.index(run_of_frames[0]))
        for frame in run_of_frames:
            assert_equal(jumped[frame], alone[frame], f"frame {frame}")


SIZES = [(2, 2), (17, 33), (1, 200), (160, 96), (97, 161)]


@EVERY_MODEL
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_any_frame_size_gives_normalized_maps_or_is_refused(name: str, size: tuple[int, int]) -> None:
    model = built(name)
    if min(size) < model.spec.min_side:
        with pytest.raises(UsageError, match=rf"clip: frames of {size[1]}x{size[0]} px are too small for {name}"):
            check_size("clip", *size, model.spec)
        return
    n = 1 if name in NETWORKS else 6
    maps = predict(numbered_clip(n, *size), model=model, device="cpu", dtype="fp32", batch_size=n)
    assert maps.shape == (n, *size)
    assert_maps(model, maps)


@EVERY_MODEL
def test_video_of_one_frame_has_one_result(name: str) -> None:
    clip = small_clip(name, 1)
    assert list(run(built(name), clip, [0])) == [0]
    assert_maps(built(name), predict(clip, model=built(name), device="cpu", dtype="fp32"))


@pytest.mark.parametrize(("past", "future"), [(15, 3), (0, 0), (0, 5), (4, 0)])
def test_telltale_names_exactly_the_frames_of_its_window(past: int, future: int) -> None:
    model, clip = create_model(TELLTALE, past=past, future=future), numbered_clip(50)
    values = run(model, clip, range(50))
    for frame, value in values.items():
        wanted = telltale.expected(frame, 50, past, future)
        assert value["seen"].tolist() == wanted
        assert telltale.read_map(value["log_density"]) == wanted
        stored = (value["log_density"] - value["log_density"].max()).astype(np.float16)
        assert telltale.read_map(stored) == wanted


def test_telltale_shows_a_missing_warm_up_frame() -> None:
    model, clip = create_model(TELLTALE), numbered_clip(50)
    window = model.spec.window(25.0)
    short = run(model, clip, range(20 - window.past + 1, 30))
    assert short[20]["seen"].tolist() != telltale.expected(20, 50)
    assert short[21]["seen"].tolist() == telltale.expected(21, 50)


def test_telltale_reads_numbers_from_small_frames() -> None:
    clip = torch.from_numpy(numbered_clip(300, 96, 160)).permute(0, 3, 1, 2).float()
    small = torch.nn.functional.interpolate(clip, size=(36, 60), mode="bilinear", antialias=True)
    assert telltale.read_numbers(small.round().to(torch.uint8).permute(0, 2, 3, 1)) == list(range(300))


def test_unknown_name_suggests_the_closest() -> None:
    with pytest.raises(UsageError, match=r"'sigmoton'.*sigmotion"):
        create_model("sigmoton")
    with pytest.raises(UsageError, match=r"'zzz'.*sigmotion, signature, center, uniform"):
        create_model("zzz")


@pytest.mark.parametrize(("name", "option"), [("center", "center_bias"), ("sigmotion", "bias"), (TELLTALE, "window")])
def test_option_that_a_model_does_not_take_is_named(name: str | Path, option: str) -> None:
    for ask in (create_model, spec_of):
        with pytest.raises(UsageError, match=option):
            ask(name, **{option: 1})


def test_only_own_and_reference_are_backends() -> None:
    for ask in (create_model, spec_of):
        with pytest.raises(UsageError, match=r"'upstream'.*own, or reference"):
            ask("deepgaze_iie", backend="upstream")
        with pytest.raises(UsageError, match="takes no option 'cuda_graph'"):
            ask("deepgaze_iie", backend="reference", cuda_graph=True)
    assert spec_of("deepgaze_iie", backend="own") == spec_of("deepgaze_iie")
    assert spec_of("deepgaze_iii", backend="reference").outputs[0].kind == "log_density"


def test_weights_for_a_model_without_any_are_refused(tmp_path: Path) -> None:
    weights = tmp_path / "weights.pth"
    weights.write_bytes(b"some")
    for ask in (create_model, weights_sha256):
        with pytest.raises(UsageError, match="sigmotion has no weights"):
            ask("sigmotion", weights=weights)


@pytest.mark.parametrize(
    ("text", "missing"),
    [
        ("x = 1\n", r"no function build\("),
        ("def build(weights=None, *, device): return object()\n", "no attribute spec"),
        (
            "from types import SimpleNamespace\nfrom streamsal.models.uniform import spec\n"
            "def build(weights=None, *, device): return SimpleNamespace(spec=spec(), begin=print)\n",
            r"no method step\(batch, state\)",
        ),
        ("import no_such_module_at_all\n", "ModuleNotFoundError"),
        ("def build(:\n", "SyntaxError"),
    ],
)
def test_incomplete_user_file_is_named_with_what_it_lacks(tmp_path: Path, text: str, missing: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(UsageError, match=missing) as caught:
        create_model(str(path))
    assert str(path) in str(caught.value)


def test_a_spec_that_asks_for_the_weights_gets_them(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from dataclasses import replace\nfrom streamsal.models import uniform\n"
        "def spec(weights=None, *, of=1): return replace(uniform.spec(), summary=f'{weights} {of}')\n"
        "def build(weights=None, *, device, of=1): ...\n"
    )
    assert spec_of(path, "best.pt", of=2).summary == "best.pt 2"
    assert spec_of(path).summary == "None 1"
    assert spec_of("uniform", "best.pt") == spec_of("uniform")


def test_an_error_inside_a_user_file_names_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text("def build(weights=None, *, device): return 1 / 0\n")
    with pytest.raises(StreamsalError, match=r"model file .*mine\.py failed in build\(\): ZeroDivisionError: division"):
        create_model(path)


def test_missing_user_file_is_missing_input(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"none\.py"):
        create_model(tmp_path / "none.py")


def test_checksums_follow_the_user_file_and_its_weights(tmp_path: Path) -> None:
    assert code_sha256("sigmotion") is None
    assert weights_sha256("sigmotion") is None
    path, weights = tmp_path / "mine.py", tmp_path / "weights.pth"
    checksums = set()
    for edit in ("", "# edited\n"):
        path.write_text(TELLTALE.read_text() + edit)
        weights.write_text(edit)
        checksums |= {code_sha256(path), weights_sha256(path, weights)}
        assert spec_of(path).name == "telltale"
    assert len(checksums) == 4

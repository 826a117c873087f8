"""DeepGaze III against numbers measured on the authors' program, with stand-in weights in both, and its second pass."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from films import write_film
from torch import Tensor

from streamsal import open_run, predict
from streamsal.cli import main
from streamsal.density import full_size
from streamsal.errors import BadInput
from streamsal.fixations import Central, Generated, History, Nothing, Source, cells, read, sampled, uniform
from streamsal.models import deepgaze_iii
from streamsal.models.deepgaze_iii import BLOCK, DeepGazeIII, SecondPass
from streamsal.models.spec import Batch, Video
from streamsal.weights.synthetic import state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures/deepgaze"
TOLERANCE = 2e-5  # nats
PICTURES = ["iii_96x128_b3", "iii_101x135_b3"]
SIZE = (101, 135)
TIMES = 0.4 + np.arange(40) / 25


@pytest.fixture(scope="module")
def iii() -> DeepGazeIII:
    return deepgaze_iii.DeepGazeIII(
        state_dict(deepgaze_iii.template()), center_bias=np.zeros((1, 1), np.float32), device=torch.device("cpu")
    )


@pytest.fixture(scope="module")
def maps() -> Tensor:
    """(40, 10, 2, 3) saliency maps of a video in which something moves."""
    position = torch.linspace(0, 6, 40)[:, None, None, None]
    cell = torch.arange(6.0).reshape(2, 3)
    strength = torch.linspace(0.5, 2, 10)[:, None, None]
    return strength * torch.exp(-((cell - position) ** 2))


def video(size: tuple[int, int] = SIZE, *, scale: tuple[float, float] = (1, 1)) -> Video:
    return Video(name="film", n_frames=40, frame_rate=25, height=size[0], width=size[1], scale=scale)


def second_pass(
    model: DeepGazeIII, maps: Tensor, source: Source, *, at_once: int = 40, seconds: np.ndarray = TIMES
) -> tuple[Tensor, SecondPass]:
    derivation, seconds = model.derive(video(), source), seconds[: len(maps)]
    with torch.no_grad():
        parts = [
            derivation.step({"components": maps[i : i + at_once]}, seconds[i : i + at_once])["log_density"]
            for i in range(0, len(maps), at_once)
        ]
    return torch.cat(parts), derivation


def saved(path: Path, rows: Sequence[dict[str, float]]) -> Path:
    with path.open("w", newline="") as file:
        table = csv.DictWriter(file, list(rows[0]))
        table.writeheader()
        table.writerows(rows)
    return path


@pytest.mark.parametrize("name", PICTURES)
def test_log_density_is_the_originals(iii: DeepGazeIII, name: str) -> None:
    measured = np.load(FIXTURES / f"{name}.npz")
    for image, center_bias, x, y, wanted in zip(
        measured["image"],
        measured["centerbias"],
        measured["x_hist"],
        measured["y_hist"],
        measured["log_density"][:, 0],
        strict=True,
    ):
        frames = image.transpose(1, 2, 0)[None]
        found = predict(frames, model=iii, device="cpu", batch_size=1, center_bias=center_bias, fixations=(x, y))[0]
        assert abs(found - wanted).max() <= TOLERANCE
        assert abs(np.exp(found.astype(np.float64)).sum() - 1) <= 1e-5


def test_each_frame_has_its_own_history(iii: DeepGazeIII) -> None:
    measured = np.load(FIXTURES / "iii_101x135_b3.npz")
    frames = np.repeat(measured["image"][:1].transpose(0, 2, 3, 1), 3, axis=0)
    x, y = measured["x_hist"], measured["y_hist"]
    assert np.isnan(x[2]).all()
    found = predict(frames, model=iii, device="cpu", batch_size=2, fixations=(x, y))
    for row in range(3):
        alone = predict(frames[:1], model=iii, device="cpu", batch_size=2, fixations=(x[row], y[row]))[0]
        assert abs(found[row] - alone).max() <= TOLERANCE  # the last bits depend on the slot in the batch
    assert min(abs(found[i] - found[j]).max() for i, j in ((0, 1), (0, 2), (1, 2))) > 0.01


def test_keys_and_shapes_are_those_of_the_official_checkpoint() -> None:
    official = json.loads((FIXTURES / "keys_iii.json").read_text())
    assert [(key, list(value.shape)) for key, value in deepgaze_iii.template().items()] == list(official.items())
    with pytest.raises(BadInput, match="deepgaze_iii"):
        deepgaze_iii.build({"features.weight": torch.zeros(1)}, device="cpu", center_bias="uniform")


def test_without_fixations_there_is_one_in_the_middle(iii: DeepGazeIII, maps: Tensor) -> None:
    with torch.no_grad():
        found = iii.derive(video()).step({"components": maps[:1]}, TIMES[:1])["log_density"]
    nan = np.nan
    middle = History(x_px=np.array([67.5, nan, nan, nan]), y_px=np.array([50.5, nan, nan, nan]))
    assert torch.equal(found, second_pass(iii, maps[:1], middle)[0])
    assert not torch.equal(found, second_pass(iii, maps[:1], Nothing())[0])


def test_components_may_be_computed_one_by_one_or_all_at_once(iii: DeepGazeIII, maps: Tensor) -> None:
    places, history = iii.derive(video()).places, np.array([[20.0, 30], [110, 70], [np.nan, np.nan], [60, 50]])
    saliency = places.shown(maps[3])
    one_by_one = iii.head.priority(saliency, iii.head.encoding(places, history))
    chunks, iii.head.chunks = iii.head.chunks, [slice(0, 6), slice(6, 10)]
    together = iii.head.priority(saliency, iii.head.encoding(places, history))
    iii.head.chunks = chunks
    assert len(chunks) == 10 and (together - one_by_one).abs().max() <= TOLERANCE


def test_a_black_frame_without_fixations_is_finite_and_sums_to_one(iii: DeepGazeIII) -> None:
    found = predict(
        np.zeros((1, 96, 128, 3), np.uint8), model=iii, device="cpu", fixations=(np.full(4, np.nan), np.full(4, np.nan))
    )
    assert abs(np.exp(found.astype(np.float64)).sum() - 1) <= 1e-5
    constant = torch.full((1, 10, 2, 3), 0.3)
    with torch.no_grad():
        flat = iii.head.priority(iii.derive(video()).places.shown(constant[0]), torch.zeros(10, 16, 13 * 17))
    assert (flat - flat[:, :1]).abs().max() == 0  # nothing to see anywhere


def test_shards_hold_the_same_maps_whatever_their_borders(iii: DeepGazeIII) -> None:
    clip = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (10, 48, 64, 3), dtype=np.uint8))

    def computed(start: int, stop: int) -> Tensor:
        state, found = iii.begin(video((96, 128))), []
        for base in range(start // 4 * 4, stop, 4):
            frame = np.arange(base, base + 4)
            present = slice(max(start, base) - base, min(stop, base + 4) - base)
            pictures = torch.full((4, 48, 64, 3), 77, dtype=torch.uint8)
            pictures[present] = clip[frame[present]]
            batch = Batch(frames_nhwc=pictures, frame=frame, pts_seconds=frame / 25, present=present)
            with torch.no_grad():
                result = iii.step(batch, state)
            assert result.frame.tolist() == frame[present].tolist()
            found.append(result.values["components"])
        return torch.cat(found)

    whole = computed(0, 10)
    assert whole.shape == (10, 10, 1, 2) and whole.dtype == torch.float32
    assert torch.equal(torch.cat([computed(0, 3), computed(3, 10)]), whole)
    assert torch.equal(torch.cat([computed(k, k + 1) for k in range(10)]), whole)


@pytest.mark.parametrize(
    "source",
    [Central(), Generated(scanpaths=2, seed=1, interval_seconds=0.2), Generated(choice="argmax", interval_seconds=0.2)],
    ids=["central", "sample", "argmax"],
)
def test_maps_and_scanpath_do_not_depend_on_how_many_frames_come_at_once(
    iii: DeepGazeIII, maps: Tensor, source: Source
) -> None:
    whole, derivation = second_pass(iii, maps, source)
    for at_once in (1, 7):
        part, again = second_pass(iii, maps, source, at_once=at_once)
        assert torch.equal(part, whole)
        assert again.table() == derivation.table()


def test_generated_fixations_are_drawn_from_the_maps_at_presentation_times(iii: DeepGazeIII, maps: Tensor) -> None:
    seconds = np.array([5.0, 5.1, 5.19, 5.21, 5.3, 5.9, 5.95, 6.0])
    found, derivation = second_pass(iii, maps[:8], Generated(seed=3, interval_seconds=0.2), at_once=3, seconds=seconds)
    rows = derivation.table()
    assert [row["start_seconds"] for row in rows] == [5, 5, 5.21, 5.9]
    assert [row["end_seconds"] for row in rows] == [5, 5.21, 5.9, 6.0]
    x, y = cells(135, 33), cells(101, 25)
    for row, frame, number in zip(rows[1:], (0, 3, 5), (0, 1, 4), strict=True):
        assert (row["x_px"], row["y_px"]) == sampled(found[frame].numpy(), x, y, uniform(3, 0, number))


def test_maps_of_several_scanpaths_are_averaged_in_probability(iii: DeepGazeIII, maps: Tensor) -> None:
    source = Generated(scanpaths=3, seed=2, interval_seconds=0.3)
    found, derivation = second_pass(iii, maps, source)
    rows = derivation.table()
    assert {row["scanpath"] for row in rows} == {0, 1, 2}
    at, readback = 25, iii.spec.derived[0].readback
    mean = torch.zeros(SIZE)
    for scanpath in range(3):
        known = [row for row in rows if row["scanpath"] == scanpath and row["end_seconds"] <= TIMES[at]][-4:][::-1]
        history = History(x_px=np.array([r["x_px"] for r in known]), y_px=np.array([r["y_px"] for r in known]))
        alone, _ = second_pass(iii, maps[at : at + 1], history)
        mean += full_size(alone, *SIZE, readback)[0].exp() / 3
    whole = full_size(found, *SIZE, readback)
    assert (whole[at] - mean.log()).abs().max() <= TOLERANCE
    assert (whole.double().exp().sum((1, 2)) - 1).abs().max() <= 1e-5


@pytest.mark.parametrize("source", [Central(), Generated(seed=4, interval_seconds=0.15)], ids=["central", "generated"])
def test_the_table_given_back_gives_the_same_maps(
    iii: DeepGazeIII, maps: Tensor, source: Source, tmp_path: Path
) -> None:
    found, derivation = second_pass(iii, maps, source)
    given = read(saved(tmp_path / "film.scanpath.csv", derivation.table()))
    assert torch.equal(second_pass(iii, maps, given)[0], found)


def test_a_gaze_file_counts_displayed_pixels_though_frames_are_made_smaller(iii: DeepGazeIII, maps: Tensor) -> None:
    nan = np.nan
    displayed = History(x_px=np.array([60.0, nan, nan, nan]), y_px=np.array([90.0, nan, nan, nan]))
    small = History(x_px=displayed.x_px / 2, y_px=displayed.y_px / 3)
    with torch.no_grad():
        derivation = iii.derive(video(scale=(2, 3)), displayed)
        found = derivation.step({"components": maps[:1]}, TIMES[:1])["log_density"]
    assert torch.equal(found, second_pass(iii, maps[:1], small)[0])
    assert [(row["x_px"], row["y_px"]) for row in derivation.table()] == [(60, 90)]


def test_a_batch_without_a_picture_has_maps_of_the_right_size(iii: DeepGazeIII, maps: Tensor) -> None:
    found, _ = second_pass(iii, maps[:1], Central())
    none = iii.derive(video()).step({"components": maps[:0]}, TIMES[:0])["log_density"]
    assert none.shape == (0, *found.shape[1:]) == (0, SIZE[0] // BLOCK, SIZE[1] // BLOCK)


def test_a_run_by_tasks_equals_an_undivided_one_and_its_scanpath_given_back_makes_the_same_maps(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 10)

    def computed(name: str, tasks: int) -> Path:
        run = tmp_path / name
        model = ["--model", "deepgaze_iii", "--weights", "synthetic", "--device", "cpu", "--batch-size", "4"]
        generated = ["--fixations", "generated", "--scanpaths", "2", "--seed", "5", "--store-dtype", "float32"]
        rest = ["-o", str(run), "--tasks", str(tasks), "--no-render", "-q"]
        assert main(["run", str(film), *model, *generated, *rest]) == 0
        return run

    def stored(run: Path) -> dict[str, np.ndarray]:
        with open_run(run) as opened:
            maps = opened["film.mp4"]
            assert list(maps.outputs) == ["log_density", "components"]
            return {name: np.stack([maps.output(name, frame) for frame in range(10)]) for name in maps.outputs}

    whole, parts = computed("whole", 1), computed("parts", 3)
    table = (whole / "film.mp4.scanpath.csv").read_text()
    maps = stored(whole)
    assert (parts / "film.mp4.scanpath.csv").read_text() == table
    assert all(np.array_equal(value, maps[name]) for name, value in stored(parts).items())
    (tmp_path / "gaze.csv").write_text(table)
    assert main(["merge", str(parts), "--fixations", str(tmp_path / "gaze.csv"), "--device", "cpu", "-q"]) == 0
    assert all(np.array_equal(value, maps[name]) for name, value in stored(parts).items())
    assert main(["merge", str(parts), "--device", "cpu", "-q"]) == 0
    assert not np.array_equal(stored(parts)["log_density"], maps["log_density"])


@pytest.mark.parametrize(
    "asked", [["--fixations", "nowhere"], ["--seed", "1"], ["--model", "uniform", "--fixations", "none"]], ids=" ".join
)
def test_fixations_that_cannot_be_had_are_refused_before_anything_is_computed(
    tmp_path: Path, asked: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    film = write_film(tmp_path / "film.mp4", 2)
    model = ["--model", "deepgaze_iii", "--weights", "synthetic"]
    assert main(["run", str(film), "-o", str(tmp_path / "run"), *model, *asked]) == 2
    assert "fixations" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.needs_cuda
def test_cuda_gives_the_originals_numbers() -> None:
    weights = state_dict(deepgaze_iii.template())
    model = deepgaze_iii.build(weights, device="cuda", center_bias="uniform")
    measured = np.load(FIXTURES / "iii_101x135_b3.npz")
    frames, history = measured["image"].transpose(0, 2, 3, 1), (measured["x_hist"], measured["y_hist"])
    for dtype, tolerance in (("fp32", 1e-4), ("fp16", 0.05)):
        bias = measured["centerbias"][0]
        found = predict(frames, model=model, device="cuda", dtype=dtype, center_bias=bias, fixations=history)
        assert abs(found[0] - measured["log_density"][0, 0]).max() <= tolerance

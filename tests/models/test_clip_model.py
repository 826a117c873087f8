"""Every clip model through the contract that the engine relies on, and what all of them share."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from films import write_film
from torch import Tensor, nn

import streamsal
from streamsal.errors import UsageError
from streamsal.merge import merge, open_run
from streamsal.models import MODELS, create_model, model_module, spec_of
from streamsal.models.classifier import load
from streamsal.models.clip_model import ClipModel, salient_means
from streamsal.models.design import Design
from streamsal.models.lowres_classifier import LowresClassifier
from streamsal.models.spec import ClipBatch, Result
from streamsal.prepare import Request, make_plan
from streamsal.task import infer
from streamsal.timing import Timing

CLIP_MODELS = [name for name, entry in MODELS.items() if entry.kind == "features"]
CLASS_TOKEN = [name for name in CLIP_MODELS if name.startswith("mvit")]
PAGE = Path(__file__).parents[2] / "docs" / "embeddings.md"


def facts_of(name: str) -> Any:
    """What the model's own file says of it."""
    return model_module(name).VARIANTS[MODELS[name].variant]


@cache
def light() -> ClipModel:
    return clip_model("x3d_xs", logits=True)


def clip_model(name: str, **options: Any) -> ClipModel:
    model = create_model(name, weights="synthetic", **options)
    assert isinstance(model, ClipModel)
    return model


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", 70)


def test_there_are_models_of_every_file() -> None:
    assert {MODELS[name].module.rpartition(".")[2] for name in CLIP_MODELS} == {
        "resnet3d",
        "torchvision_video",
        "mvit",
        "published_i3d",
    }


@pytest.mark.parametrize("name", CLIP_MODELS)
def test_a_spec_is_what_table_and_file_say_and_builds_no_network(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    facts, entry = facts_of(name), MODELS[name]

    def built(*_: object) -> None:
        raise AssertionError("a network was built")

    monkeypatch.setattr(nn.Module, "__init__", built)
    spec = spec_of(name)
    assert spec.clip is not None
    assert (spec.clip.length, spec.clip.step, spec.clip.rate) == (facts.frames, facts.step, facts.rate)
    assert (spec.name, spec.summary) == (name, entry.summary) and entry.weights == (name,) == (entry.variant,)
    assert entry.cost == f"{facts.gmac:g} GMAC"
    assert [output.name for output in spec.outputs] == ["features", "valid"]
    assert entry.kind == spec.outputs[0].kind and spec.outputs[0].exact and spec.outputs[-1].scalar
    assert [output.name for output in spec_of(name, logits=True).outputs] == ["features", "logits", "valid"]


@pytest.mark.parametrize("name", CLIP_MODELS)
def test_only_a_network_that_averages_a_map_is_pooled(name: str) -> None:
    with pytest.raises(UsageError, match="no way of pooling is named 'gaze'"):
        spec_of(name, pool="gaze")
    if name in CLASS_TOKEN:
        with pytest.raises(UsageError, match=f"{name} has no map to pool by saliency"):
            spec_of(name, pool="saliency")
    else:
        outputs = spec_of(name, pool="saliency").outputs
        assert [output.name for output in outputs] == ["features", "features_salient", "valid"]


def test_the_table_of_the_page_is_true() -> None:
    named: list[str] = []
    for names, frames, window, numbers, _ in re.findall(
        r"^\| (`.*`) \| (.*?) \| (.*?) s \| (\d+) \| (.*?) \|$", PAGE.read_text(), re.MULTILINE
    ):
        for name in re.findall(r"`(\w+)`", names):
            named.append(name)
            clip = spec_of(name).clip
            assert clip and int(re.match(r"\d+", frames)[0]) == clip.length  # type: ignore[index]
            assert window == f"{clip.seconds:.2f}" and int(numbers) == facts_of(name).features
    assert sorted(named) == sorted(CLIP_MODELS)


@pytest.mark.parametrize(
    ("name", "stride", "batch_size", "tasks"),
    [
        ("x3d_xs", "5", 4, 3),  # 7 clips
        ("r3d_18", "40", 1, 2),  # 2 clips
        pytest.param("mvit_v2_s_16x4", "20", 1, 2, marks=pytest.mark.slow),  # 2 clips
    ],
)
def test_vectors_are_the_same_to_the_bit_however_the_work_is_divided(
    film: Path, tmp_path: Path, name: str, stride: str, batch_size: int, tasks: int
) -> None:
    found: list[dict[str, np.ndarray]] = []
    for n_tasks in (1, tasks):
        run = tmp_path / str(n_tasks)
        request = Request(
            model=name, weights="synthetic", timing=Timing(stride=stride), batch_size=batch_size, tasks=n_tasks
        )
        plan = make_plan([film], run, request)
        assert len(plan.shards) == n_tasks and all(plan.rows(task) for task in range(n_tasks))
        for task in reversed(range(n_tasks)):
            infer(run, task, device="cpu")
        merge(run)
        maps = open_run(run)[film.name]
        vectors = np.stack([maps.output("features", int(frame)) for frame in maps.frame])
        found.append({"features": vectors, "frame": maps.frame, "valid": maps.scalar("valid")})
    whole, divided = found
    assert whole["features"].shape == (len(whole["frame"]), facts_of(name).features)
    assert np.isfinite(whole["features"]).all() and len(np.unique(whole["features"], axis=0)) == len(whole["frame"])
    for what, array in whole.items():
        assert array.tobytes() == divided[what].tobytes(), what


def test_class_scores_are_of_the_vector_beside_them(film: Path) -> None:
    timing = Timing(stride="0.5s")
    chunk, *_ = streamsal.stream(film, model=light(), timing=timing, device="cpu")
    without, *_ = streamsal.stream(film, model=clip_model("x3d_xs"), timing=timing, device="cpu")
    features, logits = chunk.values["features"], chunk.values["logits"]
    assert logits.shape == (len(chunk.frame), 400) and "logits" not in without.values
    assert torch.equal(features, without.values["features"])
    torch.testing.assert_close(light().network.logits(features), logits)
    with pytest.raises(UsageError, match="features is a features, not a log density"):
        _ = chunk.log_density


class Watched(ClipModel):
    """Notes whether autocast is on in a step."""

    autocast: bool | None = None

    def step(self, batch: ClipBatch, state: None) -> Result:
        self.autocast = torch.is_autocast_enabled("cpu")
        return super().step(batch, state)


@pytest.mark.parametrize(("dtype", "expected"), [("auto", False), ("fp32", False), ("tf32", False), ("bf16", True)])
def test_a_processor_computes_in_float32_unless_told(film: Path, dtype: str, expected: bool) -> None:
    model = Watched(light().spec, light().network, light().recipe)
    chunks = streamsal.stream(
        film,
        model=model,
        device="cpu",
        dtype=dtype,  # type: ignore[arg-type]
        timing=Timing(stride="1s"),
    )
    assert {value.dtype for chunk in chunks for value in chunk.values.values()} == {torch.float32}
    assert model.autocast is expected


def classifier() -> LowresClassifier:
    design = Design(classes=("walks", "runs"), frames=8, rate=25, side_in=14, side=28, width=0.125)
    return LowresClassifier(load("synthetic", design))


@pytest.mark.parametrize(("made", "side"), [(light, 160), (classifier, 14)])
def test_a_slot_that_is_not_present_reaches_nothing(made: Callable[[], Any], side: int) -> None:
    model = made()
    clips = torch.randn(4, 3, model.spec.clip.length, side, side, generator=torch.Generator().manual_seed(3))
    frame, valid = np.array([-1, 7, 8, -1]), np.array([0, 1, 0.5, 0], np.float32)

    def result(absent: Tensor) -> Result:
        batch = torch.stack([absent, clips[1], clips[2], absent])
        with torch.no_grad():
            return model.step(ClipBatch(clips_ncthw=batch, frame=frame, valid=valid, present=slice(1, 3)), None)

    repeated, not_a_number = result(clips[1]), result(torch.full_like(clips[0], torch.nan))
    assert repeated.frame.tolist() == [7, 8] and repeated.values["valid"].tolist() == [1, 0.5]
    for name, value in repeated.values.items():
        assert len(value) == 2 and torch.equal(value, not_a_number.values[name]), name


def maps_of(*shapes: tuple[int, int, int]) -> list[Tensor]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randn(2, 3, *shape, generator=generator) for shape in shapes]


def test_even_weights_and_none_give_the_mean_of_every_pathway() -> None:
    maps = maps_of((2, 5, 5), (8, 5, 5))
    for weight in (0.0, 0.01, 1.0):
        for pooled, x in zip(salient_means(maps, torch.full((2, 8, 40, 40), weight)), maps, strict=True):
            torch.testing.assert_close(pooled, x.mean((2, 3, 4)))


@pytest.mark.parametrize("shape", [(4, 5, 5), (2, 5, 5), (8, 10, 8)], ids=str)
def test_all_of_the_weight_in_one_place_and_time_gives_what_is_there(shape: tuple[int, int, int]) -> None:
    t, rows, columns = shape
    (x,) = maps = maps_of(shape)
    for time, row, column in ((0, 0, 0), (t - 1, rows - 1, columns - 1), (t // 2, 1, columns - 2)):
        weights = torch.zeros(2, 8, 40, 40)
        weights[:, time * 8 // t, row * 40 // rows, column * 40 // columns] = 0.3
        weights[1] *= 5  # of its own clip, so what others have is no matter
        (pooled,) = salient_means(maps, weights)
        torch.testing.assert_close(pooled, x[:, :, time, row, column])


def test_weights_count_in_proportion() -> None:
    (x,) = maps = maps_of((1, 1, 2))
    weights = torch.tensor([1.0, 3.0]).expand(2, 1, 1, 2)
    torch.testing.assert_close(salient_means(maps, weights)[0], 0.25 * x[..., 0, 0, 0] + 0.75 * x[..., 0, 0, 1])


def test_to_pool_without_a_saliency_run_is_refused(film: Path) -> None:
    model = clip_model("x3d_xs", pool="saliency")
    with pytest.raises(UsageError, match=r"x3d_xs is to pool by saliency, of no run: plan it with --pool saliency:RUN"):
        list(streamsal.stream(film, model=model, timing=Timing(stride="1s"), device="cpu"))

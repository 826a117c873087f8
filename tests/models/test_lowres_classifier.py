"""A trained classifier on films: the clips it sees, however the work is divided, and what it says of them."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from films import write_film

import streamsal
from streamsal.cli import main
from streamsal.decode import decode
from streamsal.errors import MissingWeights, UsageError
from streamsal.export import export
from streamsal.merge import merge, open_run
from streamsal.models import MODELS, create_model, spec_of
from streamsal.models import classifier as classifiers
from streamsal.models.classifier import Classifier, prepared
from streamsal.models.design import Design
from streamsal.models.lowres_classifier import TINYVIRAT, LowresClassifier, frame_order
from streamsal.prepare import Request, make_plan
from streamsal.task import infer
from streamsal.timing import Timing

NAME = "lowres_classifier"
CLASSES = ("walks", "runs", "stands still")
SMALL = Design(classes=CLASSES, frames=8, rate=25, side_in=14, side=28, width=0.125)
N_FRAMES = 40


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", N_FRAMES)


@cache
def classifier_of(design: Design) -> Classifier:
    return classifiers.load("synthetic", design)


def weights_of(design: Design, folder: Path) -> Path:
    path = folder / "best.pt"
    classifiers.save(path, classifier_of(design))
    return path


def results(run: Path, film: Path) -> dict[str, np.ndarray]:
    merge(run)
    with open_run(run) as opened:
        maps = opened[film.name]
        of_clips = {
            name: np.stack([maps.output(name, int(frame)) for frame in maps.frame])
            for name in ("probabilities", "logits", "features")
        }
        return {**of_clips, "frame": maps.frame, "valid": maps.scalar("valid")}


def computed(film: Path, run: Path, weights: Path, *, tasks: int = 1, stride: str = "4", **options: Any) -> Any:
    request = Request(
        model=NAME,
        weights=str(weights),
        options=options,
        timing=Timing(stride=stride),
        batch_size=2,
        tasks=tasks,
        dtype="fp32",
    )
    plan = make_plan([film], run, request)
    assert len(plan.shards) == tasks
    for task in reversed(range(tasks)):
        infer(run, task, device="cpu")
    return results(run, film)


def directly(film: Path, design: Design, start: np.ndarray, box: tuple[int, int, int, int] | None = None) -> Any:
    """The classifier called on the frames that the clips starting there are made of, one clip at a time."""
    rgb = np.stack([frame.rgb for frame in decode(film) if frame.rgb is not None])
    if box:
        x, y, width, height = box
        rgb = rgb[:, y : y + height, x : x + width]
    classifier, found = classifier_of(design), []
    for first in start:
        members = np.minimum(first + (np.arange(design.frames) * 25 / design.rate + 1e-6).astype(int), N_FRAMES - 1)
        if design.order == "legacy":
            members = members[sorted(range(design.frames), key=str)]
        with torch.no_grad():
            found.append(classifier(prepared(torch.from_numpy(rgb[members]), design).transpose(0, 1)[None])[0])
    return torch.stack(found).numpy()


def test_windows_are_the_same_to_the_bit_however_the_work_is_divided(film: Path, tmp_path: Path) -> None:
    weights = weights_of(SMALL, tmp_path)
    whole = computed(film, tmp_path / "1", weights)
    assert whole["frame"].tolist() == [*range(0, 33, 4)]
    assert whole["probabilities"].shape == (9, 3) and whole["features"].shape == (9, 128)
    assert len(np.unique(whole["features"], axis=0)) == 9
    for tasks in (2, 7):
        divided = computed(film, tmp_path / str(tasks), weights, tasks=tasks)
        for name, array in whole.items():
            assert divided[name].tobytes() == array.tobytes(), name


DESIGNS = {
    "25 fps": SMALL,
    "30 fps": replace(SMALL, rate=30.0),
    "12.5 fps": replace(SMALL, rate=12.5, resizer="none"),
    "legacy order, bgr": replace(SMALL, frames=16, order="legacy", colors="bgr", resizer="none"),
    "transformer": replace(SMALL, side_in=16, resizer="transformer", read=1, apply=2),
}


@pytest.mark.parametrize("design", DESIGNS.values(), ids=DESIGNS)
def test_a_window_is_what_the_classifier_says_of_its_frames(film: Path, tmp_path: Path, design: Design) -> None:
    found = computed(film, tmp_path / "run", weights_of(design, tmp_path), stride="7")
    wanted = directly(film, design, found["frame"])
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-4)
    np.testing.assert_allclose(found["probabilities"], 1 / (1 + np.exp(-wanted)), atol=1e-5)
    assert np.ptp(wanted, axis=0).max() > 1e-2, "the frames make no difference"


def test_only_what_is_in_the_box_is_looked_at(film: Path, tmp_path: Path) -> None:
    box, weights = (24, 8, 40, 30), weights_of(SMALL, tmp_path)
    found = computed(film, tmp_path / "run", weights, box=list(box))
    np.testing.assert_allclose(found["logits"], directly(film, SMALL, found["frame"], box), atol=1e-4)
    assert np.abs(found["logits"] - computed(film, tmp_path / "all", weights)["logits"]).max() > 1e-2


@pytest.mark.parametrize("box", [[0, 0, 0, 4], [0, 0, 4], "left", [-1, 0, 4, 4], [0.5, 0, 4, 4], 3])
def test_what_is_no_box_is_refused(box: Any) -> None:
    with pytest.raises(UsageError, match=r"is no box: write --option box="):
        spec_of(NAME, "synthetic", box=box)


def test_a_box_beside_the_frames_is_refused_before_anything_is_written(film: Path, tmp_path: Path) -> None:
    request = Request(model=NAME, weights="synthetic", options={"box": [90, 0, 20, 20]})
    with pytest.raises(UsageError, match=r"film.mp4: 20x20 px from \(90, 0\) on, .* frames of 96x64 px"):
        make_plan([film], tmp_path / "run", request)
    assert not (tmp_path / "run" / "plan.json").exists()


def test_the_weights_say_what_clips_are_and_what_their_classes_are_called(film: Path, tmp_path: Path) -> None:
    weights = weights_of(SMALL, tmp_path)
    spec = spec_of(NAME, weights)
    assert spec == create_model(NAME, weights=weights).spec
    assert spec.clip and (spec.clip.length, spec.clip.step, spec.clip.rate) == (8, 1, 25)
    computed(film, tmp_path / "run", weights, tasks=2)
    for path in (tmp_path / "run", tmp_path / "run" / "film.mp4.h5"):
        with open_run(path) as opened:
            outputs = opened[film.name].outputs
            assert [name for name, output in outputs.items() if output.labels] == ["probabilities", "logits"]
            assert outputs["probabilities"].labels == outputs["logits"].labels == CLASSES


def test_a_table_has_a_row_per_window_and_a_column_per_class(film: Path, tmp_path: Path) -> None:
    found = computed(film, tmp_path / "run", weights_of(SMALL, tmp_path), stride="10")
    (path,) = export(tmp_path / "run", tmp_path / "labels.csv", format="csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["start_frame", "start_seconds", "end_seconds", "valid", *CLASSES]
    assert [int(row["start_frame"]) for row in rows] == found["frame"].tolist() == [0, 10, 20, 30, 32]
    assert [(float(row["start_seconds"]), float(row["end_seconds"])) for row in rows] == [
        pytest.approx((frame / 25, (frame + 8) / 25)) for frame in found["frame"]
    ]
    table = np.array([[float(row[name]) for name in CLASSES] for row in rows])
    np.testing.assert_allclose(table, found["probabilities"], rtol=1e-5)
    (path,) = export(tmp_path / "run", tmp_path / "labels.npy", format="npy")
    np.testing.assert_array_equal(np.load(path), found["probabilities"])
    assert json.loads(path.with_suffix(".json").read_text())["labels"] == list(CLASSES)


def test_every_column_of_a_table_has_a_name_of_its_own(film: Path, tmp_path: Path) -> None:
    design = replace(SMALL, classes=("start_frame", "valid", "runs"))
    found = computed(film, tmp_path / "run", weights_of(design, tmp_path), stride="10")
    (path,) = export(tmp_path / "run", tmp_path / "labels.csv", format="csv")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[3:] == ["valid", "class start_frame", "class valid", "runs"]
    assert [int(row["start_frame"]) for row in rows] == found["frame"].tolist()


def test_labels_are_refused_where_they_do_not_fit_with_the_formats_that_hold_them(film: Path, tmp_path: Path) -> None:
    computed(film, tmp_path / "run", weights_of(SMALL, tmp_path))
    for format in ("png", "bids", "pysaliency"):
        with pytest.raises(UsageError, match=r"^probabilities has a number for each class: export it as csv, npy or"):
            export(tmp_path / "run", tmp_path / "x", format=format)


def test_embed_writes_the_features_and_what_else_there_is(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = weights_of(SMALL, tmp_path)
    found = computed(film, tmp_path / "run", weights)
    monkeypatch.chdir(tmp_path)
    how = ("--weights", str(weights), "--stride", "4", "--batch-size", "2", "--device", "cpu", "-q")
    assert main(["embed", str(film), "--model", NAME, *how, "-o", "vectors"]) == 0
    with h5py.File(capsys.readouterr().out.strip()) as file:
        for name in ("features", "logits", "probabilities"):
            np.testing.assert_array_equal(file[name], found[name])
        np.testing.assert_array_equal(file["frames"][1], range(4, 12))
    assert main(["embed", str(film), "--model", NAME, "-o", "other", "-q"]) == 4


def test_run_makes_a_film_of_it_unless_told(
    film: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    how = ("--model", NAME, "--weights", str(weights_of(SMALL, tmp_path)), "--device", "cpu", "-q", "-o", "run")
    assert main(["run", str(film), *how, "--no-render"]) == 0
    assert capsys.readouterr().out.splitlines() == ["run/film.mp4.h5"]
    assert main(["run", str(film), *how]) == 0
    assert capsys.readouterr().out.splitlines() == ["run/film.labels.mp4", "run/film.mp4.h5"]


def test_stand_ins_are_of_tinyvirat(film: Path) -> None:
    spec = spec_of(NAME, "synthetic")
    assert spec == spec_of(NAME) and spec.outputs[0].labels == TINYVIRAT and len(set(TINYVIRAT)) == 26
    assert (spec.name, spec.summary, spec.outputs[0].kind) == (NAME, MODELS[NAME].summary, MODELS[NAME].kind)


def test_without_weights_one_is_told_how_to_get_some(film: Path, tmp_path: Path) -> None:
    told = r"no published weights: train a classifier .* --weights"
    with pytest.raises(MissingWeights, match=told):
        create_model(NAME)
    with pytest.raises(MissingWeights, match=told):
        make_plan([film], tmp_path / "run", Request(model=NAME))


def test_a_classifier_of_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="optical flow cannot look at a film"):
        spec_of(NAME, weights_of(replace(SMALL, channels=2, resizer="none"), tmp_path))


def test_legacy_order_sorts_numbers_as_text() -> None:
    assert frame_order(SMALL) is None
    assert frame_order(replace(SMALL, frames=24, order="legacy")) == [
        *(0, 1, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 2, 20, 21, 22, 23, 3, 4, 5, 6, 7, 8, 9)
    ]


def test_a_film_can_be_streamed(film: Path) -> None:
    model = LowresClassifier(classifier_of(SMALL))
    chunk, *_ = streamsal.stream(film, model=model, timing=Timing(stride="8"), device="cpu")
    assert chunk.values["probabilities"].shape == (len(chunk.frame), 3)
    assert 0 < float(chunk.values["probabilities"].min()) < float(chunk.values["probabilities"].max()) < 1

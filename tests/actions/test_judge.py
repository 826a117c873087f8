"""What `test` writes of a trained classifier, from real clips: all of it, and nothing tuned on what is judged."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from streamsal.actions.config import Config, Data, Network, Train
from streamsal.actions.config import Test as Settings
from streamsal.actions.judge import judge, strips_of, trained_in
from streamsal.actions.manifest import read_manifest
from streamsal.actions.predictions import Predictions
from streamsal.actions.scores import scored, tuned
from streamsal.actions.train import train
from streamsal.errors import BadInput, MissingInput, Stopped, UsageError, WriteError
from streamsal.models.classifier import load, save
from streamsal.models.design import Design

MINI = Path(__file__).parents[1] / "fixtures/lowres_action/mini_tinyvirat"
SETTINGS = Config(
    data=Data(
        train=str(MINI / "tiny_train.json"),
        validation=str(MINI / "tiny_train.json"),
        test=str(MINI / "tiny_test.json"),
        workers=0,
    ),
    model=Network(frames=8, side_in=14, side=28, width=0.125),
    train=Train(epochs=1, batch=3),
)


@pytest.fixture(scope="module")
def once_trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("judged") / "run"
    train(SETTINGS, folder)
    return folder


@pytest.fixture
def trained(once_trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(once_trained, tmp_path / "run"))


def metrics_in(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "metrics.json").read_text())


@pytest.mark.needs_matplotlib
def test_everything_is_written(trained: Path) -> None:
    scores = judge(trained, npy=True, answer=True)
    assert scores is not None and scores.clips == 2
    assert {path.name for path in (trained / "test").iterdir()} == {
        *("predictions.h5", "metrics.json", "per_class.csv"),
        *("classes.png", "mistakes.png", "resized.png", "training.png"),
        *("predictions.npy", "actuals.npy", "logits.npy", "confusion.npy", "answer.txt"),
    }
    for picture in (trained / "test").glob("*.png"):
        assert picture.read_bytes().startswith(b"\x89PNG") and picture.stat().st_size > 5000


def test_scores_are_those_of_the_predictions_beside_them(trained: Path) -> None:
    judge(trained, test=Settings(threshold=0.9), plots=False)
    predictions, found = Predictions.load(trained / "test/predictions.h5"), metrics_in(trained / "test")
    thresholds = tuned(Predictions.load(trained / "validation.h5"))
    assert found["fixed"] == scored(predictions, 0.9).to_dict()
    assert found["tuned"] == scored(predictions, thresholds).to_dict()
    assert found["fixed"] != found["tuned"]
    assert found["by"] == "fixed" and found["f1_macro"] == found["fixed"]["f1_macro"]
    assert found["sha256"] == predictions.facts["sha256"] and found["manifest"] == SETTINGS.data.test
    with open(trained / "test/per_class.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["thresholds"], row["class"]) for row in rows] == [
        (by, name) for by in ("fixed", "tuned") for name in predictions.classes
    ]
    assert [float(row["threshold"]) for row in rows[26:]] == pytest.approx(thresholds.tolist(), abs=1e-6)


def test_tuned_thresholds_decide_if_asked(trained: Path) -> None:
    scores = judge(trained, test=Settings(threshold="tuned"), npy=True, plots=False)
    found, seen = metrics_in(trained / "test"), np.load(trained / "test/predictions.npy")
    assert scores is not None and scores.to_dict() == found["tuned"]
    assert (found["by"], found["fixed"]["classes"][0]["threshold"]) == ("tuned", 0.5)
    thresholds = tuned(Predictions.load(trained / "validation.h5"))
    np.testing.assert_array_equal(seen, Predictions.load(trained / "test/predictions.h5").seen(thresholds))


def test_test_clips_move_no_threshold(trained: Path) -> None:
    """Judged on other clips, the thresholds are the same."""
    judge(trained, plots=False)
    judge(trained, MINI / "tiny_train.json", output=trained / "other", plots=False)
    one, other = metrics_in(trained / "test"), metrics_in(trained / "other")
    assert (one["clips"], other["clips"]) == (2, 3)
    for by in ("fixed", "tuned"):
        assert [c["threshold"] for c in one[by]["classes"]] == [c["threshold"] for c in other[by]["classes"]]


def test_validation_judged_again_gives_what_training_saw(trained: Path) -> None:
    judge(trained, MINI / "tiny_train.json", plots=False)
    again, then = Predictions.load(trained / "test/predictions.h5"), Predictions.load(trained / "validation.h5")
    assert again.ids == then.ids
    np.testing.assert_allclose(again.probabilities, then.probabilities, atol=1e-6)


def test_clips_without_labels_have_an_answer_and_no_scores(trained: Path) -> None:
    judge(trained, plots=False)
    assert (trained / "test/metrics.json").exists()
    unlabeled = json.loads((MINI / "tiny_test.json").read_text())["tubes"]
    clips = [{"id": f"{number:05d}", "path": tube["path"]} for number, tube in enumerate(unlabeled)]
    manifest = trained / "tiny_test_v2_public.json"
    manifest.write_text(json.dumps(clips))
    shutil.copytree(MINI / "videos/test", trained / "videos/test")
    assert judge(trained, manifest, answer=True, npy=True) is None
    assert {path.name for path in (trained / "test").iterdir()} == {
        *("predictions.h5", "metrics.json", "answer.txt", "predictions.npy", "logits.npy"),
    }
    assert "f1_macro" not in metrics_in(trained / "test")
    lines = (trained / "test/answer.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["00000", "00001"]
    assert all(len(line.split()) == 27 for line in lines)


def lone_classifier(tmp_path: Path, classes: tuple[str, ...] = ("activity_walking", "vehicle_moving")) -> Path:
    design = Design(classes=classes, frames=8, side_in=14, side=28, width=0.125, resizer="none")
    save(tmp_path / "lone.pt", load("synthetic", design))
    return tmp_path / "lone.pt"


def labeled_manifest(tmp_path: Path, *labels: str) -> Path:
    clips = sorted((MINI / "videos").rglob("*.mp4"))[: len(labels)]
    lines = [f"{clip},{label}" for clip, label in zip(clips, labels, strict=True)]
    (tmp_path / "clips.csv").write_text("\n".join(["path,labels", *lines]))
    return tmp_path / "clips.csv"


def test_pictures_of_a_classifier_with_red_and_blue_exchanged_have_the_right_colors() -> None:
    manifest, design = read_manifest(MINI / "tiny_test.json"), Design(classes=("a",), frames=8, side_in=14, side=28)
    rgb, bgr = (
        strips_of(load("synthetic", replace(design, width=0.125, colors=colors)), manifest, torch.device("cpu"))
        for colors in ("rgb", "bgr")
    )
    assert len(rgb) == len(bgr) == 2
    for one, other in zip(rgb, bgr, strict=True):
        assert one.title == other.title and manifest.classes[manifest.clips[0].labels[0]] in rgb[0].title
        assert one.before_thwc.shape == (8, 14, 14, 3) and one.after_thwc.shape == (8, 28, 28, 3)
        np.testing.assert_array_equal(one.before_thwc, other.before_thwc)
        np.testing.assert_allclose(one.bilinear_thwc, other.bilinear_thwc, atol=1e-6)
        assert not np.allclose(one.after_thwc, other.after_thwc)


@pytest.mark.needs_matplotlib
def test_a_classifier_without_a_training_is_judged(tmp_path: Path) -> None:
    manifest = labeled_manifest(tmp_path, "activity_walking", "vehicle_moving;activity_walking")
    scores = judge(lone_classifier(tmp_path), manifest, workers=0)
    assert scores is not None and scores.support.tolist() == [2, 1]
    assert "tuned" not in metrics_in(tmp_path / "test")
    assert {path.name for path in (tmp_path / "test").glob("*.png")} == {"classes.png", "mistakes.png"}


def test_an_old_test_leaves_nothing_behind(tmp_path: Path) -> None:
    classifier = lone_classifier(tmp_path)
    manifest = labeled_manifest(tmp_path, "activity_walking", "vehicle_moving")
    judge(classifier, manifest, workers=0, npy=True, answer=True, plots=False)
    (tmp_path / "test/notes.txt").write_text("mine")
    judge(classifier, manifest, workers=0, plots=False)
    names = {path.name for path in (tmp_path / "test").iterdir()}
    assert names == {"notes.txt", "predictions.h5", "metrics.json", "per_class.csv"}


def test_what_no_test_has_written_is_not_removed(tmp_path: Path) -> None:
    manifest = labeled_manifest(tmp_path, "activity_walking", "vehicle_moving")
    (tmp_path / "logits.npy").write_text("of another program")
    judge(lone_classifier(tmp_path), manifest, output=tmp_path, workers=0, plots=False)
    assert (tmp_path / "logits.npy").exists() and (tmp_path / "metrics.json").exists()


def test_a_classifier_brings_its_thresholds_along_but_not_its_data(trained: Path, tmp_path: Path) -> None:
    config = replace(SETTINGS, data=replace(SETTINGS.data, root="/nowhere", test=""))
    known = trained_in(trained)
    assert known.thresholds is not None
    moved = tmp_path / "elsewhere.pt"
    save(moved, known.classifier, config=config.to_dict(), thresholds=known.thresholds.tolist())
    scores = judge(moved, MINI / "tiny_test.json", test=Settings(threshold="tuned"), plots=False)
    assert scores is not None
    np.testing.assert_array_equal(scores.threshold, known.thresholds)


def test_a_folder_without_a_finished_epoch_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(MissingInput, match=r"has no best\.pt yet: train"):
        judge(tmp_path)
    with pytest.raises(MissingInput, match=r"gone\.pt is not there"):
        judge(tmp_path / "gone.pt")


def test_who_names_no_clips_is_asked_for_them(tmp_path: Path, trained: Path) -> None:
    with pytest.raises(UsageError, match="--manifest"):
        judge(lone_classifier(tmp_path))
    config = replace(SETTINGS, data=replace(SETTINGS.data, test=""))
    (trained / "config.json").write_text(json.dumps(config.to_dict()))
    with pytest.raises(UsageError, match="--manifest"):
        judge(trained)


def test_a_label_that_the_classifier_does_not_know_is_named(tmp_path: Path) -> None:
    manifest = labeled_manifest(tmp_path, "activity_walking", "juggling")
    with pytest.raises(BadInput, match=r"'juggling'.*activity_walking, vehicle_moving"):
        judge(lone_classifier(tmp_path), manifest)


def test_what_was_never_tuned_cannot_be_asked_for(tmp_path: Path) -> None:
    manifest = labeled_manifest(tmp_path, "activity_walking")
    with pytest.raises(UsageError, match="validation"):
        judge(lone_classifier(tmp_path), manifest, test=Settings(threshold="tuned"))


def test_a_damaged_configuration_is_named(trained: Path) -> None:
    for text in ("{", "[]"):
        (trained / "config.json").write_text(text)
        with pytest.raises(BadInput, match=r"config\.json is no configuration of a training"):
            trained_in(trained)


def test_who_is_asked_to_stop_writes_nothing(trained: Path) -> None:
    with pytest.raises(Stopped):
        judge(trained, test=Settings(batch=1), stop=lambda: "SIGTERM")
    assert not (trained / "test").exists()


def test_a_file_in_the_way_is_told_before_any_clip_is_looked_at(trained: Path) -> None:
    (trained / "test").write_text("mine")
    with pytest.raises(WriteError, match=r"cannot write into .*/test: name another folder"):
        judge(trained, test=Settings(batch=1), stop=lambda: "SIGTERM")

"""What TensorBoard is given, read back from its files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_clips import CLASSES, write_clips

from streamsal.actions.board import GAP_PX, Board, pairs, table
from streamsal.actions.manifest import Manifest, read_manifest
from streamsal.actions.predictions import Predictions
from streamsal.actions.scores import Scores, scored
from streamsal.models.classifier import Classifier
from streamsal.models.design import Design

CPU = torch.device("cpu")


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(write_clips(tmp_path, 3).with_name("clips.csv"))


def scores() -> Scores:
    probabilities = np.array([[0.9, 0.8], [0.1, 0.7], [0.8, 0.2]], np.float32)
    targets = np.array([[1, 0], [0, 0], [1, 0]], np.uint8)
    ids = ("a", "b", "c")
    logits = np.log(probabilities / (1 - probabilities))
    return scored(Predictions(classes=CLASSES, ids=ids, targets=targets, logits=logits, probabilities=probabilities))


def written(folder: Path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder), size_guidance={"images": 0, "scalars": 0, "tensors": 0})
    found.Reload()
    return found


def test_curves_scores_pictures_and_thetas_are_there(tmp_path: Path, manifest: Manifest) -> None:
    design = Design(
        classes=CLASSES, frames=8, side_in=16, side=28, width=0.0625, resizer="transformer", read=0, apply=1
    )
    with Board(tmp_path / "tb", from_step=0, device=CPU) as board:
        board.step(1, {"loss": 0.5, "lr": 0.001, "clips_per_second": 12.0, "waits_for": "model"})
        board.epoch(2, 0.25, scores(), Classifier(design), manifest, [0, 2])
    found = written(tmp_path / "tb")
    tags = found.Tags()
    assert {
        "train/loss",
        "train/lr",
        "train/clips_per_second",
        "validation/loss",
        "validation/f1_macro",
        "validation/map",
    } <= {*tags["scalars"]}
    assert (found.Scalars("train/loss")[0].step, found.Scalars("train/loss")[0].value) == (1, 0.5)
    (picture,) = found.Images("resizer/before_after")
    assert (picture.width, picture.height) == (2 * (28 + 2 * GAP_PX), 2 * (28 + 2 * GAP_PX))
    assert tags["histograms"] == [f"theta/{row}{column}" for row in (0, 1) for column in (0, 1, 2)]
    assert "validation/classes/text_summary" in tags["tensors"]


def test_what_was_written_behind_the_step_that_goes_on_is_hidden(tmp_path: Path) -> None:
    facts = {"lr": 0.001, "clips_per_second": 12.0}
    with Board(tmp_path, from_step=0, device=CPU) as board:
        for step in (1, 2, 3):
            board.step(step, {"loss": step, **facts})
    with Board(tmp_path, from_step=1, device=CPU) as board:
        board.step(2, {"loss": 20, **facts})
    assert [(x.step, x.value) for x in written(tmp_path).Scalars("train/loss")] == [(1, 1), (2, 20)]


def test_a_row_for_each_class() -> None:
    head, _, down, right = table(scores()).splitlines()
    assert head == "| class | clips | F1 | precision | recall | AP |"
    assert down == "| down | 2 | 1.000 | 1.000 | 1.000 | 1.000 |"
    assert right == "| right | 0 | 0.000 | 0.000 | 0.000 |  |"  # no clip, so no average precision


def test_pictures_are_above_as_given_and_below_as_resized_in_true_colors() -> None:
    before, after = torch.full((2, 3, 2, 2), -1.0), torch.zeros(2, 3, 4, 4)
    after[0, 2] = 3.0  # red of BGR, beyond what can be shown
    picture = pairs(before, after, "bgr")
    assert picture.shape == (3, 2 * (4 + 2 * GAP_PX), 2 * (4 + 2 * GAP_PX))
    assert picture[:, GAP_PX, GAP_PX].tolist() == [0, 0, 0]
    assert picture[:, -GAP_PX - 1, GAP_PX].tolist() == [1, 0.5, 0.5]
    assert picture[:, -GAP_PX - 1, -GAP_PX - 1].tolist() == [0.5, 0.5, 0.5]

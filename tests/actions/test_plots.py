"""Pictures are there, whole, and show in their pixels what they say."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from streamsal.actions.plots import (
    BLUE,
    ORANGE,
    VERMILION,
    Strip,
    plot_classes,
    plot_log,
    plot_mistakes,
    plot_resized,
)
from streamsal.actions.predictions import Predictions
from streamsal.actions.scores import Scores, scored
from streamsal.errors import BadInput, MissingInput, UsageError

pytestmark = pytest.mark.needs_matplotlib


def judged(probability: Any, target: Any, n_classes: int = 3) -> tuple[Predictions, Scores]:
    probability = np.asarray(probability, np.float32)
    predictions = Predictions(
        classes=tuple(f"class {k}" for k in range(n_classes)),
        ids=tuple(map(str, range(len(probability)))),
        targets=np.asarray(target, np.uint8),
        logits=probability,
        probabilities=probability,
    )
    return predictions, scored(predictions, 0.5)


RIGHT = judged([[0.9, 0.1, 0.1], [0.1, 0.9, 0.1]], [[1, 0, 0], [0, 1, 0]])
WRONG = judged([[0.1, 0.9, 0.1], [0.9, 0.1, 0.1]], [[1, 0, 0], [0, 1, 0]])


def pixels(path: Path) -> np.ndarray:
    from matplotlib.image import imread

    return (imread(path)[..., :3] * 255).round().astype(int)


def share_of(color: str, path: Path) -> float:
    """Of the pixels."""
    rgb = [int(color[k : k + 2], 16) for k in (1, 3, 5)]
    return float((np.abs(pixels(path) - rgb).max(-1) <= 2).mean())


def drawn(classes: tuple[str, ...], folder: Path) -> list[bytes]:
    predictions, scores = replace(RIGHT[0], classes=classes), replace(RIGHT[1], classes=classes)
    paths = plot_classes(scores, folder / "c.png"), plot_mistakes(predictions, scores, folder / "m.png")
    return [path.read_bytes() for path in paths]


def test_bars_are_as_long_as_classes_are_seen_well(tmp_path: Path) -> None:
    right = plot_classes(RIGHT[1], tmp_path / "right.png")
    wrong = plot_classes(WRONG[1], tmp_path / "wrong.png")
    legend = share_of(BLUE, wrong)
    assert share_of(BLUE, right) > 10 * legend > 0
    assert share_of(ORANGE, right) == 0


def test_tuned_thresholds_are_dots(tmp_path: Path) -> None:
    assert share_of(ORANGE, plot_classes(WRONG[1], tmp_path / "c.png", tuned=RIGHT[1])) > 0


def test_what_is_right_is_blue_and_what_is_wrong_is_orange(tmp_path: Path) -> None:
    right, wrong = (plot_mistakes(*one, tmp_path / f"{k}.png") for k, one in enumerate((RIGHT, WRONG)))
    assert share_of(BLUE, right) > 0.01 and share_of(VERMILION, right) == 0
    assert share_of(VERMILION, wrong) > 0.01 and share_of(BLUE, wrong) == 0


def test_seeing_another_labeled_class_is_no_mistake(tmp_path: Path) -> None:
    both = judged([[0.9, 0.9, 0.1]], [[1, 1, 0]])
    path = plot_mistakes(*both, tmp_path / "m.png")
    assert share_of(VERMILION, path) == 0 < share_of(BLUE, path)


def test_one_class_and_many_classes_can_be_drawn(tmp_path: Path) -> None:
    for n in (1, 40):
        predictions, scores = judged(np.eye(n), np.eye(n), n)
        for path in (
            plot_classes(scores, tmp_path / "c.png", tuned=scores),
            plot_mistakes(predictions, scores, tmp_path / "m.png"),
        ):
            assert share_of(BLUE, path) > 0.001


@pytest.mark.filterwarnings("error")
def test_classes_may_have_any_name(tmp_path: Path) -> None:
    """Formulas are not read, letters that no font has are no news, long names keep both ends."""
    assert drawn(("a", r"$\foo$", "歩く"), tmp_path) != drawn(("a", "foo", "歩く"), tmp_path)
    assert drawn(("a", "b", f"x{'y' * 300}z"), tmp_path) == drawn(("a", "b", f"x{'y' * 400}z"), tmp_path)
    assert drawn(("a", "b", "y" * 300), tmp_path) != drawn(("a", "b", f"{'y' * 300}z"), tmp_path)


def strip(after: np.ndarray) -> Strip:
    before = np.zeros((3, 4, 4, 3), np.float32)
    bilinear = np.zeros((3, 8, 8, 3), np.float32)
    return Strip(title="0: walking", before_thwc=before, after_thwc=after, bilinear_thwc=bilinear)


def test_a_resizer_that_brightens_is_seen_to(tmp_path: Path) -> None:
    """Values without bounds, one frame of which is changed; PuOr is symmetric about white."""
    after = np.zeros((3, 8, 8, 3), np.float32)
    same = plot_resized([strip(after)], tmp_path / "same.png")
    after[1, :4] = 7.0
    changed = plot_resized([strip(after), strip(after)], tmp_path / "changed.png")
    assert pixels(changed).shape[0] == 2 * pixels(same).shape[0]
    brown = "#7f3b08"
    assert share_of(brown, changed) > 5 * share_of(brown, same)


def log_of(tmp_path: Path, n_epochs: int) -> Path:
    lines: list[dict[str, Any]] = []
    for epoch in range(1, n_epochs + 1):
        lines += [{"epoch": epoch, "step": 2 * epoch - 1 + k, "loss": 1 / (epoch + k), "lr": 0.1} for k in (0, 1)]
        scores = {"loss": 0.5, "f1_macro": 0.1 * epoch, "f1_micro": 0.5, "map": 0.3}
        lines.append({"epoch": epoch, "step": 2 * epoch, "validation": scores, "best": epoch < 3})
    (tmp_path / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines[:-1] or lines))
    return tmp_path / "log.jsonl"


@pytest.mark.parametrize("n_epochs", [1, 2, 4])
def test_curves_of_a_training_that_may_be_under_way(tmp_path: Path, n_epochs: int) -> None:
    path = plot_log(log_of(tmp_path, n_epochs), tmp_path / "log.png")
    assert (share_of(BLUE, path) > 0) == (share_of(VERMILION, path) > 0) == (n_epochs > 1)


def test_a_log_that_says_nothing_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    with pytest.raises(MissingInput, match="log"):
        plot_log(log, tmp_path / "log.png")
    for text in ("", "no json"):
        log.write_text(text)
        with pytest.raises(BadInput, match="log"):
            plot_log(log, tmp_path / "log.png")


def test_unlabeled_clips_have_no_mistakes(tmp_path: Path) -> None:
    logits = np.zeros((1, 3), np.float32)
    unlabeled = Predictions(classes=("a", "b", "c"), ids=("x",), targets=None, logits=logits, probabilities=logits)
    with pytest.raises(UsageError, match="without labels"):
        plot_mistakes(unlabeled, RIGHT[1], tmp_path / "m.png")


def test_the_same_picture_every_time(tmp_path: Path) -> None:
    first, second = (plot_classes(RIGHT[1], tmp_path / f"{k}.png").read_bytes() for k in range(2))
    assert first == second


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(UsageError, match=r"needs matplotlib: pip install 'streamsal\[train\]'"):
        plot_classes(RIGHT[1], tmp_path / "c.png")

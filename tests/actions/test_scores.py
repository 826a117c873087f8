"""Scores are those that scikit-learn gives, and no threshold is better than the one that was found."""

from __future__ import annotations

import json
import math
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streamsal.actions.predictions import Predictions
from streamsal.actions.scores import Scores, scored, tuned
from streamsal.errors import UsageError

METRICS = Path(__file__).parents[1] / "fixtures/lowres_action/metrics.npz"


def predictions_of(probability: Any, target: Any) -> Predictions:
    probability = np.asarray(probability, np.float32)
    n, n_classes = probability.shape
    return Predictions(
        classes=tuple(f"class {k}" for k in range(n_classes)),
        ids=tuple(map(str, range(n))),
        targets=None if target is None else np.asarray(target, np.uint8),
        logits=probability,
        probabilities=probability,
    )


@pytest.fixture(scope="module")
def truth() -> dict[str, np.ndarray]:
    with np.load(METRICS) as file:
        return dict(file)


@pytest.fixture(scope="module")
def scores(truth: dict[str, np.ndarray]) -> Scores:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return scored(predictions_of(truth["prob"], truth["target"]), 0.5)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("f1_macro", "f1_macro"),
        ("f1_micro", "f1_micro"),
        ("f1_samples", "f1_samples"),
        ("exact_match", "accuracy_subset"),
        ("hamming", "hamming_accuracy"),
        ("f1", "f1_per_class"),
        ("precision", "precision_per_class"),
        ("recall", "recall_per_class"),
        ("map", "map_present"),
        ("map_all", "map_sklearn_macro"),
    ],
)
def test_scores_are_those_of_scikit_learn(scores: Scores, truth: dict[str, np.ndarray], name: str, known: str) -> None:
    np.testing.assert_allclose(getattr(scores, name), truth[known], rtol=0, atol=1e-6)


def test_average_precision_is_missing_where_no_clip_is_labeled(scores: Scores, truth: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(np.isnan(scores.ap), scores.support == 0)
    known = truth["ap_per_class_nan_absent"]
    np.testing.assert_allclose(np.nan_to_num(scores.ap, nan=-1.0), known, rtol=0, atol=1e-6)


def test_counts_are_exact(scores: Scores, truth: dict[str, np.ndarray]) -> None:
    np.testing.assert_array_equal(scores.support, truth["support"])
    np.testing.assert_array_equal(scores.confusion, truth["confusion"])


def test_a_probability_at_the_threshold_counts(truth: dict[str, np.ndarray], scores: Scores) -> None:
    above = scored(predictions_of(truth["prob"], truth["target"]), np.nextafter(np.float32(0.5), np.float32(1)))
    assert (truth["prob"] == 0.5).sum() == 94
    assert scores.confusion[:, :, 1].sum() - above.confusion[:, :, 1].sum() == 94


def test_small_logits_are_not_taken_for_probabilities_nor_the_other_way() -> None:
    low = scored(predictions_of([[0.4, 0.3], [0.2, 0.45]], [[1, 0], [0, 1]]), 0.5)
    assert (low.f1_micro, low.map) == (0.0, 1.0)


def test_one_class_and_one_clip_have_scores() -> None:
    one = scored(predictions_of([[0.9]], [[1]]), 0.5)
    assert [getattr(one, name) for name in ("f1_macro", "f1_micro", "f1_samples", "exact_match", "map")] == [1.0] * 5
    assert (one.f1.shape, one.confusion.tolist()) == ((1,), [[[0, 0], [0, 1]]])
    assert one.rows()[0]["recall"] == 1.0


def test_clips_without_any_positive_have_scores() -> None:
    none = scored(predictions_of([[0.9, 0.1]], [[0, 0]]), 0.5)
    assert (none.map, none.map_all, none.f1_macro, none.hamming) == (0.0, 0.0, 0.0, 0.5)


def test_scores_go_through_json(scores: Scores) -> None:
    found = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert found["f1_macro"] == 0.642075 and found["clips"] == 300
    assert [row["class"] for row in found["classes"]] == list(scores.classes)
    assert found["classes"][4] | {"threshold": 0} == {
        "class": "class 4", "support": 0, "threshold": 0, "precision": 0.0, "recall": 0.0, "f1": 0.0, "ap": None,
        "tn": 218, "fp": 82, "fn": 0, "tp": 0,
    }  # fmt: skip


@pytest.mark.parametrize("work", [scored, tuned])
def test_without_labels_there_is_nothing_to_score(work: Any) -> None:
    with pytest.raises(UsageError, match="without labels"):
        work(predictions_of([[0.5]], None))


def test_without_clips_there_is_nothing_to_score() -> None:
    with pytest.raises(UsageError, match="no clip"):
        scored(predictions_of(np.zeros((0, 2)), np.zeros((0, 2))))


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics", None)
    with pytest.raises(UsageError, match=r"needs torchmetrics: pip install 'streamsal\[train\]'"):
        scored(predictions_of([[0.5]], [[1]]))


CLIPS = st.lists(st.tuples(st.sampled_from([0.0, 0.25, 0.3, 0.5, 0.7, 0.75, 1.0]), st.booleans()), min_size=1)


def f1_of(probability: np.ndarray, target: np.ndarray, threshold: float) -> float:
    seen = probability >= np.float32(threshold)
    hits = int((seen & target).sum())
    return 2 * hits / int(seen.sum() + target.sum()) if hits else 0.0


@given(CLIPS)
def test_no_threshold_is_better_than_the_tuned_one(clips: list[tuple[float, bool]]) -> None:
    probability = np.array([p for p, _ in clips], np.float32)
    target = np.array([t for _, t in clips])
    (found,) = tuned(predictions_of(probability[:, None], target[:, None]))
    best = max(f1_of(probability, target, k / 200) for k in range(202))
    assert f1_of(probability, target, found) == best
    nearer = [t for t in [0.5, *probability] if abs(t - 0.5) < abs(found - 0.5)]
    assert not target.any() or all(f1_of(probability, target, t) < best for t in nearer)


def test_a_class_without_labels_keeps_one_half() -> None:
    assert tuned(predictions_of([[0.9], [0.1]], [[0], [0]])).tolist() == [0.5]


def test_one_half_stays_where_it_is_as_good_as_any() -> None:
    assert tuned(predictions_of([[0.9], [0.1]], [[1], [0]])).tolist() == [0.5]


def test_classes_are_tuned_one_by_one(truth: dict[str, np.ndarray], scores: Scores) -> None:
    predictions = predictions_of(truth["prob"], truth["target"])
    thresholds = tuned(predictions)
    better = scored(predictions, thresholds)
    assert (better.f1 >= scores.f1).all() and better.f1_macro > scores.f1_macro + 0.1
    np.testing.assert_array_equal(better.threshold, thresholds)
    assert math.isclose(better.map, scores.map)

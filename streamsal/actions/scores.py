"""Predictions in, scores out: how well classes were seen, all together and one by one. No files, no networks.

Decisions are made before torchmetrics sees them (it takes "more than" a threshold, the field "at least"), and its plain
functions are used: its objects would add up what several processes hold of the same clips.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import UsageError
from ..extras import need
from .predictions import Predictions

OVERALL = ("f1_macro", "f1_micro", "f1_samples", "exact_match", "hamming", "map", "map_all")
PER_CLASS = ("support", "threshold", "precision", "recall", "f1", "ap")


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """Shares between 0 and 1; what would be 0 / 0 is 0, as in scikit-learn.

    f1_macro      mean of the classes' F1: a class without a labeled clip counts as 0
    f1_micro      F1 of all decisions together
    f1_samples    mean of the clips' F1
    exact_match   clips whose labels are all right
    hamming       decisions that are right
    map           mean of the average precision of classes that have a labeled clip: it asks for no threshold
    map_all       the same over all classes, where one without a labeled clip counts as 0, as in scikit-learn

    Of each class (C,): `support` labeled clips, `threshold`, `precision`, `recall`, `f1`, `ap` (NaN without a labeled
    clip), and `confusion` (C, 2, 2): [[TN, FP], [FN, TP]].
    """

    clips: int
    classes: tuple[str, ...]
    f1_macro: float
    f1_micro: float
    f1_samples: float
    exact_match: float
    hamming: float
    map: float
    map_all: float
    support: NDArray[np.int64] = field(repr=False)
    threshold: NDArray[np.float32] = field(repr=False)
    precision: NDArray[np.float64] = field(repr=False)
    recall: NDArray[np.float64] = field(repr=False)
    f1: NDArray[np.float64] = field(repr=False)
    ap: NDArray[np.float64] = field(repr=False)
    confusion: NDArray[np.int64] = field(repr=False)

    def rows(self) -> list[dict[str, Any]]:
        """One per class, for a table, to six places; None for what there is not."""
        rows = []
        for k, name in enumerate(self.classes):
            row = {column: round(getattr(self, column)[k].item(), 6) for column in PER_CLASS}
            counts = zip(("tn", "fp", "fn", "tp"), self.confusion[k].ravel().tolist(), strict=True)
            rows.append({"class": name, **row, "ap": row["ap"] if self.support[k] else None, **dict(counts)})
        return rows

    def to_dict(self) -> dict[str, Any]:
        """As in metrics.json: {"clips", "f1_macro", ..., "classes": one row for each}."""
        return {
            "clips": self.clips,
            **{name: round(getattr(self, name), 6) for name in OVERALL},
            "classes": self.rows(),
        }


def scored(predictions: Predictions, thresholds: float | NDArray[np.floating] = 0.5) -> Scores:
    """A class is seen where its probability is at least the threshold, one for all or one for each class.

    Raises UsageError where nothing is labeled, where there is no clip, and without torchmetrics.
    """
    if predictions.targets is None:
        raise UsageError("clips without labels have no scores: name a manifest with labels")
    if not predictions.ids:
        raise UsageError("there is no clip to score: name a manifest with clips")
    metrics, n_classes = _torchmetrics(), len(predictions.classes)
    target = torch.from_numpy(predictions.targets.astype(np.int64))
    seen = torch.from_numpy(predictions.seen(thresholds).astype(np.int64))
    support = target.sum(0).numpy()

    def measured(metric: str, seen: Tensor = seen, target: Tensor = target, **options: Any) -> NDArray[np.float64]:
        options["validate_args"] = False  # its checks want two classes at least; ours have been made
        return getattr(metrics, f"multilabel_{metric}")(seen, target, seen.shape[1], **options).double().numpy()

    def of_each(metric: str) -> NDArray[np.float64]:
        return measured(metric, average="none").reshape(n_classes)  # of one class comes a bare number

    probability = torch.from_numpy(predictions.probabilities)
    ap = np.full(n_classes, np.nan)
    for k in support.nonzero()[0]:
        ap[k] = metrics.binary_average_precision(probability[:, k], target[:, k])
    return Scores(
        clips=len(target),
        classes=predictions.classes,
        f1_macro=float(measured("f1_score", average="macro")),
        f1_micro=float(measured("f1_score", average="micro")),
        f1_samples=float(measured("f1_score", seen.T, target.T, average="macro")),
        exact_match=float(measured("exact_match")),
        hamming=float(measured("accuracy", average="micro")),
        map=float(ap[support > 0].mean()) if support.any() else 0.0,
        map_all=float(np.nan_to_num(ap).mean()),
        support=support,
        threshold=np.broadcast_to(np.asarray(thresholds, np.float32), (n_classes,)),
        precision=of_each("precision"),
        recall=of_each("recall"),
        f1=of_each("f1_score"),
        ap=ap,
        confusion=measured("confusion_matrix").astype(np.int64).reshape(n_classes, 2, 2),
    )


def tuned(predictions: Predictions) -> NDArray[np.float32]:
    """(C,) the threshold of each class with the best F1 on these clips; of equals the one nearest to 0.5.

    Tried are the probabilities that occur, and 0.5. A class without a labeled clip keeps 0.5. The clips have to be of
    validation: a threshold is a weight like others, and on the clips that chose it, it looks better than it is, the
    more so the fewer of them show the class. With three of them it follows chance; what it is worth, other clips tell.
    """
    if predictions.targets is None:
        raise UsageError("thresholds cannot be tuned on clips without labels: name a manifest with labels")
    columns = zip(predictions.probabilities.T, predictions.targets.T, strict=True)
    return np.array([_best_threshold(probability, target) for probability, target in columns], np.float32)


def _best_threshold(probability: NDArray[np.float32], target: NDArray[np.uint8]) -> float:
    if not target.any():
        return 0.5
    tried = np.unique(np.append(probability, np.float32(0.5)))
    n_seen = len(probability) - np.searchsorted(np.sort(probability), tried)
    positives = np.sort(probability[target > 0])
    hits = len(positives) - np.searchsorted(positives, tried)
    f1 = 2 * hits / (n_seen + len(positives))
    best = tried[f1 == f1.max()]
    return float(best[np.abs(best - 0.5).argmin()])


def _torchmetrics() -> Any:
    need("train", "scoring clips", "torchmetrics")
    from torchmetrics.functional import classification

    return classification

"""Losses against their formulas in plain numbers."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from streamsal.actions.config import Train
from streamsal.actions.losses import LARGEST_WEIGHT, asymmetric, loss_of, positive_weights

TARGETS = np.zeros((100, 3), np.uint8)
TARGETS[:20, 0] = 1
TARGETS[:80, 1] = 1
TARGETS[0, 2] = 1  # 99 to 1
LOGITS = torch.tensor([[0.3, -1.2, 2.0], [-0.7, 0.1, -4.0]])
LABELS = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.uint8)


def entropy(logit: float, label: int, weight: float = 1.0) -> float:
    seen = 1 / (1 + math.exp(-logit))
    return -(weight * math.log(seen) if label else math.log(1 - seen))


def each() -> list[tuple[int, float, int]]:
    return [(k, LOGITS[n, k].item(), int(LABELS[n, k])) for n in range(2) for k in range(3)]


def test_bce_is_the_mean_over_clips_and_classes() -> None:
    expected = sum(entropy(logit, label) for _, logit, label in each()) / 6
    assert loss_of(Train(), TARGETS)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_positives_of_rare_classes_weigh_more_but_not_without_bound() -> None:
    assert positive_weights(TARGETS).tolist() == [4.0, 0.25, LARGEST_WEIGHT]
    assert positive_weights(np.zeros((5, 1), np.uint8)).tolist() == [5.0]
    weights = (4.0, 0.25, LARGEST_WEIGHT)
    expected = sum(entropy(logit, label, weights[k]) for k, logit, label in each()) / 6
    assert loss_of(Train(loss="weighted"), TARGETS)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-6)


def test_the_asymmetric_loss_is_the_paper_s() -> None:
    def one(logit: float, label: int) -> float:
        seen = 1 / (1 + math.exp(-logit))
        shifted = max(seen - 0.05, 0)
        return -(1 - seen) * math.log(seen) if label else -(shifted**4) * math.log(1 - shifted)

    expected = sum(one(logit, label) for _, logit, label in each()) / 6
    assert loss_of(Train(loss="asymmetric"), TARGETS)(LOGITS, LABELS).item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("name", ["bce", "weighted", "asymmetric"])
def test_losses_are_float32_and_finite_where_half_precision_ends(name: str) -> None:
    logits = torch.tensor([[100.0, -100.0, 0.0]], dtype=torch.float16, requires_grad=True)
    for labels in ([[0, 1, 1]], [[1, 0, 0]]):
        loss = loss_of(Train(loss=name), TARGETS)(logits, torch.tensor(labels))  # type: ignore[arg-type]
        assert loss.dtype == torch.float32 and loss.isfinite()
        (gradient,) = torch.autograd.grad(loss, logits)
        assert gradient.isfinite().all()


def test_negatives_below_the_margin_teach_nothing() -> None:
    logits = torch.tensor([[-4.0]], requires_grad=True)
    asymmetric(logits, torch.tensor([[0]])).backward()
    assert logits.grad is not None and logits.grad.item() == 0

"""What training makes small: logits and labels (n, classes) in, the mean over all of them out, in float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .config import Train

Loss = Callable[[Tensor, Tensor], Tensor]

# A positive of a class with 10 clips among 7600 would weigh 760: it would decide a step alone, the gradient's norm
# being clipped. With 20 it weighs about as much as all other labels of its clip, TinyVIRAT having 26 classes.
LARGEST_WEIGHT = 20.0

# Ridnik et al. 2021: gamma- and margin of the experiments on MS-COCO; gamma+, which is 0 there, as the authors' code
# has it, so that positives which are sure already count less, too.
GAMMA_NEGATIVE, GAMMA_POSITIVE, MARGIN = 4, 1, 0.05


def loss_of(train: Train, targets: np.ndarray) -> Loss:
    """`targets` (clips, classes): the labels of all clips of training, by which "weighted" weighs."""
    if train.loss == "asymmetric":
        return asymmetric
    weights = torch.from_numpy(positive_weights(targets)) if train.loss == "weighted" else None

    def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
        of_positives = None if weights is None else weights.to(logits.device)
        return functional.binary_cross_entropy_with_logits(logits.float(), labels.float(), pos_weight=of_positives)

    return cross_entropy


def positive_weights(targets: np.ndarray) -> np.ndarray:
    """(classes,) float32: clips without a class for each clip with it, at most LARGEST_WEIGHT."""
    positives = targets.sum(0, dtype=np.int64)
    return np.minimum((len(targets) - positives) / np.maximum(positives, 1), LARGEST_WEIGHT).astype(np.float32)


def asymmetric(logits: Tensor, labels: Tensor) -> Tensor:
    """Ridnik et al. 2021 (arXiv 2009.14119): negatives below the margin count nothing, sure ones little."""
    logits, labels = logits.float(), labels.float()
    seen = torch.sigmoid(logits)
    beyond = (seen - MARGIN).clamp(min=0)
    of_positives = (1 - seen) ** GAMMA_POSITIVE * functional.logsigmoid(logits)
    of_negatives = beyond**GAMMA_NEGATIVE * torch.log1p(-beyond)
    return -(labels * of_positives + (1 - labels) * of_negatives).mean()

"""Labeled clips through a classifier: the forward pass of validation and test, on one process or many.

In flow rows of a manifest, out come their predictions, the same on every process and to the last bit the same however
many there are. Knows neither scores nor files.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ..progress import Progress
from ..signals import Stop
from .config import Test
from .predictions import Predictions

if TYPE_CHECKING:
    from ..models.classifier import Classifier
    from .manifest import Manifest
    from .processes import Processes


def predict(
    classifier: Classifier,
    manifest: Manifest,
    rows: Sequence[int],
    test: Test,
    *,
    processes: Processes,
    workers: int,
    dtype: torch.dtype = torch.float32,
    legacy_flip: bool = False,
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> Predictions:
    raise NotImplementedError

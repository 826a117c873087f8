"""Which clips an epoch shows, in which order, where each begins and whether it is mirrored.

All of it is a pure function of the seed and the epoch (Philox, a counter, not a state that moves on), so it does not
matter how many processes decode, how many train, or where a training was taken up again. Reads no video.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

from .config import Data, Train
from .reading import Wanted

T = TypeVar("T")


def epoch_of(rows: Sequence[int], targets: np.ndarray, data: Data, train: Train, epoch: int) -> list[Wanted]:
    """As many windows as there are `rows`, the clips to train on, with their labels in `targets` (rows, classes)."""
    lots = np.random.Generator(np.random.Philox(key=np.array([train.seed, epoch], np.uint64)))
    drawn = _balanced(targets, lots) if train.balance == "classes" else np.arange(len(rows))
    drawn = lots.permutation(drawn)
    begins = lots.random(len(drawn)) * (data.start == "random")
    mirrored = lots.random(len(drawn)) < data.flip
    shown = zip(drawn.tolist(), begins.tolist(), mirrored.tolist(), strict=True)
    return [Wanted(row=rows[place], at=at, flip=flip) for place, at, flip in shown]


def weights_of(targets: np.ndarray) -> np.ndarray:
    """(n,) how often each clip is drawn relative to one of the commonest class: sqrt(most / n of its rarest class).

    This is the repeat factor of Gupta et al. 2019 (LVIS), with the commonest class as its threshold. The root is a
    compromise: with 4600 clips of walking and 10 of loading, equal shares would show each of the ten 460 times as
    often, until they are known by heart. A clip of no class weighs 1.
    """
    n_clips = targets.sum(0)
    factor = np.sqrt(n_clips.max(initial=1) / np.maximum(n_clips, 1))
    return np.where(targets > 0, factor, 1.0).max(1, initial=1.0)


def _balanced(targets: np.ndarray, lots: np.random.Generator) -> np.ndarray:
    """Each clip as often as its weight says, rounded up or down: a comb over the weights' sums, shifted by lot."""
    reached = np.cumsum(weights_of(targets))
    comb = (np.arange(len(targets)) + lots.random()) / len(targets) * reached[-1]
    return np.minimum(np.searchsorted(reached, comb, side="right"), len(targets) - 1)


def share(shown: Sequence[T], rank: int, world: int) -> list[T]:
    """The part of process `rank`: every world-th. All parts are equally long, the first ones being shown again at the
    end where they do not divide: a process with a batch less would leave the others waiting for its gradients."""
    missing = -len(shown) % world
    return [*shown, *(shown[place % len(shown)] for place in range(missing))][rank::world]

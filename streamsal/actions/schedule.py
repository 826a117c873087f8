"""The learning rate of every step: a pure function, so that nothing of it has to be kept. Arithmetic alone."""

from __future__ import annotations

import math

from .config import Train


def learning_rate(step: int, n_steps: int, train: Train) -> float:
    """The rate of step 0 ... n_steps - 1 of a whole training.

    It rises in equal parts to `train.lr` in the first `train.warmup` epochs (Goyal et al. 2017), then falls as a half
    cosine to 0 behind the last step (Loshchilov & Hutter 2017, without restarts).
    """
    rising = min(round(train.warmup * n_steps / train.epochs), n_steps - 1)
    if step < rising:
        return train.lr * (step + 1) / (rising + 1)
    return train.lr * (1 + math.cos(math.pi * (step - rising) / (n_steps - rising))) / 2

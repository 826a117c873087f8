"""One step of training: batches of clips and their labels in, weights moved, the loss out.

Alone or with other processes, in any precision, over one batch or several. Reads no files and knows no epochs.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.amp.grad_scaler import GradScaler
from torch.nn.parallel import DistributedDataParallel

from ..errors import UsageError
from ..models.classifier import Classifier
from .config import Config
from .losses import loss_of
from .processes import Processes
from .schedule import learning_rate

SMALLEST_SCALE = 2.0**-10  # of gradients under float16: beyond, not their size is to blame but what they are of


class Stepper:
    """`targets` (clips, classes) are the labels of all clips of training, `n_steps` is the whole training's number."""

    def __init__(
        self,
        classifier: Classifier,
        config: Config,
        targets: np.ndarray,
        *,
        processes: Processes,
        dtype: torch.dtype,
        n_steps: int,
    ) -> None:
        self.classifier = classifier.to(processes.device)
        self.config, self.processes, self.dtype, self.n_steps = config.train, processes, dtype, n_steps
        self.frozen = config.model.freeze == "i3d"
        prepare(classifier, frozen=self.frozen, momentum=config.train.momentum)
        self.network: nn.Module = classifier
        if processes.world > 1:
            own = [processes.device] if processes.device.type == "cuda" else None
            self.network = DistributedDataParallel(classifier, device_ids=own)
        self.loss = loss_of(config.train, targets)
        self.optimizer = torch.optim.AdamW(groups(classifier, config.train.weight_decay), lr=config.train.lr)
        self.scaler = GradScaler(processes.device.type, enabled=dtype == torch.float16)

    def step(self, number: int, batches: Iterator[tuple[Tensor, Tensor]], n_batches: int, n_clips: int) -> float:
        """Step `number` of the training on the next `n_batches`, which hold `n_clips`; their mean loss.

        Batches are clips (n, C, T, side_in, side_in) and labels (n, classes). Raises UsageError for a clip that
        is too small to be a batch, and where numbers have ceased to be finite; the weights are then those of the step
        before.
        """
        torch.manual_seed(seed_of(self.config.seed, number, self.processes.rank))
        in_training(self.classifier, frozen=self.frozen)
        self.optimizer.zero_grad(set_to_none=True)
        loss = 0.0
        for place, (clips, labels) in enumerate(itertools.islice(batches, n_batches), 1):
            with self._not_yet_shared() if place < n_batches else nullcontext():
                with torch.autocast(clips.device.type, self.dtype, enabled=self.dtype != torch.float32):
                    logits = self._logits(clips)
                part = self.loss(logits, labels) * (len(clips) / n_clips)
                self.scaler.scale(part).backward()
            loss += part.detach()
        self._move(number)
        return float(loss)

    def _logits(self, clips: Tensor) -> Tensor:
        try:
            return self.network(clips)
        except ValueError as error:
            if len(clips) > 1 or "more than 1 value per channel" not in str(error):  # as PyTorch 2.11 says it
                raise
            raise UsageError(
                "a batch of one clip of this size is too little to normalize by: take a train.batch that leaves no "
                "single clip for an epoch's end, or larger model.frames or model.side"
            ) from error

    def _move(self, number: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr(number)
        self.scaler.unscale_(self.optimizer)
        parameters = [p for p in self.classifier.parameters() if p.requires_grad]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip_norm or float("inf"))
        diverged = self.scaler.get_scale() < SMALLEST_SCALE if self.scaler.is_enabled() else not norm.isfinite()
        if diverged:
            raise UsageError(
                f"the gradients of step {number} are not finite: training has diverged; begin anew with a smaller "
                "train.lr, a longer train.warmup or dtype = 'fp32'"
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()

    def lr(self, number: int) -> float:
        return learning_rate(number, self.n_steps, self.config)

    def _not_yet_shared(self) -> Any:
        return self.network.no_sync() if isinstance(self.network, DistributedDataParallel) else nullcontext()


def prepare(classifier: Classifier, *, frozen: bool, momentum: float) -> None:
    """Says which weights are trained, and how fast batch norms forget; 0: as each has it."""
    if frozen:
        classifier.i3d.requires_grad_(False)
        classifier.i3d.logits.requires_grad_(True)
    for module in classifier.modules():
        if momentum and isinstance(module, nn.modules.batchnorm._BatchNorm):
            module.momentum = momentum


def in_training(classifier: Classifier, *, frozen: bool) -> None:
    """A frozen I3D keeps its running statistics and normalizes by them; its features are dropped as ever."""
    classifier.train()
    if frozen:
        classifier.i3d.eval()
        classifier.i3d.dropout.train()


def groups(classifier: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """For the optimizer: weights of convolutions and linear layers, which decay, and all others, which do not.

    Biases and what batch norms learn have nothing to gain from being small (He et al. 2019, "Bag of tricks", 3.1).
    """
    trained = [parameter for parameter in classifier.parameters() if parameter.requires_grad]
    decaying = [parameter for parameter in trained if parameter.ndim > 1]
    others = [parameter for parameter in trained if parameter.ndim <= 1]
    return [{"params": decaying, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def seed_of(seed: int, step: int, rank: int) -> int:
    """What PyTorch's random numbers begin with at each step, so that none of their states has to be kept."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1, np.uint64)[0])

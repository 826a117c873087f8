"""Labeled clips through a classifier: the forward pass of validation and test, on one process or many.

In flow rows of a manifest, out come their predictions, the same on every process and to the last bit the same however
many there are: rows are divided in groups, and what goes through the network together is always of one group. Knows
neither scores nor files.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..models.classifier import Classifier, prepared
from ..models.design import Design
from ..progress import Progress
from ..signals import Stop, stopped
from .config import Test
from .manifest import Manifest
from .predictions import Predictions
from .processes import Processes
from .reading import Read, Wanted, batches

MIRROR_KEY = 0  # any number: which clips the old program mirrored in validation is not known, it drew them unseeded


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
    """What the classifier, which is on the device of `processes`, says of the clips in `rows`, in this order.

    A group is `test.batch` rows; its windows go through the network in batches of that size, the last one filled up
    with zeros, since a convolution may round differently in a batch of another size. Memory holds one group.
    `test.clips` windows of one video become one row by `pooled`. `legacy_flip`: half of the clips are mirrored, always
    the same half. Raises Stopped on all processes where one was asked to stop, and what reading clips raises.
    """
    flips = np.random.Generator(np.random.Philox(key=MIRROR_KEY)).random(len(manifest.clips)) < 0.5
    wanted = [Wanted(row=row, at=test.clips, flip=legacy_flip and bool(flips[row])) for row in rows]
    groups = [wanted[first : first + test.batch] for first in range(0, len(wanted), test.batch)]
    own = [one for group in groups[processes.rank :: processes.world] for one in group]

    design, progress = classifier.design, progress or Progress(quiet=True)
    found, done, reason = [], 0, ""
    with (
        closing(batches(manifest, own, design, batch=test.batch, workers=workers)) as reading,
        as_in_use(classifier, processes.device, dtype),
        progress.track("test", len(own), unit="clips"),
    ):
        for reads in reading:
            each = _logits(classifier, reads, test.batch, processes.device)
            found.append(np.stack([pooled(logits, test.pool).numpy() for logits in each]))
            done += len(reads)
            progress.update(done)
            if done < len(own) and (reason := stop()):
                break
    reasons = list(filter(None, processes.gathered(reason)))
    if reasons:
        raise stopped(reasons[0], "not all clips were looked at")

    all_groups = [np.empty((0, len(design.classes)))] * len(groups)
    for rank, part in enumerate(processes.gathered(found)):
        all_groups[rank :: processes.world] = part
    logits = np.concatenate([np.empty((0, len(design.classes))), *all_groups])
    clips = [manifest.clips[row] for row in rows]
    return Predictions(
        classes=design.classes,
        ids=tuple(clip.id for clip in clips),
        targets=manifest.targets()[list(rows)] if all(clip.labeled for clip in clips) else None,
        logits=logits.astype(np.float32),
        probabilities=torch.from_numpy(logits).sigmoid().numpy().astype(np.float32),
    )


def pooled(logits_kc: Tensor, pool: Literal["max", "mean"]) -> Tensor:
    """(C,) logits of the pooled probabilities of k windows.

    The largest probability has the largest logit. The mean p of s(x) over windows has the logit
    log p - log(1 - p) = log sum s(x) - log sum s(-x), in which nothing near 0 or 1 is lost.
    """
    if pool == "max" or len(logits_kc) == 1:
        return logits_kc.amax(0)
    yes, no = functional.logsigmoid(logits_kc), functional.logsigmoid(-logits_kc)
    return torch.logsumexp(yes, 0) - torch.logsumexp(no, 0)


@contextmanager
def as_in_use(classifier: Classifier, device: torch.device, dtype: torch.dtype) -> Iterator[None]:
    """Without gradients, nothing dropped, running statistics at rest; layers that were in training are so again."""
    in_training = [module for module in classifier.modules() if module.training]
    classifier.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            yield
    finally:
        for module in in_training:
            module.training = True


def clip_of(read: Read, window: int, design: Design, device: torch.device) -> Tensor:
    """(C, T, side_in, side_in) float32 in [-1, 1]: one window as the classifier wants it, finished on the device."""
    clip_cthw = prepared(read.windows_ktHWC[window].to(device), design, read.size).transpose(0, 1)
    return clip_cthw.flip(-1) if read.flip else clip_cthw


def _logits(classifier: Classifier, reads: Sequence[Read], batch: int, device: torch.device) -> Sequence[Tensor]:
    """Of each read (k, C) float64, a row per window."""
    design = classifier.design
    windows = [(read, window) for read in reads for window in range(len(read.windows_ktHWC))]
    found = []
    for first in range(0, len(windows), batch):
        some = windows[first : first + batch]
        clips = torch.zeros(batch, design.channels, design.frames, design.side_in, design.side_in, device=device)
        for slot, (read, window) in enumerate(some):
            clips[slot] = clip_of(read, window, design, device)
        found.append(classifier(clips)[: len(some)].cpu().double())
    return torch.cat(found).split([len(read.windows_ktHWC) for read in reads])

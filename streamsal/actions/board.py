"""What TensorBoard shows of a training: curves, scores of classes as a table, what the resizer makes of clips.

In flow numbers and a classifier, out come TensorBoard's event files. Nothing is ever read from them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from ..models.classifier import Classifier
from .manifest import Manifest
from .predict import as_in_use, clip_of
from .reading import Wanted, batches
from .scores import Scores

N_PICTURES = 4  # clips shown, the same ones after every epoch
GAP_PX = 2


class Board:
    """Writes into `folder`; what a training that goes on from step `from_step` had written behind it is hidden."""

    def __init__(self, folder: Path, *, from_step: int, device: torch.device) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=from_step + 1)
        self._device = device

    def __enter__(self) -> Board:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._writer.close()

    def step(self, step: int, facts: Mapping[str, Any]) -> None:
        for name in ("loss", "lr", "clips_per_second"):
            self._writer.add_scalar(f"train/{name}", facts[name], step)

    def epoch(
        self,
        step: int,
        loss: float,
        scores: Scores,
        classifier: Classifier,
        manifest: Manifest,
        rows: Sequence[int],
    ) -> None:
        """Loss and scores of validation, and what becomes of the middle frames of its first clips."""
        self._writer.add_scalar("validation/loss", loss, step)
        for name, value in scores.to_dict().items():
            if name not in ("clips", "classes"):
                self._writer.add_scalar(f"validation/{name}", value, step)
        self._writer.add_text("validation/classes", table(scores), step)
        with as_in_use(classifier, self._device, torch.float32):
            clips = _some_clips(classifier, manifest, rows[:N_PICTURES], self._device)
            middle = clips.shape[2] // 2
            before, after = clips[:, :, middle], classifier.resized(clips)[:, :, middle]
            self._writer.add_image("resizer/before_after", pairs(before, after, classifier.design.colors), step)
            if (thetas := classifier.thetas(clips)) is not None:
                for row, column in ((0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)):
                    self._writer.add_histogram(f"theta/{row}{column}", thetas[:, row, column].float().cpu(), step)
        self._writer.flush()


def table(scores: Scores) -> str:
    """Of the classes, in Markdown."""
    lines = ["| class | clips | F1 | precision | recall | AP |", "|---|---|---|---|---|---|"]
    for row in scores.rows():
        shares = (row[name] for name in ("f1", "precision", "recall", "ap"))
        shown = " | ".join("" if share is None else f"{share:.3f}" for share in shares)
        lines.append(f"| {row['class']} | {row['support']} | {shown} |")
    return "\n".join(lines)


def pairs(before_nchw: Tensor, after_nchw: Tensor, colors: str) -> Tensor:
    """(3, H, W) in [0, 1]: a column for each frame, above as the resizer got it, below as I3D sees it."""
    before = functional.interpolate(before_nchw, after_nchw.shape[-2:], mode="nearest")
    columns = torch.cat([_framed(before), _framed(after_nchw)], 2)
    rgb = columns.flip(1) if colors == "bgr" else columns
    return torch.cat(list((rgb.float().cpu() + 1).div(2).clamp(0, 1)), 2)


def _framed(pictures_nchw: Tensor) -> Tensor:
    return functional.pad(pictures_nchw, [GAP_PX] * 4, value=1.0)


def _some_clips(classifier: Classifier, manifest: Manifest, rows: Sequence[int], device: torch.device) -> Tensor:
    """(n, C, T, side_in, side_in), each from its first frame."""
    design, wanted = classifier.design, [Wanted(row=row) for row in rows]
    (reads,) = batches(manifest, wanted, design, batch=len(wanted))
    return torch.stack([clip_of(read, 0, design, device) for read in reads])

"""A trained classifier of tiny clips, looking at the clips of a long film: which actions are in each of them.

In flow frames, or one box of them, as large as they are; out come probabilities and logits of every class, and the
vector that they are made of. The weights file says what the network is and which frames make a clip. Knows nothing of
data sets and of how the classifier was trained.
Resizer: Talebi and Milanfar 2021. I3D: Carreira and Zisserman 2017. TinyVIRAT: Demir et al. 2020.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..errors import MissingWeights, UsageError
from ..timing import Clip
from ..weights.cache import SYNTHETIC
from . import MODELS
from .classifier import Classifier, design_of, load, prepared
from .design import Design
from .spec import ClipBatch, Model, ModelSpec, Output, Result, Video

NAME = "lowres_classifier"

# The classes of TinyVIRAT in the order of its users' files, for stand-in weights.
TINYVIRAT = (
    *("Closing", "Entering", "Exiting", "Interacts", "Loading", "Misc", "Opening", "Pull", "Push", "Riding", "Talking"),
    *("Transport_HeavyCarry", "activity_carrying", "activity_gesturing", "activity_running", "activity_standing"),
    *("activity_walking", "specialized_miscellaneous", "specialized_talking_phone", "specialized_texting_phone"),
    *("specialized_using_tool", "vehicle_moving", "vehicle_starting", "vehicle_stopping", "vehicle_turning_left"),
    "vehicle_turning_right",
)
STAND_IN = Design(classes=TINYVIRAT)


def spec(weights: str | Path | Mapping[str, Any] | None = None, *, box: Sequence[int] | None = None) -> ModelSpec:
    """As the weights file says, whose path this is; None, "synthetic": as of stand-ins.

    `box` (x, y, width, height) in pixels: only that part of every frame is looked at.
    Raises UsageError for what is no box and for a classifier of optical flow, and what reading the file raises.
    """
    return spec_of_design(_design(weights), _checked(box))


def build(
    weights: str | Path | Mapping[str, Any] | None = None,
    *,
    device: torch.device | str,
    box: Sequence[int] | None = None,
) -> Model:
    """`weights`: a classifier's file or what is in it, "synthetic" for stand-ins; `box` as for `spec`.

    Raises MissingWeights without weights, and what reading the file raises.
    """
    if weights is None:
        raise MissingWeights(MODELS[NAME].trained)
    classifier = load(weights, STAND_IN) if weights == SYNTHETIC else load(weights)
    return LowresClassifier(classifier.to(device).requires_grad_(False), _checked(box))


def spec_of_design(design: Design, box: tuple[int, int, int, int] | None) -> ModelSpec:
    if design.channels != 3:
        raise UsageError(f"{NAME}: a classifier of optical flow cannot look at a film: take one of colors")
    probabilities = Output(
        name="probabilities", kind="probabilities", units="1, each class by itself", exact=True, labels=design.classes
    )
    return ModelSpec(
        name=NAME,
        summary=MODELS[NAME].summary,
        licence=MODELS[NAME].licence,
        citation=(
            "Carreira and Zisserman 2017, Quo vadis, action recognition? CVPR; "
            "Talebi and Milanfar 2021, Learning to resize images for computer vision tasks, ICCV"
        ),
        outputs=(
            probabilities,
            Output(name="logits", kind="logits", units="before the sigmoid", exact=True, labels=design.classes),
            Output(name="features", kind="features", units="as the network gives them", exact=True),
            Output(name="valid", kind="features", units="share of frames", scalar=True),
        ),
        clip=Clip(length=design.frames, step=1, rate=design.rate, sampling="strided"),
        box=box,
        bytes_per_clip=4 * values_per_clip(design),
        autocast=True,
    )


def values_per_clip(design: Design) -> float:
    """About how many activations are alive at once: four copies of the widest layer of the resizer and of I3D.

    16 channels at every pixel that I3D sees; 192 at every eighth of them, behind I3D's second convolution.
    """
    pixels = design.frames * design.side**2
    return 4 * pixels * (16 + 192 / 8 * design.width)


class LowresClassifier:
    """A classifier as the engine wants it, in eval mode on its device."""

    def __init__(self, classifier: Classifier, box: tuple[int, int, int, int] | None = None) -> None:
        self.classifier = classifier
        self.spec = spec_of_design(classifier.design, box)
        self._order = frame_order(classifier.design)

    def prepare(self, frames_nhwc: Tensor) -> Tensor:
        """(n, 3, side_in, side_in) float32 in -1 ... 1, from uint8 RGB frames of one size."""
        if self.spec.box:
            x, y, width, height = self.spec.box
            frames_nhwc = frames_nhwc[:, y : y + height, x : x + width]
        return prepared(frames_nhwc, self.classifier.design)

    def begin(self, video: Video) -> None:
        return None

    def step(self, batch: ClipBatch, state: None) -> Result:
        clips = batch.clips_ncthw if self._order is None else batch.clips_ncthw[:, :, self._order]
        features = self.classifier.features(clips)
        logits = self.classifier.logits_of(features).float()
        values = {
            "probabilities": logits.sigmoid(),
            "logits": logits,
            "features": features,
            "valid": torch.from_numpy(batch.valid),
        }
        kept = {name: value[batch.present] for name, value in values.items()}
        return Result(frame=batch.frame[batch.present], values=kept)

    def end(self, state: None) -> None:
        return None


def frame_order(design: Design) -> list[int] | None:
    """Which frames of a clip the network gets, in its order; None as they are. "legacy": 0 1 10 11 ... 19 2 20."""
    return sorted(range(design.frames), key=str) if design.order == "legacy" else None


def _design(weights: str | Path | Mapping[str, Any] | None) -> Design:
    return STAND_IN if weights is None or weights == SYNTHETIC else design_of(weights)


def _checked(box: Sequence[int] | None) -> tuple[int, int, int, int] | None:
    if box is None:
        return None
    whole = isinstance(box, (list, tuple)) and len(box) == 4 and all(type(value) is int for value in box)
    if not whole or min(box[:2]) < 0 or min(box[2:]) < 1:
        raise UsageError(f"box = {box!r} is no box: write --option box=[x,y,width,height], whole numbers of pixels")
    x, y, width, height = box
    return x, y, width, height

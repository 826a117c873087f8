"""The tell-tale clip model: what it answers for a clip is the numbers it read from the frames it was shown.

As `telltale`, whose pictures it reads. A clip that is cut, prepared or divided wrongly is then a wrong integer. It is
loaded as a user's own model file is, by path.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from streamsal.models.spec import ClipBatch, ModelSpec, Output, Result, Video
from streamsal.timing import Clip

sys.path.insert(0, str(Path(__file__).parent))
from telltale import read_numbers


def spec(*, length: int = 5, step: int = 3, rate: float = 25.0) -> ModelSpec:
    return ModelSpec(
        name="tellclip",
        summary="says which frames its clips are made of",
        licence="Apache-2.0",
        citation="none needed",
        outputs=(
            Output(name="features", kind="features", units="frame numbers", exact=True),
            Output(name="valid", kind="features", units="share", scalar=True),
        ),
        clip=Clip(length=length, step=step, rate=rate),
    )


def build(
    weights: None = None, *, device: torch.device | str, length: int = 5, step: int = 3, rate: float = 25.0
) -> Tellclip:
    del weights, device
    return Tellclip(spec(length=length, step=step, rate=rate))


class Tellclip:
    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec
        self.n_prepared = 0

    def prepare(self, frames_nhwc: Tensor) -> Tensor:
        self.n_prepared += len(frames_nhwc)
        return torch.tensor(read_numbers(frames_nhwc), dtype=torch.float32)[:, None, None, None]

    def begin(self, video: Video) -> None:
        return None

    def step(self, batch: ClipBatch, state: None) -> Result:
        seen = batch.clips_ncthw[batch.present, 0, :, 0, 0]
        values = {"features": seen, "valid": torch.from_numpy(batch.valid[batch.present])}
        return Result(frame=batch.frame[batch.present], values=values)

    def end(self, state: None) -> None:
        return None

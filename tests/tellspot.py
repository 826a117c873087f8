"""The tell-tale of pooling: what it answers for a clip is the cell of what it sees that each member's saliency is in.

It sees the left square of a frame of 64 x 96 pixels, in 8 x 8 cells of 8 pixels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from streamsal.models.spec import ClipBatch, ModelSpec, Output, Result, Video
from streamsal.timing import Clip

OUTSIDE, EVERYWHERE = -1, -2  # no saliency in what it sees; alike in all cells


def spec(*, pool: str = "") -> ModelSpec:
    return ModelSpec(
        name="tellspot",
        summary="says where the saliency of its frames is",
        licence="Apache-2.0",
        citation="none needed",
        outputs=(Output(name="features", kind="features", units=f"cells, by {pool or 'nothing'}", exact=True),),
        clip=Clip(length=5, step=3, rate=25.0),
    )


def build(weights: None = None, *, device: torch.device | str, pool: str = "") -> Tellspot:
    return Tellspot(spec(pool=pool))


class Tellspot:
    cells = 8

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def crop_box(self, height: int, width: int) -> tuple[float, float, float, float]:
        return 0.0, 0.0, 1.0, height / width

    def prepare(self, frames_nhwc: Tensor) -> Tensor:
        return torch.zeros(len(frames_nhwc), 1, 1, 1)

    def begin(self, video: Video) -> None:
        return None

    def step(self, batch: ClipBatch, state: None) -> Result:
        assert batch.weights_ntyx is not None
        share, cell = batch.weights_ntyx[batch.present].flatten(2).max(-1)
        cell = torch.where(share < 0.5, OUTSIDE, cell)
        cell = torch.where(share == 1 / self.cells**2, EVERYWHERE, cell)
        return Result(frame=batch.frame[batch.present], values={"features": cell.float()})

    def end(self, state: None) -> None:
        return None

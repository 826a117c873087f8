"""Where to look is a cell of the frame that its number names, or always the same one: a saliency model for tests."""

from __future__ import annotations

import torch
from torch import Tensor

from streamsal.models.spec import Batch, ModelSpec, Output, Readback, Result, Video

CELL_PX = 8
NOWHERE = -60.0  # in nats: exp of it is lost beside any other place


def cell(frame: int, rows: int, columns: int) -> tuple[int, int]:
    return frame % rows, frame % columns


def spec(*, always: list[int] | None = None) -> ModelSpec:
    return ModelSpec(
        name="spot",
        summary="all of the density in one cell",
        licence="Apache-2.0",
        citation="none needed",
        outputs=(
            Output(
                name="log_density",
                kind="log_density",
                units="nats",
                readback=Readback(interpolation="nearest", block=CELL_PX),
            ),
        ),
    )


def build(weights: None = None, *, device: torch.device | str, always: list[int] | None = None) -> Spot:
    """`always` [row, column]: the same cell in every frame."""
    return Spot(spec(), always)


class Spot:
    def __init__(self, spec: ModelSpec, always: list[int] | None) -> None:
        self.spec, self.always = spec, always

    def begin(self, video: Video) -> tuple[int, int]:
        return video.height // CELL_PX, video.width // CELL_PX

    def step(self, batch: Batch, state: tuple[int, int]) -> Result:
        frames = batch.frame[batch.present]
        maps = torch.stack([self._map(int(frame), state) for frame in frames])
        return Result(frame=frames, values={"log_density": maps})

    def _map(self, frame: int, size: tuple[int, int]) -> Tensor:
        row, column = self.always or cell(frame, *size)
        log_density_hw = torch.full(size, NOWHERE)
        log_density_hw[row, column] = 0
        return log_density_hw

    def end(self, state: tuple[int, int]) -> None:
        return None

"""A model with everything a run can hold: a priority map with the matrices that it is read back with, one number per
frame, and densities that a second pass makes of them, each of which depends on all frames before it.

It is a user's own model file. Every value is a function of the numbers drawn into the frames (see telltale.py), so what
a shard, a resumed task or the second pass gets wrong is a wrong number.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from telltale import read_numbers

from streamsal.models.spec import Batch, ModelSpec, Output, Readback, Result, Video, Window

PAST = 3
GRID = (5, 7)
BLOCK = 2
STORED = (
    Output(name="priority", kind="priority", units="nats", readback=Readback(interpolation="matrices"), exact=True),
    Output(name="history_len", kind="features", units="frames", scalar=True),
)
NEAREST = Readback(interpolation="nearest", block=BLOCK)
DERIVED = (
    Output(name="log_density", kind="log_density", units="nats", readback=NEAREST),
    Output(name="total", kind="features", units="frame numbers", scalar=True),
)


def spec(*, derived: bool = True, scale: float = 1.0) -> ModelSpec:
    return ModelSpec(
        name="two_passes",
        summary="a test",
        licence="Apache-2.0",
        citation="none needed",
        outputs=STORED,
        derived=DERIVED if derived else (),
        constants=("rows", "columns", "prior"),
        window=lambda frame_rate: Window(past=PAST),
        state="window",
    )


def build(weights: None = None, *, device: torch.device | str, derived: bool = True, scale: float = 1.0) -> Model:
    return Model(spec(derived=derived), torch.device(device), scale)


def priority(shown: list[int]) -> np.ndarray:
    """Of the numbers of a frame and those before it."""
    y, x = np.mgrid[: GRID[0], : GRID[1]]
    return (np.cos(y * 0.7 + sum(shown) * 0.11) + np.sin(x * 0.9 - len(shown) * 0.3)).astype(np.float32)


def matrix(n_out: int, n_in: int) -> np.ndarray:
    """(n_out, n_in): each pixel a blend of the cells around it."""
    distance = (np.arange(n_out)[:, None] + 0.5) / n_out * n_in - (np.arange(n_in) + 0.5)
    weight = np.exp(-(distance**2))
    return (weight / weight.sum(1, keepdims=True)).astype(np.float32)


def constants(height: int, width: int, scale: float = 1.0) -> dict[str, np.ndarray]:
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in (height, width))
    prior = (-4 * scale * (y[:, None] ** 2 + x**2)).astype(np.float32)
    return {"rows": matrix(height, GRID[0]), "columns": matrix(width, GRID[1]), "prior": prior}


def density_of(total: float, shift: float, height: int, width: int) -> np.ndarray:
    """The log density that the second pass makes, on its own grid."""
    y, x = np.mgrid[: height // BLOCK, : width // BLOCK]
    bump = np.cos(y * 0.2 + total * 0.01) + np.sin(x * 0.1 + shift)
    return (bump - np.log(np.exp(bump).sum())).astype(np.float32)


@dataclass(slots=True)
class State:
    size: tuple[int, int]
    seen: dict[int, int] = field(default_factory=dict)


class Model:
    def __init__(self, spec: ModelSpec, device: torch.device, scale: float) -> None:
        self.spec, self.device, self.scale = spec, device, scale

    def begin(self, video: Video) -> State:
        return State(size=(video.height, video.width))

    def constants(self, state: State) -> dict[str, np.ndarray]:
        return constants(*state.size, self.scale)

    def step(self, batch: Batch, state: State) -> Result:
        frames, maps, lengths = batch.frame[batch.present], [], []
        numbers = read_numbers(batch.frames_nhwc[batch.present])
        for frame, number in zip(frames.tolist(), numbers, strict=True):
            state.seen = {k: v for k, v in state.seen.items() if frame - PAST <= k < frame} | {frame: number}
            maps.append(torch.from_numpy(priority(list(state.seen.values()))))
            lengths.append(len(state.seen))
        values = {"priority": torch.stack(maps).to(self.device), "history_len": torch.tensor(lengths)}
        return Result(frame=frames, values=values)

    def end(self, state: State) -> None:
        return None

    def derive(self, video: Video, fixations: object) -> Second:
        return Second(video, fixations)


class Second:
    """Adds up what it is shown, so that a frame left out, shown twice or out of order is seen in all that follow."""

    def __init__(self, video: Video, fixations: object) -> None:
        self.video, self.shift, self.total = video, shift_of(fixations), 0.0
        self.rows: list[dict[str, float]] = []

    def step(self, values, pts_seconds):
        maps, totals = [], []
        for value, length, seconds in zip(values["priority"], values["history_len"], pts_seconds, strict=True):
            self.total = 0.9 * self.total + float(value.sum()) + float(length)
            maps.append(torch.from_numpy(density_of(self.total, self.shift, self.video.height, self.video.width)))
            totals.append(self.total)
            self.rows.append({"start_seconds": float(seconds), "total": self.total})
        grid = (self.video.height // BLOCK, self.video.width // BLOCK)
        return {"log_density": torch.stack(maps) if maps else torch.empty(0, *grid), "total": torch.tensor(totals)}

    def table(self) -> list[dict[str, float]]:
        return self.rows if self.shift else []


def shift_of(fixations: object) -> float:
    """What is looked at of a source of fixations; 0 for the model's default."""
    return float(np.nansum(fixations.x_px)) if fixations is not None else 0.0

"""How soon a model's memory forgets where it began: a video and UNISAL with the user's weights in, a small table out.

Segments of `--option state=anchored` begin from nothing, some steps before the first of their frames. Here the same is
done at a few places of the video, with warm-ups of several lengths, beside a memory that was never interrupted.
Pictures are encoded once; only the recurrent cell, a few percent of the work, runs again.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from .engine import stream
from .errors import UsageError
from .index import index_video
from .models.spec import Batch, Result, Video, Window
from .models.unisal import Encoded, State, Unisal

WARM_UPS = (0, 12, 24, 48, 96)  # steps of a chain
PLACES = 4  # steps at which they are compared, all chains at each
BEHIND = 24  # steps in which these places lie, behind the longest warm-up


@dataclass(frozen=True, slots=True, kw_only=True)
class Convergence:
    """Total variation (0: the same density, 1: nothing in common) between a memory begun so many steps before a frame
    and the unbroken one: the median and the worst of `compared` frames."""

    warm_up_steps: int
    warm_up_frames: int
    warm_up_seconds: float
    median: float
    worst: float
    compared: int


class Recorder:
    """A model that only encodes, and keeps what it encoded by frame."""

    def __init__(self, model: Unisal) -> None:
        self.spec = replace(model.spec, state="none", window=lambda frame_rate: Window())
        self.model = model
        self.found: dict[int, Encoded] = {}

    def begin(self, video: Video) -> State:
        return self.model.begin(video)

    def step(self, batch: Batch, state: State) -> Result:
        slots = range(batch.present.start, batch.present.stop)
        encoded = self.model.encode(batch, slots, state)
        self.found |= {int(batch.frame[slot]): encoded[slot] for slot in slots}
        return Result(frame=np.zeros(0, np.int64), values={})

    def end(self, state: State) -> None:
        return None


def calibrate(video: Path, model: Unisal, *, device: str = "auto") -> list[Convergence]:
    """One row per warm-up that the video is long enough for; of a long video its beginning is used.

    Raises UsageError for a model without memory and for a video of less than two steps, and what reading it raises.
    """
    if model.static:
        raise UsageError("each frame is by itself in mode=static: there is no warm-up to calibrate")
    index = index_video(video)
    chains = model.chains(index.frame_rate)
    steps = min(index.n_frames // chains, max(WARM_UPS) + BEHIND)
    warm_ups = [warm_up for warm_up in WARM_UPS if warm_up < steps - 1]
    if not warm_ups:
        raise UsageError(f"{video.name} has {index.n_frames} frames, too few to calibrate: give {2 * chains} or more")
    recorder = Recorder(model)
    for _ in stream(index, model=recorder, stop=steps * chains, device=device):
        pass
    places = sorted({round(place) for place in np.linspace(max(warm_ups) + 1, steps - 1, PLACES)})
    with torch.no_grad():
        return compared(model, recorder.found, chains, index.frame_rate, warm_ups, places)


def compared(
    model: Unisal,
    encoded: dict[int, Encoded],
    chains: int,
    frame_rate: float,
    warm_ups: list[int],
    places: list[int],
) -> list[Convergence]:
    """`encoded` by frame, from the first on without gaps; `places` are the steps to compare at."""
    unbroken = {place: density_after(model, encoded, chains, range(place + 1)) for place in places}
    rows = []
    for warm_up in warm_ups:
        variations = [
            (density_after(model, encoded, chains, range(place - warm_up, place + 1)) - unbroken[place]).abs()
            for place in places
        ]
        found = torch.cat([each.sum((1, 2)) / 2 for each in variations])
        rows.append(
            Convergence(
                warm_up_steps=warm_up,
                warm_up_frames=warm_up * chains,
                warm_up_seconds=warm_up * chains / frame_rate,
                median=float(found.quantile(0.5)),
                worst=float(found.max()),
                compared=len(found),
            )
        )
    return rows


def density_after(model: Unisal, encoded: dict[int, Encoded], chains: int, steps: range) -> Tensor:
    """(chains, h, w) densities of the last step's frames, of a memory that begins from nothing at the first step."""

    def frames(step: int) -> list[Encoded]:
        return [encoded[step * chains + chain] for chain in range(chains)]

    hidden = None
    for step in steps:
        hidden = model.remembered(frames(step), hidden)
    return model.densities(frames(steps[-1]), hidden).exp()


def as_rows(found: list[Convergence]) -> tuple[list[dict[str, Any]], list[list[str]], list[str]]:
    """Facts for programs, and cells and their head for people."""
    head = ["warm-up", "frames", "seconds", "total variation: median", "worst"]
    cells = [
        [
            f"{row.warm_up_steps} steps",
            str(row.warm_up_frames),
            f"{row.warm_up_seconds:.1f}",
            f"{row.median:.4f}",
            f"{row.worst:.4f}",
        ]
        for row in found
    ]
    return [asdict(row) for row in found], cells, head

"""The tell-tale model: what it answers for frame k says which frames it was shown around k.

Frames carry their number as 16 black or white blocks along the top (`draw_number`). The answer for frame k is the row
`[k, number seen at k - past, ..., number seen at k + future]`, -1 where no frame was shown. It comes twice: as numbers
(`seen`), and as a log density whose cells are the bits of those numbers, one row each, exact in every storage format.
A wrong shard border, seek, warm-up, look-ahead or resume is then a wrong integer. It answers for wanted frames only,
and is loaded as a user's own model file is, by path.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from streamsal.models.spec import Batch, ModelSpec, Output, Readback, Result, Video, Window

BITS = 16
NOT_SHOWN = -1
PAST, FUTURE = 15, 3


def draw_number(picture_hwc: np.ndarray, number: int) -> None:
    """Write `number` into the top sixth of a picture, at least 8 rows, lowest bit on the left."""
    height, width = picture_hwc.shape[:2]
    edges = np.round(np.arange(BITS + 1) * width / BITS).astype(int)
    for bit in range(BITS):
        picture_hwc[: max(8, height // 6), edges[bit] : edges[bit + 1]] = 235 if number >> bit & 1 else 20


def read_numbers(frames_nhwc: Tensor) -> list[int]:
    """Numbers of the frames, from the middle of each block: compression and downscaling blur only its edges."""
    height, width = frames_nhwc.shape[1:3]
    strip = frames_nhwc[:, height // 24 : max(height // 24 + 1, height // 8)].float().mean((1, 3))  # n w
    blocks = []
    for bit in range(BITS):
        left, right = width * (bit + 0.25) / BITS, width * (bit + 0.75) / BITS
        first = min(int(left + 0.5), width - 1)
        blocks.append(strip[:, first : max(first + 1, int(right + 0.5))].mean(1))
    bits = (torch.stack(blocks, dim=1) > 128).long().cpu()
    return (bits << torch.arange(BITS)).sum(1).tolist()


def expected(frame: int, n_frames: int, past: int = PAST, future: int = FUTURE) -> list[int]:
    """The right answer for a frame of a video of `n_frames` numbered from 0."""
    shown = (k if 0 <= k < n_frames else NOT_SHOWN for k in range(frame - past, frame + future + 1))
    return [frame, *shown]


def read_map(log_density_hw: np.ndarray) -> list[int]:
    """The answer back from the map, at the size it is stored."""
    on = log_density_hw > log_density_hw.max() - 1
    return [int((row[2:] << np.arange(BITS)).sum()) if row[1] else NOT_SHOWN for row in on]


def draw_map(row: list[int]) -> Tensor:
    """A row of the map per number: a cell that is always on, one that says whether there is a number, then its bits."""
    numbers = torch.tensor(row)
    bits = (numbers[:, None] >> torch.arange(BITS)) & 1
    shown = (numbers != NOT_SHOWN).long()[:, None]
    on = torch.cat([torch.ones_like(shown), shown, bits * shown], dim=1)
    return torch.log_softmax(2.0 * on.flatten(), dim=0).view(on.shape)


def spec(*, past: int = PAST, future: int = FUTURE) -> ModelSpec:
    return ModelSpec(
        name="telltale",
        summary="says which frames it was shown",
        licence="Apache-2.0",
        citation="none needed",
        outputs=(
            Output(name="log_density", kind="log_density", units="nats", readback=Readback()),
            Output(name="seen", kind="features", units="frame numbers"),
        ),
        window=lambda frame_rate: Window(past=past, future=future),
        state="window",
    )


def build(weights: None = None, *, device: torch.device | str, past: int = PAST, future: int = FUTURE) -> Telltale:
    return Telltale(past=past, future=future, device=device)


@dataclass(slots=True)
class State:
    seen: dict[int, int] = field(default_factory=dict)  # number read from the pixels, by frame
    waiting: list[int] = field(default_factory=list)  # frames whose look-ahead has not come yet
    last: int | None = None


class Telltale:
    def __init__(self, *, past: int, future: int, device: torch.device | str):
        self.spec = spec(past=past, future=future)
        self.past = past
        self.future = future
        self.device = torch.device(device)

    def begin(self, video: Video) -> State:
        return State()

    def step(self, batch: Batch, state: State) -> Result:
        numbers = read_numbers(batch.frames_nhwc[batch.present])
        seen, waiting, last = dict(state.seen), list(state.waiting), state.last
        rows: list[list[int]] = []
        wanted = set(batch.frame[batch.wanted].tolist())
        for frame, number in zip(batch.frame[batch.present].tolist(), numbers, strict=True):
            if last is not None and frame != last + 1:
                rows += [self.row(k, seen) for k in waiting]
                seen, waiting = {}, []
            seen[frame], last = number, frame
            waiting += [frame] if frame in wanted else []
            while waiting and waiting[0] + self.future <= frame:
                rows.append(self.row(waiting.pop(0), seen))
            seen = {k: v for k, v in seen.items() if k >= frame - self.future - self.past}
        result = self.result(rows)
        state.seen, state.waiting, state.last = seen, waiting, last
        return result

    def end(self, state: State) -> Result | None:
        rows = [self.row(k, state.seen) for k in state.waiting]
        state.waiting = []
        return self.result(rows) if rows else None

    def row(self, frame: int, seen: dict[int, int]) -> list[int]:
        return [frame, *(seen.get(k, NOT_SHOWN) for k in range(frame - self.past, frame + self.future + 1))]

    def result(self, rows: list[list[int]]) -> Result:
        length = self.past + self.future + 2
        maps = torch.stack([draw_map(row) for row in rows]) if rows else torch.zeros(0, length, BITS + 2)
        seen = torch.tensor(rows, dtype=torch.float32).view(-1, length)
        frame = np.array([row[0] for row in rows], dtype=np.int64)
        return Result(frame=frame, values={"log_density": maps.to(self.device), "seen": seen.to(self.device)})

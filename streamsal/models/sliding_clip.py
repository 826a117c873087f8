"""A network that sees a clip and answers for its last frame, slid over a video frame by frame.

In: batches of frames; out: one saliency map per wanted frame. Every clip is computed by itself and in one order, so
that its bits depend on its frames alone. What the first stage of an S3D makes of the inside of a clip is the same in
all clips that show those frames, so it is computed once; only where the clip begins and ends it is computed anew.

    frames    t-31 ················································ t
    steps       head head 2 3 4 5 6 7 8 9 10 11 12 13 14 tail       every second frame; 13 of 16 known before
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from .precision import wanted_dtype
from .s3d_trunk import Base1
from .spec import Batch, ModelSpec, Output, Readback, Result, Video, Window

First = Literal["replicate", "reverse"]
FIRSTS = ("replicate", "reverse")
STRIDE = 32  # pixels per position of the deepest maps
LEAST_SHARED = 16  # frames: the two ends of shorter clips meet
AROUND, AROUND_TWICE = 7, 11  # frames that a step of `Base1.early` rests on, and one of `Base1.late`


class Network(Protocol):
    """What is slid. `prepared`: uint8 (n, h, w, 3) of the size it computes at; `normalized`: those as it sees them.
    `base1` of a run's precision, and `logits` (h, w) of what `base1` gave for a whole clip."""

    def prepared(self, frames_nhwc: Tensor) -> Tensor: ...

    def normalized(self, pictures_nhwc: Tensor, dtype: torch.dtype) -> Tensor: ...

    def base1(self, dtype: torch.dtype) -> Base1: ...

    def logits(self, base1_tchw: Tensor, dtype: torch.dtype) -> Tensor: ...


def check_size(name: str, height: int, width: int) -> None:
    if height < STRIDE or width < STRIDE or height % STRIDE or width % STRIDE:
        raise UsageError(f"{name} computes at multiples of {STRIDE} pixels, not at {height} x {width}: try 224 x 384")


def check_first(name: str, first: str) -> None:
    if first not in FIRSTS:
        raise UsageError(f"{name} has no way {first!r} with the first frames: choose {', '.join(FIRSTS)}")


def window(frames: int, first: First) -> Window:
    """Frames of a clip before the last one; and to begin with reversed clips, as many behind it."""
    return Window(past=frames - 1, future=frames - 1 if first == "reverse" else 0)


SALIENCY = Output(name="saliency", kind="saliency_map", units="1", readback=Readback())


@dataclass(frozen=True, slots=True, kw_only=True)
class Shared:
    """What later clips will want again, oldest first: of the clip's frames, and of its inner steps, one per frame."""

    rows: tuple[Tensor, ...]
    early: tuple[Tensor, ...]
    late: tuple[Tensor, ...]

    @classmethod
    def begun(cls, base1: Base1, row: Tensor, frames: int) -> Shared:
        """As if the first frame had been shown for all the time before."""
        step = base1.early(torch.cat([row] * AROUND))
        last = base1.late(torch.cat([step] * 3))
        return cls(rows=(row,) * frames, early=(step,) * (frames - AROUND), late=(last,) * (frames - AROUND_TWICE))

    def followed(self, base1: Base1, row: Tensor) -> Shared:
        rows = (*self.rows[1:], row)
        early = (*self.early[1:], base1.early(torch.cat(rows[-AROUND:])))
        return Shared(rows=rows, early=early, late=(*self.late[1:], base1.late(torch.cat(early[-5::2]))))

    def base1(self, base1: Base1) -> Tensor:
        """What `base1` gives for the clip, its ends computed anew, because nothing is before and behind a clip."""
        nothing, inner = torch.zeros_like(self.rows[0]), self.early[::2]
        head = base1.early(torch.cat([nothing, nothing, nothing, *self.rows[:6]]))
        tail = base1.early(torch.cat([*self.rows[-5:], nothing, nothing]))
        nothing = torch.zeros_like(tail)
        first = base1.late(torch.cat([nothing, head, *inner[:2]]))
        last = base1.late(torch.cat([*inner[-2:], tail, nothing]))
        return torch.cat([first, *self.late[::2], last])


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """Consecutive frames from `first` to `last` and the `pictures` of the latest of them, oldest first."""

    first: int
    last: int
    pictures: tuple[Tensor, ...]
    shared: Shared | None

    def picture(self, frame: int) -> Tensor:
        """Of a frame before the first one it is the first one's."""
        return self.pictures[max(frame, self.first) - self.last - 1]


@dataclass(slots=True)
class State:
    """`waiting`: frames in order whose maps are not given away yet; None where look-ahead has not come yet."""

    memory: Memory | None = None
    waiting: dict[int, Tensor | None] = field(default_factory=dict)


class SlidingClip:
    """`first`: what the first frames of a video rest on. "replicate": the first frame stands for those before it;
    "reverse": on the clip that begins with them, shown backwards, where the video is long enough.

    `finish` makes a map (h, w) in 0 ... 1 of logits. `shares` False: every clip is computed from its pictures.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: Network,
        *,
        device: torch.device,
        frames: int = 32,
        first: First = "replicate",
        finish: Callable[[Tensor], Tensor] = torch.sigmoid,
        shares: bool = True,
    ) -> None:
        self.spec = spec
        self.network = network
        self.device = device
        self.frames, self.past = frames, frames - 1
        self.first: First = first
        self.finish = finish
        self.shares = shares and frames >= LEAST_SHARED

    def begin(self, video: Video) -> State:
        return State()

    def step(self, batch: Batch, state: State) -> Result:
        dtype = wanted_dtype(self.device)
        memory, waiting, done = state.memory, dict(state.waiting), dict[int, Tensor]()
        with torch.autocast(self.device.type, enabled=False):
            for slot in range(batch.present.start, batch.present.stop):
                frame = int(batch.frame[slot])
                if memory is not None and frame != memory.last + 1:
                    done |= {number: self.settled(number, memory, waiting, dtype) for number in waiting}
                    memory, waiting = None, {}
                memory = self.followed(memory, batch.frames_nhwc[slot : slot + 1], frame, dtype)
                early = self.first == "reverse" and frame - memory.first < self.past
                if batch.wanted[slot]:
                    waiting[frame] = None if early else self.latest(memory, dtype)
                start = frame - self.past
                if start in waiting and waiting[start] is None:
                    backwards = range(frame, start - 1, -1)
                    waiting[start] = self.of_pictures([memory.picture(number) for number in backwards], dtype)
                done |= ready(waiting)
        state.memory, state.waiting = memory, waiting
        return result(done, memory)

    def end(self, state: State) -> Result | None:
        if state.memory is None or not state.waiting:
            return None
        frame, dtype = next(iter(state.waiting)), wanted_dtype(self.device)
        with torch.autocast(self.device.type, enabled=False):
            done = {frame: self.settled(frame, state.memory, state.waiting, dtype)}
        del state.waiting[frame]
        return result(done, state.memory)

    def followed(self, memory: Memory | None, frame_nhwc: Tensor, frame: int, dtype: torch.dtype) -> Memory:
        picture = self.network.prepared(frame_nhwc)
        shared = self.followed_shared(memory, picture, dtype) if self.shares else None
        if memory is None:
            return Memory(first=frame, last=frame, pictures=(picture,), shared=shared)
        kept = self.frames if self.first == "replicate" else 2 * self.past
        pictures = (*memory.pictures, picture)[-kept:]
        return Memory(first=memory.first, last=frame, pictures=pictures, shared=shared)

    def followed_shared(self, memory: Memory | None, picture: Tensor, dtype: torch.dtype) -> Shared:
        base1 = self.network.base1(dtype)
        row = base1.first(self.network.normalized(picture, dtype))
        if memory is None or memory.shared is None:
            return Shared.begun(base1, row, self.frames)
        return memory.shared.followed(base1, row)

    def latest(self, memory: Memory, dtype: torch.dtype) -> Tensor:
        """The map of the last frame. One that float16 cannot hold is computed again from its pictures in float32."""
        if memory.shared is None:
            return self.of_pictures(self.clip(memory, memory.last), dtype)
        logits = self.network.logits(memory.shared.base1(self.network.base1(dtype)), dtype)
        if dtype != torch.float32 and not bool(logits.isfinite().all()):
            return self.of_pictures(self.clip(memory, memory.last), torch.float32)
        return self.finish(logits.float())

    def of_pictures(self, pictures: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
        """The map of a clip, nothing of which is known."""
        x = self.network.normalized(torch.cat(list(pictures)), dtype)
        logits = self.network.logits(self.network.base1(dtype)(x), dtype)
        if dtype != torch.float32 and not bool(logits.isfinite().all()):
            return self.of_pictures(pictures, torch.float32)
        return self.finish(logits.float())

    def settled(self, frame: int, memory: Memory, waiting: dict[int, Tensor | None], dtype: torch.dtype) -> Tensor:
        """The map of a waiting frame for which no more look-ahead will come."""
        found = waiting[frame]
        return self.of_pictures(self.clip(memory, frame), dtype) if found is None else found

    def clip(self, memory: Memory, frame: int) -> list[Tensor]:
        return [memory.picture(number) for number in range(frame - self.past, frame + 1)]


def ready(waiting: dict[int, Tensor | None]) -> dict[int, Tensor]:
    """The first of the waiting maps, as far as they are there; they wait no more."""
    done: dict[int, Tensor] = {}
    for frame, found in list(waiting.items()):
        if found is None:
            break
        done[frame] = found
        del waiting[frame]
    return done


def result(done: dict[int, Tensor], like: Memory | None) -> Result:
    """Maps by frame, which may be none; they have the size of the pictures."""
    size = like.pictures[-1].shape[1:3] if like else (0, 0)
    maps = torch.stack(list(done.values())) if done else torch.zeros(0, *size)
    return Result(frame=np.array(list(done), dtype=np.int64), values={SALIENCY.name: maps})

"""The contract between any model and the engine.

The engine asks a model's `ModelSpec` every question it has, so it never asks for a model's name. A model receives
batches of RGB frames and gives back results for the frames it could finish; it knows nothing of files, shards or
seeking.

    past            owned           future
    ├───────────────┤├─────────────┤├──────┤      frames the model sees when a shard owns [start, stop)
    warm-up          results kept   look-ahead

The engine always hands over uint8 RGB in displayed orientation: a model that wants another colour order, range or
size converts in `step`, on the device, where it is one line.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

OutputKind = Literal["log_density", "saliency_map", "features", "logits"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """Frames a result needs beside its own: a result owned by frame t is a function of frames t-past ... t+future."""

    past: int = 0
    future: int = 0

    def __post_init__(self) -> None:
        if self.past < 0 or self.future < 0:
            raise ValueError(f"a window cannot be negative: {self}")

    @property
    def length(self) -> int:
        return self.past + 1 + self.future


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioWindow:
    """Sound a result needs: `past_seconds` before and `future_seconds` after its frame's time, at `rate_hz`, mono."""

    rate_hz: int
    past_seconds: float
    future_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Readback:
    """How a stored map becomes a full-size one; written into the file, applied by `density.full_size`.

    `bilinear`: half-pixel centres (align_corners False). `gaussian_prior` = (sigma_y, sigma_x, weight), in units of
    frame height and width, is taken off the stored log density before the interpolation and put back after it at
    full size, because the model defines it there.
    """

    interpolation: Literal["bilinear"] = "bilinear"
    gaussian_prior: tuple[float, float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One thing computed for every owned frame, stored as a dataset called `name`; see the file format in docs/."""

    name: str
    kind: OutputKind
    units: str
    readback: Readback | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything the engine needs to know of a model.

    window         frames a result needs; a function of the frame rate in frames per second
    outputs        what it computes; the first is what `render` shows
    state          "none": a result depends on its own batch rows only. "window": state carried from frame to frame
                   forgets everything older than `window.past`, so a shard warms up with that many frames
    pixel_step     2: only every second row and column is read, so only those are converted and uploaded
    audio          sound per frame, or None
    px_per_degree  visual scale it was trained at, or None where it has none
    autocast       True: the engine runs `step` under autocast in the run's dtype (the model itself keeps what must
                   stay float32 out of it); False: float32 always
    """

    name: str
    summary: str
    licence: str
    citation: str
    outputs: tuple[Output, ...]
    window: Callable[[float], Window] = field(default=lambda frame_rate: Window())
    state: Literal["none", "window"] = "none"
    pixel_step: Literal[1, 2] = 1
    audio: AudioWindow | None = None
    px_per_degree: float | None = None
    autocast: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """What a model may know of the video when it begins: size as the model sees it, in displayed orientation."""

    name: str
    n_frames: int
    frame_rate: float  # frames per second: (n - 1) / (last pts - first pts), 25 for a single frame
    height: int
    width: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive frames, always in the same slots whatever the sharding.

    `frames_nhwc` (B, H, W, 3) uint8 RGB, B the same in every batch of a run; valid during `step` only, because the
    memory is used again. Only the slots in `present` hold frames of this shard; the others repeat a neighbor, so that
    the device always computes the same shape, and must not reach the state or the results. `frame` int64 (B,)
    display-order index, `pts_seconds` float64 (B,); both meaningful in `present` only. Numbers in `frame` rise but may
    jump (sparse sampling): state ends at a jump.
    """

    frames_nhwc: Tensor
    frame: np.ndarray
    pts_seconds: np.ndarray
    present: slice
    audio_nt: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Results for frames that a step could finish: `frame` int64 (n,), each value (n, ...) on the device."""

    frame: np.ndarray
    values: Mapping[str, Tensor]


class Model(Protocol):
    """What a model file's `build(weights=None, *, device, **options)` returns.

    `begin` makes the state of one shard of one video. `step` may change that state, but only after everything that can
    fail has succeeded: the engine repeats a step in halves when the device is out of memory. `end` returns what was
    still waiting for look-ahead when the frames ended.
    """

    spec: ModelSpec

    def begin(self, video: Video) -> Any: ...

    def step(self, batch: Batch, state: Any) -> Result: ...

    def end(self, state: Any) -> Result | None: ...

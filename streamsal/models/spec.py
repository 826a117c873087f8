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
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np

from ..timing import Clip

if TYPE_CHECKING:
    from torch import Tensor

OutputKind = Literal["log_density", "priority", "saliency_map", "features", "logits", "probabilities"]


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
    """Sound a result needs: that of the frames t-past ... t+future, from half a frame before to half a frame behind.

    `samples`: length of a row; the sound stands in the middle of it. `rate_hz`: samples per second; None: the file's
    own rate, and places counted from its first sample, as published code does. `taper`: "hann" lets the sound rise and
    fall over its own length. `scale`: what 1.0, the loudest that a file can hold, is in a row.
    """

    rate_hz: int | None
    samples: int
    past: int
    future: int
    taper: Literal["hann"] | None = None
    scale: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Readback:
    """How a stored map becomes a full-size one; written into the file, applied by `density.full_size`.

    `bilinear`: half-pixel centres (align_corners False). `gaussian_prior` = (sigma_y, sigma_x, weight), in units of
    frame height and width, is taken off the stored log density before the interpolation and put back after it at
    full size, because the model defines it there.
    `nearest`: the model computes one value for `block` x `block` pixels. A grid of (H // block, W // block) is enlarged
    by repetition, exactly as the model itself would; another one comes from frames that were made smaller for the
    model, and is enlarged as `bilinear`.
    `matrices`: the stored map is a priority map R, and rows @ R @ columns.T + prior is the log density at the size that
    the model saw, up to a constant; `rows`, `columns` and `prior` are constants of the file.
    """

    interpolation: Literal["bilinear", "nearest", "matrices"] = "bilinear"
    gaussian_prior: tuple[float, float, float] | None = None
    block: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One thing computed for every owned frame, stored as a dataset called `name`; see the file format in docs/.

    `priority` is the kind of a map that `readback` makes a log density of. `exact`: stored as float32, whatever
    precision the run stores its densities in. `scalar`: one number per frame, shape (n,). `rule`: how it was made of
    what the model gives, where that is not the model's own. `labels`: names of the numbers in a row, where they have
    any, as those of classes.
    """

    name: str
    kind: OutputKind
    units: str
    readback: Readback | None = None
    exact: bool = False
    scalar: bool = False
    rule: str = ""
    labels: tuple[str, ...] = ()

    @property
    def is_density(self) -> bool:
        """Whether a log density of every displayed pixel can be had from it."""
        return self.kind in ("log_density", "priority") and self.readback is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """Everything the engine needs to know of a model.

    window         frames a result needs; a function of the frame rate in frames per second
    outputs        what it computes; the first is what `render` shows
    clip           not None: it gives one result per clip, a window of the video of which it sees a few frames; the
                   model then has `prepare`, its `step` gets a ClipBatch, and `window`, `state` have no meaning
    state          "none": a result depends on its own batch rows only. "window": state carried from frame to frame
                   forgets everything older than `window.past`, so a shard warms up with that many frames. "relay": it
                   forgets nothing, so a shard goes on where the one before it ended; the window is empty then
    pixel_step     2: only every second row and column is read, so only those are converted and uploaded
    audio          the sound that a frame's result rests on, or None
    px_per_degree  visual scale it was trained at, or None where it has none
    long_side      longer side in pixels of the pictures it was trained on, or None; larger frames are computed as they
                   are, and planning recommends --long-side
    min_side       the least height and width in pixels that it can compute; planning refuses smaller frames
    box            (x, y, width, height) in pixels of the part of a frame that it looks at, or None for all of it;
                   planning refuses frames that do not hold it
    bytes_per_px   device memory it needs per pixel of a frame, so that planning can choose a batch size;
                   `bytes_per_clip` likewise for clips
    constants      names of the arrays that reading the outputs back needs beside them, the same for all frames of a
                   video; `Model.constants` gives them and they are stored once
    derived        outputs that `merge` computes of the stored ones in a second pass over the whole video, in order and
                   without pixels; the model then has `derive`
    autocast       True: the engine runs `step` under autocast in the run's dtype (the model itself keeps what must
                   stay float32 out of it); False: float32 always
    """

    name: str
    summary: str
    licence: str
    citation: str
    outputs: tuple[Output, ...]
    window: Callable[[float], Window] = field(default=lambda frame_rate: Window())
    clip: Clip | None = None
    state: Literal["none", "window", "relay"] = "none"
    pixel_step: Literal[1, 2] = 1
    audio: AudioWindow | None = None
    px_per_degree: float | None = None
    long_side: int | None = None
    min_side: int = 1
    box: tuple[int, int, int, int] | None = None
    bytes_per_px: float = 0.0
    bytes_per_clip: float = 0.0
    constants: tuple[str, ...] = ()
    derived: tuple[Output, ...] = ()
    autocast: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Video:
    """What a model may know of the video when it begins: size as the model sees it, in displayed orientation.

    `center_bias`: a log density (h, w) of any size in nats that takes the place of the model's own center bias.
    `scale`: displayed pixels per pixel that the model sees, (x, y); not 1 where frames are made smaller for it.
    """

    name: str
    n_frames: int
    frame_rate: float  # frames per second: (n - 1) / (last pts - first pts), 25 for a single frame
    height: int
    width: int
    center_bias: np.ndarray | None = None
    scale: tuple[float, float] = (1.0, 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """Consecutive frames, always in the same slots whatever the sharding.

    `frames_nhwc` (B, H, W, 3) uint8 RGB, B the same in every batch of a run; valid during `step` only, because the
    memory is used again. Only the slots in `present` hold frames of this shard; the others repeat a neighbor, so that
    the device always computes the same shape, and must not reach the state or the results. `frame` int64 (B,)
    display-order index, `pts_seconds` float64 (B,); both meaningful in `present` only. Numbers in `frame` rise but may
    jump (sparse sampling): state ends at a jump. `wanted` bool (B,): whose results will be kept. Those of the other
    slots (warm-up, look-ahead, frames between sampled ones) are thrown away: what is dear need not be computed there.
    `audio_nt` float32 (B, samples), for a model whose spec says `audio`: what it hears of each wanted frame.
    """

    frames_nhwc: Tensor
    frame: np.ndarray
    pts_seconds: np.ndarray
    present: slice
    audio_nt: Tensor | None = None
    wanted: np.ndarray = field(default_factory=lambda: np.array(True))

    def __post_init__(self) -> None:
        present = np.zeros(self.frame.shape, np.bool_)
        present[self.present] = True
        object.__setattr__(self, "wanted", present & self.wanted)

    def blind(self) -> Batch:
        """It without its pictures and sound, which may be kept."""
        return replace(self, frames_nhwc=self.frames_nhwc.new_empty(0), audio_nt=None)

    def piece(self, low: int, high: int) -> Batch:
        """Slots low ... high - 1 of it."""
        return replace(
            self,
            frames_nhwc=self.frames_nhwc[low:high],
            frame=self.frame[low:high],
            pts_seconds=self.pts_seconds[low:high],
            present=_shifted(self.present, low, high),
            audio_nt=None if self.audio_nt is None else self.audio_nt[low:high],
            wanted=self.wanted[low:high],
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipBatch:
    """Clips, always in the same slots whatever the sharding; as for a Batch, only those in `present` are meant.

    `clips_ncthw` (B, C, T, h, w): what the model's `prepare` made of the members' frames. `frame` int64 (B,): the
    number of each clip in its video. `valid` float32 (B,): the share of members that are pictures of their own,
    neither repeated at the video's end nor holes. `weights_ntyx` (B, T, y, x), where a run pools by saliency: how much
    of each member's saliency falls into each cell of what the network sees.
    """

    clips_ncthw: Tensor
    frame: np.ndarray
    valid: np.ndarray
    present: slice
    weights_ntyx: Tensor | None = None

    def piece(self, low: int, high: int) -> ClipBatch:
        """Slots low ... high - 1 of it."""
        return replace(
            self,
            clips_ncthw=self.clips_ncthw[low:high],
            frame=self.frame[low:high],
            valid=self.valid[low:high],
            present=_shifted(self.present, low, high),
            weights_ntyx=None if self.weights_ntyx is None else self.weights_ntyx[low:high],
        )


def _shifted(present: slice, low: int, high: int) -> slice:
    return slice(max(present.start, low) - low, min(present.stop, high) - low)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """Results for frames that a step could finish: `frame` int64 (n,), each value (n, ...) on the device.

    The values are not copied, so the model must not write into their memory any more.
    """

    frame: np.ndarray
    values: Mapping[str, Tensor]


class Model(Protocol):
    """What a model file's `build(weights=None, *, device, **options)` returns.

    `begin` makes the state of one shard of one video. `step` may change that state, but only after everything that can
    fail has succeeded: the engine repeats a step in halves when the device is out of memory. `end` returns what was
    still waiting for look-ahead when the frames ended; it is called until it returns None, so that much can come in
    pieces.

    A model whose state is "relay" has `save(state) -> {name: array}` and `load(state, arrays)`, and its step in three:
    `look(batch, state)` is what pixels alone say, something that can be pickled; `remember(batch, looked, state)`
    changes the state and returns what is then known; `answer(batch, known, state)` is the Result and changes nothing.

    A clip model gets a ClipBatch, and has `prepare(frames_nhwc) -> (n, C, h, w)`, which every frame passes through
    once. A model whose spec names constants also has `constants(state) -> {name: float32 array}`, and one whose spec
    names derived outputs has `derive(video, fixations) -> Derivation`.
    """

    spec: ModelSpec

    def begin(self, video: Video) -> Any: ...

    def step(self, batch: Any, state: Any) -> Result: ...

    def end(self, state: Any) -> Result | None: ...


class Derivation(Protocol):
    """The second pass over one video: stored values of consecutive frames in, the derived outputs of them out.

    `values` {output: (n, ...) float32} and `pts_seconds` float64 (n,) of frames that all have a picture; all frames of
    the video pass through in order, a few at a time; n is 0 where the shapes of the derived outputs are wanted before
    the first picture. `table` is what there is to say at the end, one row per item ({column with its unit: value}); it
    becomes a csv file beside the merged one.
    """

    def step(self, values: Mapping[str, Tensor], pts_seconds: np.ndarray) -> Mapping[str, Tensor]: ...

    def table(self) -> list[dict[str, float]]: ...

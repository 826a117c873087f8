"""Which frames make which clip: the times of a video's frames and a model's window in, frame numbers out.

A clip is a window of the video that a model sees as a few of its frames, its members. It is owned by its start frame;
clips are counted from 0 in the order of their starts, and plans count them as they count frames elsewhere. Arithmetic
alone: every task computes the same table from the same index. Knows no plan and decodes nothing.

    frame      0         15        30        45        60        75
    clip 0     0  6  12 . 19  25  32 ... 77                                13 members of a window of 78 frames
    clip 1               15  21  27  34  40  47 ... 92                     stride 0.5 s at 30 frames per second
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .timing import Clip, Sampling, Tail, Timing

ROUNDING = 1e-6  # frames: a product that misses a whole number by less is that number
SAME_RATE = 2e-4  # NTSC's rates differ from whole ones by 1e-3, milliseconds round one of a few seconds by 1e-4
TICK = 5e-4  # seconds: half of the coarsest clock in use (Matroska's milliseconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameTimes:
    """What of a video decides on its clips. `pts_seconds` float64 (n,), rising; `variable`: not one rate throughout."""

    pts_seconds: np.ndarray
    frame_rate: float
    variable: bool = False

    @property
    def n(self) -> int:
        return len(self.pts_seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """All clips of a video. `start` int64 (n,), rising: the frame that owns each clip; `members` int64 (n, T): its
    frames; `own` bool (n, T): False where the video ended before and the last frame stands in."""

    start: np.ndarray
    members: np.ndarray
    own: np.ndarray

    def __len__(self) -> int:
        return len(self.start)


def clips_of(video: FrameTimes, clip: Clip, timing: Timing) -> Clips:
    """The table of clips of a video with at least one frame; empty only where `drop` leaves nothing."""
    rate = video.frame_rate if video.variable else nominal_rate(video.frame_rate)
    offsets = member_offsets(clip, rate, clip.sampling if timing.sampling == "model" else timing.sampling)
    if video.variable:
        return _by_time(video, offsets / rate, timing)
    return _by_number(video.n, rate, offsets.astype(np.int64), timing)


def nominal_rate(frame_rate: float) -> float:
    """A rate measured by time stamps without their rounding: whole, or whole / 1.001 as in NTSC, if that close."""
    for unit in (1.0, 1 / 1.001):
        nearest = round(frame_rate / unit) * unit
        if abs(frame_rate - nearest) < SAME_RATE * frame_rate:
            return nearest
    return frame_rate


def member_offsets(clip: Clip, frame_rate: float, sampling: Sampling) -> np.ndarray:
    """Where the members lie behind the start, in frames, float64 (T,), not rounded yet.

    Relative to the start, so that a clip does not depend on where in a long video it lies. `pyslowfast` is float32, as
    there.
    """
    if sampling == "strided":
        return np.arange(clip.length) * (clip.step * frame_rate / clip.rate) + ROUNDING
    window = max(1.0, clip.step * clip.length * frame_rate / clip.rate)
    return linspace_float32(0.0, window - 1, clip.length).astype(np.float64)


def linspace_float32(start: float, end: float, n: int) -> np.ndarray:
    """n numbers from start to end as torch.linspace gives them: float32, filled from both ends towards the middle.

    Its last bit depends on the machine (2.11, with and without vectors of eight), and members must not.
    """
    first, last = np.float32(start), np.float32(end)
    if n == 1:
        return np.array([first])
    step = np.float32((last - first) / np.float32(n - 1))
    i = np.arange(n)
    up = first.astype(np.float64) + step.astype(np.float64) * i
    down = last.astype(np.float64) - step.astype(np.float64) * (n - 1 - i)
    return np.where(i < n // 2, up, down).astype(np.float32)


def protocol_members(
    n_frames: int, frame_rate: float, clip: Clip, *, view: int, views: int, by_frame: bool = False
) -> np.ndarray:
    """Members of one of the views that PySlowFast's test takes of a short video, int64 (T,).

    Views are spread over the room that the window leaves; `by_frame`: they begin at whole frames, the first and the
    last one at the ends, a single one in the middle (its USE_OFFSET_SAMPLING, for MViT).
    """
    window = max(1.0, clip.step * clip.length * frame_rate / clip.rate)
    room = max(n_frames - window, 0.0)
    if not by_frame:
        start = room * view / views
    elif views == 1:
        start = float(np.floor(room / 2))
    else:
        start = float(view * np.floor(room / (views - 1)))
    between = np.clip(linspace_float32(start, start + window - 1, clip.length), 0, n_frames - 1)
    return between.astype(np.int64)


def _by_number(n_frames: int, frame_rate: float, offsets: np.ndarray, timing: Timing) -> Clips:
    """At one rate members are the same numbers behind every start."""
    seconds = timing.stride_seconds
    stride = float(timing.stride) if seconds is None else max(1.0, seconds * frame_rate)
    grid = np.floor(np.arange(int(n_frames / stride) + 2) * stride + ROUNDING).astype(np.int64)
    grid = grid[grid < n_frames]
    last = n_frames - 1 - int(offsets[-1])  # where a whole window may begin at the latest
    start = _with_tail(grid, grid <= last, max(0, last), timing.tail)
    members = start[:, None] + offsets
    return Clips(start=start, members=np.minimum(members, n_frames - 1), own=members < n_frames)


def _by_time(video: FrameTimes, offsets_seconds: np.ndarray, timing: Timing) -> Clips:
    """Where frames last differently long, a member is the frame on screen at its time."""
    pts = video.pts_seconds - video.pts_seconds[0]

    def on_screen(seconds: np.ndarray) -> np.ndarray:
        return np.maximum(np.searchsorted(pts, seconds + TICK, side="right") - 1, 0)

    seconds = timing.stride_seconds
    if seconds is None:
        grid = np.arange(0, video.n, int(timing.stride))
    else:
        grid = np.unique(on_screen(np.arange(int(pts[-1] / seconds) + 1) * seconds))
    latest = pts[-1] - offsets_seconds[-1]
    start = _with_tail(grid, pts[grid] <= latest + TICK, int(on_screen(np.array(max(0.0, latest)))), timing.tail)
    times = pts[start][:, None] + offsets_seconds
    return Clips(start=start, members=on_screen(times), own=times <= pts[-1] + TICK)


def _with_tail(grid: np.ndarray, whole: np.ndarray, last: int, tail: Tail) -> np.ndarray:
    """Starts of clips: of those on the stride's grid all, the whole ones, or these and one that ends with the video."""
    if tail == "clamp":
        return grid
    start = grid[whole]
    if tail == "drop" or (len(start) and start[-1] >= last):
        return start
    return np.append(start, last)


def needed(clips: Clips, rows: Sequence[int]) -> np.ndarray:
    """The frames that these clips are made of, rising, each once."""
    return np.unique(clips.members[list(rows)])

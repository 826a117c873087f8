"""Where a film is cut: the frames of an indexed video in, the first frame of every shot out.

Streams small pictures, a few of them in memory, and decides on each border when it has seen some frames behind it, so
that flashes and fast motion do not pass for cuts. Only hard cuts: fades and dissolves change no two frames enough.
Knows no maps and no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import av
import numpy as np

from .color import RgbConverter
from .decode import VideoReader
from .index import VideoIndex

GRID = (18, 32)  # cells of a small picture, rows and columns
LEVELS = 8  # steps of each channel in the color histogram
N_COLORS = (LEVELS + 1) ** 3
FLASH_SECONDS = 0.16  # what lasts no longer and gives way to the same picture is a flash, not a shot
CUT = 0.27  # least difference at a cut; between frames of one shot it is mostly below 0.05
ABOVE_MOTION = 2.0  # times the usual difference of the frames before, and of those behind


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """A shot's first frame; `strength` is how different it is from the frame before, 0 ... 1."""

    frame: int
    pts_seconds: float
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Small:
    """What is compared of a frame: mean colors of the cells of a grid, (18, 32, 3) in 0 ... 1, and the share of its
    pixels of every color, (729,)."""

    cells: np.ndarray
    histogram: np.ndarray


def shots(
    index: VideoIndex,
    *,
    start: int = 0,
    stop: int | None = None,
    workers: int = 1,
    on_frame: Callable[[int], None] | None = None,
) -> list[tuple[int, int]]:
    """[start, stop) of every shot among the frames `start` ... `stop` - 1, which they tile; none for no frames."""
    stop = index.n_frames if stop is None else min(stop, index.n_frames)
    if start >= stop:
        return []
    found = cuts(index, start=start, stop=stop, workers=workers, on_frame=on_frame)
    borders = [start, *(cut.frame for cut in found if cut.frame > start), stop]
    return list(pairwise(borders))


def cuts(
    index: VideoIndex,
    *,
    start: int = 0,
    stop: int | None = None,
    workers: int = 1,
    on_frame: Callable[[int], None] | None = None,
) -> list[Cut]:
    """Hard cuts at the frames `start` ... `stop` - 1, the same as in the whole video: a few frames more are read.

    `on_frame(n)` is told how many have been looked at. Raises what reading the video raises.
    """
    stop = index.n_frames if stop is None else min(stop, index.n_frames)
    reach = _reach(index)
    frames = range(max(0, start - 2 * reach), min(index.n_frames, stop + 2 * reach))
    found = find_cuts(_small_pictures(index, frames, workers, on_frame), reach)
    return [
        Cut(frame=frame, pts_seconds=float(index.pts_seconds[frame]), strength=round(strength, 4))
        for frame, strength in ((frames[number], strength) for number, strength in found)
        if start <= frame < stop
    ]


def find_cuts(pictures: Iterable[Small], reach: int) -> Iterator[tuple[int, float]]:
    """(number, strength) of every picture that begins a shot, of pictures in order, `2 reach + 1` of them in memory.

    A cut is a difference that is large, stands out of those `reach` pictures before it and behind it, and lasts: each
    of the `reach` pictures before it differs from each of those behind it.
    """
    window: deque[Small] = deque(maxlen=2 * reach)
    steps: deque[float] = deque(maxlen=2 * reach)  # steps[i]: difference of window[i] to the picture before it
    number = -1
    for number, picture in enumerate(pictures):
        steps.append(difference(window[-1], picture) if window else 0.0)
        window.append(picture)
        behind = min(reach, number)  # pictures of the window from the candidate on, itself included
        if number >= reach and (strength := _cut_at(window, steps, len(window) - behind)):
            yield number - behind + 1, strength
    for behind in range(min(reach - 1, number), 0, -1):  # what is left has less behind it
        if strength := _cut_at(window, steps, len(window) - behind):
            yield number - behind + 1, strength


def _cut_at(window: deque[Small], steps: deque[float], at: int) -> float:
    """The strength of a cut between window[at - 1] and window[at]; 0 where there is none."""
    strength = steps[at]
    if at < 1 or strength < CUT:
        return 0.0
    others = list(steps)
    usual = max(float(np.median(part)) if part else 0.0 for part in (others[1:at], others[at + 1 :]))
    if strength < ABOVE_MOTION * usual:
        return 0.0
    pictures = list(window)
    lasting = min(difference(one, other) for one in pictures[:at] for other in pictures[at:])
    return strength if lasting >= CUT / 2 else 0.0


def difference(one: Small, other: Small) -> float:
    """0 for equal pictures, 1 for pictures without a color in common that differ much everywhere.

    Half of it is the part of the pixels whose color is another, wherever they are; half is how different the cells are
    on average, a quarter of the range from black to white counting as fully different.
    """
    colors = float(np.abs(one.histogram - other.histogram).sum()) / 2
    places = min(1.0, 4 * float(np.abs(one.cells - other.cells).mean()))
    return (colors + places) / 2


def small_picture(rgb: np.ndarray) -> Small:
    """Of an (H, W, 3) uint8 picture of any size."""
    rows, columns = (_borders(n, cells) for n, cells in zip(rgb.shape, GRID, strict=False))
    sums = np.add.reduceat(np.add.reduceat(rgb, rows[0], axis=0, dtype=np.float32), columns[0], axis=1)
    cells = sums / (255 * rows[1][:, None, None] * columns[1][None, :, None])
    # Pixels are spread over two neighboring levels each, as far as they are between them, by an offset that depends on
    # their place: else a plain area that gets a shade lighter would change its color altogether at some frame.
    step = 256 // LEVELS
    level = (rgb + _offsets(*rgb.shape[:2])) // step
    color = (level[..., 0] * (LEVELS + 1) + level[..., 1]) * (LEVELS + 1) + level[..., 2]
    histogram = np.bincount(color.ravel(), minlength=N_COLORS).astype(np.float32) / color.size
    return Small(cells=cells, histogram=histogram)


@lru_cache(maxsize=4)
def _offsets(height: int, width: int) -> np.ndarray:
    """(H, W, 3) int64 in 0 ... 31: evenly spread among neighbors, in each channel otherwise."""
    y, x, channel = np.ogrid[:height, :width, :3]
    # The additive recurrence with the plastic number, of low discrepancy in two dimensions (Roberts 2018, "R2").
    part = (0.7548776662466927 * x + 0.5698402909980532 * y + channel / 3) % 1
    return (part * (256 // LEVELS)).astype(np.int64)


def _borders(n: int, cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each of at most so many cells begins among n samples, and its length."""
    edges = np.unique(np.arange(cells + 1) * n // cells)
    return edges[:-1], np.diff(edges)


def _small_pictures(
    index: VideoIndex, frames: range, workers: int, on_frame: Callable[[int], None] | None
) -> Iterator[Small]:
    """One per frame; a frame without a picture repeats the one before it."""
    convert = RgbConverter(size=(index.height, index.width))
    before = Small(cells=np.zeros((*GRID, 3), np.float32), histogram=np.zeros(N_COLORS, np.float32))
    seen: av.VideoFrame | None = None
    with VideoReader(index, workers=workers) as reader:
        for number, frame in enumerate(reader.read(frames), 1):
            if frame.picture is not None and frame.picture is not seen:
                seen = frame.picture
                before = small_picture(_thinned(convert, seen))
            yield before
            if on_frame:
                on_frame(number)


def _thinned(convert: RgbConverter, picture: av.VideoFrame) -> np.ndarray:
    """Every nth pixel of it, at least some 256 a row: enough for both measures, and quick."""
    step = max(1, picture.width // 256)
    return convert(picture, step=2 if step > 1 else 1)[:: max(1, step // 2), :: max(1, step // 2)]


def _reach(index: VideoIndex) -> int:
    """Frames looked at on either side: as long as a flash lasts, from 3 to 10."""
    return min(10, max(3, round(FLASH_SECONDS * index.frame_rate)))

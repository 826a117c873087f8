"""What a film shows of each frame: a model's density, the difference of two models, or where people looked.

In flow the maps of runs and recorded gaze; out comes, for any frame of the video, a small map at a size for drawing.
Knows no pictures and no colors.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Literal, Protocol

import numpy as np

from ..index import VideoIndex
from ..maps import Maps
from ..store import DONE
from .gaze_marks import GazeTrack, density_of
from .overlay import reduced, reduced_size

Between = Literal["interpolate", "hold", "none"]

SCALE_FRAMES = 2000  # frames looked at for the scale of the whole film, evenly spread
SCALE_QUANTILE = 0.95  # of their peaks: a few sharper ones may clip, so that they do not dim all others
FLAT = 4.0  # times uniform: a density that peaks lower is shown as weak, not stretched to full color
SMALL_BITS = 1.0  # a difference that peaks lower is shown as weak, too
UNIFORM_SHARE = 1 / 8  # times uniform, added to densities that are compared


class Shown(Protocol):
    """Maps to be drawn. `least`: the smallest maximum of a scale, so that next to nothing is not shown as much.

    `unit`: of what is drawn; a saliency map, which is no density, is drawn relative to its own mean.
    """

    least: float
    unit: str

    def at(self, frame: int) -> np.ndarray | None:
        """(h, w) float32 of any frame of the video, turned as shown; None where there is nothing to show."""
        ...

    def computed(self, frame: int) -> np.ndarray | None:
        """The same of one of `frames`, without the frames beside it."""
        ...

    @property
    def frames(self) -> np.ndarray:
        """Frames that have a map of their own."""
        ...


class Densities:
    """Density of any frame of a video relative to uniform, or a saliency map relative to its mean, as shown, at a size
    for drawing; None where it has no map.

    `size` (height, width): read back at that size instead of the stored one. Safe to share between threads. Holds a few
    maps, however long the video.
    """

    least = FLAT

    def __init__(self, maps: Maps, index: VideoIndex, between: Between, *, size: tuple[int, int] | None = None) -> None:
        self.maps, self._size = maps, size
        self.unit = "x mean" if maps.first.kind == "saliency_map" else "x uniform"
        self._seconds, self._between = index.pts_seconds, between
        self._step = int(maps.info["every"])
        self._recent: OrderedDict[int, np.ndarray | None] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, frame: int) -> np.ndarray | None:
        stored = self.maps.frame
        row = int(np.searchsorted(stored, frame))
        if row < len(stored) and stored[row] == frame:
            return self.computed(frame)
        if self._between == "none":
            return None
        before, after = self._near(row - 1, frame), self._near(row, frame)
        left = None if before is None else self.computed(before)
        if left is not None and self._between == "hold":
            return left
        right = None if after is None else self.computed(after)
        if left is None or right is None or before is None or after is None:
            return right if left is None else left
        begin, end = self._seconds[before], self._seconds[after]
        weight = np.float32((self._seconds[frame] - begin) / max(end - begin, 1e-9))
        return left * (1 - weight) + right * weight

    def computed(self, frame: int) -> np.ndarray | None:
        """Of a frame that the run holds; None at a hole."""
        with self._lock:
            if frame not in self._recent:
                self._recent[frame] = self._read(frame)
                if len(self._recent) > 4:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(frame)
            return self._recent[frame]

    @property
    def frames(self) -> np.ndarray:
        return self.maps.frame[self.maps.status == DONE]

    def _near(self, row: int, frame: int) -> int | None:
        """The stored frame in `row` if it is less than one sampling step away: farther ones are of another range."""
        if not 0 <= row < len(self.maps.frame):
            return None
        stored = int(self.maps.frame[row])
        return stored if abs(stored - frame) < self._step else None

    def _read(self, frame: int) -> np.ndarray | None:
        maps, output = self.maps, self.maps.first
        if self._size is not None:
            shown = maps.full_size(frame, size=self._size)
        elif output.kind == "priority" and output.is_density:  # becomes one at the size that the model saw
            shown = maps.log_density(frame, size=(int(maps.info["model_height"]), int(maps.info["model_width"])))
        else:
            shown = maps.native(frame) if len(maps.shape()) == 2 else maps.full_size(frame)
        density = np.exp(shown) if output.is_density or output.kind == "log_density" else np.maximum(shown, 0)
        density = reduced(density)
        total = float(density.sum(dtype=np.float64))
        return density * np.float32(density.size / total) if np.isfinite(total) and total > 0 else None


class Differences:
    """Log density of one model minus another's in bits, on a grid of one size; None where either has no map.

    An eighth of the uniform density is added to both, log2((p + u / 8) / (q + u / 8)): without it factors between two
    next to impossible places would outshine what the models expect where people look.
    """

    least = SMALL_BITS
    unit = "bits"

    def __init__(self, first: Densities, second: Densities) -> None:
        self._first, self._second = first, second

    def at(self, frame: int) -> np.ndarray | None:
        return _difference_bits(self._first.at(frame), self._second.at(frame))

    def computed(self, frame: int) -> np.ndarray | None:
        return self.at(frame)

    @property
    def frames(self) -> np.ndarray:
        return self._first.frames


def _difference_bits(first: np.ndarray | None, second: np.ndarray | None) -> np.ndarray | None:
    if first is None or second is None:
        return None
    return np.log2((first + UNIFORM_SHARE) / (second + UNIFORM_SHARE))


class GazeDensities:
    """The density of recorded gaze: a Gaussian of `sigma_px` displayed pixels around every mark; 0 without one."""

    least = FLAT
    unit = "x uniform"

    def __init__(self, track: GazeTrack, index: VideoIndex, sigma_px: float) -> None:
        self._track, self._sigma_px = track, sigma_px
        self._begin, self._end = index.pts_seconds, index.end_seconds
        self._frame_size = index.display_height, index.display_width

    def at(self, frame: int) -> np.ndarray | None:
        marks = self._track.during(self._begin[frame], self._end[frame])
        return density_of(marks, self._frame_size, reduced_size(*self._frame_size), self._sigma_px)

    def computed(self, frame: int) -> np.ndarray | None:
        return self.at(frame)

    @property
    def frames(self) -> np.ndarray:
        return np.arange(len(self._begin))


def film_maximum(shown: Shown, check_stop: Callable[[], None] = lambda: None) -> float:
    """What gets the last color of the table throughout the film: times uniform, or bits of a difference."""
    frames, peaks = shown.frames, []
    for frame in frames[:: -(-len(frames) // SCALE_FRAMES) or 1]:
        values = shown.computed(int(frame))
        if values is not None and (peak := float(np.abs(values).max())) > 0:
            peaks.append(peak)
        check_stop()
    return max(shown.least, float(np.quantile(peaks, SCALE_QUANTILE))) if peaks else shown.least

"""Where a viewer has looked so far, for models whose map depends on it: a source of fixations in, the last few before
each frame out.

A source is a constant, a table of recorded gaze, or the model's own maps, from which fixations are drawn by a clock of
presentation time. Every answer is a function of the frames' times and maps, never of how many of them come at once.
Knows no network and no video file; pixels are counted from the frame's corner, so pixel j spans j ... j + 1.

    frames        |  |  |  |  |  |  |  |  |  |  |
    fixations     ├───────────────┤├─────────────┤      chosen from the map of the frame at which it begins,
                                  ^ enters the history   known to the model from the frame on at which it has ended
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from .density import nearest_indices
from .errors import BadInput, UsageError
from .gaze.tables import load_table

LENGTH = 4  # fixations in a history, as many as DeepGaze III was trained with
COLUMNS = ("start_seconds", "end_seconds", "x_px", "y_px")
INTERVAL_SECONDS = 0.28  # from one saccade to the next: 3.6 a second, as in free viewing of pictures
INHIBITION_PX = 1.5 * 35  # 1.5 degrees of visual angle at the 35 pixels per degree of the training data


@dataclass(frozen=True, slots=True)
class Central:
    """One fixation in the middle of the frame, as at the beginning of each trial that the model was trained on."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """No fixation at all: the model has an answer, but was never trained for it."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class History:
    """Known histories: x_px and y_px (4,) for all frames or (T, 4) for T frames, most recent first, NaN for none."""

    x_px: np.ndarray
    y_px: np.ndarray

    def __post_init__(self) -> None:
        x, y = np.asarray(self.x_px, np.float64), np.asarray(self.y_px, np.float64)
        if x.shape != y.shape or x.ndim not in (1, 2) or x.shape[-1] != LENGTH:
            raise ValueError(f"a history is x and y of shape ({LENGTH},) or (T, {LENGTH}), not {x.shape} and {y.shape}")
        if np.any(np.isnan(x) != np.isnan(y)) or np.isinf(x).any() or np.isinf(y).any():
            raise ValueError("each fixation of a history has both a finite x and a finite y, or NaN for both")


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """Fixations that the model chooses itself, beginning in the middle of the frame.

    One is chosen each `interval_seconds` of presentation time, but at most one for each picture. `sample`: drawn from
    the density, `scanpaths` times independently, so that the mean of their maps is a marginal one. `argmax`: the
    densest place but for a Gaussian of `inhibition_px` around each fixation of the history.
    """

    choice: Literal["sample", "argmax"] = "sample"
    interval_seconds: float = INTERVAL_SECONDS
    inhibition_px: float = INHIBITION_PX
    scanpaths: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if self.choice not in ("sample", "argmax"):
            raise ValueError(f"{self.choice = } is neither sample nor argmax")
        if not (self.interval_seconds > 0 and self.inhibition_px > 0 and self.scanpaths >= 1):
            raise ValueError(f"interval, inhibition and the number of scanpaths have to be positive: {self}")
        if not 0 <= self.seed < 2**63:
            raise ValueError(f"{self.seed = } is not in 0 ... 2**63 - 1")
        if self.choice == "argmax" and self.scanpaths > 1:
            raise UsageError("generated:argmax has one scanpath only, more would all be the same: use generated")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Given:
    """Recorded fixations: per scanpath (n, 4) start_seconds, end_seconds, x_px, y_px; times on the video's clock.

    A frame sees those that ended at or before its time. Of several scanpaths (viewers), the maps are averaged.
    """

    scanpaths: tuple[np.ndarray, ...]
    name: str = "the given fixations"


Source = Central | Nothing | History | Generated | Given


def parse(text: str, *, scanpaths: int | None = None, seed: int | None = None) -> Source:
    """What `--fixations`, `--scanpaths` and `--seed` ask for. Raises UsageError, MissingInput, BadInput."""
    if text != "generated" and (scanpaths is not None or seed is not None):
        option = "--scanpaths" if scanpaths is not None else "--seed"
        raise UsageError(f"{option} is for sampled fixations: leave it out, or use --fixations generated")
    if text == "central":
        return Central()
    if text == "none":
        return Nothing()
    if text in ("generated", "generated:argmax"):
        choice = "argmax" if text.endswith("argmax") else "sample"
        return Generated(choice=choice, scanpaths=1 if scanpaths is None else scanpaths, seed=seed or 0)
    if Path(text).suffix.lower() != ".csv":
        raise UsageError(f"--fixations {text!r} is none of central, none, generated, generated:argmax or a .csv file")
    return read(Path(text))


def read(path: Path) -> Given:
    """A table of fixations as `gaze.tables` reads it: a header with `COLUMNS` in any order, in order of time.

    A column `scanpath` tells several viewers apart. Other columns are ignored. Unlike in an evaluation no row may be
    without a time or a place: a history with a gap would be another history.
    """
    table = load_table(path)
    if missing := [name for name in COLUMNS if table.column(name) is None]:
        header = ",".join(COLUMNS)
        raise BadInput(f"{path} has no column {missing[0]}: its first line has to name them, {header}")
    found: dict[str, list[tuple[float, ...]]] = {}
    texts = zip(*(table.texts(name) for name in COLUMNS), strict=True)
    for number, (scanpath, line) in enumerate(zip(table.texts("scanpath"), texts, strict=True)):
        rows = found.setdefault(scanpath, [])
        rows.append(_fixation(table.where(number), line, rows[-1] if rows else None))
    if not found:
        raise BadInput(f"{path} holds no fixation: give some, or use --fixations none")
    return Given(scanpaths=tuple(np.array(rows) for rows in found.values()), name=str(path))


def _fixation(where: str, line: tuple[str, ...], before: tuple[float, ...] | None) -> tuple[float, ...]:
    values = []
    for name, text in zip(COLUMNS, line, strict=True):
        try:
            value = float(text)
        except ValueError:
            raise BadInput(f"{where}: {name} is {text or None!r}, not a number: correct it") from None
        if not math.isfinite(value):
            raise BadInput(f"{where}: {name} is {text}: leave fixations out that have no time or place")
        values.append(value)
    start, end = values[:2]
    if end < start:
        raise BadInput(f"{where}: the fixation ends at {end:g} s, before it begins at {start:g} s: correct its times")
    if before and (start < before[0] or end < before[1]):
        raise BadInput(
            f"{where}: the fixation is earlier than the one above it: sort by start_seconds, and tell several viewers "
            "apart by a column scanpath"
        )
    return tuple(values)


class Scanpaths:
    """The fixations of S viewers, followed through a video: for each frame in turn `history`, then, where `choosing` is
    true, `look` at what the model made of it.

    `choosing`: the next fixation is to be chosen from the map of the frame that `history` was last asked for.
    """

    choosing = False

    def history(self, seconds: float) -> np.ndarray:
        """(S, 4, 2) x, y in pixels of the frame, most recent first, NaN for none."""
        raise NotImplementedError

    def look(self, log_density_shw: np.ndarray) -> None:
        """The maps (S, h, w) that the model made of the last histories; their cells tile the frame."""
        raise RuntimeError(f"{type(self).__name__} fixations are not chosen from maps")

    def table(self) -> list[dict[str, float]]:
        """The fixations that have ended, one per row, as `read` takes them."""
        return []


def follow(source: Source, *, height: int, width: int, scale: tuple[float, float] = (1.0, 1.0)) -> Scanpaths:
    """Begin a video of frames `height` x `width`. `scale`: pixels of a table or a `History` per pixel of these
    frames, (x, y)."""
    match source:
        case Central():
            return Fixed(np.array([[[width / 2, height / 2], *[[np.nan, np.nan]] * (LENGTH - 1)]]), scale)
        case Nothing():
            return Fixed(np.full((1, LENGTH, 2), np.nan), scale)
        case History():
            xy = np.stack([source.x_px, source.y_px], axis=-1) / scale
            return Fixed(xy[None], scale) if xy.ndim == 2 else Listed(xy)
        case Given():
            return Recorded(source, scale)
        case Generated():
            return Chosen(source, height, width, scale)


class Fixed(Scanpaths):
    """The same history for every frame."""

    def __init__(self, xy: np.ndarray, scale: tuple[float, float]) -> None:
        self.xy, self.scale = xy, scale
        self.began: float | None = None

    def history(self, seconds: float) -> np.ndarray:
        self.began = seconds if self.began is None else self.began
        return self.xy

    def table(self) -> list[dict[str, float]]:
        # Oldest first. They ended before the video began; the first frame's time is the earliest that is needed.
        xy = [xy for xy in self.xy[0, ::-1] if not np.isnan(xy[0])]
        return [] if self.began is None else [_row(0, self.began, self.began, each * self.scale) for each in xy]


class Listed(Scanpaths):
    """One history after another, in the order of the frames; they have no times, so there is no table of them."""

    def __init__(self, xy: np.ndarray) -> None:
        self.xy, self.frames_seen = xy, 0

    def history(self, seconds: float) -> np.ndarray:
        if self.frames_seen == len(self.xy):
            raise ValueError(f"there are histories for {len(self.xy)} frames, but more frames than that")
        self.frames_seen += 1
        return self.xy[self.frames_seen - 1][None]


class Recorded(Scanpaths):
    """What was read from a file."""

    def __init__(self, source: Given, scale: tuple[float, float]) -> None:
        self.scanpaths, self.scale = source.scanpaths, np.array(scale)

    def history(self, seconds: float) -> np.ndarray:
        found = np.full((len(self.scanpaths), LENGTH, 2), np.nan)
        for number, scanpath in enumerate(self.scanpaths):
            ended = int(np.searchsorted(scanpath[:, 1], seconds, side="right"))
            last = scanpath[max(0, ended - LENGTH) : ended, 2:] / self.scale
            found[number, : len(last)] = last[::-1]
        return found

    def table(self) -> list[dict[str, float]]:
        return [_row(s, row[0], row[1], row[2:]) for s, scanpath in enumerate(self.scanpaths) for row in scanpath]


class Chosen(Scanpaths):
    """Fixations chosen from the model's own maps. The clock starts with the first frame, number 0; each time its
    number has risen, the fixation under way ends and a new one begins."""

    def __init__(self, source: Generated, height: int, width: int, scale: tuple[float, float]) -> None:
        self.source, self.size, self.scale = source, (height, width), np.array(scale)
        self.number = -1
        self.began: float | None = None  # the video
        self.since = math.nan  # the fixation under way
        self.under_way = np.tile([width / 2, height / 2], (source.scanpaths, 1))
        self.past = np.full((source.scanpaths, LENGTH, 2), np.nan)
        self.rows: list[list[dict[str, float]]] = [[] for _ in range(source.scanpaths)]

    def history(self, seconds: float) -> np.ndarray:
        if self.began is None:
            self.began = self.since = seconds
        # A frame whose time is a multiple of the interval belongs to the next fixation, whatever was rounded.
        number = math.floor((seconds - self.began) / self.source.interval_seconds + 1e-6)
        self.choosing = number > self.number
        if self.choosing:
            self.past = np.concatenate([self.under_way[:, None], self.past[:, :-1]], axis=1)
            for scanpath, rows in enumerate(self.rows):
                rows.append(_row(scanpath, self.since, seconds, self.under_way[scanpath] * self.scale))
            self.number, self.since = number, seconds
        return self.past

    def look(self, log_density_shw: np.ndarray) -> None:
        x, y = (cells(n, grid) for n, grid in zip(self.size[::-1], log_density_shw.shape[:0:-1], strict=True))
        for scanpath, log_density in enumerate(log_density_shw):
            if self.source.choice == "sample":
                share = uniform(self.source.seed, scanpath, self.number)
                self.under_way[scanpath] = sampled(log_density, x, y, share)
            else:
                self.under_way[scanpath] = densest(log_density, x, y, self.past[scanpath], self.source.inhibition_px)

    def table(self) -> list[dict[str, float]]:
        return [row for rows in self.rows for row in rows]


def _row(scanpath: int, start: float, end: float, xy: Sequence[float] | np.ndarray) -> dict[str, float]:
    values = dict(zip(COLUMNS, map(float, (start, end, *xy)), strict=True))
    return {"scanpath": scanpath, **values}


@dataclass(frozen=True, slots=True)
class Cells:
    """Along one axis, the cells of a map that is enlarged to n pixels by repetition: their middles and widths."""

    middle_px: np.ndarray
    width_px: np.ndarray


def cells(n_pixels: int, n_cells: int) -> Cells:
    width = np.bincount(nearest_indices(n_cells, n_pixels), minlength=n_cells)
    return Cells(np.cumsum(width) - width / 2, width)


def uniform(seed: int, scanpath: int, number: int) -> float:
    """A random number in [0, 1) that depends on these three alone, on every machine and in every order."""
    philox = np.random.Philox(key=np.array([seed, scanpath], np.uint64), counter=np.array([number, 0, 0, 0], np.uint64))
    return (int(philox.random_raw()) >> 11) / 2**53


def sampled(log_density_hw: np.ndarray, x: Cells, y: Cells, share: float) -> tuple[float, float]:
    """The place (x, y) up to which `share` of the probability lies, cells taken in reading order."""
    mass = np.exp(log_density_hw.astype(np.float64)) * np.outer(y.width_px, x.width_px)
    total = np.cumsum(mass)
    # Rounding may carry the target to the very end, behind which cells without any mass may follow.
    found = min(np.searchsorted(total, share * total[-1], side="right"), np.searchsorted(total, total[-1]))
    row, column = divmod(int(found), mass.shape[1])
    return x.middle_px[column], y.middle_px[row]


def densest(
    log_density_hw: np.ndarray, x: Cells, y: Cells, history: np.ndarray, inhibition_px: float
) -> tuple[float, float]:
    """The place (x, y) of highest density when each fixation of the history (4, 2) takes a Gaussian share of it."""
    rest = log_density_hw.astype(np.float64)
    for at_x, at_y in history[~np.isnan(history[:, 0])]:
        distance = (x.middle_px - at_x) ** 2 + (y.middle_px[:, None] - at_y) ** 2
        with np.errstate(divide="ignore"):  # nothing is left at the fixation itself
            rest += np.log(-np.expm1(-distance / (2 * inhibition_px**2)))
    row, column = divmod(int(rest.argmax()), rest.shape[1])
    return x.middle_px[column], y.middle_px[row]

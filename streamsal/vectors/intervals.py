"""The vectors of a video's clips, with their times; and their means over intervals or the whole video.

In flow arrays with one row per clip, out come arrays with one row per interval. Pure arithmetic, but for intervals
that are listed in a csv file. Knows no video file and no model.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import MissingInput, UsageError

INSTANT_SECONDS = 1e-6  # what a clip lasts that the container gives no duration: it still belongs to its interval
Statistic = Literal["max", "std"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Vectors:
    """One vector per clip of a video, in order of the clips' starts.

    `video`: name in the run. `features` (n, D) float32: a row of NaN where no picture of the clip could be decoded.
    `start_seconds`, `end_seconds` (n,) float64: pts of the first member frame, pts + duration of the last. `frames`
    (n, T) int64: display-order numbers of the members. `valid` (n,) float32: share of the members that are pictures of
    their own, neither a repetition at the end nor a hole. `more` {name: (n, ...) float32}: what was computed beside
    the features. `facts`: at least `model`; strings, numbers or None.

    Raises ValueError where the arrays do not have the same number of rows or the clips are out of order.
    """

    video: str
    features: np.ndarray
    start_seconds: np.ndarray
    end_seconds: np.ndarray
    frames: np.ndarray
    valid: np.ndarray
    facts: Mapping[str, Any]
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_rows(self)
        if (np.diff(self.start_seconds) < 0).any():
            raise ValueError("clips must come in order of their starts")

    @property
    def intervals(self) -> np.ndarray:
        """(n, 2) float64: start and end of each row in seconds of the video's clock."""
        return np.stack([self.start_seconds, self.end_seconds], 1).astype(np.float64)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What else is known of each row."""
        return {"frames": self.frames, "valid": self.valid}


@dataclass(frozen=True, slots=True, kw_only=True)
class Means:
    """Means of clip vectors over intervals of one video, one row per interval.

    `features` (m, D) float32: NaN where no clip with a vector touches the interval. `clips` (m,) int64: how many do.
    `weight` (m,) float64: the sum of their weights, the seconds of their windows that lie in it; of a whole video the
    number of clips. `more`: means of what was computed beside the features, and the other statistics.
    """

    video: str
    features: np.ndarray
    start_seconds: np.ndarray
    end_seconds: np.ndarray
    clips: np.ndarray
    weight: np.ndarray
    facts: Mapping[str, Any]
    more: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_rows(self)

    @property
    def intervals(self) -> np.ndarray:
        """(m, 2) float64: start and end of each row in seconds of the video's clock."""
        return np.stack([self.start_seconds, self.end_seconds], 1).astype(np.float64)

    @property
    def columns(self) -> dict[str, np.ndarray]:
        """What else is known of each row."""
        return {"clips": self.clips, "weight": self.weight}


Rows = Vectors | Means


def has_vector(array: np.ndarray) -> np.ndarray:
    """(n,) bool: which rows of (n, K) are not NaN throughout."""
    return np.logical_not(np.isnan(array).all(axis=1))


def _check_rows(rows: Rows) -> None:
    arrays = {"start_seconds": rows.start_seconds, "end_seconds": rows.end_seconds, **rows.columns, **rows.more}
    if rows.features.ndim != 2:
        raise ValueError(f"features must be (rows, D), not {rows.features.shape}")
    for name, array in arrays.items():
        if len(array) != len(rows.features):
            raise ValueError(f"{len(rows.features)} rows of features, but {len(array)} of {name}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Aggregation:
    """What one row stands for: a clip, an interval of fixed length, one of the `intervals` given, or the video."""

    kind: Literal["clip", "interval", "video"]
    seconds: float = 0.0
    intervals: tuple[tuple[float, float], ...] = ()

    @property
    def facts(self) -> dict[str, Any]:
        return {"aggregate": self.kind, **({"interval_seconds": self.seconds} if self.seconds else {})}

    @staticmethod
    def parse(text: str) -> Aggregation:
        """`clip`, `video`, `interval:SECONDS` or `interval:FILE.csv`. Raises UsageError, MissingInput."""
        kind, _, length = text.partition(":")
        if text in ("clip", "video"):
            return Aggregation(kind=text)
        if kind != "interval" or not length:
            raise UsageError(f"no such aggregate: {text}; give clip, video, interval:SECONDS or interval:FILE.csv")
        if length.lower().endswith(".csv"):
            return Aggregation(kind="interval", intervals=read_intervals(Path(length)))
        seconds = _number(length.removesuffix("s"))
        if seconds is None or seconds <= 0:
            raise UsageError(f"an interval lasts some seconds, or is in a .csv file: {text}")
        return Aggregation(kind="interval", seconds=seconds)


def read_intervals(path: Path) -> tuple[tuple[float, float], ...]:
    """Pairs of start and end seconds, the first two columns of a csv file; a first line without numbers is a heading.

    Intervals may overlap and come in any order. Raises MissingInput, and UsageError naming the line.
    """
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(map(str.strip, row))]
    except (FileNotFoundError, IsADirectoryError):
        raise MissingInput(f"no file {path} with intervals: name one that is there") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} is no csv text ({error}): save it as UTF-8 with commas") from None
    if lines and all(_number(cell) is None for cell in lines[0][1][:2]):
        del lines[0]
    intervals = []
    for number, row in lines:
        start, end = (_number(cell) for cell in [*row, "", ""][:2])
        if start is None or end is None or end <= start:
            raise UsageError(f"{path}, line {number}: expected start and end in seconds, got {','.join(row)}")
        intervals.append((start, end))
    if not intervals:
        raise UsageError(f"{path} has no intervals: give lines of start and end in seconds")
    return tuple(intervals)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def aggregated(
    vectors: Vectors,
    how: str | Aggregation,
    *,
    span_seconds: tuple[float, float] | None = None,
    statistics: Sequence[Statistic] = (),
) -> Rows:
    """The vectors themselves (`clip`), or their means over intervals or over the video.

    A clip counts in an interval with the overlap of the two in seconds as its weight, a clip without a vector not at
    all. `video`: the mean over all clips, each with the same weight. Sums are float64, clip after clip in their order.

    Intervals of SECONDS are [0, s), [s, 2s), ... on the video's clock from the first of `span_seconds`, the last one
    ending at the second (None: from the first clip's start to the last clip's end). Those of a file are taken as they
    are. `statistics` come as `features_max` and `features_std` in `more`: of the same clips, std with the same weights
    (divided by their sum).

    The fact `rows_without_clips` counts the intervals that are NaN because no clip with a vector touches them.
    Raises what `Aggregation.parse` raises, and ValueError for a video without clips and without `span_seconds`.
    """
    how = Aggregation.parse(how) if isinstance(how, str) else how
    if how.kind == "clip":
        return vectors
    lasting = np.maximum(vectors.end_seconds, vectors.start_seconds + INSTANT_SECONDS)
    if span_seconds is None and len(lasting):
        span_seconds = float(vectors.start_seconds[0]), float(lasting.max())
    intervals = _intervals(how, span_seconds)
    touching = list(_touching(vectors.start_seconds, lasting, intervals))
    if how.kind == "video":
        touching = [(slice(None), np.ones(len(lasting)))]
    known = has_vector(vectors.features)
    more = {name: _reduced(array, touching, _mean) for name, array in vectors.more.items()}
    reductions = {"max": _max, "std": _std}
    more.update({f"features_{name}": _reduced(vectors.features, touching, reductions[name]) for name in statistics})
    clips = np.array([np.count_nonzero(known[rows] & (weight > 0)) for rows, weight in touching], np.int64)
    return Means(
        video=vectors.video,
        features=_reduced(vectors.features, touching, _mean),
        start_seconds=intervals[:, 0],
        end_seconds=intervals[:, 1],
        clips=clips,
        weight=np.array([weight[known[rows]].sum() for rows, weight in touching], np.float64),
        facts={**vectors.facts, **how.facts, "rows_without_clips": int(np.count_nonzero(clips == 0))},
        more=more,
    )


def _intervals(how: Aggregation, span_seconds: tuple[float, float] | None) -> np.ndarray:
    """(m, 2) float64."""
    if how.intervals:
        return np.array(how.intervals, np.float64)
    if span_seconds is None:
        raise ValueError("a video without clips has no span of its own: give span_seconds")
    start, end = span_seconds
    if how.kind == "video":
        return np.array([[start, end]])
    whole = math.ceil((end - start) / how.seconds - 1e-6)  # 10 s in steps of 0.1 s are 100, whatever the rounding
    edges = start + how.seconds * np.arange(max(1, whole) + 1, dtype=np.float64)
    edges[-1] = max(end, start + INSTANT_SECONDS)
    return np.stack([edges[:-1], edges[1:]], 1)


def _touching(start: np.ndarray, end: np.ndarray, intervals: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """For each interval the clips that may reach into it, and the seconds that each of them shares with it."""
    latest = np.maximum.accumulate(end)
    for low, high in intervals:
        first, stop = int(np.searchsorted(latest, low, side="right")), int(np.searchsorted(start, high))
        rows = slice(first, max(first, stop))
        yield rows, np.maximum(np.minimum(end[rows], high) - np.maximum(start[rows], low), 0.0)


def _reduced(
    array: np.ndarray,
    touching: Sequence[tuple[slice, np.ndarray]],
    reduce: Callable[[np.ndarray, np.ndarray], np.ndarray],
) -> np.ndarray:
    """(m, K) float32 of (n, K): `reduce` over the rows with a weight that are not all NaN; NaN where there are none."""
    out = np.full((len(touching), array.shape[1]), np.nan, np.float32)
    for i, (rows, weight) in enumerate(touching):
        values = array[rows]
        used = (weight > 0) & has_vector(values)
        if used.any():
            out[i] = reduce(values[used].astype(np.float64), weight[used, None])
    return out


def _mean(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return (values * (weight / weight.sum())).sum(0)  # in this order one clip is its own mean, exactly


def _std(values: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return np.sqrt(_mean((values - _mean(values, weight)) ** 2, weight))


def _max(values: np.ndarray, _: np.ndarray) -> np.ndarray:
    return values.max(0)


def frame_lines(start_seconds: np.ndarray, end_seconds: np.ndarray, frames: np.ndarray) -> Iterator[str]:
    """A heading, then one line per clip, with tabs: number, start and end in seconds, its member frames."""
    yield "clip\tstart_seconds\tend_seconds\tframes"
    for clip, (start, end, members) in enumerate(zip(start_seconds, end_seconds, frames, strict=True)):
        yield f"{clip}\t{start:.6f}\t{end:.6f}\t{' '.join(map(str, members))}"

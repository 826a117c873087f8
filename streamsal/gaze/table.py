"""Where people looked: one table for every source, and which frame was on screen when.

A `Gaze` is in displayed pixels and in seconds from the first frame's presentation; out come the fixations of each
frame. Alignment is by presentation time, never by a frame's number in another file. How files look is not known here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UsageError

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

TIME_SLACK_SECONDS = 1e-6  # times that were written with six digits still begin with the frame they begin with
Size = tuple[int, int]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Gaze:
    """Fixations, or single samples (duration 0), of any number of videos and viewers; arrays (k,).

    `video`, `subject`: str, "" where the file names none. `t_seconds`: from the presentation of the first frame.
    `x_px`, `y_px`: displayed pixels from the top left corner, so pixel j spans j ... j + 1. `notes`: what its reader
    took for granted or left out, to be told to the user.
    """

    video: np.ndarray
    subject: np.ndarray
    t_seconds: np.ndarray
    x_px: np.ndarray
    y_px: np.ndarray
    duration_s: np.ndarray
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("video", "subject"):
            object.__setattr__(self, name, np.asarray(getattr(self, name), object))
        for name in ("t_seconds", "x_px", "y_px", "duration_s"):
            array = np.asarray(getattr(self, name), np.float64)
            if not np.isfinite(array).all():
                raise ValueError(f"{name} of a fixation is not finite")
            object.__setattr__(self, name, array)
        if len({getattr(self, name).shape for name in _ARRAYS}) != 1 or self.video.ndim != 1:
            raise ValueError("the columns of a gaze table have different lengths")

    @classmethod
    def rows(
        cls,
        *,
        t_seconds: ArrayLike,
        x_px: ArrayLike,
        y_px: ArrayLike,
        video: ArrayLike = "",
        subject: ArrayLike = "",
        duration_s: ArrayLike = 0.0,
        notes: tuple[str, ...] = (),
    ) -> Gaze:
        """A table from columns, or from single values that hold for all rows."""
        numbers = [np.atleast_1d(np.asarray(each, np.float64)) for each in (t_seconds, x_px, y_px, duration_s)]
        names = [np.atleast_1d(np.asarray(each, object)) for each in (video, subject)]
        shape = np.broadcast_shapes(*(each.shape for each in numbers[:3]))
        t, x, y, duration, of_video, of_subject = (np.broadcast_to(each, shape) for each in (*numbers, *names))
        return cls(video=of_video, subject=of_subject, t_seconds=t, x_px=x, y_px=y, duration_s=duration, notes=notes)

    def __len__(self) -> int:
        return len(self.video)

    def __repr__(self) -> str:
        return f"Gaze({len(self)} fixations, {len(set(self.video))} videos, {len(set(self.subject))} subjects)"

    def where(self, chosen: np.ndarray) -> Gaze:
        """The rows that a mask or an index chooses."""
        return replace(self, **{name: getattr(self, name)[chosen] for name in _ARRAYS})

    def of(self, video: str) -> Gaze:
        """The rows of one video."""
        return self.where(self.video == video)


_ARRAYS = ("video", "subject", "t_seconds", "x_px", "y_px", "duration_s")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class FrameFixations:
    """What was looked at in each frame: `frame` int64 (k,) rises, a row of the times that `on_frames` was given."""

    frame: np.ndarray
    x_px: np.ndarray
    y_px: np.ndarray
    subject: np.ndarray

    def __len__(self) -> int:
        return len(self.frame)

    def within(self, height: int, width: int) -> FrameFixations:
        """Those on the picture."""
        inside = (self.x_px >= 0) & (self.x_px < width) & (self.y_px >= 0) & (self.y_px < height)
        arrays = {name: getattr(self, name)[inside] for name in ("frame", "x_px", "y_px", "subject")}
        return FrameFixations(**arrays)


def on_frames(
    gaze: Gaze,
    pts_seconds: np.ndarray,
    end_seconds: float | np.ndarray,
    *,
    zero_seconds: float | None = None,
) -> FrameFixations:
    """The fixations of each frame: one counts in every frame that was on screen during it.

    `gaze`: of one video. `pts_seconds` (n,) rising: when frames come on screen. `end_seconds`: when the last one
    leaves it, or (n,) when each does. `zero_seconds`: the time of the video's first frame, where the frames given are
    not all of it (default: the first of them).

        frames     |   0   |   1   |   2   |   3   |
        fixations      ├──────────┤    ×               in 0, 1 and 2; a sample in 2
    """
    pts = np.asarray(pts_seconds, np.float64)
    if not len(pts):
        none = np.zeros(0)
        return FrameFixations(frame=none.astype(np.int64), x_px=none, y_px=none, subject=none.astype(object))
    ends = np.asarray(end_seconds, np.float64)
    ends = ends if ends.ndim else np.append(pts[1:], ends)
    began = gaze.t_seconds + (pts[0] if zero_seconds is None else zero_seconds)
    ended = began + gaze.duration_s
    # A frame counts if it comes before the fixation has ended and leaves after it has begun; a sample has no length,
    # so its frame is the one that has come and not left.
    first = np.searchsorted(ends, began + TIME_SLACK_SECONDS, side="right")
    behind = np.searchsorted(pts, ended - TIME_SLACK_SECONDS, side="left")
    sample = gaze.duration_s <= TIME_SLACK_SECONDS
    behind = np.where(sample, np.searchsorted(pts, began + TIME_SLACK_SECONDS, side="right"), behind)
    count = np.maximum(behind - first, 0)
    row = np.repeat(np.arange(len(gaze)), count)
    frame = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    order = np.argsort(frame, kind="stable")
    row = row[order]
    return FrameFixations(
        frame=frame[order].astype(np.int64), x_px=gaze.x_px[row], y_px=gaze.y_px[row], subject=gaze.subject[row]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a reader may be told beside its path.

    `size_px` {video: displayed (width, height)}, in the run's order. `columns`: see `tables.Columns`.
    `start_seconds`: the tracker's time at which the first frame was shown. `rate_hz`: pictures per second of sources
    that number pictures.
    """

    size_px: Mapping[str, Size] = field(default_factory=dict)
    columns: Any = None
    start_seconds: float | None = None
    rate_hz: float | None = None

    def size_of(self, video: str, path: Path) -> Size:
        """Displayed (width, height) of a video. Raises UsageError where nobody said it."""
        known = known_as(video, self.size_px)
        if known is None:
            raise UsageError(
                f"{path} gives places as parts of the picture and the size of {video or 'the video'} is not known: "
                "name it in size_px"
            )
        return self.size_px[known]


def known_as(name: str, videos: Iterable[str]) -> str | None:
    """The one of `videos` that a gaze file means by `name`, else None.

    The same name, else the same file name, else the same stem, numbers compared as numbers ("0001" means "001.AVI");
    "" means the only video there is.
    """
    videos = list(videos)
    if not name:
        return videos[0] if len(videos) == 1 else None
    for key in (str, _file_name, _stem):
        found = [video for video in videos if key(video) == key(name)]
        if len(found) == 1:
            return found[0]
    return None


def _file_name(name: str) -> str:
    return name.replace("\\", "/").replace("__", "/").rsplit("/", 1)[-1].lower()


def _stem(name: str) -> str:
    stem = Path(_file_name(name)).stem
    return str(int(stem)) if stem.isdecimal() else stem


def joined(tables: Sequence[Gaze]) -> Gaze:
    """All rows of several tables, and every note once."""
    arrays = {name: np.concatenate([getattr(table, name) for table in tables]) for name in _ARRAYS}
    return Gaze(**arrays, notes=tuple(dict.fromkeys(note for table in tables for note in table.notes)))


def named(gaze: Gaze, videos: Sequence[str]) -> Gaze:
    """The same gaze, its videos called as in `videos`; rows of others are left out and noted.

    Raises UsageError where gaze names no video and there are several.
    """
    names = {name: known_as(name, videos) for name in dict.fromkeys(gaze.video)}
    unknown = [name for name, known in names.items() if known is None]
    if "" in unknown:
        raise UsageError(
            f"the gaze names no video and there are {len(videos)}: add a column video, or give a folder with one "
            "file per video, named as it"
        )
    if unknown:
        some = ", ".join(unknown[:3]) + (" ..." if len(unknown) > 3 else "")
        gaze = replace(gaze, notes=(*gaze.notes, f"left out: gaze on {len(unknown)} other videos ({some})"))
    video = np.array([names[name] for name in gaze.video], object)
    return replace(gaze, video=video).where(np.array([name is not None for name in video], bool))

"""A run and recorded gaze in, the fixations of each stored frame out, and which of the frames are to be scored.

Gaze meets frames by presentation time, taken from the index of the video; a table of frames counted at another rate
does so, too. Knows no maps' values and no metrics.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import BadInput
from ..gaze.clock import Clock
from ..gaze.table import TIME_SLACK_SECONDS, FrameFixations, Gaze, known_as, on_frames
from ..gaze.tables import load_table
from ..layout import DONE
from ..maps import Maps
from ..merge import Run

PICTURE_DEGREES = 40  # across the longer side, where nobody said how large the film was shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Film:
    """One video of the run, and what was looked at in its stored frames.

    `fixations.frame` counts rows of `maps.frame`. `scored`: rows that are asked for and have a picture. `outside`:
    fixations beside the picture. `sigma_px`: of the blur that makes maps of fixations.
    """

    name: str
    maps: Maps
    fixations: FrameFixations
    scored: np.ndarray
    outside: int
    sigma_px: float

    @property
    def places(self) -> np.ndarray:
        """(k, 2) x, y of all fixations in units of width and height."""
        xy = np.stack([self.fixations.x_px / self.maps.width, self.fixations.y_px / self.maps.height], axis=1)
        return xy.reshape(-1, 2)


def films_of(
    run: Run, gaze: Gaze, *, wanted: Mapping[str, np.ndarray] | None = None, blur_px: float | None = None
) -> list[Film]:
    """The videos of a run that have gaze. `wanted`: what `read_frames` gave. Raises BadInput where none has, and
    MissingInput where nobody knows when a video begins."""
    films = []
    for name in run.videos:
        each, mine = run[name], gaze.of(name)
        if not len(mine):
            continue
        clock = Clock.of(run.folder, each)
        on = on_frames(mine, clock.pts_seconds, clock.end_seconds)
        looked_at = clock.frame[on.frame]
        row, stored = np.searchsorted(each.frame, looked_at), np.isin(looked_at, each.frame)
        found = FrameFixations(
            frame=row[stored].astype(np.int64), x_px=on.x_px[stored], y_px=on.y_px[stored], subject=on.subject[stored]
        )
        inside = found.within(each.height, each.width)
        scored = each.status == DONE
        if wanted is not None:
            scored = scored & np.isin(each.frame, _chosen(wanted.get(name), clock))
        sigma = blur_px or _degree_px(run, each)
        films.append(
            Film(
                name=name,
                maps=each,
                fixations=inside,
                scored=scored,
                outside=len(found) - len(inside),
                sigma_px=sigma,
            )
        )
    if not any(len(film.fixations) for film in films):
        raise BadInput(
            f"no gaze falls into the frames of {run.path}: its videos are {', '.join(run.videos[:5])}; compare their "
            "names, and the times of the gaze, which count seconds from the first frame"
        )
    return films


def _degree_px(run: Run, maps: Maps) -> float:
    """Displayed pixels of one degree of visual angle: as planned, else as if the picture were 40 degrees wide."""
    said = run.plan.settings.px_per_degree if run.plan else None
    return said or max(maps.height, maps.width) / PICTURE_DEGREES


def read_frames(path: Path, videos: Sequence[str], rate_hz: float | None) -> dict[str, np.ndarray]:
    """{video: numbers or, with a rate, times in seconds (rate given: float64) of the frames that are to be scored}.

    Columns video, frame and, if there is one, mask: only rows where it is true. As in the masks of the DeepGaze MR
    meta-benchmark. Raises BadInput naming the line.
    """
    table = load_table(path)
    for name in ("video", "frame"):
        if table.column(name) is None:
            raise BadInput(f"{path} has no column {name}: it needs video and frame, and may have mask")
    says = table.texts("mask") if table.column("mask") is not None else ["true"] * len(table.rows)
    number = table.numbers("frame", range(len(table.rows)))
    found: dict[str, list[float]] = {}
    names = {text: known_as(text, videos) for text in dict.fromkeys(table.texts("video"))}
    for row, (video, mask) in enumerate(zip(table.texts("video"), says, strict=True)):
        if mask.lower() not in ("true", "false", "1", "0", "yes", "no", "1.0", "0.0"):
            raise BadInput(f"{table.where(row)}: mask is {mask!r}, neither true nor false: correct it")
        if not number[row] >= 0 or number[row] % 1:
            raise BadInput(f"{table.where(row)}: frame is no whole number from 0 up: correct it")
        name = names[video]
        if name is not None and mask.lower() in ("true", "1", "yes", "1.0"):
            found.setdefault(name, []).append(number[row])
    if not found:
        raise BadInput(f"{path} chooses no frame of this run: its videos are {', '.join(list(videos)[:5])}")
    if rate_hz is None:
        return {name: np.array(numbers, np.int64) for name, numbers in found.items()}
    return {name: np.array(numbers) / rate_hz for name, numbers in found.items()}


def _chosen(wanted: np.ndarray | None, clock: Clock) -> np.ndarray:
    """Numbers of the frames that are asked for, by number or by the time since the first frame at which they show."""
    if wanted is None:
        return np.zeros(0, np.int64)
    if wanted.dtype.kind == "i":
        return wanted
    seconds = wanted + clock.pts_seconds[0] + TIME_SLACK_SECONDS
    at = np.searchsorted(clock.pts_seconds, seconds, side="right") - 1
    return clock.frame[at[seconds < clock.end_seconds[at] + TIME_SLACK_SECONDS]]

"""When the frames of a run's video were on screen, from its index, for whoever asks what was looked at then."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..errors import MissingInput
from ..index import VideoIndex
from ..maps import Maps
from ..prepare import index_path


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Clock:
    """Frames of a video, (n,) each: display-order numbers, and seconds at which they come on screen and leave it.

    All frames of the video; where the run has lost its index, those that are stored, each shown for as long as most of
    them are.
    """

    frame: np.ndarray
    pts_seconds: np.ndarray
    end_seconds: np.ndarray

    @classmethod
    def of(cls, folder: str | Path, maps: Maps) -> Clock:
        """Raises MissingInput where nobody knows when the first frame was shown."""
        path = index_path(Path(folder), maps.name)
        if path.exists():
            index = VideoIndex.load(path)
            return cls(frame=np.arange(index.n_frames), pts_seconds=index.pts_seconds, end_seconds=index.end_seconds)
        if maps.frame[0] != 0:
            raise MissingInput(f"{path} is missing, which tells when {maps.name} begins: plan the run again")
        pts = np.asarray(maps.pts_seconds, np.float64)
        step = float(np.median(np.diff(pts))) if len(pts) > 1 else 0.04
        ends = np.append(pts[1:], pts[-1] + step)
        every = int(maps.info.get("every", 1))
        if every > 1:
            ends = np.minimum(ends, pts + step / every)
        return cls(frame=maps.frame, pts_seconds=pts, end_seconds=ends)

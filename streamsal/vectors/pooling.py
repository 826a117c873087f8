"""Where people look, as weights for the vectors of a clip model: a saliency run in, cells of what a network sees out.

The run may hold every frame of the same video or only some of them; the map that is on screen at a frame's time is that
frame's. Knows no model.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..batches import Box
from ..errors import PlanMismatch, UsageError
from ..maps import Maps
from ..merge import open_run
from ..plan import PlannedVideo
from ..prepare import name_there, saliency_plan

LONG_SIDE_PX = 256  # of the maps that weights are made of: finer than the cells of any network here


class Saliency:
    """The maps of one video in a saliency run, which has to be the one that was planned with."""

    def __init__(self, run: str | Path, video: PlannedVideo, plan_id: str) -> None:
        plan = saliency_plan(run)
        if plan.id != plan_id:
            raise PlanMismatch(f"{run} is another saliency run than when the plan was made: plan a new run with -o")
        self._maps: Maps = open_run(run)[name_there(run, plan, video)]
        if not self._maps.first.is_density:
            raise UsageError(
                f"{run} holds {self._maps.first.name}, no densities: pool by a run that does (--as-density)"
            )
        scale = min(1.0, LONG_SIDE_PX / max(self._maps.height, self._maps.width))
        self._size = round(self._maps.height * scale) or 1, round(self._maps.width * scale) or 1

    def cells(self, seconds: float, box: Box, n: int) -> np.ndarray:
        """(n, n) float32: how much of the density on screen at this time falls into each cell of the box.

        All alike at a hole.
        """
        log_density = self._maps.log_density(self._maps.at(seconds), size=self._size)
        if np.isnan(log_density).all():
            return np.full((n, n), 1 / n**2, np.float32)
        return cell_masses(np.exp(log_density, dtype=np.float64), box, n)


def cell_masses(mass_hw: np.ndarray, box: Box, n: int) -> np.ndarray:
    """(n, n) float32: the mass in each of n x n cells of the box, that of a pixel being spread evenly over it."""
    top, left, bottom, right = box
    rows, columns = (
        _overlaps(np.linspace(low, high, n + 1) * size, size)
        for (low, high), size in zip(((top, bottom), (left, right)), mass_hw.shape, strict=True)
    )
    return (rows @ mass_hw @ columns.T).astype(np.float32)


def _overlaps(edges: np.ndarray, size: int) -> np.ndarray:
    """(n, size): which share of each pixel lies between two edges, in pixels."""
    pixels = np.arange(size)
    below = np.clip(edges[:, None] - pixels, 0, 1)  # share of each pixel that lies before an edge
    return np.diff(below, axis=0)

"""Recorded gaze on a film: fixations and times in; per frame the marks that show them, as rings or as a density.

A mark is on screen while its fixation lasts and fades afterwards. Knows no files and no models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..gaze.table import TIME_SLACK_SECONDS, Gaze
from .canvas import Canvas
from .colormaps import SUBJECT_COLORS

FADE_SECONDS = 0.2
_WHITE = (255, 255, 255)
_CASING_OPACITY = 0.75


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Marks:
    """What is seen of the gaze in one frame: (k,) places in displayed pixels, opacities 0 to 1, rows of `colors`."""

    x_px: np.ndarray
    y_px: np.ndarray
    opacity: np.ndarray
    color: np.ndarray
    colors: np.ndarray  # (n, 3) RGB

    def __len__(self) -> int:
        return len(self.x_px)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class GazeTrack:
    """The gaze on one film, by the film's clock; arrays (k,) in order of `begin`. Can be sent to another process."""

    begin: np.ndarray
    end: np.ndarray
    gone: np.ndarray  # when the viewer's next sample takes its place; a fixation fades in peace: infinity
    x_px: np.ndarray
    y_px: np.ndarray
    color: np.ndarray
    colors: np.ndarray

    @classmethod
    def of(cls, gaze: Gaze, pts_seconds: np.ndarray) -> GazeTrack:
        """Of one video's gaze and the times of all its frames.

        Up to six viewers get a color each, more are all white. Of the samples (duration 0) that one viewer gives
        within a frame the last one stays: a tracker has many more of them than a film has frames.
        """
        viewers, color = np.unique(gaze.subject.astype(str), return_inverse=True)
        colors = np.array(SUBJECT_COLORS[: len(viewers)] if 1 < len(viewers) <= len(SUBJECT_COLORS) else [_WHITE])
        begin = gaze.t_seconds + pts_seconds[0]
        order = np.argsort(begin, kind="stable")
        kept = order[_last_of_each_frame(begin[order], gaze.duration_s[order], color[order], pts_seconds)]
        sample = gaze.duration_s[kept] <= TIME_SLACK_SECONDS
        return cls(
            gone=np.where(sample, _next_of_viewer(begin[kept], color[kept]), np.inf),
            begin=begin[kept],
            end=(begin + gaze.duration_s)[kept],
            x_px=gaze.x_px[kept],
            y_px=gaze.y_px[kept],
            color=color[kept] % len(colors),
            colors=colors,
        )

    def during(self, begin: float, end: float) -> Marks:
        """What is on screen from `begin` to `end`: fixations that last, and fading ones that ended a moment ago."""
        last = int(np.searchsorted(self.begin, end - TIME_SLACK_SECONDS))
        age = np.maximum(begin - self.end[:last], 0)
        seen = np.flatnonzero((age < FADE_SECONDS) & (self.gone[:last] >= end - TIME_SLACK_SECONDS))
        return Marks(
            x_px=self.x_px[seen],
            y_px=self.y_px[seen],
            opacity=1 - age[seen] / FADE_SECONDS,
            color=self.color[seen],
            colors=self.colors,
        )


def _next_of_viewer(begin: np.ndarray, viewer: np.ndarray) -> np.ndarray:
    """When the same viewer's next mark begins, infinity behind the last one; `begin` rises."""
    by_viewer = np.argsort(viewer, kind="stable")
    last = np.diff(viewer[by_viewer], append=-1) != 0
    following = np.empty(len(begin))
    following[by_viewer] = np.where(last, np.inf, np.append(begin[by_viewer][1:], np.inf)[: len(begin)])
    return following


def _last_of_each_frame(
    begin: np.ndarray, duration: np.ndarray, viewer: np.ndarray, pts_seconds: np.ndarray
) -> np.ndarray:
    """Mask of all fixations and, of each viewer's samples in order of time, the last one of each frame."""
    sample = duration <= TIME_SLACK_SECONDS
    rows = np.flatnonzero(sample)
    frame = np.searchsorted(pts_seconds, begin[rows] + TIME_SLACK_SECONDS, side="right")
    by_viewer = np.lexsort((rows, viewer[rows]))
    keys = np.stack([viewer[rows], frame])[:, by_viewer]
    is_last = (np.diff(keys, axis=1, append=-1) != 0).any(axis=0)
    mask = ~sample
    mask[rows[by_viewer[is_last]]] = True
    return mask


def density_of(marks: Marks, frame_size: tuple[int, int], size: tuple[int, int], sigma_px: float) -> np.ndarray:
    """(h, w) float32 sum of a Gaussian around every mark, weighted by its opacity, relative to uniform.

    `frame_size` (height, width) in displayed pixels, `size` of the map. Without a mark near the picture it is 0.
    """
    rows, columns = (
        np.exp(-(((np.arange(n) + 0.5) * (whole / n) - at[:, None]) ** 2) / (2 * sigma_px**2))
        for n, whole, at in zip(size, frame_size, (marks.y_px, marks.x_px), strict=True)
    )
    density = (rows * marks.opacity[:, None]).T @ columns
    mean = float(density.mean())
    return (density / mean if mean > 1e-12 else np.zeros(size)).astype(np.float32)


def draw_rings(targets: Sequence[np.ndarray], canvas: Canvas, marks: Marks) -> None:
    """Rings around the marks, cased in black so that they stand out from any picture, onto the canvas' planes."""
    height, width = canvas.displayed_size
    radius, line = _pen(height)
    colors = canvas.samples(marks.colors)
    black = canvas.samples(np.zeros(3))
    turn = canvas.orientation
    for x, y, opacity, color in zip(marks.x_px, marks.y_px, marks.opacity, marks.color, strict=True):
        place = (height - y if turn.flip_y else y, width - x if turn.flip_x else x)
        row, column = place[::-1] if turn.transpose else place
        for number, target in enumerate(targets):
            step = (1, 1) if number == 0 else canvas.chroma_step
            _ring(target, row, column, step, radius, line, opacity, colors[color, number], black[number])


def draw_rings_rgb(rgb: np.ndarray, marks: Marks, scale: float) -> np.ndarray:
    """The same on a copy of an (h, w, 3) uint8 picture that is `scale` times as large as the displayed one."""
    drawn = rgb.copy()
    radius, line = _pen(rgb.shape[0])
    for x, y, opacity, color in zip(marks.x_px, marks.y_px, marks.opacity, marks.color, strict=True):
        for number in range(3):
            sample = marks.colors[color, number]
            _ring(drawn[..., number], y * scale, x * scale, (1, 1), radius, line, opacity, sample, 0)
    return drawn


def _pen(height: int) -> tuple[float, float]:
    """Radius of a ring and width of its line, for a picture so many rows high."""
    return max(5.0, height / 36), max(1.5, height / 300)


def _ring(
    target: np.ndarray,
    row: float,
    column: float,
    step: tuple[int, int],
    radius: float,
    line: float,
    opacity: float,
    sample: int,
    black: int,
) -> None:
    """One ring on one plane, `step` pixels of the picture to a sample; edges fade over a pixel."""
    reach = radius + 1.5 * line + max(step)
    top, bottom = (int(np.clip((row + sign * reach) / step[0], 0, target.shape[0])) for sign in (-1, 1))
    left, right = (int(np.clip((column + sign * reach) / step[1], 0, target.shape[1])) for sign in (-1, 1))
    if top >= bottom or left >= right:
        return
    down = (np.arange(top, bottom) + 0.5) * step[0] - row
    across = (np.arange(left, right) + 0.5) * step[1] - column
    away = np.abs(np.hypot(down[:, None], across) - radius)
    core = np.clip(line / 2 + 0.5 - away, 0, 1) * opacity
    casing = np.clip(line * 1.1 + 0.5 - away, 0, 1) * (_CASING_OPACITY * opacity)
    patch = target[top:bottom, left:right]
    cased = patch * (1 - casing) + black * casing
    patch[...] = np.rint(cased * (1 - core) + sample * core)

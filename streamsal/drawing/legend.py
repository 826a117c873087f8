"""What is burned into a film's corners: colors and texts in, a small RGB picture with opacity out, pressed onto planes.

The scale lies bottom right, frame number and time top left, labels bottom left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from .canvas import Canvas
from .lettering import text

_PANEL_OPACITY = 0.65
TEXT = (235, 235, 235)

Corner = Literal["top left", "bottom left", "bottom right"]  # as shown


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A small picture in the planes of one canvas, for one of its corners."""

    corner: tuple[bool, bool]  # at the last row, at the last column of the decoded picture
    keep: Sequence[np.ndarray]
    add: Sequence[np.ndarray]

    @classmethod
    def of(cls, rgb: np.ndarray, opacity: np.ndarray, canvas: Canvas, *, corner: Corner = "bottom right") -> Stamp:
        turn = canvas.orientation
        corners = turn.decoded(np.array([["top left", ""], ["bottom left", "bottom right"]]))
        last_row, last_column = np.argwhere(corners == corner)[0].astype(bool)
        samples, alpha = turn.decoded(canvas.samples(rgb)), turn.decoded(np.rint(opacity * 256).astype(np.int64))
        keep, add = [], []
        for number in range(3):
            step_y, step_x = (1, 1) if number == 0 else canvas.chroma_step
            plane_alpha = alpha[::step_y, ::step_x]
            wide = np.uint16 if canvas.depth == 8 else np.uint32
            keep.append((256 - plane_alpha).astype(wide))
            add.append((samples[::step_y, ::step_x, number] * plane_alpha + 128).astype(wide))
        return cls(corner=(bool(last_row), bool(last_column)), keep=keep, add=add)

    def press(self, targets: Sequence[np.ndarray]) -> None:
        for target, keep, add in zip(targets, self.keep, self.add, strict=True):
            height, width = min(keep.shape[0], target.shape[0]), min(keep.shape[1], target.shape[1])
            rows = slice(-height, None) if self.corner[0] else slice(height)
            columns = slice(-width, None) if self.corner[1] else slice(width)
            patch = target[rows, columns]
            patch[...] = (patch * keep[rows, columns] + add[rows, columns]) >> 8


Drawing = tuple[np.ndarray, np.ndarray]  # (h, w, 3) RGB and (h, w) opacity, 0 to 1


def scale_legend(table: np.ndarray, maximum: float, unit: str, scale: str, height: int, width: int) -> Drawing:
    """A bar of the table's colors from 0 to `maximum` in `unit`, for a picture of `height` x `width`."""
    low, high, caption = text("0"), text(f"{_digits(maximum)} {unit}"), text(scale)
    length = max(low.shape[1] + 12 + high.shape[1], caption.shape[1])
    bar = np.repeat(table[np.linspace(0, 255, length).astype(int)][None], 7, axis=0)
    drawing = np.zeros((29, length, 3))
    marks = np.zeros((29, length))
    for dots, top, left in ((low, 10, 0), (high, 10, length - high.shape[1]), (caption, 21, 0)):
        marks[top : top + 7, left : left + dots.shape[1]] = dots
    drawing[marks > 0] = TEXT
    drawing[:7], marks[:7] = bar, 1
    return panel(drawing, marks, height, width)


def _digits(value: float) -> str:
    return f"{value:.3g}" if 0.001 <= value < 1000 else f"{value:.0f}"


def difference_legend(table: np.ndarray, maximum: float, names: tuple[str, str], height: int, width: int) -> Drawing:
    """A bar from `maximum` bits in favor of the second of two models to as many in favor of the first."""
    bound, middle = _digits(maximum), text("0")
    low, high = text(f"-{bound}"), text(f"+{bound} bits")
    first, second = text(f"{names[0]} more"), text(f"{names[1]} more")
    length = max(2 * high.shape[1] + 24, first.shape[1] + second.shape[1] + 12)
    bar = np.repeat(table[np.linspace(0, 255, length).astype(int)][None], 7, axis=0)
    drawing, marks = np.zeros((29, length, 3)), np.zeros((29, length))
    for dots, top, left in (
        (low, 10, 0),
        (middle, 10, (length - middle.shape[1]) // 2),
        (high, 10, length - high.shape[1]),
        (second, 21, 0),
        (first, 21, length - first.shape[1]),
    ):
        marks[top : top + 7, left : left + dots.shape[1]] = dots
    drawing[marks > 0] = TEXT
    drawing[:7], marks[:7] = bar, 1
    return panel(drawing, marks, height, width)


def line_panel(line: str, height: int, width: int) -> Drawing:
    """A line of text for the top left corner of a picture of `height` x `width`."""
    dots = text(line)
    drawing = np.full((*dots.shape, 3), TEXT, float)
    return panel(drawing, dots.astype(float), height, width, corner="top left")


def contour_legend(colors: Mapping[str, np.ndarray], height: int, width: int) -> Drawing:
    """The color of each region's border and the probability that it holds."""
    labels = [text(label) for label in colors]
    caption = text("of mass")
    length = max(sum(label.shape[1] + 6 for label in labels) - 6, caption.shape[1])
    drawing, marks = np.full((27, length, 3), TEXT, float), np.zeros((27, length))
    left = 0
    for label, rgb in zip(labels, colors.values(), strict=True):
        right = left + label.shape[1]
        drawing[:5, left:right], marks[:5, left:right] = rgb, 1
        marks[8:15, left:right] = label
        left = right + 6
    marks[20:, : caption.shape[1]] = caption
    return panel(drawing, marks, height, width)


def panel(
    drawing: np.ndarray, marks: np.ndarray, height: int, width: int, *, corner: Corner = "bottom right"
) -> Drawing:
    """The drawing on a dark pane with a margin around it, in dots as large as the picture allows."""
    pane = np.pad(drawing * (marks > 0)[..., None], ((5, 5), (6, 6), (0, 0)))
    opacity = np.maximum(np.pad(marks, ((5, 5), (6, 6))), _PANEL_OPACITY)
    room = min((height - 8) // (2 * pane.shape[0]), (width - 8) // pane.shape[1])
    dot = max(1, min(round(height / 400), room))
    pane, opacity = (np.repeat(np.repeat(a, dot, axis=0), dot, axis=1) for a in (pane, opacity))
    # Even sides keep the pane on the grid of subsampled chroma; the margin lies towards the corner.
    margin = [side % 2 + 2 * max(1, height // 100) for side in opacity.shape]
    around = [(far, 0) if side in corner else (0, far) for far, side in zip(margin, ("top", "left"), strict=True)]
    return np.pad(pane, (*around, (0, 0))), np.pad(opacity, around)

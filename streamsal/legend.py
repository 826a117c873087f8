"""The scale that is burned into a film: colors and texts in, a small RGB picture with opacity out, pressed onto planes.

Brings its own letters, 5 x 7 dots, because a render must not depend on the fonts of a machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from .canvas import Canvas

_DOTS = {  # rows from top to bottom, five dots each
    "0": ".###. #...# #..## #.#.# ##..# #...# .###.",
    "1": "..#.. .##.. ..#.. ..#.. ..#.. ..#.. .###.",
    "2": ".###. #...# ....# ...#. ..#.. .#... #####",
    "3": "##### ...#. ..#.. ...#. ....# #...# .###.",
    "4": "...#. ..##. .#.#. #..#. ##### ...#. ...#.",
    "5": "##### #.... ####. ....# ....# #...# .###.",
    "6": "..##. .#... #.... ####. #...# #...# .###.",
    "7": "##### ....# ...#. ..#.. .#... .#... .#...",
    "8": ".###. #...# #...# .###. #...# #...# .###.",
    "9": ".###. #...# #...# .#### ....# ...#. .##..",
    ".": "..... ..... ..... ..... ..... .##.. .##..",
    "%": "##... ##..# ...#. ..#.. .#... #..## ...##",
    "x": "..... ..... #...# .#.#. ..#.. .#.#. #...#",
    "a": "..... ..... .###. ....# .#### #...# .####",
    "d": "....# ....# .##.# #..## #...# #...# .####",
    "e": "..... ..... .###. #...# ##### #.... .###.",
    "f": "..##. .#..# .#... ###.. .#... .#... .#...",
    "i": "..#.. ..... .##.. ..#.. ..#.. ..#.. .###.",
    "m": "..... ..... ##.#. #.#.# #.#.# #...# #...#",
    "n": "..... ..... #.##. ##..# #...# #...# #...#",
    "o": "..... ..... .###. #...# #...# #...# .###.",
    "p": "..... ..... ####. #...# ####. #.... #....",
    "r": "..... ..... #.##. ##..# #.... #.... #....",
    "s": "..... ..... .###. #.... .###. ....# ####.",
    "u": "..... ..... #...# #...# #...# #..## .##.#",
    "v": "..... ..... #...# #...# #...# .#.#. ..#..",
    " ": "..... ..... ..... ..... ..... ..... .....",
}
_PANEL_OPACITY = 0.65
_TEXT = (235, 235, 235)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A small picture in the planes of one canvas, for its corner that is shown bottom right."""

    corner: tuple[bool, bool]  # at the last row, at the last column of the decoded picture
    keep: Sequence[np.ndarray]
    add: Sequence[np.ndarray]

    @classmethod
    def of(cls, rgb: np.ndarray, opacity: np.ndarray, canvas: Canvas) -> Stamp:
        turn = canvas.orientation
        corner = turn.decoded(np.arange(4).reshape(2, 2))
        last_row, last_column = np.argwhere(corner == 3)[0].astype(bool)
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


def scale_legend(table: np.ndarray, maximum: float, scale: str, height: int, width: int) -> Drawing:
    """A bar of the table's colors from 0 to `maximum` times uniform, for a picture of `height` x `width`."""
    low, high, caption = text("0"), text(f"{_digits(maximum)} x uniform"), text(scale)
    length = max(low.shape[1] + 12 + high.shape[1], caption.shape[1])
    bar = np.repeat(table[np.linspace(0, 255, length).astype(int)][None], 7, axis=0)
    drawing = np.zeros((29, length, 3))
    marks = np.zeros((29, length))
    for dots, top, left in ((low, 10, 0), (high, 10, length - high.shape[1]), (caption, 21, 0)):
        marks[top : top + 7, left : left + dots.shape[1]] = dots
    drawing[marks > 0] = _TEXT
    drawing[:7], marks[:7] = bar, 1
    return _panel(drawing, marks, height, width)


def _digits(value: float) -> str:
    return f"{value:.3g}" if 0.001 <= value < 1000 else f"{value:.0f}"


def contour_legend(colors: Mapping[str, np.ndarray], height: int, width: int) -> Drawing:
    """The color of each region's border and the probability that it holds."""
    labels = [text(label) for label in colors]
    caption = text("of mass")
    length = max(sum(label.shape[1] + 6 for label in labels) - 6, caption.shape[1])
    drawing, marks = np.full((27, length, 3), _TEXT, float), np.zeros((27, length))
    left = 0
    for label, rgb in zip(labels, colors.values(), strict=True):
        right = left + label.shape[1]
        drawing[:5, left:right], marks[:5, left:right] = rgb, 1
        marks[8:15, left:right] = label
        left = right + 6
    marks[20:, : caption.shape[1]] = caption
    return _panel(drawing, marks, height, width)


def text(line: str) -> np.ndarray:
    """(7, w) bool dots of a line of text."""
    letters = [np.array([[dot == "#" for dot in row] for row in _DOTS[letter].split()]) for letter in line]
    return np.concatenate([np.pad(letter, ((0, 0), (0, 1))) for letter in letters], axis=1)[:, :-1]


def _panel(drawing: np.ndarray, marks: np.ndarray, height: int, width: int) -> Drawing:
    """The drawing on a dark pane with a margin around it, in dots as large as the picture allows."""
    pane = np.pad(drawing * (marks > 0)[..., None], ((5, 5), (6, 6), (0, 0)))
    opacity = np.maximum(np.pad(marks, ((5, 5), (6, 6))), _PANEL_OPACITY)
    room = min((height - 8) // (2 * pane.shape[0]), (width - 8) // pane.shape[1])
    dot = max(1, min(round(height / 400), room))
    pane, opacity = (np.repeat(np.repeat(a, dot, axis=0), dot, axis=1) for a in (pane, opacity))
    # Even sides keep the pane on the grid of subsampled chroma; the margin lies right and below, where it is pressed.
    far_y, far_x = (side % 2 + 2 * max(1, height // 100) for side in opacity.shape)
    return np.pad(pane, ((0, far_y), (0, far_x), (0, 0))), np.pad(opacity, ((0, far_y), (0, far_x)))

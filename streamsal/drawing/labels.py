"""What a classifier says of a film: the likeliest classes of every frame, with bars, and the box that it looked at.

In flow the stored probabilities of clips, and which frames each clip is made of; out come, for any frame, the means
over the clips that it lies in, and a panel and an outline on a picture's own planes. Knows no videos and no models.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

from ..clips import Clips
from ..maps import Maps
from .canvas import Canvas
from .legend import TEXT, Drawing, Stamp, panel
from .lettering import text
from .overlay import line_width

Box = tuple[int, int, int, int]  # x, y, width, height in displayed pixels

MOST_ROWS = 5
MOST_LETTERS = 48  # of a name; a longer one would make all letters small, since a panel is as wide as its longest name
BAR = (32, 98, 168)  # dark enough for the letters on it, light enough for the pane under it
_ROW, _GAP = 11, 1  # dots; letters have 7 of them
_LETTER = 6  # dots from one letter to the next
_NUMBER = 4 * _LETTER + 1  # dots of 0.00 and behind it
_BESIDE = _NUMBER + 8  # dots that a row has beside its name, where it has a number
_MARGIN = 12  # dots that a pane adds to its width
_RECENT = 1024  # clips whose probabilities are kept


class Labels:
    """The probabilities of every class in any frame: the mean over the clips from whose first to last member it lies.

    `names` of the classes; `box`: the part of the picture that they are of. Safe to share between threads. It is also a
    `Shown` without any map, for what draws films.
    """

    least, unit, frames = 1.0, "", np.arange(0)

    def __init__(self, maps: Maps, clips: Clips, box: Box | None = None) -> None:
        self.names, self.box = maps.first.labels, box
        self._owner, self._first, self._last = maps.frame, clips.members.min(1), clips.members.max(1)
        self._native = lru_cache(_RECENT)(maps.native)

    def probabilities(self, frame: int) -> np.ndarray | None:
        """(classes,) float32; None where no clip says anything of this frame."""
        around = self._owner[(self._first <= frame) & (frame <= self._last)]
        known = [values for owner in around if np.isfinite(values := self._native(int(owner))).all()]
        return np.stack(known).mean(0, dtype=np.float32) if known else None

    def at(self, frame: int) -> None:
        return None

    def computed(self, frame: int) -> None:
        return None


class LabelPainter:
    """Draws the likeliest classes of a frame bottom left, and the box; safe to share between threads."""

    def __init__(self, labels: Labels, canvas: Canvas) -> None:
        self._labels, self._canvas = labels, canvas
        self._stamp = lru_cache(64)(self._drawn)

    def draw(self, frame: int, targets: Sequence[np.ndarray]) -> None:
        """Onto the planes of the picture of that frame."""
        if self._labels.box:
            draw_box(targets, self._canvas, self._labels.box)
        values = self._labels.probabilities(frame)
        if values is not None:
            rows = rows_of(self._canvas.displayed_size[0])
            best = np.argsort(-values, kind="stable")[:rows]
            self._stamp(tuple((int(row), round(float(values[row]), 2)) for row in best)).press(targets)

    def _drawn(self, best: tuple[tuple[int, float], ...]) -> Stamp:
        names = self._labels.names
        drawing = labels_panel({names[row]: value for row, value in best}, names, *self._canvas.displayed_size)
        return Stamp.of(*drawing, self._canvas, corner="bottom left")


def rows_of(height: int) -> int:
    """How many classes a picture of that height has room for, in its lower half."""
    return int(np.clip(((height - 8) // 2 - 10) // (_ROW + _GAP), 1, MOST_ROWS))


def labels_panel(values: dict[str, float], names: Sequence[str], height: int, width: int) -> Drawing:
    """A row for each of `values`, its name over a bar as long as its probability, and the number.

    As wide as the longest of all `names` needs, so that it keeps its size throughout a film; where the picture of
    `height` x `width` is narrower, names are cut, and where there is hardly room for them the numbers are left out.
    Letters are without their accents.
    """
    room = max(_LETTER, width - 8 - _MARGIN)
    beside = _BESIDE if room >= _BESIDE + 4 * _LETTER else 0
    length = min(min(max(len(bare(name)) for name in names), MOST_LETTERS) * _LETTER + beside, room)
    letters = (length - beside) // _LETTER
    drawing = np.zeros((len(values) * (_ROW + _GAP) - _GAP, length, 3))
    marks = np.zeros(drawing.shape[:2])
    for row, (name, value) in enumerate(values.items()):
        top = row * (_ROW + _GAP)
        filled = round(length * value)
        drawing[top : top + _ROW, :filled], marks[top : top + _ROW, :filled] = BAR, 1
        _write(drawing, marks, bare(name)[:letters], top + 2, 2 if beside else 0)
        if beside:
            _write(drawing, marks, f"{value:.2f}", top + 2, length - _NUMBER)
    return panel(drawing, marks, min(height, width), width, corner="bottom left")


def bare(name: str) -> str:
    """Without accents, which `lettering` does not have."""
    return "".join(letter for letter in unicodedata.normalize("NFKD", name) if not unicodedata.combining(letter))


def _write(drawing: np.ndarray, marks: np.ndarray, line: str, top: int, left: int) -> None:
    dots = text(line)
    place = slice(top, top + dots.shape[0]), slice(left, left + dots.shape[1])
    fitting = dots[:, : drawing[place].shape[1]]
    drawing[place][fitting], marks[place][fitting] = TEXT, 1


def draw_box(targets: Sequence[np.ndarray], canvas: Canvas, box: Box) -> None:
    """The outline of a box, light and cased in black, so that it stands out from any picture, on the canvas' planes."""
    height, width = canvas.displayed_size
    (x, y, box_width, box_height), turn = box, canvas.orientation
    rows = (height - y - box_height, height - y) if turn.flip_y else (y, y + box_height)
    columns = (width - x - box_width, width - x) if turn.flip_x else (x, x + box_width)
    if turn.transpose:
        rows, columns = columns, rows
    line = round(line_width(height))
    # Around the box, but inside the picture where the box ends with that.
    rows, columns = (
        (max(low, 2 * line), min(high, size - 2 * line))
        for (low, high), size in ((rows, canvas.height), (columns, canvas.width))
    )
    light, black = canvas.samples(np.array([TEXT, (0, 0, 0)]))
    for number, target in enumerate(targets):
        steps = (1, 1) if number == 0 else canvas.chroma_step
        for outwards, color in ((2 * line, black), (line, light)):
            inner = [(low - outwards + line, high + outwards - line) for low, high in (rows, columns)]
            _frame(target, inner, line, steps, color[number])


def _frame(target: np.ndarray, inner: list[tuple[int, int]], line: int, steps: tuple[int, int], sample: int) -> None:
    """Fills what lies up to `line` pixels around a rectangle, inside the plane."""
    edges = []
    for (low, high), step, size in zip(inner, steps, target.shape, strict=True):
        edges.append([int(np.clip(round(edge / step), 0, size)) for edge in (low - line, low, high, high + line)])
    (top, upper, lower, bottom), (left, before, behind, right) = edges
    for rows, columns in (
        (slice(top, upper), slice(left, right)),
        (slice(lower, bottom), slice(left, right)),
        (slice(upper, lower), slice(left, before)),
        (slice(upper, lower), slice(behind, right)),
    ):
        target[rows, columns] = sample

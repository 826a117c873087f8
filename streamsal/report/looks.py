"""Where people looked, as the page draws it over a film: how long each fixation stays where, in few bytes.

In flow fixations of frames; out come rows, and columns of small integers for the page's script. Knows no page.
"""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np

GRID = 4096  # places along either side of the picture: finer than an eye tracker


def looks(frame: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(k, 4) int64: first frame, how many frames, x and y on the grid; in the order of their first frames.

    `frame`, `x`, `y` (n,): a row for every frame of every fixation, places in units of width and height. What stays in
    one place for frames that follow one another becomes one row.
    """
    column, row = (np.floor(np.asarray(each, np.float64) * GRID).astype(np.int64) for each in (x, y))
    order = np.lexsort((frame, row, column))
    frame, column, row = np.asarray(frame, np.int64)[order], column[order], row[order]
    goes_on = (np.diff(frame) == 1) & (np.diff(column) == 0) & (np.diff(row) == 0)
    first = np.flatnonzero(np.append(True, ~goes_on)[: len(frame)])
    count = np.diff(np.append(first, len(frame)))
    found = np.stack([frame[first], count, column[first], row[first]], axis=1)
    return found[np.argsort(found[:, 0], kind="stable")]


def columns(rows: np.ndarray) -> dict[str, list[int]]:
    """What the script reads: `after` (first frame, counted from that of the row before), `frames`, `x`, `y`."""
    first, frames, x, y = rows.T.tolist()
    after = [later - earlier for earlier, later in pairwise([0, *first])]
    return {"after": after, "frames": frames, "x": x, "y": y}


def n_bytes(rows: np.ndarray) -> int:
    """How much of the page they take."""
    return len(json.dumps(columns(rows), separators=(",", ":")))

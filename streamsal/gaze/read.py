"""From a path to gaze: which reader takes which file or folder.

A reader is one function from a path, and what it is asked, to a `Gaze`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import BadInput, MissingInput, UsageError
from .bids import read_bids
from .datasets import read_dhf1k, read_fixation_maps, read_pysaliency
from .table import Asked, Gaze, Size, joined, named
from .tables import Columns, read_table

READERS: dict[str, Callable[[Path, Asked], Gaze]] = {
    "table": read_table,
    "bids": read_bids,
    "dhf1k": read_dhf1k,
    "fixation-maps": read_fixation_maps,
    "pysaliency": read_pysaliency,
}
FORMATS = ("auto", *READERS)


def read_gaze(
    path: str | Path | Sequence[str | Path],
    *,
    format: str = "auto",
    columns: Any = None,
    size_px: Mapping[str, Size] | None = None,
    start_seconds: float | None = None,
    rate_hz: float | None = None,
) -> Gaze:
    """Recorded gaze from a file, a folder of files, or several of either; see docs/evaluation.md for the formats.

    `columns`: text such as "t=Time,x=GazeX,y=GazeY,time_unit=ms", or a `tables.Columns`. `size_px` {video:
    displayed (width, height)}: rows then get these names, and rows of other videos are left out with a note. Raises
    MissingInput, BadInput naming file and line, UsageError.
    """
    if columns is not None:
        columns = columns if isinstance(columns, Columns) else Columns.parse(str(columns))
    asked = Asked(size_px=dict(size_px or {}), columns=columns, start_seconds=start_seconds, rate_hz=rate_hz)
    paths = [Path(path)] if isinstance(path, str | Path) else [Path(each) for each in path]
    found = []
    for each in paths:
        if not each.exists():
            raise MissingInput(f"no gaze at {each}: name a file or a folder that exists")
        kind = format if format != "auto" else _kind(each)
        if kind not in FORMATS:
            raise UsageError(f"no gaze format is called {kind!r}: use one of {', '.join(FORMATS)}")
        found.append(READERS[kind](each, asked))
    return named(joined(found), list(asked.size_px)) if asked.size_px else joined(found)


def _kind(path: Path) -> str:
    """The format of a file by its name, of a folder by what lies in it."""
    if path.is_dir():
        patterns = {"fixation-maps": "**/fixation/*.png", "dhf1k": "**/*_Trail*.txt", "bids": "**/*_physio.tsv*"}
        for kind, pattern in patterns.items():
            if next(path.glob(pattern), None):
                return kind
        return "fixation-maps" if next(path.glob("*.png"), None) else "table"
    name = path.name.lower()
    if name.endswith((".hdf5", ".h5")):
        return "pysaliency"
    if name.removesuffix(".gz").endswith("_physio.tsv"):
        return "bids"
    if name.removesuffix(".gz").endswith((".csv", ".tsv")):
        return "table"
    if name.endswith(".txt"):
        return "dhf1k" if "_trail" in name else "table"
    raise BadInput(f"{path} is of no kind that gaze is read from: say which with --gaze-format, or save it as csv")

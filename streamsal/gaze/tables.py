"""Tables of text as gaze: csv, tsv, semicolons, gzip, in the layouts that eye trackers export.

In flows a path and, where no preset fits, which column means what; out comes a `Gaze`. Rows without a place (blinks,
lost tracking) are left out and counted; a row that cannot be read is named by its line. Knows no video.
"""

from __future__ import annotations

import csv
import gzip
import io
import math
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..errors import BadInput, MissingInput, UsageError
from .table import Asked, Gaze, joined, known_as

SECONDS = {"s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}  # two signs are in use for micro
LOST = ("", "nan", "na", "n/a", "none", "null", "-", ".")  # how trackers write that they saw no eye
csv.field_size_limit(1 << 20)


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """Which column of a table means what; "" for what it does not have.

    Names are compared without case, and without a unit in brackets behind them, which then counts as said:
    "Recording timestamp" is also "Recording timestamp [μs]". `t`, `x`, `y`: time and place. `duration` or `end`: how
    long. `fixation`: rows of one viewer with the same value there are samples of one fixation. `keep`: a column and the
    value that it has in rows that count. `zero`: what times count from; "film" its first frame, "video" the first
    row of each viewer and video, "clock" the tracker's own, so that the time of the first frame has to be known.
    """

    t: str
    x: str
    y: str
    duration: str = ""
    end: str = ""
    subject: str = ""
    recording: str = ""
    video: str = ""
    fixation: str = ""
    keep: str = ""
    keep_value: str = ""
    time_unit: str = "s"
    duration_unit: str = ""
    normalized: bool = False
    y_up: bool = False
    zero: Literal["film", "video", "clock"] = "film"

    @classmethod
    def parse(cls, text: str) -> Columns:
        """From t=Time,x=GazeX,y=GazeY,time_unit=ms,normalized=yes ... Raises UsageError."""
        known = {item.name for item in fields(cls)}
        values: dict[str, Any] = {}
        for part in text.split(","):
            name, sign, value = (piece.strip() for piece in part.partition("="))
            if not sign or name not in known:
                raise UsageError(f"--columns: {part!r} is no NAME=COLUMN with a name of {', '.join(sorted(known))}")
            values[name] = value.lower() in ("yes", "true", "1") if name in ("normalized", "y_up") else value
        if missing := [name for name in ("t", "x", "y") if not values.get(name)]:
            raise UsageError(f"--columns has to say which column is {missing[0]}, as {missing[0]}=NAME")
        for name in ("time_unit", "duration_unit"):
            if values.get(name, "s") not in SECONDS:
                raise UsageError(f"--columns: {name}={values[name]} is none of s, ms, us, ns")
        if values.get("zero", "film") not in ("film", "video", "clock"):
            raise UsageError(f"--columns: zero={values['zero']} is none of film, video, clock")
        return cls(**values)


# Our own table; the one that DeepGaze III takes; exports of Pupil Player, its surfaces, of Pupil Cloud and Neon Player;
# of Tobii Pro Lab (MCS: in coordinates of the media, not of the screen).
_PUPIL: dict[str, Any] = {
    "x": "norm_pos_x",
    "y": "norm_pos_y",
    "keep": "on_surf",  # only in tables of a surface, which then is the film
    "keep_value": "true",
    "normalized": True,
    "y_up": True,
    "zero": "clock",
}
_CLOUD: dict[str, Any] = {"time_unit": "ns", "zero": "clock"}
_TOBII: dict[str, Any] = {
    "t": "Recording timestamp",
    "subject": "Participant name",
    "recording": "Recording name",
    "fixation": "Eye movement type index",
    "keep": "Eye movement type",
    "keep_value": "fixation",
    "time_unit": "ms",
    "zero": "video",
}
PRESETS: dict[str, tuple[Columns, ...]] = {
    "streamsal": (
        Columns(t="t_seconds", x="x_px", y="y_px", duration="duration_s", subject="subject", video="video"),
        Columns(t="start_seconds", end="end_seconds", x="x_px", y="y_px", subject="scanpath", video="video"),
    ),
    "pupil": (
        Columns(t="start_timestamp", duration="duration", duration_unit="ms", fixation="fixation_id", **_PUPIL),
        Columns(t="gaze_timestamp", **_PUPIL),
    ),
    "pupil-surface": (Columns(t="gaze_timestamp", **{**_PUPIL, "x": "x_norm", "y": "y_norm"}),),
    "pupil-cloud": (
        Columns(t="start timestamp", end="end timestamp", x="fixation x", y="fixation y", **_CLOUD),
        Columns(t="timestamp", x="gaze x", y="gaze y", **_CLOUD),
    ),
    "tobii": tuple(
        Columns(
            x=f"{point} X {place}",
            y=f"{point} Y {place}",
            video=f"Presented {media} name",
            normalized="norm" in place,
            **_TOBII,
        )
        for media in ("Media", "Stimulus")
        for place in ("(MCSnorm)", "[MCS norm]", "[MCS px]")
        for point in ("Fixation point", "Gaze point")
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """A table's `header`, its `rows` of text as long as the header, and the line each row ends on."""

    path: Path
    header: list[str]
    rows: list[list[str]]
    lines: list[int]
    decimal: str  # what a comma in a number means: a point, where commas do not separate columns

    def where(self, row: int) -> str:
        return f"line {self.lines[row]} of {self.path}"

    def column(self, name: str) -> int | None:
        """The column that is meant by a name, None where there is none, or no name."""
        if not name:
            return None
        for key in (_plain, _unitless):
            found = [i for i, title in enumerate(self.header) if key(title) == _plain(name)]
            if found:
                return found[0]
        return None

    def unit(self, name: str) -> str:
        """The unit of time in brackets behind a column's title, "" where there is none."""
        column = self.column(name)
        found = re.search(r"[\[(]([a-zµμ]+)[\])]\s*$", self.header[column].lower()) if column is not None else None
        return found[1] if found and found[1] in SECONDS else ""

    def texts(self, name: str) -> list[str]:
        """A column's texts; "" in every row where there is no such column."""
        column = self.column(name)
        return [""] * len(self.rows) if column is None else [row[column].strip() for row in self.rows]

    def numbers(self, name: str, rows: Sequence[int]) -> np.ndarray:
        """A column's numbers in these rows, NaN for what was lost. Raises BadInput naming the line."""
        column = self.column(name)
        assert column is not None
        values = np.empty(len(rows))
        for i, row in enumerate(rows):
            text = self.rows[row][column].strip()
            try:
                values[i] = math.nan if text.lower() in LOST else float(text.replace(",", self.decimal))
                if math.isinf(values[i]):
                    raise ValueError
            except ValueError:
                title = self.header[column]
                raise BadInput(f"{self.where(row)}: {title} is {text!r}, no finite number: correct it") from None
        return values


def _plain(title: str) -> str:
    return " ".join(title.strip().lower().split())


def _unitless(title: str) -> str:
    return re.sub(r"\s*[\[(][^\[(]*[\])]$", "", _plain(title))


def load_table(path: Path, header: Sequence[str] | None = None) -> Table:
    """A csv, tsv or table with semicolons, gzipped or not; `header` for tab-separated ones without titles."""
    text = text_of(path)
    separator = max("\t,;", key=text.split("\n", 1)[0].count) if header is None else "\t"
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator != "\t")
    rows, lines = [], []
    try:
        titles = next(reader, []) if header is None else header
        for row in reader:
            if any(map(str.strip, row)):
                rows.append(row + [""] * (len(titles) - len(row)))
                lines.append(reader.line_num)
    except csv.Error:
        raise no_table(path) from None
    header = [title.strip() for title in titles]
    return Table(path=path, header=header, rows=rows, lines=lines, decimal="," if separator == "," else ".")


def text_of(path: Path) -> str:
    """A file's text, UTF-8 or UTF-16 with its mark, unpacked if it is gzip. Raises MissingInput, BadInput."""
    try:
        data = path.read_bytes()
        if data[:2] == b"\x1f\x8b":
            data = gzip.decompress(data)
        return data.decode("utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig")
    except FileNotFoundError:
        raise MissingInput(f"no gaze at {path}: name a file that exists") from None
    except (gzip.BadGzipFile, EOFError, zlib.error):
        raise BadInput(f"{path} is damaged as gzip: copy it again") from None
    except UnicodeDecodeError:
        raise no_table(path) from None
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror}): name a file of gaze") from None


def no_table(path: Path) -> BadInput:
    return BadInput(f"{path} is no table of text: save the fixations as csv in UTF-8")


def read_table(path: Path, asked: Asked) -> Gaze:
    """A table, or all tables of a folder, each then named as its video unless it says otherwise."""
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if TABLE_NAME.search(file.name))
        if not files:
            raise BadInput(f"{path} holds no gaze: no csv, tsv, BIDS recording, DHF1K trail or fixation pictures in it")
        return joined([_read_one(file, asked, TABLE_NAME.sub("", file.name)) for file in files])
    return _read_one(path, asked, "")


TABLE_NAME = re.compile(r"\.(csv|tsv|txt)(\.gz)?$", re.IGNORECASE)


def _read_one(path: Path, asked: Asked, video: str) -> Gaze:
    table = load_table(path)
    if asked.columns is not None:
        named = ("t", "x", "y", "duration", "end", "subject", "recording", "video", "fixation", "keep")
        for title in filter(None, (getattr(asked.columns, name) for name in named)):
            if table.column(title) is None:
                raise BadInput(f"{path} has no column {title!r}: its columns are {', '.join(table.header)}")
        return gaze_of(table, asked.columns, asked, video)
    preset, columns = _preset(table)
    gaze = gaze_of(table, columns, asked, video)
    note = f"{path.name} was taken for an export of {preset}: time from {columns.t}, places from {columns.x}"
    return gaze if preset == "streamsal" else replace(gaze, notes=(note, *gaze.notes))


def _preset(table: Table) -> tuple[str, Columns]:
    """The first layout whose columns of time and place are all there; the others of it need not be."""

    def missing(columns: Columns) -> list[str]:
        return [name for name in (columns.t, columns.x, columns.y) if table.column(name) is None]

    for preset, choices in PRESETS.items():
        for columns in choices:
            if not missing(columns):
                return preset, columns
    lacks = missing(PRESETS["streamsal"][0])[0]
    raise BadInput(
        f"{table.path} has no column {lacks} and is no export we know (it has {', '.join(table.header[:8])}): say "
        "which columns to take with --columns t=NAME,x=NAME,y=NAME"
    )


def gaze_of(table: Table, columns: Columns, asked: Asked, video: str = "") -> Gaze:
    """The rows of a table that say where somebody looked. Raises BadInput where none does."""
    every = range(len(table.rows))
    seconds = table.numbers(columns.t, every) * SECONDS[table.unit(columns.t) or columns.time_unit]
    viewer, recording = table.texts(columns.subject), table.texts(columns.recording)
    subject = [f"{a}/{b}" if b else a for a, b in zip(viewer, recording, strict=True)]
    names_video = table.column(columns.video) is not None
    of_video = table.texts(columns.video) if names_video else [video] * len(table.rows)
    seconds -= _begin(table.path, columns, asked, seconds, list(zip(subject, of_video, strict=True)))

    kept = [row for row in every if of_video[row] or not names_video]
    if table.column(columns.keep) is not None:
        wanted, says = columns.keep_value.lower(), table.texts(columns.keep)
        kept = [row for row in kept if says[row].lower() == wanted]
    x, y = (table.numbers(name, kept) for name in (columns.x, columns.y))
    sound = ~np.isnan(x + y + seconds[kept])
    rows = np.array(kept, np.int64)[sound]
    if not len(rows):
        raise BadInput(f"{table.path} holds no fixation: each needs a time and a place")
    gaze = Gaze(
        video=np.array(of_video, object)[rows],
        subject=np.array(subject, object)[rows],
        t_seconds=seconds[rows],
        x_px=x[sound],
        y_px=(1 - y[sound]) if columns.y_up else y[sound],
        duration_s=_durations(table, columns, rows),
        notes=() if sound.all() else (f"{table.path.name}: {int((~sound).sum())} rows without a place left out",),
    )
    if columns.normalized:
        gaze = in_pixels(gaze, asked, table.path)
    fixation = table.texts(columns.fixation)
    return fixations_of_samples(gaze, [fixation[row] for row in rows])


def _begin(
    path: Path, columns: Columns, asked: Asked, seconds: np.ndarray, keys: list[tuple[str, str]]
) -> float | np.ndarray:
    """The tracker's time at which the film of each row began."""
    if asked.start_seconds is not None:
        return asked.start_seconds
    if columns.zero == "clock":
        return _world_start(path)
    if columns.zero == "film":
        return 0.0
    earliest: dict[tuple[str, str], float] = {}
    for key, time in zip(keys, seconds.tolist(), strict=True):
        earliest[key] = min(earliest.get(key, math.inf), time)
    return np.array([earliest[key] for key in keys])


def _world_start(path: Path) -> float:
    """When the scene camera's film begins on its tracker's clock: its exports say it in a file of their own."""
    stamps = path.with_name("world_timestamps.csv")
    if not stamps.exists():
        raise UsageError(
            f"times of {path} are of the tracker's clock, and there is no world_timestamps.csv beside it: say when the "
            "film's first frame was shown with --gaze-start SECONDS"
        )
    table = load_table(stamps)
    found = next((title for title in table.header if "timestamp" in title.lower()), None)
    if found is None or not table.rows:
        raise BadInput(f"{stamps} has no column of timestamps: export it again")
    return float(table.numbers(found, [0])[0]) * SECONDS[table.unit(found) or "s"]


def _durations(table: Table, columns: Columns, rows: np.ndarray) -> np.ndarray:
    """(k,) seconds; 0 for samples."""
    if table.column(columns.duration) is not None:
        unit = table.unit(columns.duration) or columns.duration_unit or columns.time_unit
        found = table.numbers(columns.duration, rows.tolist()) * SECONDS[unit]
    elif table.column(columns.end) is not None:
        ends = table.numbers(columns.end, rows.tolist()) * SECONDS[table.unit(columns.end) or columns.time_unit]
        begins = table.numbers(columns.t, rows.tolist()) * SECONDS[table.unit(columns.t) or columns.time_unit]
        found = ends - begins
    else:
        return np.zeros(len(rows))
    found = np.nan_to_num(found, nan=0.0)
    if (found < 0).any():
        row = int(rows[found < 0][0])
        raise BadInput(f"{table.where(row)}: the fixation ends before it begins: correct its times")
    return found


def in_pixels(gaze: Gaze, asked: Asked, path: Path) -> Gaze:
    """Places that are parts of the picture, as pixels of each row's video."""
    sizes = {video: asked.size_of(video, path) for video in dict.fromkeys(gaze.video) if _wanted(video, asked)}
    gaze = gaze.where(np.array([video in sizes for video in gaze.video], bool))
    width, height = (np.array([sizes[video][axis] for video in gaze.video], np.float64) for axis in (0, 1))
    return replace(gaze, x_px=gaze.x_px * width, y_px=gaze.y_px * height)


def _wanted(video: str, asked: Asked) -> bool:
    """Videos that are not in the run need no size; where no size is known at all, that has to be said."""
    return not asked.size_px or not video or known_as(video, asked.size_px) is not None


def fixations_of_samples(gaze: Gaze, fixation: Sequence[str]) -> Gaze:
    """Samples with the same number, viewer and video as one fixation at their mean; "" is a fixation of its own."""
    groups: dict[Any, list[int]] = {}
    for row, number in enumerate(fixation):
        key = (gaze.subject[row], gaze.video[row], number) if number else row
        groups.setdefault(key, []).append(row)
    if len(groups) == len(gaze):
        return gaze
    members = list(groups.values())
    ends = gaze.t_seconds + gaze.duration_s
    begin = np.array([gaze.t_seconds[rows].min() for rows in members])
    return replace(
        gaze.where(np.array([rows[0] for rows in members])),
        t_seconds=begin,
        x_px=np.array([gaze.x_px[rows].mean() for rows in members]),
        y_px=np.array([gaze.y_px[rows].mean() for rows in members]),
        duration_s=np.array([ends[rows].max() for rows in members]) - begin,
    )

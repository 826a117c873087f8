"""Areas of interest: a JSON or csv file in, outlines at any moment, the share of every cell they cover, and visits out.

Outlines are in displayed pixels from the frame's top left corner, pixel j spanning j ... j + 1; times are seconds from
the presentation of the first frame. Knows no run and no density.
"""

from __future__ import annotations

import csv
import io
import json
import math
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args

import numpy as np

from .errors import BadInput, MissingInput

Kind = Literal["rectangle", "ellipse", "polygon"]
Unit = Literal["px", "fraction"]
BOX = ("x", "y", "width", "height")  # left and top edge first
CSV_COLUMNS = ("name", "shape", *BOX, "points", "unit", "seconds", "hidden", "video")
LINES = 16  # per row of cells, along which ellipses and polygons are cut exactly
SAME_TIME_SECONDS = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A shape at one moment, in displayed pixels: (x, y, width, height) of a rectangle, or of the one around an
    ellipse; (x, y, x, y, ...) of a polygon, whose inside is what an odd number of its edges lies to the left of."""

    kind: Kind
    numbers: tuple[float, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """Left, top, right, bottom."""
        if self.kind == "polygon":
            xs, ys = self.numbers[::2], self.numbers[1::2]
            return min(xs), min(ys), max(xs), max(ys)
        x, y, width, height = self.numbers
        return x, y, x + width, y + height

    def crossings(self, y: np.ndarray) -> np.ndarray:
        """(n, 2k) x where the horizontal lines at `y` enter and leave, in turn, ascending; behind the last of them NaN.

        A line belongs to an edge from its top to just above its bottom.
        """
        y = np.asarray(y, np.float64)[:, None]
        left, top, right, bottom = self.box
        if self.kind == "polygon":
            corners = np.reshape(self.numbers, (-1, 2))
            (x0, y0), (x1, y1) = corners.T, np.roll(corners, -1, axis=0).T
            meets = (np.minimum(y0, y1) <= y) & (y < np.maximum(y0, y1))
            slope = np.divide(x1 - x0, y1 - y0, out=np.zeros(len(x0)), where=y1 != y0)
            return np.sort(np.where(meets, x0 + (y - y0) * slope, np.nan), axis=1)
        if self.kind == "ellipse":
            height = (2 * y - top - bottom) / (bottom - top)
            with np.errstate(invalid="ignore"):
                half = (right - left) / 2 * np.sqrt(1 - height**2)
            middle = (left + right) / 2
            return np.concatenate([middle - half, middle + half], axis=1)
        return np.where((top <= y) & (y < bottom), [[left, right]], np.nan)

    def contains(self, x: np.ndarray, y: np.ndarray) -> np.ndarray:
        """(n,) whether each point is inside; NaN is outside."""
        return (self.crossings(y) <= np.asarray(x)[:, None]).sum(axis=1) % 2 == 1


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFrame:
    """Where an area is at a time. `hidden`: from here to the next key frame there is no such area."""

    seconds: float
    numbers: tuple[float, ...]
    hidden: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Aoi:
    """A named area of one `video`, or of all. It appears with its first key frame, moves linearly between key frames,
    and stays as the last one says; a static one has a single key frame at minus infinity."""

    name: str
    kind: Kind
    keys: tuple[KeyFrame, ...]
    unit: Unit = "px"
    video: str | None = None

    @property
    def static(self) -> bool:
        return len(self.keys) == 1 and self.keys[0].seconds == -math.inf

    def at(self, seconds: float, *, height: int, width: int) -> Outline | None:
        """The outline at a time, in pixels of a frame of that displayed size; None where there is none."""
        number = bisect_right(self.keys, seconds + SAME_TIME_SECONDS, key=lambda key: key.seconds) - 1
        if number < 0 or self.keys[number].hidden:
            return None
        one, other = self.keys[number], self.keys[min(number + 1, len(self.keys) - 1)]
        numbers = np.array(one.numbers)
        if other is not one:
            share = (seconds - one.seconds) / (other.seconds - one.seconds)
            numbers += min(max(share, 0.0), 1.0) * (np.array(other.numbers) - numbers)
        if self.unit == "fraction":
            numbers *= np.resize([width, height], len(numbers))
        return Outline(kind=self.kind, numbers=tuple(numbers.tolist()))


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Coverage:
    """Share of the cells in these rows and columns of a grid that lies in an outline, float64."""

    rows: slice
    columns: slice
    share: np.ndarray

    def area_fraction(self, grid: tuple[int, int]) -> float:
        """Of the frame: the mass that a uniform density has there."""
        return float(self.share.sum()) / (grid[0] * grid[1])


def cover(outline: Outline, size: tuple[int, int], grid: tuple[int, int]) -> Coverage:
    """How much of each cell lies inside; a grid of (h, w) cells spans a frame of `size` (height, width) pixels.

    Exact for rectangles. Ellipses and polygons are cut along `LINES` horizontal lines per row of cells, each exactly:
    of a pixel at most 1/16 is given to the wrong side where an edge is level.
    """
    (h, w), (cell_height, cell_width) = grid, (size[0] / grid[0], size[1] / grid[1])
    left, top, right, bottom = outline.box
    rows = _cells(top / cell_height, bottom / cell_height, h)
    columns = _cells(left / cell_width, right / cell_width, w)
    if outline.kind == "rectangle":
        down = np.diff(np.clip(np.arange(rows.start, rows.stop + 1) * cell_height, top, bottom)) / cell_height
        across = np.diff(np.clip(np.arange(columns.start, columns.stop + 1) * cell_width, left, right)) / cell_width
        return Coverage(rows=rows, columns=columns, share=np.outer(down, across))
    n_rows, n_columns = rows.stop - rows.start, columns.stop - columns.start
    line = np.arange(n_rows * LINES)
    crossings = outline.crossings((rows.start + (line + 0.5) / LINES) * cell_height) / cell_width - columns.start
    # Entering at x adds the rest of its cell there and whole cells to its right, leaving takes them off again: two
    # entries per crossing, and one running sum.
    found = ~np.isnan(crossings)
    row = np.broadcast_to(line[:, None] // LINES, crossings.shape)[found]
    sign = np.broadcast_to(1 - 2 * (np.arange(crossings.shape[1]) % 2), crossings.shape)[found]
    x = np.clip(crossings[found], 0, n_columns)
    cell = np.floor(x).astype(np.int64)
    at = row * (n_columns + 2) + cell
    changes = np.bincount(at, sign * (1 - (x - cell)), n_rows * (n_columns + 2))
    changes += np.bincount(at + 1, sign * (x - cell), n_rows * (n_columns + 2))
    share = np.cumsum(changes.reshape(n_rows, n_columns + 2), axis=1)[:, :n_columns] / LINES
    return Coverage(rows=rows, columns=columns, share=np.clip(share, 0, 1))


def _cells(start: float, stop: float, n: int) -> slice:
    first = min(max(math.floor(start), 0), n)
    return slice(first, min(max(math.ceil(stop), first), n))


def visits(
    aoi: Aoi,
    t_seconds: np.ndarray,
    x_px: np.ndarray,
    y_px: np.ndarray,
    duration_s: np.ndarray,
    *,
    pts_seconds: np.ndarray,
    end_seconds: float,
    height: int,
    width: int,
) -> tuple[np.ndarray, np.ndarray]:
    """(inside, dwell_s) of k fixations: whether each is in the area in any frame shown during it, and for how long.

    `pts_seconds` (n,): when frames appear, in the same time as the fixations; the last one goes at `end_seconds`. A
    fixation without a duration counts in the frame on screen when it begins.
    """
    edges = np.append(pts_seconds, end_seconds)
    first = np.searchsorted(edges, t_seconds + SAME_TIME_SECONDS, side="right") - 1
    last = np.maximum(np.searchsorted(edges, t_seconds + duration_s - SAME_TIME_SECONDS, side="right") - 1, first)
    first, last = np.maximum(first, 0), np.minimum(last, len(pts_seconds) - 1)
    count = np.maximum(last - first + 1, 0)
    row = np.repeat(np.arange(len(count)), count)
    frame = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
    inside = np.zeros(len(row), bool)
    order = np.argsort(frame, kind="stable")
    for pairs in np.split(order, np.flatnonzero(np.diff(frame[order])) + 1) if len(order) else ():
        outline = aoi.at(float(edges[frame[pairs[0]]]), height=height, width=width)
        if outline is not None:
            inside[pairs] = outline.contains(x_px[row[pairs]], y_px[row[pairs]])
    shown = np.minimum(t_seconds[row] + duration_s[row], edges[frame + 1]) - np.maximum(t_seconds[row], edges[frame])
    dwell = np.bincount(row[inside], np.maximum(shown[inside], 0), len(count))
    return np.bincount(row[inside], minlength=len(count)) > 0, dwell


def read_aois(path: str | Path) -> list[Aoi]:
    """The areas in a JSON or csv file, in its order; docs/stats.md says what is in one.

    Raises MissingInput, and BadInput naming the file, the entry and the field that is wrong.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise MissingInput(f"no file of areas of interest {path}: name one that exists") from None
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(
            f"{path} cannot be read as areas of interest ({error}): write it as docs/stats.md says"
        ) from None
    try:
        aois = [_aoi(entry) for entry in (_csv_entries(text) if path.suffix.lower() == ".csv" else _json_entries(text))]
        _check_names(aois)
    except _Wrong as error:
        raise BadInput(f"{path}: {error}") from None
    return aois


class _Wrong(ValueError):
    """What is wrong, where, without the file."""


def _json_entries(text: str) -> Iterator[dict[str, Any]]:
    """Entries with a list of key frames each, `where` in both saying how errors name them."""
    try:
        found = json.loads(text)
    except ValueError as error:
        raise _Wrong(f"is no JSON ({error}): mend it there, or name a csv file .csv") from None
    top = found if isinstance(found, dict) else {"aois": found}
    _check_fields(top, {"aois", "unit"}, "the file")
    if not isinstance(top.get("aois"), list) or not top["aois"]:
        raise _Wrong("the file: aois has to be a list of at least one area")
    for number, item in enumerate(top["aois"], 1):
        where = f"entry {number}"
        if not isinstance(item, dict):
            raise _Wrong(f"{where}: has to be an object such as {{name: ..., rectangle: [x, y, width, height]}}")
        entry = {"unit": top.get("unit", "px"), **item}
        where = f"{where} ({entry.get('name')})"
        keys = entry.pop("keyframes", None)
        if keys is None:
            keys = [{kind: entry.pop(kind) for kind in get_args(Kind) if kind in entry}]
        elif not isinstance(keys, list) or not keys or not all(isinstance(key, dict) for key in keys):
            raise _Wrong(f"{where}: keyframes has to be a list of at least one object")
        else:
            for key in keys:
                if "seconds" not in key:
                    raise _Wrong(f"{where}: seconds is missing in a key frame")
        each = [where] if len(keys) == 1 else [f"{where}, key frame {n}" for n in range(1, len(keys) + 1)]
        named = [{**key, "where": place} for key, place in zip(keys, each, strict=True)]
        yield {**entry, "where": where, "keyframes": named}


def _csv_entries(text: str) -> Iterator[dict[str, Any]]:
    """One line per area, or per key frame of one."""
    lines = csv.DictReader(io.StringIO(text), skipinitialspace=True)
    _check_fields(dict.fromkeys(lines.fieldnames or ()), set(CSV_COLUMNS), "the header line")
    entries: dict[tuple[str, str], dict[str, Any]] = {}
    for line in lines:
        where = f"line {lines.line_num} ({line.get('name')})"
        if None in line:
            raise _Wrong(f"{where}: has more fields than the header line")
        given = {field: value.strip() for field, value in line.items() if value and value.strip()}
        key: dict[str, Any] = {field: given[field] for field in ("seconds", "hidden") if field in given}
        kind, hidden = given.get("shape"), "hidden" in given and not set(BOX) & set(given)
        if kind == "polygon" and "points" in given:
            numbers = given["points"].replace(";", " ").replace(",", " ").split()
            key[kind] = [numbers[i : i + 2] for i in range(0, len(numbers), 2)]
        elif kind and not hidden:
            key[kind] = [given.get(field, "") for field in BOX] if kind != "polygon" else []
        name, video = given.get("name", ""), given.get("video", "")
        entry = entries.setdefault((name, video), {"where": where, "name": name, "keyframes": []})
        for field in ("unit", "video"):
            if field in given and entry.setdefault(field, given[field]) != given[field]:
                raise _Wrong(f"{where}: {field} has to be the same in all lines of one area")
        entry["keyframes"].append({**key, "where": where})
        if len(entry["keyframes"]) > 1 and not all("seconds" in key for key in entry["keyframes"]):
            raise _Wrong(f"{where}: seconds is missing, and there is another area of that name")
    if not entries:
        raise _Wrong("has no line below the header")
    yield from entries.values()


def _aoi(entry: dict[str, Any]) -> Aoi:
    where, keys = entry["where"], entry["keyframes"]
    _check_fields(entry, {"where", "keyframes", "name", "video", "unit"}, where)
    if not isinstance(entry.get("name"), str) or not entry["name"]:
        raise _Wrong(f"{where}: name is missing")
    unit, video = entry.get("unit", "px"), entry.get("video")
    if unit not in get_args(Unit):
        raise _Wrong(f"{where}: unit is {unit!r}, which is none of {', '.join(get_args(Unit))}")
    if video is not None and not isinstance(video, str):
        raise _Wrong(f"{where}: video is {video!r}, no name")
    kinds = {field for key in keys for field in key if field not in ("where", "seconds", "hidden")}
    kind = next(iter(kinds), "")
    if len(kinds) != 1 or kind not in get_args(Kind):
        found = f"has {', '.join(sorted(kinds))}" if kinds else "has no shape"
        raise _Wrong(f"{where}: {found} where one of {', '.join(get_args(Kind))} belongs")
    made: list[KeyFrame] = []
    for key in keys:
        made.append(_key_frame(key, cast(Kind, kind), made[-1] if made else None))
    numbers = [number for key in made for number in key.numbers]
    if unit == "fraction" and max(map(abs, numbers)) > 10:
        raise _Wrong(f"{where}: unit is fraction, but {max(numbers, key=abs):g} is no part of the frame")
    if unit == "px" and max(map(abs, numbers)) <= 1 and not all(number.is_integer() for number in numbers):
        raise _Wrong(f"{where}: unit is px, but its numbers look like fractions: say so with unit")
    return Aoi(name=entry["name"], kind=cast(Kind, kind), keys=tuple(made), unit=unit, video=video)


def _key_frame(key: Mapping[str, Any], kind: Kind, before: KeyFrame | None) -> KeyFrame:
    where, hidden = key["where"], str(key.get("hidden", False)).lower()
    if hidden not in ("true", "false", "1", "0"):
        raise _Wrong(f"{where}: hidden is {key['hidden']!r}, neither true nor false")
    seconds = _number(key["seconds"], where, "seconds") if "seconds" in key else -math.inf
    if before and seconds <= before.seconds:
        raise _Wrong(f"{where}: seconds is {seconds:g}, not after the key frame before it")
    is_hidden = hidden in ("true", "1")
    if kind in key:
        numbers = _polygon(key[kind], where) if kind == "polygon" else _box(key[kind], where, kind)
    elif is_hidden and before:
        numbers = before.numbers
    else:
        raise _Wrong(f"{where}: {kind} is missing")
    if before and len(numbers) != len(before.numbers):
        raise _Wrong(f"{where}: {kind} has {len(numbers) // 2} points and {len(before.numbers) // 2} before")
    return KeyFrame(seconds=seconds, numbers=numbers, hidden=is_hidden)


def _box(given: Any, where: str, kind: str) -> tuple[float, ...]:
    if not isinstance(given, list) or len(given) != 4:
        raise _Wrong(f"{where}: {kind} has to be [x, y, width, height]")
    numbers = tuple(_number(value, where, field) for value, field in zip(given, BOX, strict=True))
    for field, value in zip(BOX[2:], numbers[2:], strict=True):
        if value <= 0:
            raise _Wrong(f"{where}: {field} is {value:g}, not above 0")
    return numbers


def _polygon(given: Any, where: str) -> tuple[float, ...]:
    if not isinstance(given, list) or len(given) < 3 or not all(isinstance(p, list) and len(p) == 2 for p in given):
        raise _Wrong(f"{where}: polygon has to be at least three points x, y")
    return tuple(_number(value, where, "polygon") for point in given for value in point)


def _number(given: Any, where: str, field: str) -> float:
    try:
        value = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError):
        value = math.nan
    if not math.isfinite(value):
        raise _Wrong(f"{where}: {field} is {given!r}, no number" if given != "" else f"{where}: {field} is missing")
    return value


def _check_fields(given: Mapping[str, Any], known: set[str], where: str) -> None:
    unknown = [name for name in given if name not in known | set(get_args(Kind))]
    if unknown:
        raise _Wrong(f"{where}: {unknown[0]} is none of {', '.join(sorted(known - {'where'}))}")


def _check_names(aois: Sequence[Aoi]) -> None:
    for number, aoi in enumerate(aois):
        for other in aois[:number]:
            if aoi.name == other.name and (aoi.video == other.video or None in (aoi.video, other.video)):
                raise _Wrong(f"two areas are named {aoi.name}: give each its own name")

"""Many trainings from one file: a configuration and its axes in [grid] in, one Config per cell out, and a table of all.

A cell is a number and the settings that belong to it, whoever asks and whenever: a job of a cluster needs its number
alone. Trains nothing and imports no torch; what a cell has reached is read from the files in its folder.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import BadInput, IncompleteRun, UsageError
from ..plan import array_spec, counted
from .config import TABLES, Config, config_of, read_toml

COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<=": operator.le,
    ">=": operator.ge,
    "<": operator.lt,
    ">": operator.gt,
}
CONDITION = re.compile(rf"\s*([\w.]+)\s*({'|'.join(COMPARISONS)})\s*(.*\S)\s*")
Values = Mapping[str, Any]  # of a cell: "model.read" -> 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    index: int
    values: Values
    config: Config

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.index:04d}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """`base`: the tables of a configuration. `axes`: the values of each setting that varies, by its dotted name.

    `where`: conditions KEY OP KEY or KEY OP VALUE, all of which hold in every cell.
    """

    base: Mapping[str, Any]
    axes: Mapping[str, Sequence[Any]]
    where: Sequence[str]
    source: Path

    def cells(self) -> list[Cell]:
        """In the order of the product, the first axis slowest; numbered without gaps, after `where`.

        Raises UsageError for settings that are wrong, and for cells that no classifier can be built from.
        """
        conditions = [_condition(text, self.source) for text in self.where]
        wanted = [values for values in self._product() if all(self._holds(each, values) for each in conditions)]
        cells = [Cell(index=i, values=x, config=self._config(x)) for i, x in enumerate(wanted)]
        if not cells:
            raise UsageError(f"{self.source}: [grid] has no cell that its `where` allows: take a condition out")
        self._check_designs(cells)
        return cells

    def cell(self, index: int) -> Cell:
        """Raises UsageError for a number that the grid does not have."""
        cells = self.cells()
        if not 0 <= index < len(cells):
            raise UsageError(f"{self.source} has cells 0 to {len(cells) - 1}, no cell {index}")
        return cells[index]

    def _product(self) -> Iterator[dict[str, Any]]:
        for values in itertools.product(*self.axes.values()):
            yield dict(zip(self.axes, values, strict=True))

    def _tables(self, values: Values) -> dict[str, Any]:
        tables = {name: dict(table) if isinstance(table, Mapping) else table for name, table in self.base.items()}
        for key, value in values.items():
            table, _, name = key.partition(".")
            tables[table] = {**tables.get(table, {}), name: value}
        return tables

    def _config(self, values: Values) -> Config:
        return config_of(self._tables(values), self.source)

    def _holds(self, condition: Condition, values: Values) -> bool:
        tables = self._tables(values)
        left = _setting(tables, condition.key, condition.text, self.source)
        right = condition.value
        if condition.other:
            right = _setting(tables, condition.other, condition.text, self.source)
        try:
            return COMPARISONS[condition.comparison](left, right)
        except TypeError:
            said = f"{json.dumps(left)} and {json.dumps(right)} have no order"
            raise UsageError(f"{self.source}: [grid] where {condition.text!r}: {said}") from None

    def _check_designs(self, cells: Sequence[Cell]) -> None:
        refused: dict[int, str] = {}
        for cell in cells:
            try:
                cell.config.design(("any",))
            except BadInput as error:
                refused[cell.index] = str(error)
        if refused:
            bad = [cell.values for cell in cells if cell.index in refused]
            good = [cell.values for cell in cells if cell.index not in refused]
            raise UsageError(
                f"{self.source}: no classifier can be built where {said(bad[0])} ({refused[min(refused)]}): "
                f"leave such cells out with where = [{json.dumps(self._excluding(bad, good))}]"
            )

    def _excluding(self, bad: Sequence[Values], good: Sequence[Values]) -> str:
        """The condition that excludes the first of the bad cells, as few good ones as can be, and then all bad ones."""

        def merit(text: str) -> tuple[int, int]:
            condition = _condition(text, self.source)
            kept = sum(self._holds(condition, values) for values in good)
            return kept, -sum(self._holds(condition, values) for values in bad)

        first = bad[0]
        numbers = [key for key, value in first.items() if isinstance(value, (int, float))]
        pairs = [f"{a} {sign} {b}" for a, b in itertools.permutations(numbers, 2) for sign in ("<=", "<", "!=")]
        single = [f"{key} {sign} {json.dumps(value)}" for key, value in first.items() for sign in ("!=", "<", ">")]
        single = [text for text in single if " != " in text or text.split()[0] in numbers]
        able = [text for text in [*pairs, *single] if not self._holds(_condition(text, self.source), first)]
        return max(able, key=merit)


@dataclass(frozen=True, slots=True)
class Condition:
    """`other` is the setting on the right side, or empty: then `value` stands there."""

    text: str
    key: str
    comparison: str
    other: str = ""
    value: Any = None


def read_grid(path: Path) -> Grid | None:
    """The grid in a configuration, None where it has no table [grid]. Raises MissingInput, UsageError."""
    found = read_toml(path)
    if "grid" not in found:
        return None
    if not isinstance(found["grid"], dict):
        raise UsageError(f"{path}: grid is a table: write [grid]")
    base = {name: table for name, table in found.items() if name != "grid"}
    given = dict(found["grid"])
    where = given.pop("where", [])
    if not (isinstance(where, list) and all(isinstance(text, str) for text in where)):
        raise UsageError(f'{path}: [grid] where is a list of conditions, as where = ["model.read <= model.apply"]')
    axes = dict(_flat(given))
    if not axes:
        raise UsageError(f'{path}: [grid] has no axis: write one as "model.blocks" = [1, 2, 3]')
    for key, values in axes.items():
        _check_axis(key, values, path)
    return Grid(base=base, axes=axes, where=where, source=path)


def _flat(tables: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with and without quotes: TOML makes tables of the latter."""
    for key, value in tables.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", value


def _check_axis(key: str, values: Any, path: Path) -> None:
    table, _, name = key.partition(".")
    if table not in TABLES or not name:
        known = ", ".join(TABLES)
        raise UsageError(f"{path}: [grid] {key} is no setting: an axis is named as model.read, in one of {known}")
    if not isinstance(values, list) or not values:
        raise UsageError(f"{path}: [grid] {key} has to be a list of values, as {json.dumps(key)} = [0, 1, 2]")
    if any(value in values[:place] for place, value in enumerate(values)):
        raise UsageError(f"{path}: [grid] {key} has a value twice, and the cells of both would be the same")


def _condition(text: str, source: Path) -> Condition:
    found = CONDITION.fullmatch(text)
    if not found:
        known = " ".join(COMPARISONS)
        raise UsageError(f"{source}: [grid] where {text!r} is no condition: write KEY, one of {known}, KEY or VALUE")
    key, comparison, right = found.groups()
    table, _, name = right.partition(".")
    if table in TABLES and name.isidentifier():
        return Condition(text, key, comparison, other=right)
    try:
        return Condition(text, key, comparison, value=tomllib.loads(f"value = {right}")["value"])
    except tomllib.TOMLDecodeError:
        raise UsageError(
            f"{source}: [grid] where {text!r}: {right} is neither a setting nor a value (texts stand in quotes)"
        ) from None


def _setting(tables: Mapping[str, Any], key: str, text: str, source: Path) -> Any:
    """What a configuration says, or else its default."""
    table, _, name = key.partition(".")
    known = {field.name: field.default for field in fields(TABLES[table])} if table in TABLES else {}
    value = tables.get(table, {}).get(name, known.get(name, MISSING))
    if value is MISSING:
        raise UsageError(f"{source}: [grid] where {text!r}: there is no setting {key}")
    return value


def said(values: Values) -> str:
    """ "model.read = 2, model.apply = 1"."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


State = Literal["done", "running", "missing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of a cell; scores are of the test clips where these were looked at, else of validation."""

    index: int
    values: Values
    state: State = "missing"
    best_epoch: int | None = None
    f1_macro: float | None = None
    f1_micro: float | None = None
    map: float | None = None


def summary(folder: Path, grid: Grid) -> list[Row]:
    """The rows of all cells, in order of their numbers."""
    raise NotImplementedError


def check_complete(folder: Path, rows: Sequence[Row]) -> None:
    """Raises IncompleteRun, naming cells that are not done as an array spec such as 3,7."""
    missing = [row.index for row in rows if row.state != "done"]
    if missing:
        done = f"{len(rows) - len(missing)} of {counted(len(rows), 'cell')} done"
        raise IncompleteRun(f"{folder}: {done}; cells not done: {array_spec(missing)}")

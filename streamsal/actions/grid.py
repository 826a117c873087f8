"""Many trainings from one file: a configuration and its axes in [grid] in, one Config per cell out, and a table of all.

A cell is a number and the settings that belong to it, whoever asks and whenever: a job of a cluster needs its number
alone. Trains nothing and imports no torch; what a cell has reached is read from the files in its folder.
"""

from __future__ import annotations

import itertools
import json
import operator
import re
import time
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from ..errors import BadInput, IncompleteRun, PlanMismatch, UsageError
from ..heartbeat import HEARTBEAT_SECONDS
from ..plan import array_spec, counted
from ..tables import print_facts
from .config import TABLES, Config, check_table, config_of, read_toml
from .log import read_log

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
    for name, table in base.items():
        check_table(name, table, path)
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
    known = {each.name: each.default for each in fields(TABLES[table])} if table in TABLES else {}
    value = tables.get(table, {}).get(name, known.get(name, MISSING))
    if value is MISSING:
        raise UsageError(f"{source}: [grid] where {text!r}: there is no setting {key}")
    return value


def said(values: Values) -> str:
    """ "model.read = 2, model.apply = 1"."""
    return ", ".join(f"{key} = {json.dumps(value)}" for key, value in values.items())


State = Literal["done", "begun", "missing"]
SHOWN = ("f1_macro", "f1_micro", "map")


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What is known of a cell. `begun` says nothing of whether somebody is at work there.

    `validation`: scores in the best epoch so far; `test`: those of the test clips, where these were judged.
    """

    index: int
    values: Values
    state: State = "missing"
    epochs: int = 0
    best_epoch: int | None = None
    validation: Mapping[str, float] = field(default_factory=dict)
    test: Mapping[str, float] = field(default_factory=dict)


def summary(folder: Path, grid: Grid) -> list[Row]:
    """The rows of all cells, in order of their numbers. Raises PlanMismatch where a folder is of another cell."""
    return [row_of(folder / cell.name, cell) for cell in grid.cells()]


def row_of(folder: Path, cell: Cell) -> Row:
    """What the files of a training in `folder` say of this cell; a line that was cut off does not count."""
    _check_same(folder, cell)
    epochs = [line for line in read_log(folder / "log.jsonl") if "validation" in line]
    tested = _read_json(folder / "test" / "metrics.json")
    begun = (folder / "config.json").exists()
    if not epochs:
        return Row(index=cell.index, values=cell.values, state="begun" if begun else "missing")
    best = next((line for line in reversed(epochs) if line["best"]), epochs[-1])
    trained = epochs[-1]["epoch"] >= cell.config.train.epochs
    return Row(
        index=cell.index,
        values=cell.values,
        state="done" if trained and (tested or not cell.config.judged_at_end) else "begun",
        epochs=epochs[-1]["epoch"],
        best_epoch=best["epoch"],
        validation=_shown_of(best["validation"]),
        test=_shown_of(tested),
    )


def _shown_of(scores: Mapping[str, Any]) -> dict[str, float]:
    return {name: scores[name] for name in SHOWN if name in scores}


def _check_same(folder: Path, cell: Cell) -> None:
    """A grid that was changed may give a number to another cell than before."""
    if not (found := _read_json(folder / "config.json")):
        return
    now = cell.config.to_dict()
    for key in cell.values:
        table, _, name = key.partition(".")
        if (then := found.get(table, {}).get(name)) != now[table][name]:
            raise PlanMismatch(
                f"{folder} was trained with {key} = {json.dumps(then)}, and now its cell has "
                f"{json.dumps(now[table][name])}: set the grid back, or choose another folder with -o"
            )


def _read_json(path: Path) -> dict[str, Any]:
    """Nothing where there is no such file, or half of one."""
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def print_summary(rows: Sequence[Row], *, as_json: bool = False) -> None:
    """On stdout: a line for each cell, its values and what it has reached."""
    keys, tested = list(rows[0].values), any(row.test for row in rows)
    head = ["cell", *keys, "state", "epochs", "best epoch", *SHOWN]
    head += [f"test {name}" for name in SHOWN] if tested else []
    lines = [
        [
            str(row.index),
            *(str(row.values[key]) for key in keys),
            row.state,
            str(row.epochs),
            "" if row.best_epoch is None else str(row.best_epoch),
            *_four_places(row.validation),
            *(_four_places(row.test) if tested else []),
        ]
        for row in rows
    ]
    print_facts([asdict(row) for row in rows], lines, head, as_json)


def _four_places(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[name]:.4f}" if name in scores else "" for name in SHOWN]


def print_cells(cells: Sequence[Cell]) -> None:
    """On stdout: the number of each cell, and its values."""
    keys = list(cells[0].values)
    lines = [[str(cell.index), *(str(cell.values[key]) for key in keys)] for cell in cells]
    print_facts(None, lines, ["cell", *keys], False)


def wait_until_complete(
    folder: Path, grid: Grid, say: Callable[[str], None], *, seconds: float = HEARTBEAT_SECONDS
) -> None:
    """Says how far it is whenever that changes, until all cells are done."""
    told = ""
    while True:
        rows = summary(folder, grid)
        if (text := f"{folder}: {_done(rows)}") != told:
            say(told := text)
        if all(row.state == "done" for row in rows):
            return
        time.sleep(seconds)


def check_complete(folder: Path, rows: Sequence[Row]) -> None:
    """Raises IncompleteRun, naming cells that are not done as an array spec such as 3,7."""
    if missing := [row.index for row in rows if row.state != "done"]:
        raise IncompleteRun(f"{folder}: {_done(rows)}; cells not done: {array_spec(missing)}")


def _done(rows: Sequence[Row]) -> str:
    return f"{sum(row.state == 'done' for row in rows)} of {counted(len(rows), 'cell')} done"

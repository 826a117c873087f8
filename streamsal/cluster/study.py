"""Trainings on a cluster: a configuration or a grid of them in, the steps of all its cells out, and what they need.

A study is a folder with a folder for each cell of a grid, or the folder of one training. What is done is told by the
files in it, as of a run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..actions.config import PATHS, Config, config_of, read_toml
from ..actions.grid import Cell, Row, read_grid, row_of
from ..errors import MissingInput
from ..weights.cache import find
from .steps import Step, Submission


@dataclass(frozen=True, slots=True, kw_only=True)
class Study(Submission):
    """`config` is the absolute path of a configuration, `grid` whether it is one of many cells."""

    config: Path
    grid: bool

    @property
    def _words(self) -> tuple[str, ...]:
        return ("train", str(self.config), "-o", str(self.folder))

    @property
    def how_far(self) -> tuple[str, ...]:
        if self.grid:
            return ("streamsal", *self._words, "--summary")
        return ("tail", str(self.folder / "log.jsonl"))

    @property
    def steps(self) -> tuple[Step, ...]:
        """Training, and behind a grid the table of its cells, which says which are missing."""
        number = "--index" if self.grid else ""
        train = self.computing("train", *self._words, "--device", self.resources.device, number=number)
        return (train, Step(name="summary", words=(*self._words, "--summary"))) if self.grid else (train,)


def cells_of(path: Path) -> tuple[list[Cell], bool]:
    """The cells of a configuration, and whether it is a grid; otherwise it is the only cell. Raises UsageError."""
    if grid := read_grid(path):
        return grid.cells(), True
    return [Cell(index=0, values={}, config=config_of(read_toml(path), path).buildable(path))], False


def rows_of(folder: Path, cells: Sequence[Cell], *, grid: bool) -> list[Row]:
    return [row_of(folder / cell.name if grid else folder, cell) for cell in cells]


def inputs_of(configs: Iterable[Config]) -> dict[str, Path]:
    """What trainings read, by what it is; manifests name clips beside.

    Raises MissingInput, MissingWeights now, not in every task after hours in a queue.
    """
    found: dict[str, Path] = {}
    for config in configs:
        given = {f"{table}.{key}": getattr(getattr(config, table), key) for table, key in sorted(PATHS)}
        found |= {f"{name} =": Path(path) for name, path in given.items() if isinstance(path, str) and path}
        if weights := config.model.weights:
            found["model.weights ="] = Path(weights) if Path(weights).is_absolute() else find(weights)
    for name, path in found.items():
        if not path.exists():
            raise MissingInput(f"{name} {path} is not there: put it there, or change the configuration")
    return found

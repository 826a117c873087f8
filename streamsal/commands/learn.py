"""Commands that make a classifier of actions out of labeled clips, and say what it is worth: train, test."""

from __future__ import annotations

import argparse
import os
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..cluster.scheduler import task_numbers
from ..errors import BadInput, DeviceError, MissingInput, MissingWeights, StreamsalError, UsageError
from ..progress import Progress
from ..tables import print_facts
from .asked import progress_of, reporter

if TYPE_CHECKING:
    from ..actions.config import Config, Test
    from ..actions.grid import Grid
    from ..actions.processes import Processes
    from ..actions.scores import Scores


def train(arguments: argparse.Namespace) -> int:
    from ..actions.config import config_of, read_toml
    from ..actions.grid import read_grid

    if arguments.example:
        return _write_example(Path(arguments.example))
    source = Path(arguments.config)
    folder = Path(arguments.output or f"{source.stem}.training")
    grid = read_grid(source)
    if (arguments.wait or arguments.json) and not arguments.summary:
        raise UsageError("--wait and --json belong to --summary: add it, or leave them out")
    if grid is None:
        if arguments.list or arguments.summary or arguments.index is not None:
            raise UsageError(f"{source} has no table [grid], so it is one training: leave the options of grids out")
        config = config_of(changed(read_toml(source), arguments.set), source).buildable(source)
        return _train(arguments, [(folder, config)])
    if taken := {text.partition("=")[0] for text in arguments.set} & set(grid.axes):
        raise UsageError(f"{source}: {taken.pop()} is an axis of [grid], so --set cannot change it")
    grid = replace(grid, base=changed(grid.base, arguments.set))
    if arguments.list or arguments.summary:
        return _show(arguments, folder, grid)
    cells = grid.cells()
    index = None if arguments.index is None else str(arguments.index)
    numbers = task_numbers(os.environ, index, 0, len(cells))  # each of them is looked up: there may be fewer cells
    return _train(arguments, [(folder / cell.name, cell.config) for cell in map(grid.cell, numbers)])


def _write_example(folder: Path) -> int:
    from ..actions.example import RECIPE, write_example

    recipe = write_example(folder)[0]
    print(f"{recipe}\nnext: streamsal train {recipe} -o {folder / RECIPE.replace('.toml', '.training')}")
    return 0


def _train(arguments: argparse.Namespace, trainings: Sequence[tuple[Path, Config]]) -> int:
    """Of several, those behind one that cannot be done are done; processes side by side could not agree on that."""
    from ..actions.processes import joined
    from ..signals import stop_on_signals

    failed: list[StreamsalError] = []
    with stop_on_signals() as stop, joined(arguments.device) as processes:
        progress = _progress(arguments, processes)
        told: dict[str, Any] = {"processes": processes, "progress": progress, "stop": stop}
        for number, (folder, config) in enumerate(trainings, 1):
            if len(trainings) > 1:
                progress.say(f"{folder}: training {number} of {len(trainings)}")
            try:
                _train_one(folder, config, arguments.resume, told)
            except (UsageError, MissingWeights, BadInput, MissingInput, DeviceError) as error:
                if len(trainings) == 1 or processes.world > 1:
                    raise
                reporter(arguments, failed)(type(error)(f"{folder}: {error}"))
    return 1 if failed else 0


def _train_one(folder: Path, config: Config, resume: str, told: Mapping[str, Any]) -> None:
    from ..actions.judge import judge
    from ..actions.train import train as train_classifier

    best, processes = train_classifier(config, folder, resume=resume, **told), told["processes"]
    if config.judged_at_end and not processes.first_does((folder / "test/metrics.json").exists):
        judge(folder, **told)
    if processes.first:
        print(best)


def changed(tables: Mapping[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """The tables with settings such as "train.lr=0.01" in them: values as in TOML, texts with or without quotes.

    Raises UsageError for what is no such setting; whether there is one of that name, others know.
    """
    found = {name: dict(table) if isinstance(table, Mapping) else table for name, table in tables.items()}
    for setting in settings:
        name, _, text = setting.partition("=")
        table, _, key = name.partition(".")
        if not (table and key and text):
            raise UsageError(f"--set {setting!r}: it has to be TABLE.KEY=VALUE, as train.lr=0.01")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        found.setdefault(table, {})[key] = value
    return found


def _show(arguments: argparse.Namespace, folder: Path, grid: Grid) -> int:
    """--list: the cells; --summary: what is known of them, and IncompleteRun if that is not all."""
    from ..actions.grid import check_complete, print_cells, print_summary, wait_until_complete
    from ..actions.grid import summary as summary_of

    if arguments.list:
        print_cells(grid.cells())
        return 0
    if arguments.wait:
        wait_until_complete(folder, grid, progress_of(arguments).say)
    rows = summary_of(folder, grid)
    print_summary(rows, as_json=arguments.json)
    check_complete(folder, rows)
    return 0


def test(arguments: argparse.Namespace) -> int:
    from ..actions.judge import judge
    from ..actions.processes import joined
    from ..signals import stop_on_signals

    with stop_on_signals() as stop, joined(arguments.device) as processes:
        scores = judge(
            arguments.trained,
            arguments.manifest or "",
            test=_settings(arguments),
            output=arguments.output,
            npy=arguments.npy,
            answer=arguments.answer,
            plots=not arguments.no_plots,
            processes=processes,
            progress=_progress(arguments, processes),
            stop=stop,
        )
    if processes.first and scores is not None:
        _print_scores(scores, arguments.json)
    elif processes.first and arguments.json:
        print("null")
    return 0


def _settings(arguments: argparse.Namespace) -> Test | None:
    """What was asked for, and for the rest what the classifier was trained with; None where nothing was."""
    names = ("clips", "pool", "threshold", "batch")
    asked = {name: getattr(arguments, name) for name in names if getattr(arguments, name) is not None}
    if not asked:
        return None
    from ..actions.config import Test
    from ..actions.judge import trained_in

    known = trained_in(Path(arguments.trained)).config
    return replace(known.test if known else Test(), **asked)


def _print_scores(scores: Scores, as_json: bool) -> None:
    facts = scores.to_dict()
    columns = ("support", "threshold", "f1", "precision", "recall", "ap")
    rows = [[row["class"], *(_shown(row[column]) for column in columns)] for row in facts["classes"]]
    print_facts(facts, rows, ["class", "clips", *columns[1:]], as_json)
    if not as_json:
        overall = {name: value for name, value in facts.items() if name not in ("clips", "classes")}
        print(f"\n{facts['clips']} clips: {', '.join(f'{name} {value:.4f}' for name, value in overall.items())}")


def _shown(value: object) -> str:
    return "" if value is None else f"{value:.4f}" if isinstance(value, float) else str(value)


def _progress(arguments: argparse.Namespace, processes: Processes) -> Progress:
    return progress_of(arguments) if processes.first else Progress(quiet=True)

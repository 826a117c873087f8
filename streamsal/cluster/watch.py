"""A run's state for people and programs: a table, JSON, or either of them again and again until the run is complete."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..heartbeat import HEARTBEAT_SECONDS
from ..plan import Plan, counted
from ..progress import warn
from ..status import RunStatus, TaskStatus, run_status
from ..tables import print_facts
from .squeue import NoSlurm, queue_states

HEAD = ("task", "state", "results", "fps", "heartbeat", "restarts", "host")
SLURM_SECONDS = 30.0
BUSY = ("running", "stalled", "stopped", "failed")


@dataclass(slots=True)
class Look:
    """What is to be seen of a run, and how much of it is asked for anew at each look."""

    run: Path
    slurm: bool
    plan: Plan = field(init=False)
    status: RunStatus | None = None
    queue: Mapping[int, str] = field(default_factory=dict)
    _asked: float | None = None

    def __post_init__(self) -> None:
        self.plan = Plan.load(self.run / "plan.json")

    def again(self) -> RunStatus:
        self.status = run_status(self.run, plan=self.plan, before=self.status)
        if self.slurm and (self._asked is None or time.monotonic() - self._asked >= SLURM_SECONDS):
            try:
                self.queue = queue_states(self.run, self.status.tasks)
            except NoSlurm as error:
                warn(error)
                self.slurm, self.queue = False, {}
            self._asked = time.monotonic()
        return self.status

    @property
    def head(self) -> list[str]:
        return [*HEAD, *(["slurm"] if self.slurm else []), ""]

    def row(self, task: TaskStatus) -> list[str]:
        age = task.heartbeat_age_seconds
        return [
            str(task.task),
            task.state,
            f"{task.done}/{task.rows}",
            f"{task.fps:.1f}" if task.state == "running" else "",
            "" if age is None else f"{age:.0f} s ago",
            str(task.restarts),
            task.host,
            *([self.queue.get(task.task, "")] if self.slurm else []),
            counted(task.holes, "hole") if task.holes and not task.error else task.error,
        ]


def show(look: Look, *, as_json: bool) -> RunStatus:
    """The state as it is now, on stdout."""
    found = look.again()
    print_facts(
        _facts(look, found) if as_json else None,
        [] if as_json else [look.row(task) for task in found.tasks],
        look.head,
        as_json,
    )
    return found


def watch(look: Look, *, as_json: bool, seconds: float = HEARTBEAT_SECONDS) -> RunStatus:
    """Until the run is complete: a table in place on a terminal, else a line whenever something has changed."""
    if sys.stdout.isatty() and not as_json:
        return _watch_in_place(look, seconds)
    said = ""
    while True:
        found = look.again()
        text = json.dumps(_facts(look, found)) if as_json else f"{look.run}: {found.summary()}"
        if text != said:
            print(said := text, flush=True)
        if found.complete:
            return found
        time.sleep(seconds)


def _watch_in_place(look: Look, seconds: float) -> RunStatus:
    from rich.console import Console
    from rich.live import Live

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            found = look.again()
            live.update(_table(look, found, rows=max(1, console.height - 5)), refresh=True)
            if found.complete:
                return found
            time.sleep(seconds)


def _table(look: Look, found: RunStatus, rows: int) -> Any:
    """Tasks at work or in trouble, as many as there is room for; the others are counted in the line below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    busy = [task for task in found.tasks if task.state in BUSY]
    table = Table(*look.head, box=None)
    for task in busy[:rows]:
        table.add_row(*map(Text, look.row(task)))
    if len(busy) > rows:
        table.add_row(Text("..."))
    return Group(table, Text(f"{look.run}: {found.summary()}"))


def _facts(look: Look, found: RunStatus) -> dict[str, Any]:
    tasks = [asdict(task) for task in found.tasks]
    if look.slurm:
        tasks = [{**task, "slurm": look.queue.get(task["task"], "")} for task in tasks]
    summary = {"done": found.done, "rows": found.rows, "fps": found.fps, "eta_seconds": found.eta_seconds}
    return {**summary, "holes": found.holes, "missing": found.missing, "stalled": found.stalled, "tasks": tasks}

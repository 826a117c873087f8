"""How far a run is, from its plan and its tasks' heartbeats alone: no HDF5 is opened, so it is safe at any time."""

from __future__ import annotations

import os
import time
from collections.abc import Container
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .heartbeat import heartbeat_name, heartbeat_path, read_heartbeat
from .plan import Plan, array_spec, counted
from .progress import clock

State = Literal["done", "running", "stalled", "stopped", "failed", "waiting"]
STALLED_SECONDS = 600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskStatus:
    task: int
    state: State
    done: int
    rows: int
    fps: float
    heartbeat_age_seconds: float | None
    restarts: int
    holes: int
    host: str
    device: str
    job: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    tasks: tuple[TaskStatus, ...]

    @property
    def missing(self) -> str:
        """Tasks that are not done, as an array spec."""
        return array_spec(task.task for task in self.tasks if task.state != "done")

    @property
    def stalled(self) -> str:
        """Tasks that say they are running and have given no sign for ten minutes, as an array spec."""
        return array_spec(task.task for task in self.tasks if task.state == "stalled")

    @property
    def complete(self) -> bool:
        return all(task.state == "done" for task in self.tasks)

    @property
    def done(self) -> int:
        return sum(task.done for task in self.tasks)

    @property
    def rows(self) -> int:
        return sum(task.rows for task in self.tasks)

    @property
    def holes(self) -> int:
        return sum(task.holes for task in self.tasks)

    @property
    def fps(self) -> float:
        return sum(task.fps for task in self.tasks if task.state == "running")

    @property
    def eta_seconds(self) -> float | None:
        return (self.rows - self.done) / self.fps if self.fps else None

    def summary(self) -> str:
        """All of it in a line."""
        parts = [f"{self.done} of {self.rows} results ({100 * self.done / max(1, self.rows):.1f} %)"]
        for state in ("running", "stalled", "stopped", "failed", "waiting"):
            if count := sum(task.state == state for task in self.tasks):
                parts.append(f"{counted(count, 'task')} {state}")
        if self.fps:
            parts.append(f"{self.fps:.1f} fps")
        if self.eta_seconds:
            parts.append(f"about {clock(self.eta_seconds)} to go")
        return ", ".join(parts)


def run_status(
    run: Path, *, plan: Plan | None = None, before: RunStatus | None = None, now: float | None = None
) -> RunStatus:
    """The state of every task; with `before`, an earlier one of the same plan, tasks done then are not read again."""
    plan = plan or Plan.load(run / "plan.json")
    now = time.time() if now is None else now
    try:
        logs = set(os.listdir(run / "logs"))  # one look instead of one at every task that never ran
    except OSError:
        logs = set()
    known = {task.task: task for task in before.tasks if task.state == "done"} if before else {}
    return RunStatus(
        tasks=tuple(
            known[task] if task in known else _task_status(run, plan, task, logs, now)
            for task in range(len(plan.shards))
        )
    )


def _task_status(run: Path, plan: Plan, task: int, logs: Container[str], now: float) -> TaskStatus:
    rows = plan.rows(task)
    beat: dict[str, Any] = (read_heartbeat(run, task) if heartbeat_name(task) in logs else None) or {}
    state: State = "done" if not rows else beat.get("state", "waiting")
    age = max(0.0, now - beat["time"]) if beat else None
    if state == "running" and age is not None:
        age = _age(heartbeat_path(run, task), beat["time"], now)
        if age > STALLED_SECONDS:
            state = "stalled"
    return TaskStatus(
        task=task,
        state=state,
        done=beat.get("done", 0),
        rows=rows,
        fps=beat.get("fps", 0.0),
        heartbeat_age_seconds=None if age is None else round(age, 1),
        restarts=beat.get("restarts", 0),
        holes=beat.get("holes", 0),
        host=beat.get("host", ""),
        device=beat.get("device", ""),
        job=beat.get("job", ""),
        error=beat.get("error", ""),
    )


def _age(path: Path, written: float, now: float) -> float:
    """Seconds since a heartbeat, the least that the clock of its host and that of the file system say.

    Either may be hours wrong against ours; where both are, a task looks stalled, which only this display minds.
    """
    try:
        times = (written, path.stat().st_mtime)
    except OSError:
        times = (written,)
    return min((now - time for time in times if time <= now), default=0.0)

"""How far a run is, from its plan and its tasks' heartbeats alone: no HDF5 is opened, so it is safe at any time."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from .heartbeat import read_heartbeat
from .plan import Plan, array_spec

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
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStatus:
    tasks: tuple[TaskStatus, ...]

    @property
    def missing(self) -> str:
        """Tasks that are not done, as an array spec."""
        return array_spec(task.task for task in self.tasks if task.state != "done")

    @property
    def complete(self) -> bool:
        return not self.missing

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


def run_status(run: Path, *, now: float | None = None) -> RunStatus:
    plan = Plan.load(run / "plan.json")
    now = time.time() if now is None else now
    return RunStatus(tasks=tuple(_task_status(run, plan, task, now) for task in range(len(plan.shards))))


def _task_status(run: Path, plan: Plan, task: int, now: float) -> TaskStatus:
    rows = plan.rows(task)
    beat: dict[str, Any] = read_heartbeat(run, task) or {}
    state: State = "done" if not rows else beat.get("state", "waiting")
    age = max(0.0, now - beat["time"]) if beat else None
    if state == "running" and age is not None and age > STALLED_SECONDS:
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
        error=beat.get("error", ""),
    )

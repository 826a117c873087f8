"""What a task tells of itself while it works: a heartbeat that `status` reads, and a line per event.

Small files, replaced by rename or appended to; no HDF5 is opened to know how far a run is.
"""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import WriteError
from .files import make_folder, write_bytes, write_error

HEARTBEAT_SECONDS = 5.0


@dataclass(kw_only=True)
class Log:
    """RUN/logs/0003.json, replaced at each heartbeat, and RUN/logs/0003.jsonl, appended at each event."""

    run: Path
    task: int
    facts: dict[str, Any] = field(default_factory=dict)
    _beaten: float = 0.0
    _began: tuple[float, int] = (0.0, 0)  # by the monotonic clock, with how much was done then

    def __post_init__(self) -> None:
        make_folder(self.run / "logs")
        self.facts = read_heartbeat(self.run, self.task) or {}

    def start(self, *, rows: int, done: int, holes: int, device: str, **facts: Any) -> None:
        before, self._began = self.facts, (time.monotonic(), done)
        self.facts = {
            "task": self.task,
            "rows": rows,
            "done": done,
            "holes": holes,
            "state": "running",
            "started": time.time(),
            "restarts": before.get("restarts", -1) + 1,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "device": device,
            "fps": 0.0,
            "error": "",
            **facts,
        }
        where = {"host": self.facts["host"], "pid": self.facts["pid"], "device": device, **facts}
        self.event("start" if not before else "resume", done=done, rows=rows, **where)
        self.beat(force=True)

    @property
    def done(self) -> int:
        return self.facts["done"]

    def count(self, rows: int, holes: int, **facts: Any) -> None:
        """`rows` more results are safe, `holes` of them without a picture."""
        began, before = self._began
        done = self.done + rows
        fps = (done - before) / max(1e-6, time.monotonic() - began)
        self.beat(done=done, holes=self.facts["holes"] + holes, fps=round(fps, 2), **facts)

    def beat(self, *, force: bool = False, **facts: Any) -> None:
        self.facts.update(facts)
        now = time.monotonic()
        if force or now - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = now
            content = {**self.facts, "time": time.time()}
            write_bytes(heartbeat_path(self.run, self.task), json.dumps(content).encode())

    def event(self, event: str, **facts: Any) -> None:
        line = json.dumps({"t": round(time.time(), 3), "event": event, "task": self.task, **facts}) + "\n"
        path = heartbeat_path(self.run, self.task).with_suffix(".jsonl")
        try:
            with open(path, "a") as file:
                file.write(line)
        except OSError as error:
            raise write_error(path, error) from error

    def end(self, state: str, error: str = "", **facts: Any) -> None:
        """Best effort: a full disk that ended the task may not take its log either."""
        with suppress(WriteError):
            self.event(state, done=facts.get("done", self.facts.get("done")), error=error)
            self.beat(force=True, state=state, error=error, **facts)


def heartbeat_path(run: Path, task: int) -> Path:
    return Path(run) / "logs" / heartbeat_name(task)


def heartbeat_name(task: int) -> str:
    return f"{task:04d}.json"


def read_heartbeat(run: Path, task: int) -> dict[str, Any] | None:
    """The last heartbeat of a task; None if it never ran (or its file was cut off, which a later one mends)."""
    try:
        return json.loads(heartbeat_path(run, task).read_bytes())
    except (OSError, ValueError):
        return None

"""One task of a run: its shard of the plan, computed or resumed, with a heartbeat that `status` reads.

Crash-only: whatever ends a task, starting it again goes on behind the last committed block and gives the same bytes.
Signals only set a flag that is looked at after each block.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .errors import Held, Interrupted, Stopped, StreamsalError, WriteError
from .files import make_folder, write_bytes, write_error
from .plan import Part, Plan
from .progress import Meter, Progress

HEARTBEAT_SECONDS = 5.0
Stop = Callable[[], str]


@dataclass(kw_only=True)
class Log:
    """RUN/logs/0003.json, replaced at each heartbeat, and RUN/logs/0003.jsonl, appended at each event."""

    run: Path
    task: int
    facts: dict[str, Any] = field(default_factory=dict)
    _beaten: float = 0.0

    def __post_init__(self) -> None:
        make_folder(self.run / "logs")
        self.facts = read_heartbeat(self.run, self.task) or {}

    @property
    def _stem(self) -> Path:
        return self.run / "logs" / f"{self.task:04d}"

    def start(self, *, rows: int, done: int, holes: int, device: str) -> None:
        before = self.facts
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
        }
        self.event("start" if not before else "resume", done=done, rows=rows, device=device)
        self.beat(force=True)

    def beat(self, *, force: bool = False, **facts: Any) -> None:
        self.facts.update(facts)
        now = time.monotonic()
        if force or now - self._beaten >= HEARTBEAT_SECONDS:
            self._beaten = now
            content = {**self.facts, "time": time.time()}
            write_bytes(self._stem.with_suffix(".json"), json.dumps(content).encode())

    def event(self, event: str, **facts: Any) -> None:
        line = json.dumps({"t": round(time.time(), 3), "event": event, "task": self.task, **facts}) + "\n"
        path = self._stem.with_suffix(".jsonl")
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


def read_heartbeat(run: Path, task: int) -> dict[str, Any] | None:
    """The last heartbeat of a task; None if it never ran (or its file was cut off, which a later one mends)."""
    try:
        return json.loads((Path(run) / "logs" / f"{task:04d}.json").read_bytes())
    except (OSError, ValueError):
        return None


def infer(
    run: str | Path,
    task: int,
    *,
    device: str = "auto",
    decode_workers: int | None = None,
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> int:
    """Compute shard `task` of the plan in `run`, or what is left of it; returns the number of results it holds.

    Raises Stopped (75) when `stop` names a reason or another copy holds the task, PlanMismatch (65) when video or model
    are not those of the plan, and what the stages raise.
    """
    run, progress = Path(run), progress or Progress(quiet=True)
    plan = Plan.load(run / "plan.json")
    if task < 0:
        raise ValueError(f"{task = } is negative")
    rows = plan.rows(task) if task < len(plan.shards) else 0
    if not rows:
        progress.say(f"task {task}: nothing to do, the plan has {len(plan.shards)} tasks")
        return 0
    holes = holes_if_whole(run, task, plan)
    log = Log(run=run, task=task)
    if holes is not None:
        progress.say(f"task {task}: already done")
        if log.facts.get("state") != "done":  # killed between the last frame and the last heartbeat
            log.end("done", task=task, rows=rows, done=rows, holes=holes)
        return rows
    try:
        _compute(plan, log, device, decode_workers, progress, stop)
    except Held:
        raise  # the log is the other copy's to write
    except Stopped as error:
        log.end("stopped", str(error))
        raise
    except StreamsalError as error:
        log.end("failed", str(error))
        raise
    return rows


def _compute(plan: Plan, log: Log, device: str, decode_workers: int | None, progress: Progress, stop: Stop) -> None:
    from .prepare import check_model, checked_index

    delay_seconds = float(os.environ.get("STREAMSAL_TEST_DELAY_MS") or 0) / 1000  # per frame, for tests of faults
    parts = plan.shards[log.task]
    indexes = {part.video: checked_index(log.run, plan.videos[part.video]) for part in parts}
    check_model(plan.model)

    import torch  # takes seconds: only when there is something to compute

    from .batches import AHEAD, Job, prefetch
    from .devices import resolve_device, resolve_dtype, share_cores
    from .engine import compute
    from .models import create_model
    from .store import PartInfo, ShardWriter, shard_path

    where = resolve_device(device)
    dtype = resolve_dtype(plan.settings.dtype, where)
    workers = share_cores(decode_workers)
    weights = plan.model.weights or None
    model = create_model(plan.model.name, weights=weights, device=where, **plan.model.options)
    name = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type
    infos = {
        part: PartInfo.of(
            plan,
            part,
            outputs=model.spec.outputs,
            device=name,
            dtype=str(dtype).removeprefix("torch.") if model.spec.autocast else "float32",
            time_base="{}/{}".format(*indexes[part.video].time_base),
        )
        for part in parts
    }
    path = shard_path(log.run, log.task)
    make_folder(path.parent)
    with ShardWriter(path, list(infos.values())) as shard:
        done = sum(shard.committed(info) for info in infos.values())
        holes = sum(shard.holes(info) for info in infos.values())
        log.start(rows=plan.rows(log.task), done=done, holes=holes, device=name)
        meter = Meter()
        with progress.track(f"task {log.task}", plan.rows(log.task), done):
            for part, info in infos.items():
                start = _resume_at(plan, part, shard.committed(info))
                job = Job(
                    index=indexes[part.video],
                    video=plan.videos[part.video],
                    model=model,
                    batch_size=plan.batch_size,
                    device=where,
                    dtype=dtype,
                    decode_workers=workers,
                    on_event=log.event,
                )
                with closing(prefetch(compute(job, start, part.stop, meter=meter), AHEAD)) as chunks:
                    for chunk in chunks:
                        time.sleep(delay_seconds * len(chunk.frame))
                        with meter.busy("write", frames=len(chunk.frame)):
                            shard.append(
                                info,
                                frame=chunk.frame,
                                pts_seconds=chunk.pts_seconds,
                                hole=chunk.hole,
                                values={name: value.cpu().numpy() for name, value in chunk.values.items()},
                            )
                            shard.commit()
                        done += len(chunk.frame)
                        holes += int(chunk.hole.sum())
                        log.beat(done=done, holes=holes, fps=_fps(log, done), **meter.summary())
                        progress.update(done, meter)
                        if reason := stop():
                            raise stopped(reason, f"task {log.task} has {done} of {plan.rows(log.task)} results safe")
        shard.finish()
    log.end("done", done=done, holes=holes, **meter.summary())
    progress.event("done", task=log.task, **meter.summary())


def stopped(reason: str, where: str) -> Stopped:
    kind = Interrupted if reason == "Ctrl-C" else Stopped
    return kind(f"stopped by {reason}: {where}; run the same command again to go on")


def _resume_at(plan: Plan, part: Part, committed: int) -> int:
    owned = plan.owned(part)
    return owned[committed] if committed < len(owned) else part.stop


def _fps(log: Log, done: int) -> float:
    before = log.facts.setdefault("done_before", log.facts["done"])
    return round((done - before) / max(1e-6, time.time() - log.facts["started"]), 2)


def holes_if_whole(run: Path, task: int, plan: Plan) -> int | None:
    """Number of holes in a shard that is whole, without loading a model; None for one that is not or is in use."""
    from .merge import Unfinished, read_shard
    from .store import HOLE

    try:
        parts = read_shard(run, task, plan)
    except Unfinished:
        return None
    return sum(int((part.arrays["status"] == HOLE).sum()) for part in parts.values())


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """SIGTERM, SIGUSR1 and Ctrl-C set a flag that `infer` asks for after each block; a second Ctrl-C ends at once.

    Handlers do nothing else: two signals at once must not meet a handler that writes.
    """
    seen: list[str] = []

    def note(number: int, frame: object) -> None:
        if number == signal.SIGINT and "Ctrl-C" in seen:
            raise KeyboardInterrupt
        seen.append("Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():
        yield lambda: ""
        return
    before: Mapping[int, Any] = {s: signal.signal(s, note) for s in (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)}
    try:
        yield lambda: seen[0] if seen else ""
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def leave_on_signals() -> Iterator[None]:
    """SIGTERM and SIGUSR1 end what asks for no flag, such as planning and merging, at once, as Ctrl-C does.

    Raises Stopped in the block: files there appear whole or not at all.
    """

    def leave(number: int, frame: object) -> None:
        raise Stopped(f"stopped by {signal.Signals(number).name}; run the same command again to go on")

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

"""What a person or a program sees of a computation under way: a bar on a terminal, a line now and then in a log.

`Meter` is filled by the engine and says which stage binds; `Progress` shows it on stderr. Nothing here knows models or
files.
"""

from __future__ import annotations

import contextlib
import json
import resource
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TextIO

LOG_EVERY_SECONDS = 30.0
STAGES = ("decode", "model", "write")


@dataclass(slots=True, kw_only=True)
class Meter:
    """Busy seconds and frames of each stage. Each stage is added to by one thread only."""

    seconds: dict[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))
    frames: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))
    began: float = field(default_factory=time.monotonic)

    @contextlib.contextmanager
    def busy(self, stage: str, frames: int = 0) -> Iterator[None]:
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[stage] += time.perf_counter() - start
            self.frames[stage] += frames

    def fps(self, stage: str) -> float:
        """Frames per second of busy time: what the stage would reach if nothing else held it up."""
        return self.frames[stage] / self.seconds[stage] if self.seconds[stage] else 0.0

    @property
    def binds(self) -> str:
        """The stage that was busy longest."""
        return max(STAGES, key=lambda stage: self.seconds[stage])

    def summary(self) -> dict[str, Any]:
        return {
            **{f"{stage}_fps": round(self.fps(stage), 1) for stage in STAGES},
            "binds": self.binds,
            "memory_mb": memory_mb(),
        }


def memory_mb() -> int:
    """Peak resident memory of this process; ru_maxrss is in KiB on Linux and in bytes on macOS."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1 << 20 if sys.platform == "darwin" else 1 << 10))


def warn(text: object) -> None:
    """What a person has to know whatever was asked for: a line on stderr that begins with our name."""
    with contextlib.suppress(OSError):  # nobody may be there to read it
        print(f"streamsal: {text}", file=sys.stderr, flush=True)


class Progress:
    """Shows how far a computation is: rich bar on a terminal, a line every 30 s elsewhere, or JSON lines."""

    def __init__(self, *, quiet: bool = False, as_json: bool = False, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._quiet, self._json = quiet, as_json
        self._bar: Any = None
        self._shown = time.monotonic()
        self._label, self._unit, self._total, self._began, self._from = "", "frames", 0, 0.0, 0

    def say(self, text: str) -> None:
        """One line for a person; silent when quiet, an event `note` in JSON."""
        if self._json:
            self.event("note", text=text)
        elif not self._quiet:
            self._write(text)

    def event(self, event: str, **facts: Any) -> None:
        if self._json:
            self._write(json.dumps({"t": round(time.time(), 3), "event": event, **facts}))

    def _write(self, line: str) -> None:
        """Whoever read it may have gone, and its disk may be full: no reason to stop computing."""
        with contextlib.suppress(OSError):
            print(line, file=self._stream, flush=True)

    @contextlib.contextmanager
    def track(self, label: str, total: int, done: int = 0, *, unit: str = "frames") -> Iterator[None]:
        """Progress of `total` frames, `done` of them before now, is shown while the block lasts."""
        self._label, self._unit, self._total, self._from = label, unit, total, done
        self._began = self._shown = time.monotonic()
        self.event("start", label=label, **{unit: total}, done=done)
        if not (self._quiet or self._json) and self._stream.isatty():
            self._bar = _Bar(self._stream, label, total, done, unit)
        try:
            yield
        finally:
            if self._bar:
                self._bar.close()
                self._bar = None

    def update(self, done: int, meter: Meter | None = None) -> None:
        now = time.monotonic()
        if self._bar:
            self._bar.update(done, _short_rates(meter) if meter else "")
        elif now - self._shown >= LOG_EVERY_SECONDS:
            self._shown = now
            facts = self._facts(done, now)
            if self._json:
                self.event("progress", label=self._label, **facts, **(meter.summary() if meter else {}))
            elif not self._quiet:
                eta = clock(facts["eta_seconds"])
                share = 100 * done / max(1, self._total)
                rate = f"{facts['fps']} fps" if self._unit == "frames" else f"{facts['fps']} {self._unit}/s"
                line = f"{self._label}: {self._unit} {done}/{self._total} {share:.1f}% {rate} ETA {eta}"
                self._write(f"{line}  {_rates(meter)}" if meter else line)

    def _facts(self, done: int, now: float) -> dict[str, Any]:
        fps = (done - self._from) / max(1e-9, now - self._began)
        eta = (self._total - done) / fps if fps else 0.0
        return {"frame": done, self._unit: self._total, "fps": round(fps, 1), "eta_seconds": round(eta)}


class _Bar:
    def __init__(self, stream: TextIO, label: str, total: int, done: int, unit: str) -> None:
        from rich import progress
        from rich.console import Console

        self._progress = progress.Progress(
            progress.TextColumn("{task.description}"),
            progress.BarColumn(12),
            progress.MofNCompleteColumn(),
            *([] if unit == "frames" else [progress.TextColumn(unit)]),
            progress.TimeRemainingColumn(compact=True),
            progress.TextColumn("[dim]{task.fields[rates]}"),  # 80 columns have to hold it all
            console=Console(file=stream),
            refresh_per_second=4,
        )
        self._task = self._progress.add_task(label, total=total, completed=done, rates="")
        self._progress.start()

    def update(self, done: int, rates: str) -> None:
        self._progress.update(self._task, completed=done, rates=rates)

    def close(self) -> None:
        self._progress.stop()


def _short_rates(meter: Meter) -> str:
    """In rich's markup; the stage that binds stands out."""
    marked = {stage: ("[bold not dim]", "[/]") if stage == meter.binds else ("", "") for stage in STAGES}
    return "fps: " + " ".join(f"{a}{stage} {meter.fps(stage):.0f}{b}" for stage, (a, b) in marked.items())


def _rates(meter: Meter) -> str:
    rates = " ".join(f"{stage} {meter.fps(stage):.0f}" for stage in STAGES if meter.frames[stage])
    return f"{rates} fps, {meter.binds} binds, {memory_mb()} MB"


def clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{seconds:02d}s"

"""How every benchmark here measures and reports: rounds in which all cases take turns, medians, one JSON line.

The machine may be shared, so a number alone says little. Cases that are compared run in the same process, in turns,
each round in the opposite order of the one before; the ratio is the median of the ratios within the rounds. What other
processes used of the machine meanwhile is in the report.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

HERE = Path(__file__).resolve().parent
PACKAGES = ("torch", "av", "numpy", "h5py")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One call of one case: seconds on the clock, and seconds of all processors in this process and its children."""

    wall: float
    cpu: float

    def __sub__(self, earlier: Sample) -> Sample:
        return Sample(wall=self.wall - earlier.wall, cpu=self.cpu - earlier.cpu)

    def __add__(self, other: Sample) -> Sample:
        return Sample(wall=self.wall + other.wall, cpu=self.cpu + other.cpu)


def now() -> Sample:
    return Sample(wall=time.perf_counter(), cpu=_own_seconds())


Samples = Mapping[str, Sequence[Sample]]


def interleaved(
    cases: Mapping[str, Callable[[], object]], rounds: int, *, warm_up: bool = True
) -> dict[str, list[Sample]]:
    """Each case once per round. A case that returns seconds (float) or a Sample has measured itself; others are timed.

    With `warm_up` one more round goes before, unmeasured.
    """
    samples: dict[str, list[Sample]] = {name: [] for name in cases}
    for number in range(-warm_up, rounds):
        names = list(cases)[:: 1 if number % 2 else -1]
        for name in names:
            before = now()
            counted = cases[name]()
            spent = now() - before
            if isinstance(counted, float):
                spent = replace(spent, wall=counted)
            if number >= 0:
                samples[name].append(counted if isinstance(counted, Sample) else spent)
        print(f"round {number + 1} of {rounds}" if number >= 0 else "warm-up", file=sys.stderr, flush=True)
    return samples


def median(samples: Sequence[Sample], of: str = "wall") -> float:
    return statistics.median(getattr(sample, of) for sample in samples)


def ratio(above: Sequence[Sample], below: Sequence[Sample], of: str = "wall") -> float:
    """Median over the rounds of `above` divided by `below` in the same round."""
    return statistics.median(getattr(a, of) / getattr(b, of) for a, b in zip(above, below, strict=True))


def arguments(doc: str | None, *, rounds: int | None) -> argparse.ArgumentParser:
    """The options that every benchmark has; `rounds` None: it measures no times."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    if rounds is not None:
        parser.add_argument("--rounds", type=int, default=rounds, help=f"measured rounds (default: {rounds})")
    default = Path(tempfile.gettempdir()) / "streamsal-benchmarks"
    parser.add_argument(
        "--work-dir", type=Path, default=default, help=f"generated inputs are kept in (default: {default})"
    )
    parser.add_argument("--machine", default=machine(), help="what to call this machine in the report")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="where the JSON line goes, too")
    return parser


def parsed_on_device(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, torch.device]:
    """What is asked for, with the options of benchmarks that may run on a GPU; and the device, with so many threads."""
    import torch  # which not every benchmark needs

    from streamsal.devices import resolve_device

    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    return options, resolve_device(options.device)


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """First column to the left, numbers to the right."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for row in [header, *rows]:
        first, *rest = (
            cell.rjust(width) if column else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        )
        print("  ".join([first, *rest]).rstrip())
    print()


@dataclass(slots=True, kw_only=True)
class Report:
    """Made before measuring, because it notes what the rest of the machine does in between."""

    benchmark: str
    options: argparse.Namespace
    _began: float = field(default_factory=time.monotonic)
    _own: float = field(default_factory=lambda: _own_seconds())
    _all: float | None = field(default_factory=lambda: _machine_seconds())

    def finish(self, *, targets: Mapping[str, tuple[float, str, float]], **facts: Any) -> None:
        """`targets` {question: (measured, "<=" or ">=", target)}; prints what is met, then everything as one line."""
        met = {name: value <= goal if sign == "<=" else value >= goal for name, (value, sign, goal) in targets.items()}
        for name, (value, sign, goal) in targets.items():
            print(f"{name}: {value:.3g} (target {sign} {goal:g}: {'met' if met[name] else 'missed'})")
        others = self._share_of_others()
        print(f"other processes used {'?' if others is None else f'{100 * others:.0f} %'} of the machine meanwhile")
        line = json.dumps(
            {
                "benchmark": self.benchmark,
                "targets": {
                    name: {"measured": round(value, 4), "target": f"{sign} {goal:g}", "met": met[name]}
                    for name, (value, sign, goal) in targets.items()
                },
                **facts,
                "settings": {name: str(value) for name, value in vars(self.options).items() if name in _SETTINGS},
                "machine": self.options.machine,
                "cores": os.cpu_count(),
                "share_used_by_others": others,
                "versions": versions(),
                "commit": commit(),
                "date": datetime.now(UTC).date().isoformat(),
            }
        )
        print(line)
        if self.options.output:
            self.options.output.write_text(line + "\n")

    def _share_of_others(self) -> float | None:
        used = _machine_seconds()
        if used is None or self._all is None:
            return None
        elapsed = max(1e-3, time.monotonic() - self._began) * (os.cpu_count() or 1)
        return round(max(0.0, (used - self._all) - (_own_seconds() - self._own)) / elapsed, 3)


_SETTINGS = ("rounds", "seconds", "width", "height", "shards", "frames", "tasks", "style")


def rounded(samples: Samples, per: int = 1, digits: int = 6) -> dict[str, dict[str, float]]:
    """Medians of wall and processor seconds of every case, each divided by `per`, ready for JSON."""
    return {
        name: {of: round(median(found, of) / per, digits) for of in ("wall", "cpu")} for name, found in samples.items()
    }


def peak_megabytes(program: str) -> float:
    """Largest resident memory of a new process that runs these lines of Python. Linux only."""
    # VmHWM starts anew with the process; getrusage's ru_maxrss holds what the parent had when it forked.
    last = "print('VmHWM', next(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM')))"
    output = subprocess.check_output([sys.executable, "-c", f"{program}\n{last}"], text=True)
    return int(output.split()[-1]) / 1024


def machine() -> str:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.system()} {platform.machine()}, {cores} cores"


def versions() -> dict[str, str]:
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str:
    run = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return run.stdout.strip() or "unknown"


def _own_seconds() -> float:
    used = (resource.getrusage(whose) for whose in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(one.ru_utime + one.ru_stime for one in used)


def _machine_seconds() -> float | None:
    """Busy seconds of all processors since the machine started, stolen ones included; None where Linux is not."""
    try:
        fields = [int(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = fields[:8]
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")

"""How long does `streamsal --help` take, and what does it load?

Measured: the wall time of the whole process, start of the interpreter to exit, `--repeat` times after one call that
warms the file cache; beside it the same for `python -c pass`, which is the floor. The best is the number to compare
(nothing makes a process faster than it is), the median says how busy the machine was. The imports come from one more
call under `-X importtime`; what is in neither the standard library nor streamsal itself is listed by name.

    python benchmarks/startup.py [--repeat 20] [-o startup.json]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

HELP = ["-m", "streamsal", "--help"]
GOAL_SECONDS = 0.3


def wall_seconds(arguments: list[str], repeat: int) -> list[float]:
    """Wall time of `python *arguments`, `repeat` times, after one unmeasured call."""
    times = []
    for _ in range(repeat + 1):
        start = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
        times.append(time.perf_counter() - start)
    return times[1:]


def imports(arguments: list[str]) -> list[tuple[str, float]]:
    """Every module that `python *arguments` loads, with its own milliseconds, the slowest first."""
    run = subprocess.run([sys.executable, "-X", "importtime", *arguments], check=True, capture_output=True, text=True)
    rows = [line.removeprefix("import time:").split("|") for line in run.stderr.splitlines() if "|" in line]
    modules = [(name.strip(), int(own) / 1000) for own, _, name in rows if own.strip().isdigit()]
    return sorted(modules, key=lambda module: -module[1])


def foreign_packages(modules: list[tuple[str, float]]) -> dict[str, float]:
    """Milliseconds per package that belongs neither to streamsal nor to the standard library, the slowest first."""
    sums: dict[str, float] = {}
    for name, own in modules:
        package = name.split(".")[0]
        if package not in sys.stdlib_module_names and package != "streamsal":
            sums[package] = sums.get(package, 0) + own
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def commit() -> str:
    here = Path(__file__).parent
    run = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=here, capture_output=True, text=True)
    return run.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeat", type=int, default=20, help="measured calls of each (default: 20)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.json", help="where the JSON line goes, too")
    options = parser.parse_args()

    rows = {
        "python -c pass": wall_seconds(["-c", "pass"], options.repeat),
        "streamsal --help": wall_seconds(HELP, options.repeat),
    }
    own = {name for name, _ in imports(["-c", "pass"])}  # what the interpreter and its site-packages load by themselves
    modules = [module for module in imports(HELP) if module[0] not in own]
    print(f"{'':18}{'best':>9}{'median':>9}{'worst':>9}   milliseconds of {options.repeat} calls")
    for name, seconds in rows.items():
        best, median, worst = (1000 * f(seconds) for f in (min, statistics.median, max))
        print(f"{name:18}{best:9.1f}{median:9.1f}{worst:9.1f}")
    print(
        f"\n{len(modules)} modules beyond the interpreter's; the slowest: "
        + ", ".join(f"{name} {ms:.1f} ms" for name, ms in modules[:8])
    )
    foreign = foreign_packages(modules)
    print("of other packages: " + (", ".join(f"{name} {ms:.1f} ms" for name, ms in foreign.items()) or "none"))

    best = min(rows["streamsal --help"])
    line = json.dumps(
        {
            "benchmark": "startup",
            "best_seconds": round(best, 4),
            "median_seconds": round(statistics.median(rows["streamsal --help"]), 4),
            "interpreter_best_seconds": round(min(rows["python -c pass"]), 4),
            "goal_seconds": GOAL_SECONDS,
            "met": best < GOAL_SECONDS,
            "n_modules": len(modules),
            "foreign_packages": list(foreign),
            "python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
            "commit": commit(),
            "date": datetime.now(UTC).date().isoformat(),
        }
    )
    print(line)
    if options.output:
        options.output.write_text(line + "\n")


if __name__ == "__main__":
    main()

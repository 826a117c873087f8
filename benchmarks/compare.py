"""Which GPU for how much? The results of many machines in one table and one plot.

Reads what `streamsal bench --json` and `throughput.py -o` wrote, one file per device. The table has a row for every
size, batch and precision and a column of frames per second for every device; the plot shows, for each size, the best
of every device in bars: the model alone, and everything from end to end.

    python benchmarks/compare.py results/throughput-*.json [-o compare.png] [--what end_to_end]
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure import table

WHATS = ("model", "end_to_end", "decode", "upload", "store")


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One file: a device, and its cases by (width, height), batch and precision."""

    device: str
    cases: dict[tuple[tuple[int, int], int, str], dict[str, Any]]


def read(path: Path) -> Measured:
    """Raises SystemExit for a file that is no such result."""
    try:
        found = json.loads(path.read_text().splitlines()[-1])
        cases = {((case["width"], case["height"]), case["batch"], case["dtype"]): case for case in found["cases"]}
        return Measured(device=found["device"]["name"], cases=cases)
    except (OSError, ValueError, LookupError, TypeError) as error:
        raise SystemExit(f"{path} is no result of `streamsal bench --json` or throughput.py -o: {error!r}") from None


def merged(found: Iterable[Measured]) -> list[Measured]:
    """One per device: of several files of one device, what the later ones say."""
    devices: dict[str, Measured] = {}
    for one in found:
        earlier = devices.get(one.device)
        devices[one.device] = Measured(device=one.device, cases={**(earlier.cases if earlier else {}), **one.cases})
    return list(devices.values())


def rate(case: dict[str, Any] | None, what: str) -> float | None:
    """Frames per second; None where that was not measured."""
    return case["fps"].get(what) if case else None


def best(one: Measured, size: tuple[int, int], what: str) -> float:
    """Over batches and precisions."""
    return max((rate(case, what) or 0.0 for key, case in one.cases.items() if key[0] == size), default=0.0)


def print_table(found: list[Measured], what: str) -> None:
    keys = sorted({key for one in found for key in one.cases})
    print(f"{what.replace('_', ' ')}, frames per second\n")
    table(
        ["", *(one.device for one in found)],
        [
            [f"{width}x{height} batch {batch} {dtype}", *(_cell(one.cases.get(key), what) for one in found)]
            for key in keys
            for (width, height), batch, dtype in [key]
        ],
    )


def _cell(case: dict[str, Any] | None, what: str) -> str:
    if case and case["failed"]:
        return case["failed"]
    found = rate(case, what)
    return "-" if found is None else f"{found:.1f}"


def plot(found: list[Measured], path: Path) -> None:
    """Horizontal bars, one panel per size, the fastest device at the top."""
    try:
        import matplotlib
    except ImportError:
        raise SystemExit("the plot needs matplotlib: pip install 'streamsal[bench]', or leave -o out") from None
    matplotlib.use("agg")
    from matplotlib import pyplot

    sizes = sorted({key[0] for one in found for key in one.cases})
    height = 1.6 + 0.5 * len(found)
    figure, panels = pyplot.subplots(
        1, len(sizes), figsize=(5 * len(sizes), height), squeeze=False, layout="constrained"
    )
    for panel, (width_px, height_px) in zip(panels[0], sizes, strict=True):
        ordered = sorted(found, key=lambda one: -best(one, (width_px, height_px), "model"))
        rows = range(len(ordered))
        for offset, what, color in ((-0.2, "model", "#31688e"), (0.2, "end_to_end", "#35b779")):
            values = [best(one, (width_px, height_px), what) for one in ordered]
            bars = panel.barh([row + offset for row in rows], values, 0.38, color=color, label=what.replace("_", " "))
            panel.bar_label(bars, fmt="%.3g", padding=2, fontsize=8)
        panel.set_yticks(list(rows), [one.device for one in ordered])
        panel.set_title(f"{width_px} x {height_px}")
        panel.set_xlabel("frames per second")
        panel.margins(x=0.15)
        panel.invert_yaxis()
        panel.spines[["top", "right"]].set_visible(False)
    figure.legend(*panels[0][0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=150)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE.json")
    parser.add_argument("--what", default="model", choices=WHATS, help="of the table (default: model)")
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.png", help="where the plot goes; or .svg, .pdf")
    options = parser.parse_args()
    found = merged(read(path) for path in options.files)
    print_table(found, options.what)
    if options.output:
        plot(found, options.output)
        print(options.output, file=sys.stderr)


if __name__ == "__main__":
    main()

"""Does memory depend on the length of the video?

Measured: the largest resident memory of a process that computes one whole task, for films of 1 000 and of 20 000
frames, in turns, a new process each time; and the same for one that renders the film.
The film is small (640x360 by default), so that what grows with each frame would show beside what is needed anyway.

    python benchmarks/memory.py [--rounds 3] [-o results/memory.json]
"""

from __future__ import annotations

import shutil
import statistics
from pathlib import Path

from clips import long_clip
from measure import Report, arguments, peak_megabytes, table

from streamsal.merge import merge
from streamsal.prepare import Request, make_plan

WITHIN = 1.05
SHORT, LONG = 1000, 20000

INFER = """
import torch
from streamsal.task import infer
torch.set_num_threads(1)
infer({run!r}, 0)
"""
RENDER = """
import torch
from streamsal.render import render
torch.set_num_threads(1)
render({run!r}, {film!r}, preset="ultrafast")
"""


def prepare(video: Path, run: Path) -> None:
    shutil.rmtree(run, ignore_errors=True)
    make_plan([video], run, Request(model="sigmotion", tasks=1))


def peaks(run: Path) -> dict[str, float]:
    shutil.rmtree(run / "shards", ignore_errors=True)
    shutil.rmtree(run / "logs", ignore_errors=True)
    found = {"infer": peak_megabytes(INFER.format(run=str(run)))}
    merge(run)
    found["render"] = peak_megabytes(RENDER.format(run=str(run), film=str(run.with_suffix(".mp4"))))
    return found


def main() -> None:
    parser = arguments(__doc__, rounds=3)
    parser.add_argument("--width", type=int, default=640)
    parser.add_argument("--height", type=int, default=360)
    parser.add_argument("--short", type=int, default=SHORT, metavar="FRAMES")
    parser.add_argument("--long", type=int, default=LONG, metavar="FRAMES")
    options = parser.parse_args()

    runs = {}
    for frames in (options.short, options.long):
        video = long_clip(options.work_dir, frames=frames, width=options.width, height=options.height)
        runs[frames] = options.work_dir / f"memory_{frames}.streamsal"
        prepare(video, runs[frames])
    report = Report(benchmark="memory", options=options)
    found: dict[str, dict[int, list[float]]] = {}
    for _ in range(options.rounds):
        for frames, run in runs.items():
            for what, peak in peaks(run).items():
                found.setdefault(what, {}).setdefault(frames, []).append(peak)
    median = {what: {n: statistics.median(values) for n, values in by.items()} for what, by in found.items()}
    growth = {what: by[options.long] / by[options.short] for what, by in median.items()}
    print(f"peak memory in MB, sigmotion, {options.width}x{options.height}\n")
    table(
        ["", f"{options.short} frames", f"{options.long} frames", "ratio"],
        [
            [what, f"{by[options.short]:.0f}", f"{by[options.long]:.0f}", f"{growth[what]:.3f}"]
            for what, by in median.items()
        ],
    )
    report.finish(
        targets={
            f"{what}, {options.long} / {options.short} frames": (value, "<=", WITHIN) for what, value in growth.items()
        },
        peak_megabytes={what: {str(n): round(value, 1) for n, value in by.items()} for what, by in median.items()},
        spread_megabytes={
            what: {str(n): round(max(values) - min(values), 1) for n, values in by.items()}
            for what, by in found.items()
        },
    )


if __name__ == "__main__":
    main()

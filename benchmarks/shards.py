"""Does a run as 2 or 7 tasks store what it stores as one task, bit for bit, for every model of frames?

Each model computes a few frames from the middle of a film of the demo's generator, with cuts and sound, as 1, 2 and 7
tasks: planned, computed and merged as the commands do it, with stand-in weights where it has any. What is compared is
what stands in the files: maps, numbers of frames, constants.

    python benchmarks/shards.py [--cases "unisal;stavis"] [--frames 14] [-o results/shards.json]
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clips import clip
from measure import Report, arguments, table

from streamsal.cores import usable_cores
from streamsal.maps import Maps
from streamsal.merge import merge, open_run
from streamsal.models import MODELS
from streamsal.prepare import Request, make_plan
from streamsal.task import infer

TASKS = (1, 2, 7)
LONG_SIDE = 256  # pixels of the frames that models without a size of their own see


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    start: int = 40  # behind the warm-up of every window


CASES = {
    **{name: Case(model=name) for name, entry in MODELS.items() if entry.kind != "features"},
    "unisal": Case(model="unisal", start=293),  # over frame 300, where its chains begin anew
    "unisal, shot": Case(model="unisal", options={"state": "shot"}),
    "unisal, relay": Case(model="unisal", options={"state": "relay"}),
    "tased, reverse": Case(model="tased", options={"first": "reverse"}, start=0),
    "stavis, upstream": Case(model="stavis", options={"audio": "upstream"}),
}


def computed(film: Path, run: Path, case: Case, *, tasks: int, frames: int) -> Maps:
    """The merged maps of a run that is computed anew."""
    shutil.rmtree(run, ignore_errors=True)
    request = Request(
        model=case.model,
        weights="synthetic" if MODELS[case.model].weights else None,
        options=case.options,
        tasks=tasks,
        batch_size=2,
        start=case.start,
        stop=case.start + frames,
        long_side=LONG_SIDE,
    )
    plan = make_plan([film], run, request)
    for task in range(len(plan.shards)):
        infer(run, task)
    merge(run)
    return open_run(run)[film.name]


def differing(maps: Maps, truth: Maps) -> tuple[int, float]:
    """How many frames have another bit anywhere, and the largest difference of any value."""
    frames, largest = set(), 0.0
    for name in truth.outputs:
        for frame in truth.frame.tolist():
            ours, theirs = maps.output(name, frame), truth.output(name, frame)
            if ours.tobytes() != theirs.tobytes():
                frames.add(frame)
                largest = max(largest, float(np.nanmax(np.abs(ours - theirs))))
    constants = all(np.array_equal(maps.constants[name], value) for name, value in truth.constants.items())
    same_frames = np.array_equal(maps.frame, truth.frame)
    return (len(frames) if constants and same_frames else len(truth)), largest


def main() -> None:
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--cases", metavar="LIST", help="rows of the table, with ; between them (default: all)")
    parser.add_argument("--frames", type=int, default=14, help="that are computed of the film (default: 14)")
    options = parser.parse_args()
    cases = options.cases.split(";") if options.cases else list(CASES)
    film = clip(options.work_dir, seconds=13, width=640, height=360)
    report = Report(benchmark="shards", options=options)
    torch.set_num_threads(max(1, usable_cores() - 1))  # as the command line does
    found: dict[str, dict[str, Any]] = {}
    for case in cases:
        print(case, file=sys.stderr, flush=True)
        began = time.perf_counter()
        runs = {
            n: computed(film, options.work_dir / f"{n}.streamsal", CASES[case], tasks=n, frames=options.frames)
            for n in TASKS
        }
        others = {n: differing(runs[n], runs[1]) for n in TASKS[1:]}
        found[case] = {
            "frames": len(runs[1]),
            "differing": {str(n): count for n, (count, _) in others.items()},
            "largest_difference": max(largest for _, largest in others.values()),
            "seconds": round(time.perf_counter() - began, 1),
        }
        for maps in runs.values():
            maps.close()
    table(
        ["model", "frames", *(f"differing as {n} tasks" for n in TASKS[1:]), "largest difference"],
        [
            [case, str(of["frames"]), *map(str, of["differing"].values()), f"{of['largest_difference']:g}"]
            for case, of in found.items()
        ],
    )
    wrong = sum(any(of["differing"].values()) for of in found.values())
    report.finish(targets={"models with other bits in shards": (wrong, "<=", 0)}, models=found)


if __name__ == "__main__":
    main()

"""The demo: the sample clip through the whole engine, as three tasks and as one, and the proof that both agree.

A folder flows in; a clip, two runs, a film and a report lie in it afterwards. Calls what the command line calls and
computes nothing itself but the comparison.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from .errors import StreamsalError
from .files import make_folder
from .maps import Maps
from .merge import merge, open_run
from .prepare import Request, make_plan
from .progress import Progress
from .render import render
from .report.report import report
from .sample_clip import open_scene, shot_list, write_demo_clip
from .signals import Stop, stop_on_signals
from .task import infer

TASKS = 3
FIRST_LOOK_SECONDS = 0.4  # of a scene: where no eye, and no map with a temporal filter, has settled yet


def demo(
    folder: str | Path,
    *,
    model: str = "sigmotion",
    seconds: float = 8,
    width: int = 640,
    height: int = 360,
    progress: Progress | None = None,
) -> Path:
    """Makes the clip, runs it divided and undivided, compares, renders, reports and prints; returns the film.

    Raises StreamsalError if the divided run stored anything else than the undivided one, and what the stages raise.
    """
    folder, progress = make_folder(folder), progress or Progress(quiet=True)
    began = time.monotonic()
    with stop_on_signals() as stop:
        clip = _clip(folder / "clip.mp4", seconds, width, height, progress)
        divided, unsplit = folder / "clip.streamsal", folder / "clip_unsplit.streamsal"
        timings = [_run(clip, run, model, n, progress, stop) for run, n in ((divided, TASKS), (unsplit, 1))]
        (divided_file,), (unsplit_file,) = merge(divided), merge(unsplit)
        difference = largest_difference(divided_file, unsplit_file)
        film = render(divided, divided / "clip.overlay.mp4", progress=progress, should_stop=stop)
        page = report([divided], folder / "report.html", progress=progress, should_stop=stop)
    with open_run(divided) as run:
        scenes = scene_rows(run[clip.name])
    _print_tables(scenes, timings)
    print(f"max difference to unsplit: {difference:g}")
    if difference:
        raise StreamsalError(f"{divided_file} and {unsplit_file} differ by up to {difference:g}: please report this")
    for what, path in {"clip": clip, "film": film, "maps": divided_file, "page to open": page}.items():
        print(f"{what}: {path}")
    print(f"done in {time.monotonic() - began:.0f} s; your own film next: streamsal run VIDEO")
    return film


def largest_difference(ours: Path, theirs: Path) -> float:
    """Over all that two merged files store about the frames: 0 only if every byte is the same.

    Infinite where shapes, types or the frames without a value differ; `shard`, which says who computed a row, is left
    out.
    """
    with h5py.File(ours, "r") as a, h5py.File(theirs, "r") as b:
        names = (a.keys() | b.keys()) - {"shard"}
        return max(_difference(_stored(a, name), _stored(b, name)) for name in sorted(names))


def _stored(file: h5py.File, name: str) -> np.ndarray:
    dataset: Any = file.get(name)
    return np.empty((0, 0, 0, 0)) if dataset is None else dataset[...]


def _difference(a: np.ndarray, b: np.ndarray) -> float:
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if a.tobytes() == b.tobytes():
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    if (np.isnan(a) != np.isnan(b)).any():
        return np.inf
    # Bytes that differ where values do not (-0.0 and 0.0) are a difference, too: the smallest one there is.
    return max(float(np.nanmax(np.abs(a - b), initial=0.0)), np.finfo(np.float64).tiny)


def scene_rows(maps: Maps) -> list[tuple[str, str, tuple[float, float], tuple[float, float], float]]:
    """Per shot: its kind, its frames, where target and peak are in its middle (fractions of width and height), and how
    much likelier than chance the map holds the target, in bits, over the shot."""
    rate = round(float((len(maps) - 1) / (maps.pts_seconds[-1] - maps.pts_seconds[0])))
    rows = []
    for shot in shot_list(len(maps), rate):
        scene = open_scene(shot, maps.width, maps.height)
        bits = []
        peak = target = (0.0, 0.0)
        for frame in range(min(shot.start + round(FIRST_LOOK_SECONDS * rate), shot.stop - 1), shot.stop):
            log_density = maps.log_density(frame)
            x, y = scene.target(frame - shot.start)
            at_target = log_density[int(y * maps.height), int(x * maps.width)]
            bits.append((at_target + np.log(log_density.size)) / np.log(2))
            if frame == (shot.start + shot.stop) // 2:
                row, column = np.unravel_index(np.argmax(log_density), log_density.shape)
                peak, target = ((column + 0.5) / maps.width, (row + 0.5) / maps.height), (x, y)
        rows.append((shot.kind, f"{shot.start} ... {shot.stop - 1}", target, peak, float(np.mean(bits))))
    return rows


def _clip(path: Path, seconds: float, width: int, height: int, progress: Progress) -> Path:
    with progress.track("drawing the clip", round(seconds * 25)):
        return write_demo_clip(
            path, seconds=seconds, width=width, height=height, on_frame=lambda done, total: progress.update(done)
        )


def _run(clip: Path, run: Path, model: str, tasks: int, progress: Progress, stop: Stop) -> tuple[int, int, float]:
    """Tasks, frames, and seconds of a run that starts anew: an older one would have nothing left to compute."""
    shutil.rmtree(run, ignore_errors=True)
    make_plan([clip], run, Request(model=model, tasks=tasks))
    began = time.monotonic()
    frames = sum(infer(run, task, progress=progress, stop=stop) for task in range(tasks))
    return tasks, frames, time.monotonic() - began


def _print_tables(scenes: list[Any], timings: list[tuple[int, int, float]]) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("scene", "frames", "target at x, y", "peak at x, y", "target above chance", box=None, pad_edge=False)
    for kind, frames, target, peak, bits in scenes:
        table.add_row(kind, frames, *(f"{x:.2f}, {y:.2f}" for x, y in (target, peak)), f"{bits:+.1f} bits")
    console.print(table)
    console.print()
    table = Table("tasks", "frames", "seconds", "fps", box=None, pad_edge=False)
    for tasks, frames, seconds in timings:
        table.add_row(str(tasks), str(frames), f"{seconds:.1f}", f"{frames / seconds:.0f}")
    console.print(table)
    console.print()

"""Runs in, one HTML file out that needs no network: film and timeline, contact sheet, comparison, facts, methods.

    runs ─ films ┬ curves          tables of `stats` and `evaluate` where they are of this run, else the maps
                 ├ shots           cuts.csv, else the film itself where that is quick
                 ├ contact sheet   decoded, drawn, JPEG
                 └ sources         rendered films and the original, beside the page, or a small one in it

Gathers and measures; what the page looks like is the matter of `report_page`.
"""

from __future__ import annotations

import csv
import json
import os
import tempfile
from base64 import b64encode
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import av
import numpy as np
from av.error import FFmpegError

from ..cores import usable_cores
from ..drawing.colormaps import colormap
from ..drawing.overlay import STYLES
from ..drawing.shown_maps import FLAT, Densities
from ..errors import UsageError
from ..files import replacing
from ..index import VideoIndex
from ..merge import Run, open_run
from ..prepare import checked_index, index_path
from ..progress import Progress
from ..signals import Stop, stopped
from .contact_sheet import chosen_frames, draw, jpeg, mark, pictures
from .curves import AOIS, POINTS, STATS, Curve, map_curves, score_columns, table, table_curves
from .html import Film, Thumb, page
from .looks import looks, n_bytes
from .methods import Measured
from .small_film import write_small_film

if TYPE_CHECKING:
    from ..gaze.table import Gaze

PICTURE_BYTES = 3_200_000  # of JPEG, a third more as text: the page stays below 5 MB without an embedded film
MOST_PICTURES, MOST_PER_FILM, MOST_LARGE = 144, 24, 48  # in a page, of one film, and of the larger size in a page
GAZE_BYTES = 1_500_000  # of fixations in a page, as text; more are left out, and less is left for pictures
QUALITIES = (82, 72, 60, 45, 30)  # of JPEG, until the pictures fit
THUMB_PX, THUMB_PX_MANY = 480, 320  # longer side of a picture; where there are many of them
QUICK_PIXELS = 5e9  # in a whole film, up to which its cuts are looked for unasked: 10 minutes of 640 x 360 and more
COLORMAP = "inferno"


def report(
    runs: Sequence[str | Path],
    output: str | Path,
    *,
    embed: bool = False,
    gaze: Gaze | str | Path | None = None,
    aois: str | Path | None = None,
    video: str | None = None,
    progress: Progress | None = None,
    should_stop: Stop = lambda: "",
) -> Path:
    """Write the page of one run, or of several that are compared where they are of the same videos; returns its path.

    `embed`: a small film with the maps lies in the page itself. `gaze`, `aois`: each run is evaluated against recorded
    gaze first, and the mass in areas of interest measured, as `evaluate` and `stats` do and into the same files.
    Raises UsageError for runs without maps, IncompleteRun, MissingInput and PlanMismatch as `render` does, what
    `evaluate` and `stats` raise, WriteError, Stopped.
    """
    output, progress = Path(output), progress or Progress(quiet=True)

    def check() -> None:
        if reason := should_stop():
            raise stopped(reason, f"{output.name} is not written")

    with ExitStack() as opened:
        measured = _measured([opened.enter_context(open_run(run)) for run in runs], video)
        looked = _tables(measured, gaze, aois, progress, should_stop)
        work = _Work(output=output, embed=embed, gaze=looked, progress=progress, check=check, n_measured=len(measured))
        films = [_film(group, work) for group in _by_video(measured)]
        with replacing(output) as part:
            part.write_text(page(_fitting(films)), encoding="utf-8")
    return output


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Work:
    """What is the same for all films. `check` raises Stopped when that is asked for."""

    output: Path
    embed: bool
    gaze: Gaze | None
    progress: Progress
    check: Callable[[], None]
    n_measured: int


def _tables(
    measured: Sequence[Measured],
    gaze: Gaze | str | Path | None,
    aois: str | Path | None,
    progress: Progress,
    stop: Stop,
) -> Gaze | None:
    """Makes evaluation/ and stats/ of every run, where gaze and areas are given; returns the gaze."""
    if isinstance(gaze, (str, Path)):
        from ..gaze.read import read_gaze

        gaze = read_gaze(gaze, size_px={each.maps.name: (each.maps.width, each.maps.height) for each in measured})
    for run in {id(each.run): each.run for each in measured}.values():
        if gaze is not None:
            from ..evaluation.evaluate import evaluate

            evaluate(run, gaze, progress=progress, stop=stop)
        if aois is not None:
            from ..stats import stats

            stats(run, aois=aois, gaze=gaze, progress=progress)
    return gaze


def _measured(runs: Sequence[Run], video: str | None) -> list[Measured]:
    """Every video of every run that has maps, or those of one name; runs are labeled so that they can be told apart."""
    found = []
    for run in runs:
        names = run.videos if video is None else [run[video].name] if _has(run, video) else []
        for name in names:
            if run.plan and not _selected(run, name):
                continue
            maps = run[name]
            if maps.first.readback is None and len(maps.shape()) != 2:
                raise UsageError(f"{run.path} holds {maps.first.name} of {maps.info['model']}, no maps to report on")
            found.append((run, maps))
    if not found:
        what = "results of a video" if video is None else f"video {video}"
        raise UsageError(f"no {what} in {', '.join(str(run.path) for run in runs)}")
    labels = _labels([(run, str(maps.info["model"])) for run, maps in found])
    return [Measured(label=labels[run.path], run=run, maps=maps, index=_index(run, maps.name)) for run, maps in found]


def _has(run: Run, video: str) -> bool:
    try:
        return bool(run[video])
    except KeyError:
        return False


def _selected(run: Run, name: str) -> bool:
    assert run.plan is not None
    return any(video.name == name and video.start < video.stop for video in run.plan.videos)


def _labels(runs: Iterable[tuple[Run, str]]) -> dict[Path, str]:
    """The model of each run, and its folder where several have the same model."""
    models = {run.path: model for run, model in runs}
    shared = {path for path, model in models.items() if list(models.values()).count(model) > 1}
    return {path: f"{model}, {path.name}" if path in shared else model for path, model in models.items()}


def _index(run: Run, name: str) -> VideoIndex:
    if run.plan is not None:
        return checked_index(run.path, next(video for video in run.plan.videos if video.name == name))
    index = VideoIndex.load(index_path(run.folder, name))
    index.check_unchanged()
    return index


def _by_video(measured: Sequence[Measured]) -> list[list[Measured]]:
    """Runs of the same video together: the same by its content, wherever the file lies."""
    groups: dict[tuple[str, int], list[Measured]] = {}
    for each in measured:
        groups.setdefault((each.index.fingerprint, each.index.stream), []).append(each)
    return list(groups.values())


def _film(group: Sequence[Measured], work: _Work) -> Film:
    index = group[0].index
    curves = [_curves(each, work) for each in group]
    shots, known = _shots(group, work)
    densities = [Densities(each.maps, each.index, "interpolate") for each in group]
    most = max(4, min(MOST_PER_FILM, MOST_PICTURES // work.n_measured))
    frames = chosen_frames(shots, group[0].maps.frame, most)
    fixations = _fixations(group[0], work.gaze)
    found = [[each.at(frame) for each in densities] for frame in frames]
    peaks = [float(density.max()) for row in found for density in row if density is not None]
    maximum = max(FLAT, float(np.quantile(peaks, 0.95))) if peaks else FLAT
    starts = [start for start, _ in shots]
    if work.embed:
        sources = [("in this page, with its maps", _embedded(group[0], densities[0], maximum, work))]
    else:
        sources = _linked(group, work.output)
    return Film(
        measured=group,
        index=index,
        curves=curves,
        shots=starts,
        shots_known=known,
        borders=_borders(group),
        sheet=_sheet(group, frames, found, starts if known and len(shots) >= 3 else frames, fixations, maximum, work),
        maximum=maximum,
        sources=sources,
        gaze=work.gaze is not None,
        looks=looks(*fixations.T),
    )


def _sheet(
    group: Sequence[Measured],
    frames: Sequence[int],
    densities: Sequence[Sequence[np.ndarray | None]],
    starts: Sequence[int],
    fixations: np.ndarray,
    maximum: float,
    work: _Work,
) -> list[Thumb]:
    """The frames with each run's map over them, and where people looked in them; each stands for a part of the film
    that begins at one of `starts`."""
    index, table = group[0].index, colormap(COLORMAP)
    long_side = THUMB_PX if work.n_measured * len(frames) <= MOST_LARGE else THUMB_PX_MANY
    sheet = []
    with work.progress.track(f"{Path(index.path).name}: contact sheet", len(frames)):
        for (frame, rgb), of_runs in zip(pictures(index, frames, long_side), densities, strict=True):
            at = fixations[fixations[:, 0] == frame, 1:]
            drawn = [
                rgb if rgb is None or density is None else mark(draw(rgb, density, table, maximum), at)
                for density in of_runs
            ]
            first = max((start for start in starts if start <= frame), default=0)
            sheet.append(Thumb(frame=frame, first=first, images=drawn))
            work.progress.update(len(sheet))
            work.check()
    return sheet


def _fixations(each: Measured, gaze: Gaze | None) -> np.ndarray:
    """(n, 3) frame, x, y of the fixations on a film, a row for each of their frames; in units of width and height."""
    if gaze is None:
        return np.zeros((0, 3))
    from ..gaze.table import known_as, on_frames

    names = [name for name in dict.fromkeys(gaze.video) if known_as(name, each.run.videos) == each.maps.name]
    mine = gaze.where(np.isin(gaze.video, names))
    found = on_frames(mine, each.index.pts_seconds, each.index.end_seconds)
    x, y = found.x_px / each.index.display_width, found.y_px / each.index.display_height
    return np.stack([found.frame, x, y], axis=1).astype(np.float64)


def _curves(each: Measured, work: _Work) -> list[Curve]:
    """What tables of this run say of its video; what they do not say, measured on its maps."""
    folder, changed = each.run.folder, _last_change(each)
    found = list(table_curves(STATS, table(folder / "stats" / "frames.csv", each.maps, newer_than=changed)))
    if not found:
        with work.progress.track(f"{each.maps.name}: curves of {each.label}", min(len(each.maps), POINTS)):

            def on_frame(done: int, total: int) -> None:
                work.progress.update(done)
                work.check()

            found = map_curves(each.maps, on_frame=on_frame)
    scores = table(folder / "evaluation" / "frames.csv", each.maps, newer_than=changed, whole=False)
    summary = _summary(folder / "evaluation" / "summary.json")
    if scores and summary.get("plan_id") == each.maps.info["plan_id"]:
        found += table_curves(score_columns(summary), scores)
    found += table_curves(AOIS, table(folder / "stats" / "aois.csv", each.maps, newer_than=changed))
    return found


def _summary(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}


def _last_change(each: Measured) -> float:
    """When the file that holds the maps, or the plan where there is none yet, was written."""
    folder = each.run.folder
    paths = [path for path in (folder / f"{each.maps.name}.h5", folder / "plan.json") if path.exists()]
    return paths[0].stat().st_mtime if paths else 0.0


def _shots(group: Sequence[Measured], work: _Work) -> tuple[list[tuple[int, int]], bool]:
    """[start, stop) of the shots among the frames of the first run, and whether they were looked for.

    From cuts.csv of any of the runs, else from the film where that is quick; else all of it is one.
    """
    from ..shots import shots

    first, index = group[0], group[0].index
    start, stop = int(first.maps.frame[0]), int(first.maps.frame[-1]) + 1
    for each in group:
        cuts = _cuts(each.run.folder / "stats" / "cuts.csv", each.maps.name, _last_change(each))
        if cuts is not None:
            borders = [start, *(cut for cut in cuts if start < cut < stop), stop]
            return list(pairwise(borders)), True
    if index.n_frames * index.width * index.height > QUICK_PIXELS:
        work.progress.say(
            f"{first.maps.name}: long, so its cuts are not looked for: `streamsal stats --cuts` finds them"
        )
        return [(start, stop)], False
    with work.progress.track(f"{first.maps.name}: cuts", stop - start):

        def on_frame(done: int) -> None:
            work.progress.update(done)
            work.check()

        return shots(index, start=start, stop=stop, workers=usable_cores(), on_frame=on_frame), True


def _cuts(path: Path, video: str, newer_than: float) -> list[int] | None:
    """The cuts of a video in cuts.csv; None where the file is not there, of other maps, or has none of that video."""
    try:
        if path.stat().st_mtime < newer_than:
            return None
        with path.open(newline="") as file:
            return sorted(int(line["frame"]) for line in csv.DictReader(file) if line["video"] == video) or None
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, TypeError, ValueError):
        return None


def _borders(group: Sequence[Measured]) -> list[int]:
    """The frames at which a task begins, but for the first, in any of the runs."""
    found = set()
    for each in group:
        plan = each.run.plan
        if plan is not None:
            number = [video.name for video in plan.videos].index(each.maps.name)
            found |= {part.start for shard in plan.shards for part in shard if part.video == number}
            found.discard(plan.videos[number].start)
    return sorted(found)


def _linked(group: Sequence[Measured], output: Path) -> list[tuple[str, str]]:
    """What can be played beside the page: rendered films of whole videos, then the original."""
    found = []
    for each in group:
        for style, film in _rendered(each):
            found.append((f"{style}: {each.label}" if len(group) > 1 else style, _url(film, output)))
    return [*found, ("original", _url(Path(group[0].index.path), output))]


def _rendered(each: Measured) -> list[tuple[str, Path]]:
    folder, name = each.run.folder, each.maps.name
    paths = [
        (style, folder / f"{stem}.{style}{suffix}")
        for style in STYLES
        for stem in dict.fromkeys((name, Path(name).stem))
        for suffix in (".mp4", ".mkv")
    ]
    return [(style, path) for style, path in paths if path.is_file() and _whole(path, each.index)]


def _whole(film: Path, index: VideoIndex) -> bool:
    """Whether a film shows all of the video: one of a part begins at another frame."""
    try:
        with av.open(str(film)) as container:
            counts = [stream.frames for stream in container.streams.video if stream.frames]
            if counts:
                return index.n_frames in counts  # a film keeps the other videos of its source
            seconds = (container.duration or 0) / av.time_base
            return abs(seconds - float(index.end_seconds[-1] - index.pts_seconds[0])) < 1
    except (FFmpegError, OSError, IndexError):
        return False


def _url(file: Path, output: Path) -> str:
    """Relative to the page, so that both can be moved together."""
    relative = quote(os.path.relpath(file.resolve(), output.resolve().parent))
    return relative if relative.startswith("../") else f"./{relative}"  # else a colon in a name would end a scheme


def _embedded(each: Measured, densities: Densities, maximum: float, work: _Work) -> str:
    name = each.maps.name
    with tempfile.TemporaryDirectory() as folder, work.progress.track(f"{name}: small film", each.index.n_frames):

        def on_frame(done: int) -> None:
            work.progress.update(done)
            work.check()

        path = Path(folder) / "film.mp4"
        write_small_film(
            path, each.index, densities, maximum=maximum, table=COLORMAP, on_frame=on_frame, note=work.progress.say
        )
        return f"data:video/mp4;base64,{b64encode(path.read_bytes()).decode()}"


def _fitting(films: Sequence[Film]) -> list[Film]:
    """The fixations where there are not too many of them, and the pictures of the sheets as JPEG, of the best quality
    with which all of that fits into a page."""
    gaze = sum(n_bytes(film.looks) for film in films if film.looks is not None)
    if gaze > GAZE_BYTES:
        films, gaze = [replace(film, looks=None) for film in films], 0
    found: list[list[list[bytes | None]]] = []
    for quality in QUALITIES:
        found = [[[None if rgb is None else jpeg(rgb, quality) for rgb in t.images] for t in f.sheet] for f in films]
        if sum(len(data) for film in found for row in film for data in row if data) <= PICTURE_BYTES - gaze * 3 // 4:
            break
    return [
        replace(film, sheet=[replace(thumb, images=row) for thumb, row in zip(film.sheet, rows, strict=True)])
        for film, rows in zip(films, found, strict=True)
    ]

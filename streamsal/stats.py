"""A run in, tables for statistics out: what each map is like, what lies in areas of interest, where the film is cut.

One pass over the stored maps, with one frame and the one before it in memory, written line by line. Tables are tidy csv
with units in the names of columns; what is not known (holes, areas that are not there) is empty.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .aoi import Aoi, Coverage, cover, read_aois, visits
from .errors import BadInput, UsageError
from .files import make_folder, replacing
from .gaze.clock import Clock
from .gaze.read import read_gaze
from .gaze.table import Gaze, known_as
from .index import VideoIndex
from .layout import DONE
from .maps import Maps
from .merge import Run, open_run
from .prepare import Position, checked_index, frame_at, index_path
from .progress import Progress
from .shots import cuts as find_cuts

if TYPE_CHECKING:
    from torch import Tensor

NOTICED = 2.0  # times chance: the share of the frame that an area is


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameStats:
    """A line of frames.csv; NaN at holes, and the changes also where the frame before has no map.

    Pixels are displayed ones, the frame's middle being W / 2, H / 2. `spread_px`: root of the mean squared distance to
    the centroid. `kl_from_previous_bits`: sum of p log2(p / q), p this frame's density and q that of the stored frame
    before it; `js_from_previous_bits`: Jensen-Shannon divergence of the two, 0 ... 1.
    """

    video: str
    frame: int
    pts_seconds: float
    status: str = "hole"
    entropy_bits: float = math.nan
    centroid_x_px: float = math.nan
    centroid_y_px: float = math.nan
    spread_px: float = math.nan
    peak_x_px: float = math.nan
    peak_y_px: float = math.nan
    peak_log_density: float = math.nan
    mass_central_third: float = math.nan
    kl_from_previous_bits: float = math.nan
    js_from_previous_bits: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class AoiMass:
    """A line of aois.csv: the probability in an area, and the part of the frame that the area is.

    `mass` is NaN at holes; both are NaN while the area is not there.
    """

    video: str
    frame: int
    pts_seconds: float
    aoi: str
    mass: float
    area_fraction: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AoiSummary:
    """A line of aoi_summary.csv; means over the `n_frames` frames that have a map and the area.

    `mass_over_area`: mean mass divided by mean area, 1 by chance. `noticed_*`: the first frame with more than twice the
    mass of chance. The rest is known with gaze: fixations that are in the area in any frame, by how many viewers, the
    seconds they are in it together, and when, counted from the video's first frame, the first of them began.
    """

    video: str
    aoi: str
    n_frames: int
    mean_mass: float = math.nan
    mean_area_fraction: float = math.nan
    mass_over_area: float = math.nan
    noticed_frame: int | None = None
    noticed_pts_seconds: float = math.nan
    n_fixations: int | None = None
    n_subjects: int | None = None
    dwell_seconds: float = math.nan
    first_fixation_seconds: float = math.nan


@dataclass(frozen=True, slots=True, kw_only=True)
class CutLine:
    """A line of cuts.csv: a shot's first frame, and how different it is from the one before, 0 ... 1."""

    video: str
    frame: int
    pts_seconds: float
    strength: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Part:
    """What is asked for of one video."""

    maps: Maps
    frames: list[int]
    aois: list[Aoi]
    clock: Clock | None  # where times matter
    gaze: Gaze | None


def stats(
    run: Run | str | Path,
    *,
    aois: str | Path | Sequence[Aoi] = (),
    cuts: bool = False,
    gaze: Gaze | str | Path | Sequence[str | Path] | None = None,
    output: str | Path | None = None,
    video: str | None = None,
    start: Position = 0,
    stop: Position | None = None,
    native: bool = False,
    decode_workers: int = 1,
    progress: Progress | None = None,
    **reading: Any,
) -> list[Path]:
    """Write frames.csv, with `aois` aois.csv and aoi_summary.csv, with `cuts` cuts.csv; returns their paths.

    They go into `output` (default: RUN/stats) and cover every video of the run, or `video`, at the stored frames in
    [start, stop). A `Gaze` has the run's names of videos; for files, `reading` is as in `read_gaze`. `native`: on the
    stored grid instead of displayed pixels, quicker. `cuts` reads the videos themselves, `decode_workers` pieces at
    once. Files appear when all are whole. Raises UsageError for gaze without areas and for outputs that are no maps,
    BadInput for an area of a video that is not there, WriteError, and what reading the run, the videos and the files
    raises.
    """
    aois = read_aois(aois) if isinstance(aois, (str, Path)) else list(aois)
    if gaze is not None and not aois:
        raise UsageError("gaze is counted in areas of interest: name them with --aoi, or leave --gaze out")
    progress = progress or Progress(quiet=True)
    tables: dict[str, type] = {"frames": FrameStats}
    if aois:
        tables |= {"aois": AoiMass, "aoi_summary": AoiSummary}
    if cuts:
        tables["cuts"] = CutLine
    with nullcontext(run) if isinstance(run, Run) else open_run(run) as opened:
        names = opened.chosen(video)
        parts = _parts(opened, names, start, stop, aois, _gaze_on(opened, names, gaze, progress, reading))
        folder = make_folder(output or opened.folder / "stats")
        with ExitStack() as files:
            write = {name: _table(files, folder / f"{name}.csv", line) for name, line in tables.items()}
            for part in parts:
                with progress.track(part.maps.name, len(part.frames)):
                    _write_maps(part, native, write, progress)
                if cuts:
                    _write_cuts(opened, part, decode_workers, write["cuts"], progress)
    return [folder / f"{name}.csv" for name in tables]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Looked:
    """A density (h, w) on some grid, summing to 1 there, and its log in nats, nowhere -inf."""

    log_density_hw: Tensor
    density_hw: Tensor


def frame_stats(
    maps: Maps, frames: Sequence[int], aois: Sequence[Aoi] = (), *, first_seconds: float = 0.0, native: bool = False
) -> Iterator[tuple[FrameStats, list[AoiMass]]]:
    """Of each frame in turn: what its map is like, and the mass of each area.

    `first_seconds`: the presentation time of the video's first frame, from which areas count theirs.
    """
    grid = _grid(maps, native)
    size, before = (maps.height, maps.width), None
    covered = _Covered(size=size, grid=grid)
    for frame in frames:
        row = int(np.searchsorted(maps.frame, frame))
        seconds = float(maps.pts_seconds[row])
        known: dict[str, Any] = {"video": maps.name, "frame": int(frame), "pts_seconds": seconds}
        now = _looked(maps, frame, grid) if maps.status[row] == DONE else None
        found = [(aoi.name, covered.by(aoi, seconds - first_seconds)) for aoi in aois]
        masses = [
            AoiMass(
                **known,
                aoi=name,
                mass=math.nan if now is None or area is None else mass_in(now.density_hw, area),
                area_fraction=math.nan if area is None else area.area_fraction(grid),
            )
            for name, area in found
        ]
        measured = {"status": "done", **summary(now, size), **_change(now, before)} if now else {}
        yield FrameStats(**known, **measured), masses
        before = now


def summary(looked: Looked, size: tuple[int, int]) -> dict[str, Any]:
    """Entropy, centroid, spread, peak and central mass of a density on any grid over a frame of `size` (H, W) pixels.

    The mass of a cell is taken as spread evenly over its pixels in entropy and peak, as lying in its middle elsewhere.
    """
    import torch

    log_density, density = looked.log_density_hw, looked.density_hw
    h, w = density.shape
    pixels = size[0] * size[1] / (h * w)
    down, across = (density.sum(axis).double().numpy() for axis in (1, 0))
    y, x = ((np.arange(n) + 0.5) * (extent / n) for n, extent in ((h, size[0]), (w, size[1])))
    total = down.sum()
    centroid_y, centroid_x = down @ y / total, across @ x / total
    variance = (down @ (y - centroid_y) ** 2 + across @ (x - centroid_x) ** 2) / total
    at = int(log_density.argmax())
    middle = [torch.from_numpy(np.diff(np.clip(np.arange(n + 1.0), n / 3, 2 * n / 3))).float() for n in (h, w)]
    return {
        "entropy_bits": float(-_sum(density * log_density) / math.log(2) + math.log2(pixels)),
        "centroid_x_px": float(centroid_x),
        "centroid_y_px": float(centroid_y),
        "spread_px": math.sqrt(variance),
        "peak_x_px": float(x[at % w]),
        "peak_y_px": float(y[at // w]),
        "peak_log_density": float(log_density.flatten()[at]) - math.log(pixels),
        "mass_central_third": float(middle[0] @ (density @ middle[1])),
    }


def mass_in(density_hw: Tensor, covered: Coverage) -> float:
    """Probability in an area."""
    import torch

    share = torch.from_numpy(covered.share).float()
    return float(_sum(density_hw[covered.rows, covered.columns] * share))


def change_bits(now: Looked, before: Looked) -> tuple[float, float]:
    """Kullback-Leibler divergence of a density from the one before, sum of p log2(p / q), and Jensen-Shannon divergence
    of the two: 0 for equal ones, 1 where nothing overlaps."""
    from torch.nn.functional import softplus

    # With m the mean of p and q, log(p / m) = log 2 - log(1 + q / p), which is 0 to the last bit for p = q.
    ratio = before.log_density_hw - now.log_density_hw
    kl = -_sum(now.density_hw * ratio)
    shannon = _sum(now.density_hw * (math.log(2) - softplus(ratio)))
    shannon += _sum(before.density_hw * (math.log(2) - softplus(-ratio)))
    return max(0.0, float(kl)) / math.log(2), max(0.0, float(shannon)) / (2 * math.log(2))


def _sum(values_hw: Tensor) -> Tensor:
    """Rows in float32, then their sums in float64: good to 1e-6 for frames of any size."""
    return values_hw.sum(-1).double().sum()


def _change(now: Looked, before: Looked | None) -> dict[str, Any]:
    names = ("kl_from_previous_bits", "js_from_previous_bits")
    return dict(zip(names, change_bits(now, before), strict=True)) if before else {}


def _grid(maps: Maps, native: bool) -> tuple[int, int]:
    """Rows and columns that a frame is looked at on. Raises UsageError where there is no map to look at."""
    shape = maps.shape()
    if maps.first.readback is None or len(shape) != 2:
        raise UsageError(
            f"{maps.name}: {maps.first.name} of {maps.info['model']} is no map, and has no such statistics"
        )
    return (shape[0], shape[1]) if native else (maps.height, maps.width)


def _looked(maps: Maps, frame: int, grid: tuple[int, int]) -> Looked:
    """A frame's map on a grid; one that is no density stands for its share of its own sum."""
    import torch

    from .density import FLOOR_NATS, normalize

    found = torch.from_numpy(maps.full_size(frame, size=grid))
    if not maps.first.is_density:
        found = normalize(found.clamp(min=0).log().clamp(min=FLOOR_NATS))
    return Looked(log_density_hw=found, density_hw=found.exp())


@dataclass(slots=True, kw_only=True)
class _Covered:
    """Which cells the areas cover at a time; what does not move is computed once."""

    size: tuple[int, int]
    grid: tuple[int, int]
    static: dict[str, Coverage] = field(default_factory=dict)

    def by(self, aoi: Aoi, seconds: float) -> Coverage | None:
        if aoi.name in self.static:
            return self.static[aoi.name]
        outline = aoi.at(seconds, height=self.size[0], width=self.size[1])
        found = None if outline is None else cover(outline, self.size, self.grid)
        if aoi.static and found is not None:
            self.static[aoi.name] = found
        return found


@dataclass(slots=True, kw_only=True)
class _Sums:
    """What is kept of an area's masses, however many frames there are."""

    n: int = 0
    mass: float = 0.0
    area: float = 0.0
    noticed: AoiMass | None = None

    def add(self, line: AoiMass) -> None:
        if math.isnan(line.mass):
            return
        self.n, self.mass, self.area = self.n + 1, self.mass + line.mass, self.area + line.area_fraction
        if self.noticed is None and line.mass > NOTICED * line.area_fraction:
            self.noticed = line

    def facts(self) -> dict[str, Any]:
        if not self.n:
            return {"n_frames": 0}
        return {
            "n_frames": self.n,
            "mean_mass": self.mass / self.n,
            "mean_area_fraction": self.area / self.n,
            "mass_over_area": self.mass / self.area if self.area else math.nan,
            "noticed_frame": self.noticed.frame if self.noticed else None,
            "noticed_pts_seconds": self.noticed.pts_seconds if self.noticed else math.nan,
        }


def _write_maps(part: _Part, native: bool, write: dict[str, Callable[[Any], None]], progress: Progress) -> None:
    first = float(part.clock.pts_seconds[0]) if part.clock else 0.0
    sums = [_Sums() for _ in part.aois]
    lines = frame_stats(part.maps, part.frames, part.aois, first_seconds=first, native=native)
    for done, (line, masses) in enumerate(lines, 1):
        write["frames"](line)
        for kept, mass in zip(sums, masses, strict=True):
            write["aois"](mass)
            kept.add(mass)
        progress.update(done)
    for aoi, kept in zip(part.aois, sums, strict=True):
        seen = {} if part.gaze is None or part.clock is None else _visits(part, aoi, part.clock, part.gaze)
        write["aoi_summary"](AoiSummary(video=part.maps.name, aoi=aoi.name, **kept.facts(), **seen))


def _visits(part: _Part, aoi: Aoi, clock: Clock, gaze: Gaze) -> dict[str, Any]:
    """What is known of an area with gaze, in the time from the first frame that is looked at to the end of the last."""
    shown = clock.pts_seconds - clock.pts_seconds[0]
    ends = clock.end_seconds - clock.pts_seconds[0]
    first, last = (part.maps.pts_seconds[np.searchsorted(part.maps.frame, part.frames[i])] for i in (0, -1))
    looked = slice(*np.searchsorted(clock.pts_seconds, [first, last + 1e-9]).tolist())
    inside, dwell = visits(
        aoi,
        gaze.t_seconds,
        gaze.x_px,
        gaze.y_px,
        gaze.duration_s,
        pts_seconds=shown[looked],
        end_seconds=float(ends[looked][-1]),
        height=part.maps.height,
        width=part.maps.width,
    )
    return {
        "n_fixations": int(inside.sum()),
        "n_subjects": len(set(gaze.subject[inside].tolist())),
        "dwell_seconds": float(dwell.sum()) if gaze.duration_s.any() or not len(gaze) else math.nan,
        "first_fixation_seconds": float(gaze.t_seconds[inside].min()) if inside.any() else math.nan,
    }


def _write_cuts(run: Run, part: _Part, workers: int, write: Callable[[CutLine], None], progress: Progress) -> None:
    index, name = _checked_index(run, part.maps.name), part.maps.name
    start, stop = part.frames[0], part.frames[-1] + 1

    def on_frame(done: int) -> None:
        progress.update(min(done, stop - start))  # a few frames around them are looked at as well

    with progress.track(f"{name}: cuts", stop - start):
        found = find_cuts(index, start=start, stop=stop, workers=workers, on_frame=on_frame)
    for cut in found:
        write(CutLine(video=name, frame=cut.frame, pts_seconds=cut.pts_seconds, strength=cut.strength))


def _parts(
    run: Run,
    names: Sequence[str],
    start: Position,
    stop: Position | None,
    aois: Sequence[Aoi],
    gaze: Gaze | None,
) -> list[_Part]:
    """The videos that are asked for, each with its frames, areas and gaze; everything is checked before any work."""
    meant = [aoi.video and known_as(aoi.video, run.videos) for aoi in aois]
    for aoi, found in zip(aois, meant, strict=True):
        if aoi.video and not found:
            videos = ", ".join(run.videos)
            raise BadInput(f"the area {aoi.name} is of {aoi.video}, which is no video of this run: {videos}")
    parts = []
    for name in names:
        maps = run[name]
        _grid(maps, False)
        first = _position(run, name, start)
        frames = list(maps.frames(first, None if stop is None else _position(run, name, stop)))
        if not frames:
            raise UsageError(f"{name} has no stored frames from {start} to {stop or 'the end'}")
        here = [aoi for aoi, of in zip(aois, meant, strict=True) if not of or of == name]
        clock = Clock.of(run.folder, maps) if gaze is not None or not all(aoi.static for aoi in here) else None
        parts.append(
            _Part(maps=maps, frames=frames, aois=here, clock=clock, gaze=None if gaze is None else gaze.of(name))
        )
    return parts


def _gaze_on(
    run: Run,
    names: Sequence[str],
    gaze: Gaze | str | Path | Sequence[str | Path] | None,
    progress: Progress,
    reading: dict[str, Any],
) -> Gaze | None:
    """The gaze on these videos, under their names in the run."""
    if gaze is None or isinstance(gaze, Gaze):
        return gaze
    found = read_gaze(gaze, size_px={name: (run[name].width, run[name].height) for name in names}, **reading)
    for note in found.notes:
        progress.say(note)
    return found


def _position(run: Run, name: str, position: Position) -> int:
    if str(position).isdecimal():
        return int(position)
    return frame_at(VideoIndex.load(index_path(run.folder, name)), position, name)


def _checked_index(run: Run, name: str) -> VideoIndex:
    """The index of a video that is there and still the one that was planned."""
    if run.plan is not None:
        return checked_index(run.path, next(video for video in run.plan.videos if video.name == name))
    index = VideoIndex.load(index_path(run.folder, name))
    index.check_unchanged()
    return index


def _table(files: ExitStack, path: Path, line: type) -> Callable[[Any], None]:
    """Opens a csv file with the fields of a dataclass as its header; returns what writes one line of it."""
    part = files.enter_context(replacing(path))
    file = files.enter_context(part.open("w", newline=""))
    table = csv.writer(file, lineterminator="\n")
    table.writerow([field.name for field in fields(line)])

    def write(item: Any) -> None:
        table.writerow([_cell(value) for value in astuple(item)])

    return write


def _cell(value: Any) -> str:
    """Six decimals: microseconds, millionths of a pixel, a bit or the mass."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return f"{value:.6f}" if isinstance(value, float) else str(value)

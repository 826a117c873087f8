"""A run and recorded gaze in, scores out: how well the maps predict where people looked.

One pass over the stored maps, a few frames in memory at a time. Gaze comes to frames by presentation time (`gaze`),
scores are pure functions (`metrics`, `metrics_mit`); here it is decided which map is scored against what, and what is
averaged over what: fixations within a frame, frames within a video, then videos. Every output names its protocol.
"""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from . import __version__, metrics
from .density import full_size
from .devices import device_name, resolve_device
from .errors import BadInput, MissingInput, Stopped, UsageError
from .files import make_folder, replacing, write_bytes, writing
from .fit_density import Fit, Sample, fit_density, shrunk
from .gaze import TIME_SLACK_SECONDS, FrameFixations, Gaze, known_as, named, on_frames, read_gaze
from .gaze_tables import load_table
from .index import VideoIndex
from .layout import DONE
from .maps import Maps
from .merge import Run, open_run
from .models.spec import Readback
from .prepare import index_path
from .progress import Progress
from .scoring import PROTOCOLS, UNITS, Batch
from .signals import Stop

Protocol = Literal["exact", "mit"]
Shuffle = Literal["other-videos", "dataset", "same-video"]

PIXELS_AT_ONCE = 1 << 22  # of full-size maps: 16 MB in float32, whatever the video
FIXATIONS_ENOUGH = 100_000  # of other videos, for a center bias or as negatives: an AUC is then good to 0.001
UNIFORM_SHARE = 0.01  # of a center bias, so that no place is impossible
PICTURE_DEGREES = 40  # across the longer side, where nobody said how large the film was shown
RESAMPLES = 10_000
FIT_FRAMES = 200  # that a density is fitted to, together: 32 numbers are to be found
FOLDS = 10  # with more videos than this they are left out of the fit of a density in as many groups


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Film:
    """One video of the run, and what was looked at in its stored frames.

    `fixations.frame` counts rows of `maps.frame`. `scored`: rows that are asked for and have a picture. `outside`:
    fixations beside the picture. `sigma_px`: of the blur that makes maps of fixations.
    """

    name: str
    maps: Maps
    fixations: FrameFixations
    scored: np.ndarray
    outside: int
    sigma_px: float

    @property
    def places(self) -> np.ndarray:
        """(k, 2) x, y of all fixations in units of width and height."""
        xy = np.stack([self.fixations.x_px / self.maps.width, self.fixations.y_px / self.maps.height], axis=1)
        return xy.reshape(-1, 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What `evaluate` gives back and has written: `summary` as in summary.json, `videos` as in videos.csv."""

    folder: Path
    summary: dict[str, Any]
    videos: list[dict[str, Any]] = field(repr=False)


def evaluate(
    run: Run | str | Path,
    gaze: Gaze | str | Path | Sequence[str | Path],
    *,
    protocol: Protocol = "exact",
    baseline: str = "auto",
    shuffle: Shuffle = "other-videos",
    frames: str | Path | None = None,
    frames_rate_hz: float | None = None,
    fit: bool = False,
    fit_on: str | Path | None = None,
    blur_px: float | None = None,
    output: str | Path | None = None,
    device: str = "auto",
    progress: Progress | None = None,
    stop: Stop = lambda: "",
    **reading: Any,
) -> Scores:
    """Score a run's first output against gaze and write frames.csv, videos.csv and summary.json into RUN/evaluation.

    `baseline`: "center-bias" (of the other videos' fixations), "uniform", a .npy file (H, W) of a log density, or
    "auto": the first where several videos have gaze, else the second. `shuffle`: whose fixations are the negatives of
    the shuffled AUC. `frames`: csv of the frames to score, video and frame and perhaps a mask, counted at
    `frames_rate_hz` (None: the video's own frames). `fit`: turn saliency maps into densities, fitted to the other
    videos, or to `fit_on`: a gaze file, or the fit.json of an earlier evaluation. `blur_px`: sigma of fixation maps.
    `reading`: see `read_gaze`. Raises UsageError, BadInput, MissingInput, and what reading the run raises.
    """
    progress = progress or Progress(quiet=True)
    where = resolve_device(device)
    with nullcontext(run) if isinstance(run, Run) else open_run(run) as opened:
        folder = opened.path.parent if opened.path.is_file() else opened.path
        folder = make_folder(output or folder / "evaluation")
        maps = {name: opened[name] for name in opened.videos}
        sizes = {name: (each.width, each.height) for name, each in maps.items()}
        table = named(gaze, list(sizes)) if isinstance(gaze, Gaze) else read_gaze(gaze, size_px=sizes, **reading)
        for note in table.notes:
            progress.say(note)
        wanted = read_frames(Path(frames), list(maps), frames_rate_hz) if frames else None
        films = films_of(opened, table, wanted=wanted, blur_px=blur_px)
        is_density = _is_density(films[0].maps)
        if is_density and (fit or fit_on):
            raise UsageError("this run's maps are densities already: evaluate without --fit-density and --fit-on")
        setting = Setting(
            films=films,
            places=[_thinned(film.places, len(films)) for film in films],
            baseline=_baseline(baseline, films),
            shuffle=shuffle,
            protocol=protocol,
            device=where,
        )
        fits, fit_facts = {}, None
        if fit or fit_on:
            fits, fit_facts = _fits(opened, setting, fit_on, sizes, reading, progress)
        videos = _write_frames(folder / "frames.csv", setting, fits, progress, stop)
        write_table(folder / "videos.csv", videos)
        summary = {
            "format": "streamsal evaluation 1",
            "run": str(opened.path),
            **_facts(films[0].maps),
            "scored_as": "density" if is_density else "density fitted to the map" if fits else "saliency map",
            "protocol": protocol,
            "baseline": _baseline_facts(setting, baseline),
            "shuffle": {"negatives": shuffle, "fixations_at_most": FIXATIONS_ENOUGH},
            "blur_sigma_px": {film.name: round(film.sigma_px, 3) for film in films},
            "frames": {"file": str(frames), "rate_hz": frames_rate_hz} if frames else "all",
            "fit": fit_facts,
            "device": device_name(where),
            "versions": {"streamsal": __version__, "torch": torch.__version__, "numpy": np.__version__},
            **summarize(videos),
        }
        write_bytes(folder / "summary.json", _json(summary))
        if ALL in fits:
            write_bytes(folder / "fit.json", _json(fits[ALL].to_dict()))
        return Scores(folder=folder, summary=summary, videos=videos)


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, default=str) + "\n").encode()


def _is_density(maps: Maps) -> bool:
    first = maps.first
    if first.readback is None:
        raise UsageError(f"{first.name} of {maps.info['model']} is no map: there is nothing to compare gaze with")
    return first.is_density


def films_of(
    run: Run, gaze: Gaze, *, wanted: Mapping[str, np.ndarray] | None = None, blur_px: float | None = None
) -> list[Film]:
    """The videos of a run that have gaze. `wanted`: what `read_frames` gave. Raises BadInput where none has."""
    films = []
    for name in run.videos:
        each, mine = run[name], gaze.of(name)
        if not len(mine):
            continue
        numbers, pts, ends = timeline(run, each)
        on = on_frames(mine, pts, ends)
        row = np.searchsorted(each.frame, numbers[on.frame])
        stored = np.isin(numbers[on.frame], each.frame)
        found = FrameFixations(
            frame=row[stored].astype(np.int64), x_px=on.x_px[stored], y_px=on.y_px[stored], subject=on.subject[stored]
        )
        inside = found.within(each.height, each.width)
        scored = each.status == DONE
        if wanted is not None:
            scored = scored & np.isin(each.frame, _chosen(wanted.get(name), numbers, pts, ends))
        sigma = blur_px or _degree_px(run, each)
        films.append(
            Film(
                name=name,
                maps=each,
                fixations=inside,
                scored=scored,
                outside=len(found) - len(inside),
                sigma_px=sigma,
            )
        )
    if not any(len(film.fixations) for film in films):
        raise BadInput(
            f"no gaze falls into the frames of {run.path}: its videos are {', '.join(run.videos[:5])}; compare their "
            "names, and the times of the gaze, which count seconds from the first frame"
        )
    return films


def timeline(run: Run, maps: Maps) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(number, when it comes on screen, when it leaves it) of every frame of a video, as its index says.

    Where the run has lost its index, those of the stored frames, with the time that most of them are shown.
    """
    folder = run.path.parent if run.path.is_file() else run.path
    path = index_path(folder, maps.name)
    if path.exists():
        index = VideoIndex.load(path)
        return np.arange(index.n_frames), index.pts_seconds, index.end_seconds
    pts = np.asarray(maps.pts_seconds, np.float64)
    step = float(np.median(np.diff(pts))) if len(pts) > 1 else 0.04
    ends = np.append(pts[1:], pts[-1:] + step)
    every = int(maps.info.get("every", 1))
    return maps.frame, pts, ends if every == 1 else np.minimum(ends, pts + step / every)


def _degree_px(run: Run, maps: Maps) -> float:
    """Displayed pixels of one degree of visual angle: as planned, else as if the picture were 40 degrees wide."""
    said = run.plan.settings.px_per_degree if run.plan else None
    return said or max(maps.height, maps.width) / PICTURE_DEGREES


def read_frames(path: Path, videos: Sequence[str], rate_hz: float | None) -> dict[str, np.ndarray]:
    """{video: numbers or, with a rate, times in seconds (rate given: float64) of the frames that are to be scored}.

    Columns video, frame and, if there is one, mask: only rows where it is true. As in the masks of the DeepGaze MR
    meta-benchmark. Raises BadInput naming the line.
    """
    table = load_table(path)
    for name in ("video", "frame"):
        if table.column(name) is None:
            raise BadInput(f"{path} has no column {name}: it needs video and frame, and may have mask")
    says = table.texts("mask") if table.column("mask") is not None else ["true"] * len(table.rows)
    number = table.numbers("frame", range(len(table.rows)))
    found: dict[str, list[float]] = {}
    names = {text: known_as(text, videos) for text in dict.fromkeys(table.texts("video"))}
    for row, (video, mask) in enumerate(zip(table.texts("video"), says, strict=True)):
        if mask.lower() not in ("true", "false", "1", "0", "yes", "no", "1.0", "0.0"):
            raise BadInput(f"{table.where(row)}: mask is {mask!r}, neither true nor false: correct it")
        if not number[row] >= 0 or number[row] % 1:
            raise BadInput(f"{table.where(row)}: frame is no whole number from 0 up: correct it")
        name = names[video]
        if name is not None and mask.lower() in ("true", "1", "yes", "1.0"):
            found.setdefault(name, []).append(number[row])
    if not found:
        raise BadInput(f"{path} chooses no frame of this run: its videos are {', '.join(list(videos)[:5])}")
    if rate_hz is None:
        return {name: np.array(numbers, np.int64) for name, numbers in found.items()}
    return {name: np.array(numbers) / rate_hz for name, numbers in found.items()}


def _chosen(wanted: np.ndarray | None, numbers: np.ndarray, pts: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Numbers of the frames that are asked for, by number or by the time since the first frame at which they show."""
    if wanted is None:
        return np.zeros(0, np.int64)
    if wanted.dtype.kind == "i":
        return wanted
    seconds = wanted + pts[0] + TIME_SLACK_SECONDS
    at = np.searchsorted(pts, seconds, side="right") - 1
    return numbers[at[seconds < ends[at] + TIME_SLACK_SECONDS]]


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Setting:
    """What all frames of an evaluation have in common. `places`: of each film's fixations, thinned where there are
    very many. `baseline`: a log density of any size, or how one is made."""

    films: Sequence[Film]
    places: Sequence[np.ndarray]
    baseline: Literal["center-bias", "uniform"] | Tensor
    shuffle: Shuffle
    protocol: Protocol
    device: torch.device

    def others(self, film: Film) -> np.ndarray:
        """(k, 2) places of the fixations on all other videos."""
        found = [places for each, places in zip(self.films, self.places, strict=True) if each is not film]
        return np.concatenate([np.zeros((0, 2)), *found])


def _thinned(places: np.ndarray, n_films: int) -> np.ndarray:
    enough = max(200, FIXATIONS_ENOUGH // n_films)
    if len(places) <= enough:
        return places
    return places[np.random.default_rng(0).choice(len(places), enough, replace=False)]


def center_bias(places: np.ndarray, height: int, width: int) -> Tensor:
    """(H, W) float64 log density of these places, in units of width and height, under a Gaussian.

    Its bandwidth follows Scott's rule (1992, Multivariate Density Estimation) within 3 to 20 % of the frame; 1 % of it
    is uniform.
    """
    n = len(places)
    bandwidth = float(np.clip(places.std(0).mean() * n ** (-1 / 6), 0.03, 0.2))
    ratio = UNIFORM_SHARE * n / (1 - UNIFORM_SHARE)  # `metrics.center_bias` mixes eps with counts, not with shares
    return metrics.center_bias(places[:, 0], places[:, 1], height, width, bandwidth=bandwidth, eps=ratio / (1 + ratio))


def _baseline(name: str, films: Sequence[Film]) -> Literal["center-bias", "uniform"] | Tensor:
    several = sum(len(film.fixations) > 0 for film in films) > 1
    if name == "uniform" or (name == "auto" and not several):
        return "uniform"
    if name not in ("auto", "center-bias"):
        return read_log_density(Path(name))
    if not several:
        raise UsageError("a center bias is made of the gaze on other videos, and one has gaze: use --baseline uniform")
    return "center-bias"


def read_log_density(path: Path) -> Tensor:
    """(H, W) from a .npy file. Raises UsageError, MissingInput, BadInput where its exponentials do not sum to 1."""
    if path.suffix != ".npy":
        raise UsageError(f"--baseline {path} is none of center-bias, uniform or a .npy file of a log density")
    try:
        array = np.load(path)
    except FileNotFoundError:
        raise MissingInput(f"no baseline at {path}: name a .npy file that exists") from None
    except (OSError, ValueError):
        raise BadInput(f"{path} is no array of numpy: save a log density (H, W) with numpy.save") from None
    if array.ndim != 2 or array.dtype.kind != "f":
        raise BadInput(f"{path} is {array.dtype} of shape {array.shape} and has to be a log density (H, W)")
    found = torch.from_numpy(array.astype(np.float64))
    try:
        metrics.check_log_density(found[None])
    except ValueError:
        total = float(found.logsumexp((0, 1)))
        raise BadInput(f"{path} is no log density: its logsumexp is {total:.4g} nats, not 0: subtract that") from None
    return found


def _resized(log_density_hw: Tensor, height: int, width: int) -> Tensor:
    if log_density_hw.shape == (height, width):
        return log_density_hw
    return full_size(log_density_hw[None], height, width, Readback())[0].double()


def _write_frames(
    path: Path,
    setting: Setting,
    fits: Mapping[str, Fit],
    progress: Progress,
    stop: Stop,
) -> list[dict[str, Any]]:
    """Write a row per scored frame as it comes; returns a row per video."""
    videos, done = [], 0
    total = sum(len(_rows_with_fixations(film)) for film in setting.films)
    with writing(path), replacing(path) as part, open(part, "w", newline="") as file, progress.track("evaluate", total):
        lines = None
        for film in setting.films:
            means = Means()
            for batch in batches(setting, film, fits.get(film.name, fits.get(ALL))):
                if stop():
                    raise Stopped(f"stopped before {film.name} was evaluated: run the same command again")
                scores = PROTOCOLS[setting.protocol](batch)
                for row in _frame_rows(film, batch, scores):
                    if lines is None:
                        lines = csv.DictWriter(file, list(row))
                        lines.writeheader()
                    lines.writerow({name: _cell(value) for name, value in row.items()})
                    means.add(row)
                done += len(batch.number)
                progress.update(done)
            if film.scored.any():  # else no frame of it was asked for
                videos.append(_video_row(film, means))
    return videos


def _rows_with_fixations(film: Film) -> np.ndarray:
    """Rows of the film's maps that are scored: those without fixations say nothing."""
    rows = np.unique(film.fixations.frame)
    return rows[film.scored[rows]]


def batches(setting: Setting, film: Film, fit: Fit | None = None) -> Iterator[Batch]:
    """The film's frames with fixations, a few at a time, and all that they are scored with."""
    height, width, device = film.maps.height, film.maps.width, setting.device
    rows = _rows_with_fixations(film)
    at_once = max(1, PIXELS_AT_ONCE // (height * width))
    others = setting.others(film)
    others_hw = center_bias(others, height, width) if len(others) else None
    pool = torch.from_numpy(_pixels(others, height, width)).to(device)
    baseline_hw = None
    if isinstance(setting.baseline, Tensor):
        baseline_hw = _resized(setting.baseline, height, width)
    elif setting.baseline == "center-bias":
        baseline_hw = others_hw
    baseline_hw, others_hw = (each if each is None else each.to(device).float() for each in (baseline_hw, others_hw))
    row, col = np.floor(film.fixations.y_px).astype(np.int64), np.floor(film.fixations.x_px).astype(np.int64)
    for first in range(0, len(rows), at_once):
        chosen = rows[first : first + at_once]
        low, high = np.searchsorted(film.fixations.frame, [chosen[0], chosen[-1] + 1])
        mine = low + np.flatnonzero(film.scored[film.fixations.frame[low:high]])
        maps = read_maps(film.maps, film.maps.frame[chosen], device)
        is_density = film.maps.first.is_density
        yield Batch(
            maps_nhw=maps if fit is None else fit.log_density(maps),
            is_density=is_density or fit is not None,
            number=film.maps.frame[chosen],
            frame=torch.from_numpy(np.searchsorted(chosen, film.fixations.frame[mine])).to(device),
            row=torch.from_numpy(row[mine]).to(device),
            col=torch.from_numpy(col[mine]).to(device),
            baseline_hw=baseline_hw,
            others_hw=others_hw if setting.shuffle == "other-videos" else None,
            negatives=_negatives(setting, film, chosen, pool),
            sigma_px=film.sigma_px,
        )


def _pixels(places: np.ndarray, height: int, width: int) -> np.ndarray:
    """(k, 2) row and column of places in units of width and height."""
    col, row = (places * (width, height)).astype(np.int64).T
    return np.stack([row.clip(0, height - 1), col.clip(0, width - 1)], axis=1)


def _negatives(
    setting: Setting, film: Film, chosen: np.ndarray, pool: Tensor
) -> tuple[Tensor | None, Tensor, Tensor] | None:
    """Whose fixations a frame's own are told from: those on other videos, in this video's other frames, or both."""
    if setting.shuffle == "other-videos":
        return (None, pool[:, 0], pool[:, 1]) if len(pool) else None
    on = film.fixations
    own = np.arange(len(on))
    if len(own) > FIXATIONS_ENOUGH:
        own = np.sort(np.random.default_rng(0).choice(len(on), FIXATIONS_ENOUGH, replace=False))
    frames, rows, cols = [], [], []
    for i, number in enumerate(chosen):
        away = own[on.frame[own] != number]
        mine = torch.from_numpy(np.floor(np.stack([on.y_px[away], on.x_px[away]], axis=1)).astype(np.int64))
        found = torch.cat([mine.to(pool), pool]) if setting.shuffle == "dataset" else mine.to(pool)
        frames.append(torch.full((len(found),), i, device=pool.device))
        rows.append(found[:, 0])
        cols.append(found[:, 1])
    return torch.cat(frames), torch.cat(rows), torch.cat(cols)


def read_maps(maps: Maps, frames: np.ndarray, device: torch.device) -> Tensor:
    """(n, H, W) float32 of the first output at displayed size, enlarged on the device: a log density, or a map.

    Raises BadInput where what is stored as a log density is none.
    """
    output = maps.first
    native = torch.from_numpy(np.stack([maps.output(output.name, int(frame)) for frame in frames])).to(device)
    if output.kind == "log_density":
        _check_stored(native, maps, frames)
    if output.is_density:
        constants = {name: torch.from_numpy(array).to(device) for name, array in maps.constants.items()}
        return full_size(native, maps.height, maps.width, cast(Readback, output.readback), constants)
    return interpolate(native[:, None], (maps.height, maps.width), mode="bilinear", align_corners=False)[:, 0]


def _check_stored(native: Tensor, maps: Maps, frames: np.ndarray) -> None:
    totals = native.double().flatten(1).logsumexp(1)
    wrong = (totals.abs() > metrics.MASS_TOLERANCE_NATS).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise BadInput(
            f"frame {frames[i]} of {maps.name} is no log density: its logsumexp is {float(totals[i]):.4g} nats, not 0; "
            f"correct the output of {maps.info['model']}, or declare it as a saliency_map"
        )


class Means:
    """Running means of what has a value: constant memory, whatever the length of the video."""

    def __init__(self) -> None:
        self.sums: dict[str, float] = {}
        self.counts: dict[str, int] = {}
        self.frames = self.fixations = 0

    def add(self, row: Mapping[str, Any]) -> None:
        self.frames += 1
        self.fixations += row["fixations"]
        for name in row:
            if name in UNITS:
                value = row[name]
                self.sums[name] = self.sums.get(name, 0.0) + (0.0 if math.isnan(value) else value)
                self.counts[name] = self.counts.get(name, 0) + (not math.isnan(value))

    def values(self) -> dict[str, float]:
        return {name: self.sums[name] / n if n else math.nan for name, n in self.counts.items()}


def _frame_rows(film: Film, batch: Batch, scores: Mapping[str, Tensor]) -> Iterator[dict[str, Any]]:
    values = {name: each.tolist() for name, each in scores.items()}
    counts = torch.bincount(batch.frame, minlength=len(batch.number)).tolist()
    times = film.maps.pts_seconds[np.searchsorted(film.maps.frame, batch.number)]
    for i, number in enumerate(batch.number):
        yield {
            "video": film.name,
            "frame": int(number),
            "pts_seconds": float(times[i]),
            "fixations": counts[i],
            **{name: each[i] for name, each in values.items()},
        }


def _video_row(film: Film, means: Means) -> dict[str, Any]:
    asked = int(film.scored.sum())
    return {
        "video": film.name,
        "frames": means.frames,
        "frames_without_fixations": asked - means.frames,
        "holes": len(film.maps.holes),
        "fixations": means.fixations,
        "fixations_outside": film.outside,
        **means.values(),
    }


def _cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with writing(path), replacing(path) as part, open(part, "w", newline="") as file:
        lines = csv.DictWriter(file, names, restval="")
        lines.writeheader()
        lines.writerows({name: _cell(value) for name, value in row.items()} for row in rows)


def summarize(videos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Per metric its mean over videos (the headline), its mean over frames, and a 95 % interval over videos.

    Frames of a video are not independent, so the bootstrap draws videos; with one video there is no interval.
    """
    names = [name for name in UNITS if any(name in row for row in videos)]
    found = {}
    for name in names:
        rows = [row for row in videos if not math.isnan(row.get(name, math.nan))]
        if not rows:
            continue
        values, frames = (np.array([row[each] for row in rows], np.float64) for each in (name, "frames"))
        low, high = bootstrap(values)
        found[name] = {
            "mean_over_videos": float(values.mean()),
            "ci95_low": low,
            "ci95_high": high,
            "mean_over_frames": float((values * frames).sum() / frames.sum()),
            "videos": len(rows),
            "unit": UNITS[name],
        }
    counts = ("frames", "frames_without_fixations", "holes", "fixations", "fixations_outside")
    return {
        "videos": len(videos),
        **{name if name != "frames" else "frames_scored": sum(row[name] for row in videos) for name in counts},
        "metrics": found,
    }


def bootstrap(values: np.ndarray, *, resamples: int = RESAMPLES) -> tuple[float | None, float | None]:
    """The middle 95 % of the means of as many videos drawn with replacement; None for fewer than two."""
    n = len(values)
    if n < 2:
        return None, None
    random = np.random.default_rng(0)
    at_once = max(1, 1_000_000 // n)
    means = [
        values[random.integers(n, size=(min(at_once, resamples - first), n))].mean(1)
        for first in range(0, resamples, at_once)
    ]
    low, high = np.quantile(np.concatenate(means), [0.025, 0.975])
    return float(low), float(high)


def score_rows(summary: Mapping[str, Any]) -> tuple[list[list[str]], list[str]]:
    """(rows, head) of the table of scores that is printed."""
    rows = []
    for name, found in summary["metrics"].items():
        low, high = found["ci95_low"], found["ci95_high"]
        interval = "" if low is None else f"{low:.4g} ... {high:.4g}"
        rows.append([name, f"{found['mean_over_videos']:.4g}", interval, f"{found['mean_over_frames']:.4g}"])
    return rows, ["metric", "mean over videos", "95 % over videos", "mean over frames"]


def setting_rows(summary: Mapping[str, Any]) -> list[list[str]]:
    """What has to be said beside the scores."""
    facts = {
        "protocol": f"{summary['protocol']}, scored as a {summary['scored_as']}",
        "baseline": " ".join(str(summary["baseline"].get(name, "")) for name in ("name", "of", "file")).strip(),
        "negatives": summary["shuffle"]["negatives"],
        "videos": summary["videos"],
        "frames": f"{summary['frames_scored']} scored, {summary['frames_without_fixations']} without fixations",
        "fixations": f"{summary['fixations']} in these frames, {summary['fixations_outside']} beside the picture",
    }
    if summary["fit"]:
        facts["fit"] = f"{summary['fit']['parameters']} parameters, fitted on {summary['fit']['fitted_on']}"
    return [[name, str(value)] for name, value in facts.items()]


def _facts(maps: Maps) -> dict[str, Any]:
    return {
        "model": str(maps.info["model"]),
        "weights_sha256": str(maps.info["weights_sha256"]),
        "plan_id": str(maps.info["plan_id"]),
        "output": maps.first.name,
    }


def _baseline_facts(setting: Setting, name: str) -> dict[str, Any]:
    if setting.baseline == "uniform":
        return {"name": "uniform"}
    if setting.baseline == "center-bias":
        return {
            "name": "center bias",
            "of": "the fixations on all other videos (leave one video out)",
            "uniform_share": UNIFORM_SHARE,
            "fixations": {film.name: len(setting.others(film)) for film in setting.films},
        }
    return {"name": "file", "file": name}


ALL = ""  # the name of the fit that is not of the other videos, but of all


def _fits(
    run: Run,
    setting: Setting,
    fit_on: str | Path | None,
    sizes: Mapping[str, tuple[int, int]],
    reading: Mapping[str, Any],
    progress: Progress,
) -> tuple[dict[str, Fit], dict[str, Any]]:
    """{video: fit for it}, or one for all, and what the summary says of them."""
    if fit_on and Path(fit_on).suffix == ".json":
        try:
            fits = {ALL: Fit.from_dict(json.loads(Path(fit_on).read_text()))}
        except FileNotFoundError:
            raise MissingInput(f"no fit at {fit_on}: name a fit.json of an evaluation, or a gaze file") from None
        except (KeyError, TypeError, ValueError):
            raise BadInput(
                f"{fit_on} is no fit.json of an evaluation: evaluate with --fit-density to get one"
            ) from None
        return fits, _fit_facts(fits, f"an earlier evaluation: {fit_on}")
    if fit_on:
        table = read_gaze(fit_on, size_px=sizes, **reading)
        samples = [_sample(film, setting.device, len(setting.films)) for film in films_of(run, table)]
        fits = {ALL: fit_density(samples)}
        return fits, _fit_facts(fits, f"the gaze in {fit_on}, on videos of this run")
    found = {film.name: _sample(film, setting.device, len(setting.films)) for film in setting.films}
    names = [name for name, sample in found.items() if len(sample.frame)]
    if len(names) < 2:
        raise UsageError("a density is fitted to the gaze on other videos, and one video has gaze: give --fit-on FILE")
    fits: dict[str, Fit] = {}
    folds = min(FOLDS, len(names))
    for fold in range(folds):
        inside = names[fold::folds]
        progress.say(f"fitting a density without {', '.join(inside[:3])}{' ...' if len(inside) > 3 else ''}")
        fits |= dict.fromkeys(inside, fit_density([found[name] for name in names if name not in inside]))
    fits[ALL] = fit_density([found[name] for name in names])
    return fits, _fit_facts(fits, f"the other videos ({folds} groups, each left out of its own fit)")


def _sample(film: Film, device: torch.device, n_films: int) -> Sample:
    """Small copies of some frames of a film, evenly spread over those with fixations."""
    rows = np.unique(film.fixations.frame)
    rows = rows[film.maps.status[rows] == DONE]
    enough = max(FIT_FRAMES // n_films, 4)
    rows = rows[np.linspace(0, len(rows) - 1, enough).astype(int)] if len(rows) > enough else rows
    at_once = max(1, PIXELS_AT_ONCE // (film.maps.height * film.maps.width))
    maps = [
        shrunk(read_maps(film.maps, film.maps.frame[rows[first : first + at_once]], device))
        for first in range(0, len(rows), at_once)
    ]
    mine = np.isin(film.fixations.frame, rows)
    x, y = torch.from_numpy(film.places[mine]).to(device, torch.float32).T
    frame = torch.from_numpy(np.searchsorted(rows, film.fixations.frame[mine])).to(device)
    return Sample(maps_nhw=torch.cat(maps) if maps else torch.zeros(0, 1, 1, device=device), frame=frame, x=x, y=y)


def _fit_facts(fits: Mapping[str, Fit], fitted_on: str) -> dict[str, Any]:
    names = ("n_parameters", "n_frames", "n_fixations", "gain_bits", "sigma", "alpha")
    facts = {video or "all videos": {name: getattr(fit, name) for name in names} for video, fit in fits.items()}
    return {"fitted_on": fitted_on, "parameters": next(iter(fits.values())).n_parameters, "fits": facts}

"""A run and recorded gaze in, scores out: how well the maps predict where people looked.

One pass over the stored maps, a few frames in memory at a time. Gaze comes to frames in `looked_at`, what is scored
against what is up to `scoring`, what is averaged over what to `averages`; here they are brought together, and it is
decided what a model is compared with. Every output names its protocol.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .. import __version__
from ..density import enlarged
from ..devices import device_name, resolve_device
from ..errors import BadInput, MissingInput, Stopped, UsageError
from ..files import make_folder, replacing, write_bytes, writing
from ..gaze.read import read_gaze
from ..gaze.table import Gaze, named
from ..layout import DONE
from ..maps import Maps
from ..merge import Run, open_run
from ..progress import Progress
from ..signals import Stop
from . import metrics
from .averages import Means, cell, summarize, write_table
from .baselines import UNIFORM_SHARE, center_bias, read_log_density, resized
from .fit_density import Fit, Sample, fit_density, shrunk
from .looked_at import Film, films_of, read_frames
from .scoring import PROTOCOLS, Batch

Protocol = Literal["exact", "mit"]
Shuffle = Literal["other-videos", "dataset", "same-video"]

PIXELS_AT_ONCE = 1 << 22  # of full-size maps: 16 MB in float32, whatever the video
FIXATIONS_ENOUGH = 100_000  # of other videos, for a center bias or as negatives: an AUC is then good to 0.001
FIT_FRAMES = 200  # that a density is fitted to, together: 32 numbers are to be found
ALL = ""  # the name of the fit that is not of the other videos, but of all
FOLDS = 10  # with more videos than this they are left out of the fit of a density in as many groups


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
    if where.type == "mps":  # scores are float64, which Apple's GPUs lack
        where = torch.device("cpu")
    if frames_rate_hz and not frames:
        raise UsageError("--frames-rate says how the frames of --frames are counted: give both")
    with nullcontext(run) if isinstance(run, Run) else open_run(run) as opened:
        folder = make_folder(output or opened.folder / "evaluation")
        maps = {name: opened[name] for name in opened.videos}
        sizes = {name: (each.width, each.height) for name, each in maps.items()}
        table = named(gaze, list(sizes)) if isinstance(gaze, Gaze) else read_gaze(gaze, size_px=sizes, **reading)
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
        notes = [*table.notes, *_notes(setting)]
        for note in notes:
            progress.say(note)
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
            "notes": notes,
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


def _baseline(name: str, films: Sequence[Film]) -> Literal["center-bias", "uniform"] | Tensor:
    several = sum(len(film.fixations) > 0 for film in films) > 1
    if name == "uniform" or (name == "auto" and not several):
        return "uniform"
    if name not in ("auto", "center-bias"):
        return read_log_density(Path(name))
    if not several:
        raise UsageError("a center bias is made of the gaze on other videos, and one has gaze: use --baseline uniform")
    return "center-bias"


def _notes(setting: Setting) -> list[str]:
    """What the user may miss in the scores."""
    alone = sum(len(film.fixations) > 0 for film in setting.films) == 1
    if alone and setting.shuffle == "other-videos":
        return ["one video has gaze, so there is no shuffled AUC: --shuffle same-video takes its own other frames"]
    return []


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
                    lines.writerow({name: cell(value) for name, value in row.items()})
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
        baseline_hw = resized(setting.baseline, height, width)
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
    constants = {name: torch.from_numpy(array).to(device) for name, array in maps.constants.items()}
    return enlarged(native, maps.height, maps.width, output, constants)


def _check_stored(native: Tensor, maps: Maps, frames: np.ndarray) -> None:
    totals = native.double().flatten(1).logsumexp(1)
    wrong = (totals.abs() > metrics.MASS_TOLERANCE_NATS).nonzero()
    if len(wrong):
        i = int(wrong[0])
        raise BadInput(
            f"frame {frames[i]} of {maps.name} is no log density: its logsumexp is {float(totals[i]):.4g} nats, not 0; "
            f"correct the output of {maps.info['model']}, or declare it as a saliency_map"
        )


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

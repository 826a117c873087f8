"""Data sets of gaze as they are published: DHF1K's raw trails, folders of fixation pictures, pysaliency's HDF5 files.

In flows a path; out comes a `Gaze` in displayed pixels. Facts of each data set stand beside its reader.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput, UsageError
from .table import Asked, Gaze, joined, known_as

# DHF1K (Wang et al., 2018): films of 30 frames a second on a screen of 1440 x 900, letterboxed.
DHF1K_RATE_HZ = 30.0
DHF1K_SCREEN = (1440, 900)


def read_dhf1k(path: Path, asked: Asked) -> Gaze:
    """PXXX_TrailNNNN.txt of viewer XXX and film NNNN, or a folder of them.

    A line of titles, then time in microseconds, x and y on the screen, and F where the eye was fixating.
    """
    files = sorted(path.rglob("*_Trail*.txt")) if path.is_dir() else [path]
    found = []
    for file in files:
        name = re.fullmatch(r"(.+)_trail0*(\d+)\.txt", file.name, re.IGNORECASE)
        if name is None:
            raise BadInput(f"{file} is not named like P001_Trail0001.txt: its name says whose gaze on which film it is")
        if not asked.size_px or known_as(name[2], asked.size_px) is not None:
            found.append(_trail(file, name[1], name[2], asked))
    if not found:
        raise BadInput(f"{path} holds no trail of a film of this run: films are known by their number, as in 001.AVI")
    return joined(found)


def _trail(file: Path, subject: str, video: str, asked: Asked) -> Gaze:
    samples = []
    for number, line in enumerate(file.read_text(encoding="latin-1").splitlines()[1:], start=2):
        cells = line.split()
        if len(cells) >= 4 and cells[3].upper() == "F":
            try:
                samples.append([float(cell) for cell in cells[:3]])
            except ValueError:
                raise BadInput(f"line {number} of {file}: time, x and y are no numbers ({line.strip()!r})") from None
        elif cells and len(cells) < 4:
            raise BadInput(f"line {number} of {file} has {len(cells)} columns instead of time, x, y and event")
    t, x, y = np.array(samples).reshape(-1, 3).T
    width, height = asked.size_of(video, file)
    scale = width / DHF1K_SCREEN[0]
    return Gaze.rows(
        video=video,
        subject=subject,
        t_seconds=t * 1e-6,
        x_px=scale * x,
        y_px=scale * (y - (DHF1K_SCREEN[1] - height / scale) / 2),
    )


def read_fixation_maps(path: Path, asked: Asked) -> Gaze:
    """Folders of pictures, one per frame and not black where somebody looked: VIDEO/fixation/0001.png, or one folder.

    The number that a name ends with counts frames from 1. They tell no viewers apart. Their rate is that of DHF1K
    where folders have numbers for names, as there; else it has to be said.
    """
    folders = sorted(folder for folder in path.rglob("fixation") if next(folder.glob("*.png"), None))
    if not folders:
        folders = [path]
    found = []
    for folder in folders:
        video = folder.parent.name if folder.name == "fixation" else folder.name
        if asked.size_px and known_as(video, asked.size_px) is None:
            continue
        rate = asked.rate_hz or (DHF1K_RATE_HZ if video.isdecimal() else None)
        if rate is None:
            raise UsageError(f"{folder}: say how many of its pictures make a second with --gaze-rate HZ")
        found.append(_pictures(folder, video, rate, asked))
    if not found:
        raise BadInput(f"{path} holds no fixation pictures of a film of this run: folders are named as the films")
    return joined(found)


def _pictures(folder: Path, video: str, rate: float, asked: Asked) -> Gaze:
    t, x, y = [np.zeros(0)], [np.zeros(0)], [np.zeros(0)]
    for file in sorted(folder.glob("*.png")):
        number = re.search(r"(\d+)\.png$", file.name, re.IGNORECASE)
        if number is None:
            raise BadInput(f"{file}: its name does not end with the number of its frame, as in 0001.png")
        grey = _grey(file)
        width, height = asked.size_of(video, file) if asked.size_px else grey.shape[::-1]
        rows, columns = np.nonzero(grey)
        # The middle of the time that the picture stands for, so that no rounding of the clock moves it to a neighbor.
        t.append(np.full(len(rows), (int(number[1]) - 0.5) / rate))
        x.append((columns + 0.5) * width / grey.shape[1])
        y.append((rows + 0.5) * height / grey.shape[0])
    return Gaze.rows(
        video=video,
        t_seconds=np.concatenate(t),
        x_px=np.concatenate(x),
        y_px=np.concatenate(y),
        notes=(f"fixation pictures: {rate:g} make a second, and they tell no viewers apart",),
    )


def _grey(file: Path) -> np.ndarray:
    import av.error

    try:
        with av.open(str(file)) as container:
            picture: Any = next(container.decode(video=0))
            return picture.to_ndarray(format="gray")
    except (av.error.FFmpegError, StopIteration, IndexError):
        raise BadInput(f"{file} is no picture that can be read: extract it again") from None


def read_pysaliency(path: Path, asked: Asked) -> Gaze:
    """pysaliency's Fixations (1.0 to 1.2), FixationTrains and ScanpathFixations: stimulus n is the n-th video.

    Its videos are those of the run in order. Times are as they are there, in seconds by its convention.
    """
    from ..blockfile import open_h5

    try:
        with open_h5(path) as file:
            kind = _text(file.attrs.get("type", ""))
            if kind == "Fixations":
                arrays = _flat(file)
            elif kind == "FixationTrains":
                arrays = _trains(file, "train_xs", "train_ys", "train_ns")
            elif kind == "ScanpathFixations":
                arrays = _trains(file["scanpaths"], "xs", "ys", "n")
            else:
                raise BadInput(f"{path} holds {kind or 'no type'} instead of fixations: name pysaliency's fixations")
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise BadInput(f"{path} is no HDF5 file of pysaliency's fixations ({error}): write it again") from None
    names = list(asked.size_px)
    numbers = arrays.pop("n").astype(int)
    if names and len(numbers) and numbers.max() >= len(names):
        raise BadInput(f"{path} has fixations on stimulus {numbers.max()}, and there are {len(names)} videos")
    video = [names[n] if names else str(n) for n in numbers]
    return Gaze.rows(video=video, subject=[_text(who) for who in arrays.pop("subject")], **arrays)


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _flat(file: Any) -> dict[str, Any]:
    """One row per fixation."""
    k = len(file["x"])
    return {
        "n": file["n"][...],
        "subject": _first((file, "subject"), (file, "subjects"), default=np.full(k, "", object)),
        "t_seconds": file["t"][...],
        "x_px": file["x"][...],
        "y_px": file["y"][...],
        "duration_s": _first((file, "duration"), default=np.zeros(k)),
    }


def _trains(group: Any, xs: str, ys: str, n: str) -> dict[str, Any]:
    """One row per scanpath, filled up with NaN to the longest."""
    x, y = group[xs][...], group[ys][...]
    path, fixation = (group.get(name, {}) for name in ("scanpath_attributes", "fixation_attributes"))
    fixation = fixation or group.get("scanpath_fixation_attributes", {})
    there = ~np.isnan(x)
    row = np.nonzero(there)[0]
    return {
        "n": group[n][...][row],
        "subject": _first((group, "train_subjects"), (path, "subject"), default=np.full(len(x), "", object))[row],
        "t_seconds": _first((group, "train_ts"), (fixation, "ts"))[there],
        "x_px": x[there],
        "y_px": y[there],
        "duration_s": _first((fixation, "durations"), (fixation, "duration"), default=np.zeros(x.shape))[there],
    }


def _first(*places: tuple[Any, str], default: np.ndarray | None = None) -> np.ndarray:
    """The first of these arrays that there is: versions of the format name them differently."""
    for group, name in places:
        if name in group:
            return np.asarray(group[name][...])
    if default is None:
        raise ValueError(f"it has no {places[0][1]}")
    return default

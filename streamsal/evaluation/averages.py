"""Scores of frames in, averages over frames and videos out, and the tables and summary that say them.

A frame without a value never counts. The headline is the mean over videos; its interval is a bootstrap that draws
videos. Pure functions but for the writing of a table.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..files import replacing, writing
from .scoring import UNITS

RESAMPLES = 10_000


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


def cell(value: Any) -> Any:
    if isinstance(value, float):
        return "" if math.isnan(value) else f"{value:.9g}"
    return value


def write_table(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    names = list(dict.fromkeys(name for row in rows for name in row))
    with writing(path), replacing(path) as part, open(part, "w", newline="") as file:
        lines = csv.DictWriter(file, names, restval="")
        lines.writeheader()
        lines.writerows({name: cell(value) for name, value in row.items()} for row in rows)


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
        "baseline": ", ".join(
            str(summary["baseline"][name]) for name in ("name", "of", "file") if name in summary["baseline"]
        ),
        "negatives": summary["shuffle"]["negatives"],
        "videos": summary["videos"],
        "frames": f"{summary['frames_scored']} scored, {summary['frames_without_fixations']} without fixations",
        "fixations": f"{summary['fixations']} in these frames, {summary['fixations_outside']} beside the picture",
    }
    if summary["fit"]:
        facts["fit"] = f"{summary['fit']['parameters']} parameters, fitted on {summary['fit']['fitted_on']}"
    return [[name, str(value)] for name, value in facts.items()]

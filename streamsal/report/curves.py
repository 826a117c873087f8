"""One number per frame, with its unit and how it was measured: out of tables that other commands wrote, or of the maps.

In flow a run's maps and its csv files; out come curves of a few thousand points for a page. A table counts only where
it holds exactly the frames that the run holds and is not older than its maps. Knows no HTML.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..cores import usable_cores
from ..maps import Maps
from .methods import ordinal

POINTS = 4000  # of a curve on a page: two for each pixel of the widest screen
BLOCK = 64  # frames that a thread measures one after another


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Curve:
    """`value` (n,) float64 at the frames `frame` (n,) int64, NaN where it is not known.

    `quantity` and `unit` name it in a table; curves of one quantity share a panel. `about`: how it was measured, a
    sentence. `series` tells the curves of one run apart where a quantity has several: an area of interest.
    """

    quantity: str
    unit: str
    about: str
    frame: np.ndarray = field(repr=False)
    value: np.ndarray = field(repr=False)
    series: str = ""
    drawn: bool = True

    @property
    def known(self) -> np.ndarray:
        """Values of the frames that have one."""
        return self.value[np.isfinite(self.value)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What a column of a table is called on a page. `scale` makes the unit of the stored number."""

    name: str
    quantity: str
    unit: str
    about: str
    scale: float = 1.0
    drawn: bool = True


STATS = (
    Column(
        name="entropy_bits",
        quantity="Entropy",
        unit="bits",
        about="Shannon entropy of the density over the displayed pixels; the lower, the more focused",
    ),
    Column(
        name="js_from_previous_bits",
        quantity="Change",
        unit="bits",
        about="Jensen-Shannon divergence of the density from that of the stored frame before, 0 to 1",
    ),
)
AOIS = (
    Column(
        name="mass", quantity="Mass in areas", unit="%", about="probability inside each area of interest", scale=100
    ),
)
_GAIN = ("Information gain", "bits/fixation")
_SCORES = {  # column of evaluation/frames.csv > quantity, unit; {baseline} is put in
    "information_gain_bits": (*_GAIN, "over {baseline}"),
    "information_gain_of_the_unfitted_map_bits": (*_GAIN, "over {baseline}, of the map as it is, not fitted to gaze"),
    "mit_information_gain": ("MIT's information gain", "no unit", "over {baseline}; both maps stretched to 0 ... 1"),
    "nss_sd": ("NSS", "SD", "normalized scanpath saliency"),
    "mit_nss_sd": ("NSS", "SD", "normalized scanpath saliency"),
    "log_likelihood_over_uniform_bits": ("Log-likelihood", "bits/fixation", "over uniform"),
    "auc": ("AUC", "0 to 1", "0.5 by chance"),
    "shuffled_auc": ("Shuffled AUC", "0 to 1", "0.5 by chance; negatives: {negatives}"),
    "cc": ("CC", "-1 to 1", "correlation with the map of fixations"),
    "sim": ("SIM", "0 to 1", "overlap with the map of fixations"),
    "kl_divergence_nats": ("KL divergence", "nats", "from the map of fixations; lower is better"),
    "mit_auc_judd": ("AUC-Judd", "0 to 1", "more than 0.5 by chance, the more the fewer fixations"),
    "mit_auc_borji": ("AUC-Borji", "0 to 1", "0.5 by chance"),
    "mit_auc_shuffled": ("Shuffled AUC", "0 to 1", "0.5 by chance; negatives: {negatives}"),
    "mit_cc": ("CC", "-1 to 1", "correlation with the map of fixations"),
    "mit_sim": ("SIM", "0 to 1", "overlap with the map of fixations"),
    "mit_kl_divergence_nats": ("KL divergence", "nats", "from the map of fixations; lower is better"),
}


def score_columns(summary: Mapping[str, Any]) -> list[Column]:
    """The columns of evaluation/frames.csv, whose protocol, baseline and negatives are in summary.json."""
    baseline = summary["baseline"]
    said = {"baseline": baseline["name"], "negatives": str(summary["shuffle"]["negatives"]).replace("-", " ")}
    if "of" in baseline:
        said["baseline"] += f" of {baseline['of']}"
    protocol = f"protocol {summary['protocol']}; frames with fixations"
    return [
        Column(
            name=name,
            quantity=quantity,
            unit=unit,
            about=f"{about.format(**said)}; {protocol}",
            drawn=quantity in ("Information gain", "NSS"),
        )
        for name, (quantity, unit, about) in _SCORES.items()
    ]


def thinned(frame: np.ndarray, value: np.ndarray, points: int = POINTS) -> tuple[np.ndarray, np.ndarray]:
    """At most `points` of a curve: the lowest and the highest of each of equal stretches; gaps of a whole stretch stay.

    A curve that is short enough comes back as it is.
    """
    if len(frame) <= points:
        return frame, value
    chosen: list[int] = []
    for stretch in np.array_split(np.arange(len(frame)), points // 2):
        known = stretch[np.isfinite(value[stretch])]
        if len(known):
            chosen += sorted({int(known[np.argmin(value[known])]), int(known[np.argmax(value[known])])})
        else:
            chosen.append(int(stretch[0]))
    return frame[chosen], value[chosen]


def map_curves(
    maps: Maps, *, points: int = POINTS, on_frame: Callable[[int, int], None] = lambda done, total: None
) -> list[Curve]:
    """Entropy and change from the stored maps: of every frame, or entropy alone of `points` evenly spread ones.

    On the stored grid, the probability of a cell being spread evenly over its pixels, so that runs with other grids
    compare. `on_frame(done, total)` is told how far it is; it may raise.
    """
    from ..stats import frame_stats

    rows = np.arange(0, len(maps), -(-len(maps) // points))
    every = len(rows) == len(maps)
    found: dict[str, np.ndarray] = {
        name: np.full(len(rows), np.nan) for name in ("entropy_bits", "js_from_previous_bits")
    }

    def block(chosen: np.ndarray) -> None:
        led = np.r_[chosen[0] - 1, chosen] if every and chosen[0] > 0 else chosen  # change needs the one before
        lines = frame_stats(maps, maps.frame[rows[led]].tolist(), native=True)
        for k, (line, _) in zip(led, lines, strict=True):
            if k >= chosen[0]:
                for name, values in found.items():
                    values[k] = getattr(line, name)

    blocks = np.array_split(np.arange(len(rows)), max(1, len(rows) // BLOCK))
    with ThreadPoolExecutor(usable_cores()) as pool:
        done = 0
        for chosen, _ in zip(blocks, pool.map(block, blocks), strict=True):
            done += len(chosen)
            on_frame(done, len(rows))
    seen = "" if every else f", every {ordinal(int(rows[1]))} of the stored frames"
    if not maps.first.is_density:
        seen += "; of the map divided by its sum"
    kinds = (STATS[0], STATS[1]) if every else (STATS[0],)
    return [
        Curve(
            quantity=kind.quantity,
            unit=kind.unit,
            about=f"{kind.about}; on the stored grid{seen}",
            frame=maps.frame[rows],
            value=found[kind.name],
        )
        for kind in kinds
        if np.isfinite(found[kind.name]).any()
    ]


def table(path: Path, maps: Maps, *, newer_than: float = 0.0, whole: bool = True) -> dict[str, dict[str, np.ndarray]]:
    """The numbers of one video in a csv of frames, {series: {column: (n,)}}; {} where the file is not of these maps.

    `series` is the column `aoi` where there is one, else "". Columns have a value for each frame of the maps, NaN where
    the table has none; a table with frames that the maps do not hold, or (`whole`) without some that they do, is not
    theirs, nor is one that was last changed before the time `newer_than`.
    """
    try:
        if path.stat().st_mtime < newer_than:
            return {}
        with path.open(newline="") as file:
            lines = [line for line in csv.DictReader(file) if line.get("video") == maps.name]
    except (OSError, UnicodeDecodeError, csv.Error):
        return {}
    of_series: dict[str, list[dict[str, str]]] = {}
    for line in lines:
        of_series.setdefault(line.get("aoi", ""), []).append(line)
    found = {}
    for series, rows in of_series.items():
        frames = np.array([_number(row.get("frame")) for row in rows])
        at = np.searchsorted(maps.frame, frames)
        same = at < len(maps)
        same[same] = maps.frame[at[same]] == frames[same]
        if not same.all() or (whole and len(np.unique(at)) < len(maps)):
            return {}
        found[series] = {name: np.full(len(maps), np.nan) for name in rows[0] if name is not None}
        for name, values in found[series].items():
            values[at] = [_number(row[name]) for row in rows]
        found[series]["frame"] = maps.frame
    return found


def _number(text: str | None) -> float:
    try:
        return float(text or "nan")
    except ValueError:
        return math.nan


def table_curves(columns: Iterable[Column], found: dict[str, dict[str, np.ndarray]]) -> Iterator[Curve]:
    """A curve for each of `columns` that a table has, and each of its series."""
    for column in columns:
        for series, values in found.items():
            if column.name in values and np.isfinite(values[column.name]).any():
                yield Curve(
                    quantity=column.quantity,
                    unit=column.unit,
                    about=column.about,
                    frame=values["frame"].astype(np.int64),
                    value=values[column.name] * column.scale,
                    series=series,
                    drawn=column.drawn,
                )

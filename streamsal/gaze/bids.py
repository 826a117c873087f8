"""Eye tracking in a BIDS data set as gaze: samples without titles, and JSON beside them that says what they are.

In flow *_physio.tsv.gz files; out comes a `Gaze` on the clock of each film, as events.tsv names it.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import BadInput
from .table import Asked, Gaze, joined
from .tables import LOST, SECONDS, fixations_of_samples, in_pixels, load_table


def read_bids(path: Path, asked: Asked) -> Gaze:
    """Eye-tracking recordings of a BIDS data set: *_physio.tsv(.gz) with their JSON, fixations from *_physioevents.

    A film is what an events.tsv beside them names as stim_file; its onset there is the film's beginning. Without one
    the recording is one film, from its first sample on.
    """
    files = sorted(path.rglob("*_physio.tsv*")) if path.is_dir() else [path]
    found = [_recording(file, asked) for file in files if not path.is_dir() or "x_coordinate" in _columns(file)]
    if not found:
        raise BadInput(f"{path} holds no eye tracking: no *_physio.tsv.gz whose JSON names the column x_coordinate")
    return joined(found)


def _sidecar(file: Path) -> dict[str, Any]:
    path = file.with_name(file.name.removesuffix(".gz").removesuffix(".tsv") + ".json")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"{file} has no {path.name} beside it, which says what its columns mean: put it there") from None
    except ValueError:
        raise BadInput(f"{path} is no JSON: repair it") from None


def _columns(file: Path) -> list[str]:
    return list(_sidecar(file).get("Columns", []))


def _unit(sidecar: dict[str, Any], column: str, default: str) -> str:
    said = sidecar.get(column, {})
    text = str(said.get("Units", "") if isinstance(said, dict) else "").lower()
    return {"sec": "s", "second": "s", "seconds": "s", "msec": "ms", "milliseconds": "ms"}.get(text, text) or default


def _recording(file: Path, asked: Asked) -> Gaze:
    sidecar = _sidecar(file)
    columns = [str(name) for name in sidecar.get("Columns", [])]
    if missing := [name for name in ("x_coordinate", "y_coordinate") if name not in columns]:
        raise BadInput(f"{file} is no eye tracking: its JSON names no column {missing[0]}")
    table = load_table(file, columns)
    rows = range(len(table.rows))
    unit = _unit(sidecar, "timestamp", "s")
    place = _unit(sidecar, "x_coordinate", "pixel")
    if unit not in SECONDS or not place.startswith(("pixel", "px", "normalized", "a.u")):
        raise BadInput(f"{file}: its JSON gives time in {unit} and places in {place}; give s, ms or us, and pixel")
    if not rows:
        raise BadInput(f"{file} holds no sample")
    if "timestamp" in columns:
        clock = table.numbers("timestamp", rows) * SECONDS[unit]
    else:
        clock = np.arange(len(rows)) / float(sidecar.get("SamplingFrequency", math.nan))
    x, y = table.numbers("x_coordinate", rows), table.numbers("y_coordinate", rows)
    sound = ~np.isnan(x + y + clock)
    seconds = clock - clock[0] + float(sidecar.get("StartTime") or 0)
    found = re.match(r"sub-([^_]+)", file.name)
    samples = Gaze.rows(
        subject=found[1] if found else "",
        t_seconds=seconds[sound],
        x_px=x[sound],
        y_px=y[sound],
        notes=() if sound.all() else (f"{file.name}: {int((~sound).sum())} samples without a place left out",),
    )
    samples = _tracker_fixations(file, samples, unit, float(seconds[0] - clock[0]))
    gaze = _of_films(file, samples, asked)
    return gaze if place.startswith(("pixel", "px")) else in_pixels(gaze, asked, file)


def _tracker_fixations(file: Path, samples: Gaze, unit: str, shift: float) -> Gaze:
    """What the tracker itself called fixations, each at the mean of its samples; all samples where it named none."""
    events = next(file.parent.glob(re.sub(r"_physio\.tsv(\.gz)?$", "_physioevents.tsv*", file.name)), None)
    if events is None:
        return samples
    sidecar = _sidecar(events)
    table = load_table(events, [str(name) for name in sidecar.get("Columns", ["onset", "duration", "trial_type"])])
    rows = [row for row, kind in enumerate(table.texts("trial_type")) if kind.lower() == "fixation"]
    if not rows:
        return samples
    begins = table.numbers("onset", rows) * SECONDS[_unit(sidecar, "onset", unit)] + shift
    ends = begins + table.numbers("duration", rows) * SECONDS[_unit(sidecar, "duration", unit)]
    number = np.searchsorted(begins, samples.t_seconds + 1e-9, side="right") - 1
    inside = (number >= 0) & (samples.t_seconds <= ends[number] + 1e-9)
    return fixations_of_samples(samples.where(inside), [str(n) for n in number[inside]])


def _of_films(file: Path, gaze: Gaze, asked: Asked) -> Gaze:
    """The rows during films, on each film's own clock."""
    name = re.sub(r"(_recording-[^_]+)?_physio\.tsv(\.gz)?$", "_events.tsv", file.name)
    events = file.with_name(name)
    films = load_table(events) if events.exists() else None
    if films is None or films.column("stim_file") is None:
        note = f"{file.name}: no events.tsv names films, so its first sample was taken for the film's beginning"
        begin, notes = float(gaze.t_seconds[:1].sum()), (*gaze.notes, note)
        if asked.start_seconds is not None:
            begin, notes = asked.start_seconds, gaze.notes
        return replace(gaze, t_seconds=gaze.t_seconds - begin, notes=notes)
    stimuli = films.texts("stim_file")
    rows = [row for row, stimulus in enumerate(stimuli) if stimulus.lower() not in LOST]
    onset, length = films.numbers("onset", rows), films.numbers("duration", rows)
    ends = np.where(np.isnan(length), np.append(onset[1:], np.inf), onset + length)
    parts = []
    for row, begin, end in zip(rows, onset, ends, strict=True):
        part = gaze.where((gaze.t_seconds + gaze.duration_s >= begin) & (gaze.t_seconds < end))
        video = np.full(len(part), stimuli[row], object)
        parts.append(replace(part, t_seconds=part.t_seconds - begin, video=video))
    if not parts:
        raise BadInput(f"{events} names no film in its column stim_file: name each, or remove the column")
    return joined(parts)

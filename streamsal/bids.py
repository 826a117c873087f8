"""A run as a derivative dataset in the manner of BIDS: per video one tidy table of its frames with a JSON beside it.

Of the standard are dataset_description.json, README, .bidsignore, and the form of tables and their sidecars. It has no
file for what a model says of a stimulus, so names of the tables are ours, and the validator is told to ignore them.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from . import __version__
from .errors import UsageError
from .exported import exported, summary, why_not
from .files import make_folder, replacing, write_bytes, writing
from .maps import Maps

BIDS_VERSION = "1.9.0"
COLUMNS = {  # as `exported.summary` gives them, the time first
    "onset": {
        "Description": "When the frame comes on screen, by the clock of the video file",
        "Units": "s",
    },
    "frame": {"Description": "Number of the frame in display order, the first one being 0"},
    "status": {
        "Description": "Whether the video has a picture for the frame",
        "Levels": {"done": "it has, and the model has seen it", "hole": "it has none, and no values are given"},
    },
    "peak_x": {"Description": "Middle of the most likely pixel, from the left", "Units": "pixel"},
    "peak_y": {"Description": "Middle of the most likely pixel, from the top", "Units": "pixel"},
    "peak_log_density": {"Description": "Natural logarithm of its probability", "Units": "nat"},
    "centroid_x": {"Description": "Mean of the density, from the left", "Units": "pixel"},
    "centroid_y": {"Description": "Mean of the density, from the top", "Units": "pixel"},
    "entropy": {"Description": "Entropy of the pixel that is looked at", "Units": "bit"},
    "mass_central_third": {"Description": "Probability in the middle third of both height and width"},
}

_README = """\
What a saliency model says of videos, frame by frame. Written by streamsal {version}.

Of BIDS {bids} are dataset_description.json, this README, .bidsignore and the form of the tables: tab-separated, a
header, n/a for what is missing, columns described in the JSON file of the same name. Not of BIDS are the entity stim,
which names a video, and the suffix saliency: the standard has no file for a model's predictions of a stimulus, and
.bidsignore says so to the validator. `onset` is a column of BIDS events; here a row is a frame.

Onsets are times of the video file. To place a row in a recording, take off the onset of frame 0 and add that of the
video in its events file.
"""


def write_derivative(folder: Path, frames_of: Mapping[str, tuple[Maps, list[int]]], *, native: bool) -> list[Path]:
    """Write the dataset into `folder` and return the paths of its tables. Raises UsageError for what is no density."""
    for maps, _ in frames_of.values():
        if exported(maps, native).kind != "log_density":
            raise UsageError(why_not(maps))
    tables = make_folder(folder / "stimuli")
    models = sorted({str(maps.info["model"]) for maps, _ in frames_of.values()})
    description = {
        "Name": f"Predictions of {', '.join(models)}",
        "BIDSVersion": BIDS_VERSION,
        "DatasetType": "derivative",
        "GeneratedBy": [{"Name": "streamsal", "Version": __version__}],
    }
    _write_json(folder / "dataset_description.json", description)
    write_bytes(folder / "README", _README.format(version=__version__, bids=BIDS_VERSION).encode())
    write_bytes(folder / ".bidsignore", b"stimuli/*_saliency.*\n")
    written = []
    for label, (maps, frames) in zip(labels(list(frames_of)), frames_of.values(), strict=True):
        path = tables / f"stim-{label}_desc-{_alphanumeric(Path(str(maps.info['model'])).stem)}_saliency.tsv"
        _write_json(path.with_suffix(".json"), _sidecar(maps))
        _write_table(path, maps, frames, native)
        written.append(path)
    return written


def labels(names: Sequence[str]) -> list[str]:
    """A label, letters and digits only, for every video: its name without the ending, numbered where it is taken."""
    found: list[str] = []
    for name in names:
        label = _alphanumeric(Path(name).stem) or "video"
        numbered = (f"{label}n{number}" for number in range(2, len(names) + 2))
        found.append(label if label not in found else next(each for each in numbered if each not in found))
    return found


def _alphanumeric(name: str) -> str:
    return re.sub("[^A-Za-z0-9]", "", name)


def _sidecar(maps: Maps) -> dict[str, Any]:
    scalars = {
        name: {"Description": f"{name} of the model", "Units": maps.outputs[name].units} for name in maps.scalars
    }
    return {
        "StimulusFile": maps.name,
        "StimulusSize": {"Width": maps.width, "Height": maps.height, "Units": "pixel"},
        "Model": str(maps.info["model"]),
        "WeightsSha256": str(maps.info["weights_sha256"]),
        **COLUMNS,
        **scalars,
    }


def _write_table(path: Path, maps: Maps, frames: Sequence[int], native: bool) -> None:
    with writing(path), replacing(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, delimiter="\t", lineterminator="\n")
        table.writerow([*COLUMNS, *maps.scalars])
        for frame in frames:
            number, seconds, *rest = summary(maps, frame, native)
            scalars = [f"{maps.output(name, frame):g}" for name in maps.scalars]
            row = [seconds, number, *rest, *scalars]
            table.writerow(["n/a" if cell in ("", "nan") else cell for cell in row])


def _write_json(path: Path, facts: Mapping[str, Any]) -> None:
    write_bytes(path, (json.dumps(facts, indent=2) + "\n").encode())

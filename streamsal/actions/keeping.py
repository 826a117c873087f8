"""last.pt: all that a training needs to go on as if nothing had been between.

In flow the training's place, weights and optimizer; the file appears whole or not at all. Random numbers and learning
rates are no part of it: both are functions of the step.
"""

from __future__ import annotations

import contextlib
import json
import pickle
import zlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from .. import __version__
from ..errors import BadInput, MissingInput, PlanMismatch
from ..weights import checkpoints, formats
from .config import Config
from .split import ClipSets

FORMAT = "streamsal training 1"
# What may differ from one start to the next. Paths are told by the clips that lie there: a cluster copies them about.
MAY_CHANGE = {
    *("data.workers", "data.root", "data.train", "data.validation", "data.classes", "data.test"),
    *("train.every", "train.keep_minutes", "test.at_end"),
}
CHECKSUM = "the checksum of clips and labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """How far a training is.

    epoch      how many epochs are done, validation included
    step       steps of the next one
    best       validation score of best.pt, None before the first; `best_epoch` is its epoch, counted from 1
    log_bytes  length of log.jsonl: lines behind it will be written again
    """

    epoch: int = 0
    step: int = 0
    best: float | None = None
    best_epoch: int = 0
    log_bytes: int = 0


class Stateful(Protocol):
    """A network, an optimizer, or a scaler of gradients."""

    def state_dict(self) -> Any: ...

    def load_state_dict(self, state_dict: Any, /) -> Any: ...


def identity_of(config: Config, clips: ClipSets, world: int) -> dict[str, Any]:
    """What has to be the same when a training goes on, by the name a person would look for."""
    named = {f"{table}.{key}": value for table, keys in config.to_dict().items() for key, value in keys.items()}
    kept = {name: value for name, value in named.items() if name not in MAY_CHANGE}
    if not isinstance(config.data.validation, str):
        kept["data.validation"] = config.data.validation
    kept["model.weights"] = Path(config.model.weights).name
    return {**kept, "the number of processes": world, CHECKSUM: _checksum(clips)}


def keep(path: Path, place: Place, identity: Mapping[str, Any], parts: Mapping[str, Stateful]) -> None:
    """Raises WriteError."""
    states = {name: part.state_dict() for name, part in parts.items()}
    found = {"format": FORMAT, "version": __version__, "identity": dict(identity), "place": asdict(place), **states}
    checkpoints.write(path, found)


def restore(path: Path, identity: Mapping[str, Any], parts: Mapping[str, Stateful]) -> Place:
    """Fills the parts as they were kept.

    Raises MissingInput, BadInput for another file, PlanMismatch where the training it is of was another one.
    """
    found = _read(path)
    for name, now in identity.items():
        if (then := found["identity"].get(name)) != now:
            changed = f"{name} = {json.dumps(then)}, and now it is {json.dumps(now)}: set it back"
            if name == CHECKSUM:
                changed = "other clips or labels, or divided in another way: put manifests and split.json back"
            raise PlanMismatch(
                f"{path} was made with {changed}, train into another folder (-o), or begin anew (--resume no)"
            )
    for name, part in parts.items():
        part.load_state_dict(found[name])
    return Place(**found["place"])


def _read(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise MissingInput(f"{path} is not there: name a last.pt that is, or begin anew (--resume no)")
    found = None
    with contextlib.suppress(pickle.UnpicklingError, RuntimeError, BadInput):
        formats.require(path, "torch")
        formats.check_intact(path)
        found = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise BadInput(f"{path} is no last.pt of a training, or damaged: name another, or begin anew (--resume no)")
    return found


def _checksum(clips: ClipSets) -> int:
    """CRC-32 of the names of classes, and of every clip's id and labels, in order."""
    shown: list[object] = [clips.train.classes]
    for manifest, rows in ((clips.train, clips.train_rows), (clips.validation, clips.validation_rows)):
        shown.append([(manifest.clips[row].id, manifest.clips[row].labels) for row in rows])
    return zlib.crc32(repr(shown).encode())

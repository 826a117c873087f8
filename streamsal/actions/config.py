"""What a training run is told: CONFIG.toml in, frozen settings out, every key and value checked. No torch.

Each table of the file is a class here, each of its keys a field; what is left out has the default written here.
"""

from __future__ import annotations

import difflib
import json
import math
import tomllib
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, replace
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ..errors import BadInput, MissingInput, UsageError
from ..models.design import Architecture, Design
from ..weights.assets import ASSETS


@dataclass(frozen=True, slots=True, kw_only=True)
class Data:
    """[data]: labeled clips and how they are read.

    train          manifest: TinyVIRAT's json (version 1 or 2), or a csv of path, labels
    validation     another manifest, or the share of the training clips that is set aside, whole scenes at a time
    test           manifest of the clips that are looked at once, at the very end; may be left out
    classes        file with one name per line, or a json of name -> index; default: what lies beside the manifest, else
                   the labels of `train`, sorted
    root           folder that paths in the manifests begin in; default: TinyVIRAT's own tree beside the manifest, else
                   the manifest's folder
    start          where a training clip begins: "random", or "first" frame; validation begins at the first
    flip           how often a training clip is mirrored, 0 ... 1
    order          "legacy": frames sorted by their numbers as text (0 1 10 11 ... 2 20), as an old program did
    colors         "bgr": red and blue exchanged, as there
    split          "legacy": validation clips drawn class by class, as there
    short          clips with fewer frames than the model takes: "repeat" the last frame, or "drop" the clip, as there
    legacy         all of the above as that program had it, starts and mirrored validation included
    workers        processes that decode
    """

    train: str
    validation: str | float = 0.1
    test: str = ""
    classes: str = ""
    root: str = ""
    start: Literal["random", "first"] = "random"
    flip: float = 0.5
    order: Literal["natural", "legacy"] = "natural"
    colors: Literal["rgb", "bgr"] = "rgb"
    split: Literal["scene", "legacy"] = "scene"
    short: Literal["repeat", "drop"] = "repeat"
    legacy: bool = False
    workers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Network(Architecture):
    """[model]: the architecture, see models/design.py, and what training begins with.

    weights   a checkpoint of I3D or of a classifier, or the name of a published I3D (see `streamsal weights path`);
              logits of other classes are begun anew. Empty: all weights are drawn by `train.seed`
    freeze    "i3d": of I3D only the logits are trained, and its running statistics stay
    dropout   share of features that is dropped before the logits
    """

    weights: str = ""
    freeze: Literal["none", "i3d"] = "none"
    dropout: float = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Train:
    """[train]: how the weights are found.

    epochs         passes over the training clips
    batch          clips of one process that go through the network together
    accumulate     batches whose gradients make one step
    lr             largest learning rate of AdamW, reached after `warmup` epochs, then falling as a cosine to 0
    clip_norm      gradients are scaled down to this norm; 0: never
    loss           "bce"; "weighted": positives count by how rare their class is; "asymmetric": Ridnik et al. 2021
    balance        "classes": clips of rare classes are drawn more often
    dtype          "fp32", "bf16" or "fp16" (with scaled gradients) of autocast; "auto": bf16 on a GPU that has it
    momentum       of batch normalization's running statistics, for all layers; 0: as each layer has it
    best_by        the validation score by which best.pt is chosen
    every          steps from one line of the log to the next
    keep_minutes   from one last.pt to the next within an epoch
    """

    epochs: int = 30
    batch: int = 8
    accumulate: int = 1
    lr: float = 1e-3
    warmup: float = 1.0
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    loss: Literal["bce", "weighted", "asymmetric"] = "bce"
    balance: Literal["none", "classes"] = "none"
    dtype: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    momentum: float = 0.0
    best_by: Literal["f1_macro", "f1_micro", "map"] = "f1_macro"
    every: int = 10
    keep_minutes: float = 10.0
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Test:
    """[test]: how clips are judged, in validation and at the end.

    clips       of one video: 1 (from its first frame), n (spread evenly), or "all" (one behind the other)
    pool        what the scores of one video's clips become: their "max" or "mean"
    threshold   probability from which a class counts as seen, or "tuned": of each class, the best on validation
    batch       clips that go through the network together
    at_end      data.test is judged when the training has ended, as by `streamsal test`
    """

    clips: int | Literal["all"] = 1
    pool: Literal["max", "mean"] = "max"
    threshold: float | Literal["tuned"] = 0.5
    batch: int = 8
    at_end: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    data: Data
    model: Network = field(default_factory=Network)
    train: Train = field(default_factory=Train)
    test: Test = field(default_factory=Test)

    def design(self, classes: tuple[str, ...]) -> Design:
        """Raises BadInput where the numbers do not fit together."""
        model = {field.name: getattr(self.model, field.name) for field in fields(Architecture)}
        return Design(classes=classes, colors=self.data.colors, order=self.data.order, **model)

    def buildable(self, source: Path) -> Config:
        """Itself; raises UsageError where no classifier can be built as `source` says."""
        try:
            self.design(("any",))
        except BadInput as error:
            raise UsageError(f"{source}: [model] {error}") from None
        return self

    @property
    def judged_at_end(self) -> bool:
        return self.test.at_end and bool(self.data.test)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


TABLES = {"data": Data, "model": Network, "train": Train, "test": Test}
PATHS = {("data", "train"), ("data", "validation"), ("data", "test"), ("data", "classes"), ("data", "root")}
LARGEST = 2**63 - 1  # of numbers that are handed on to PyTorch
I3DS = [name for name in ASSETS if name.startswith("i3d_rgb_")]
LEGACY = {"order": "legacy", "colors": "bgr", "split": "legacy", "short": "drop", "start": "first"}


def read_toml(path: Path) -> dict[str, Any]:
    """Raises MissingInput, UsageError."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({error.strerror}): name a configuration that is there") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is no TOML: {error}") from None


def config_of(found: Mapping[str, Any], source: Path) -> Config:
    """The settings in a configuration's tables. Its paths are relative to the folder of `source`.

    Raises UsageError naming the table and the key.
    """
    check_names(f"{source}", "table", found, TABLES)
    tables = {}
    for name, of in TABLES.items():
        given = found.get(name, {})
        check_table(name, given, source)
        tables[name] = _table(of, given, f"{source}: [{name}]")
    data = with_legacy(tables["data"], found.get("data", {}), source)
    here = {key: getattr(data, key) for table, key in PATHS if isinstance(getattr(data, key), str)}
    data = replace(data, **{key: str(source.parent.absolute() / value) for key, value in here.items() if value})
    model = tables["model"]
    if "/" in model.weights or "." in model.weights:
        model = replace(model, weights=str(source.parent.absolute() / model.weights))
    elif model.weights and model.weights not in I3DS:
        known = ", ".join(I3DS)
        raise UsageError(f"{source}: [model] weights = {model.weights!r} is no published I3D ({known}) and no path")
    _check_numbers(data, model, tables["train"], tables["test"], source)
    return Config(data=data, model=model, train=tables["train"], test=tables["test"])


def with_legacy(data: Data, given: Mapping[str, Any], source: Path) -> Data:
    """Raises UsageError where `legacy` and another key say different things."""
    if not data.legacy:
        return data
    for key, value in LEGACY.items():
        if given.get(key, value) != value:
            raise UsageError(f"{source}: [data] legacy = true means {key} = {value!r}: leave one of them out")
    return replace(data, **LEGACY)


def check_table(name: str, given: object, source: Path) -> None:
    if not isinstance(given, Mapping):
        raise UsageError(f"{source}: {name} is a table: write [{name}]")


def check_names(where: str, what: str, found: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for name in found:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"
            raise UsageError(f"{where} has no {what} {name!r}: {hint}")


def _table(of: Any, given: Mapping[str, Any], where: str) -> Any:
    types = get_type_hints(of)
    check_names(where, "setting", given, types)
    for name, value in given.items():
        if not _fits(value, types[name]):
            raise UsageError(
                f"{where} {name} = {json.dumps(value, default=str)}: it has to be {_described(types[name])}"
            )
    missing = [
        x.name for x in fields(of) if x.default is MISSING and x.default_factory is MISSING and x.name not in given
    ]
    if missing:
        raise UsageError(f"{where} needs {missing[0]}")
    return of(**{name: float(value) if types[name] is float else value for name, value in given.items()})


def _fits(value: Any, kind: Any) -> bool:
    if get_origin(kind) in (UnionType, Union):
        return any(_fits(value, each) for each in get_args(kind))
    if get_origin(kind) is Literal:
        return value in get_args(kind) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


def _described(kind: Any) -> str:
    if get_origin(kind) in (UnionType, Union):
        return " or ".join(map(_described, get_args(kind)))
    if get_origin(kind) is Literal:
        return " or ".join(json.dumps(value) for value in get_args(kind))
    return {str: "a text", float: "a number", int: "a whole number", bool: "true or false"}[kind]


def _check_numbers(data: Data, model: Network, train: Train, test: Test, source: Path) -> None:
    if not data.train:
        raise UsageError(f"{source}: [data] needs train")
    if isinstance(data.validation, str) and not data.validation:
        raise UsageError(f"{source}: data.validation is empty: it is a manifest, or a share of the training clips")
    if not isinstance(data.validation, str) and not 0 < data.validation < 1:
        raise UsageError(
            f"{source}: data.validation = {data.validation:g} has to be more than 0, because the best epoch is chosen "
            "by these clips, and less than 1"
        )
    shares = {"data.flip": data.flip, "model.dropout": model.dropout, "train.momentum": train.momentum}
    if not isinstance(test.threshold, str):
        shares["test.threshold"] = test.threshold
    for name, value in shares.items():
        if not 0 <= value <= 1:
            raise UsageError(f"{source}: {name} = {value:g} has to be between 0 and 1")
    positive = {"train.epochs": train.epochs, "train.batch": train.batch, "train.accumulate": train.accumulate}
    positive |= {"train.lr": train.lr, "train.every": train.every, "test.batch": test.batch}
    if isinstance(test.clips, int):
        positive["test.clips"] = test.clips
    not_negative = {"train.warmup": train.warmup, "train.weight_decay": train.weight_decay}
    not_negative |= {"train.clip_norm": train.clip_norm, "data.workers": data.workers, "train.seed": train.seed}
    not_negative |= {"train.keep_minutes": train.keep_minutes}
    for name, value in [*positive.items(), *not_negative.items()]:
        if not 0 <= value <= LARGEST or (name in positive and value == 0):
            raise UsageError(f"{source}: {name} = {value:g} makes no sense")

"""The flow of `streamsal test`: a trained classifier and clips it has not seen in, what it is worth out, as files.

    classifier and settings -> predictions of all clips -> scores at a fixed threshold and at tuned ones
    predictions.h5, per_class.csv, pictures, then metrics.json: where it is, it was made of what lies beside it

Thresholds come from validation, never from the clips that are judged.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from .. import __version__
from ..devices import resolve_dtype
from ..errors import BadInput, MissingInput, UsageError, WriteError
from ..extras import need
from ..files import make_folder, write_bytes, writing
from ..models.classifier import Classifier, load
from ..plan import counted
from ..progress import Progress
from ..signals import Stop
from ..weights import checkpoints
from ..weights.cache import file_sha256
from . import plots as draw
from . import split
from .config import Config, Test, config_of
from .log import read_log
from .manifest import Manifest, read_manifest
from .memory import enough_memory
from .predict import as_in_use, clip_of, predict
from .predictions import NPY, Predictions, write_answer, write_npy
from .processes import Processes
from .reading import Wanted, batches
from .scores import OVERALL, Scores, scored

FORMAT = "streamsal metrics 1"
PICTURES = ("classes.png", "mistakes.png", "resized.png", "training.png")
MADE_HERE = ("metrics.json", "per_class.csv", *PICTURES, "answer.txt", *(f"{name}.npy" for name in NPY))
N_STRIPS = 3  # clips whose frames are shown before and after the resizer
WORKERS = 2  # that decode, where no configuration says it


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A classifier, its file, and what the file and the folder around it say of its training."""

    classifier: Classifier
    file: Path
    config: Config | None
    thresholds: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """`scores` by what their thresholds are, "fixed" or "tuned"; none where clips have no labels."""

    predictions: Predictions
    seen: NDArray[np.uint8]
    by: Literal["fixed", "tuned"]
    scores: Mapping[str, Scores]


def judge(
    trained: str | Path,
    manifest: str | Path = "",
    *,
    test: Test | None = None,
    output: str | Path | None = None,
    npy: bool = False,
    answer: bool = False,
    plots: bool = True,
    processes: Processes | None = None,
    workers: int | None = None,
    dtype: str = "fp32",
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> Scores | None:
    """The scores of a classifier on test clips, with the thresholds of `test`; None for clips without labels.

    `trained` is the folder of a training, or a classifier's file; `manifest` and `test` are by default what its
    configuration says. Written into `output`, by default the folder `test` beside the classifier, are predictions.h5,
    metrics.json and, of labeled clips, per_class.csv and pictures (`plots`). metrics.json has their scores at the fixed
    threshold (0.5 where `test` says "tuned") and at those tuned on validation. These were tuned on clips read as in
    validation: with another `test.clips` or `test.pool` they fit less. `npy`: also the four files of the old program;
    `answer`: also answer.txt of the TinyAction challenge.

    Raises MissingInput, UsageError, BadInput, WriteError, Stopped.
    """
    processes, progress = processes or Processes(), progress or Progress(quiet=True)
    known = trained_in(Path(trained))
    test = test or (known.config.test if known.config else Test())
    if test.threshold == "tuned" and known.thresholds is None:
        raise UsageError(f"{known.file} comes without thresholds that were tuned on validation: take a number")
    clips, where = _clips(known, manifest)
    unlabeled = sum(not clip.labeled for clip in clips.clips)
    if unlabeled:
        have = f"{unlabeled} of {counted(len(clips.clips), 'clip')} {'has' if unlabeled == 1 else 'have'} no labels"
        progress.say(f"{where}: {have}, so there will be predictions and no scores")
    else:
        need("train", "scoring clips", "torchmetrics", *["matplotlib"] * plots)
    if workers is None:
        workers = known.config.data.workers if known.config else WORKERS

    folder = Path(output) if output else known.file.parent / "test"
    processes.first_does(lambda: _check_writable(folder))
    with enough_memory(f"test.batch = {test.batch}: halve it (streamsal test --batch {max(test.batch // 2, 1)})"):
        predictions = predict(
            known.classifier.to(processes.device),
            clips,
            range(len(clips.clips)),
            test,
            processes=processes,
            workers=workers,
            dtype=resolve_dtype(dtype, processes.device),
            progress=progress,
            stop=stop,
        )
    facts = {"classifier": str(known.file), "sha256": file_sha256(known.file), "manifest": where, "test": asdict(test)}
    judged = _judged(replace(predictions, facts=facts), test, known.thresholds)

    def write() -> None:
        clear(make_folder(folder))
        judged.predictions.save(folder / "predictions.h5")
        if npy:
            write_npy(folder, predictions, judged.seen, judged.scores[judged.by].confusion if judged.scores else None)
        if answer:
            write_answer(folder / "answer.txt", predictions, judged.seen)
        if judged.scores and plots:
            _draw(folder, known, clips, judged, processes.device)
        _write_scores(folder, judged)
        progress.say(f"{folder}: what was found in {len(clips.clips)} clips")

    processes.first_does(write)
    return judged.scores.get(judged.by)


def trained_in(path: Path) -> Trained:
    """What a training's folder, or a classifier's file, holds. Raises MissingInput, BadInput."""
    file = path / "best.pt" if path.is_dir() else path
    if not file.is_file():
        if path.is_dir():
            raise MissingInput(f"{path} has no best.pt yet: train to the end of an epoch first")
        raise MissingInput(f"{path} is not there: name the folder of a training, or the file of a classifier")
    classifier, facts = load(file), checkpoints.read(file)
    return Trained(
        classifier=classifier,
        file=file,
        config=_config(path / "config.json", facts),
        thresholds=np.array(facts["thresholds"], np.float32) if "thresholds" in facts else None,
    )


def _config(path: Path, facts: Mapping[str, Any]) -> Config | None:
    """That of the folder, which may name other places for the same data by now, else the one in the classifier."""
    if not path.is_file():
        return config_of(facts["config"], path) if "config" in facts else None
    found = None
    with contextlib.suppress(ValueError):
        found = json.loads(path.read_bytes())
    if not isinstance(found, dict):
        raise BadInput(f"{path} is no configuration of a training: put it back, or remove it")
    return config_of(found, path)


def _clips(known: Trained, manifest: str | Path) -> tuple[Manifest, str]:
    """The clips to judge, and where their manifest is. Raises BadInput for a label the classifier does not know."""
    classes, config = known.classifier.design.classes, known.config
    if config is None:
        if not manifest:
            raise UsageError(f"{known.file} does not say which clips are for testing: give --manifest")
        return read_manifest(manifest, classes=classes), str(manifest)
    if manifest:
        root = config.data.root if Path(config.data.root).is_dir() else ""  # a classifier may have come from elsewhere
        config = replace(config, data=replace(config.data, test=str(manifest), root=root))
    found = split.test_manifest(config, classes)
    if found is None:
        raise UsageError(f"the training of {known.file} names no clips for testing: give --manifest")
    return found, config.data.test


def _judged(predictions: Predictions, test: Test, tuned: NDArray[np.float32] | None) -> Judged:
    thresholds: dict[str, Any] = {"fixed": 0.5 if test.threshold == "tuned" else test.threshold}
    if tuned is not None:
        thresholds["tuned"] = tuned
    by: Literal["fixed", "tuned"] = "tuned" if test.threshold == "tuned" else "fixed"
    labeled = predictions.targets is not None
    scores = {name: scored(predictions, at) for name, at in thresholds.items()} if labeled else {}
    return Judged(predictions=predictions, seen=predictions.seen(thresholds[by]), by=by, scores=scores)


def _check_writable(folder: Path) -> None:
    """Before hours are spent on what is to be written there; makes nothing yet."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise WriteError(f"cannot write into {there}: name another folder with -o")


def clear(folder: Path) -> None:
    """What an earlier test of other clips has left, if there was one. metrics.json goes first."""
    if not (folder / "predictions.h5").exists():
        return
    for name in MADE_HERE:
        with writing(folder / name):
            (folder / name).unlink(missing_ok=True)


def _write_scores(folder: Path, judged: Judged) -> None:
    found = {by: scores.to_dict() for by, scores in judged.scores.items()}
    metrics = {"format": FORMAT, "version": __version__, **judged.predictions.facts, "by": judged.by}
    if found:
        rows = [{"thresholds": by, **row} for by, scores in judged.scores.items() for row in scores.rows()]
        table = io.StringIO()
        writer = csv.DictWriter(table, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_bytes(folder / "per_class.csv", table.getvalue().encode())
        metrics |= {**{name: found[judged.by][name] for name in ("clips", *OVERALL)}, **found}
    write_bytes(folder / "metrics.json", (json.dumps(metrics, indent=1) + "\n").encode())


def _draw(folder: Path, known: Trained, clips: Manifest, judged: Judged, device: torch.device) -> None:
    draw.plot_classes(judged.scores["fixed"], folder / "classes.png", tuned=judged.scores.get("tuned"))
    draw.plot_mistakes(judged.predictions, judged.scores[judged.by], folder / "mistakes.png")
    if known.classifier.design.resizer != "none":
        draw.plot_resized(strips_of(known.classifier, clips, device), folder / "resized.png")
    log = known.file.parent / "log.jsonl"
    if any("loss" in line for line in read_log(log)):
        draw.plot_log(log, folder / "training.png")


def strips_of(classifier: Classifier, manifest: Manifest, device: torch.device) -> list[draw.Strip]:
    """Before and after the resizer: the first clips that differ in their labels."""
    first: dict[tuple[int, ...], int] = {}
    for row, clip in enumerate(manifest.clips):
        first.setdefault(clip.labels, row)
    design = classifier.design
    wanted = [Wanted(row=row) for row in list(first.values())[:N_STRIPS]]
    strips = []
    with as_in_use(classifier, device, torch.float32):
        for (read,) in batches(manifest, wanted, design, batch=1):
            before = clip_of(read, 0, design, device)[None]
            after = classifier.resized(before)
            bilinear = functional.interpolate(before, after.shape[2:], mode="trilinear", align_corners=True)
            clip = manifest.clips[read.row]
            labels = ", ".join(manifest.classes[label] for label in clip.labels)
            strips.append(
                draw.Strip(
                    title=f"What the resizer makes of clip {clip.id}: {labels or 'no class'}",
                    before_thwc=_rgb(before, design.colors),
                    after_thwc=_rgb(after, design.colors),
                    bilinear_thwc=_rgb(bilinear, design.colors),
                )
            )
    return strips


def _rgb(clip_ncthw: Tensor, colors: str) -> NDArray[np.float32]:
    clip_thwc = clip_ncthw[0].permute(1, 2, 3, 0).float().cpu()
    return (clip_thwc.flip(-1) if colors == "bgr" else clip_thwc).numpy()

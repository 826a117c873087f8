"""The flow of a training: settings and a folder in; best.pt, last.pt, validation.h5 and log.jsonl in that folder out.

    epoch   = the clips it shows (drawing_lots), decoded (reading), a step at a time (stepping), then validation
    last.pt = kept behind every epoch, every few minutes, and when asked to stop

What comes out does not depend on where the training was interrupted. Each line of log.jsonl is a json: of steps (epoch,
step, loss, lr, clips_per_second, waits_for), or of an epoch (epoch, step, validation, best). Epochs count from 1 there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..devices import resolve_dtype
from ..errors import Held, MissingInput, UsageError
from ..extras import need
from ..files import make_folder, write_bytes, writing
from ..locks import lock
from ..models.classifier import Classifier, begin_with, save
from ..plan import counted
from ..progress import Progress
from ..signals import Stop, stopped
from .board import Board
from .config import Config
from .drawing_lots import epoch_of, share
from .folder import check_ours, clear
from .keeping import Place, identity_of, keep, restore
from .log import read_log
from .memory import enough_memory
from .predict import clip_of, predict
from .processes import Processes
from .reading import Read, batches
from .scores import scored, tuned
from .split import ClipSets, clips_of
from .stepping import Stepper


@dataclass(slots=True, kw_only=True)
class Training:
    """A training under way. `place` is all of it that changes, besides weights and optimizer."""

    config: Config
    folder: Path
    clips: ClipSets
    stepper: Stepper
    processes: Processes
    progress: Progress
    stop: Stop
    board: Board | None = None
    place: Place = field(default_factory=Place)

    @property
    def name(self) -> str:
        return f"epoch {self.place.epoch + 1} of {self.config.train.epochs}"

    @property
    def parts(self) -> dict[str, Any]:
        stepper = self.stepper
        return {"weights": stepper.classifier, "optimizer": stepper.optimizer, "scaler": stepper.scaler}

    @property
    def identity(self) -> dict[str, Any]:
        return identity_of(self.config, self.clips, self.processes.world)


def train(
    config: Config,
    folder: str | Path,
    *,
    processes: Processes | None = None,
    resume: str = "auto",
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> Path:
    """Trains to the end, from where `folder` is; best.pt.

    `resume`: "auto": from last.pt if it is there; "no": from the beginning; or another training's last.pt, or folder.
    Raises Stopped when asked to, Held where another copy trains into the folder, and what reading and writing raise.
    """
    need("train", "training", "torchmetrics", "tensorboard")
    folder, processes, progress = Path(folder), processes or Processes(), progress or Progress(quiet=True)
    with _alone_in(folder, processes, anew=resume == "no"):
        clips = processes.first_does(lambda: clips_of(config, folder, anew=resume == "no"))
        if clips.left_out:
            text = f"{folder / 'split.json'} leaves out {counted(clips.left_out, 'clip')} of {config.data.train}"
            progress.say(f"{text}: begin anew (--resume no) to have them, too")
        with enough_memory(_smaller_batches(config)):
            training = Training(
                config=config,
                folder=folder,
                clips=clips,
                stepper=_stepper(config, clips, processes),
                processes=processes,
                progress=progress,
                stop=stop,
            )
            _begin(training, resume)
            if training.place.epoch == config.train.epochs:
                progress.say(f"{folder}: this training is done, the best epoch is {training.place.best_epoch}")
            with _board(training):
                while training.place.epoch < config.train.epochs:
                    _train_epoch(training)
                    _validate(training)
    return folder / "best.pt"


def _smaller_batches(config: Config) -> str:
    return (
        f"train.batch = {config.train.batch} and test.batch = {config.test.batch}: halve them, "
        "and double train.accumulate, which makes the same steps of smaller batches"
    )


def _stepper(config: Config, clips: ClipSets, processes: Processes) -> Stepper:
    torch.manual_seed(config.train.seed)
    return Stepper(
        Classifier(config.design(clips.train.classes), dropout=config.model.dropout),
        config,
        clips.train.targets()[list(clips.train_rows)],
        processes=processes,
        dtype=precision(config.train.dtype, processes.device),
        n_steps=config.train.epochs * len(steps_of(_shown_to_each(clips, processes), config)),
    )


def precision(name: str, device: torch.device) -> torch.dtype:
    """`auto`: bfloat16 on a GPU that computes with it, which needs no scaling of gradients, else float32.

    Raises UsageError for half precision on a CPU: PyTorch 2.11 with oneDNN computes wrong gradients there, by a third
    for the weights of convolutions of 8 -> 16 channels on maps of 2 x 2 x 2 in bfloat16.
    """
    if name == "auto":
        name = "bf16" if device.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"
    if device.type == "cpu" and name != "fp32":
        raise UsageError(f"train.dtype = {name!r} is for GPUs: on a CPU take 'fp32', or 'auto'")
    return resolve_dtype(name, device)


def steps_of(n_clips: int, config: Config) -> list[list[int]]:
    """Sizes of the batches of each step of an epoch that shows a process so many clips; no clip is left out."""
    batch, accumulate = config.train.batch, config.train.accumulate
    sizes = [min(batch, n_clips - first) for first in range(0, n_clips, batch)]
    return [sizes[first : first + accumulate] for first in range(0, len(sizes), accumulate)]


def _shown_to_each(clips: ClipSets, processes: Processes) -> int:
    return -(-len(clips.train_rows) // processes.world)


@contextmanager
def _alone_in(folder: Path, processes: Processes, *, anew: bool) -> Iterator[None]:
    with ExitStack() as stack:

        def claim() -> None:
            if not anew:
                check_ours(folder)
            if not stack.enter_context(lock(make_folder(folder) / "train.lock", wait=False)):
                raise Held(f"another process trains into {folder}: wait for it, or end it, and run again")

        processes.first_does(claim)
        yield


def _begin(training: Training, resume: str) -> None:
    """Puts the training where it goes on: to its beginning, or to where it was kept."""
    folder, processes = training.folder, training.processes
    path = folder / "last.pt" if resume in ("auto", "no") else Path(resume)
    path = path / "last.pt" if path.is_dir() else path
    anew = resume == "no" or (resume == "auto" and not processes.first_does(path.exists))
    if anew:
        if training.config.model.weights:
            begin_with(training.stepper.classifier, training.config.model.weights, training.progress.say)
    else:
        training.place = restore(path, training.identity, training.parts)
        if not processes.first_does((folder / "best.pt").exists):  # another folder's last.pt
            training.place = replace(training.place, best=None)
        if training.place.epoch < training.config.train.epochs:
            training.progress.say(f"{path}: going on in {training.name}, {training.place.step} steps of it are done")
        elif training.place.best is None:
            raise MissingInput(
                f"{path}: this training is done and {folder / 'best.pt'} is gone: begin anew (--resume no)"
            )
    if processes.first:
        if anew:
            clear(folder)
        with writing(folder), open(folder / "log.jsonl", "ab") as log:
            log.truncate(min(log.tell(), training.place.log_bytes))
        write_bytes(folder / "config.json", json.dumps(training.config.to_dict(), indent=1).encode())
    processes.barrier()


def _train_epoch(training: Training) -> None:
    """The steps of the epoch that are left."""
    config, clips, processes = training.config, training.clips, training.processes
    targets = clips.train.targets()[list(clips.train_rows)]
    shown = epoch_of(clips.train_rows, targets, config.data, config.train, training.place.epoch)
    wanted = share(shown, processes.rank, processes.world)
    steps = steps_of(len(wanted), config)
    done, before = sum(map(sum, steps[: training.place.step])), training.place.epoch * len(steps)
    pace, kept = Pace(), time.monotonic()
    track = training.progress.track(training.name, len(wanted), done, unit="clips")
    with closing(_inputs(training, wanted[done:], pace)) as inputs, track:
        for number, sizes in enumerate(steps[training.place.step :], training.place.step):
            pace.losses.append(training.stepper.step(before + number, inputs, len(sizes), sum(sizes)))
            training.place = replace(training.place, step=number + 1)
            done, pace.clips = done + sum(sizes), pace.clips + sum(sizes)
            training.progress.update(done)
            last = number + 1 == len(steps)
            if last or (number + 1) % config.train.every == 0:
                _say_pace(training, before + number, pace, aloud=last)
                pace.begin_again()
            if last or time.monotonic() - kept > 60 * config.train.keep_minutes:
                _keep(training)
                kept = time.monotonic()
            _stop_if_asked(training)


@dataclass(slots=True)
class Pace:
    """What has happened since the last line of the log; `waited` seconds for clips."""

    began: float = field(default_factory=time.monotonic)
    waited: float = 0.0
    clips: int = 0
    losses: list[float] = field(default_factory=list)

    def begin_again(self) -> None:
        self.began, self.waited, self.clips, self.losses = time.monotonic(), 0.0, 0, []


def _inputs(training: Training, wanted: list[Any], pace: Pace) -> Generator[tuple[Tensor, Tensor]]:
    """Batches of clips and labels on the device, finished there."""
    config, manifest, design = training.config, training.clips.train, training.stepper.classifier.design
    device, targets = training.processes.device, torch.from_numpy(manifest.targets())
    workers = config.data.workers
    with closing(batches(manifest, wanted, design, batch=config.train.batch, workers=workers)) as reading:
        while True:
            began = time.monotonic()
            reads: list[Read] = next(reading, [])
            pace.waited += time.monotonic() - began
            if not reads:
                return
            clips = [clip_of(read, 0, design, device) for read in reads]
            yield torch.stack(clips), targets[[read.row for read in reads]].to(device)


def _say_pace(training: Training, step: int, pace: Pace, *, aloud: bool) -> None:
    """A line of the log: means since the one before, over all processes. `aloud`: for a person, too."""
    seconds = max(time.monotonic() - pace.began, 1e-9)
    every = training.processes.gathered((sum(pace.losses) / len(pace.losses), pace.clips / seconds, pace.waited))
    losses, rates, waited = zip(*every, strict=True)
    facts = {
        "loss": round(sum(losses) / len(losses), 6),
        "lr": training.stepper.lr(step),
        "clips_per_second": round(sum(rates), 2),
        "waits_for": "clips" if sum(waited) > seconds * len(waited) / 2 else "model",
    }
    _log(training, step + 1, facts)
    if training.board:
        training.board.step(step + 1, facts)
    if aloud:
        rate = f"{facts['clips_per_second']} clips/s, waiting for {facts['waits_for']}"
        training.progress.say(f"{training.name}: loss {facts['loss']:.4f}, {rate}")


def _validate(training: Training) -> None:
    """Ends an epoch: scores on validation alone say whether it is the best so far."""
    config, clips, stepper, place = training.config, training.clips, training.stepper, training.place
    training.processes.as_first(stepper.classifier.buffers())
    predictions = predict(
        stepper.classifier,
        clips.validation,
        clips.validation_rows,
        config.test,
        processes=training.processes,
        workers=config.data.workers,
        dtype=stepper.dtype,
        legacy_flip=config.data.legacy,
        stop=training.stop,
    )
    thresholds = tuned(predictions)
    scores = scored(predictions, thresholds if config.test.threshold == "tuned" else float(config.test.threshold))
    epoch, score = place.epoch + 1, getattr(scores, config.train.best_by)
    step = epoch * place.step  # all of this epoch's are done
    if best := place.best is None or score > place.best:
        place = replace(place, best=score, best_epoch=epoch)
        if training.processes.first:
            facts = {"epoch": epoch, "scores": scores.to_dict(), "thresholds": thresholds.tolist()}
            save(training.folder / "best.pt", stepper.classifier, **facts, config=config.to_dict())
            predictions.save(training.folder / "validation.h5")
    loss = float(stepper.loss(torch.from_numpy(predictions.logits), torch.from_numpy(predictions.targets)))
    overall = {"loss": round(loss, 6), **scores.to_dict()}
    del overall["classes"]
    _log(training, step, {"validation": overall, "best": best})
    if training.board:
        training.board.epoch(step, loss, scores, stepper.classifier, clips.validation, clips.validation_rows)
    said = f"{config.train.best_by} {score:.4f}, best {place.best:.4f} in epoch {place.best_epoch}"
    training.progress.say(f"{training.name}: {said}")
    training.place = replace(place, epoch=epoch, step=0)
    _keep(training)


def _stop_if_asked(training: Training) -> None:
    """Keeps the training and raises Stopped on all processes where one was asked to stop."""
    if training.processes.any(bool(training.stop())):
        _keep(training)
        reason = next(filter(None, training.processes.gathered(training.stop())))
        raise stopped(reason, f"{training.folder} is kept after step {training.place.step} of {training.name}")


def _keep(training: Training) -> None:
    if training.processes.first:
        place = replace(training.place, log_bytes=(training.folder / "log.jsonl").stat().st_size)
        keep(training.folder / "last.pt", place, training.identity, training.parts)


def _log(training: Training, step: int, facts: dict[str, Any]) -> None:
    if training.processes.first:
        line = {"epoch": training.place.epoch + 1, "step": step, **facts}
        training.progress.event("train", **line)
        with writing(training.folder / "log.jsonl"), open(training.folder / "log.jsonl", "a") as log:
            log.write(f"{json.dumps(line)}\n")


@contextmanager
def _board(training: Training) -> Iterator[None]:
    if not training.processes.first:
        yield
        return
    steps = len(steps_of(_shown_to_each(training.clips, training.processes), training.config))
    step, unjudged = training.place.epoch * steps + training.place.step, training.place.step == steps
    folder, device = training.folder / "tensorboard", training.processes.device
    with Board(folder, from_step=step - unjudged, device=device) as training.board:
        for line in read_log(training.folder / "log.jsonl")[-1:] if unjudged else []:
            if "loss" in line:  # hidden with the scores of a validation that was not kept, which bear the same number
                training.board.step(step, line)
        yield

"""One task of a run: its shard of the plan, computed or resumed.

Crash-only: whatever ends a task, starting it again goes on behind the last committed block and gives the same bytes.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .cluster.scheduler import job_facts
from .errors import BadInput, Held, MissingInput, Stopped, StreamsalError
from .files import make_folder
from .heartbeat import Log, read_heartbeat
from .locks import STALE_BEATS, Watch, beat_seconds
from .plan import Plan, PlannedVideo, counted
from .progress import Meter, Progress
from .signals import Stop, stopped

WAITING_SECONDS = 0.5  # between two looks for what another task hands on

if TYPE_CHECKING:
    import numpy as np
    import torch

    from .batches import Box, Job
    from .blockfile import BlockFile
    from .engine import Chunk
    from .layout import PartInfo
    from .models.spec import Model
    from .plan import Part
    from .relay import Handover
    from .store import ShardWriter


def infer(
    run: str | Path,
    task: int,
    *,
    device: str = "auto",
    decode_workers: int | None = None,
    progress: Progress | None = None,
    stop: Stop = lambda: "",
) -> int:
    """Compute shard `task` of the plan in `run`, or what is left of it; returns the number of results it holds.

    Raises Stopped (75) when `stop` names a reason or another copy holds the task, PlanMismatch (65) when video or model
    are not those of the plan, and what the stages raise.
    """
    return Worker(run, device=device, decode_workers=decode_workers, progress=progress, stop=stop).infer(task)


class Worker:
    """Computes tasks of one run one after another, with a model that is loaded once, when the first task needs it.

    `stage`: a folder on this machine's own disk that videos are copied into before they are read.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        device: str = "auto",
        decode_workers: int | None = None,
        progress: Progress | None = None,
        stop: Stop = lambda: "",
        stage: Path | None = None,
    ) -> None:
        self.run = Path(run)
        self.plan = Plan.load(self.run / "plan.json")
        self._device, self._decode_workers, self._stage = device, decode_workers, stage
        self._progress, self._stop = progress or Progress(quiet=True), stop
        self._watch = Watch()

    def infer_free(self) -> list[int]:
        """Compute every task that is free, one after another; returns those that others are working on.

        Those are looked at once more whenever there was something else to do meanwhile, and never waited for. A task
        whose video is gone or broken keeps nobody from the others: the first such error is raised at the end.
        """
        held, bad = list(range(len(self.plan.shards))), None
        while True:
            before, held = held, []
            for task in before:
                if reason := self._stop():
                    raise stopped(reason, f"before task {task}")
                if self._is_known_done(task):
                    continue
                try:
                    self.infer(task, patient=False)
                except Held:
                    held.append(task)
                except (BadInput, MissingInput) as error:
                    self._progress.say(f"task {task}: {error}")
                    bad = bad or error
            if held in ([], before):
                if bad:
                    raise bad
                return held

    def _is_known_done(self, task: int) -> bool:
        """Whether its last heartbeat says so and its shard has the size it had then: two small looks, no HDF5."""
        if not self.plan.rows(task):
            return True
        beat = read_heartbeat(self.run, task) or {}
        if beat.get("state") != "done" or beat.get("plan") != self.plan.id:
            return False
        try:
            return _shard_bytes(self.run, task) == beat.get("shard_bytes")
        except FileNotFoundError:
            return False

    def infer(self, task: int, *, patient: bool = True) -> int:
        """As the function of that name. `patient`: watch a lock that may be of a lost node until that is certain."""
        if task < 0:
            raise ValueError(f"{task = } is negative")
        rows = self.plan.rows(task) if task < len(self.plan.shards) else 0
        if not rows:
            self._progress.say(f"task {task}: nothing to do, the plan has {counted(len(self.plan.shards), 'task')}")
            return 0
        holes = holes_if_whole(self.run, task, self.plan)
        log = Log(run=self.run, task=task)
        if holes is not None:
            self._progress.say(f"task {task}: already done")
            if log.facts.get("state") != "done":  # killed between the last frame and the last heartbeat
                log.end("done", task=task, rows=rows, done=rows, holes=holes, **self._proof(task))
            return rows
        try:
            with self._claimed(task, patient=patient) as file:
                cost = self._compute(log, file)
            if cost is not None:
                log.end("done", **cost, **self._proof(task))  # who reads that finds the shard free
                self._progress.event("done", task=task, **cost)
        except Held:
            raise  # the log is the other copy's to write
        except Stopped as error:
            log.end("stopped", str(error))
            raise
        except StreamsalError as error:
            where = {"host": socket.gethostname(), **job_facts(os.environ)}
            log.end("failed", str(error), exit_code=error.exit_code, **where)
            raise
        return rows

    @contextmanager
    def _claimed(self, task: int, *, patient: bool) -> Iterator[BlockFile]:
        """The shard's file, ours alone, before anything slow is done for it."""
        from .blockfile import BlockFile
        from .store import shard_path

        path, told, file = shard_path(self.run, task), False, None
        make_folder(path.parent)
        while file is None:
            try:
                file = BlockFile(path, self._watch)
            except Held as held:
                if not (held.unsure and patient):
                    raise
                if reason := self._stop():
                    raise stopped(reason, f"task {task} is another's, or was") from None
                if not told:
                    seconds = STALE_BEATS * beat_seconds()
                    self._progress.say(
                        f"task {task}: held by another process; up to {seconds:.0f} s to see if it lives"
                    )
                told = True
                time.sleep(beat_seconds() / 10)
        with closing(file):
            yield file

    def _compute(self, log: Log, file: BlockFile) -> dict[str, Any] | None:
        """Let every part of the shard be filled from where it was left, and mark it as whole.

        Returns what that has cost, or None where another copy has done it, while this one was getting ready.
        """
        jobs = self._jobs(log)
        from .store import ShardWriter

        progress, rows, meter = self._progress, self.plan.rows(log.task), Meter()
        with ShardWriter(file, [info for info, _ in jobs]) as shard:
            done = sum(shard.committed(info) for info, _ in jobs)
            if shard.complete and done == rows:
                progress.say(f"task {log.task}: already done")
                return None
            holes = sum(shard.holes(info) for info, _ in jobs)
            log.start(rows=rows, done=done, holes=holes, device=jobs[0][0].device, **job_facts(os.environ))
            with progress.track(f"task {log.task}", rows, done):
                for info, job in jobs:
                    _fill(shard, info, job, log=log, meter=meter, progress=progress, stop=self._stop)
            shard.finish()
        return meter.summary()

    def _proof(self, task: int) -> dict[str, Any]:
        """What lets others believe the last heartbeat without opening the shard."""
        return {"plan": self.plan.id, "shard_bytes": _shard_bytes(self.run, task)}

    @cached_property
    def _model(self) -> tuple[Model, torch.device]:
        from .prepare import check_model

        planned = self.plan.model
        check_model(planned)
        from .devices import resolve_device  # imports torch: only when there is something to compute
        from .models import create_model

        device = resolve_device(self._device)
        return create_model(planned.name, weights=planned.weights or None, device=device, **planned.options), device

    def _jobs(self, log: Log) -> list[tuple[PartInfo, Job]]:
        """What each part of the shard will say of itself, and how to compute it; videos and weights are checked."""
        from .prepare import checked_index, video_clips

        plan, parts, of_clips = self.plan, self.plan.shards[log.task], self.plan.of_clips
        indexes = [checked_index(log.run, plan.videos[part.video], stage=self._stage) for part in parts]
        model, device = self._model

        import torch

        from .batches import Job
        from .devices import device_name, resolve_dtype, share_cores
        from .layout import PartInfo

        dtype = resolve_dtype(plan.settings.dtype, device)
        workers = share_cores(self._decode_workers)
        jobs = []
        for part, index in zip(parts, indexes, strict=True):
            clips = of_clips and video_clips(index, *of_clips)
            info = PartInfo.of(
                plan,
                part,
                outputs=model.spec.outputs,
                derived=model.spec.derived,
                constants=model.spec.constants,
                device=device_name(device),
                dtype=_dtype_name(plan.settings.dtype, dtype if model.spec.autocast else torch.float32),
                time_base="{}/{}".format(*index.time_base),
                clip_start=clips and tuple(clips.start[part.start : part.stop].tolist()),
            )
            job = Job(
                index=index,
                video=plan.videos[part.video],
                model=model,
                model_name=plan.model.name,
                batch_size=plan.batch_size,
                device=device,
                dtype=dtype,
                clips=clips,
                saliency=_weights(plan, plan.videos[part.video]),
                handover=self._handover(log, part) if model.spec.state == "relay" else None,
                decode_workers=workers,
                on_event=log.event,
            )
            jobs.append((info, job))
        return jobs

    def _handover(self, log: Log, part: Part) -> Handover:
        """How state comes to a part of the task and goes on from it, and what is to be done while waiting for it."""
        from .relay import Handover

        plan, video, told = self.plan, self.plan.videos[part.video], False
        before = plan.owner(part.video, part.start - 1)

        def alive(missing: Path | None) -> None:
            nonlocal told
            if reason := self._stop():
                raise stopped(reason, f"task {log.task} waits for task {before}, nothing of it is stored yet")
            log.beat()
            if missing is None:
                return
            if (read_heartbeat(log.run, before or 0) or {}).get("state") == "failed":
                raise Stopped(f"task {log.task} goes on from task {before}, which has failed: run that one again first")
            if not told:
                self._progress.say(f"task {log.task}: waits for {missing.name}, which task {before} hands on")
            told = True
            time.sleep(WAITING_SECONDS)

        return Handover(
            run=log.run,
            plan_id=plan.id,
            video=video.name,
            start=part.start,
            stop=part.stop,
            takes=part.start > video.start,
            gives=part.stop < video.stop,
            alive=alive,
        )


def _weights(plan: Plan, video: PlannedVideo) -> Callable[[float, Box, int], np.ndarray] | None:
    if not plan.model.saliency:
        return None
    from .vectors.pooling import Saliency

    return Saliency(plan.model.saliency, video, plan.model.saliency_plan).cells


def _shard_bytes(run: Path, task: int) -> int:
    from .store import shard_path

    return shard_path(run, task).stat().st_size


def _dtype_name(asked: str, dtype: torch.dtype) -> str:
    return asked if asked == "tf32" else str(dtype).removeprefix("torch.")


def _fill(
    shard: ShardWriter, info: PartInfo, job: Job, *, log: Log, meter: Meter, progress: Progress, stop: Stop
) -> None:
    """Compute what a part lacks, block by block; after each it is safe, told of, and the time to stop if asked to."""
    from .batches import AHEAD, prefetch
    from .engine import compute

    delay_seconds = float(os.environ.get("STREAMSAL_TEST_DELAY_MS") or 0) / 1000  # per frame, for tests of faults
    missing = info.rows[shard.committed(info) :]
    if not missing and (job.handover is None or job.handover.given):
        return
    with closing(prefetch(compute(job, missing.start, info.stop, meter=meter), AHEAD)) as chunks:
        for number, chunk in enumerate(chunks):
            time.sleep(delay_seconds * len(chunk.frame))
            with meter.busy("write", frames=len(chunk.frame)):
                store_chunk(shard, info, chunk, first=number == 0)
            log.count(len(chunk.frame), int(chunk.hole.sum()), **meter.summary())
            progress.update(log.done, meter)
            if reason := stop():
                raise stopped(reason, f"task {log.task} has {log.done} of {log.facts['rows']} results safe")


def store_chunk(shard: ShardWriter, info: PartInfo, chunk: Chunk, *, first: bool) -> None:
    """Append a chunk and commit it; the `first` of a part brings what is the same for all of its frames."""
    if first:
        shard.put_constants(info, {name: value.cpu().numpy() for name, value in chunk.constants.items()})
    shard.append(
        info,
        frame=chunk.frame,
        pts_seconds=chunk.pts_seconds,
        hole=chunk.hole,
        values={name: value.cpu().numpy() for name, value in chunk.values.items()},
    )
    shard.commit()


def holes_if_whole(run: Path, task: int, plan: Plan) -> int | None:
    """Number of holes in a shard that is whole, without loading a model; None for one that is not or is in use."""
    from .shards import Unfinished, read_shard
    from .store import HOLE

    try:
        parts = read_shard(run, task, plan)
    except Unfinished:
        return None
    return sum(int((part.arrays["status"] == HOLE).sum()) for part in parts.values())

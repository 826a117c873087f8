"""A planned run in, its tasks on a cluster or side by side on this machine: array, then merge, then render.

Writes the scripts into RUN/submit, checks what can be checked before anything waits in a queue, and records what was
sent in RUN/submit/jobs.jsonl. What is missing comes from the shards alone, never from what a scheduler remembers.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

from ..errors import DeviceError, Held, MissingInput, StreamsalError
from ..files import make_folder, write_bytes, write_error
from ..heartbeat import read_heartbeat
from ..models import MODELS
from ..plan import Plan, PlannedVideo, array_spec, counted, tasks_named
from ..progress import Progress
from ..signals import Stop, stopped
from . import slurm
from .slurm import Resources, Submission

# Not measured: about 15 % of an RTX 2080 Ti's peak under float16, as networks of many small convolutions reach it, and
# four cores that decode 190 frames of 1080p a second. A faster card has shorter tasks.
MACS_PER_SECOND = 4e12
DECODED_PX_PER_SECOND = 400e6
FULL_HD_PX = 1920 * 1080
TASKS_OF_UNKNOWN_COST = 16


def usual_tasks(videos: Sequence[PlannedVideo], model: str, seconds: float, say: Callable[[str], None]) -> int:
    """How many tasks of about `seconds` each there is work for, 16 for a model of unknown cost; says which it is."""
    cost, unit, _ = MODELS[model].cost.partition(" GMAC") if model in MODELS else ("", "", "")
    if not unit:
        say(f"{TASKS_OF_UNKNOWN_COST} tasks, since the cost of {model} is not known: --tasks N for another number")
        return TASKS_OF_UNKNOWN_COST
    macs = float(cost) * 1e9
    total = sum(_seconds_per_result(video, macs) * len(video.selection.frames) for video in videos)
    n_tasks = max(1, math.ceil(total / seconds))
    share = math.ceil(total / n_tasks / 60)
    say(f"{counted(n_tasks, 'task')} of at most {counted(share, 'minute')} on an RTX 2080 Ti, as far as can be told")
    return n_tasks


def _seconds_per_result(video: PlannedVideo, macs: float) -> float:
    """`macs`: multiply-adds of one 1080p frame, or of one clip."""
    if video.clips:
        computed, decoded = macs, video.n_frames / video.clips
    else:
        frames, decoded = min(video.every, video.past + 1 + video.future), video.every
        computed = frames * macs * video.model_height * video.model_width / FULL_HD_PX
    return max(computed / MACS_PER_SECOND, decoded * video.height * video.width / DECODED_PX_PER_SECOND)


def missing_tasks(run: Path, plan: Plan) -> list[int]:
    """Tasks whose shard is not whole, read from the shards themselves."""
    from ..task import holes_if_whole

    return [task for task in range(len(plan.shards)) if plan.rows(task) and holes_if_whole(run, task, plan) is None]


def say_where_devices_failed(run: Path, tasks: Iterable[int], say: Callable[[str], None]) -> None:
    """A node whose GPU does not work is soon free again, so Slurm sends one task after another there."""
    beats = {task: read_heartbeat(run, task) or {} for task in tasks}
    failed = {task: beat for task, beat in beats.items() if beat.get("exit_code") == DeviceError.exit_code}
    nodes = ",".join(sorted({beat["node"] for beat in failed.values() if beat.get("node")}))
    if nodes:
        why = failed[min(failed)]["error"]
        say(
            f"{tasks_named(list(failed))} left with {DeviceError.exit_code} on {nodes} ({why}): "
            f"--sbatch=--exclude={nodes} sends them elsewhere"
        )


def check_inputs(plan: Plan) -> None:
    """Raises MissingInput, MissingWeights or PlanMismatch now, not in every task after hours in a queue."""
    from ..prepare import check_model

    check_model(plan.model)
    for video in plan.videos:
        if not Path(video.path).is_file():
            raise MissingInput(f"{video.path} is gone: put it back, or plan a new run with -o")


def write_scripts(submission: Submission) -> Path:
    """The folder with infer.sbatch, merge.sbatch and render.sbatch; the folder of their logs is made, too."""
    folder = make_folder(submission.run / "submit")
    make_folder(submission.run / "logs")  # where it is missing Slurm fails a job without a word
    for name, text in slurm.scripts(submission).items():
        write_bytes(folder / f"{name}.sbatch", text.encode())
    return folder


def dry_run(submission: Submission, tasks: Sequence[int]) -> str:
    """The scripts that were written and the lines that would submit them."""
    wanted, folder = submission.resources, write_scripts(submission)
    lines = slurm.shell_lines(folder, slurm.arrays(tasks, throttle=wanted.throttle), render=wanted.render)
    texts = [f"# {folder / name}.sbatch\n{text}" for name, text in slurm.scripts(submission).items()]
    return "\n".join([*texts, *lines])


def to_slurm(submission: Submission, tasks: Sequence[int], *, force: bool, progress: Progress) -> dict[str, Any]:
    """Submits the tasks, the merge and the film; returns what jobs.jsonl says of it.

    Raises Held while tasks of an earlier submission wait or run, unless `force`; UsageError for what Slurm refuses, and
    then nothing is submitted.
    """
    run, wanted = submission.run, submission.resources
    waiting = slurm.queued(job for sent in sent_before(run) for job in sent["infer"])
    if waiting and not force:
        raise Held(f"tasks of {run} wait or run in {', '.join(waiting)}: let them end, scancel them, or give --force")
    arrays = slurm.arrays(tasks, slurm.max_array_size(), wanted.throttle)
    folder = write_scripts(submission)
    infer, merge, render = (folder / f"{name}.sbatch" for name in ("infer", "merge", "render"))
    for words in (
        *(slurm.infer_words(infer, array) for array in arrays[:1]),
        slurm.merge_words(merge, []),
        *([slurm.render_words(render, [])] if wanted.render else []),
    ):
        slurm.check(words)
    sent: dict[str, Any] = {"time": round(time.time(), 3), "array": array_spec(tasks), "infer": [], "offsets": []}
    try:
        for array in arrays:
            sent["infer"].append(slurm.submit(slurm.infer_words(infer, array)))
            sent["offsets"].append(array.offset)
            progress.say(f"job {sent['infer'][-1]}: --array={array}")
        sent["merge"] = slurm.submit(slurm.merge_words(merge, sent["infer"]))
        if wanted.render:
            sent["render"] = slurm.submit(slurm.render_words(render, [sent["merge"]]))
    finally:
        if sent["infer"] or "merge" in sent:
            record(run, {**sent, "resources": asdict(wanted)})
    return sent


def sent_before(run: Path) -> list[dict[str, Any]]:
    """What was submitted of this run, in order; a line that was cut off is left out."""
    try:
        lines = (run / "submit" / "jobs.jsonl").read_text().splitlines()
    except OSError:
        return []
    sent = []
    for line in lines:
        try:
            sent.append(json.loads(line))
        except ValueError:
            continue
    return sent


def record(run: Path, sent: Mapping[str, Any]) -> None:
    """Adds a line to jobs.jsonl; a line that was cut off before it stays alone."""
    path = run / "submit" / "jobs.jsonl"
    try:
        with open(path, "ab+") as file:
            cut_off = file.tell() and os.pread(file.fileno(), 1, file.tell() - 1) != b"\n"
            file.write((b"\n" if cut_off else b"") + json.dumps(sent).encode() + b"\n")
    except OSError as error:
        raise write_error(path, error) from error


def resources_of(run: Path, given: Mapping[str, Any], *, local: bool, again: bool) -> Resources:
    """The resources that are given, the others as they were at the last submission if this is one `again`.

    The device follows the GPU that was asked for: a node without one says so (69) rather than computing on its CPU.
    """
    before = sent_before(run)[-1:] if again else []
    wanted = {**(before[0]["resources"] if before else {}), **given}
    if "gpu" in given or "device" not in wanted:
        wanted["device"] = given.get("device") or (
            "cpu" if wanted.get("gpu") == "none" else "auto" if local else "cuda"
        )
    return Resources(**{**wanted, "extra": tuple(wanted.get("extra", ()))})


def here(submission: Submission, tasks: Sequence[int], *, progress: Progress, stop: Stop) -> None:
    """The same scripts as processes of this machine, `throttle` tasks at a time, each with the log it would have there.

    Raises Stopped when `stop` names a reason, else the error of what failed; tasks behind one that failed are done.
    """
    run, wanted, folder = submission.run, submission.resources, write_scripts(submission)
    waiting, running, codes = list(tasks), dict[int, subprocess.Popen[bytes]](), dict[int, int]()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, wanted.throttle):
                task = waiting.pop(0)
                with open(run / "logs" / f"infer-local_{task}.log", "ab") as log:
                    running[task] = _start(folder / "infer.sbatch", log=log, SLURM_ARRAY_TASK_ID=str(task))
            for task in [task for task, process in running.items() if process.poll() is not None]:
                codes[task] = running.pop(task).returncode
                progress.say(f"task {task}: {f'left with {codes[task]}' if codes[task] else 'done'}")
            if reason := stop():
                raise stopped(reason, f"{counted(len(waiting) + len(running), 'task')} of {run} not done")
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if failed := sorted(task for task, code in codes.items() if code):
        log = run / "logs" / f"infer-local_{failed[0]}.log"
        raise _failed(f"{tasks_named(failed)} of {run} failed: see {log}, then run again", codes[failed[0]])
    for name in ("merge", "render") if wanted.render else ("merge",):
        if reason := stop():
            raise stopped(reason, f"{run} is computed, and not merged")
        process = _start(folder / f"{name}.sbatch")
        if code := process.wait():
            raise _failed(f"the {name} of {run} failed", code)


def _start(script: Path, *, log: IO[bytes] | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """A script outside of Slurm. A job that this process may be part of is none of its business, nor to be requeued."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "STREAMSAL_TASK_"))}
    errors = subprocess.STDOUT if log else None
    return subprocess.Popen(["bash", str(script)], env={**clean, **environment}, stdout=log, stderr=errors)


def _failed(text: str, code: int) -> StreamsalError:
    error = StreamsalError(text)
    error.exit_code = code if code > 0 else 70
    return error

"""A planned run or a study in, its tasks on a cluster or side by side on this machine, and behind them the other steps.

Writes the scripts into FOLDER/submit, checks what can be checked before anything waits in a queue, and records what was
sent in FOLDER/submit/jobs.jsonl. What is missing comes from the shards alone, never from what a scheduler remembers.
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
from .steps import Resources, Submission

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
    """The folder with a script for each step; the folder of their logs is made, too."""
    folder = make_folder(submission.folder / "submit")
    make_folder(submission.folder / "logs")  # where it is missing Slurm fails a job without a word
    for name, text in slurm.scripts(submission).items():
        write_bytes(folder / f"{name}.sbatch", text.encode())
    return folder


def dry_run(submission: Submission, tasks: Sequence[int]) -> str:
    """The scripts that were written and the lines that would submit them."""
    folder, arrays = write_scripts(submission), slurm.arrays(tasks, throttle=submission.resources.throttle)
    texts = [f"# {folder / name}.sbatch\n{text}" for name, text in slurm.scripts(submission).items()]
    return "\n".join([*texts, *slurm.shell_lines(folder, submission.steps, arrays)])


def to_slurm(submission: Submission, tasks: Sequence[int], *, force: bool, progress: Progress) -> dict[str, Any]:
    """Submits the tasks and the steps behind them; returns what jobs.jsonl says of it: jobs by the names of steps.

    Raises Held while tasks of an earlier submission wait or run, unless `force`; UsageError for what Slurm refuses, and
    then nothing is submitted.
    """
    folder, wanted = submission.folder, submission.resources
    first, *others = submission.steps
    waiting = slurm.queued(job for sent in sent_before(folder) for job in sent.get(first.name, []))
    if waiting and not force:
        raise Held(
            f"tasks of {folder} wait or run in {', '.join(waiting)}: let them end, scancel them, or give --force"
        )
    arrays = slurm.arrays(tasks, slurm.max_array_size(), wanted.throttle)
    scripts = write_scripts(submission)
    script = {step.name: scripts / f"{step.name}.sbatch" for step in submission.steps}
    for array in arrays[:1]:
        slurm.check(slurm.array_words(script[first.name], array))
    for step in others:
        slurm.check(slurm.job_words(script[step.name], step, []))
    sent: dict[str, Any] = {"time": round(time.time(), 3), "array": array_spec(tasks), first.name: [], "offsets": []}
    try:
        for array in arrays:
            sent[first.name].append(slurm.submit(slurm.array_words(script[first.name], array)))
            sent["offsets"].append(array.offset)
            progress.say(f"job {sent[first.name][-1]}: --array={array}")
        after = sent[first.name]
        for step in others:
            sent[step.name] = slurm.submit(slurm.job_words(script[step.name], step, after))
            after = [sent[step.name]]
    finally:
        if any(sent.get(step.name) for step in submission.steps):
            record(folder, {**sent, "resources": asdict(wanted)})
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
    folder, wanted, scripts = submission.folder, submission.resources, write_scripts(submission)
    first, *others = submission.steps
    log = str(folder / "logs" / f"{first.name}-local_{{}}.log")
    waiting, running, codes = list(tasks), dict[int, subprocess.Popen[bytes]](), dict[int, int]()
    try:
        while waiting or running:
            while waiting and len(running) < max(1, wanted.throttle):
                task = waiting.pop(0)
                with open(log.format(task), "ab") as file:
                    running[task] = _start(scripts / f"{first.name}.sbatch", log=file, SLURM_ARRAY_TASK_ID=str(task))
            for task in [task for task, process in running.items() if process.poll() is not None]:
                codes[task] = running.pop(task).returncode
                progress.say(f"task {task}: {f'left with {codes[task]}' if codes[task] else 'done'}")
            if reason := stop():
                raise stopped(reason, f"{counted(len(waiting) + len(running), 'task')} of {folder} not done")
            time.sleep(0.1)
    finally:
        for process in running.values():
            process.terminate()
        for process in running.values():
            process.wait()
    if failed := sorted(task for task, code in codes.items() if code):
        text = f"{tasks_named(failed)} of {folder} failed: see {log.format(failed[0])}, then run again"
        raise _failed(text, codes[failed[0]])
    for step in others:
        if reason := stop():
            raise stopped(reason, f"the tasks of {folder} are done, its {step.name} is not")
        process = _start(scripts / f"{step.name}.sbatch")
        if code := process.wait():
            raise _failed(f"the {step.name} of {folder} failed", code)


def _start(script: Path, *, log: IO[bytes] | None = None, **environment: str) -> subprocess.Popen[bytes]:
    """A script outside of Slurm. A job that this process may be part of is none of its business, nor to be requeued."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM_", "STREAMSAL_TASK_"))}
    errors = subprocess.STDOUT if log else None
    return subprocess.Popen(["bash", str(script)], env={**clean, **environment}, stdout=log, stderr=errors)


def _failed(text: str, code: int) -> StreamsalError:
    error = StreamsalError(text)
    error.exit_code = code if code > 0 else 70
    return error

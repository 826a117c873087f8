"""What Slurm says of a run's tasks, one question per job array. Nothing depends on it: the run directory decides."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path

from ..status import TaskStatus

TIMEOUT_SECONDS = 30


class NoSlurm(Exception):
    """Slurm is not here or does not answer; the message says which."""


def queue_states(run: Path, tasks: Iterable[TaskStatus]) -> dict[int, str]:
    """Slurm's state, with its reason, of the newest job of each task that is not done, as far as Slurm remembers it.

    Raises NoSlurm.
    """
    jobs = _submitted(run)
    unfinished = [task for task in tasks if task.state != "done"]
    for task in unfinished:
        if task.job and _number(task.job) >= _number(jobs.get(task.task, "")):
            jobs[task.task] = task.job
    jobs = {task.task: jobs[task.task] for task in unfinished if task.task in jobs}
    states: dict[str, str] = {}
    for job in sorted({job.partition("_")[0] for job in jobs.values()}):
        states.update(_ask(job))
    return {task: states[job] for task, job in jobs.items() if job in states}


def _submitted(run: Path) -> dict[int, str]:
    """The job of each task by what `streamsal submit` noted, later submissions before earlier ones."""
    jobs: dict[int, str] = {}
    try:
        lines = (run / "submit" / "jobs.jsonl").read_text().splitlines()
    except OSError:
        return jobs
    for line in lines:
        try:
            sent = json.loads(line)
            for job, offset in zip(sent["infer"], sent.get("offsets", [0]), strict=False):
                jobs |= {task: f"{job}_{task - offset}" for task in tasks_of(sent["array"]) if task >= offset}
        except (KeyError, TypeError, ValueError):
            continue  # cut off, or not of ours
    return jobs


def tasks_of(spec: str) -> Iterator[int]:
    """The numbers in an array spec: "0-2,7" is 0, 1, 2, 7."""
    for part in filter(None, spec.partition("%")[0].split(",")):
        first, _, last = part.partition("-")
        yield from range(int(first), int(last or first) + 1)


def _number(job: str) -> int:
    """Slurm counts jobs up, so that the larger number is the newer job."""
    number = job.partition("_")[0]
    return int(number) if number.isdecimal() else -1


def _ask(job: str) -> dict[str, str]:
    command = ["squeue", "-h", "-r", "-t", "all", "-j", job, "-o", "%i|%T|%r"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS)
    except FileNotFoundError:
        raise NoSlurm("there is no squeue on this machine, so Slurm's column is left out") from None
    except subprocess.TimeoutExpired:
        raise NoSlurm(f"squeue gave no answer within {TIMEOUT_SECONDS} s, so Slurm's column is left out") from None
    if asked.returncode and "Invalid job id" not in asked.stderr:  # which is how it says that it has forgotten one
        said = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
        raise NoSlurm(f"squeue failed ({said}), so Slurm's column is left out")
    rows = (line.split("|", 2) for line in asked.stdout.splitlines() if line.count("|") >= 2)
    return {name: state if reason in ("None", "") else f"{state} ({reason})" for name, state, reason in rows}

"""What a scheduler's environment says of an array: which tasks this process is to compute, and how many there are.

Only what is certain is taken from it. A plan owns the partition; the environment merely names tasks of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import UsageError


def task_numbers(environment: Mapping[str, str], task_id: str | None, base: int, n_tasks: int) -> Sequence[int]:
    """The tasks to compute: --task-id, else the scheduler's, else all in turn (`any`: all that are free)."""
    text = task_id or environment.get("SLURM_ARRAY_TASK_ID") or environment.get("JOB_COMPLETION_INDEX") or "all"
    if text in ("any", "all"):
        return range(n_tasks)
    try:
        task = int(text) - base
    except ValueError:
        raise UsageError(f"--task-id {text!r} is neither a number nor `any`") from None
    if task < 0:
        raise UsageError(f"task id {text} is below the first task, {base}")
    return [task]


def number_of_tasks(environment: Mapping[str, str], task_id: str | None, base: int) -> int:
    """N from the scheduler's environment, where that is certain: an array base ... base + N - 1 without gaps.

    1 outside of an array, if no task is named. Raises UsageError otherwise: a sparse or resubmitted array, or a task's
    number alone, does not know N.
    """
    count = environment.get("SLURM_ARRAY_TASK_COUNT")
    first, last = environment.get("SLURM_ARRAY_TASK_MIN"), environment.get("SLURM_ARRAY_TASK_MAX")
    if count:
        if (first, last) == (str(base), str(base + int(count) - 1)):
            return int(count)
        numbers = f"from {first} to {last}" if first and last else "of unknown numbers"
        known = f"the array has {count} tasks {numbers}, which may be a part of them"
    elif environment.get("SLURM_ARRAY_TASK_ID") or environment.get("JOB_COMPLETION_INDEX"):
        known = "the scheduler does not say"
    elif task_id not in (None, "any"):
        known = f"--task-id {task_id} alone does not say"
    else:
        return 1
    raise UsageError(
        f"how many tasks are there in all? {known}: give --num-tasks N (and --task-base 1 if they count from 1), "
        "or plan first"
    )


def job_facts(environment: Mapping[str, str]) -> dict[str, Any]:
    """What the scheduler calls this job, as squeue shows it, how often it has started it again, and what it calls this
    node; empty outside."""
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID")
    if not job:
        return {}
    requeues = int(environment.get("SLURM_RESTART_COUNT") or 0)
    return {"job": job, "requeues": requeues, "node": environment.get("SLURMD_NODENAME", "")}

"""The steps of a run or a study in, batch scripts as text out; and the few things asked of Slurm itself.

The scripts are functions of their arguments alone, fully expanded, so that they can be read, edited and run by hand.
Knows no plan, no video and no model: tasks are numbers, commands are words.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import UsageError
from ..plan import array_spec
from .steps import Step, Submission

USUAL_ARRAY_SIZE = 1001  # Slurm's own default of MaxArraySize: indices 0 ... 1000

# The same text as in scripts/sbatch.
WAIT_AND_REQUEUE = r"""
# This script stays, because a program that was asked to stop cannot requeue its own job and still leave with 75. The
# program runs behind it: bash holds a trap back until a program in front has ended. USR1, the warning before the time
# limit, comes to the script alone. At TERM (limit, scancel, preemption) Slurm has decided already whether the job runs
# again, and a job that was cancelled must not come back.
program=$! ended=
trap 'kill -TERM "$program"' USR1
trap 'kill -TERM "$program"; ended=yes' TERM
while kill -0 "$program" 2>/dev/null; do wait "$program"; done
wait "$program"
code=$?
restarts=${SLURM_RESTART_COUNT:-0}
if [[ $code =~ ^(75|143)$ && -z $ended && $restarts -lt ${STREAMSAL_REQUEUES:-10} && -v SLURM_JOB_ID ]]; then
    # 143: stopped before it could listen. Never the bare id of an array's task: the last one has the array's own, and
    # would take all others with it.
    trap : USR1 TERM # the requeue ends this script
    scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}${SLURM_ARRAY_JOB_ID:+_$SLURM_ARRAY_TASK_ID}" && sleep 60
fi
exit $code
""".lstrip("\n")


def scripts(submission: Submission) -> dict[str, str]:
    """The text of each batch script, by the name of its step."""
    return {step.name: script(submission, step) for step in submission.steps}


def script(submission: Submission, step: Step) -> str:
    """A batch script. A task's number may lie above what one array can hold: see `arrays`."""
    wanted = submission.resources
    command = _words(*submission.program, *step.words)
    if step.number:
        command += f' {step.number} "$((SLURM_ARRAY_TASK_ID + ${{STREAMSAL_TASK_OFFSET:-0}}))"'
    threads = "${SLURM_CPUS_PER_TASK:-1}"
    return "\n".join(
        [
            "#!/bin/bash",
            "# Written by `streamsal submit`; with --dry-run it prints the sbatch lines that go with it.",
            *(
                f"#SBATCH --{key}={_quoted(str(value))}"
                for key, value in _directives(submission, step).items()
                if value
            ),
            "#SBATCH --requeue",
            *(f"#SBATCH {_quoted(word)}" for word in wanted.extra),
            "",
            *([f". {shlex.quote(submission.site)} || exit 2"] if submission.site else []),
            "export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1",
            f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}",
            "",
            f"exec {command}\n" if step.number is None else f"{command} &\n\n{WAIT_AND_REQUEUE}",
        ]
    )


def _directives(submission: Submission, step: Step) -> dict[str, object]:
    """By their names; empty ones are left out of the script."""
    if "\\" in str(submission.folder):  # in a log's name it turns off Slurm's patterns: all tasks would share one log
        raise UsageError(f"{submission.folder} cannot be told to Slurm: it holds a backslash; choose another with -o")
    if not re.fullmatch(r"[\w.+-]+", step.gpu):
        raise UsageError(f"--gpu {step.gpu} is no type of GPU: name one as `sinfo -o %G` does, or any, or none")
    logs = str(submission.folder / "logs").replace("%", "%%")
    return {
        "job-name": step.name,
        "partition": submission.resources.partition,
        "account": submission.resources.account,
        "gres": {"none": "", "any": "gpu:1"}.get(step.gpu, f"gpu:{step.gpu}:1"),
        "cpus-per-task": step.cpus,
        "mem": step.mem,
        "time": step.time,
        "signal": "" if step.number is None else "B:USR1@120",
        "open-mode": "append",  # a task that comes back goes on in the same log
        "output": f"{logs}/{step.name}-{'%j' if step.number is None else '%A_%a'}.log",
    }


def _words(*words: object) -> str:
    return shlex.join(map(str, words))


def _quoted(text: str) -> str:
    """As sbatch reads a word of an #SBATCH line: in double quotes where it holds more than plain characters."""
    if "\n" in text:
        raise UsageError(f"{text!r} cannot be told to Slurm: it holds a line break; choose another")
    if re.fullmatch(r"[\w%@=:.,/+-]+", text):
        return text
    return '"' + re.sub(r'(["\\])', r"\\\1", text) + '"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Array:
    """Tasks that go into one job array: task = index + offset."""

    offset: int
    spec: str

    def __str__(self) -> str:
        return f"{self.spec} + {self.offset}" if self.offset else self.spec


def arrays(tasks: Iterable[int], size: int = USUAL_ARRAY_SIZE, throttle: int = 0) -> list[Array]:
    """Job arrays for these tasks, of which Slurm takes indices below `size`; `throttle` of each run at a time."""
    groups: dict[int, list[int]] = {}
    for task in sorted(set(tasks)):
        groups.setdefault(task // size * size, []).append(task % size)
    limit = f"%{throttle}" if throttle else ""
    return [Array(offset=offset, spec=array_spec(indices) + limit) for offset, indices in groups.items()]


def array_words(script: Path, array: Array) -> list[str]:
    offset = [f"--export=ALL,STREAMSAL_TASK_OFFSET={array.offset}"] if array.offset else []
    return ["sbatch", "--parsable", f"--array={array.spec}", *offset, str(script)]


def job_words(script: Path, step: Step, after: Sequence[str]) -> list[str]:
    """A step behind others: one that looks for itself what is missing (its log says so) waits for any end of theirs."""
    dependency = [f"--dependency=after{step.after}:{':'.join(after)}"] if after else []
    return [
        "sbatch",
        "--parsable",
        *dependency,
        *(["--kill-on-invalid-dep=yes"] if step.after == "ok" else []),
        str(script),
    ]


def shell_lines(scripts: Path, steps: Sequence[Step], arrays: Sequence[Array]) -> list[str]:
    """What `submit` does, as lines for a shell."""
    tasks, *others = steps
    jobs = [f"{tasks.name}{number}" for number in range(len(arrays))] if len(arrays) > 1 else [tasks.name] * len(arrays)
    lines = [
        f"{job}=$({_shell(array_words(_file(scripts, tasks), array))})" for job, array in zip(jobs, arrays, strict=True)
    ]
    for step in others:
        lines.append(f"{step.name}=$({_shell(job_words(_file(scripts, step), step, [f'${{{job}}}' for job in jobs]))})")
        jobs = [step.name]
    return lines


def _file(folder: Path, step: Step) -> Path:
    return folder / f"{step.name}.sbatch"


def _shell(words: Sequence[str]) -> str:
    """Quoted for a shell, except what refers to a job of an earlier line."""
    return " ".join(word if word.startswith("--dependency=") else shlex.quote(word) for word in words)


def require_slurm() -> None:
    if shutil.which("sbatch") is None:
        raise UsageError(
            "there is no sbatch on this machine: submit on a login node of the cluster, run the tasks here with "
            "--backend local, or see the scripts with --dry-run"
        )


def max_array_size() -> int:
    """What this cluster's array indices have to be below."""
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", _call(["scontrol", "show", "config"]), re.MULTILINE)
    return int(found[1]) if found else USUAL_ARRAY_SIZE


def check(words: Sequence[str]) -> None:
    """Raises UsageError with Slurm's own words where it would refuse the job. Submits nothing."""
    _call([words[0], "--test-only", *words[1:]])


def submit(words: Sequence[str]) -> str:
    """The id of the new job."""
    return _call(words).strip().partition(";")[0]  # id;cluster in a federation


def queued(jobs: Iterable[str]) -> list[str]:
    """Which of these jobs wait or run. Asks for all of the user's, because one that Slurm forgot is an error."""
    waiting = set(_call(["squeue", "--noheader", "--array", f"--user={os.getuid()}", "--format=%F"]).split())
    return [job for job in jobs if job in waiting]


def _call(words: Sequence[str]) -> str:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        raise UsageError(f"{words[0]} cannot be run here ({error.strerror}): is this a login node?") from None
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"it left with {done.returncode}"]
        raise UsageError(f"Slurm refuses `{_words(*words)}`: {said[-1]}")
    return done.stdout

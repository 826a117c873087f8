"""A run and what a user wants of a cluster in, batch scripts as text out; and the few things asked of Slurm itself.

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

USUAL_ARRAY_SIZE = 1001  # Slurm's own default of MaxArraySize: indices 0 ... 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What is asked of the cluster; every field has the meaning of the option of that name.

    `gpu` is a type as `sinfo -o %G` names it, "any", or "none". `extra` are words for every sbatch, such as --qos=long.
    """

    gpu: str = "any"
    time: str = "2:00:00"
    partition: str = ""
    account: str = ""
    cpus: int = 4
    mem: str = "16G"
    throttle: int = 0
    device: str = "cuda"
    stage: bool = False
    render: bool = False
    style: str = "overlay"
    extra: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """One run on a cluster. `run` is absolute, `program` the words that start streamsal on a compute node.

    `site` is a file that every script reads first: modules, environment. Empty: none. `second_pass`: the merge computes
    what the model derives of the stored outputs, and gets what a task gets.
    """

    run: Path
    program: tuple[str, ...]
    resources: Resources
    site: str = ""
    second_pass: bool = False


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
    return {"infer": infer_script(submission), "merge": merge_script(submission), "render": render_script(submission)}


def infer_script(submission: Submission) -> str:
    """One task of the array, whose number may lie above what one array can hold: see `arrays`."""
    wanted = submission.resources
    command = _words(*submission.program, "infer", submission.run, "--device", wanted.device)
    command += ' --task-id "$((SLURM_ARRAY_TASK_ID + ${STREAMSAL_TASK_OFFSET:-0}))"'
    if wanted.stage:
        command += " --stage"
    directives = {**_what_computing_gets(wanted), "signal": "B:USR1@120"}
    return _script(submission, "infer", "%A_%a", directives, f"{command} &\n\n{WAIT_AND_REQUEUE}")


def merge_script(submission: Submission) -> str:
    wanted, command = submission.resources, _words(*submission.program, "merge", submission.run)
    directives: dict[str, object] = {"cpus-per-task": 1, "mem": "2G", "time": "0:30:00"}
    if submission.second_pass:
        command += f" --device {wanted.device}"
        directives = _what_computing_gets(wanted)
    return _script(submission, "merge", "%j", directives, f"exec {command}\n")


def _what_computing_gets(wanted: Resources) -> dict[str, object]:
    gpu = {"none": "", "any": "gpu:1"}.get(wanted.gpu, f"gpu:{wanted.gpu}:1")
    return {"gres": gpu, "cpus-per-task": wanted.cpus, "mem": wanted.mem, "time": wanted.time}


def render_script(submission: Submission) -> str:
    wanted = submission.resources
    command = _words(*submission.program, "render", submission.run, "--style", wanted.style, "--jobs", wanted.cpus)
    directives = {"cpus-per-task": wanted.cpus, "mem": wanted.mem, "time": "2:00:00"}
    return _script(submission, "render", "%j", directives, f"exec {command}\n")


def _script(submission: Submission, name: str, number: str, directives: dict[str, object], body: str) -> str:
    """A batch script. `number` is Slurm's pattern for the job in the log's name; empty directives are left out."""
    wanted = submission.resources
    if "\\" in str(submission.run):  # in a log's name it turns off Slurm's patterns, and all tasks would share one log
        raise UsageError(f"{submission.run} cannot be told to Slurm: it holds a backslash; choose another run with -o")
    logs = str(submission.run / "logs").replace("%", "%%")
    directives = {
        "job-name": name,
        "partition": wanted.partition,
        "account": wanted.account,
        **directives,
        "open-mode": "append",  # a task that comes back goes on in the same log
        "output": f"{logs}/{name}-{number}.log",
    }
    lines = [f"--{key}={_quoted(str(value))}" for key, value in directives.items() if value != ""]
    lines += ["--requeue", *map(_quoted, wanted.extra)]
    threads = "${SLURM_CPUS_PER_TASK:-1}"
    return "\n".join(
        [
            "#!/bin/bash",
            "# Written by `streamsal submit`; with --dry-run it prints the sbatch lines that go with it.",
            *(f"#SBATCH {line}" for line in lines),
            "",
            *([f". {shlex.quote(submission.site)} || exit 2"] if submission.site else []),
            "export PYTHONUNBUFFERED=1 PYTHONFAULTHANDLER=1",
            f"export OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}",
            "",
            body,
        ]
    )


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


def infer_words(script: Path, array: Array) -> list[str]:
    offset = [f"--export=ALL,STREAMSAL_TASK_OFFSET={array.offset}"] if array.offset else []
    return ["sbatch", "--parsable", f"--array={array.spec}", *offset, str(script)]


def merge_words(script: Path, after: Sequence[str]) -> list[str]:
    """After all tasks, however they ended: merging proves itself that none is missing, and its log says which are."""
    return ["sbatch", "--parsable", *_dependency("afterany", after), str(script)]


def render_words(script: Path, after: Sequence[str]) -> list[str]:
    return ["sbatch", "--parsable", *_dependency("afterok", after), "--kill-on-invalid-dep=yes", str(script)]


def _dependency(kind: str, after: Sequence[str]) -> list[str]:
    return [f"--dependency={kind}:{':'.join(after)}"] if after else []


def shell_lines(scripts: Path, infer: Sequence[Array], *, render: bool) -> list[str]:
    """What `submit` does, as lines for a shell."""
    jobs = [f"infer{number}" for number in range(len(infer))] if len(infer) > 1 else ["infer"] * len(infer)
    lines = [
        f"{job}=$({_shell(infer_words(scripts / 'infer.sbatch', array))})"
        for job, array in zip(jobs, infer, strict=True)
    ]
    lines.append(f"merge=$({_shell(merge_words(scripts / 'merge.sbatch', [f'${{{job}}}' for job in jobs]))})")
    if render:
        lines.append(_shell(render_words(scripts / "render.sbatch", ["${merge}"])))
    return lines


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

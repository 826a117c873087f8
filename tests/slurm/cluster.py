"""A Slurm cluster of this machine's own for tests: jobs in, their states out, and ways to break it.

Everything goes through Slurm's own commands; what a job left on disk is for the tests to judge.
"""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

TOOL = Path(__file__).with_name("cluster.sh")
PATIENCE_SECONDS = 300  # before a test gives up: none of them waits on purpose
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "PREEMPTED", "OUT_OF_MEMORY"}


@dataclass(frozen=True, slots=True)
class Task:
    """What Slurm says of a job, or of one task of an array."""

    state: str
    restarts: int
    code: int  # as a shell would say it: 128 + N for signal N
    node: str

    @property
    def ended(self) -> bool:
        return self.state in ENDED


Tasks = dict[int, Task]  # a job that is no array is its own task 0


@dataclass(frozen=True, slots=True)
class Cluster:
    folder: Path
    environment: Mapping[str, str]

    def call(self, *command: str | Path, cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
        environment = {**self.environment, **(env or {})}
        done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True)
        assert not done.returncode, f"{' '.join(map(str, command))}: {done.stderr}"
        return done.stdout.strip()

    def sbatch(self, *arguments: str | Path, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """Submits from a folder; `env` is what the user has exported."""
        return self.call("sbatch", "--parsable", *arguments, cwd=cwd, env=env)

    def tasks(self, job: str) -> Tasks:
        columns = "ArrayTaskID:12,State:16,RestartCnt:12,exit_code:12,NodeList:12"
        lines = self.call("squeue", "-r", "-t", "all", "-h", "-j", job, "-O", columns).splitlines()
        fields = [[*line.split(), ""] for line in lines]
        return {
            0 if task == "N/A" else int(task): Task(state, int(restarts), shell_code(int(status)), node)
            for task, state, restarts, status, node, *_ in fields
        }

    def wait(
        self, job: str, condition: Callable[[Tasks], bool], *, patience_seconds: float = PATIENCE_SECONDS
    ) -> Tasks:
        """Until the job's tasks are so. A requeued one waits 5 s: started earlier it could be refused."""
        give_up = time.monotonic() + patience_seconds
        while not condition(tasks := self.tasks(job)):
            assert time.monotonic() < give_up, f"job {job} stays {tasks}"
            time.sleep(0.3)
        return tasks

    def finish(self, job: str) -> Tasks:
        return self.wait(job, lambda tasks: all(task.ended for task in tasks.values()))

    def crash(self, node: str) -> None:
        self.call(TOOL, "crash", self.folder, node, "--notify")

    def heal(self, node: str) -> None:
        self.call(TOOL, "heal", self.folder, node)


def shell_code(wait_status: int) -> int:
    return 128 + (wait_status & 127) if wait_status & 127 else wait_status >> 8


@contextmanager
def running(folder: Path, environment: Mapping[str, str], *options: str) -> Iterator[Cluster]:
    """Three nodes, the first with two GPUs of one type, the second with one each of two others, the third without,
    unless `options` of the tool say otherwise."""
    started = subprocess.run([TOOL, "up", folder, "--grace", "1", *options], capture_output=True, text=True)
    assert not started.returncode, started.stderr
    name, _, value = started.stdout.strip().removeprefix("export ").partition("=")
    try:
        yield Cluster(folder, {**environment, name: value})
    finally:
        subprocess.run([TOOL, "down", folder, "--purge"], capture_output=True, check=True)

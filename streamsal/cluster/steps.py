"""What is asked of a cluster, in no cluster's words: a folder, the steps to be done there, and what each of them gets.

The first step is an array of tasks, which are numbers to it; the others are one job each, one after the other. Scripts
and manifests are made of them in `slurm` and `kubernetes`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What is asked of the cluster; every field has the meaning of the option of that name.

    `gpu` is a type as the cluster names it, "any", or "none". `extra` are words for every sbatch, such as --qos=long.
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
class Step:
    """`words` are those behind the program's name; `number` is the option that tells a task of an array its number, ""
    where there is but one task, which needs none. None: a job that is no array.

    `after`: "any": whatever became of the step before, since this one looks for itself; "ok": only if that succeeded.
    """

    name: str
    words: tuple[str, ...]
    number: str | None = None
    after: Literal["any", "ok"] = "any"
    gpu: str = "none"
    cpus: int = 1
    mem: str = "2G"
    time: str = "0:30:00"


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """`folder` is absolute, `program` the words that start streamsal on a node of the cluster.

    `site` is a file that every script reads first: modules, environment. Empty: none.
    """

    folder: Path
    resources: Resources
    program: tuple[str, ...] = ("streamsal",)
    site: str = ""

    @property
    def steps(self) -> tuple[Step, ...]:
        raise NotImplementedError

    @property
    def how_far(self) -> tuple[str, ...]:
        """The command that says so."""
        raise NotImplementedError

    def computing(self, name: str, *words: object, number: str | None = None) -> Step:
        """A step that gets all that the resources say."""
        wanted = self.resources
        return Step(
            name=name,
            words=tuple(map(str, words)),
            number=number,
            gpu=wanted.gpu,
            cpus=wanted.cpus,
            mem=wanted.mem,
            time=wanted.time,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run(Submission):
    """A planned run. `second_pass`: the merge computes what the model derives of the stored outputs."""

    second_pass: bool = False

    @property
    def how_far(self) -> tuple[str, ...]:
        return ("streamsal", "status", str(self.folder))

    @property
    def steps(self) -> tuple[Step, ...]:
        wanted, run = self.resources, str(self.folder)
        device = ("--device", wanted.device)
        infer = self.computing(
            "infer", "infer", run, *device, *(["--stage"] if wanted.stage else []), number="--task-id"
        )
        merge = Step(name="merge", words=("merge", run))
        if self.second_pass:
            merge = self.computing("merge", "merge", run, *device)
        words = ("render", run, "--style", wanted.style, "--jobs", str(wanted.cpus))
        render = Step(name="render", words=words, after="ok", cpus=wanted.cpus, mem=wanted.mem, time="2:00:00")
        return (infer, merge, render) if wanted.render else (infer, merge)

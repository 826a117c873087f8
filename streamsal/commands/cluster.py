"""Commands for a run that is computed elsewhere: submit and status."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import IncompleteRun, StreamsalError, UsageError
from ..progress import Progress, warn
from .asked import (
    check_style,
    check_tasks,
    check_unset,
    existing_run,
    is_run,
    new_run,
    progress_of,
    reporter,
    request_of,
    unset_options,
    warn_of_stand_ins,
)

if TYPE_CHECKING:
    from ..cluster.steps import Submission
    from ..plan import Plan


def status(arguments: argparse.Namespace) -> int:
    from ..cluster.watch import Look, show, watch
    from ..plan import counted, tasks_named

    run = existing_run(arguments.run)
    look = Look(run, arguments.slurm)
    found = (watch if arguments.watch else show)(look, as_json=arguments.json)
    if not found.complete:
        text = f"{run}: {found.summary()}; tasks not done: {found.missing}"
        silent = f"; silent for 10 minutes, so killed or held up: {found.stalled}, run these again"
        raise IncompleteRun(text + silent if found.stalled else text)
    if found.holes:
        tasks = [task.task for task in found.tasks if task.holes]
        text = f"{counted(found.holes, 'frame')} without a picture, NaN for a map ({tasks_named(tasks)})"
        warn(f"{run}: {text}: `streamsal probe --verify` names them")
    return 1 if found.holes else 0


def submit(arguments: argparse.Namespace) -> int:
    from ..cluster.slurm import require_slurm
    from ..cluster.submit import dry_run, here, sent_before, to_slurm
    from ..signals import stop_on_signals

    progress, place = progress_of(arguments), arguments.cluster
    _check_place(arguments)
    if place == "slurm" and not arguments.dry_run:
        require_slurm()
    failed: list[StreamsalError] = []
    of_study = any(name.endswith(".toml") for name in arguments.inputs)
    made = _study(arguments) if of_study else _run(arguments, progress, failed)
    submission, folder = made.submission, made.submission.folder
    if not made.tasks:
        progress.say(f"{folder}: all tasks are done")
    if place == "k8s":
        _write_manifests(arguments, made)
        return 1 if failed else 0
    sent = sent_before(folder)
    if sent and not (place == "local" or arguments.dry_run or arguments.resume or arguments.force):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(sent[-1]["time"]))
        raise UsageError(
            f"{folder} was submitted on {when}: --resume sends the tasks that are not done, --force sends all again"
        )
    if arguments.dry_run:
        print(dry_run(submission, made.tasks))
    elif place == "local":
        with stop_on_signals() as stop:
            here(submission, made.tasks, progress=progress, stop=stop)
    else:
        jobs = to_slurm(submission, made.tasks, force=arguments.force, progress=progress)
        for step in submission.steps:
            print(step.name, *([jobs[step.name]] if step.number is None else jobs[step.name]))
        progress.say(f"how far it is: {shlex.join(submission.how_far)}")
    return 1 if failed else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What is to be submitted: `tasks` of the `n_tasks` there are. `reads`: what is read, by what it is."""

    submission: Submission
    tasks: Sequence[int]
    n_tasks: int
    reads: Mapping[str, str | Path]


def _run(arguments: argparse.Namespace, progress: Progress, failed: list[StreamsalError]) -> Made:
    from ..cluster.steps import Run
    from ..cluster.submit import missing_tasks, say_where_devices_failed
    from ..models import is_user_file, spec_of, weights_file
    from ..weights.cache import SYNTHETIC

    run, plan = _planned(arguments, progress, failed)
    spec = spec_of(plan.model.name, plan.model.weights or None, **plan.model.options)
    labels = bool(spec.outputs[0].labels)
    if arguments.render and spec.clip and not labels:
        raise UsageError(f"{spec.name} gives vectors, no maps that a film could show: leave --render out")
    check_style(arguments.style, spec)
    submission = Run(folder=run, second_pass=bool(spec.derived), **_asked_of_cluster(arguments, run))
    if labels:
        submission = replace(submission, resources=replace(submission.resources, style="labels"))
    tasks = missing_tasks(run, plan) if arguments.resume else range(len(plan.shards))
    if arguments.resume and arguments.cluster == "slurm":
        say_where_devices_failed(run, tasks, progress.say)
    weights = weights_file(plan.model.name, plan.model.weights or None)
    found = {"the weights file": "" if weights == SYNTHETIC else weights, "the center bias": plan.model.center_bias}
    found["the model"] = plan.model.name if is_user_file(plan.model.name) else ""
    reads = {"the run": run, **{f"the video {video.name},": video.path for video in plan.videos}}
    reads |= {what: path for what, path in found.items() if path}
    return Made(submission=submission, tasks=tasks, n_tasks=len(plan.shards), reads=reads)


def _study(arguments: argparse.Namespace) -> Made:
    """All cells that are not done, whether they were submitted before or not."""
    from ..cluster.study import Study, cells_of, inputs_of, rows_of

    if len(arguments.inputs) > 1:
        raise UsageError(
            "a configuration is submitted alone: several trainings are the cells of a [grid], or one by one"
        )
    config = Path(os.path.abspath(arguments.inputs[0]))
    given = [f"--{name}" for name in ("tasks", "stage", "render", "style") if getattr(arguments, name) is not None]
    if options := ", ".join(filter(None, [unset_options(arguments), *given])):
        raise UsageError(f"{options} is for runs, and {config.name} says how to train: leave it out")
    cells, grid = cells_of(config)
    folder = Path(os.path.abspath(arguments.output or f"{config.stem}.training"))
    reads = {"the study": folder, "the configuration": config, **inputs_of(cell.config for cell in cells)}
    tasks = [row.index for row in rows_of(folder, cells, grid=grid) if row.state != "done"]
    submission = Study(folder=folder, config=config, grid=grid, **_asked_of_cluster(arguments, folder))
    return Made(submission=submission, tasks=tasks, n_tasks=len(cells), reads=reads)


def _asked_of_cluster(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    from ..cluster.submit import resources_of

    given = {name: value for name in RESOURCES if (value := getattr(arguments, name)) is not None}
    if arguments.cluster == "k8s":
        return {"resources": resources_of(folder, given, local=False, again=False)}
    site, local = os.environ.get("STREAMSAL_ENV", ""), arguments.cluster == "local"
    return {
        "program": (sys.executable, "-m", "streamsal"),
        "resources": resources_of(folder, given, local=local, again=arguments.resume),
        "site": os.path.abspath(site) if site else "",
    }


def _write_manifests(arguments: argparse.Namespace, made: Made) -> None:
    """FOLDER/submit/STEP.yaml and what to type; with --dry-run on stdout alone."""
    from ..cluster.kubernetes import NOT_ROOT, Pods, as_yaml, check_visible, kubectl_lines, manifests
    from ..files import make_folder, write_bytes
    from ..weights.cache import home

    submission, mount = made.submission, Path(arguments.mount)
    folder, cache = submission.folder, home()
    pods = Pods(
        image=arguments.image,
        claim=arguments.claim,
        mount=mount,
        weights=cache if cache.is_relative_to(mount) else mount / ".streamsal",
        namespace=arguments.namespace or "",
        user=os.getuid() or NOT_ROOT,  # who submits owns the folder
        group=os.getgid() or NOT_ROOT,
    )
    check_visible(made.reads, pods)
    documents = {name: as_yaml(each) for name, each in manifests(submission, pods, made.n_tasks).items()}
    lines = kubectl_lines(submission, pods, again=arguments.resume)
    if arguments.dry_run:
        texts = [f"# {folder / 'submit' / name}.yaml\n{text}" for name, text in documents.items()]
        print("---\n".join(texts), *(f"# {line}" for line in lines), sep="\n")
        return
    for name, text in documents.items():
        write_bytes(make_folder(folder / "submit") / f"{name}.yaml", text.encode())
    print(*lines, sep="\n")


def _check_place(arguments: argparse.Namespace) -> None:
    """Options of another place, or of runs with a study, must not be there to be silently ignored."""
    place = arguments.cluster
    if place == "k8s" and not (arguments.image and arguments.claim):
        raise UsageError("--backend k8s needs --image, where pods get streamsal from, and --claim, where the data lies")
    if place == "k8s" and not os.path.isabs(arguments.mount):
        raise UsageError(f"--mount {arguments.mount} is no absolute path: name the claim's place in the pods, as /data")
    for option, places in OPTIONS_OF.items():
        if place not in places and getattr(arguments, option) is not None:
            name = "sbatch" if option == "extra" else option
            raise UsageError(f"--{name} is for --backend {' or '.join(places)}: leave it out")


def _planned(arguments: argparse.Namespace, progress: Progress, failed: list[StreamsalError]) -> tuple[Path, Plan]:
    """The run that is named, its inputs as planned, or the one that the named videos are planned into.

    Videos that cannot be planned are said and added to `failed`, where there are others.
    """
    from ..cluster.submit import check_inputs, usual_tasks
    from ..plan import Plan
    from ..prepare import find_videos, make_plan

    inputs, tasks = arguments.inputs, arguments.tasks
    if not inputs or (len(inputs) == 1 and is_run(Path(inputs[0]))):
        run = existing_run(inputs[0] if inputs else arguments.output)
        plan = Plan.load(run / "plan.json")
        check_unset(arguments, run)
        check_tasks(tasks, "--tasks", plan, run)
        check_inputs(plan)
    else:
        videos = find_videos(inputs)
        run = new_run(arguments.output, videos)
        request = request_of(arguments, tasks)
        if tasks is None:
            model, seconds = request.model, arguments.seconds_per_task
            request = replace(request, tasks=lambda planned: usual_tasks(planned, model, seconds, progress.say))
        on_rejected = reporter(arguments, failed) if len(videos) > 1 else None
        plan = make_plan(videos, run, request, on_rejected=on_rejected, say=progress.say)
    warn_of_stand_ins(plan)
    return Path(os.path.abspath(run)), plan


RESOURCES = (
    "gpu", "time", "partition", "account", "cpus", "mem", "throttle", "device", "stage", "render", "style", "extra",
)  # fmt: skip
OPTIONS_OF = {
    **dict.fromkeys(("time", "partition", "account", "extra"), ("slurm", "local")),
    **dict.fromkeys(("image", "claim", "namespace"), ("k8s",)),
}

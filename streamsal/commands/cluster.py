"""Commands for a run that is computed elsewhere: submit and status."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import IncompleteRun, StreamsalError, UsageError
from .asked import (
    check_tasks,
    check_unset,
    existing_run,
    is_run,
    new_run,
    progress_of,
    reporter,
    request_of,
    warn_of_stand_ins,
)

if TYPE_CHECKING:
    from ..plan import Plan
    from ..progress import Progress


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
        print(f"streamsal: {run}: {text}: `streamsal probe --verify` names them", file=sys.stderr)
    return 1 if found.holes else 0


def submit(arguments: argparse.Namespace) -> int:
    from ..cluster.slurm import require_slurm
    from ..cluster.steps import Run
    from ..cluster.submit import (
        dry_run,
        here,
        missing_tasks,
        resources_of,
        say_where_devices_failed,
        sent_before,
        to_slurm,
    )
    from ..models import spec_of
    from ..signals import stop_on_signals

    progress = progress_of(arguments)
    local = arguments.cluster == "local"
    if not (local or arguments.dry_run):
        require_slurm()
    failed: list[StreamsalError] = []
    run, plan = _planned(arguments, progress, failed)
    spec = spec_of(plan.model.name, plan.model.weights or None, **plan.model.options)
    if arguments.render and spec.clip and not spec.outputs[0].labels:
        raise UsageError(f"{spec.name} gives vectors, no maps that a film could show: leave --render out")
    sent = sent_before(run)
    if sent and not (local or arguments.dry_run or arguments.resume or arguments.force):
        when = time.strftime("%Y-%m-%d %H:%M", time.localtime(sent[-1]["time"]))
        raise UsageError(
            f"{run} was submitted on {when}: --resume sends the tasks that are not done, --force sends all again"
        )
    given = {name: value for name in RESOURCES if (value := getattr(arguments, name)) is not None}
    tasks = missing_tasks(run, plan) if arguments.resume else range(len(plan.shards))
    if arguments.resume and not local:
        say_where_devices_failed(run, tasks, progress.say)
    site = os.environ.get("STREAMSAL_ENV", "")
    submission = Run(
        folder=run,
        program=(sys.executable, "-m", "streamsal"),
        resources=resources_of(run, given, local=local, again=arguments.resume),
        site=os.path.abspath(site) if site else "",
        second_pass=bool(spec.derived),
    )
    if arguments.dry_run:
        print(dry_run(submission, tasks))
    elif local:
        with stop_on_signals() as stop:
            here(submission, tasks, progress=progress, stop=stop)
    else:
        jobs = to_slurm(submission, tasks, force=arguments.force, progress=progress)
        for step in submission.steps:
            print(step.name, *(jobs[step.name] if step.number else [jobs[step.name]]))
        progress.say(f"how far it is: streamsal status {run}")
    return 1 if failed else 0


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

"""Commands that plan and compute, here: plan, infer, run, embed, merge."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..cluster.scheduler import number_of_tasks, task_numbers
from ..errors import StreamsalError, UsageError
from ..progress import Progress, warn
from ..tables import print_facts
from .asked import (
    check_commercial_plan,
    check_style,
    check_tasks,
    check_unset,
    existing_run,
    fixations_of,
    is_run,
    new_run,
    progress_of,
    reporter,
    request_of,
    warn_of_stand_ins,
)
from .show import film_path, show

if TYPE_CHECKING:
    from ..merge import Run
    from ..plan import Plan
    from ..prepare import Request


def plan(arguments: argparse.Namespace) -> int:
    from ..prepare import find_videos, make_plan

    videos = find_videos(arguments.videos)
    run = new_run(arguments.output, videos)
    failed: list[StreamsalError] = []
    plan = make_plan(
        videos,
        run,
        request_of(arguments, arguments.tasks),
        on_rejected=reporter(arguments, failed) if len(videos) > 1 else None,
        say=progress_of(arguments).say,
    )
    warn_of_stand_ins(plan)
    rows = [
        [
            str(task),
            plan.videos[part.video].name,
            f"{part.start} ... {plan.owned(part)[-1]}",
            str(len(plan.owned(part))),
        ]
        for task, shard in enumerate(plan.shards)
        for part in shard
    ]
    print_facts(plan.to_dict(), rows, ["task", "video", "clips" if plan.of_clips else "frames", "results"], False)
    print(run)
    return 1 if failed else 0


def infer(arguments: argparse.Namespace) -> int:
    from ..plan import Plan, tasks_named
    from ..prepare import find_videos, make_plan
    from ..signals import stop_on_signals
    from ..task import Worker

    progress = progress_of(arguments)
    inputs = [Path(text) for text in arguments.inputs]
    if not inputs or (len(inputs) == 1 and is_run(inputs[0])):
        if arguments.output and not inputs:
            inputs = [Path(arguments.output)]
        run = existing_run(str(inputs[0]) if inputs else None)
        plan = Plan.load(run / "plan.json")
        check_unset(arguments, run)
        if arguments.commercial_only:
            check_commercial_plan(plan)
    else:
        videos = find_videos(arguments.inputs)
        run = new_run(arguments.output, videos)
        tasks = arguments.num_tasks
        if tasks is None and not (run / "plan.json").exists():
            tasks = number_of_tasks(os.environ, arguments.task_id, arguments.task_base)
        plan = make_plan(videos, run, request_of(arguments, tasks), say=progress.say)
    check_tasks(arguments.num_tasks, "--num-tasks", plan, run)
    warn_of_stand_ins(plan)
    with stop_on_signals() as stop:
        worker = Worker(
            run,
            device=arguments.device,
            decode_workers=arguments.decode_workers,
            progress=progress,
            stop=stop,
            stage=Path(tempfile.gettempdir()) if arguments.stage else None,
        )
        if arguments.task_id == "any":
            if held := worker.infer_free():
                progress.say(f"{tasks_named(held)} of {run}: others work on that; nothing else is left to do")
            return 0
        for task in task_numbers(os.environ, arguments.task_id, arguments.task_base, len(plan.shards)):
            worker.infer(task)
    return 0


def run(arguments: argparse.Namespace) -> int:
    from ..local import infer_all
    from ..merge import merge as merge_run
    from ..merge import open_run
    from ..models import spec_of
    from ..prepare import model_options
    from ..signals import stop_on_signals

    progress = progress_of(arguments)
    fixations, request = fixations_of(arguments), request_of(arguments, None)
    if fixations is not None or arguments.style:  # only then: a model file that does not say it is built for it
        spec = spec_of(request.model, request.weights, **model_options(request))
        if fixations is not None and not spec.derived:
            raise UsageError(f"{request.model} does not depend on fixations: leave --fixations out")
        check_style(arguments.style, spec)
    run, plan, devices, failed = _planned_here(arguments, progress)
    _warn_of_videos_without(plan, "result")
    workers = arguments.decode_workers
    with stop_on_signals() as stop:
        infer_all(run, devices, decode_workers=workers, progress=progress, stop=stop)
        merged = merge_run(run, fixations=fixations, device=arguments.device, progress=progress, stop=stop)
        for name, style in [] if arguments.no_render else _films(run, arguments.style):
            output = film_path(run, name, [video.name for video in plan.videos], style)
            print(show(run, output, arguments, video=name, should_stop=stop, progress=progress))
    for path in merged:
        print(path)
    with open_run(run) as opened:
        holes = _say_holes(opened, plan)
    return 1 if failed or holes else 0


def _films(run: Path, style: str | None) -> list[tuple[str, str]]:
    """Of every video with maps or labels its name and the style of its film, the wanted one or the usual."""
    from ..merge import open_run
    from ..render import fitting_style

    with open_run(run) as opened:
        of_clips = opened.plan and opened.plan.of_clips
        shown = [name for name in opened.videos if opened[name].first.labels or not of_clips]
        return [(name, style or fitting_style(opened, name)) for name in shown]


def embed(arguments: argparse.Namespace) -> int:
    from ..local import infer_all
    from ..merge import merge as merge_run
    from ..merge import open_run
    from ..signals import stop_on_signals
    from ..vectors.embed import check, list_frames, write

    progress, failed = progress_of(arguments), []
    if len(arguments.videos) == 1 and is_run(Path(arguments.videos[0])):
        run = Path(arguments.videos[0])
        plan, devices = _planned_before(arguments, run), [arguments.device]
    else:
        _check_gives_vectors(arguments)
        run, plan, devices, failed = _planned_here(arguments, progress)
    if arguments.list_frames:
        print(*list_frames(run, plan), sep="\n")
        return 1 if failed else 0
    asked = {name: getattr(arguments, name) for name in ("format", "aggregate", "array")}
    asked["statistics"] = arguments.statistic
    check(run, plan, **asked)
    _warn_of_videos_without(plan, "vector")
    workers = arguments.decode_workers
    with stop_on_signals() as stop:
        infer_all(run, devices, decode_workers=workers, progress=progress, stop=stop)
        merge_run(run, progress=progress, stop=stop)
    with open_run(run) as opened:
        for path in write(opened, run / "vectors", **asked):
            print(path)
        holes = _say_holes(opened, plan)
    return 1 if failed or holes else 0


def merge(arguments: argparse.Namespace) -> int:
    from ..cluster.watch import Look, watch
    from ..merge import merge as merge_run
    from ..signals import stop_on_signals

    run, fixations = existing_run(arguments.run), fixations_of(arguments)
    if arguments.wait:
        watch(Look(run, slurm=False), as_json=False)
    with stop_on_signals() as stop:
        merged = merge_run(
            run,
            materialise=arguments.materialise,
            verify=arguments.verify,
            fixations=fixations,
            device=arguments.device,
            progress=progress_of(arguments),
            stop=stop,
        )
    for path in merged:
        print(path)
    return 0


def _planned_before(arguments: argparse.Namespace, run: Path) -> Plan:
    """The plan of a run that `embed` goes on with or only writes the vectors of."""
    from ..plan import Plan

    plan = Plan.load(run / "plan.json")
    check_unset(arguments, run)
    check_tasks(arguments.tasks, "--tasks", plan, run)
    if arguments.output:
        raise UsageError(f"vectors of {run} go into {run / 'vectors'}: leave -o out")
    if arguments.commercial_only:
        check_commercial_plan(plan)
    return plan


def _check_gives_vectors(arguments: argparse.Namespace) -> None:
    """Raises UsageError for a model without vectors of clips, before videos are read and weights asked for."""
    from ..models import spec_of
    from ..prepare import model_options

    request = request_of(arguments, None)
    spec = spec_of(request.model, request.weights, **model_options(request))
    if spec.clip is None or "features" not in [output.name for output in spec.outputs]:
        raise UsageError(f"{request.model} gives no vectors of clips: take a clip model, or `streamsal run`")


def _planned_here(
    arguments: argparse.Namespace, progress: Progress
) -> tuple[Path, Plan, list[str], list[StreamsalError]]:
    """The run that is asked for, its plan, the devices of this machine that will compute it, and what is left out."""
    from ..local import cuda_devices
    from ..prepare import find_videos, make_plan

    videos = find_videos(arguments.videos)
    run = new_run(arguments.output, videos)
    failed: list[StreamsalError] = []
    devices = cuda_devices() if arguments.device == "auto" else []
    tasks = arguments.tasks or (None if (run / "plan.json").exists() else max(1, 4 * len(devices)))
    request = request_of(arguments, tasks)
    _offer_to_fetch(request, progress)
    on_rejected = reporter(arguments, failed) if len(videos) > 1 else None
    plan = make_plan(videos, run, request, on_rejected=on_rejected, say=progress.say)
    warn_of_stand_ins(plan)
    return run, plan, devices or [arguments.device], failed


def _warn_of_videos_without(plan: Plan, result: str) -> None:
    """`--tail drop` leaves nothing of a video shorter than a window."""
    for video in plan.videos:
        if video.start == video.stop:
            warn(f"{video.name}: no whole clip is in what was asked for, so no {result}")


def _say_holes(run: Run, plan: Plan) -> bool:
    """Names the frames without a picture; whether there are any."""
    from ..plan import counted

    stored = {video.name: run[video.name] for video in plan.videos if video.start < video.stop}
    holes = {name: maps.holes for name, maps in stored.items() if len(maps.holes)}
    for name, frames in holes.items():
        text = f"{name}: {counted(len(frames), 'hole')}, without a picture: frame {some_of(frames.tolist())}"
        warn(text)
    return bool(holes)


def some_of(frames: Sequence[int]) -> str:
    from ..plan import array_spec

    return array_spec(frames[:50]) + (" ..." if len(frames) > 50 else "")


def _offer_to_fetch(request: Request, progress: Progress) -> None:
    """On a terminal, asks whether weights that are missing shall be downloaded now."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    from ..models import check_commercial, missing_assets, usual_center_bias
    from ..prepare import model_options
    from ..weights.cache import fetch

    bias = str(model_options(request).get("center_bias", usual_center_bias(request.model)))
    if request.commercial_only:
        check_commercial(request.model, request.weights, bias)
    missing = missing_assets(request.model, weights=request.weights, center_bias=bias)
    if not missing:
        return
    for asset in missing:
        size = f" ({asset.megabytes} MB)" if asset.megabytes else ""
        print(f"missing: {asset.file}{size}, {asset.about}, licence: {asset.licence}", file=sys.stderr)
    print("fetch now? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        for asset in missing:
            fetch(asset.name, progress=progress)

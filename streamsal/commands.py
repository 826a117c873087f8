"""What each command does: arguments in, a call of the stage that does the work, results on stdout, an exit code out.

Progress and logs go to stderr. Each function imports what it needs when it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .catalog import list_models, progress_of, weights
from .cluster.scheduler import number_of_tasks, task_numbers
from .errors import IncompleteRun, MissingInput, PlanMismatch, StreamsalError, UsageError
from .tables import print_facts

# fmt: off
__all__ = [
    "bench", "demo", "embed", "evaluate", "export", "infer", "merge", "models", "plan", "probe", "render", "report",
    "run", "stats", "status", "submit", "weights",
]
# fmt: on

if TYPE_CHECKING:
    from .fixations import Source
    from .gaze.table import Gaze
    from .merge import Run
    from .plan import Plan
    from .prepare import Request
    from .progress import Progress
    from .timing import Timing


def demo(arguments: argparse.Namespace) -> int:
    from .demo import demo as make_demo

    make_demo(Path(arguments.output), progress=progress_of(arguments))
    return 0


def probe(arguments: argparse.Namespace) -> int:
    from .prepare import find_videos
    from .probe import probe as probe_all

    return probe_all(
        find_videos(arguments.videos),
        stream=arguments.stream,
        verify=arguments.verify,
        as_json=arguments.json,
        say=progress_of(arguments).say,
        on_failed=_report(arguments),
    )


def plan(arguments: argparse.Namespace) -> int:
    from .prepare import find_videos, make_plan

    videos = find_videos(arguments.videos)
    run = _new_run(arguments.output, videos)
    failed: list[StreamsalError] = []
    plan = make_plan(
        videos,
        run,
        _request(arguments, arguments.tasks),
        on_rejected=_report(arguments, failed) if len(videos) > 1 else None,
        say=progress_of(arguments).say,
    )
    _warn_of_stand_ins(plan)
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
    from .plan import Plan, tasks_named
    from .prepare import find_videos, make_plan
    from .signals import stop_on_signals
    from .task import Worker

    progress = progress_of(arguments)
    inputs = [Path(text) for text in arguments.inputs]
    if not inputs or (len(inputs) == 1 and _is_run(inputs[0])):
        if arguments.output and not inputs:
            inputs = [Path(arguments.output)]
        run = _existing_run(str(inputs[0]) if inputs else None)
        plan = Plan.load(run / "plan.json")
        _check_unset(arguments, run)
        if arguments.commercial_only:
            _check_commercial(plan)
    else:
        videos = find_videos(arguments.inputs)
        run = _new_run(arguments.output, videos)
        tasks = arguments.num_tasks
        if tasks is None and not (run / "plan.json").exists():
            tasks = number_of_tasks(os.environ, arguments.task_id, arguments.task_base)
        plan = make_plan(videos, run, _request(arguments, tasks), say=progress.say)
    _check_tasks(arguments.num_tasks, "--num-tasks", plan, run)
    _warn_of_stand_ins(plan)
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


def _check_unset(arguments: argparse.Namespace, run: Path) -> None:
    """Options that the plan has decided must not be there to be silently ignored."""
    unset = arguments.plan_defaults
    given = [
        name for name in unset if name not in ("output", "commercial_only") and getattr(arguments, name) != unset[name]
    ]
    if given:
        options = ", ".join(f"--{name.removeprefix('clip_').replace('_', '-')}" for name in given)
        raise UsageError(f"{run} is planned, and {options} would change the plan: leave it out, or plan a new run")


def _check_tasks(asked: int | None, option: str, plan: Plan, run: Path) -> None:
    from .plan import counted

    if asked not in (None, len(plan.shards)):
        raise PlanMismatch(f"{run} is planned as {counted(len(plan.shards), 'task')}, not {asked}: leave {option} out")


def _check_commercial(plan: Plan) -> None:
    from .models import check_commercial, usual_center_bias
    from .weights.cache import SYNTHETIC

    model = plan.model
    bias = str(model.options.get("center_bias", usual_center_bias(model.name)))
    check_commercial(model.name, SYNTHETIC if model.weights == SYNTHETIC else None, bias)


def _warn_of_stand_ins(plan: Plan) -> None:
    """Loud even when quiet: nobody shall take these maps for a prediction."""
    from .weights.cache import SYNTHETIC

    if plan.model.weights == SYNTHETIC:
        text = f"{plan.model.name} has STAND-IN WEIGHTS: its results mean nothing, they are for tests and benchmarks"
        print(f"streamsal: {text}", file=sys.stderr)


def run(arguments: argparse.Namespace) -> int:
    from .local import infer_all
    from .merge import merge as merge_run
    from .merge import open_run
    from .models import spec_of
    from .signals import stop_on_signals

    progress = progress_of(arguments)
    fixations, request = _fixations(arguments), _request(arguments, None)
    if fixations is not None and not spec_of(request.model, **request.options).derived:
        raise UsageError(f"{request.model} does not depend on fixations: leave --fixations out")
    run, plan, devices, failed = _planned_here(arguments, progress)
    workers = arguments.decode_workers
    with stop_on_signals() as stop:
        infer_all(run, devices, decode_workers=workers, progress=progress, stop=stop)
        merged = merge_run(run, fixations=fixations, device=arguments.device, progress=progress, stop=stop)
        names = [] if arguments.no_render or plan.of_clips else [video.name for video in plan.videos]
        for name in names:
            output = film_path(run, name, names, arguments.style)
            print(_show(run, output, arguments, video=name, should_stop=stop, progress=progress))
    for path in merged:
        print(path)
    with open_run(run) as opened:
        holes = _say_holes(opened, plan)
    return 1 if failed or holes else 0


def embed(arguments: argparse.Namespace) -> int:
    from .local import infer_all
    from .merge import merge as merge_run
    from .merge import open_run
    from .signals import stop_on_signals
    from .vectors.embed import check, list_frames, with_clips, write

    progress, failed = progress_of(arguments), []
    if len(arguments.videos) == 1 and _is_run(Path(arguments.videos[0])):
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
    for video in plan.videos:
        if video.name not in with_clips(plan):
            print(f"streamsal: {video.name}: no whole clip is in what was asked for, so no vector", file=sys.stderr)
    workers = arguments.decode_workers
    with stop_on_signals() as stop:
        infer_all(run, devices, decode_workers=workers, progress=progress, stop=stop)
        merge_run(run, progress=progress, stop=stop)
    with open_run(run) as opened:
        for path in write(opened, run / "vectors", **asked):
            print(path)
        holes = _say_holes(opened, plan)
    return 1 if failed or holes else 0


def _planned_before(arguments: argparse.Namespace, run: Path) -> Plan:
    """The plan of a run that `embed` goes on with or only writes the vectors of."""
    from .plan import Plan

    plan = Plan.load(run / "plan.json")
    _check_unset(arguments, run)
    _check_tasks(arguments.tasks, "--tasks", plan, run)
    if arguments.output:
        raise UsageError(f"vectors of {run} go into {run / 'vectors'}: leave -o out")
    if arguments.commercial_only:
        _check_commercial(plan)
    return plan


def _check_gives_vectors(arguments: argparse.Namespace) -> None:
    """Raises UsageError for a model of frames, before videos are read and weights asked for."""
    from .models import spec_of
    from .prepare import model_options

    request = _request(arguments, None)
    if spec_of(request.model, **model_options(request)).clip is None:
        raise UsageError(f"{request.model} gives no vectors of clips: take a clip model, or `streamsal run`")


def _planned_here(
    arguments: argparse.Namespace, progress: Progress
) -> tuple[Path, Plan, list[str], list[StreamsalError]]:
    """The run that is asked for, its plan, the devices of this machine that will compute it, and what is left out."""
    from .local import cuda_devices
    from .prepare import find_videos, make_plan

    videos = find_videos(arguments.videos)
    run = _new_run(arguments.output, videos)
    failed: list[StreamsalError] = []
    devices = cuda_devices() if arguments.device == "auto" else []
    tasks = arguments.tasks or (None if (run / "plan.json").exists() else max(1, 4 * len(devices)))
    request = _request(arguments, tasks)
    _offer_to_fetch(request, progress)
    on_rejected = _report(arguments, failed) if len(videos) > 1 else None
    plan = make_plan(videos, run, request, on_rejected=on_rejected, say=progress.say)
    _warn_of_stand_ins(plan)
    return run, plan, devices or [arguments.device], failed


def _say_holes(run: Run, plan: Plan) -> bool:
    """Names the frames without a picture; whether there are any."""
    from .plan import counted

    stored = {video.name: run[video.name] for video in plan.videos if video.start < video.stop}
    holes = {name: maps.holes for name, maps in stored.items() if len(maps.holes)}
    for name, frames in holes.items():
        text = f"{name}: {counted(len(frames), 'hole')}, without a picture: frame {_some(frames.tolist())}"
        print(f"streamsal: {text}", file=sys.stderr)
    return bool(holes)


def _offer_to_fetch(request: Request, progress: Progress) -> None:
    """On a terminal, asks whether weights that are missing shall be downloaded now."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    from .models import check_commercial, missing_assets, usual_center_bias
    from .prepare import model_options
    from .weights.cache import fetch

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


def models(arguments: argparse.Namespace) -> int:
    return calibrate(arguments) if arguments.calibrate else list_models(arguments)


def calibrate(arguments: argparse.Namespace) -> int:
    from .calibrate import as_rows
    from .calibrate import calibrate as measure
    from .devices import resolve_device
    from .models import create_model
    from .models.unisal import Unisal

    options = dict(_option(text) for text in arguments.option)
    device = resolve_device(arguments.device)
    model = create_model(arguments.name or "unisal", weights=arguments.weights, device=device, **options)
    if not isinstance(model, Unisal):
        raise UsageError(f"{arguments.name} has no memory that warms up: --calibrate is for unisal")
    print_facts(*as_rows(measure(Path(arguments.calibrate), model, device=str(device))), arguments.json)
    return 0


def bench(arguments: argparse.Namespace) -> int:
    from .bench import Settings, parse_size
    from .bench import bench as measure

    measure(
        Path(arguments.video) if arguments.video else None,
        Settings(
            model=arguments.model,
            weights=arguments.weights,
            options=dict(_option(text) for text in arguments.option),
            device=arguments.device,
            sizes=tuple(map(parse_size, arguments.sizes.split(","))) if arguments.sizes else (),
            batches=arguments.batch,
            dtypes=arguments.dtype,
            frames=arguments.frames,
            seconds=arguments.seconds,
            decode_workers=arguments.decode_workers,
        ),
        output_json=Path(arguments.json) if arguments.json else None,
        say=progress_of(arguments).say,
    )
    return 0


def status(arguments: argparse.Namespace) -> int:
    from .cluster.watch import Look, show, watch
    from .plan import counted, tasks_named

    run = _existing_run(arguments.run)
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
    from .cluster.slurm import Submission, require_slurm
    from .cluster.submit import (
        dry_run,
        here,
        missing_tasks,
        resources_of,
        say_where_devices_failed,
        sent_before,
        to_slurm,
    )
    from .models import spec_of
    from .signals import stop_on_signals

    progress = progress_of(arguments)
    local = arguments.cluster == "local"
    if not (local or arguments.dry_run):
        require_slurm()
    failed: list[StreamsalError] = []
    run, plan = _planned(arguments, progress, failed)
    if arguments.render and plan.of_clips:
        raise UsageError(f"{plan.model.name} gives vectors, no maps that a film could show: leave --render out")
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
    submission = Submission(
        run=run,
        program=(sys.executable, "-m", "streamsal"),
        resources=resources_of(run, given, local=local, again=arguments.resume),
        site=os.path.abspath(site) if site else "",
        second_pass=bool(spec_of(plan.model.name, **plan.model.options).derived),
    )
    if arguments.dry_run:
        print(dry_run(submission, tasks))
    elif local:
        with stop_on_signals() as stop:
            here(submission, tasks, progress=progress, stop=stop)
    else:
        jobs = to_slurm(submission, tasks, force=arguments.force, progress=progress)
        for step in ("infer", "merge", "render"):
            if jobs.get(step):
                print(step, *(jobs[step] if step == "infer" else [jobs[step]]))
        progress.say(f"how far it is: streamsal status {run}")
    return 1 if failed else 0


def _planned(arguments: argparse.Namespace, progress: Progress, failed: list[StreamsalError]) -> tuple[Path, Plan]:
    """The run that is named, its inputs as planned, or the one that the named videos are planned into.

    Videos that cannot be planned are said and added to `failed`, where there are others.
    """
    from .cluster.submit import check_inputs, usual_tasks
    from .plan import Plan
    from .prepare import find_videos, make_plan

    inputs, tasks = arguments.inputs, arguments.tasks
    if not inputs or (len(inputs) == 1 and _is_run(Path(inputs[0]))):
        run = _existing_run(inputs[0] if inputs else arguments.output)
        plan = Plan.load(run / "plan.json")
        _check_unset(arguments, run)
        _check_tasks(tasks, "--tasks", plan, run)
        check_inputs(plan)
    else:
        videos = find_videos(inputs)
        run = _new_run(arguments.output, videos)
        request = _request(arguments, tasks)
        if tasks is None:
            model, seconds = request.model, arguments.seconds_per_task
            request = replace(request, tasks=lambda planned: usual_tasks(planned, model, seconds, progress.say))
        on_rejected = _report(arguments, failed) if len(videos) > 1 else None
        plan = make_plan(videos, run, request, on_rejected=on_rejected, say=progress.say)
    _warn_of_stand_ins(plan)
    return Path(os.path.abspath(run)), plan


RESOURCES = (
    "gpu", "time", "partition", "account", "cpus", "mem", "throttle", "device", "stage", "render", "style", "extra",
)  # fmt: skip


def merge(arguments: argparse.Namespace) -> int:
    from .merge import merge as merge_run
    from .signals import stop_on_signals

    run, fixations = _existing_run(arguments.run), _fixations(arguments)
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


def render(arguments: argparse.Namespace) -> int:
    from .merge import open_run
    from .signals import stop_on_signals

    run = _existing_run(arguments.run)
    names = list(open_run(run).videos)
    wanted = [arguments.video] if arguments.video else names
    if arguments.output and len(wanted) > 1:
        raise UsageError(f"{run} holds {len(names)} videos: choose one with --video, or leave -o out")
    progress = progress_of(arguments)
    if arguments.style == "contact" and arguments.compare:
        raise UsageError("a page of pictures shows one run: leave --compare out, or choose another --style")
    shown: dict[str, Any] = {
        "gaze": _recorded_gaze(arguments, run, progress),
        "gaze_density": arguments.gaze_density,
    }
    if arguments.compare:
        shown["compare"] = arguments.compare
    shown |= {"start": arguments.start, "stop": arguments.end, "progress": progress}
    with stop_on_signals() as stop:
        for name in wanted:
            output = Path(arguments.output) if arguments.output else film_path(run, name, names, arguments.style)
            print(_show(run, output, arguments, video=name, should_stop=stop, **shown))
    return 0


def export(arguments: argparse.Namespace) -> int:
    from .export import export as export_maps

    run = _existing_run(arguments.run)
    for path in export_maps(
        run,
        Path(arguments.output) if arguments.output else run / ("bids" if arguments.format == "bids" else "export"),
        format=arguments.format,
        video=arguments.video,
        start=arguments.start,
        stop=arguments.end,
        every=arguments.every,
        native=arguments.native,
    ):
        print(path)
    return 0


def report(arguments: argparse.Namespace) -> int:
    from .report.report import report as write_report
    from .signals import stop_on_signals

    runs = [_existing_run(run) for run in arguments.runs or [None]]
    progress = progress_of(arguments)
    gaze = _recorded_gaze(arguments, runs[0], progress)
    default = runs[0] / "report.html" if len(runs) == 1 else Path("report.html")
    with stop_on_signals() as stop:
        page = write_report(
            runs,
            arguments.output or default,
            embed=arguments.embed,
            gaze=gaze,
            aois=arguments.aoi,
            video=arguments.video,
            progress=progress,
            should_stop=stop,
        )
    print(page)
    return 0


def stats(arguments: argparse.Namespace) -> int:
    from .cores import usable_cores
    from .stats import stats as write_tables

    for path in write_tables(
        _existing_run(arguments.run),
        aois=arguments.aoi or (),
        cuts=arguments.cuts,
        gaze=arguments.gaze,
        output=arguments.output,
        video=arguments.video,
        start=arguments.start,
        stop=arguments.end,
        native=arguments.native,
        decode_workers=usable_cores(),
        progress=progress_of(arguments),
        format=arguments.gaze_format,
        columns=arguments.columns,
        start_seconds=arguments.gaze_start,
        rate_hz=arguments.gaze_rate,
    ):
        print(path)
    return 0


def evaluate(arguments: argparse.Namespace) -> int:
    from .evaluation.averages import score_rows, setting_rows
    from .evaluation.evaluate import evaluate as score
    from .signals import stop_on_signals

    run = _existing_run(arguments.run)
    with stop_on_signals() as stop:
        scores = score(
            run,
            arguments.gaze,
            protocol=arguments.protocol,
            baseline=arguments.baseline,
            shuffle=arguments.shuffle,
            frames=arguments.frames,
            frames_rate_hz=arguments.frames_rate,
            fit=arguments.fit_density,
            fit_on=arguments.fit_on,
            blur_px=arguments.blur,
            output=arguments.output,
            device=arguments.device,
            progress=progress_of(arguments),
            stop=stop,
            format=arguments.gaze_format,
            columns=arguments.columns,
            start_seconds=arguments.gaze_start,
            rate_hz=arguments.gaze_rate,
        )
    print_facts(scores.summary, *score_rows(scores.summary), arguments.json)
    if not arguments.json:
        print_facts({}, setting_rows(scores.summary), ["", ""], False)
        print(scores.folder)
    return 0


def _recorded_gaze(arguments: argparse.Namespace, run: Path, progress: Progress) -> Gaze | None:
    from .drawing.content import read_gaze_of
    from .merge import open_run

    if not arguments.gaze:
        return None
    with open_run(run) as opened:
        gaze = read_gaze_of(
            opened,
            arguments.gaze,
            format=arguments.gaze_format,
            columns=arguments.columns,
            start_seconds=arguments.gaze_start,
            rate_hz=arguments.gaze_rate,
        )
    for note in gaze.notes:
        progress.say(note)
    return gaze


def film_path(run: Path, name: str, names: Sequence[str], style: str) -> Path:
    """RUN/talk.overlay.mp4 for talk.mp4; Matroska stays Matroska, because MP4 could not hold all that is in it."""
    stem = Path(name).stem
    if [Path(other).stem for other in names].count(stem) > 1:  # talk.mp4 beside talk.mkv
        stem = name
    suffix = ".mkv" if Path(name).suffix.lower() in (".mkv", ".webm") else ".mp4"
    suffix = ".png" if style == "contact" else suffix
    return run / f"{stem}.{style}{suffix}"


FILM_OPTIONS = ("style", "scale", "legend", "frame_number", "timestamp", "codec", "crf", "preset", "jobs")


def _show(run: Path, output: Path, arguments: argparse.Namespace, **wanted: Any) -> Path:
    """Makes a film, or a page of pictures, as the options about looks say."""
    both = {"between": arguments.between, "colormap": arguments.colormap}
    if arguments.style == "contact":
        from .drawing.sheet import contact_sheet

        return contact_sheet(run, output, **both, **wanted)
    from .render import render as render_film

    films = {name: getattr(arguments, name) for name in FILM_OPTIONS}
    return render_film(run, output, **both, **films, **wanted)


def _request(arguments: argparse.Namespace, tasks: int | None) -> Request:
    from .prepare import Request

    options = dict(_option(text) for text in arguments.option)
    if arguments.center_bias:
        options["center_bias"] = arguments.center_bias
    if arguments.no_center_bias:
        options["center_bias"] = False
    if arguments.backend:
        options["backend"] = arguments.backend
    if arguments.as_density:
        options["as_density"] = True
    if arguments.clip_preset:
        options["slow_first"] = True
    return Request(
        model=arguments.model,
        weights=arguments.weights,
        options=options,
        tasks=tasks,
        start=arguments.start,
        stop=arguments.end,
        every=arguments.every,
        batch_size=arguments.batch_size,
        dtype=arguments.dtype,
        store_dtype=arguments.store_dtype,
        long_side=arguments.long_side,
        px_per_degree=arguments.px_per_degree,
        stream=arguments.stream,
        timing=_timing(arguments),
        saliency=_saliency_run(arguments.pool),
        commercial_only=arguments.commercial_only,
    )


def _timing(arguments: argparse.Namespace) -> Timing:
    """Where clips begin, from --stride, --sampling, --tail and --preset."""
    from .timing import Timing

    given = {name: getattr(arguments, name) for name in ("stride", "sampling", "tail")}
    given = {name: value for name, value in given.items() if value is not None}
    if arguments.clip_preset:
        if given:
            raise UsageError(f"--preset {arguments.clip_preset} sets --{next(iter(given))} itself: leave that out")
        given = {"sampling": arguments.clip_preset}
    return Timing(**given)


def _saliency_run(pool: str | None) -> str:
    """The run in --pool saliency:RUN."""
    if pool is None:
        return ""
    kind, _, run = pool.partition(":")
    if kind != "saliency" or not run:
        raise UsageError(f"no way of pooling is named {pool!r}: give saliency:RUN")
    return run


def _fixations(arguments: argparse.Namespace) -> Source | None:
    """What --fixations, --scanpaths and --seed ask for; None where they ask for nothing."""
    from .fixations import parse

    if (arguments.fixations, arguments.scanpaths, arguments.seed) == (None, None, None):
        return None
    return parse(arguments.fixations or "central", scanpaths=arguments.scanpaths, seed=arguments.seed)


def _option(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as JSON where it is that (3, 0.5, true), else as text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--option {text!r}: write it as NAME=VALUE")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def _is_run(path: Path) -> bool:
    return path.suffix == ".streamsal" or (path / "plan.json").exists()


def _new_run(output: str | None, videos: Sequence[Path]) -> Path:
    if output:
        return Path(output)
    given = os.environ.get("STREAMSAL_RUN")
    if given:
        return Path(given)
    if len(videos) > 1:
        raise UsageError("several videos go into one run: name it with -o RUN")
    return Path(f"{videos[0].stem}.streamsal")


def _existing_run(given: str | None) -> Path:
    given = given or os.environ.get("STREAMSAL_RUN")
    if given:
        if not Path(given).is_dir():
            raise MissingInput(f"no run directory {given}: make it with `streamsal plan` or `streamsal run`")
        return Path(given)
    here = sorted(Path().glob("*.streamsal"))
    if len(here) != 1:
        found = f"there are {len(here)} here" if here else "there is none here"
        raise UsageError(f"which run? {found}: name the directory, or set STREAMSAL_RUN")
    return here[0]


def _report(arguments: argparse.Namespace, failed: list[StreamsalError] | None = None) -> Callable[..., None]:
    """Says at once that an input failed, and keeps it for the exit code."""

    def report(error: StreamsalError) -> None:
        if failed is not None:
            failed.append(error)
        print(f"streamsal: {error}", file=sys.stderr)

    return report


def _some(frames: Sequence[int]) -> str:
    from .plan import array_spec

    return array_spec(frames[:50]) + (" ..." if len(frames) > 50 else "")

"""The command line: arguments in, handlers of a few lines, the documented exit code out.

Results go to stdout, progress and logs to stderr. Nothing heavy is imported before a command needs it, so that
`streamsal --help` answers at once on a login node.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__
from .errors import Held, IncompleteRun, MissingInput, PlanMismatch, StreamsalError, UsageError

if TYPE_CHECKING:
    from .prepare import Request
    from .progress import Progress

EXIT_CODES = """\
exit codes: 0 done; 1 some inputs failed or have holes, the rest finished; 2 usage; 3 incomplete; 4 missing weights;
65 input is no video or differs from the plan; 66 input missing; 69 no such device or out of memory; 70 a bug of ours;
74 write error; 75 stopped early or held by another copy: run me again; 130 Ctrl-C"""


def main(argv: Sequence[str] | None = None) -> int:
    from .task import leave_on_signals

    arguments = parser().parse_args(argv)
    failure: BaseException
    try:
        with leave_on_signals():
            return arguments.handler(arguments)
    except StreamsalError as error:
        code, text, failure = error.exit_code, str(error), error
    except KeyboardInterrupt as error:
        code, text, failure = 130, "stopped by Ctrl-C; run the same command again to go on", error
    except BrokenPipeError:  # `streamsal probe ... | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        code, failure = 70, error
        text = f"{type(error).__name__}: {error} (a bug of ours: please report it with the traceback above)"
    if code == 70 or arguments.verbose:
        traceback.print_exception(failure)
    print(f"streamsal: {text}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="streamsal",
        description="A model's answer for every frame of a long video, without cutting the video into pieces.",
        epilog=EXIT_CODES + "\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"streamsal {__version__}")
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, handler: Callable[..., int], about: str, example: str, *parents: Any) -> Any:
        made = commands.add_parser(
            name,
            help=about,
            description=about[0].upper() + about[1:] + ".",
            epilog=f"example:\n  {example}",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[_common(), *parents],
        )
        made.set_defaults(handler=handler)
        return made

    demo = command("demo", _demo, "make a sample clip, run it as 3 tasks, compare, render", "streamsal demo -o demo")
    demo.add_argument("-o", "--output", default="demo", metavar="DIR", help="folder to write to (default: demo)")

    probe = command(
        "probe", _probe, "what is in a video, counted and not believed", "streamsal probe talk.mp4 --verify"
    )
    probe.add_argument("videos", nargs="+", metavar="VIDEO", help="file, directory, glob or @LIST.txt")
    probe.add_argument("--json", action="store_true", help="one JSON document per video")
    probe.add_argument(
        "--verify", action="store_true", help="prove index, entry points and shards against the pictures"
    )
    probe.add_argument("--stream", type=int, metavar="N", help="video stream to use (default: the best one)")

    models = command("models", _models, "the models, or all about one", "streamsal models sigmotion")
    models.add_argument("name", nargs="?", metavar="NAME", help="a model's name or a model file")
    models.add_argument("--json", action="store_true")

    run = command("run", _run, "everything on this machine: plan, infer, merge, render", RUN_EXAMPLE, _what(), _how())
    run.add_argument("videos", nargs="+", metavar="VIDEO|DIR|GLOB", help="videos, directories, globs or @LIST.txt")
    run.add_argument(
        "--tasks", type=_positive, metavar="N", help="cut the work into N tasks (default: 1, or 4 per GPU)"
    )
    run.add_argument("--no-render", action="store_true", help="stop after the merge")
    _add_style(run)

    plan = command("plan", _plan, "cut the work into tasks, without computing", PLAN_EXAMPLE, _what())
    plan.add_argument("videos", nargs="+", metavar="VIDEO|DIR|GLOB", help="videos, directories, globs or @LIST.txt")
    plan.add_argument("--tasks", type=_positive, metavar="N", help="number of tasks (default: 1)")

    infer = command("infer", _infer, "compute one task of a plan, or go on with it", INFER_EXAMPLE, _what(), _how())
    infer.add_argument("inputs", nargs="*", metavar="RUN|VIDEO", help="run directory, or videos to plan first")
    infer.add_argument(
        "--task-id", metavar="K|any", help="task to compute (default: the scheduler's, else all in turn)"
    )
    infer.add_argument("--num-tasks", type=_positive, metavar="N", help="number of tasks, where there is no plan yet")
    infer.add_argument("--task-base", type=int, default=0, choices=(0, 1), help="number of the first task in the array")

    status = command("status", _status, "how far a run is", "streamsal status talk.streamsal")
    _add_run(status)
    status.add_argument("--json", action="store_true")

    merge = command("merge", _merge, "one file per video over all tasks", "streamsal merge talk.streamsal")
    _add_run(merge)
    merge.add_argument("--materialise", action="store_true", help="copy the maps: one self-contained file per video")
    merge.add_argument("--verify", action="store_true", help="read every map and check its checksum")

    render = command("render", _render, "the maps on top of the film, with its sound", RENDER_EXAMPLE)
    _add_run(render)
    render.add_argument("-o", "--output", metavar="FILE", help="film to write (default: RUN/NAME.STYLE.mp4)")
    render.add_argument("--video", metavar="NAME", help="which video of the run (default: all)")
    _add_style(render)

    export = command("export", _export, "maps as npy, npz, png or csv", "streamsal export talk.streamsal --format npy")
    _add_run(export)
    export.add_argument("-o", "--output", metavar="PATH", help="where to (default: RUN/export)")
    export.add_argument("--format", default="npy", choices=("npy", "npz", "png", "csv"))
    export.add_argument("--video", metavar="NAME", help="which video of the run (default: all)")
    export.add_argument("--native", action="store_true", help="at the stored resolution, not at the video's")
    _add_positions(export)
    return top


RUN_EXAMPLE = "streamsal run talk.mp4"
PLAN_EXAMPLE = "streamsal plan talk.mp4 --tasks 16 -o talk.streamsal"
INFER_EXAMPLE = "streamsal infer talk.streamsal --task-id $SLURM_ARRAY_TASK_ID"
RENDER_EXAMPLE = "streamsal render talk.streamsal -o talk_overlay.mp4 --style side"
RUN_HELP = "run directory (default: $STREAMSAL_RUN, else the only *.streamsal here)"


def _common() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(add_help=False)
    made.add_argument("-v", "--verbose", action="store_true", help="tracebacks with errors")
    made.add_argument("-q", "--quiet", action="store_true", help="no progress")
    made.add_argument("--log-json", action="store_true", help="progress as JSON lines on stderr")
    return made


def _what() -> argparse.ArgumentParser:
    """Options that change the numbers: they belong to the plan."""
    made = argparse.ArgumentParser(add_help=False)
    group = made.add_argument_group("what to compute")
    group.add_argument("--model", default="sigmotion", metavar="NAME|FILE.py", help="default: sigmotion")
    group.add_argument("--weights", metavar="FILE", help="weights of the model, where it has any")
    group.add_argument("--no-center-bias", action="store_true", help="leave the model's center prior out")
    group.add_argument("--option", action="append", default=[], metavar="NAME=VALUE", help="an option of the model")
    _add_positions(group)
    group.add_argument("--long-side", type=_positive, metavar="PX", help="make frames smaller for the model")
    group.add_argument("--px-per-degree", type=float, metavar="X", help="the video's scale; fits it to the model's")
    group.add_argument("--batch-size", default="auto", type=_auto_or_positive, metavar="auto|N")
    group.add_argument("--dtype", default="auto", choices=("auto", "fp32", "fp16", "bf16"))
    group.add_argument("--store-dtype", default="float16", choices=("float16", "uint16", "float32"))
    group.add_argument("--stream", type=int, metavar="N", help="video stream to use (default: the best one)")
    group.add_argument("-o", "--output", metavar="RUN", help="run directory (default: <video>.streamsal)")
    return made


def _how() -> argparse.ArgumentParser:
    """Options that change the speed, not the numbers."""
    made = argparse.ArgumentParser(add_help=False)
    group = made.add_argument_group("how to compute it")
    group.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps")
    group.add_argument(
        "--decode-workers", type=_positive, metavar="N", help="decoders in parallel (default: by the cores)"
    )
    return made


def _add_positions(group: Any) -> None:
    group.add_argument(
        "--start", default="0", metavar="POS", help="first frame (120), seconds (4.8s) or time (0:01:02.5)"
    )
    group.add_argument("--end", metavar="POS", help="frame or time behind the last one")
    group.add_argument("--every", type=_positive, default=1, metavar="N", help="only every Nth frame")


def _add_run(made: argparse.ArgumentParser) -> None:
    made.add_argument("run", nargs="?", metavar="RUN", help=RUN_HELP)


def _add_style(made: argparse.ArgumentParser) -> None:
    group = made.add_argument_group("how the film looks")
    group.add_argument("--style", default="overlay", choices=("overlay", "side", "heatmap", "contour"))
    group.add_argument("--colormap", default="inferno", metavar="NAME")
    group.add_argument(
        "--scale", default="video", choices=("video", "frame"), help="one scale for the film, or per frame"
    )
    group.add_argument("--between", default="interpolate", choices=("interpolate", "hold", "none"), help="with --every")
    group.add_argument("--legend", action="store_true", help="burn in the value scale")
    group.add_argument("--codec", default="auto", metavar="auto|h264|hevc|av1|h264_nvenc...")
    group.add_argument("--crf", type=int, metavar="N", help="quality, smaller is better (default: 18 for h264)")
    group.add_argument("--preset", metavar="NAME", help="the encoder's speed preset (default: medium for h264)")
    group.add_argument(
        "--jobs", type=_positive, default=1, metavar="N", help="processes that encode segments side by side"
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1 up")
    return int(text)


def _auto_or_positive(text: str) -> int | str:
    return text if text == "auto" else _positive(text)


def _demo(arguments: argparse.Namespace) -> int:
    from .demo import demo

    demo(Path(arguments.output), progress=_progress(arguments))
    return 0


def _probe(arguments: argparse.Namespace) -> int:
    from .prepare import find_videos
    from .probe import probe

    return probe(
        find_videos(arguments.videos),
        stream=arguments.stream,
        verify=arguments.verify,
        as_json=arguments.json,
        say=_progress(arguments).say,
        on_failed=_report(arguments),
    )


def _models(arguments: argparse.Namespace) -> int:
    from .models import MODELS, spec_of

    if arguments.name:
        spec = spec_of(arguments.name)
        window = spec.window(25.0)
        facts = {
            "name": spec.name,
            "about": spec.summary,
            "kind": ", ".join(f"{output.name} ({output.kind}, {output.units})" for output in spec.outputs),
            "window": f"{window.past} frames before, {window.future} after, at 25 frames per second",
            "px_per_degree": spec.px_per_degree or "any",
            "licence": spec.licence,
            "citation": spec.citation,
        }
        rows = [[key.replace("_", " "), str(value)] for key, value in facts.items()]
        _print(facts, rows, ["", ""], arguments.json)
        return 0
    table = [
        {"name": name, "kind": e.kind, "weights": e.needs_weights, "licence": e.licence, "about": e.summary}
        for name, e in MODELS.items()
    ]
    rows = [[r["name"], r["kind"], "needed" if r["weights"] else "none", r["licence"], r["about"]] for r in table]
    _print(table, rows, ["model", "gives", "weights", "licence", ""], arguments.json)
    return 0


def _plan(arguments: argparse.Namespace) -> int:
    from .prepare import find_videos, make_plan

    videos = find_videos(arguments.videos)
    run = _new_run(arguments.output, videos)
    failed: list[StreamsalError] = []
    plan = make_plan(
        videos,
        run,
        _request(arguments, arguments.tasks),
        on_rejected=_report(arguments, failed) if len(videos) > 1 else None,
        say=_progress(arguments).say,
    )
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
    _print(plan.to_dict(), rows, ["task", "video", "frames", "results"], False)
    print(run)
    return 1 if failed else 0


def _infer(arguments: argparse.Namespace) -> int:
    from .plan import Plan
    from .prepare import find_videos, make_plan
    from .task import infer, stop_on_signals

    progress = _progress(arguments)
    inputs = [Path(text) for text in arguments.inputs]
    if not inputs or (len(inputs) == 1 and _is_run(inputs[0])):
        if arguments.output and not inputs:
            inputs = [Path(arguments.output)]
        run = _existing_run(str(inputs[0]) if inputs else None)
        plan = Plan.load(run / "plan.json")
        _check_unset(arguments, run)
    else:
        videos = find_videos(arguments.inputs)
        run = _new_run(arguments.output, videos)
        tasks = arguments.num_tasks
        if tasks is None and not (run / "plan.json").exists():
            tasks = number_of_tasks(os.environ, arguments.task_id, arguments.task_base)
        plan = make_plan(videos, run, _request(arguments, tasks), say=progress.say)
    if arguments.num_tasks not in (None, len(plan.shards)):
        raise PlanMismatch(
            f"{run} is planned as {len(plan.shards)} tasks, not {arguments.num_tasks}: leave --num-tasks out"
        )
    workers = arguments.decode_workers
    with stop_on_signals() as stop:
        for task in _tasks(arguments, len(plan.shards)):
            try:
                infer(run, task, device=arguments.device, decode_workers=workers, progress=progress, stop=stop)
            except Held:
                if arguments.task_id != "any":
                    raise
    return 0


def _check_unset(arguments: argparse.Namespace, run: Path) -> None:
    """Options that the plan has decided must not be there to be silently ignored."""
    unset = vars(_what().parse_args([]))
    given = [name for name in unset if name != "output" and getattr(arguments, name) != unset[name]]
    if given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise UsageError(f"{run} is planned, and {options} would change the plan: leave it out, or plan a new run")


def _tasks(arguments: argparse.Namespace, n_tasks: int) -> Sequence[int]:
    """The tasks to compute: --task-id, else the scheduler's, else all in turn (`any`: all that are free)."""
    text = arguments.task_id
    if text is None:
        text = os.environ.get("SLURM_ARRAY_TASK_ID") or os.environ.get("JOB_COMPLETION_INDEX") or "all"
    if text in ("any", "all"):
        return range(n_tasks)
    try:
        task = int(text) - arguments.task_base
    except ValueError:
        raise UsageError(f"--task-id {text!r} is neither a number nor `any`") from None
    if task < 0:
        raise UsageError(f"task id {text} is below the first task, {arguments.task_base}")
    return [task]


def number_of_tasks(environment: Mapping[str, str], task_id: str | None, base: int) -> int:
    """N from the scheduler's environment, where that is certain: an array base ... base + N - 1 without gaps.

    1 outside of an array, if no task is named. Raises UsageError otherwise: a sparse or resubmitted array, or a task's
    number alone, does not know N.
    """
    count = environment.get("SLURM_ARRAY_TASK_COUNT")
    first, last = environment.get("SLURM_ARRAY_TASK_MIN"), environment.get("SLURM_ARRAY_TASK_MAX")
    if count is not None:
        if (first, last) == (str(base), str(base + int(count) - 1)):
            return int(count)
        known = f"the array has {count} tasks from {first} to {last}, which may be a part of them"
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


def _run(arguments: argparse.Namespace) -> int:
    from .local import cuda_devices, infer_all
    from .merge import merge, open_run
    from .prepare import find_videos, make_plan
    from .render import render
    from .task import stop_on_signals

    progress = _progress(arguments)
    videos = find_videos(arguments.videos)
    run = _new_run(arguments.output, videos)
    failed: list[StreamsalError] = []
    devices = cuda_devices() if arguments.device == "auto" else []
    tasks = arguments.tasks or (None if (run / "plan.json").exists() else max(1, 4 * len(devices)))
    plan = make_plan(
        videos,
        run,
        _request(arguments, tasks),
        on_rejected=_report(arguments, failed) if len(videos) > 1 else None,
        say=progress.say,
    )
    workers = arguments.decode_workers
    with stop_on_signals() as stop:
        infer_all(run, devices or [arguments.device], decode_workers=workers, progress=progress, stop=stop)
        merged = merge(run)
        films = [] if arguments.no_render else [v.name for v in plan.videos]
        for name in films:
            print(render(run, film_path(run, name, arguments), video=name, **_style(arguments, progress, stop)))
    for path in merged:
        print(path)
    holes = {name: maps.holes for name, maps in open_run(run).items() if len(maps.holes)}
    for name, frames in holes.items():
        progress.say(f"{name}: {len(frames)} holes, frames without a picture: {_some(frames.tolist())}")
    return 1 if failed or holes else 0


def _status(arguments: argparse.Namespace) -> int:
    from dataclasses import asdict

    from .plan import array_spec
    from .status import run_status

    run = _existing_run(arguments.run)
    found = run_status(run)
    rows = [
        [
            str(t.task),
            t.state,
            f"{t.done}/{t.rows}",
            f"{t.fps:.1f}" if t.state == "running" else "",
            "" if t.heartbeat_age_seconds is None else f"{t.heartbeat_age_seconds:.0f} s ago",
            str(t.restarts),
            t.host,
            f"{t.holes} holes" if t.holes and not t.error else t.error,
        ]
        for t in found.tasks
    ]
    summary = {"done": found.done, "rows": found.rows, "fps": found.fps, "eta_seconds": found.eta_seconds}
    facts = {**summary, "holes": found.holes, "missing": found.missing, "tasks": [asdict(t) for t in found.tasks]}
    _print(facts, rows, ["task", "state", "results", "fps", "heartbeat", "restarts", "host", ""], arguments.json)
    if not found.complete:
        eta = f", about {found.eta_seconds:.0f} s to go" if found.eta_seconds is not None else ""
        raise IncompleteRun(f"{run}: {found.done} of {found.rows} results{eta}; tasks not done: {found.missing}")
    if found.holes:
        which = array_spec(task.task for task in found.tasks if task.holes)
        text = f"{run}: {found.holes} frames (of tasks {which}) have no picture and NaN for a map: probe --verify"
        print(f"streamsal: {text} names them", file=sys.stderr)
    return 1 if found.holes else 0


def _merge(arguments: argparse.Namespace) -> int:
    from .merge import merge

    for path in merge(_existing_run(arguments.run), materialise=arguments.materialise, verify=arguments.verify):
        print(path)
    return 0


def _render(arguments: argparse.Namespace) -> int:
    from .merge import open_run
    from .render import render
    from .task import stop_on_signals

    run = _existing_run(arguments.run)
    names = [arguments.video] if arguments.video else list(open_run(run).videos)
    if arguments.output and len(names) > 1:
        raise UsageError(f"{run} holds {len(names)} videos: choose one with --video, or leave -o out")
    progress = _progress(arguments)
    with stop_on_signals() as stop:
        for name in names:
            output = Path(arguments.output) if arguments.output else film_path(run, name, arguments)
            print(render(run, output, video=name, **_style(arguments, progress, stop)))
    return 0


def _export(arguments: argparse.Namespace) -> int:
    from .export import export

    run = _existing_run(arguments.run)
    for path in export(
        run,
        Path(arguments.output) if arguments.output else run / "export",
        format=arguments.format,
        video=arguments.video,
        start=arguments.start,
        stop=arguments.end,
        every=arguments.every,
        native=arguments.native,
    ):
        print(path)
    return 0


def film_path(run: Path, name: str, arguments: argparse.Namespace) -> Path:
    return run / f"{Path(name).stem}.{arguments.style}.mp4"


def _style(arguments: argparse.Namespace, progress: Progress, stop: Callable[[], str]) -> dict[str, Any]:
    return {
        "style": arguments.style,
        "colormap": arguments.colormap,
        "scale": arguments.scale,
        "between": arguments.between,
        "legend": arguments.legend,
        "codec": arguments.codec,
        "crf": arguments.crf,
        "preset": arguments.preset,
        "jobs": arguments.jobs,
        "should_stop": stop,
        "progress": progress,
    }


def _request(arguments: argparse.Namespace, tasks: int | None) -> Request:
    from .prepare import Request

    options = dict(_option(text) for text in arguments.option)
    if arguments.no_center_bias:
        options["center_bias"] = False
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
    )


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


def _progress(arguments: argparse.Namespace) -> Progress:
    from .progress import Progress

    return Progress(quiet=arguments.quiet, as_json=arguments.log_json)


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


def _print(facts: Any, rows: Sequence[Sequence[str]], head: Sequence[str], as_json: bool) -> None:
    """A table for people, or the same facts as JSON, on stdout."""
    if as_json:
        print(json.dumps(facts, indent=1, default=str))
        return
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    for row in [head, *rows] if any(head) else rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())

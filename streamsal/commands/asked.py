"""What the arguments of several commands ask for: which run, which videos and model, what to say of failures."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import MissingInput, PlanMismatch, StreamsalError, UsageError
from ..progress import Progress, warn

if TYPE_CHECKING:
    from ..fixations import Source
    from ..models.spec import ModelSpec
    from ..plan import Plan
    from ..prepare import Request
    from ..timing import Timing


def request_of(arguments: argparse.Namespace, tasks: int | None) -> Request:
    from ..prepare import Request

    options = dict(option_of(text) for text in arguments.option)
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
    from ..timing import Timing

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


def fixations_of(arguments: argparse.Namespace) -> Source | None:
    """What --fixations, --scanpaths and --seed ask for; None where they ask for nothing."""
    from ..fixations import parse

    if (arguments.fixations, arguments.scanpaths, arguments.seed) == (None, None, None):
        return None
    return parse(arguments.fixations or "central", scanpaths=arguments.scanpaths, seed=arguments.seed)


def option_of(text: str) -> tuple[str, Any]:
    """NAME=VALUE, the value as JSON where it is that (3, 0.5, true), else as text."""
    name, sign, value = text.partition("=")
    if not sign:
        raise UsageError(f"--option {text!r}: write it as NAME=VALUE")
    try:
        return name.replace("-", "_"), json.loads(value)
    except ValueError:
        return name.replace("-", "_"), value


def is_run(path: Path) -> bool:
    return path.suffix == ".streamsal" or (path / "plan.json").exists()


def new_run(output: str | None, videos: Sequence[Path]) -> Path:
    if output:
        return Path(output)
    given = os.environ.get("STREAMSAL_RUN")
    if given:
        return Path(given)
    if len(videos) > 1:
        raise UsageError("several videos go into one run: name it with -o RUN")
    return Path(f"{videos[0].stem}.streamsal")


def existing_run(given: str | None) -> Path:
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


def check_unset(arguments: argparse.Namespace, run: Path) -> None:
    """Options that the plan has decided must not be there to be silently ignored."""
    if options := unset_options(arguments):
        raise UsageError(f"{run} is planned, and {options} would change the plan: leave it out, or plan a new run")


def unset_options(arguments: argparse.Namespace) -> str:
    """The options of a plan that are given here, or nothing."""
    unset = arguments.plan_defaults
    given = [
        name for name in unset if name not in ("output", "commercial_only") and getattr(arguments, name) != unset[name]
    ]
    return ", ".join(f"--{name.removeprefix('clip_').replace('_', '-')}" for name in given)


def check_tasks(asked: int | None, option: str, plan: Plan, run: Path) -> None:
    from ..plan import counted

    if asked not in (None, len(plan.shards)):
        raise PlanMismatch(f"{run} is planned as {counted(len(plan.shards), 'task')}, not {asked}: leave {option} out")


def check_commercial_plan(plan: Plan) -> None:
    from ..models import check_commercial, usual_center_bias
    from ..weights.cache import SYNTHETIC

    model = plan.model
    bias = str(model.options.get("center_bias", usual_center_bias(model.name)))
    check_commercial(model.name, SYNTHETIC if model.weights == SYNTHETIC else None, bias)


def check_style(style: str | None, spec: ModelSpec) -> None:
    """Raises UsageError for a style that cannot show what the model gives, before anything is computed for it."""
    labels = bool(spec.outputs[0].labels)
    if style and ((style == "labels") != labels or (spec.clip and not labels)):
        raise UsageError(f"--style {style} cannot show what {spec.name} gives: leave it out")


def warn_of_stand_ins(plan: Plan) -> None:
    """Loud even when quiet: nobody shall take these maps for a prediction."""
    from ..weights.cache import SYNTHETIC

    if plan.model.weights == SYNTHETIC:
        text = f"{plan.model.name} has STAND-IN WEIGHTS: its results mean nothing, they are for tests and benchmarks"
        warn(text)


def reporter(arguments: argparse.Namespace, failed: list[StreamsalError] | None = None) -> Callable[..., None]:
    """Says at once that an input failed, and keeps it for the exit code."""

    def report(error: StreamsalError) -> None:
        if failed is not None:
            failed.append(error)
        warn(error)

    return report


def progress_of(arguments: argparse.Namespace) -> Progress:
    return Progress(quiet=arguments.quiet, as_json=arguments.log_json)

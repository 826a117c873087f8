"""Commands about videos, models and machines: demo, probe, bench, models --calibrate."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..tables import print_facts
from .asked import (
    option_of,
    progress_of,
    reporter,
)
from .catalog import list_models

if TYPE_CHECKING:
    pass


def demo(arguments: argparse.Namespace) -> int:
    from ..demo import demo as make_demo

    make_demo(Path(arguments.output), progress=progress_of(arguments))
    return 0


def probe(arguments: argparse.Namespace) -> int:
    from ..prepare import find_videos
    from ..probe import probe as probe_all

    return probe_all(
        find_videos(arguments.videos),
        stream=arguments.stream,
        verify=arguments.verify,
        as_json=arguments.json,
        say=progress_of(arguments).say,
        on_failed=reporter(arguments),
    )


def bench(arguments: argparse.Namespace) -> int:
    from ..bench import Settings, parse_size
    from ..bench import bench as measure

    measure(
        Path(arguments.video) if arguments.video else None,
        Settings(
            model=arguments.model,
            weights=arguments.weights,
            options=dict(option_of(text) for text in arguments.option),
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


def models(arguments: argparse.Namespace) -> int:
    return calibrate(arguments) if arguments.calibrate else list_models(arguments)


def calibrate(arguments: argparse.Namespace) -> int:
    from ..calibrate import as_rows
    from ..calibrate import calibrate as measure
    from ..devices import resolve_device
    from ..models import create_model
    from ..models.unisal import Unisal

    options = dict(option_of(text) for text in arguments.option)
    device = resolve_device(arguments.device)
    model = create_model(arguments.name or "unisal", weights=arguments.weights, device=device, **options)
    if not isinstance(model, Unisal):
        raise UsageError(f"{arguments.name} has no memory that warms up: --calibrate is for unisal")
    print_facts(*as_rows(measure(Path(arguments.calibrate), model, device=str(device))), arguments.json)
    return 0

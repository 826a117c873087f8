"""Commands that show and measure what was computed: render, export, report, stats, evaluate."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..progress import Progress
from ..tables import print_facts
from .asked import (
    existing_run,
    progress_of,
)

if TYPE_CHECKING:
    from ..gaze.table import Gaze


def render(arguments: argparse.Namespace) -> int:
    from ..merge import open_run
    from ..render import fitting_style
    from ..signals import stop_on_signals

    run = existing_run(arguments.run)
    opened = open_run(run)
    names, wanted = opened.videos, opened.chosen(arguments.video)
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
    with stop_on_signals() as stop, open_run(run) as opened:
        for name in wanted:
            style = arguments.style or fitting_style(opened, name)
            output = Path(arguments.output) if arguments.output else film_path(run, name, names, style)
            print(show(run, output, arguments, video=name, should_stop=stop, **shown))
    return 0


def export(arguments: argparse.Namespace) -> int:
    from ..export import export as export_maps

    run = existing_run(arguments.run)
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
    from ..report.report import report as write_report
    from ..signals import stop_on_signals

    runs = [existing_run(run) for run in arguments.runs or [None]]
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
    from ..cores import usable_cores
    from ..stats import stats as write_tables

    for path in write_tables(
        existing_run(arguments.run),
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
    from ..evaluation.averages import score_rows, setting_rows
    from ..evaluation.evaluate import evaluate as score
    from ..signals import stop_on_signals

    run = existing_run(arguments.run)
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
    from ..drawing.content import read_gaze_of
    from ..merge import open_run

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


def show(run: Path, output: Path, arguments: argparse.Namespace, **wanted: Any) -> Path:
    """Makes a film, or a page of pictures, as the options about looks say."""
    both = {"between": arguments.between, "colormap": arguments.colormap}
    if arguments.style == "contact":
        from ..drawing.sheet import contact_sheet

        return contact_sheet(run, output, **both, **wanted)
    from ..render import render as render_film

    films = {name: getattr(arguments, name) for name in FILM_OPTIONS}
    return render_film(run, output, **both, **films, **wanted)

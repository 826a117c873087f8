"""From a run of a clip model to vectors with their times and frames, and to the files that other programs read.

In flow the stored results of each video, its index and what the plan says of clips; out come files in RUN/vectors.
Nothing is decoded: which frames a clip was made of is arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..clips import Clips
from ..errors import UsageError
from ..index import VideoIndex
from ..maps import Maps
from ..merge import Run
from ..models import spec_of
from ..plan import Plan
from ..prepare import index_path, video_clips
from ..timing import Clip, Timing
from .files import file_stems, write_csd, write_vectors
from .intervals import Aggregation, Rows, Statistic, Vectors, aggregated, frame_lines
from .latent_vectors_service import legacy_slots, write_legacy

Format = Literal["h5", "npy", "csd", "latent-vectors-service"]


def write(
    run: Run,
    folder: str | Path,
    *,
    format: Format = "h5",
    aggregate: str = "clip",
    statistics: Sequence[Statistic] = (),
    array: str = "features",
) -> list[Path]:
    """The vectors of every video of the run that has a clip, or their means, as files; returns the paths.

    `aggregate`, `statistics`: see `vectors.aggregated`. `array`: what goes into a csd file, which holds one vector per
    row: `features`, or `features_salient` and the like.
    Raises what `check` raises, WriteError, and what reading raises.
    """
    asked = {"format": format, "aggregate": aggregate, "statistics": statistics, "array": array}
    plan = plan_of(run)
    how = check(run.path, plan, **asked)
    names, stems = with_clips(plan), file_stems(run.videos)
    if format == "latent-vectors-service":
        return [
            write_legacy(vectors_of(run, name), _legacy_intervals(run, name), folder, stem=stems[name])
            for name in names
        ]
    rows = _rows(run, names, how, statistics)
    if format == "csd":
        name = run.path.stem if array == "features" else f"{run.path.stem}_{array}"
        return [write_csd(rows, Path(folder) / f"{name}.csd", stems=stems, array=array)]
    return write_vectors(rows, folder, format=format, stems=stems)


def check(
    path: Path, plan: Plan, *, format: Format, aggregate: str, statistics: Sequence[Statistic], array: str
) -> Aggregation:
    """How rows are to be made, said before anything is computed.

    Raises UsageError for a run without clips and for what `write` cannot do with this one, MissingInput.
    """
    _, timing = clip_settings(path, plan)
    how = Aggregation.parse(aggregate)
    if format == "latent-vectors-service" and (how.kind != "clip" or timing.sampling != format):
        raise UsageError(f"--format {format} is for vectors of --preset {format}, as they are")
    if statistics and how.kind == "clip":
        raise UsageError("--statistic is of several clips: give --aggregate interval:SECONDS or video as well")
    if array != "features" and format != "csd":
        raise UsageError(f"--array says what a csd file holds; a file of --format {format} holds all: leave it out")
    if array != "features" and array not in (known := _arrays(plan, statistics)):
        raise UsageError(f"{plan.model.name} gives no {array} here: it gives {', '.join(['features', *known])}")
    return how


def _arrays(plan: Plan, statistics: Sequence[Statistic]) -> list[str]:
    """What rows hold beside their features."""
    outputs = spec_of(plan.model.name, plan.model.weights or None, **plan.model.options).outputs
    more = [output.name for output in outputs if output.name != "features" and not output.scalar]
    return [*more, *(f"features_{name}" for name in statistics)]


def with_clips(plan: Plan) -> list[str]:
    """Names of the videos that have a clip: `drop` leaves none of a video shorter than a window."""
    return [video.name for video in plan.videos if video.start < video.stop]


def _rows(run: Run, names: Sequence[str], how: Aggregation, statistics: Sequence[Statistic]) -> Iterator[Rows]:
    for name in names:
        index = _index(run, name)
        span = float(index.pts_seconds[0]), float(index.end_seconds[-1])
        yield aggregated(vectors_of(run, name), how, span_seconds=span, statistics=statistics)


def vectors_of(run: Run, name: str) -> Vectors:
    """What a run of a clip model holds of one video. Raises UsageError for a run of another kind."""
    clip, timing = clip_settings(run.path, plan_of(run))
    maps, index = run[name], _index(run, name)
    clips = stored_clips(run, name, index)
    if "features" not in maps.outputs:
        raise UsageError(f"{maps.info['model']} gives {', '.join(maps.outputs)}, no output named features")
    scalars = maps.scalars
    more = {output: _stored(maps, output) for output in maps.outputs if output not in ("features", *scalars)}
    start_seconds, end_seconds = seconds_of(clips, index)
    return Vectors(
        video=name,
        features=_stored(maps, "features"),
        start_seconds=start_seconds,
        end_seconds=end_seconds,
        frames=clips.members,
        valid=np.nan_to_num(scalars["valid"]) if "valid" in scalars else clips.own.mean(1).astype(np.float32),
        facts=_facts(maps, clip, timing, index),
        more=more,
    )


def stored_clips(run: Run, name: str, index: VideoIndex) -> Clips:
    """The clips whose results a run holds of one video, by its index. Raises UsageError for a run of another kind."""
    table = video_clips(index, *clip_settings(run.path, plan_of(run)))
    rows = np.searchsorted(table.start, run[name].frame)
    return Clips(start=table.start[rows], members=table.members[rows], own=table.own[rows])


def seconds_of(clips: Clips, index: VideoIndex) -> tuple[np.ndarray, np.ndarray]:
    """When the first member of each clip comes on screen and when the last one goes, float64 (n,)."""
    return index.pts_seconds[clips.members.min(1)], index.end_seconds[clips.members.max(1)]


def _stored(maps: Maps, output: str) -> np.ndarray:
    """(n, D) float32, NaN at holes."""
    return np.stack([maps.output(output, int(frame)) for frame in maps.frame])


def _facts(maps: Maps, clip: Clip, timing: Timing, index: VideoIndex) -> dict[str, Any]:
    return {
        "model": str(maps.info["model"]),
        "weights_sha256": str(maps.info["weights_sha256"]) or None,
        "frames_per_clip": clip.length,
        "window_seconds": clip.seconds,
        "stride": timing.stride,
        "sampling": clip.sampling if timing.sampling == "model" else timing.sampling,
        "tail": timing.tail,
        "frame_rate": index.frame_rate,
        "version": str(maps.info["version"]),
    }


def plan_of(run: Run) -> Plan:
    """Raises UsageError for a merged file without its run."""
    if run.plan is None:
        raise UsageError(
            f"{run.path} is a merged file alone: name the run directory, whose plan says what its clips are"
        )
    return run.plan


def clip_settings(path: Path, plan: Plan) -> tuple[Clip, Timing]:
    """Raises UsageError for a run without clips."""
    if plan.of_clips is None:
        raise UsageError(f"{path} is a run of {plan.model.name}, which gives no vectors of clips: use export")
    return plan.of_clips


def planned_clips(run: Path, plan: Plan) -> Iterator[tuple[str, VideoIndex, Clips]]:
    """Of each video of a plan for a clip model: its name, its index and the clips that were asked for."""
    clip, timing = clip_settings(run, plan)
    for video in plan.videos:
        index = VideoIndex.load(index_path(run, video.name))
        table = video_clips(index, clip, timing)
        rows = slice(video.start, video.stop)
        yield video.name, index, Clips(start=table.start[rows], members=table.members[rows], own=table.own[rows])


def list_frames(run: Path, plan: Plan) -> Iterator[str]:
    """For every clip of every video its times and its frames, as lines of text."""
    for name, index, clips in planned_clips(run, plan):
        yield f"# {name}"
        start, end = seconds_of(clips, index)
        yield from frame_lines(start, end, clips.members)


def _index(run: Run, name: str) -> VideoIndex:
    return VideoIndex.load(index_path(run.path, name))


def _legacy_intervals(run: Run, name: str) -> np.ndarray:
    index = _index(run, name)
    return legacy_slots(float(index.end_seconds[-1] - index.pts_seconds[0]))[2]

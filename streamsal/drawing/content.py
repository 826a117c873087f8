"""What a film or a sheet is to show: runs, gaze and wishes in; out comes which maps, and later these maps opened.

A `Content` holds names and arrays only, so that it can be sent to another process, which opens the runs anew. Draws
nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import UsageError
from ..gaze.read import read_gaze
from ..gaze.table import Gaze
from ..index import VideoIndex
from ..maps import Maps
from ..merge import Run, open_run
from ..prepare import checked_index, index_path
from ..vectors.embed import stored_clips
from .gaze_marks import GazeTrack
from .labels import Labels
from .overlay import reduced_size
from .shown_maps import Between, Densities, Differences, GazeDensities, Shown


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Content:
    """Which maps of which video. `compared`: the other run and its name for the same video."""

    run: Path
    video: str
    between: Between
    compared: tuple[Path, str] | None = None
    difference_of: tuple[str, str] | None = None
    track: GazeTrack | None = None
    gaze_sigma_px: float | None = None


def content_of(
    run: Run,
    video: str,
    index: VideoIndex,
    *,
    between: Between = "interpolate",
    compare: str | Path | None = None,
    gaze: Gaze | str | Path | None = None,
    gaze_density: str | None = None,
    labels: bool = False,
    note: Callable[[str], None] = lambda line: None,
) -> Content:
    """What `render` is asked for; see there. `labels`: instead of maps. Raises UsageError where it cannot be shown."""
    if gaze_density and gaze is None:
        raise UsageError("the density of which gaze? name its file with --gaze")
    if gaze_density and compare:
        raise UsageError("either two models are compared or the density of gaze is shown: leave one of them out")
    if labels and (compare or gaze_density):
        raise UsageError(f"{run.path} holds labels, which are drawn alone: leave --compare and --gaze-density out")
    if not labels:
        _require_maps(run, video)
    compared, names = None, None
    if compare:
        compared, names = _compared(run, video, index, Path(compare))
    return Content(
        run=run.path,
        video=video,
        between=between,
        compared=compared,
        difference_of=names,
        track=None if gaze is None else _track(gaze, run, video, index, note),
        gaze_sigma_px=_sigma_px(gaze_density, run) if gaze_density else None,
    )


@contextmanager
def opened(content: Content) -> Iterator[tuple[VideoIndex, Shown]]:
    """The index of the video, and the maps to show."""
    with open_run(content.run) as run:
        index = index_of(run, content.video)
        maps, between = run[content.video], content.between
        if content.gaze_sigma_px is not None and content.track is not None:
            yield index, GazeDensities(content.track, index, content.gaze_sigma_px)
        elif content.compared is not None:
            other, name = content.compared
            size = reduced_size(maps.height, maps.width)
            with open_run(other) as second:
                yield (
                    index,
                    Differences(
                        Densities(maps, index, between, size=size), Densities(second[name], index, between, size=size)
                    ),
                )
        elif maps.first.labels:
            box = run.plan.model.options.get("box") if run.plan else None
            yield index, Labels(maps, stored_clips(run, content.video, index), box)
        else:
            yield index, Densities(maps, index, between)


def the_video(run: Run, wanted: str | None) -> str:
    """The run's name of a video; without a wish the only one that it holds."""
    names = run.chosen(wanted)
    if len(names) > 1:
        raise UsageError(f"{run.path} holds {len(names)} videos: choose one of {', '.join(names)}")
    return names[0]


def index_of(run: Run, name: str) -> VideoIndex:
    """The index of a video, which has to be unchanged. Raises PlanMismatch, MissingInput."""
    if run.plan is not None:
        return checked_index(run.path, next(video for video in run.plan.videos if video.name == name))
    index = VideoIndex.load(_index_path(run, name))
    index.check_unchanged()
    return index


def read_gaze_of(run: Run, path: str | Path | Sequence[str | Path], **told: Any) -> Gaze:
    """The gaze of files or folders on the videos of a run; `told` as to `read_gaze`."""
    if run.plan is not None:
        sizes = {video.name: (video.width, video.height) for video in run.plan.videos}
    else:
        sizes = {name: (run[name].width, run[name].height) for name in run.videos}
    return read_gaze(path, size_px=sizes, **told)


def _index_path(run: Run, name: str) -> Path:
    return index_path(run.folder, name)


def _require_maps(run: Run, video: str) -> Maps:
    maps = run[video]
    if maps.first.readback is None and len(maps.shape()) != 2:
        held = f"{run.path} holds {maps.first.name} of {maps.info['model']}"
        if maps.first.labels:
            raise UsageError(f"{held}, no maps: a film of --style labels shows these")
        raise UsageError(f"{held}, no maps that a film could show")
    return maps


def _compared(run: Run, video: str, index: VideoIndex, path: Path) -> tuple[tuple[Path, str], tuple[str, str]]:
    """The other run with its name of the video, and what to call the two."""
    with open_run(path) as other:
        name = next(
            (each for each in other.videos if _content_key(other, each) == (index.fingerprint, index.stream)), ""
        )
        if not name:
            raise UsageError(f"{path} is of other videos ({', '.join(other.videos[:3])}): compare runs of {video}")
        first, second = _require_maps(run, video), _require_maps(other, name)
        if first.first.readback is None or second.first.readback is None:
            raise UsageError(f"{run.path} and {path} cannot be compared: one of them has maps of no known full size")
        models = Path(str(first.info["model"])).stem, Path(str(second.info["model"])).stem
        return (path, name), models if models[0] != models[1] else (run.path.stem, path.stem)


def _content_key(run: Run, name: str) -> tuple[str, int]:
    """What tells whether two runs are of the same pictures, wherever their files lay."""
    if run.plan is not None:
        video = next(video for video in run.plan.videos if video.name == name)
        return video.fingerprint, video.stream
    index = VideoIndex.load(_index_path(run, name))
    return index.fingerprint, index.stream


def _track(gaze: Gaze | str | Path, run: Run, video: str, index: VideoIndex, note: Callable[[str], None]) -> GazeTrack:
    if not isinstance(gaze, Gaze):
        gaze = read_gaze_of(run, gaze)
        for line in gaze.notes:
            note(line)
    of_video = gaze.of(video)
    if not len(of_video):
        note(f"there is no gaze on {video}")
    return GazeTrack.of(of_video, index.pts_seconds)


def _sigma_px(text: str, run: Run) -> float:
    """The width in displayed pixels of "35px" or "1deg"."""
    match = re.fullmatch(r"(\d+\.?\d*|\.\d+) *(px|deg)", text)
    if not match or not float(match[1]):
        raise UsageError(f"a Gaussian of {text!r}: give its sigma with a unit, such as 35px or 1deg")
    if match[2] == "px":
        return float(match[1])
    scale = run.plan.settings.px_per_degree if run.plan else None
    if scale is None:
        raise UsageError(
            f"{text} is not known in pixels, because {run.path} was planned without --px-per-degree: give it as 35px"
        )
    return float(match[1]) * scale

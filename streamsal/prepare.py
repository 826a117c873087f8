"""From what a user types to a plan: which videos, which frames, at what size, for which model.

The plan and the frame indexes of its videos are written once, under a lock, by whoever comes first; everybody else
reads them and is told what differs if they asked for something else. Computes no frame.
"""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from . import __version__
from .clips import Clips, FrameTimes, clips_of
from .cluster.staging import staged
from .errors import BadInput, MissingInput, MissingWeights, PlanMismatch, StreamsalError, UsageError
from .files import make_folder
from .index import VideoIndex, index_video
from .locks import lock
from .models import (
    DEFAULT_MODEL,
    check_commercial,
    code_sha256,
    is_user_file,
    missing_assets,
    spec_of,
    usual_center_bias,
    weights_file,
    weights_sha256,
    with_stand_in_bias,
)
from .models.spec import ModelSpec
from .plan import Plan, PlannedModel, PlannedVideo, Settings, cut, differences
from .timing import Clip, Timing
from .vectors.latent_vectors_service import legacy_clips
from .weights.cache import checksum, find, missing

# fmt: off
SUFFIXES = frozenset({
    ".3gp", ".avi", ".flv", ".gif", ".h264", ".hevc", ".m2ts", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts",
    ".mxf", ".ogv", ".ts", ".vob", ".webm", ".wmv",
})
# fmt: on
HDR = {16: "PQ", 18: "HLG"}  # transfer functions of ITU-T H.273
LARGE_BYTES = 64 << 20  # a file that takes seconds to index
STAGING_BYTES = 48 << 20
MODEL_BYTES = 2 << 30
OFF_SCALE = 1.25  # frames larger than this many times those that a model was trained on
Position = int | str


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a user asks of a run; every field has the meaning of the option of that name.

    `tasks` None: as the plan in the run directory says, one if there is none. A function is asked for their number when
    there is no plan, once the videos are known. `weights` "synthetic": stand-ins.
    """

    model: str = DEFAULT_MODEL
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    tasks: int | Callable[[Sequence[PlannedVideo]], int] | None = None
    start: Position = 0
    stop: Position | None = None
    every: int = 1
    batch_size: int | Literal["auto"] = "auto"
    dtype: str = "auto"
    store_dtype: str = "float16"
    long_side: int | None = None
    px_per_degree: float | None = None
    timing: Timing = field(default_factory=Timing)
    saliency: str = ""
    stream: int | None = None
    commercial_only: bool = False

    def __post_init__(self) -> None:
        for name in ("tasks", "every", "batch_size", "long_side"):
            value = getattr(self, name)
            if isinstance(value, int) and value < 1:
                raise UsageError(f"--{name.replace('_', '-')} {value} makes no sense: it has to be at least 1")
        if self.px_per_degree is not None and not self.px_per_degree > 0:
            raise UsageError(f"--px-per-degree {self.px_per_degree} makes no sense: it has to be positive")
        if self.long_side and self.px_per_degree:
            raise UsageError("--long-side and --px-per-degree both set the model's scale: give one of them")


def make_plan(
    videos: Sequence[str | Path],
    run: str | Path,
    request: Request,
    *,
    on_rejected: Callable[[StreamsalError], None] | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Plan:
    """The plan of `run`: made and written now, or the one that is there if it agrees with the request.

    Several may call this at once; one makes the plan, the others wait and read it. `on_rejected` is told of each file
    that is no readable video, and the rest is planned; without it the first such file raises.
    Raises MissingInput, MissingWeights, VideoError, UsageError, PlanMismatch (saying what differs), WriteError.
    """
    options = model_options(request)
    spec = spec_of(request.model, request.weights, **options)
    model = plan_model(request, options)
    weighing = saliency_plan(request.saliency) if request.saliency else None
    paths = [Path(os.path.abspath(video)) for video in videos]
    names = video_names(paths)
    make_folder(run)
    with lock(Path(run) / ".plan.lock", wait=True):
        old = Plan.load(Path(run) / "plan.json") if (Path(run) / "plan.json").exists() else None
        planned, error = [], None
        for path, name in zip(paths, names, strict=True):
            try:
                index = _index(path, Path(run), name, request.stream, old, say)
                if old is None and spec.audio:
                    say_silence(index, name, spec, say)
                video = _planned(index, name, spec, request)
                if weighing:
                    name_there(request.saliency, weighing, video)
                planned.append(video)
            except (MissingInput, BadInput) as failure:
                if on_rejected is None or isinstance(failure, PlanMismatch):
                    raise
                on_rejected(failure)
                error = failure
        if not planned and error and len(paths) > 1:
            raise type(error)(f"none of the {len(paths)} videos can be used")
        if not planned:
            raise error or MissingInput("no video was named")
        plan = _cut(planned, model, spec, request, old)
        if old is None:
            say_doubts(plan, spec, say)
            plan.save(Path(run) / "plan.json")
            return plan
        different = differences(old, plan, shards=isinstance(request.tasks, int))
        if different:
            raise PlanMismatch(
                f"{run} was planned otherwise: {'; '.join(different)}. Give the same settings, or another run with -o"
            )
        return old


def model_options(request: Request) -> dict[str, Any]:
    """The model's options as the plan has them: its center bias a name or an absolute path.

    Raises UsageError, MissingInput and BadInput for a center bias that the model cannot take.
    """
    options = with_stand_in_bias(request.model, request.weights, request.options)
    if request.saliency:
        options = {**options, "pool": "saliency"}
    given = options.get("center_bias")
    if given is None or not usual_center_bias(request.model):
        if isinstance(given, str):
            raise UsageError(f"{request.model} takes no --center-bias: leave it out")
        return options
    if given is False:
        given = "uniform"
    return {**options, "center_bias": os.path.abspath(given) if str(given).endswith(".npy") else given}


def plan_model(request: Request, options: Mapping[str, Any]) -> PlannedModel:
    """The model with everything it reads found, checked and named by its checksum; nothing is downloaded."""
    name, bias = request.model, str(options.get("center_bias", usual_center_bias(request.model)))
    if request.commercial_only:
        check_commercial(name, request.weights, bias)
    if absent := missing_assets(name, weights=request.weights, center_bias=bias):
        raise MissingWeights(missing(*absent))
    weights = weights_file(name, request.weights)
    template = center_bias_file(name, options)
    return PlannedModel(
        name=os.path.abspath(name) if is_user_file(name) else name,
        weights=weights,
        sha256=model_sha256(name, request.weights),
        center_bias=template,
        center_bias_sha256=checksum(Path(template)) if template else "",
        saliency=os.path.abspath(request.saliency) if request.saliency else "",
        saliency_plan=saliency_plan(request.saliency).id if request.saliency else "",
        options=dict(options),
    )


def saliency_plan(run: str | Path) -> Plan:
    """The plan of a run of densities. Raises MissingInput, PlanMismatch; UsageError for a run of clips."""
    plan = Plan.load(Path(run) / "plan.json")
    if plan.of_clips:
        raise UsageError(f"{run} holds vectors of {plan.model.name}, no maps: pool by a run of a saliency model")
    return plan


def name_there(run: str | Path, plan: Plan, video: PlannedVideo) -> str:
    """What the saliency run calls this video. Raises BadInput where it does not hold it."""
    for other in plan.videos:
        if (other.fingerprint, other.stream) == (video.fingerprint, video.stream):
            return other.name
    raise BadInput(f"{video.name} is not in the saliency run {run}, which is to weigh its places: compute it there")


def center_bias_file(model: str, options: Mapping[str, Any]) -> str:
    """The file that the model's center bias comes from; empty where it is computed. Raises what reading it raises."""
    usual = usual_center_bias(model)
    if not usual:
        return ""
    from .models.center_bias import template

    bias = str(options.get("center_bias", usual))
    template(bias)
    if bias.endswith(".npy"):
        return bias
    return str(find(f"centerbias_{bias}")) if bias in ("mit1003", "ledov") else ""


def say_doubts(plan: Plan, spec: ModelSpec, say: Callable[[str], None]) -> None:
    """What the numbers of this plan may not mean, in a line each."""
    settings = plan.settings
    if spec.long_side and settings.long_side is None and settings.px_per_degree is None:
        large = max(plan.videos, key=lambda video: max(video.height, video.width))
        side = max(large.height, large.width)
        if side > OFF_SCALE * spec.long_side:
            say(
                f"{large.name}: {side} px is more than {spec.name} was trained at: "
                f"--long-side {spec.long_side} is closer to that, and faster"
            )


def say_silence(index: VideoIndex, name: str, spec: ModelSpec, say: Callable[[str], None]) -> None:
    """Where a model that hears will hear nothing."""
    if not index.audio:
        say(f"{name}: it has no sound, so {spec.name} hears silence")
    elif index.segment[-1]:
        jump = int(np.searchsorted(index.segment, 0, side="right"))
        say(f"{name}: its clock jumps, and {spec.name} hears silence from there on (frame {jump})")


def _cut(
    planned: Sequence[PlannedVideo], model: PlannedModel, spec: ModelSpec, request: Request, old: Plan | None
) -> Plan:
    size = request.batch_size
    batch_size = auto_batch_size(planned, spec) if size == "auto" else size
    if size == "auto" and old is not None:
        batch_size = old.batch_size
    tasks = request.tasks
    n_shards = tasks if isinstance(tasks, int) else len(old.shards) if old else tasks(planned) if tasks else 1
    return Plan(
        model=model,
        settings=Settings(
            dtype=request.dtype,
            store_dtype=request.store_dtype,
            long_side=request.long_side,
            px_per_degree=request.px_per_degree,
            clip=spec.clip,
            timing=request.timing if spec.clip else None,
        ),
        batch_size=batch_size,
        videos=tuple(planned),
        shards=cut(planned, n_shards, batch_size),
        version=__version__,
    )


def _planned(index: VideoIndex, name: str, spec: ModelSpec, request: Request) -> PlannedVideo:
    return plan_video(
        index,
        name=name,
        spec=spec,
        start=request.start,
        stop=request.stop,
        every=request.every,
        long_side=request.long_side,
        px_per_degree=request.px_per_degree,
        timing=request.timing,
    )


def _index(
    path: Path, run: Path, name: str, stream: int | None, old: Plan | None, say: Callable[[str], None]
) -> VideoIndex:
    """The index in the run directory if it is this video's, else a new one, written there."""
    sidecar = index_path(run, name)
    if sidecar.exists():
        try:
            index = replace(VideoIndex.load(sidecar), path=str(path))
            index.check_unchanged()
        except PlanMismatch:
            if old is not None and any(video.name == name for video in old.videos):
                raise
        else:
            if stream is None or stream == index.stream:
                return index
    if path.is_file() and path.stat().st_size > LARGE_BYTES:
        say(f"{name}: reading {path.stat().st_size / 1e6:.0f} MB once, to number its frames")
    index = index_video(path, stream=stream)
    if index.color_transfer in HDR:
        say(f"{name}: high dynamic range ({HDR[index.color_transfer]}) is not tone mapped: models see flat colors")
    planned = {video.name: video.fingerprint for video in old.videos} if old else {}
    if old is None or planned.get(name) == index.fingerprint:
        make_folder(sidecar.parent)
        index.save(sidecar)
        size = f"{index.display_width}x{index.display_height}"
        say(f"{name}: {index.n_frames} frames, {index.frame_rate:.3f} fps, {size}")
    return index


def model_sha256(model: str, weights: str | None) -> str:
    """Checksum of what the plan cannot say of a model: its weights and, of a user's own, its file. Empty without."""
    return "+".join(filter(None, (weights_sha256(model, weights), code_sha256(model))))


def check_model(planned: PlannedModel) -> None:
    """Raises PlanMismatch when weights, center bias or model file are not those that the plan was made with."""
    found = {planned.weights or planned.name: (planned.sha256, model_sha256(planned.name, planned.weights or None))}
    if planned.center_bias:
        found[planned.center_bias] = (planned.center_bias_sha256, checksum(Path(planned.center_bias)))
    for what, (then, now) in found.items():
        if then != now:
            raise PlanMismatch(
                f"{what} has changed since the plan was made (sha256 {then[:8]} then, {now[:8]} now): put the old one "
                "back, or plan a new run with -o"
            )


def checked_index(run: Path, video: PlannedVideo, *, stage: Path | None = None) -> VideoIndex:
    """The planned video's index, of its copy in the folder `stage` if there is one.

    Raises MissingInput or PlanMismatch when the file is gone or another than planned.
    """
    path = staged(video, stage) if stage else video.path
    index = replace(VideoIndex.load(index_path(run, video.name)), path=path)
    index.check_unchanged()
    if index.fingerprint != video.fingerprint:
        raise PlanMismatch(f"the index of {video.name} in {run} is of another video: delete the run and plan again")
    return index


def index_path(run: Path, name: str) -> Path:
    return run / "index" / f"{name}.npz"


def plan_video(
    index: VideoIndex,
    *,
    name: str,
    spec: ModelSpec,
    start: Position = 0,
    stop: Position | None = None,
    every: int = 1,
    long_side: int | None = None,
    px_per_degree: float | None = None,
    timing: Timing | None = None,
) -> PlannedVideo:
    """What is wanted of one video, in frame or clip numbers and pixels; of clips those that start in the range.

    Raises UsageError for positions outside the video.
    """
    window = spec.window(index.frame_rate)
    first = frame_at(index, start, name)
    last = index.n_frames if stop is None else frame_at(index, stop, name)
    if first >= last:
        end = "the end" if stop is None else stop
        raise UsageError(f"{name}: no frame from {start} to {end}; the video has frames 0 to {index.n_frames - 1}")
    if spec.state == "relay" and every != 1:
        raise UsageError(f"{spec.name} remembers every frame before, in order: leave --every out, or its state=relay")
    clips = None
    if spec.clip:
        if timing and timing.sampling == "latent-vectors-service" and (first, last) != (0, index.n_frames):
            raise UsageError(
                f"that service looked at whole videos: leave --start and --end out, or the preset of {name}"
            )
        if every != 1 or long_side or px_per_degree:
            raise UsageError(
                f"{spec.name} takes clips, at a size of its own, as many as --stride says: leave --every, --long-side "
                "and --px-per-degree out"
            )
        table = video_clips(index, spec.clip, timing or Timing())
        clips, (first, last) = len(table), np.searchsorted(table.start, (first, last)).tolist()
    height, width = index.display_height, index.display_width
    scale = model_scale(height, width, spec, long_side, px_per_degree)
    model_height, model_width = max(1, round(height * scale)), max(1, round(width * scale))
    check_size(name, model_height, model_width, spec)
    return PlannedVideo(
        name=name,
        path=index.path,
        size=index.size,
        mtime_ns=index.mtime_ns,
        fingerprint=index.fingerprint,
        stream=index.stream,
        n_frames=index.n_frames,
        frame_rate=index.frame_rate,
        height=height,
        width=width,
        model_height=model_height,
        model_width=model_width,
        start=first,
        stop=last,
        every=every,
        past=window.past,
        future=window.future,
        clips=clips,
    )


def video_clips(index: VideoIndex, clip: Clip, timing: Timing) -> Clips:
    """The clips of an indexed video: by the times of its frames where these vary, by number where its clock jumps."""
    if timing.sampling == "latent-vectors-service":
        return legacy_clips(index.pts_seconds, float(index.end_seconds[-1]))
    varies = index.variable_rate and bool(np.all(np.diff(index.pts_seconds) > 0))
    times = FrameTimes(pts_seconds=index.pts_seconds, frame_rate=index.frame_rate, variable=varies)
    return clips_of(times, clip, timing)


def check_size(name: str, height: int, width: int, spec: ModelSpec) -> None:
    """Raises UsageError for frames that the model cannot compute, or in which it would look at what is not there."""
    if min(height, width) < spec.min_side:
        raise UsageError(
            f"{name}: frames of {width}x{height} px are too small for {spec.name}, which needs {spec.min_side} px a "
            "side: take another model or another scale"
        )
    if spec.box:
        x, y, box_width, box_height = spec.box
        if x + box_width > width or y + box_height > height:
            raise UsageError(
                f"{name}: {box_width}x{box_height} px from ({x}, {y}) on, the box to look at, are not all inside its "
                f"frames of {width}x{height} px: move the box or make it smaller"
            )


def model_scale(height: int, width: int, spec: ModelSpec, long_side: int | None, px_per_degree: float | None) -> float:
    """Factor from displayed pixels to the model's: never above 1 for `long_side`, which only makes frames smaller."""
    if long_side:
        return min(1.0, long_side / max(height, width))
    if px_per_degree:
        if spec.px_per_degree is None:
            raise UsageError(f"{spec.name} was trained at no particular px per degree: use --long-side instead")
        return spec.px_per_degree / px_per_degree
    return 1.0


SECONDS = re.compile(r"(?P<seconds>\d+(\.\d+)?)s")
TIMECODE = re.compile(r"((?P<hours>\d+):)?(?P<minutes>\d+):(?P<seconds>\d+(\.\d+)?)")


def frame_at(index: VideoIndex, position: Position, name: str) -> int:
    """The first frame at or after a position: a frame number, seconds ("4.8s") or a timecode ("00:01:02.5").

    Times count from the first frame. A position behind the end is the number of frames.
    """
    text = str(position).strip()
    if re.fullmatch(r"\d+", text):
        return min(int(text), index.n_frames)
    match = SECONDS.fullmatch(text) or TIMECODE.fullmatch(text)
    if not match:
        raise UsageError(f"{text!r} is no position in {name}: give a frame (120), seconds (4.8s) or a time (0:01:02.5)")
    parts = match.groupdict()
    seconds = 3600 * int(parts.get("hours") or 0) + 60 * int(parts.get("minutes") or 0) + float(parts["seconds"])
    return int(np.searchsorted(index.pts_seconds - index.pts_seconds[0], seconds - 1e-6))


def auto_batch_size(videos: Sequence[PlannedVideo], spec: ModelSpec) -> int:
    """Frames per batch: as many as fit 48 MiB of staging as RGB and 2 GiB in the model, a power of two from 1 to 32.
    Clips per batch: as many as fit 2 GiB in the model, from 1 to 8.

    48 MiB holds 8 frames of 1080p; larger batches made nothing faster on a CPU and only add latency and memory. A batch
    is always computed whole, so it is not larger than the longest of the videos needs.
    """
    bytes_per_px = spec.bytes_per_px

    def fitting(video: PlannedVideo) -> int:
        if spec.clip:
            return int(max(1, min(8, MODEL_BYTES // max(1, spec.bytes_per_clip))))
        staging = STAGING_BYTES // (video.height * video.width * 3)
        model = MODEL_BYTES // (video.model_height * video.model_width * bytes_per_px) if bytes_per_px else staging
        return max(1, int(min(32, staging, model)))

    longest = max(len(video.grid(1).ranks(video.start, video.stop)) for video in videos)
    return min(1 << (min(map(fitting, videos)).bit_length() - 1), 1 << max(0, longest - 1).bit_length())


def find_videos(arguments: Sequence[str]) -> list[Path]:
    """Files, directories, glob patterns and @LIST.txt, in the order given, without repetition.

    Raises MissingInput for a path that is not there and for a directory without a video.
    """
    found: list[Path] = []
    for argument in arguments:
        path = Path(argument)
        if argument.startswith("@"):
            found += find_videos(_lines(Path(argument[1:])))
        elif path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and _shown(p, path))
            if not inside:
                raise MissingInput(f"no video in the directory {path}: looked for {' '.join(sorted(SUFFIXES))}")
            found += inside
        elif path.exists():
            found.append(path)
        elif glob.has_magic(argument):
            matching = sorted(Path(p) for p in glob.glob(argument, recursive=True) if os.path.isfile(p))
            if not matching:
                raise MissingInput(f"no file matches {argument}")
            found += matching
        else:
            raise MissingInput(f"no such file: {path}")
    return list(dict.fromkeys(found))


def _shown(path: Path, top: Path) -> bool:
    """Not hidden, and not inside a run directory: those hold our own films."""
    return not any(part.startswith(".") or part.endswith(".streamsal") for part in path.relative_to(top).parts)


def _lines(path: Path) -> list[str]:
    try:
        return [line.strip() for line in path.read_text().splitlines() if line.strip() and not line.startswith("#")]
    except OSError:
        raise MissingInput(f"no list of videos at {path}") from None


def video_names(paths: Sequence[Path]) -> list[str]:
    """What each video is called in a run: its path below the folder common to all, with `__` for `/`."""
    if len(set(paths)) != len(paths):
        raise UsageError("a video was named twice")
    common = os.path.commonpath([path.parent for path in paths])
    names = [str(path.relative_to(common)).replace("/", "__") for path in paths]
    if len(set(names)) != len(names):
        raise UsageError("two videos would get the same name: rename one, `__` stands for `/` in names")
    return names

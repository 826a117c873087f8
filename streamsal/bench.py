"""How fast a model runs on this machine, stage by stage, and how near that comes to what the machine can do.

A model and a video (or the sample clip, drawn at every size) flow in; a table flows out, and one JSON document that
`benchmarks/compare.py` sets beside those of other machines. The stages are the engine's own, each alone and then all
at once; of DeepGaze IIE the parts inside are told apart, any other model is one part. Judges nothing.
"""

from __future__ import annotations

import itertools
import json
import platform
import re
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from . import __version__, gauges
from .batches import AHEAD, Job, assemble, model_video, prefetch
from .cores import usable_cores
from .devices import inference, resolve_device, resolve_dtype, share_cores
from .engine import Chunk, Dtype, compute
from .errors import UsageError
from .files import write_bytes
from .gauges import Marks, median_seconds
from .index import VideoIndex, index_video
from .layout import PartInfo
from .models import MODELS, create_model, missing_assets, spec_of, usual_center_bias
from .models.deepgaze_iie import DeepGazeIIE
from .models.spec import Batch, Model, ModelSpec
from .plan import PlannedVideo
from .prepare import Request, plan_video
from .progress import Meter, warn
from .sample_clip import write_demo_clip
from .store import ShardWriter
from .task import store_chunk
from .weights.cache import SYNTHETIC

FRAME_RATE = 25  # of the sample clip
KEPT_CHUNKS, STORED_FRAMES = 4, 64  # results that the store writes over and over when it is measured alone
PACKAGES = ("torch", "torchvision", "av", "numpy", "h5py")
ENDLESS = 1 << 30  # frames in the video that a model believes to see while it is measured
Size = tuple[int, int]  # height, width


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """What is measured on a kind of device unless told otherwise; `frames` of the sample clip."""

    sizes: tuple[Size, ...]
    batches: tuple[int, ...]
    frames: int


ON_CPU = Usual(sizes=((540, 960),), batches=(1,), frames=64)
ON_GPU = Usual(sizes=((720, 1280), (1080, 1920)), batches=(1, 4, 8), frames=256)


def usual(device: torch.device) -> Usual:
    return ON_CPU if device.type == "cpu" else ON_GPU


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is measured: every size with every batch size in every precision; what is empty or None is as usual.

    Of a video that is given, the usual size is its own. `frames`: how many go through all stages at once, at most;
    fewer where they would take longer than `seconds`, which is also about how long each stage alone is measured, at
    least three times.
    """

    model: str = "deepgaze_iie"
    weights: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    device: str = "auto"
    sizes: tuple[Size, ...] = ()
    batches: tuple[int, ...] = ()
    dtypes: tuple[Dtype, ...] = ("auto",)
    frames: int | None = None
    seconds: float = 5.0
    decode_workers: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """What was found at one size, batch and precision. None: this device does not have or cannot tell it.

    `fps`: frames per second of each stage alone, and `end_to_end` of all at once, from opening the file to the last
    commit. `milliseconds` of the device per frame, `model` and the parts of it. `memory_mb` per frame on top of the
    loaded model, `highest_mb` with everything. `busy`: share of the time from end to end in which the device computed.
    `tflops`, `gbps`: what the model does per second, `share_of_*` of what the device was measured to do at best.
    `slowest`: operations that take the largest shares of the model's time. `failed`: why there are no numbers.
    """

    height: int
    width: int
    batch: int
    dtype: str
    fps: dict[str, float | None] = field(default_factory=dict)
    milliseconds: dict[str, float] = field(default_factory=dict)
    memory_mb: float | None = None
    highest_mb: float | None = None
    busy: float | None = None
    tflops: float | None = None
    gbps: float | None = None
    share_of_tflops: float | None = None
    share_of_gbps: float | None = None
    slowest: dict[str, float] = field(default_factory=dict)
    failed: str = ""


def bench(
    video: Path | None,
    settings: Settings,
    *,
    output_json: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Measures, prints the table and the JSON document; returns the latter. Raises what the stages raise."""
    device = resolve_device(settings.device)
    threads = share_cores(settings.decode_workers)
    network, weights = load(settings, device, say)
    facts = {
        "benchmark": "bench",
        "model": settings.model,
        "weights": weights,
        **measured(video, settings, network, device, decode_workers=threads, say=say),
        **surroundings(),
    }
    print_tables(facts)
    line = json.dumps(facts)
    print(line)
    if output_json:
        write_bytes(output_json, (line + "\n").encode())
    return facts


def load(settings: Settings, device: torch.device, say: Callable[[str], None]) -> tuple[Model, str]:
    """The model, with stand-in weights where the official ones are not here, and what its weights are."""
    name, weights = settings.model, settings.weights
    if spec_of(name, weights, **settings.options).clip:
        raise UsageError(f"{name} answers for clips, and these stages are those of frames: see benchmarks/embed.py")
    bias = str(settings.options.get("center_bias", usual_center_bias(name)))
    if weights is None and missing_assets(name, weights=None, center_bias=bias):
        warn(f"{name} has STAND-IN WEIGHTS, the official ones are not here: as fast")
        weights = SYNTHETIC
    say(f"loading {name}")
    network = create_model(name, weights=weights, device=device, **settings.options)
    if weights is None:
        return network, "official" if name in MODELS and MODELS[name].weights else "none"
    return network, SYNTHETIC if weights == SYNTHETIC else Path(weights).name


def measured(
    video: Path | None,
    settings: Settings,
    network: Model,
    device: torch.device,
    *,
    decode_workers: int = 1,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """`device`, `ceilings` and `cases`, ready for JSON."""
    dtypes = {effective_dtype(name, device): resolve_dtype(name, device) for name in settings.dtypes}
    say("measuring what the device can do")
    brief = min(1.0, settings.seconds)
    ceilings = {
        "tflops": {name: _tera(gauges.matmul_flops(device, name, dtype, brief)) for name, dtype in dtypes.items()},
        "copy_gbps": _giga(gauges.copy_bytes(device, brief)),
        "upload_gbps": _giga(gauges.upload_bytes(device, brief)),
    }
    cases: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="streamsal-bench-") as folder:
        for index, planned in _videos(video, settings, network.spec, device, Path(folder), say):
            for batch_size, dtype in itertools.product(settings.batches or usual(device).batches, dtypes):
                say(f"{planned.model_width}x{planned.model_height}, batches of {batch_size}, {dtype}")
                job = Job(
                    index=index,
                    video=planned,
                    model=network,
                    model_name=settings.model,
                    batch_size=batch_size,
                    device=device,
                    dtype=resolve_dtype(dtype, device),
                    decode_workers=decode_workers,
                )
                cases.append(asdict(_case(job, dtype, settings.seconds, Path(folder), ceilings)))
    return {"device": gauges.describe(device), "ceilings": ceilings, "cases": cases}


def _videos(
    video: Path | None,
    settings: Settings,
    spec: ModelSpec,
    device: torch.device,
    folder: Path,
    say: Callable[[str], None],
) -> Iterator[tuple[VideoIndex, PlannedVideo]]:
    """What to read and at which size; a given video is made smaller for the model where that is asked for."""
    frames = settings.frames or usual(device).frames
    if video is None:
        for height, width in settings.sizes or usual(device).sizes:
            say(f"drawing a clip of {width}x{height}, {frames} frames")
            clip = folder / f"clip_{width}x{height}.mp4"
            write_demo_clip(clip, seconds=max(3, frames) / FRAME_RATE, width=width, height=height)
            index = index_video(clip)
            yield index, plan_video(index, name=clip.name, spec=spec)
        return
    index = index_video(video)
    for size in settings.sizes or (None,):
        stop = min(frames, index.n_frames)
        yield index, plan_video(index, name=video.name, spec=spec, stop=stop, long_side=max(size) if size else None)


def _case(job: Job, dtype: str, seconds: float, folder: Path, ceilings: dict[str, Any]) -> Case:
    case = Case(height=job.video.model_height, width=job.video.model_width, batch=job.batch_size, dtype=dtype)
    try:
        return _measured_case(case, job, seconds, folder, ceilings)
    except torch.OutOfMemoryError:
        if job.device.type == "cuda":
            torch.cuda.empty_cache()
        return replace(case, failed="out of memory")


def _measured_case(case: Case, job: Job, seconds: float, folder: Path, ceilings: dict[str, Any]) -> Case:
    size, device = job.batch_size, job.device
    decode_fps, batch = decoding(job)
    steps = Steps(job, batch)
    with torch.no_grad():
        steps()  # what is chosen, converted or allocated at the first batch is not measured
        peak = gauges.peak_memory(device, steps)
        spent = median_seconds(device, steps.whole, seconds)
        if steps.has_parts:
            spent |= median_seconds(device, steps.parts, seconds)
        work = gauges.count(steps.once)
        profile = gauges.profiled(device, steps)
    seconds_per_frame = spent["model"] / size
    batches = min(job.video.stop // size, max(3, round(seconds / spent["model"])))
    end_to_end = from_end_to_end(job, max(1, batches) * size, folder)
    kernel_seconds = profile.seconds / size if profile and device.type == "cuda" else None
    busy = kernel_seconds * end_to_end.fps if kernel_seconds else end_to_end.busy
    tflops, gbps = (_tera(work.flops / spent["model"]), _giga(work.bytes / spent["model"]))
    return replace(
        case,
        fps={
            "decode": _short(decode_fps),
            "upload": _short(_upload_fps(batch, device, seconds)),
            "model": _short(1 / seconds_per_frame),
            "store": _short(stored(end_to_end.kept, job, folder)),
            "end_to_end": _short(end_to_end.fps),
        },
        milliseconds={part: round(1000 * took / size, 4) for part, took in spent.items()},
        memory_mb=_mega(peak.added / size) if peak else None,
        highest_mb=_mega(peak.highest) if peak else None,
        busy=_short(busy),
        tflops=tflops or None,
        gbps=gbps or None,
        share_of_tflops=_share(tflops, ceilings["tflops"][case.dtype]),
        share_of_gbps=_share(gbps, ceilings["copy_gbps"]),
        slowest=profile.slowest if profile else {},
    )


class Steps:
    """A model's step on one batch, over and over, as if the video went on."""

    def __init__(self, job: Job, batch: Batch) -> None:
        self.job = job
        self.batch = batch
        self.state = job.model.begin(replace(model_video(job.video), n_frames=ENDLESS))
        self.has_parts = isinstance(job.model, DeepGazeIIE)

    def __call__(self) -> None:
        size = len(self.batch.frame)
        with inference(self.job.device, self.job.dtype, autocast=self.job.model.spec.autocast):
            self.job.model.step(self.batch, self.state)
        frame = self.batch.frame + size
        self.batch = replace(self.batch, frame=frame, pts_seconds=frame / self.job.video.frame_rate)

    def whole(self, mark: Marks) -> None:
        self()
        mark("model")

    def parts(self, mark: Callable[[str], object]) -> None:
        """DeepGaze IIE part by part, without its last logarithm."""
        model, dtype = self.job.model, self.job.dtype
        assert isinstance(model, DeepGazeIIE)
        for branch, (grid, mixture) in zip(model.branches, self.state.tables, strict=True):
            taps = branch.taps(self.batch.frames_nhwc[:, : self.state.size[0] // 2, : self.state.size[1] // 2], dtype)
            mark("backbones")
            priority = branch.priority(taps, grid)
            mark("readout")
            mixture.density_sum(priority)
            mark("finalizer")

    def once(self) -> None:
        """What is counted: operations as they are launched, not a recording of them."""
        if self.has_parts:
            self.parts(lambda part: None)
        else:
            self()


def decoding(job: Job) -> tuple[float, Batch]:
    """Frames per second from the file to RGB in staging memory, and a batch of them on the device."""
    here = replace(job, device=torch.device("cpu"))
    began, n_frames, batch = time.perf_counter(), 0, None
    with closing(assemble(here, 0, job.video.stop, set(), Meter())) as batches:
        for found in batches:
            n_frames += found.present.stop - found.present.start
            batch = batch or replace(found, frames_nhwc=found.frames_nhwc.clone())
    spent = time.perf_counter() - began
    assert batch is not None
    present = slice(0, job.batch_size)
    frame = np.arange(job.batch_size)
    on_device = replace(
        batch,
        frames_nhwc=batch.frames_nhwc.to(job.device),
        frame=frame,
        pts_seconds=frame / job.video.frame_rate,
        present=present,
    )
    return n_frames / spent, on_device


def _upload_fps(batch: Batch, device: torch.device, seconds: float) -> float | None:
    """Frames per second from pinned memory to the device; None where model and frames share their memory."""
    if device.type != "cuda":
        return None
    pinned, into = batch.frames_nhwc.cpu().pin_memory(), torch.empty_like(batch.frames_nhwc)

    def upload(mark: Marks) -> None:
        into.copy_(pinned, non_blocking=True)
        mark("upload")

    upload(Marks(device))
    return len(batch.frame) / median_seconds(device, upload, min(1.0, seconds))["upload"]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndToEnd:
    """`busy`: share of the processors' time; `kept`: some of the results."""

    fps: float
    busy: float
    kept: list[Chunk]


def from_end_to_end(job: Job, n_frames: int, folder: Path) -> EndToEnd:
    """The first frames of the video through all stages at once, each in its threads, into a shard."""
    n_frames = min(n_frames, job.video.stop)
    job = replace(job, video=replace(job.video, stop=n_frames))
    kept: list[Chunk] = []

    def keeping(chunks: Iterable[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            if len(kept) < KEPT_CHUNKS:
                kept.append(chunk)
            yield chunk

    began, used = time.perf_counter(), time.process_time()
    with closing(prefetch(_computed(job), AHEAD)) as chunks:
        write(keeping(chunks), job, n_frames, folder / "end_to_end.h5")
    spent = time.perf_counter() - began
    busy = (time.process_time() - used) / (spent * usable_cores())
    return EndToEnd(fps=n_frames / spent, busy=min(1.0, busy), kept=kept)


def _computed(job: Job) -> Generator[Chunk]:
    return compute(job, 0, job.video.stop)


def stored(kept: Sequence[Chunk], job: Job, folder: Path) -> float:
    """Frames per second from results on the device to committed rows: `kept` over and over, as one video."""
    chunks: list[Chunk] = []
    n_frames = 0
    for chunk in itertools.cycle(kept):
        if n_frames >= STORED_FRAMES:
            break
        chunks.append(replace(chunk, frame=np.arange(n_frames, n_frames + len(chunk.frame))))
        n_frames += len(chunk.frame)
    samples = []
    for _ in range(3):
        began = time.perf_counter()
        write(chunks, job, n_frames, folder / "store.h5")
        samples.append(time.perf_counter() - began)
    return n_frames / statistics.median(samples)


def write(chunks: Iterable[Chunk], job: Job, n_frames: int, path: Path) -> None:
    """Rows into a new shard, committed chunk by chunk as a task does."""
    video, spec = job.video, job.model.spec
    info = PartInfo(
        plan_id="bench",
        video=video.name,
        start=0,
        stop=n_frames,
        every=1,
        height=video.height,
        width=video.width,
        model_height=video.model_height,
        model_width=video.model_width,
        model=spec.name,
        weights_sha256="",
        outputs=spec.outputs,
        derived=spec.derived,
        constants=spec.constants,
        store_dtype=Request().store_dtype,
        batch_size=job.batch_size,
    )
    path.unlink(missing_ok=True)
    with ShardWriter(path, [info]) as shard:
        for number, chunk in enumerate(chunks):
            store_chunk(shard, info, chunk, first=number == 0)


def effective_dtype(name: Dtype, device: torch.device) -> str:
    return {torch.float16: "fp16", torch.float32: "fp32"}[resolve_dtype(name, device)] if name == "auto" else name


def parse_size(text: str) -> Size:
    """(height, width) of `1080p` (16:9) or `1920x1080`. Raises UsageError for anything else."""
    if match := re.fullmatch(r"(\d+)p", text):
        height = int(match[1])
        return height, 2 * round(height * 8 / 9)
    if match := re.fullmatch(r"(\d+)x(\d+)", text):
        return int(match[2]), int(match[1])
    raise UsageError(f"{text!r} is no size: write 1080p, or width and height as 1920x1080")


def print_tables(facts: Mapping[str, Any]) -> None:
    """Two tables: rates of the stages, and what the model costs."""
    device, ceilings, cases = facts["device"], facts["ceilings"], facts["cases"]
    parts = list(dict.fromkeys(part for case in cases for part in case["milliseconds"]))
    stages = ("decode", "upload", "model", "store", "end_to_end")
    print(f"{facts['model']}, weights {facts['weights']}, on {device['name']}\n")
    head = [f"{case['width']}x{case['height']} batch {case['batch']} {case['dtype']}" for case in cases]
    _print_table(
        ["frames per second", *(stage.replace("_", " ") for stage in stages), "busy"],
        [
            [name, *(_cell(case["fps"].get(stage), 1) for stage in stages), _percent(case["busy"])]
            if not case["failed"]
            else [name, case["failed"]]
            for name, case in zip(head, cases, strict=True)
        ],
    )
    columns = ["the model per frame", *(f"{part}, ms" for part in parts), "MB", "TFLOP/s", "of best", "GB/s", "of best"]
    _print_table(
        columns,
        [
            [
                name,
                *(_cell(case["milliseconds"].get(part), 2) for part in parts),
                _cell(case["memory_mb"], 1),
                _cell(case["tflops"], 3),
                _percent(case["share_of_tflops"]),
                _cell(case["gbps"], 1),
                _percent(case["share_of_gbps"]),
            ]
            for name, case in zip(head, cases, strict=True)
            if not case["failed"]
        ],
    )
    best = ", ".join(f"{name} {rate} TFLOP/s" for name, rate in ceilings["tflops"].items())
    print(f"best of this device: {best}, copies {ceilings['copy_gbps']} GB/s\n")


def _print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(len(row[i]) for row in [head, *rows] if i < len(row)) for i in range(len(head))]
    for row in [head, *rows]:
        first, *rest = row
        print("  ".join([first.ljust(widths[0]), *(c.rjust(w) for c, w in zip(rest, widths[1:], strict=False))]))
    print()


def surroundings() -> dict[str, Any]:
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": usable_cores(),
        "versions": versions(),
        "commit": commit(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def versions() -> dict[str, str]:
    found = {"streamsal": __version__, "python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit() -> str | None:
    """Of the checkout that this file is in; None for an installed copy."""
    top = Path(__file__).resolve().parents[1]
    if not (top / ".git").exists():
        return None
    try:
        run = subprocess.run(["git", "-C", str(top), "describe", "--always", "--dirty"], capture_output=True, text=True)
    except OSError:
        return None
    return run.stdout.strip() or None


def _tera(per_second: float) -> float:
    return _short(per_second / 1e12) or 0.0


def _giga(per_second: float | None) -> float | None:
    return None if per_second is None else _short(per_second / 1e9)


def _mega(n_bytes: float) -> float:
    return round(n_bytes / 1e6, 1)


def _share(part: float | None, whole: float | None) -> float | None:
    return _short(part / whole) if part and whole else None


def _short(value: float | None) -> float | None:
    """Four digits: more is noise."""
    return None if value is None else float(f"{value:.4g}")


def _cell(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"

"""The one flow: seek > decode > batch > model > chunk > store. Everything that computes goes through `compute`.

Frames come from `decode` in a thread of their own, already converted into preallocated staging memory; the model runs
in the caller's thread; the store packs and compresses on its own threads. Two batches at most wait between two stages,
so memory depends on the batch, never on the video's length. Knows no model by name.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import AbstractContextManager, closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor

from . import density
from .audio import Moments, Recording, Sound
from .batches import AHEAD, Job, assemble, assemble_clips, model_video, prefetch
from .devices import inference, resolve_device, resolve_dtype
from .errors import DeviceError, UsageError
from .index import VideoIndex, index_video
from .models import DEFAULT_MODEL, create_model, naming_the_file
from .models.spec import Batch, ClipBatch, Model, Output, Result, Video
from .prepare import auto_batch_size, plan_video, video_clips
from .progress import Meter
from .relay import spool
from .second_pass import Deriver
from .timing import Timing

# Clips of a batch that a CPU computes at a time: one by one X3D-S makes 7.4 a second on a thread, eight by eight 4.1.
CLIPS_ON_CPU = 1
T = TypeVar("T")
Dtype = Literal["auto", "fp32", "tf32", "fp16", "bf16"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one step yields: frame numbers, times, and each output at the resolution the model computes.

    Of a clip model a row is a clip, and its frame the one it starts at.

    `frame` int64 (n,); `pts_seconds` float64 (n,); `hole` bool (n,), True where the video has no picture and the values
    are NaN; `values` {output: (n, ...) float32 on the device}; `size` (height, width) of the displayed frame in pixels;
    `constants` {name: array on the device} are the same in every chunk of a video.
    """

    frame: np.ndarray
    pts_seconds: np.ndarray
    hole: np.ndarray
    values: Mapping[str, Tensor]
    outputs: tuple[Output, ...]
    size: tuple[int, int]
    constants: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def log_density(self) -> Tensor:
        """(n, H, W) float32 natural-log density of every displayed pixel, logsumexp 0 per frame; NaN at holes.

        Raises UsageError for a model whose first output is no density.
        """
        output = self.outputs[0]
        if not output.is_density or output.readback is None:
            raise UsageError(f"{output.name} is a {output.kind}, not a log density: read chunk.values[{output.name!r}]")
        return density.full_size(self.values[output.name], *self.size, output.readback, self.constants)


def stream(
    source: str | Path | VideoIndex,
    *,
    model: str | Model = DEFAULT_MODEL,
    start: int | str = 0,
    stop: int | str | None = None,
    every: int = 1,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int | Literal["auto"] = "auto",
    long_side: int | None = None,
    px_per_degree: float | None = None,
    timing: Timing | None = None,
    weights: str | Path | None = None,
    options: Mapping[str, Any] | None = None,
) -> Iterator[Chunk]:
    """Predictions for the frames start, start + every, ... below stop, in display order, a few batches in memory.

    `start`, `stop`: a frame number, seconds ("4.8s") or a timecode ("00:01:02.5"). `timing`: where the clips of a clip
    model begin. Raises MissingInput, VideoError, UsageError, MissingWeights, DeviceError.
    """
    index = source if isinstance(source, VideoIndex) else index_video(source)
    where = resolve_device(device)
    network = create_model(model, weights=weights, device=where, **(options or {})) if isinstance(model, str) else model
    video = plan_video(
        index,
        name=Path(index.path).name,
        spec=network.spec,
        start=start,
        stop=stop,
        every=every,
        long_side=long_side,
        px_per_degree=px_per_degree,
        timing=timing,
    )
    job = Job(
        index=index,
        video=video,
        model=network,
        model_name=model if isinstance(model, str) else "",
        batch_size=auto_batch_size([video], network.spec) if batch_size == "auto" else batch_size,
        clips=video_clips(index, network.spec.clip, timing or Timing()) if network.spec.clip else None,
        device=where,
        dtype=resolve_dtype(dtype, where),
    )
    chunks = compute(job, video.start, video.stop)
    return _with_derived(chunks, job) if network.spec.derived else chunks


def compute(job: Job, start: int, stop: int, *, meter: Meter | None = None) -> Generator[Chunk]:
    """Chunks for the selected frames (of a clip model: clips) in [start, stop), warm-up and look-ahead included in what
    is read, not in what is yielded."""
    meter = meter or Meter()
    spec, video, index = job.model.spec, job.video, job.index
    owned = video.selection.owned(start, stop)
    holes: set[int] = set()

    def chunk(result: Result | None) -> Iterator[Chunk]:
        keep = [row for row, frame in enumerate(result.frame) if int(frame) in owned] if result else []
        if not result or not keep:
            return
        number = result.frame[keep]
        frame = job.clips.start[number] if job.clips else number
        hole = np.array([int(n) in holes for n in number])
        yield Chunk(
            frame=frame,
            pts_seconds=index.pts_seconds[frame],
            hole=hole,
            values={name: _rows(value, keep, hole) for name, value in result.values.items()},
            outputs=spec.outputs,
            size=(video.height, video.width),
            constants=constants,
        )

    assembled = (assemble_clips if job.clips else assemble)(job, start, stop, holes, meter)
    with closing(prefetch(assembled, AHEAD)) as batches:
        with _naming_the_file(job, "before the first frame"):
            state = job.model.begin(model_video(video))
            constants = _constants(job.model, state, job.device)
        for results in (_relayed if job.handover else _stepped)(job, batches, state, meter):
            yield from (piece for result in results for piece in chunk(result))
        while True:
            with meter.busy("model"), inference(job.device, job.dtype, autocast=spec.autocast):
                with _naming_the_file(job, "after the last frame"):
                    waiting = job.model.end(state)
                last = list(chunk(waiting))
            if waiting is None:
                return
            yield from last


def _stepped(job: Job, batches: Iterator[Any], state: Any, meter: Meter) -> Iterator[list[Result]]:
    """What the model answers, batch by batch."""
    size = CLIPS_ON_CPU if job.clips and job.device.type == "cpu" else job.batch_size
    for batch in batches:
        with meter.busy("model", frames=batch.present.stop - batch.present.start):
            results, size = _step(job, job.model.step, batch, state, size)
        yield results


def _relayed(job: Job, batches: Iterator[Any], state: Any, meter: Meter) -> Iterator[list[Result]]:
    """The same of a model that goes on where the shard before ended: while that works, frames are looked at already."""
    model: Any = job.model
    handover = job.handover
    assert handover is not None

    def alone(method: Callable[..., T], *arguments: Any) -> T:
        precision = inference(job.device, job.dtype, autocast=model.spec.autocast)
        with meter.busy("model"), precision, _naming_the_file(job, "behind the last frame"):
            return method(*arguments, state)

    def look(batch: Batch, state: Any) -> tuple[Batch, Any]:
        return batch.blind(), model.look(batch, state)

    before = handover.take() if handover.takes else {}
    if before is not None:
        if before:
            model.load(state, before)
        yield from _stepped(job, batches, state, meter)
        handover.give(model.save(state))
        return
    with spool() as seen, spool() as known:
        size = job.batch_size
        for batch in batches:
            with meter.busy("model", frames=batch.present.stop - batch.present.start):
                pieces, size = _step(job, look, batch, state, size)
            for piece in pieces:
                seen.put(piece)
            handover.alive(None)
        model.load(state, handover.wait())
        for piece, looked in seen:
            known.put((piece, alone(model.remember, piece, looked)))
        handover.give(model.save(state))
        for piece, remembered in known:
            yield [alone(model.answer, piece, remembered)]


def _with_derived(chunks: Generator[Chunk], job: Job) -> Generator[Chunk]:
    """The chunks with what the model derives of their values in front."""
    deriver = Deriver(job.model, model_video(job.video), model_name=job.model_name)
    spec = job.model.spec
    with closing(chunks):
        for chunk in chunks:
            derived = deriver.step(chunk.values, chunk.pts_seconds, chunk.hole)
            yield replace(chunk, values={**derived, **chunk.values}, outputs=(*spec.derived, *spec.outputs))


def predict(
    frames: np.ndarray,
    *,
    model: Model,
    fps: float = 25.0,
    device: str = "auto",
    dtype: Dtype = "auto",
    batch_size: int = 8,
    native: bool = False,
    center_bias: np.ndarray | None = None,
    fixations: tuple[np.ndarray, np.ndarray] | None = None,
    sound: tuple[np.ndarray, int] | None = None,
) -> np.ndarray:
    """Maps of a clip in memory: (T, H, W, 3) uint8 RGB -> (T, H, W) float32 log density, or at stored size if `native`.

    Of a model that gives saliency maps, those. The model and the numbers are those of `stream`; only the decoder is
    missing. `center_bias`: a log density (h, w) of any size in place of the model's own. `fixations`, for models that
    depend on them: (x, y) in pixels from the frame's corner, each (4,), or (T, 4) for each frame its own; the most
    recent one first, NaN for none. `sound`, for models that hear: (samples (n,) in -1 ... 1 from the first frame on,
    their rate in Hz); silence without.
    """
    if model.spec.clip:
        raise ValueError(f"{model.spec.name} gives a vector per clip, no maps: use stream(), or give its step clips")
    if frames.ndim != 4 or frames.shape[-1] != 3 or frames.dtype != np.uint8:
        raise ValueError(f"frames must be (T, H, W, 3) uint8 RGB, got {frames.shape} {frames.dtype}")
    n, height, width = frames.shape[:3]
    where, spec = resolve_device(device), model.spec
    video = Video(name="clip", n_frames=n, frame_rate=fps, height=height, width=width, center_bias=center_bias)
    deriver = _clip_deriver(model, video, fixations)
    hearing = _clip_sound(model, video, sound)
    output = (*spec.derived, *spec.outputs)[0]
    state = model.begin(video)
    constants = _constants(model, state, where)
    found: dict[int, np.ndarray] = {}

    def keep(result: Result) -> None:
        if not len(result.frame):
            return
        values = result.values
        if deriver:
            values = deriver.step(values, result.frame / fps, np.zeros(len(result.frame), np.bool_))
        maps = values[output.name]
        if not native and output.readback:
            maps = density.enlarged(maps, height, width, output, constants)
        found.update(zip(result.frame.tolist(), maps.float().cpu().numpy(), strict=True))

    step, precision = spec.pixel_step, resolve_dtype(dtype, where)
    for base in range(0, n, batch_size):
        numbers = np.minimum(np.arange(base, base + batch_size), n - 1)
        batch = Batch(
            frames_nhwc=torch.from_numpy(np.ascontiguousarray(frames[numbers, ::step, ::step])).to(where),
            frame=np.arange(base, base + batch_size),
            pts_seconds=np.arange(base, base + batch_size) / fps,
            present=slice(0, min(batch_size, n - base)),
            audio_nt=torch.from_numpy(np.stack([hearing.row(k) for k in numbers])).to(where) if hearing else None,
        )
        with inference(where, precision, autocast=spec.autocast):
            result = model.step(batch, state)
        keep(result)
    while True:
        with inference(where, precision, autocast=spec.autocast):
            waiting = model.end(state)
        if waiting is None:
            break
        keep(waiting)
    missing = n - len(found)
    if missing:
        raise RuntimeError(f"the model gave no result for {missing} of {n} frames (window {spec.window(fps)})")
    return np.stack([found[frame] for frame in range(n)])


def _clip_sound(model: Model, video: Video, sound: tuple[np.ndarray, int] | None) -> Sound | None:
    """The sound of a clip in memory, for a model that hears. Raises ValueError where another model is given one."""
    if model.spec.audio is None:
        if sound is not None:
            raise ValueError(f"{model.spec.name} does not hear: leave the sound out")
        return None
    moments = Moments(
        start=np.arange(video.n_frames) / video.frame_rate,
        duration=np.full(video.n_frames, 1 / video.frame_rate),
        frame_rate=video.frame_rate,
        told=video.n_frames,
    )
    return Sound(sound and Recording(samples=sound[0], rate_hz=sound[1]), moments, model.spec.audio)


def _clip_deriver(model: Model, video: Video, fixations: tuple[np.ndarray, np.ndarray] | None) -> Deriver | None:
    """Raises ValueError where fixations are given to a model that takes none, or in another shape."""
    if not model.spec.derived:
        if fixations is not None:
            raise ValueError(f"{model.spec.name} does not depend on fixations: leave them out")
        return None
    if fixations is None:
        return Deriver(model, video)
    from .fixations import History

    x_px, y_px = (np.asarray(coordinate, np.float64) for coordinate in fixations)
    if x_px.shape != y_px.shape or x_px.shape not in ((4,), (video.n_frames, 4)):
        raise ValueError(f"fixations must be (x, y), each (4,) or ({video.n_frames}, 4), got {x_px.shape} {y_px.shape}")
    return Deriver(model, video, History(x_px=x_px, y_px=y_px))


def _constants(model: Model, state: Any, device: torch.device) -> dict[str, Tensor]:
    """What the model gives once per video, on the device."""
    names = model.spec.constants
    if not names:
        return {}
    given: Mapping[str, np.ndarray] = model.constants(state)  # type: ignore[attr-defined]
    if set(given) != set(names):
        raise ValueError(f"constants() gave {sorted(given)}, the spec of {model.spec.name} names {sorted(names)}")
    return {name: torch.from_numpy(np.ascontiguousarray(given[name], np.float32)).to(device) for name in names}


def _step(
    job: Job, step: Callable[[Any, Any], T], batch: Batch | ClipBatch, state: Any, size: int
) -> tuple[list[T], int]:
    """Run one batch in pieces of `size` slots, halving the piece while the device is out of memory.

    Also returns the size that fitted, for the next batch. The batch grid stays; only bits in the last place may differ.
    """
    results, low = [], 0
    while low < job.batch_size:
        piece = _piece(batch, low, size)
        try:
            if piece is not None:
                where = f"at {'clip' if job.clips else 'frame'} {int(piece.frame[piece.present][0])}"
                precision = inference(job.device, job.dtype, autocast=job.model.spec.autocast)
                with precision, _naming_the_file(job, where):
                    results.append(step(piece, state))
            low += size
        except torch.OutOfMemoryError as error:
            frame = int(batch.frame[batch.present][0])
            if size == 1:
                raise DeviceError(
                    f"out of memory on {job.device} at batch size 1, {job.video.name} frame {frame}: "
                    "use --long-side to make the frames smaller, or a larger device"
                ) from error
            size = -(-size // 2)
            if job.device.type == "cuda":
                torch.cuda.empty_cache()
            job.on_event("oom", video=job.video.name, frame=frame, retry_with_batch_size=size)
    return results, size


def _naming_the_file(job: Job, where: str) -> AbstractContextManager[None]:
    return naming_the_file(job.model_name, f"{where} of {job.video.name}", but=torch.OutOfMemoryError)


def _piece(batch: Batch | ClipBatch, low: int, size: int) -> Batch | ClipBatch | None:
    """Slots low ... low + size of a batch, None if no frame of ours is among them."""
    piece = batch.piece(low, min(low + size, len(batch.frame)))
    return piece if piece.present.start < piece.present.stop else None


def _rows(value: Tensor, keep: list[int], hole: np.ndarray) -> Tensor:
    """Rows of a result, float32. Where they lie together they are not copied, but for holes to be written into them."""
    together = keep[-1] - keep[0] == len(keep) - 1
    rows = value[keep[0] : keep[-1] + 1].float() if together else value[keep].float()
    if hole.any():
        rows = torch.where(torch.from_numpy(hole).to(rows.device)[(...,) + (None,) * (rows.ndim - 1)], torch.nan, rows)
    return rows

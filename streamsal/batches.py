"""From decoded pictures to batches on the device, in memory that is allocated once and used in turn.

Each frame goes into the slot of the batch that the plan's grid gives it; slots of frames that a shard does not need
repeat a neighbor, so that every batch has the same shape on the device. For a clip model slots hold clips: every frame
is decoded and prepared once, and kept for as long as a later clip has it as a member.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from .audio import Sound
from .clips import Clips, needed
from .color import RgbConverter
from .decode import VideoReader
from .devices import inference
from .index import VideoIndex
from .models.resize import resized
from .models.spec import Batch, ClipBatch, Model, Video
from .plan import PlannedVideo, Slots

if TYPE_CHECKING:
    from .decode import Frame
    from .progress import Meter
    from .relay import Handover

T = TypeVar("T")
Box = tuple[float, float, float, float]  # top, left, bottom, right, in fractions of a frame's sides
AHEAD = 2  # batches waiting between two stages
# Python answers signals in its main thread only, and does not wake it for one that came as it began to wait.
SIGNAL_SECONDS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A model about to run over a video: what `compute` needs beside the frames it is to own.

    `model_name` is the name or file that the model was made from, empty where the model itself was given. `clips`: all
    clips of the video, for a clip model; `saliency`: what its places are weighed by, if they are,
    a function of a time in seconds, the box that the model sees, and n, to the mass in its n x n cells. `handover`: how
    state comes from the shard before and goes to the next, for a model that relays it.
    """

    index: VideoIndex
    video: PlannedVideo
    model: Model
    model_name: str = ""
    batch_size: int
    device: torch.device
    dtype: torch.dtype
    clips: Clips | None = None
    saliency: Callable[[float, Box, int], np.ndarray] | None = None
    handover: Handover | None = None
    decode_workers: int = 1
    on_event: Callable[..., None] = lambda event, **facts: None


def model_video(video: PlannedVideo) -> Video:
    """What a model may know of a planned video."""
    return Video(
        name=video.name,
        n_frames=video.n_frames,
        frame_rate=video.frame_rate,
        height=video.model_height,
        width=video.model_width,
        scale=(video.width / video.model_width, video.height / video.model_height),
    )


def assemble(job: Job, start: int, stop: int, holes: set[int], meter: Meter) -> Generator[Batch]:
    """Batches on the device. Staging memory is allocated once and used in turn (pinned where the device is CUDA)."""
    video, spec = job.video, job.model.spec
    grid = video.grid(job.batch_size)
    owned, first = video.selection.owned(start, stop), start if job.handover is None else job.handover.start
    ranks = grid.ranks(first, stop)
    if not ranks:
        return
    step = spec.pixel_step if (video.height, video.width) == (video.model_height, video.model_width) else 1
    shape = (job.batch_size, -(-video.height // step), -(-video.width // step), 3)
    cuda = job.device.type == "cuda"
    # One buffer is being filled, AHEAD wait, one is in use: none is filled again before its user is done with it.
    staging = [torch.zeros(shape, dtype=torch.uint8, pin_memory=cuda) for _ in range(AHEAD + 2)]
    copied = [torch.cuda.Event() for _ in staging] if cuda else []
    side = torch.cuda.Stream(job.device) if cuda else None
    convert = RgbConverter(display_matrix=job.index.display_matrix, size=(video.height, video.width))
    sound = Sound.of(job.index, spec.audio) if spec.audio else None
    with VideoReader(job.index, workers=job.decode_workers) as reader:
        frames = reader.read(ranks if grid.dense else [grid.frame(rank) for rank in ranks])
        for turn, batch_slots in enumerate(grid.batches(first, stop)):
            buffer = staging[turn % len(staging)]
            with meter.busy("decode", frames=len(batch_slots.frames)):
                if cuda:
                    copied[turn % len(staging)].synchronize()
                _fill(buffer.numpy(), batch_slots, frames, convert, step, holes)
                audio_nt = _heard(sound, batch_slots, owned, job.batch_size) if sound else None
            if side:
                with torch.cuda.stream(side):
                    on_device = buffer.to(job.device, non_blocking=True)
                    audio_nt = None if audio_nt is None else audio_nt.to(job.device)
                    copied[turn % len(staging)].record(side)
                # The model reads it on the default stream: until it has, the side stream must not reuse the memory.
                for tensor in (on_device, *([] if audio_nt is None else [audio_nt])):
                    tensor.record_stream(torch.cuda.default_stream(job.device))
                side.synchronize()  # in this thread, so that the model's never waits
            else:
                on_device = buffer.to(job.device)
                audio_nt = None if audio_nt is None else audio_nt.to(job.device)
            yield _batch(job, on_device, audio_nt, batch_slots, step, owned)


def _fill(
    buffer: np.ndarray, slots: Slots, frames: Iterator[Frame], convert: RgbConverter, step: int, holes: set[int]
) -> None:
    """Put the batch's frames into their slots. A hole shows the picture that the decoder found nearest in its run."""
    for slot in range(slots.present.start, slots.present.stop):
        frame = next(frames)
        if frame.hole:
            holes.add(frame.index)
        if frame.picture is None:
            buffer[slot] = 0
        else:
            convert(frame.picture, step=step, out=buffer[slot])
    buffer[: slots.present.start] = buffer[slots.present.start]
    buffer[slots.present.stop :] = buffer[slots.present.stop - 1]


def _heard(sound: Sound, slots: Slots, owned: range, batch_size: int) -> Tensor:
    """(B, samples): the sound of the frames whose results are wanted; nothing in the other slots."""
    rows = torch.zeros(batch_size, sound.window.samples)
    for slot, frame in enumerate(slots.frames, start=slots.present.start):
        if frame in owned:
            rows[slot] = torch.from_numpy(sound.row(frame))
    return rows


def _batch(job: Job, frames: Tensor, audio_nt: Tensor | None, slots: Slots, step: int, owned: range) -> Batch:
    video = job.video
    if (video.height, video.width) != (video.model_height, video.model_width):
        frames = resized(frames, video.model_height, video.model_width, antialias=True)
        rest = job.model.spec.pixel_step
        frames = frames[:, ::rest, ::rest]
    frame = np.full(job.batch_size, -1, np.int64)
    frame[slots.present] = slots.frames
    return Batch(
        frames_nhwc=frames,
        frame=frame,
        pts_seconds=np.where(frame < 0, np.nan, job.index.pts_seconds[frame]),
        present=slots.present,
        audio_nt=audio_nt,
        wanted=np.array([number in owned for number in frame.tolist()]),
    )


def assemble_clips(job: Job, start: int, stop: int, holes: set[int], meter: Meter) -> Generator[ClipBatch]:
    """Batches of the clips in [start, stop) on the device; a clip none of whose frames has a picture is a hole."""
    clips, grid = job.clips, job.video.grid(job.batch_size)
    assert clips is not None
    kept: dict[int, _Prepared] = {}
    with closing(_prepare(job, needed(clips, grid.ranks(start, stop)), meter)) as prepared:
        for slots in grid.batches(start, stop):
            for row in slots.frames:
                while clips.members[row].max() not in kept:
                    frame = next(prepared)
                    kept[frame.number] = frame
            yield _clip_batch(job, clips, slots, kept, holes)
            rest = clips.members[slots.frames[-1] + 1 :]
            oldest = rest[0].min() if len(rest) else job.video.n_frames  # those of later clips are not older
            for number in [number for number in kept if number < oldest]:
                del kept[number]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A frame as the model made it ready (C, h, w), and the saliency in its cells (y, x) where that is asked for.

    A hole shows a neighbor's picture, or black.
    """

    number: int
    frame_chw: Tensor
    hole: bool
    weights_yx: Tensor | None


def _prepare(job: Job, numbers: np.ndarray, meter: Meter) -> Generator[_Prepared]:
    """These frames, decoded, converted and made ready by the model one by one, so that none depends on another."""
    video = job.video
    pixels = torch.empty((1, video.height, video.width, 3), dtype=torch.uint8, pin_memory=job.device.type == "cuda")
    convert = RgbConverter(display_matrix=job.index.display_matrix, size=(video.height, video.width))
    prepare: Callable[[Tensor], Tensor] = job.model.prepare  # type: ignore[attr-defined]
    with VideoReader(job.index, workers=job.decode_workers) as reader:
        for frame in reader.read(numbers.tolist()):
            with meter.busy("decode", frames=1), inference(job.device, torch.float32, autocast=False):
                if frame.picture is None:
                    pixels.zero_()
                else:
                    convert(frame.picture, out=pixels[0].numpy())
                ready = prepare(pixels.to(job.device))[0]
            yield _Prepared(frame.index, ready, frame.hole, _weights(job, frame.index))


def _weights(job: Job, frame: int) -> Tensor | None:
    if job.saliency is None:
        return None
    model: Any = job.model
    box = model.crop_box(job.video.height, job.video.width)
    return torch.from_numpy(job.saliency(float(job.index.pts_seconds[frame]), box, model.cells)).to(job.device)


def _clip_batch(job: Job, clips: Clips, slots: Slots, kept: Mapping[int, _Prepared], holes: set[int]) -> ClipBatch:
    rows = list(slots.frames)
    picture = np.array([[not kept[member].hole for member in clips.members[row]] for row in rows])
    holes.update(row for row, pictures in zip(rows, picture.tolist(), strict=True) if not any(pictures))
    low, high = slots.present.start, job.batch_size - slots.present.stop
    slot_rows = [*[rows[0]] * low, *rows, *[rows[-1]] * high]
    number, valid = np.full(job.batch_size, -1, np.int64), np.zeros(job.batch_size, np.float32)
    number[slots.present], valid[slots.present] = rows, (picture & clips.own[rows]).mean(1)
    stacked = [torch.stack([kept[member].frame_chw for member in clips.members[row]], dim=1) for row in slot_rows]
    weights = [kept[member].weights_yx for row in slot_rows for member in clips.members[row]]
    weighed = [weight for weight in weights if weight is not None]
    return ClipBatch(
        clips_ncthw=torch.stack(stacked),
        frame=number,
        valid=valid,
        present=slots.present,
        weights_ntyx=torch.stack(weighed).unflatten(0, (job.batch_size, -1)) if weighed else None,
    )


def prefetch(items: Generator[T], ahead: int) -> Generator[T]:
    """`items`, computed in a thread of their own, at most `ahead` waiting; closing it stops and joins the thread."""
    waiting: queue.Queue[tuple[str, Any]] = queue.Queue(ahead)
    closed = threading.Event()

    def put(kind: str, value: Any) -> bool:
        while not closed.is_set():
            try:
                waiting.put((kind, value), timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            with closing(items):
                for item in items:
                    if not put("item", item):
                        return
        except BaseException as error:
            put("error", error)
        else:
            put("end", None)

    thread = threading.Thread(target=work, name="streamsal-decode", daemon=True)
    thread.start()
    try:
        while True:
            try:
                kind, value = waiting.get(timeout=SIGNAL_SECONDS)
            except queue.Empty:
                continue
            if kind == "item":
                yield value
            elif kind == "error":
                raise value
            else:
                return
    finally:
        closed.set()
        thread.join()

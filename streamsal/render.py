"""A run and its video in, a film out: maps drawn onto every picture, everything else of the video kept as it is.

    decode > map of the frame > draw > encode          per segment, one process each
    segments + the source's other streams > film       no second encode; times from the frame index

A picture that is missing in the video, and a frame without a map, are shown plain and keep their number and time.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np

from .canvas import Canvas, blank_picture
from .colormaps import colormap as color_table
from .cores import usable_cores
from .decode import Frame, VideoReader
from .encoders import choose_encoder
from .errors import Stopped, StreamsalError, UsageError
from .files import write_error
from .index import VideoIndex
from .maps import Maps
from .merge import Run, open_run
from .mux import Encoder, SegmentWriter, Timeline, container_format, join
from .overlay import STYLES, Painter, Style, reduced
from .prepare import Position, checked_index, frame_at, index_path
from .progress import Progress
from .signals import Stop, stopped
from .store import DONE

Scale = Literal["video", "frame"]
Between = Literal["interpolate", "hold", "none"]

SCALE_FRAMES = 2000  # frames looked at for the scale of the whole film, evenly spread
SCALE_QUANTILE = 0.95  # of their peaks: a few sharper ones may clip, so that they do not dim all others
FLAT = 4.0  # times uniform: a density that peaks lower is shown as weak, not stretched to full color
DRAWING_THREADS = 3
AHEAD = 6  # pictures in work between decoder and encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """All that a process must know to encode its part: where the run is, how to draw, how to encode."""

    run: Path
    video: str
    style: Style
    colormap: str
    opacity: float
    legend: bool
    scale: Scale
    between: Between
    maximum: float
    canvas: Canvas
    encoder: Encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    start: int
    stop: int
    path: Path


def render(
    run: str | Path,
    output: str | Path,
    *,
    video: str | None = None,
    style: Style = "overlay",
    colormap: str = "inferno",
    scale: Scale = "video",
    between: Between = "interpolate",
    legend: bool = False,
    codec: str = "auto",
    crf: int | None = None,
    preset: str | None = None,
    jobs: int = 1,
    start: Position = 0,
    stop: Position | None = None,
    opacity: float = 0.7,
    should_stop: Stop = lambda: "",
    progress: Progress | None = None,
) -> Path:
    """Write the film from `start` up to `stop` (frames, seconds or times; None: to the end) and return its path.

    `scale`: colors mean the same throughout the video, or each frame has its own maximum. `between`: what is shown at
    frames between computed ones. `jobs`: processes that encode one segment each. A stop request leaves nothing behind.
    Raises UsageError, PlanMismatch, MissingInput, IncompleteRun, WriteError, Stopped.
    """
    output = Path(output)
    _check(output, style, scale, between, opacity, jobs, colormap)
    progress = progress or Progress(quiet=True)
    with open_run(run) as opened:
        name = _the_video(opened, video)
        index, maps = _index_of(opened, name), opened[name]
        if maps.first.readback is None and len(maps.shape()) != 2:
            raise UsageError(f"{run} holds {maps.first.name} of {maps.info['model']}, no maps that a film could show")
        source = Path(index.path)
        if output.exists() and output.samefile(source):
            raise UsageError(f"{output} is the video itself: name another output")
        frames = range(frame_at(index, start, name), index.n_frames if stop is None else frame_at(index, stop, name))
        if not frames:
            raise UsageError(f"no frames from {start} to {stop or 'the end'}: {name} has {index.n_frames}")
        check_stop = _stopper(should_stop, output)
        maximum = film_maximum(Densities(maps, index, between), check_stop) if scale == "video" else FLAT
    canvas, encoder = choose_encoder(
        index,
        codec=codec,
        crf=crf,
        preset=preset,
        threads=_encoder_threads(jobs),
        double=style == "side",
        note=progress.say,
    )
    film = Film(
        run=Path(run),
        video=name,
        style=style,
        colormap=colormap,
        opacity=opacity,
        legend=legend,
        scale=scale,
        between=between,
        maximum=maximum,
        canvas=canvas,
        encoder=encoder,
    )
    with _folder_beside(output) as folder, progress.track(output.name, len(frames)):
        segments = _segments(frames, jobs, folder)
        if len(segments) == 1:
            _encode_here(film, segments[0], check_stop, progress)
        else:
            _encode_apart(film, segments, check_stop, progress)
        join(
            [segment.path for segment in segments],
            _timeline(index, frames),
            source,
            index.stream,
            output,
            display_matrix=index.display_matrix,
            note=progress.say,
            check_stop=check_stop,
        )
    return output


class Densities:
    """Density of any frame of a video relative to uniform, as shown, at a size for drawing; None where it has no map.

    Safe to share between threads. Holds a few maps, however long the video.
    """

    def __init__(self, maps: Maps, index: VideoIndex, between: Between) -> None:
        self.maps = maps
        self._seconds, self._between = index.pts_seconds, between
        self._step = int(maps.info["every"])
        self._recent: OrderedDict[int, np.ndarray | None] = OrderedDict()
        self._lock = threading.Lock()

    def at(self, frame: int) -> np.ndarray | None:
        stored = self.maps.frame
        row = int(np.searchsorted(stored, frame))
        if row < len(stored) and stored[row] == frame:
            return self.computed(frame)
        if self._between == "none":
            return None
        before, after = self._near(row - 1, frame), self._near(row, frame)
        left = None if before is None else self.computed(before)
        if left is not None and self._between == "hold":
            return left
        right = None if after is None else self.computed(after)
        if left is None or right is None or before is None or after is None:
            return right if left is None else left
        begin, end = self._seconds[before], self._seconds[after]
        weight = np.float32((self._seconds[frame] - begin) / max(end - begin, 1e-9))
        return left * (1 - weight) + right * weight

    def computed(self, frame: int) -> np.ndarray | None:
        """Of a frame that the run holds; None at a hole."""
        with self._lock:
            if frame not in self._recent:
                self._recent[frame] = self._read(frame)
                if len(self._recent) > 4:
                    self._recent.popitem(last=False)
            self._recent.move_to_end(frame)
            return self._recent[frame]

    def _near(self, row: int, frame: int) -> int | None:
        """The stored frame in `row` if it is less than one sampling step away: farther ones are of another range."""
        if not 0 <= row < len(self.maps.frame):
            return None
        stored = int(self.maps.frame[row])
        return stored if abs(stored - frame) < self._step else None

    def _read(self, frame: int) -> np.ndarray | None:
        maps, output = self.maps, self.maps.first
        if output.kind == "priority" and output.is_density:  # becomes one at the size that the model saw
            shown = maps.log_density(frame, size=(int(maps.info["model_height"]), int(maps.info["model_width"])))
        else:
            shown = maps.native(frame) if len(maps.shape()) == 2 else maps.full_size(frame)
        density = np.exp(shown) if output.is_density or output.kind == "log_density" else np.maximum(shown, 0)
        density = reduced(density)
        total = float(density.sum(dtype=np.float64))
        return density * np.float32(density.size / total) if np.isfinite(total) and total > 0 else None


def film_maximum(densities: Densities, check_stop: Callable[[], None] = lambda: None) -> float:
    """The density, relative to uniform, that gets the last color of the table throughout the film."""
    done = densities.maps.frame[densities.maps.status == DONE]
    peaks = []
    for frame in done[:: -(-len(done) // SCALE_FRAMES) or 1]:
        density = densities.computed(int(frame))
        if density is not None:
            peaks.append(float(density.max()))
        check_stop()
    return max(FLAT, float(np.quantile(peaks, SCALE_QUANTILE))) if peaks else FLAT


def encode_segment(film: Film, segment: Segment, on_frame: Callable[[], None]) -> None:
    """Decode, draw and encode frames start ... stop - 1. `on_frame` may raise to end it."""
    with open_run(film.run) as run:
        index = _index_of(run, film.video)
        pts = rising_pts(index)
        draw = _Drawer(film, Densities(run[film.video], index, film.between))
        with (
            VideoReader(index) as reader,
            ThreadPoolExecutor(DRAWING_THREADS) as pool,
            SegmentWriter(segment.path, film.encoder) as writer,
        ):
            for number, picture in _drawn_ahead(pool, draw, reader.read(range(segment.start, segment.stop))):
                writer.write(picture, int(pts[number] - pts[segment.start]))
                on_frame()


class _Drawer:
    """Draws frames in whichever thread asks."""

    def __init__(self, film: Film, densities: Densities) -> None:
        self._film, self._densities = film, densities
        self.blank = blank_picture(film.canvas)
        self._of_thread = threading.local()

    def __call__(self, picture: av.VideoFrame, number: int, hole: bool) -> tuple[int, av.VideoFrame]:
        film = self._film
        painter: Painter | None = getattr(self._of_thread, "painter", None)
        if painter is None:
            painter = self._of_thread.painter = Painter(
                film.canvas,
                style=film.style,
                table=color_table(film.colormap),
                opacity=film.opacity,
                legend=film.legend,
            )
        density = None if hole else self._densities.at(number)
        maximum = film.maximum
        if film.scale == "frame" and density is not None:
            maximum = max(FLAT, float(density.max()))
        return number, painter(picture, density, maximum=maximum, caption=f"max of {film.scale}")


def _drawn_ahead(pool: Executor, draw: _Drawer, frames: Iterator[Frame]) -> Iterator[tuple[int, av.VideoFrame]]:
    """Numbered pictures in order; the next few are being drawn while one is encoded."""
    waiting: deque[Future[tuple[int, av.VideoFrame]]] = deque()
    shown: av.VideoFrame | None = None
    try:
        for frame in frames:
            shown = frame.picture or shown or draw.blank
            waiting.append(pool.submit(draw, shown, frame.index, frame.hole))
            if len(waiting) >= AHEAD:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def _encode_here(film: Film, segment: Segment, check_stop: Callable[[], None], progress: Progress) -> None:
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        progress.update(done)
        check_stop()

    encode_segment(film, segment, count)


def _encode_apart(film: Film, segments: list[Segment], check_stop: Callable[[], None], progress: Progress) -> None:
    """One process for each segment. Spawned, because a forked child would share the offsets of files open here."""
    context = get_context("spawn")
    done, ended = context.Value("q", 0), context.Event()
    with ProcessPoolExecutor(len(segments), context, _prepare_process, (done, ended)) as pool:
        waiting = {pool.submit(_encode_in_process, film, segment) for segment in segments}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                progress.update(done.value)
                check_stop()
                for future in finished:
                    future.result()
        except BrokenProcessPool:
            check_stop()
            raise StreamsalError("a process that encoded a segment was killed: run again with fewer --jobs") from None
        finally:
            ended.set()


_done: Synchronized[int]
_ended: Event


def _prepare_process(done: Synchronized[int], ended: Event) -> None:
    global _done, _ended
    _done, _ended = done, ended
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the parent tells this one to end


def _encode_in_process(film: Film, segment: Segment) -> None:
    def count() -> None:
        with _done.get_lock():
            _done.value += 1
        if _ended.is_set():
            raise Stopped("stopped because another part of the film was")

    encode_segment(film, segment, count)


def rising_pts(index: VideoIndex) -> np.ndarray:
    """Display times in ticks as the video has them; strictly rising where its clock repeats or goes back."""
    pts = index.pts
    if (np.diff(pts) > 0).all():
        return pts
    if index.segment[-1] > 0:
        pts = np.rint(index.pts_seconds * (index.time_base[1] / index.time_base[0])).astype(np.int64)
    ramp = np.arange(len(pts))
    return np.maximum.accumulate(pts - ramp) + ramp


def _timeline(index: VideoIndex, frames: range) -> Timeline:
    """A whole film keeps its times; a part of it begins at 0, and so does a film whose clock begins below 0."""
    pts, unit = rising_pts(index), Fraction(*index.time_base)
    first, last = int(pts[frames.start]), frames.stop - 1
    shift = first if frames.start > 0 else min(0, first)
    return Timeline(
        pts=pts[frames.start : frames.stop] - shift,
        last_duration=max(1, int(index.duration[last])),
        time_base=unit,
        start_seconds=float(first * unit) if frames.start > 0 else None,
        stop_seconds=float(int(pts[frames.stop]) * unit) if frames.stop < index.n_frames else None,
        shift_seconds=shift * unit,
    )


def _encoder_threads(jobs: int) -> int:
    """An equal share of the cores; 0 leaves it to the encoder."""
    return 0 if jobs == 1 else max(1, usable_cores() // jobs)


def _segments(frames: range, jobs: int, folder: Path) -> list[Segment]:
    jobs = min(jobs, len(frames))
    borders = [frames.start + len(frames) * k // jobs for k in range(jobs + 1)]
    return [Segment(start=borders[k], stop=borders[k + 1], path=folder / f"{k:04}.mp4") for k in range(jobs)]


@contextmanager
def _folder_beside(output: Path) -> Iterator[Path]:
    """For segments: on the disk that has to hold the film anyway; gone at the end, whatever happens."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=f".{output.stem}.", dir=output.parent)
    except OSError as error:
        raise write_error(output, error) from error
    with folder as name:
        yield Path(name)


def _stopper(should_stop: Stop, output: Path) -> Callable[[], None]:
    def check() -> None:
        if reason := should_stop():
            raise stopped(reason, f"{output.name} is not written")

    return check


def _check(output: Path, style: str, scale: str, between: str, opacity: float, jobs: int, colormap: str) -> None:
    for value, choices in ((style, STYLES), (scale, get_args(Scale)), (between, get_args(Between))):
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"{opacity = } is not between 0 and 1")
    if jobs < 1:
        raise ValueError(f"{jobs = } must be at least 1")
    container_format(output)
    color_table(colormap)


def _the_video(run: Run, wanted: str | None) -> str:
    if wanted is None:
        if len(run.videos) != 1:
            raise UsageError(f"{run.path} holds {len(run.videos)} videos: choose one of {', '.join(run.videos)}")
        return run.videos[0]
    try:
        return run[wanted].name
    except KeyError as error:
        raise UsageError(str(error.args[0])) from None


def _index_of(run: Run, name: str) -> VideoIndex:
    if run.plan is not None:
        return checked_index(run.path, next(video for video in run.plan.videos if video.name == name))
    index = VideoIndex.load(index_path(run.path.parent if run.path.is_file() else run.path, name))
    index.check_unchanged()
    return index

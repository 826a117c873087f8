"""A run and its video in, a film out: maps drawn onto every picture, everything else of the video kept as it is.

    decode > map of the frame > draw > encode          per segment, one process each
    segments + the source's other streams > film       no second encode; times from the frame index

A picture that is missing in the video, and a frame without a map, are shown plain and keep their number and time.
"""

from __future__ import annotations

import signal
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from multiprocessing import get_context
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Literal, get_args

import av
import numpy as np

from .cores import usable_cores
from .decode import Frame, VideoReader
from .drawing.canvas import Canvas, blank_picture
from .drawing.colormaps import colormap as color_table
from .drawing.content import Content, content_of, index_of, opened, the_video
from .drawing.gaze_marks import Marks
from .drawing.labels import LabelPainter, Labels
from .drawing.overlay import STYLES, Painter, Style
from .drawing.shown_maps import Between, Shown, film_maximum
from .encoders import choose_encoder
from .errors import Stopped, StreamsalError, UsageError
from .files import write_error
from .gaze.table import Gaze
from .index import VideoIndex
from .merge import Run, open_run
from .mux import Encoder, SegmentWriter, Timeline, container_format, join
from .prepare import Position, frame_at
from .progress import Progress
from .signals import Stop, stopped

FilmStyle = Style | Literal["labels"]
Scale = Literal["video", "frame"]

DRAWING_THREADS = 3
AHEAD = 6  # pictures in work between decoder and encoder


@dataclass(frozen=True, slots=True, kw_only=True)
class Film:
    """All that a process must know to encode its part: what to show, how to draw, how to encode."""

    content: Content
    style: FilmStyle
    colormap: str
    opacity: float
    legend: bool
    frame_number: bool
    timestamp: bool
    scale: Scale
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
    style: FilmStyle | None = None,
    colormap: str | None = None,
    scale: Scale = "video",
    between: Between = "interpolate",
    legend: bool = False,
    compare: str | Path | None = None,
    gaze: Gaze | str | Path | None = None,
    gaze_density: str | None = None,
    frame_number: bool = False,
    timestamp: bool = False,
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

    `style`: None: "labels" for a run with names of classes, which has no other, else "overlay".
    `scale`: colors mean the same throughout the video, or each frame has its own maximum. `between`: what is shown at
    frames between computed ones. `jobs`: processes that encode one segment each. A stop request leaves nothing behind.
    `colormap`: default inferno, to compare blue_orange. `compare`: another run of the same video; shown is the log
    density of this one minus that of the other, in bits. `gaze`: recorded, drawn as rings; with `gaze_density` ("35px",
    "1deg": the sigma of a Gaussian) its density takes the place of the model's. `frame_number`, `timestamp`: burned in.
    Raises UsageError, PlanMismatch, MissingInput, IncompleteRun, WriteError, Stopped.
    """
    output = Path(output)
    colormap = colormap or usual_colormap(compare)
    _check(output, style or "overlay", scale, between, opacity, jobs, colormap, compare)
    progress = progress or Progress(quiet=True)
    with open_run(run) as stored:
        name = the_video(stored, video)
        index = index_of(stored, name)
        style = fitting_style(stored, name, style)
        content = content_of(
            stored,
            name,
            index,
            between=between,
            compare=compare,
            gaze=gaze,
            gaze_density=gaze_density,
            labels=style == "labels",
            note=progress.say,
        )
        source = Path(index.path)
        if output.exists() and output.samefile(source):
            raise UsageError(f"{output} is the video itself: name another output")
        frames = range(frame_at(index, start, name), index.n_frames if stop is None else frame_at(index, stop, name))
        if not frames:
            raise UsageError(f"no frames from {start} to {stop or 'the end'}: {name} has {index.n_frames}")
    check_stop = _stopper(should_stop, output)
    with opened(content) as (_, shown):
        maximum = film_maximum(shown, check_stop) if scale == "video" else shown.least
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
        content=content,
        style=style,
        colormap=colormap,
        opacity=opacity,
        legend=legend,
        frame_number=frame_number,
        timestamp=timestamp,
        scale=scale,
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


def fitting_style(run: Run, video: str, wanted: FilmStyle | None = None) -> FilmStyle:
    """The style that is wanted, or the usual one for what the run holds. Raises UsageError where it does not fit."""
    labeled = bool(run[video].first.labels)
    usual: FilmStyle = "labels" if labeled else "overlay"
    if wanted and labeled != (wanted == "labels"):
        held = "labels, no maps" if labeled else "no labels"
        raise UsageError(f"{run.path} holds {held}: leave --style out, or choose {usual}")
    return wanted or usual


def encode_segment(film: Film, segment: Segment, on_frame: Callable[[], None]) -> None:
    """Decode, draw and encode frames start ... stop - 1. `on_frame` may raise to end it."""
    with opened(film.content) as (index, shown):
        pts = rising_pts(index)
        draw = _Drawer(film, index, shown)
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

    def __init__(self, film: Film, index: VideoIndex, shown: Shown) -> None:
        self._film, self._index, self._shown = film, index, shown
        self._labels = LabelPainter(shown, film.canvas) if isinstance(shown, Labels) else None
        self.blank = blank_picture(film.canvas)
        self._of_thread = threading.local()

    def __call__(self, picture: av.VideoFrame, number: int, hole: bool) -> tuple[int, av.VideoFrame]:
        film = self._film
        painter: Painter | None = getattr(self._of_thread, "painter", None)
        if painter is None:
            painter = self._of_thread.painter = Painter(
                film.canvas,
                style="overlay" if film.style == "labels" else film.style,
                table=color_table(film.colormap),
                opacity=film.opacity,
                legend=film.legend,
                difference_of=film.content.difference_of,
                unit=self._shown.unit,
            )
        density = None if hole else self._shown.at(number)
        maximum = film.maximum
        if film.scale == "frame" and density is not None:
            maximum = max(self._shown.least, float(np.abs(density).max()))
        of_what = "gaze, " if film.content.gaze_sigma_px else "no density, " if self._shown.unit == "x mean" else ""
        caption = f"{of_what}max of {film.scale}"
        drawn = painter(
            picture,
            density,
            maximum=maximum,
            caption=caption,
            marks=self._marks(number),
            note=self._note(number),
            over=partial(self._labels.draw, number) if self._labels and not hole else None,
        )
        return number, drawn

    def _marks(self, number: int) -> Marks | None:
        content, index = self._film.content, self._index
        if content.track is None or content.gaze_sigma_px is not None:
            return None
        return content.track.during(index.pts_seconds[number], index.end_seconds[number])

    def _note(self, number: int) -> str:
        words = [str(number)] if self._film.frame_number else []
        if self._film.timestamp:
            words.append(clock(seconds_from_start(self._index, number)))
        return "  ".join(words)


def clock(seconds: float) -> str:
    """0:01:02.500, as options that take a time understand it."""
    milliseconds = round(abs(seconds) * 1000)
    minutes, rest = divmod(milliseconds, 60_000)
    sign = "-" if seconds < 0 and milliseconds else ""
    return f"{sign}{minutes // 60}:{minutes % 60:02}:{rest // 1000:02}.{rest % 1000:03}"


def seconds_from_start(index: VideoIndex, frame: int) -> float:
    """When a frame comes on screen, counted from the first one, as times in options are."""
    return float(index.pts_seconds[frame] - index.pts_seconds[0])


def usual_colormap(compare: object) -> str:
    return "blue_orange" if compare else "inferno"


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


def _check(
    output: Path, style: str, scale: str, between: str, opacity: float, jobs: int, colormap: str, compare: object
) -> None:
    for value, choices in ((style, (*STYLES, "labels")), (scale, get_args(Scale)), (between, get_args(Between))):
        if value not in choices:
            raise ValueError(f"{value!r} is none of {', '.join(choices)}")
    if not 0 <= opacity <= 1:
        raise ValueError(f"{opacity = } is not between 0 and 1")
    if compare and style == "contour":
        raise UsageError("a difference has no mass to draw contours around: choose overlay, side or heatmap")
    if jobs < 1:
        raise ValueError(f"{jobs = } must be at least 1")
    container_format(output)
    color_table(colormap)

"""Encoded segments of a film, and everything else of its source, joined into one file without encoding again.

    segments       [0 ... a) [a ... b) [b ... n)      each with closed groups, all of one encoder
    time stamps    pts of frame k from the caller     those inside the segments are thrown away
    source         audio, subtitles, other videos, chapters, metadata, copied packet by packet

Knows encoders and containers; of the pictures it knows only their order.
"""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer, OutputContainer
from av.error import FFmpegError
from av.stream import Discard, Disposition, Stream
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .errors import StreamsalError, UsageError
from .files import replacing, writing

DISK_ERRORS = (OSError, FFmpegError)  # PyAV raises either
CONTAINERS = {".mp4": "mp4", ".m4v": "mp4", ".mov": "mov", ".mkv": "matroska"}
_STALE_TAGS = {"major_brand", "minor_version", "compatible_brands", "encoder"}
_AS_STORED = {"ignore_editlist": "1"}  # the order of a segment's packets counts, not its times
_MOV_TEXT_GAP = b"\0\0"  # time between two subtitles, which the muxer fills by itself
_STATISTICS = ("BPS", "DURATION", "NUMBER_OF_", "_STATISTICS_")  # written by mkvmerge for the old pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoder:
    """All that decides the bits of a video stream: segments that are to be joined share one."""

    name: str
    options: Mapping[str, str]
    width: int
    height: int
    pixel_format: str
    time_base: Fraction
    frame_rate: Fraction
    sample_aspect: Fraction | None = None
    color_tags: Mapping[str, int] = field(default_factory=dict)  # attributes of PyAV's codec context and frames
    threads: int = 0  # 0: as many as the encoder likes


class SegmentWriter:
    """Encodes pictures into one segment; a file of its own, so that another process can have written it."""

    def __init__(self, path: Path, encoder: Encoder) -> None:
        self._path, self._encoder = path, encoder
        with writing(path, DISK_ERRORS):
            timescale = {"video_track_timescale": str(encoder.time_base.denominator)}
            self._container = av.open(str(path), "w", format="mp4", options=timescale)
            self._stream = _video_stream(self._container, encoder)

    def write(self, picture: av.VideoFrame, pts: int) -> None:
        picture.pts, picture.time_base = pts, self._encoder.time_base
        for tag, value in self._encoder.color_tags.items():
            setattr(picture, tag, value)
        with writing(self._path, DISK_ERRORS):
            self._container.mux(self._stream.encode(picture))

    def close(self) -> None:
        with writing(self._path, DISK_ERRORS):
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def __enter__(self) -> SegmentWriter:
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        if kind is None:
            self.close()
            return
        with contextlib.suppress(Exception):  # the first error is the one to tell; the file goes anyway
            self._container.close()


def _video_stream(container: OutputContainer, encoder: Encoder) -> VideoStream:
    stream = container.add_stream(encoder.name, rate=encoder.frame_rate, options=dict(encoder.options))
    assert isinstance(stream, VideoStream)
    _configure(stream.codec_context, encoder)
    return stream


def _configure(context: VideoCodecContext, encoder: Encoder) -> None:
    context.width, context.height, context.pix_fmt = encoder.width, encoder.height, encoder.pixel_format
    context.time_base, context.framerate = encoder.time_base, encoder.frame_rate
    if encoder.sample_aspect:
        context.sample_aspect_ratio = encoder.sample_aspect
    for tag, value in encoder.color_tags.items():
        setattr(context, tag, value)
    # PyAV's default SLICE makes libx264 cut pictures into slices: larger files of worse quality.
    context.thread_type, context.thread_count = "FRAME", encoder.threads


def opens(encoder: Encoder) -> bool:
    """Whether the encoder works here: without its hardware an encoder can be looked up, but encodes nothing."""
    try:
        context = av.CodecContext.create(encoder.name, "w")
        assert isinstance(context, VideoCodecContext)
        context.options = dict(encoder.options)
        _configure(context, encoder)
        picture = av.VideoFrame(encoder.width, encoder.height, encoder.pixel_format)
        picture.pts, picture.time_base = 0, encoder.time_base
        return bool(context.encode(picture) + context.encode(None))
    except (FFmpegError, ValueError):
        return False


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """When the frames of a film are shown: strictly rising `pts` and the last frame's `duration` in `time_base` ticks.

    `start_seconds` and `stop_seconds` bound what is copied of the other streams; `shift_seconds` is taken off their
    times, as it has been taken off `pts`. A whole film has no bounds.
    """

    pts: np.ndarray
    last_duration: int
    time_base: Fraction
    start_seconds: float | None = None
    stop_seconds: float | None = None
    shift_seconds: Fraction = Fraction(0)


def join(
    segments: Sequence[Path],
    timeline: Timeline,
    source: Path,
    stream: int,
    output: Path,
    *,
    display_matrix: Sequence[int] | None = None,
    note: Callable[[str], None] = lambda line: None,
    check_stop: Callable[[], None] = lambda: None,
) -> None:
    """Write `output`: the segments as the video stream in place of stream number `stream` of `source`, all else copied.

    A stream that the container cannot hold is left out and named in a note.
    """
    form = container_format(output)
    with av.open(str(source), metadata_errors="replace") as origin, replacing(output) as part:
        order = _order_of(segments)
        if len(order.rank) != len(timeline.pts):
            raise StreamsalError(f"{len(order.rank)} pictures encoded for {len(timeline.pts)} frames of {source}")
        options = _mp4_options(timeline, origin, stream) if form in ("mp4", "mov") else {}
        with av.open(str(segments[0])) as template, _output(part, form, options) as film:
            film.metadata.update(_kept_tags(origin.metadata))
            film.set_chapters(_chapters(origin, timeline))
            video, copies = _add_streams(film, form, origin, stream, template.streams.video[0], note)
            if display_matrix is not None:
                video.set_display_matrix(display_matrix)
            film.start_encoding()
            pictures = _video_packets(segments, order, timeline, video)
            others = _other_packets(origin, copies, timeline)
            for number, packet in enumerate(_interleaved(pictures, others)):
                film.mux_one(packet)
                if number % 64 == 0:
                    check_stop()


def container_format(output: Path) -> str:
    try:
        return CONTAINERS[output.suffix.lower()]
    except KeyError:
        raise UsageError(f"cannot write {output.name}: name it {', '.join(CONTAINERS)}") from None


def _mp4_options(timeline: Timeline, origin: InputContainer, replaced: int) -> dict[str, str]:
    """Clocks as in the source, and start offsets exact: MP4 states them in units of the movie's clock."""
    unit = timeline.time_base
    others = [stream.time_base for stream in origin.streams if stream.index != replaced and stream.time_base]
    movie = math.lcm(unit.denominator, *(other.denominator for other in others))
    options = {
        "movflags": "faststart",
        "movie_timescale": str(movie if movie < 1 << 31 else unit.denominator),
    }
    # The option holds for every video. Without it each has its own clock, finer by a power of 2 if below 1/10000 s.
    if all(other.time_base == unit for other in origin.streams.video if other.index != replaced):
        options["video_track_timescale"] = str(unit.denominator)
    return options


def _add_streams(
    film: OutputContainer,
    form: str,
    origin: InputContainer,
    replaced: int,
    encoded: VideoStream,
    note: Callable[[str], None],
) -> tuple[VideoStream, dict[int, Stream]]:
    """The new video stream, and the copy of each kept stream by its number in the source; in the source's order."""
    copies: dict[int, Stream] = {}
    video: VideoStream | None = None
    for stream in origin.streams:
        if stream.index == replaced:
            copy = video = film.add_stream_from_template(encoded, opaque=True)
            if form != "matroska" and encoded.codec_context.codec.canonical_name == "hevc":
                copy.codec_context.codec_tag = "hvc1"  # Apple's players show no other
        elif reason := _cannot_hold(form, stream):
            if not (stream.type == "data" and stream.name == "bin_data" and origin.chapters()):
                note(f"stream {stream.index} ({stream.type}) is left out: {reason}")
            continue
        else:
            copy = copies[stream.index] = film.add_stream_from_template(stream, opaque=True)
        copy.metadata.update(_kept_tags(stream.metadata))
        copy.disposition = stream.disposition
    assert video is not None
    return video, copies


def _cannot_hold(form: str, stream: Stream) -> str | None:
    """Why the container cannot hold a copy of the stream: found by writing a header with it alone."""
    if stream.type == "data":
        return "data streams are not copied"
    if form == "matroska" and stream.disposition & Disposition.attached_pic:
        return "Matroska keeps cover pictures as attachments"  # as a track it would be a film of one picture
    try:
        with av.open(io.BytesIO(), "w", format=form) as trial:
            trial.add_stream_from_template(stream, opaque=True)
            trial.start_encoding()
    except (FFmpegError, ValueError):
        name = stream.codec_context.name if stream.codec_context else "of unknown codec"
        return f"{form} cannot hold {name}"
    return None


def _kept_tags(tags: Mapping[str, str]) -> dict[str, str]:
    return {
        key: value
        for key, value in tags.items()
        if key.lower() not in _STALE_TAGS and not key.upper().startswith(_STATISTICS)
    }


def _chapters(origin: InputContainer, timeline: Timeline) -> list[Any]:
    chapters = []
    for chapter in origin.chapters():
        unit = chapter["time_base"]
        if not unit:
            continue
        start, end = chapter["start"], chapter["end"]
        if timeline.start_seconds is not None:
            start = max(start, round(timeline.start_seconds / unit))
        if timeline.stop_seconds is not None:
            end = min(end, round(timeline.stop_seconds / unit))
        if start < end or (start, end) == (chapter["start"], chapter["end"]):
            shift = round(timeline.shift_seconds / unit)
            chapters.append(chapter | {"start": start - shift, "end": end - shift})
    return chapters


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """For the packets of all segments, in decode order: which frame of the film each one is (its display rank).

    `delay`: the smallest d such that every packet can have the (i - d)-th display time as its decode time.
    """

    rank: np.ndarray
    delay: int


def _order_of(segments: Sequence[Path]) -> _Order:
    ranks, extradata, first = [], None, 0
    for segment in segments:
        with av.open(str(segment), options=_AS_STORED) as container:
            stream = container.streams.video[0]
            if extradata is not None and stream.codec_context.extradata != extradata:
                raise StreamsalError(f"{segment} was encoded with other settings than the segments before it")
            extradata = stream.codec_context.extradata
            pts = np.array([packet.pts for packet in container.demux(stream) if packet.size], np.int64)
        ranks.append(first + np.argsort(np.argsort(pts, kind="stable"), kind="stable"))
        first += len(pts)
    rank = np.concatenate(ranks)
    return _Order(rank=rank, delay=max(0, int((np.arange(len(rank)) - rank).max(initial=0))))


def _video_packets(
    segments: Sequence[Path], order: _Order, timeline: Timeline, video: VideoStream
) -> Iterator[av.Packet]:
    pts, delay = timeline.pts, order.delay
    durations = np.diff(pts, append=pts[-1] + timeline.last_duration)
    early = pts[0] - durations[0] * np.arange(delay, 0, -1)  # the first decode times lie before the first picture
    dts = np.concatenate([early, pts])
    number = 0
    for segment in segments:
        with av.open(str(segment), options=_AS_STORED) as container:
            for packet in container.demux(container.streams.video[0]):
                if not packet.size:
                    continue
                rank = order.rank[number]
                packet.stream = video
                packet.time_base = timeline.time_base
                packet.pts, packet.dts = int(pts[rank]), int(dts[number])
                packet.duration = int(durations[rank])
                yield packet
                number += 1


def _other_packets(origin: InputContainer, copies: Mapping[int, Stream], timeline: Timeline) -> Iterator[av.Packet]:
    wanted = [origin.streams[number] for number, copy in copies.items() if copy.type != "attachment"]
    for stream in origin.streams:
        if stream not in wanted:
            stream.discard = Discard.all
    clocks = {stream.index: _RisingClock(step=0 if stream.type == "subtitle" else 1) for stream in wanted}
    for packet in origin.demux(wanted) if wanted else ():
        number = packet.stream_index
        if not packet.size:  # PyAV's sign for the end of a stream
            continue
        if bytes(packet) == _MOV_TEXT_GAP and copies[number].name == "mov_text":
            continue
        time = packet.pts if packet.pts is not None else packet.dts
        if time is not None and not _within(float(time * packet.time_base), timeline):
            continue
        clocks[number].set(packet, round(timeline.shift_seconds / packet.time_base))
        packet.stream = copies[number]
        yield packet


def _within(seconds: float, timeline: Timeline) -> bool:
    after = timeline.start_seconds is None or seconds >= timeline.start_seconds
    return after and (timeline.stop_seconds is None or seconds < timeline.stop_seconds)


class _RisingClock:
    """Decode times as they are, except where a recording's clock goes back or is missing: no container takes that.

    They must rise by `step` ticks at least; several subtitles may begin at once.
    """

    def __init__(self, *, step: int) -> None:
        self._step = step
        self._next: int | None = None  # earliest time allowed
        self._end = 0
        self._shift = 0

    def set(self, packet: av.Packet, shift: int) -> None:
        dts = packet.dts if packet.dts is not None else packet.pts if packet.pts is not None else self._end + shift
        pts = packet.pts if packet.pts is not None else dts
        if self._next is not None and dts + self._shift - shift < self._next:
            back = self._next - (dts + self._shift - shift)
            if back * packet.time_base > 1:  # a new start of the clock; less is noise, and only this packet moves
                self._shift += self._end - (dts + self._shift - shift)
            else:
                dts, pts = dts + back, max(pts, dts) + back
        dts, pts = dts + self._shift - shift, pts + self._shift - shift
        packet.dts, packet.pts = dts, pts
        self._end = dts + max(1, packet.duration or 0)
        self._next = dts + self._step


def _interleaved(pictures: Iterator[av.Packet], others: Iterator[av.Packet]) -> Iterator[av.Packet]:
    """Both by rising decode time, holding one packet of each."""
    picture = next(pictures, None)
    for other in others:
        while picture is not None and _seconds(picture) <= _seconds(other):
            yield picture
            picture = next(pictures, None)
        yield other
    if picture is not None:
        yield picture
        yield from pictures


def _seconds(packet: av.Packet) -> float:
    return float((packet.dts or 0) * packet.time_base)


@contextlib.contextmanager
def _output(path: Path, form: str, options: dict[str, str]) -> Iterator[OutputContainer]:
    with writing(path, DISK_ERRORS):
        film = av.open(str(path), "w", format=form, options=options)
        try:
            yield film
        except BaseException:
            with contextlib.suppress(Exception):  # the first error is the one to tell
                film.close()
            raise
        film.close()

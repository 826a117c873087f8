"""A packet index and frame numbers in, exactly those frames out, in order.

Decoding goes in canonical runs: from one proved entry point to the next, with the decoder reset in between, so the bits
of a picture depend on its own run and never on where a reader starts. Pictures are known by the packet they came from;
every packet is checked against the index; a picture that does not come is a hole that keeps its number. This module
knows nothing of models or tasks.
"""

from __future__ import annotations

import os
import threading
import weakref
import zlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import av
import numpy as np

from .ahead import in_order
from .color import RgbConverter
from .index import VideoIndex, index_video
from .packets import Tag, decode_all, open_video, pictures_from, tag_of
from .seek import LostPlace, PacketSource

AHEAD_BYTES = 256 << 20  # of decoded pictures that workers may hold before their turn comes
REORDER_PICTURES = 16  # the longest reordering that a codec allows: a number passed over by more will not come


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Frame:
    """One frame as decoded. A hole keeps its number and time; its `picture` is the one decoded before it in the same
    canonical run, else the next in the run, else None."""

    index: int
    pts_seconds: float
    hole: bool
    picture: av.VideoFrame | None = field(repr=False)
    convert: Callable[[av.VideoFrame], np.ndarray] = field(repr=False)

    @property
    def rgb(self) -> np.ndarray | None:
        """(H, W, 3) uint8 in displayed orientation, converted anew at each call; None for a hole."""
        return None if self.hole or self.picture is None else self.convert(self.picture)


def decode(
    path: str | Path,
    start: int = 0,
    stop: int | None = None,
    *,
    rotate: bool = True,
    index: VideoIndex | None = None,
    workers: int = 1,
) -> Iterator[Frame]:
    """Frames start ... stop - 1 (None: to the end); `rotate=False` leaves them as they are stored.

    The file is indexed first unless its `index` is given.
    """
    if index is None:
        index = index_video(path)
    frames = range(*slice(start, stop).indices(index.n_frames))
    with VideoReader(index, rotate=rotate, workers=workers) as reader:
        yield from reader.read(frames)


class VideoReader:
    """Frames of one indexed video by number; `workers` canonical runs are decoded at once, each by `threads` threads.

    A sound video looks the same whatever their numbers; damage is concealed alike only with equal `threads`.
    Not to be shared between threads. After a fork the child opens the file anew. Raises PlanMismatch or MissingInput
    if the file is not the one that was indexed.
    """

    def __init__(
        self,
        index: VideoIndex,
        *,
        threads: int = 1,
        workers: int = 1,
        rotate: bool = True,
        ahead_bytes: int = AHEAD_BYTES,
    ) -> None:
        if threads < 1 or workers < 1:
            raise ValueError(f"{threads = } and {workers = } must be at least 1")
        index.check_unchanged()
        self.index = index
        self._ahead_bytes = ahead_bytes
        self._decoders = [RunDecoder(index, threads=threads) for _ in range(workers)]
        self._reading: weakref.ref[Generator[Frame]] | None = None  # dropping it must end it at once
        self._pid = os.getpid()
        self._inherited: list[object] = []
        matrix = index.display_matrix if rotate else None
        size = (index.display_height, index.display_width) if rotate else (index.height, index.width)
        self._convert = _PerThread(lambda: RgbConverter(display_matrix=matrix, size=size))

    def read(self, frames: Sequence[int]) -> Generator[Frame]:
        """Each frame of an ascending sequence once; runs without a wanted frame are not decoded.

        Ends what an earlier call still had to give.
        """
        wanted = np.asarray(frames, np.int64)
        if wanted.size and (wanted[0] < 0 or wanted[-1] >= self.index.n_frames or (np.diff(wanted) <= 0).any()):
            raise ValueError(f"frames must ascend within 0 ... {self.index.n_frames - 1}")
        run_of_frame = np.searchsorted(self.index.entry_frame, wanted, side="right") - 1
        runs, starts = np.unique(run_of_frame, return_index=True)
        jobs = list(zip(runs.tolist(), np.split(wanted, starts[1:]), strict=True)) if wanted.size else []
        self._stop_reading()
        reading = self._read(jobs)
        self._reading = weakref.ref(reading)
        return reading

    def close(self) -> None:
        self._stop_reading()
        for decoder in self._decoders:
            decoder.close()

    def _stop_reading(self) -> None:
        """Decoders must outlive the generators that use them."""
        reading = self._reading() if self._reading is not None else None
        if self._pid != os.getpid():  # what the parent was reading may hold locks that nobody here will release
            self._inherited.append(reading)
            self._pid = os.getpid()
        elif reading is not None:
            reading.close()
        self._reading = None

    def _read(self, jobs: list[tuple[int, np.ndarray]]) -> Generator[Frame]:
        workers = [partial(self._frames, decoder) for decoder in self._decoders[: max(1, len(jobs))]]
        if len(workers) == 1:
            for job in jobs:
                yield from workers[0](*job)
        else:
            yield from in_order(jobs, workers, limit_bytes=self._ahead_bytes, size_of=_bytes)

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _frames(self, decoder: RunDecoder, run: int, wanted: np.ndarray) -> Generator[Frame]:
        """The wanted frames of one run, holes filled with a picture of the same run."""
        remaining = deque(wanted.tolist())
        previous: av.VideoFrame | None = None
        early_holes: list[int] = []
        with closing(decoder.frames(run)) as numbered:
            for number, picture in numbered:
                if picture is not None:
                    previous = picture
                    while early_holes:
                        yield self._frame(early_holes.pop(0), picture, hole=True)
                if remaining and number == remaining[0]:
                    remaining.popleft()
                    if previous is None:
                        early_holes.append(number)
                    else:
                        yield self._frame(number, previous, hole=picture is None)
                if not remaining and not early_holes:
                    return
        for number in early_holes:
            yield self._frame(number, None, hole=True)

    def _frame(self, number: int, picture: av.VideoFrame | None, *, hole: bool) -> Frame:
        seconds = float(self.index.pts_seconds[number])
        return Frame(index=number, pts_seconds=seconds, hole=hole, picture=picture, convert=self._convert)


class _PerThread:
    """A converter for each thread that asks: swscale contexts must not be shared."""

    def __init__(self, make: Callable[[], RgbConverter]) -> None:
        self._make, self._local = make, threading.local()

    def __call__(self, picture: av.VideoFrame) -> np.ndarray:
        converter = getattr(self._local, "converter", None)
        if converter is None:
            converter = self._local.converter = self._make()
        return converter(picture)


class RunDecoder:
    """Decodes canonical runs, in any order, from one container. One thread at a time."""

    def __init__(self, index: VideoIndex, *, threads: int = 1) -> None:
        self._index = index
        self._source = PacketSource(index, threads=threads)
        self._ends = np.append(index.entry_frame[1:], index.n_frames)
        self._last_packets = _last_packets(index)
        self._shared: dict[int, av.Packet] = {}  # packets that the run before has fed and the next one needs, too

    def close(self) -> None:
        self._shared.clear()
        self._source.close()

    def frames(self, run: int) -> Generator[tuple[int, av.VideoFrame | None]]:
        """Every frame number of the run, ascending, with its picture or None for a hole.

        Pictures come in display order, so in a sound file none waits here.
        """
        expected, end = int(self._index.entry_frame[run]), int(self._ends[run])
        waiting: dict[int, av.VideoFrame] = {}
        with closing(self._pictures(run)) as pictures:
            for number, picture in pictures:
                if number >= expected:  # lower ones come late, from damage, or again
                    waiting.setdefault(number, picture)
                while waiting and (expected in waiting or len(waiting) > REORDER_PICTURES):
                    yield expected, waiting.pop(expected, None)
                    expected += 1
        while expected < end:
            yield expected, waiting.pop(expected, None)
            expected += 1

    def _pictures(self, run: int) -> Generator[tuple[int, av.VideoFrame]]:
        """(frame number, picture) as the decoder gives them; some twice if the run had to be begun again."""
        try:
            yield from self._decoded(run)
        except LostPlace:
            self._shared = {}
            self._source.begin_again()
            yield from self._decoded(run)

    def _decoded(self, run: int) -> Generator[tuple[int, av.VideoFrame]]:
        """The packets of the run through a decoder that was reset before, drained and reset again."""
        index, source = self._index, self._source
        first, last = int(index.entry_packet[run]), int(self._last_packets[run])
        next_first = int(index.entry_packet[run + 1]) if run + 1 < len(self._ends) else index.n_packets
        numbers = _FrameNumbers(index, slice(int(index.entry_frame[run]), int(self._ends[run])))
        if source.opened_elsewhere():
            self._shared.clear()
        kept = self._shared if first in self._shared else {}
        if not kept:
            source.move_to(first)
        self._shared = {}
        decoder = source.decoder
        try:
            for number in range(first, last + 1):
                packet = kept.pop(number) if number in kept else source.read(number)
                if number >= next_first:
                    self._shared[number] = packet
                packet.opaque = Tag(packet=number, run=run)
                for picture in pictures_from(decoder, packet):
                    yield from numbers.of(picture, run)
            for picture in pictures_from(decoder, None):
                yield from numbers.of(picture, run)
        finally:
            decoder.flush_buffers()


class _FrameNumbers:
    """Frame numbers of the pictures of one run, by the packet in their tag and how often it has come."""

    def __init__(self, index: VideoIndex, frames: slice) -> None:
        packets, occurrences = index.frame_packet[frames], index.frame_occurrence[frames]
        keys = zip(packets.tolist(), occurrences.tolist(), strict=True)
        self._frame = dict(zip(keys, range(frames.start, frames.stop), strict=True))
        self._seen: dict[int, int] = {}

    def of(self, picture: av.VideoFrame, run: int) -> Iterator[tuple[int, av.VideoFrame]]:
        tag = tag_of(picture)
        if tag.run != run:
            return
        occurrence = self._seen.get(tag.packet, 0)
        self._seen[tag.packet] = occurrence + 1
        number = self._frame.get((tag.packet, occurrence))
        if number is not None:
            yield number, picture


def _last_packets(index: VideoIndex) -> np.ndarray:
    """For each run the last packet, in file order, that any of its frames needs."""
    last = np.maximum.reduceat(index.frame_packet, index.entry_frame)
    if index.trust == "packets":
        return last
    # A second field or the rest of a packed picture may follow in packets that stand for no frame of their own.
    bearing = np.append(np.unique(index.frame_packet), index.n_packets)
    return bearing[np.searchsorted(bearing, last, side="right")] - 1


def _bytes(frame: Frame) -> int:
    return 0 if frame.picture is None else sum(plane.buffer_size for plane in frame.picture.planes)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyReport:
    """What `verify` found; every list names frames unless it says otherwise."""

    n_frames: int
    n_entries: int
    index_differences: tuple[str, ...]  # fields in which an index made anew differs
    unproved_entries: tuple[int, ...]  # which a second proof does not accept
    differ_from_sequential: tuple[int, ...]  # expected where the file is damaged
    differ_between_shards: tuple[int, ...]  # never acceptable
    holes: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """The index holds, and however the work is divided the pictures are the same; there may be holes."""
        return not self.index_differences and not self.differ_between_shards

    @property
    def sound(self) -> bool:
        """And nothing is missing or differs from a full sequential decode."""
        return self.ok and not self.differ_from_sequential and not self.holes


def verify(index: VideoIndex) -> VerifyReport:
    """Index the file again, and compare a sequential decode of all of it with 1, 2 and 7 shards read apart."""
    again = index_video(index.path, stream=index.stream, entry_spacing=index.entry_spacing)
    sequential = _checksums(index, decode_sequentially(index))
    parts = [_read_in_parts(index, n_parts) for n_parts in (1, 2, 7)]
    read, holes = parts[0]
    between = np.zeros(index.n_frames, bool)
    for other, other_holes in parts[1:]:
        between |= (other != read) | (other_holes != holes)
    differs = ~holes & (read != sequential)
    return VerifyReport(
        n_frames=index.n_frames,
        n_entries=len(index.entry_frame),
        index_differences=tuple(index.differences(again)),
        unproved_entries=tuple(index.entry_frame[~np.isin(index.entry_packet, again.entry_packet)].tolist()),
        differ_from_sequential=tuple(np.flatnonzero(differs).tolist()),
        differ_between_shards=tuple(np.flatnonzero(between).tolist()),
        holes=tuple(np.flatnonzero(holes).tolist()),
    )


def decode_sequentially(index: VideoIndex) -> Iterator[tuple[int, av.VideoFrame]]:
    """(frame, picture) of one plain decode from the first packet to the last: the truth that shards are held to."""
    frame_of = _FrameNumbers(index, slice(0, index.n_frames))
    with open_video(index.path, index.stream) as (container, stream):
        for picture in decode_all(container, stream, index.packet_flags):
            yield from frame_of.of(picture, run=0)


def _read_in_parts(index: VideoIndex, n_parts: int) -> tuple[np.ndarray, np.ndarray]:
    """(checksums, holes) by frame, every part read by a reader of its own."""
    holes = np.zeros(index.n_frames, bool)

    def pictures() -> Iterator[tuple[int, av.VideoFrame | None]]:
        for numbers in np.array_split(np.arange(index.n_frames), n_parts):
            with VideoReader(index) as reader:
                for frame in reader.read(numbers.tolist()):
                    holes[frame.index] = frame.hole
                    yield frame.index, frame.picture

    return _checksums(index, pictures()), holes


def _checksums(index: VideoIndex, pictures: Iterator[tuple[int, av.VideoFrame | None]]) -> np.ndarray:
    sums = np.zeros(index.n_frames, np.int64)
    for number, picture in pictures:
        sums[number] = -1 if picture is None else plane_checksum(picture)
    return sums


def plane_checksum(picture: av.VideoFrame) -> int:
    """CRC-32 of the visible samples of all planes, without the padding of their lines."""
    crc = zlib.crc32(f"{picture.format.name} {picture.width} {picture.height}".encode())
    for number, plane in enumerate(picture.planes):
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(plane.height, -1)
        lines = lines[:: -1 if plane.line_size < 0 else 1, : _line_bytes(picture, number)]
        crc = zlib.crc32(np.ascontiguousarray(lines).data, crc)
    return crc


def _line_bytes(picture: av.VideoFrame, plane: int) -> int | None:
    if len(picture.planes) == 1:  # packed: samples may share bytes
        return -(-picture.format.padded_bits_per_pixel * picture.width // 8)
    parts = [one for one in picture.format.components if one.plane == plane]
    return sum(one.width * -(-one.bits // 8) for one in parts) or None  # a palette has no component

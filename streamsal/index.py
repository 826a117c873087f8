"""A video file in, its packet index out: which packet shows which frame, when, and where decoding may start.

A frame is a packet that is to be shown; its number is its rank in display order. The numbering comes from packets
alone, and from one decode pass where packets cannot tell; never from frame rates, durations or counts in headers. The
index is made once per video and read by every task. This module knows nothing of models, shards or pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import math
import os
import zlib
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .color import Orientation
from .errors import MissingInput, PlanMismatch, VideoError
from .files import write_bytes

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
NO_TIME = int(np.iinfo(np.int64).min)
KEY, HIDDEN, CORRUPT = 1, 2, 4  # bits of packet_flags

ENTRY_SPACING = 64  # packets between entry points, so that resetting the decoder at each costs about nothing
INTRA_SPACING = 8  # where every picture stands alone a short run makes sparse reads cheap, and a reset is free
PATIENCE_PACKETS = 64  # a sound key packet gives its picture after the decoder's delay, at most 16
JUMP_SECONDS = 10  # FFmpeg's own threshold for a new start of the clock in MPEG streams
_MPEG_STREAMS = {"mpegts", "mpeg"}

# FFmpeg does not mark these as intra-only, because animated or chained variants of the container exist.
_INTRA_ONLY = {"png", "tiff", "bmp", "targa"}
_PACKING = {"mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "h263p", "flv1", "vc1", "wmv3"}
_TEXT_ART = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg draws text files; nobody means them as videos


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioStream:
    index: int
    codec: str
    rate_hz: int
    channels: int
    language: str | None


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class VideoIndex:
    """What every task must know of one video stream; arrays are by packet in file order or by frame in display order.

    `trust` says where the frame numbers come from: "packets", or "decoded: reason". `pts_seconds` is the container's
    clock, which audio shares; where a joined recording's clock goes back, the later `segment` follows the earlier one.
    """

    path: str
    size: int
    mtime_ns: int
    fingerprint: str
    container: str
    stream: int
    codec: str
    profile: str | None
    width: int
    height: int
    display_width: int
    display_height: int
    rotation: int  # counter-clockwise degrees, as PyAV gives it
    display_matrix: tuple[int, ...] | None
    sample_aspect: tuple[int, int]
    pixel_format: str
    color_matrix: int  # ITU-T H.273 codes; 2 is "unspecified"
    color_range: int
    color_primaries: int
    color_transfer: int
    time_base: tuple[int, int]
    n_frames_header: int  # what the file claims: reported, never used
    duration_seconds_header: float
    audio: tuple[AudioStream, ...]
    trust: str
    intra_only: bool
    entry_spacing: int
    versions: dict[str, str]

    packet_pts: np.ndarray = field(repr=False)
    packet_dts: np.ndarray = field(repr=False)
    packet_duration: np.ndarray = field(repr=False)
    packet_pos: np.ndarray = field(repr=False)
    packet_size: np.ndarray = field(repr=False)
    packet_crc32: np.ndarray = field(repr=False)
    packet_flags: np.ndarray = field(repr=False)
    frame_packet: np.ndarray = field(repr=False)
    frame_occurrence: np.ndarray = field(repr=False)  # 1 for the second picture of a packed packet
    segment: np.ndarray = field(repr=False)
    pts: np.ndarray = field(repr=False)
    duration: np.ndarray = field(repr=False)  # ticks until the next frame
    pts_seconds: np.ndarray = field(repr=False)
    entry_frame: np.ndarray = field(repr=False)
    entry_packet: np.ndarray = field(repr=False)

    @property
    def n_frames(self) -> int:
        return len(self.frame_packet)

    @property
    def n_packets(self) -> int:
        return len(self.packet_size)

    @property
    def frame_rate(self) -> float:
        """Frames per second on average; 25 for a single frame."""
        seconds = float(self.pts_seconds[-1] - self.pts_seconds[0])
        return (self.n_frames - 1) / seconds if seconds > 0 else 25.0

    @property
    def variable_rate(self) -> bool:
        """Steps between frames differ by more than the rounding of the clock to ticks explains."""
        steps = self.duration[:-1][np.diff(self.segment) == 0]
        return len(steps) > 1 and int(steps.max() - steps.min()) > 1

    def save(self, path: str | Path) -> None:
        header: dict[str, Any] = {"format_version": FORMAT_VERSION}
        arrays: dict[str, Any] = {}
        for name in _names():
            value = getattr(self, name)
            if isinstance(value, np.ndarray):
                arrays[name] = value
            else:
                header[name] = [asdict(stream) for stream in value] if name == "audio" else value
        buffer = io.BytesIO()
        np.savez_compressed(buffer, header=np.array(json.dumps(header)), **arrays)
        write_bytes(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | Path) -> VideoIndex:
        """Raises MissingInput without the file, PlanMismatch if it is damaged or of another version."""
        try:
            with np.load(path, allow_pickle=False) as stored:
                header = json.loads(str(stored["header"]))
                arrays: dict[str, Any] = {name: stored[name] for name in stored.files if name != "header"}
        except FileNotFoundError:
            raise MissingInput(f"the frame index {path} does not exist: plan again") from None
        except Exception as error:  # zipfile, zlib, json and numpy each have their own
            raise PlanMismatch(f"the frame index {path} is damaged ({error}): delete it and plan again") from error
        version = header.pop("format_version", None)
        if version != FORMAT_VERSION or {*header, *arrays} != set(_names()):
            raise PlanMismatch(f"the frame index {path} was written by another version of streamsal: plan again")
        header["audio"] = tuple(AudioStream(**stream) for stream in header["audio"])
        for name in ("sample_aspect", "time_base", "display_matrix"):
            header[name] = None if header[name] is None else tuple(header[name])
        index = cls(**header, **arrays)
        if (now := versions()) != index.versions:
            log.warning(
                "%s was indexed with %s and is read with %s: decoders of MPEG-4 and MPEG-2 may differ in last bits",
                index.path,
                _spoken(index.versions),
                _spoken(now),
            )
        return index

    def check_unchanged(self) -> None:
        """Raises MissingInput or PlanMismatch unless the file is still the one that was indexed.

        A copy with another modification time is the same video. What size, head and tail do not show is found
        while decoding, where every packet is checked.
        """
        stat = _stat(self.path)
        if stat.st_size != self.size:
            raise PlanMismatch(
                f"{self.path} has changed since it was indexed ({stat.st_size} bytes, not {self.size}): plan again"
            )
        if _fingerprint(self.path, self.size, self.stream) != self.fingerprint:
            raise PlanMismatch(f"{self.path} has changed since it was indexed (same size, other content): plan again")

    def differences(self, other: VideoIndex) -> list[str]:
        """Names of the fields in which two indexes of one video differ; path and modification time do not count."""
        names = [name for name in _names() if name not in ("path", "mtime_ns")]
        return [name for name in names if not np.array_equal(getattr(self, name), getattr(other, name))]


def _names() -> list[str]:
    return [one.name for one in fields(VideoIndex)]


def versions() -> dict[str, str]:
    """The decoder's versions; PyAV's own does not matter to a picture."""
    libraries = {name: av.library_versions[name] for name in ("libavcodec", "libavformat")}
    return {name: ".".join(map(str, version)) for name, version in libraries.items()}


def _spoken(libraries: dict[str, str]) -> str:
    return ", ".join(f"{name} {version}" for name, version in libraries.items())


def index_video(
    path: str | Path,
    *,
    stream: int | None = None,
    entry_spacing: int = ENTRY_SPACING,
    on_progress: Callable[[int, int], None] | None = None,
) -> VideoIndex:
    """Index the packets of one video stream: FFmpeg's choice that is no cover picture, or number `stream`.

    `on_progress(bytes_done, bytes_total)` is called now and then. Raises MissingInput or VideoError.
    """
    path = str(Path(path).absolute())
    stat = _stat(path)
    with open_video(path, stream) as (container, video):
        facts = _container_facts(container, video)
        scan = _scan(container, video, entry_spacing, on_progress or (lambda done, total: None))
        if not scan.rows:
            raise VideoError(f"{path} has a video stream that holds no pictures")
        if scan.first is None:
            raise VideoError(f"no picture of {path} can be decoded")
        rate = float(video.guessed_rate or video.average_rate or 25)
    packets = scan.packet_arrays()
    numerator, denominator = facts["time_base"]
    jump = JUMP_SECONDS * denominator // numerator if facts["container"] in _MPEG_STREAMS else None
    segment = _segments(packets, jump)
    doubt = _doubt(facts["codec"], packets, segment, scan)
    if doubt is None:
        frames = _frames_of_packets(packets, segment, scan.first_packet)
    else:
        frames = _frames_of_decoding(path, facts["stream"], facts["time_base"], rate, packets)
    if not len(frames["frame_packet"]):
        raise VideoError(f"no picture of {path} is to be shown")
    return VideoIndex(
        path=path,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        fingerprint=_fingerprint(path, stat.st_size, facts["stream"]),
        **facts,
        **_picture_facts(scan.first),
        trust="packets" if doubt is None else f"decoded: {doubt}",
        entry_spacing=entry_spacing,
        versions=versions(),
        **packets,
        **frames,
        **_times(
            frames["pts"], frames["segment"], packets["packet_duration"][frames["frame_packet"]], facts["time_base"]
        ),
        **_entries(scan.entries, frames["frame_packet"], frames["frame_occurrence"]),
    )


def summary(index: VideoIndex) -> dict[str, Any]:
    """What a person asks of a video, ready for JSON."""
    spacing = np.diff(np.append(index.entry_frame, index.n_frames))
    shown = index.frame_packet[index.frame_occurrence == 0]
    first, last = float(index.pts_seconds[0]), float(index.pts_seconds[-1])
    numerator, denominator = index.time_base
    return {
        "path": index.path,
        "bytes": index.size,
        "fingerprint": index.fingerprint,
        "container": index.container,
        "stream": index.stream,
        "codec": index.codec,
        "profile": index.profile,
        "frames": index.n_frames,
        "frames_header": index.n_frames_header,
        "frame_rate": index.frame_rate,
        "variable_rate": index.variable_rate,
        "start_seconds": first,
        "duration_seconds": last - first + float(index.duration[-1]) * numerator / denominator,
        "clock_jumps": int(index.segment[-1]),
        "width": index.display_width,
        "height": index.display_height,
        "decoded_size": [index.width, index.height],
        "rotation": index.rotation,
        "sample_aspect": list(index.sample_aspect),
        "pixel_format": index.pixel_format,
        "color": {
            "matrix": index.color_matrix,
            "range": index.color_range,
            "primaries": index.color_primaries,
            "transfer": index.color_transfer,
        },
        "keyframes": int((index.packet_flags[shown] & KEY > 0).sum()),
        "entry_points": len(index.entry_frame),
        "longest_run_frames": int(spacing.max()),
        "hidden_packets": index.n_packets - len(shown),
        "corrupt_packets": int((index.packet_flags & CORRUPT > 0).sum()),
        "audio": [asdict(stream) for stream in index.audio],
        "trust": index.trust,
        "holes": None,  # known only after decoding
        "versions": index.versions,
    }


def _stat(path: str) -> os.stat_result:
    try:
        stat = os.stat(path)
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({os.strerror(error.errno or 0)}): name a video file") from None
    if os.path.isdir(path):
        raise MissingInput(f"{path} is a folder: name a video file")
    return stat


def _fingerprint(path: str, size: int, stream: int) -> str:
    """Of size, first and last MiB, stream and index format; not of the modification time: a copy is the same video."""
    mebibyte = 1 << 20
    digest = hashlib.sha256(json.dumps([size, stream, FORMAT_VERSION]).encode())
    with open(path, "rb") as file:
        digest.update(file.read(mebibyte))
        file.seek(max(0, size - mebibyte))
        digest.update(file.read(mebibyte))
    return digest.hexdigest()[:16]


class open_video:
    """Context manager: (container, stream) with every other stream switched off and pictures tagged by packet.

    Raises VideoError or MissingInput. The decoder runs on `threads` threads by slices: frame threads conceal damage
    differently from run to run.
    """

    def __init__(self, path: str, stream: int | None = None, *, threads: int = 1) -> None:
        self.container = _open(path)
        try:
            self.stream = _choose(self.container, path, stream)
        except BaseException:
            self.container.close()
            raise
        for other in self.container.streams:
            if other.index != self.stream.index:
                other.discard = Discard.all
        decoder = self.stream.codec_context
        decoder.copy_opaque = True
        decoder.thread_type = "SLICE"
        decoder.thread_count = threads

    def __enter__(self) -> tuple[InputContainer, VideoStream]:
        return self.container, self.stream

    def __exit__(self, *_: object) -> None:
        self.container.close()


def _open(path: str) -> InputContainer:
    if _stat(path).st_size == 0:
        raise VideoError(f"{path} is empty")
    try:
        # Only files: a playlist must not make a compute node open addresses.
        return av.open(path, "r", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.error.PermissionError:
        raise MissingInput(f"{path} may not be read: check its permissions") from None
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path} is no video that FFmpeg can read ({reason})") from None


def _choose(container: InputContainer, path: str, wanted: int | None) -> VideoStream:
    films = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if wanted is not None:
        films = [one for one in films if one.index == wanted]
        if not films:
            raise VideoError(f"stream {wanted} of {path} is no video stream")
    if not films:
        what = "no video stream, only a cover picture" if container.streams.video else "no video stream"
        raise VideoError(f"{path} has {what}")
    best = container.streams.best("video")
    chosen = next((one for one in films if best is not None and one.index == best.index), films[0])
    if chosen.codec_context is None:
        raise VideoError(f"no decoder for the video stream of {path}")
    if chosen.codec_context.codec.canonical_name in _TEXT_ART:
        raise VideoError(f"{path} is a text file")
    return chosen


@dataclass(slots=True, eq=False)
class Tag:
    """Travels with a packet through the decoder to its picture.

    PyAV 18.1 keeps tags by object identity, so each packet needs an object of its own.
    """

    packet: int
    shown: bool = True
    run: int = 0


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Packets from the present position, in file order. Unreadable stretches are stepped over, up to a limit."""
    failures = 0
    while failures < 100:
        try:
            for packet in container.demux(stream):
                if packet.size:  # PyAV ends with an empty one; real packets may lack every time stamp
                    failures = 0
                    yield packet
            return
        except av.error.EOFError:
            return
        except av.error.FFmpegError:
            failures += 1


def checksum(packet: av.Packet) -> int:
    return zlib.crc32(memoryview(packet))


def pictures_from(decoder: VideoCodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
    """Pictures that the packet sets free (None: all that are left); a packet that cannot be decoded sets none free."""
    try:
        return [picture for picture in decoder.decode(packet) if picture.opaque is not None]
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return []


@dataclass(slots=True)
class _Scan:
    rows: list[tuple[int, int, int, int, int, int, int]]
    entries: list[int]  # packets proved as entry points
    first: av.VideoFrame | None = None
    first_packet: int = 0
    n_probe_packets: int = 0
    probe_pictures: int = 0

    def packet_arrays(self) -> dict[str, np.ndarray]:
        names = ("pts", "dts", "duration", "pos", "size", "crc32", "flags")
        types = (np.int64, np.int64, np.int64, np.int64, np.int32, np.uint32, np.uint8)
        columns = zip(*self.rows, strict=True)
        return {f"packet_{n}": np.array(column, t) for n, t, column in zip(names, types, columns, strict=True)}


def _scan(container: InputContainer, stream: VideoStream, spacing: int, on_progress: Callable) -> _Scan:
    """One pass over the packets of the stream; entry points are proved on the way, while the packets are at hand."""
    scan = _Scan(rows=[], entries=[0])
    codec = stream.codec_context.codec
    prover = _Prover(scan, stream.codec_context, spacing, _is_intra_only(codec))
    invisible = _is_invisible_vp8 if codec.canonical_name == "vp8" else None
    done, total = 0, container.size
    for number, packet in enumerate(packets_of(container, stream)):
        hidden = packet.is_discard or (invisible is not None and invisible(packet))
        flags = KEY * packet.is_keyframe | HIDDEN * hidden | CORRUPT * packet.is_corrupt
        pts = NO_TIME if packet.pts is None else packet.pts
        dts = NO_TIME if packet.dts is None else packet.dts
        pos = -1 if packet.pos is None else packet.pos
        scan.rows.append((pts, dts, packet.duration or 0, pos, packet.size, checksum(packet), flags))
        prover.feed(packet, number, key=packet.is_keyframe, shown=not hidden)
        done = max(done, pos)
        if number % 512 == 0:
            on_progress(done, total)
    prover.finish()
    on_progress(total, total)
    return scan


def _is_intra_only(codec: av.Codec) -> bool:
    return bool(codec.intra_only) or codec.canonical_name in _INTRA_ONLY


def _is_invisible_vp8(packet: av.Packet) -> bool:
    """Alternate reference pictures of VP8 are packets of their own; the fifth bit says whether to show them."""
    return not memoryview(packet)[0] & 0x10


class _Prover:
    """Accepts a key packet as an entry point if decoding from it first gives its own picture, and that one is key.

    Key flags lie: intra refresh, recovery points, containers written in error. The first packet is always an entry;
    the packets from there to the next possible one show whether pictures and packets are equally many.
    """

    def __init__(self, scan: _Scan, decoder: VideoCodecContext, spacing: int, intra_only: bool) -> None:
        self._scan, self._decoder = scan, decoder
        self._spacing = min(spacing, INTRA_SPACING) if intra_only else spacing
        self._intra_only = intra_only
        self._candidate: int | None = None

    def feed(self, packet: av.Packet, number: int, *, key: bool, shown: bool) -> None:
        if number == 0:
            self._candidate = 0
        elif self._candidate is None and key and shown and number - self._scan.entries[-1] >= self._spacing:
            if self._intra_only:
                self._scan.entries.append(number)
            else:
                self._candidate = number
        if self._candidate is None:
            return
        packet.opaque = Tag(packet=number, shown=shown)
        n_fed = number + 1 - self._candidate
        self._see(pictures_from(self._decoder, packet))
        if self._candidate == 0:
            self._scan.n_probe_packets = n_fed
            if self._scan.first is not None and n_fed >= self._spacing:
                self.finish()
        elif n_fed >= PATIENCE_PACKETS:
            self._reset()

    def finish(self) -> None:
        """Take what the decoder still holds into account, and be ready for the next candidate."""
        if self._candidate is not None:
            self._see(pictures_from(self._decoder, None))
            self._reset()

    def _see(self, pictures: list[av.VideoFrame]) -> None:
        pictures = [picture for picture in pictures if picture.opaque.shown]
        if not pictures or self._candidate is None:
            return
        tag: Any = pictures[0].opaque
        if self._candidate == 0:
            if self._scan.first is None:
                self._scan.first, self._scan.first_packet = pictures[0], tag.packet
            self._scan.probe_pictures += len(pictures)
        else:
            if tag.packet == self._candidate and pictures[0].key_frame:
                self._scan.entries.append(self._candidate)
            self._reset()

    def _reset(self) -> None:
        self._candidate = None
        self._decoder.flush_buffers()


def _doubt(codec: str, packets: dict[str, np.ndarray], segment: np.ndarray, scan: _Scan) -> str | None:
    """Why packets cannot tell the order of the frames, if they cannot."""
    if codec in _PACKING:
        return f"a packet of {codec} may hold no picture or two"
    shown = packets["packet_flags"] & HIDDEN == 0
    pts = packets["packet_pts"]
    if (pts[shown] == NO_TIME).any():
        return "packets without presentation times"
    if len(np.unique(np.stack([segment[shown], pts[shown]]), axis=1).T) < shown.sum():
        return "packets with equal presentation times"
    first = scan.first_packet
    probed = np.flatnonzero(shown[: scan.n_probe_packets])
    expected = ((segment[probed] > segment[first]) | (pts[probed] >= pts[first])).sum()
    if scan.probe_pictures < 0.75 * expected:  # a picture or two may be lost at a join or to damage
        return "fewer pictures than packets"
    return None


def _segments(packets: dict[str, np.ndarray], jump: int | None) -> np.ndarray:
    """The number of times the clock went back, or ahead by more than `jump` ticks, before each packet in file order.

    In a sound stretch a key packet is shown after everything before it in the file. Decode times are only a second
    witness against false key flags: Matroska lacks the first ones, MPEG-TS and FLV have noise in them.
    """
    segment = np.zeros(len(packets["packet_pts"]), np.int32)
    latest, latest_dts, current = NO_TIME, NO_TIME, 0
    rows = zip(
        packets["packet_pts"].tolist(), packets["packet_dts"].tolist(), packets["packet_flags"].tolist(), strict=True
    )
    for number, (pts, dts, flags) in enumerate(rows):
        back = NO_TIME < pts <= latest and (NO_TIME in (dts, latest_dts) or dts <= latest_dts)
        ahead = jump is not None and latest > NO_TIME and pts - latest > jump
        if flags & KEY and (back or ahead):
            current += 1
            latest = latest_dts = NO_TIME
        latest, latest_dts = max(latest, pts), max(latest_dts, dts)
        segment[number] = current
    return segment


def _frames_of_packets(packets: dict[str, np.ndarray], segment: np.ndarray, first_packet: int) -> dict[str, np.ndarray]:
    """Shown packets by (segment, time); those before the first picture that can be decoded do not exist for us."""
    pts = packets["packet_pts"]
    order = np.lexsort((pts, segment))
    order = order[packets["packet_flags"][order] & HIDDEN == 0]
    order = order[int(np.flatnonzero(order == first_packet)[0]) :]
    return {
        "frame_packet": order.astype(np.int32),
        "frame_occurrence": np.zeros(len(order), np.uint8),
        "segment": segment[order],
        "pts": pts[order],
    }


def _frames_of_decoding(
    path: str, stream: int, time_base: tuple[int, int], rate: float, packets: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """Frames in the order in which a full sequential decode gives them."""
    numbers: list[int] = []
    times: list[int | None] = []
    with open_video(path, stream) as (container, video):
        for picture in decode_all(container, video, packets["packet_flags"]):
            numbers.append(picture.opaque.packet)
            times.append(picture.pts)
    seen: dict[int, int] = {}
    occurrence = []
    for number in numbers:
        occurrence.append(seen.get(number, 0))
        seen[number] = occurrence[-1] + 1
    return {
        "frame_packet": np.array(numbers, np.int32),
        "frame_occurrence": np.array(occurrence, np.uint8),
        "segment": np.zeros(len(numbers), np.int32),
        "pts": _decoded_times(times, packets, 1 / rate * time_base[1] / time_base[0]),
    }


def decode_all(container: InputContainer, stream: VideoStream, flags: np.ndarray) -> Iterator[Any]:
    """Shown pictures of the whole stream in the decoder's order, tagged by packet."""
    decoder = stream.codec_context
    for number, packet in enumerate(packets_of(container, stream)):
        packet.opaque = Tag(packet=number, shown=not flags[number] & HIDDEN)
        yield from (picture for picture in pictures_from(decoder, packet) if picture.opaque.shown)
    yield from (picture for picture in pictures_from(decoder, None) if picture.opaque.shown)


def _decoded_times(times: list[int | None], packets: dict[str, np.ndarray], step: float) -> np.ndarray:
    """The pictures' own times if they have and keep an order; else the file's slots; else a constant rate."""
    own = np.array([NO_TIME if time is None else time for time in times], np.int64)
    if len(own) and own.min() > NO_TIME and (np.diff(own) >= 0).all():
        return own
    dts = np.sort(packets["packet_dts"][packets["packet_flags"] & HIDDEN == 0])
    if len(dts) == len(own) and dts[0] > NO_TIME and (np.diff(dts) > 0).all():
        return dts
    start = int(dts[dts > NO_TIME][0]) if (dts > NO_TIME).any() else 0
    return start + np.rint(np.arange(len(own)) * step).astype(np.int64)


def _times(
    pts: np.ndarray, segment: np.ndarray, stored: np.ndarray, time_base: tuple[int, int]
) -> dict[str, np.ndarray]:
    """Ticks until the next frame, and seconds that never go back.

    A packet's own duration is the step in decode order, which differs from the step in display order where the rate
    varies; it serves only where no next frame exists.
    """
    steps = np.diff(pts, append=pts[-1:])
    last = np.flatnonzero(np.diff(segment, append=segment[-1:] + 1))
    inner = np.delete(steps, last)
    usual = int(np.median(inner)) if len(inner) else round(time_base[1] / (25 * time_base[0]))
    steps[last] = np.where(stored[last] > 0, stored[last], usual)
    shift = np.zeros(len(pts), np.int64)
    for end in last[:-1]:
        shift[end + 1 :] = pts[end] + shift[end] + steps[end] - pts[end + 1]
    seconds = (pts + shift) * (time_base[0] / time_base[1]) if time_base[0] != 1 else (pts + shift) / time_base[1]
    return {"duration": steps.astype(np.int64), "pts_seconds": seconds.astype(np.float64)}


def _entries(candidates: list[int], frame_packet: np.ndarray, occurrence: np.ndarray) -> dict[str, np.ndarray]:
    """Proved packets with the frame that each stands for: every frame from that one on needs only later packets."""
    earliest_needed = np.minimum.accumulate(frame_packet[::-1])[::-1]
    frame_of = {int(frame_packet[frame]): frame for frame in np.flatnonzero(occurrence == 0).tolist()}
    entries = [(0, 0)]
    for packet in candidates[1:]:
        frame = frame_of.get(packet, -1)
        if frame > entries[-1][0] and earliest_needed[frame] >= packet:
            entries.append((frame, packet))
        elif frame == 0 and earliest_needed[0] >= packet:
            entries[0] = (0, packet)
    frames, packets = zip(*entries, strict=True)
    return {"entry_frame": np.array(frames, np.int64), "entry_packet": np.array(packets, np.int64)}


def _container_facts(container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    decoder = stream.codec_context
    aspect = stream.sample_aspect_ratio
    duration = container.duration / av.time_base if container.duration else math.nan
    return {
        "container": container.format.name,
        "stream": stream.index,
        "codec": decoder.codec.canonical_name,
        "profile": decoder.profile or None,
        "sample_aspect": (aspect.numerator, aspect.denominator) if aspect else (1, 1),
        "time_base": (stream.time_base.numerator, stream.time_base.denominator),
        "n_frames_header": stream.frames,
        "duration_seconds_header": duration if math.isfinite(duration) else 0.0,
        "audio": tuple(
            AudioStream(
                index=one.index,
                codec=one.codec_context.codec.canonical_name,
                rate_hz=one.codec_context.sample_rate,
                channels=one.codec_context.channels,
                language=one.language,
            )
            for one in container.streams.audio
            if one.codec_context is not None
        ),
        "intra_only": _is_intra_only(decoder.codec),
    }


def _picture_facts(picture: av.VideoFrame) -> dict[str, Any]:
    stored = picture.side_data.get("DISPLAYMATRIX")
    matrix = None if stored is None else tuple(np.frombuffer(bytes(stored), np.int32)[:9].tolist())
    height, width = Orientation.of(display_matrix=matrix).displayed_size(picture.height, picture.width)
    return {
        "width": picture.width,
        "height": picture.height,
        "display_width": width,
        "display_height": height,
        "rotation": int(picture.rotation),
        "display_matrix": matrix,
        "pixel_format": picture.format.name,
        "color_matrix": int(picture.colorspace),
        "color_range": int(picture.color_range),
        "color_primaries": int(picture.color_primaries),
        "color_transfer": int(picture.color_trc),
    }

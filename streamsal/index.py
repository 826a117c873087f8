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
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import InputContainer
from av.video.stream import VideoStream

from .color import Orientation
from .errors import MissingInput, PlanMismatch, VideoError
from .files import write_bytes
from .numbering import CORRUPT, KEY, doubt, entry_frames, number_packets, number_pictures, segments, times
from .packets import decode_all, open_video, stat_video, tag_of
from .scan import is_intra_only, scan_packets

log = logging.getLogger(__name__)

FORMAT_VERSION = 1
ENTRY_SPACING = 64  # packets between entry points, so that resetting the decoder at each costs about nothing
JUMP_SECONDS = 10  # FFmpeg's own threshold for a new start of the clock in MPEG streams

_MPEG_STREAMS = {"mpegts", "mpeg"}


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
    def end_seconds(self) -> np.ndarray:
        """(n_frames,) float64: when each frame gives way to the next, in seconds of the same clock."""
        numerator, denominator = self.time_base
        return self.pts_seconds + self.duration * (numerator / denominator)

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
            raise PlanMismatch(f"the frame index {path} is of another version of streamsal: plan a new run with -o")
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
        stat = stat_video(self.path)
        if stat.st_size != self.size:
            raise changed(self.path, f"{stat.st_size} bytes, not {self.size}")
        if _fingerprint(self.path, self.size, self.stream) != self.fingerprint:
            raise changed(self.path, "same size, other content")

    def differences(self, other: VideoIndex) -> list[str]:
        """Names of the fields in which two indexes of one video differ; path and modification time do not count."""
        names = [name for name in _names() if name not in ("path", "mtime_ns")]
        return [name for name in names if not np.array_equal(getattr(self, name), getattr(other, name))]


def changed(path: str, how: str) -> PlanMismatch:
    return PlanMismatch(
        f"{path} has changed since it was indexed ({how}): put the old file back, or plan a new run with -o"
    )


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
    stat = stat_video(path)
    with open_video(path, stream) as (container, video):
        facts = _container_facts(container, video)
        scan = scan_packets(container, video, spacing=entry_spacing, on_progress=on_progress)
        rate = video.guessed_rate or video.average_rate or 25
    packets = scan.packets
    if not len(packets.size):
        raise VideoError(f"{path} has a video stream that holds no pictures: name another file")
    if scan.first_picture is None:
        raise VideoError(f"no picture of {path} can be decoded: name another file")

    numerator, denominator = facts["time_base"]
    jump = JUMP_SECONDS * denominator // numerator if facts["container"] in _MPEG_STREAMS else None
    segment = segments(packets, jump=jump)
    reason = doubt(facts["codec"], packets, segment, scan.probe)
    if reason is None:
        frames = number_packets(packets, segment, scan.probe.first_packet)
    else:
        with open_video(path, facts["stream"]) as (container, video):
            pictures = decode_all(container, video, packets.flags)
            decoded = [(tag_of(picture).packet, picture.pts) for picture in pictures]
        frames = number_pictures(decoded, packets, step=float(denominator / (rate * numerator)))
    duration, pts_seconds = times(frames, packets, facts["time_base"])
    entry_frame, entry_packet = entry_frames(scan.entries, frames)
    return VideoIndex(
        path=path,
        size=stat.st_size,
        mtime_ns=stat.st_mtime_ns,
        fingerprint=_fingerprint(path, stat.st_size, facts["stream"]),
        **facts,
        **_picture_facts(scan.first_picture),
        trust="packets" if reason is None else f"decoded: {reason}",
        entry_spacing=entry_spacing,
        versions=versions(),
        **{f"packet_{one.name}": getattr(packets, one.name) for one in fields(packets)},
        frame_packet=frames.packet,
        frame_occurrence=frames.occurrence,
        segment=frames.segment,
        pts=frames.pts,
        duration=duration,
        pts_seconds=pts_seconds,
        entry_frame=entry_frame,
        entry_packet=entry_packet,
    )


def summary(index: VideoIndex) -> dict[str, Any]:
    """What a person asks of a video, ready for JSON."""
    spacing = np.diff(np.append(index.entry_frame, index.n_frames))
    shown = index.frame_packet[index.frame_occurrence == 0]
    first = float(index.pts_seconds[0])
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
        "duration_seconds": float(index.end_seconds[-1]) - first,
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


def _fingerprint(path: str, size: int, stream: int) -> str:
    """Of size, first and last MiB, stream and index format; not of the modification time: a copy is the same video."""
    mebibyte = 1 << 20
    digest = hashlib.sha256(json.dumps([size, stream, FORMAT_VERSION]).encode())
    with open(path, "rb") as file:
        digest.update(file.read(mebibyte))
        file.seek(max(0, size - mebibyte))
        digest.update(file.read(mebibyte))
    return digest.hexdigest()[:16]


def _container_facts(container: InputContainer, stream: VideoStream) -> dict[str, Any]:
    decoder = stream.codec_context
    aspect = stream.sample_aspect_ratio
    time_base = stream.time_base or Fraction(1, av.time_base)
    return {
        "container": container.format.name,
        "stream": stream.index,
        "codec": decoder.codec.canonical_name,
        "profile": decoder.profile or None,
        "sample_aspect": (aspect.numerator, aspect.denominator) if aspect else (1, 1),
        "time_base": (time_base.numerator, time_base.denominator),
        "n_frames_header": stream.frames,
        "duration_seconds_header": (container.duration or 0) / av.time_base,
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
        "intra_only": is_intra_only(decoder.codec),
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

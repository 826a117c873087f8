"""A video file in, the packets of one stream out, and the pictures that a decoder makes of them.

Every use of PyAV that both indexing and reading need is here: which stream is meant, stepping over unreadable
stretches, and the tag that leads from a picture back to its packet. This module knows no frame numbers.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.stream import Discard, Disposition
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .errors import MissingInput, VideoError
from .numbering import HIDDEN

_TEXT_ART = {"ansi", "bintext", "xbin", "idf"}  # FFmpeg draws text files; nobody means them as videos


class open_video:
    """Context manager: (container, stream) with every other stream switched off and pictures tagged by packet.

    `stream` None means FFmpeg's choice, unless that is a cover picture. The decoder's `threads` work on slices: frame
    threads conceal damage differently from run to run. Raises VideoError or MissingInput.
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


def stat_video(path: str) -> os.stat_result:
    """Raises MissingInput unless there is a file."""
    try:
        stat = os.stat(path)
    except OSError as error:
        raise MissingInput(f"{path} cannot be read ({os.strerror(error.errno or 0)}): name a video file") from None
    if os.path.isdir(path):
        raise MissingInput(f"{path} is a folder: name a video file")
    return stat


def _open(path: str) -> InputContainer:
    if stat_video(path).st_size == 0:
        raise VideoError(f"{path} is empty: name a video file")
    try:
        # Only files: a playlist must not make a compute node open addresses.
        return av.open(path, "r", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.error.PermissionError:
        raise MissingInput(f"{path} may not be read: check its permissions") from None
    except (av.error.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise VideoError(f"{path} is no video that FFmpeg can read ({reason}): name a video file") from None


def _choose(container: InputContainer, path: str, wanted: int | None) -> VideoStream:
    films = [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]
    if wanted is not None:
        films = [one for one in films if one.index == wanted]
        if not films:
            raise VideoError(f"stream {wanted} of {path} is no video stream: choose another")
    if not films:
        what = "no video stream, only a cover picture" if container.streams.video else "no video stream, or is cut off"
        raise VideoError(f"{path} has {what}: name a video file")
    best = container.streams.best("video")
    chosen = next((one for one in films if best is not None and one.index == best.index), films[0])
    if chosen.codec_context is None:
        raise VideoError(f"no decoder for the video stream of {path}: convert the file")
    if chosen.codec_context.codec.canonical_name in _TEXT_ART:
        raise VideoError(f"{path} is a text file: name a video file")
    return chosen


def packets_of(container: InputContainer, stream: VideoStream) -> Iterator[av.Packet]:
    """Packets from the present position on, in file order. Unreadable stretches are stepped over, up to a limit."""
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


@dataclass(slots=True, eq=False)
class Tag:
    """Travels with a packet through the decoder to its picture.

    PyAV 18.1 keeps tags by object identity, so each packet needs an object of its own.
    """

    packet: int
    shown: bool = True
    run: int = 0


def tag_of(picture: av.VideoFrame) -> Tag:
    tag: Any = picture.opaque
    return tag


def pictures_from(decoder: VideoCodecContext, packet: av.Packet | None) -> list[av.VideoFrame]:
    """Pictures that the packet sets free (None: all that are left); a packet that cannot be decoded sets none free."""
    try:
        return [picture for picture in decoder.decode(packet) if picture.opaque is not None]
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return []


def decode_all(container: InputContainer, stream: VideoStream, flags: np.ndarray) -> Iterator[av.VideoFrame]:
    """Shown pictures of the whole stream in the decoder's order, tagged by packet."""
    decoder = stream.codec_context
    for number, packet in enumerate(packets_of(container, stream)):
        packet.opaque = Tag(packet=number, shown=not flags[number] & HIDDEN)
        yield from (picture for picture in pictures_from(decoder, packet) if tag_of(picture).shown)
    yield from (picture for picture in pictures_from(decoder, None) if tag_of(picture).shown)

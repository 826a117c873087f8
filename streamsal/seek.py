"""A packet number in, that packet out, after a seek that is checked and never trusted.

Containers land early, late or elsewhere, so the place is known only by what is found there. This module decodes
nothing but the first packet.
"""

from __future__ import annotations

import os
from typing import Any

import av
import av.error
import numpy as np

from .errors import PlanMismatch
from .index import VideoIndex, changed
from .numbering import NO_TIME
from .packets import Tag, checksum, open_video, packets_of, pictures_from

SKIP_BYTES = 2 << 20  # reading on over this much costs less than a seek
PATIENCE = 3  # times in a row that every seek missed; after that the file is read through instead

# Only here a seek by byte lands on the packet that begins there.
_BYTE_SEEK = {"mpegts", "h264", "hevc", "m4v"}


class LostPlace(Exception):
    """What follows a seek is not what a reader from the start has seen: `begin_again`."""


class PacketSource:
    """The packets of an indexed stream by number; each is compared with its size and checksum in the index.

    After a seek the first packet must be found in the index, else other ways are tried, and in the end reading from
    the start of the file without decoding. A difference that is there on that way, too, means that the file changed.
    The `decoder` lives as long as the container: until `move_to`, `begin_again` or `close`.
    """

    def __init__(self, index: VideoIndex, *, threads: int = 1) -> None:
        self._index, self._threads = index, threads
        self._video: open_video | None = None
        self._pid = os.getpid()
        self._ends = np.cumsum(index.packet_size, dtype=np.int64)
        self._n_lost = 0

    def opened_elsewhere(self) -> bool:
        """Whether this process has inherited the container: both would move one file offset, so it is left alone."""
        if self._video is not None and self._pid != os.getpid():
            self._video = None
            return True
        return False

    @property
    def decoder(self) -> Any:
        return self._opened().stream.codec_context

    def close(self) -> None:
        if self._video is not None and not self.opened_elsewhere():
            self._video.container.close()
        self._video = None

    def move_to(self, number: int) -> None:
        """Let packet `number` be the next one to read."""
        self._opened()
        ahead = number - self._position
        if ahead < 0 or self._bytes_between(self._position, number) > SKIP_BYTES:
            ways = self._ways(number) if self._n_lost < PATIENCE else []
            if any(self._try(seek, number) for seek in ways):
                self._n_lost = 0
                return
            self._n_lost += bool(ways)
            if ways or ahead < 0:
                self._reopen()
        self._skip_to(number)

    def read(self, number: int) -> av.Packet:
        """Packet `number`, which must not lie before the present position. Raises PlanMismatch, or LostPlace if
        the difference may come from a seek."""
        self._opened()
        self._skip_to(number)
        packet = self._next()
        if packet is None or not self._matches(packet, number):
            raise self._mismatch(number)
        return packet

    def _opened(self) -> open_video:
        self.opened_elsewhere()
        if self._video is None:
            self._reopen()
        assert self._video is not None
        return self._video

    def begin_again(self) -> None:
        """Back to packet 0, and from now on no seeks."""
        self._n_lost = PATIENCE
        self._reopen()

    def _reopen(self) -> None:
        self.close()
        self._video = open_video(self._index.path, self._index.stream, threads=self._threads)
        self._pid = os.getpid()
        self._start_at(0, linear=True)
        # Some decoders learn from the first packet what later ones rely on, such as DivX's version and with it the
        # inverse transform: every decoder sees it before its first run, wherever that is.
        first = self.read(0)
        first.opaque = Tag(packet=0, run=-1)
        pictures_from(self._video.stream.codec_context, first)
        self._video.stream.codec_context.flush_buffers()
        self._position, self._pushed_back = 0, first

    def _start_at(self, position: int, *, linear: bool) -> None:
        assert self._video is not None
        self._packets = packets_of(self._video.container, self._video.stream)
        self._pushed_back: av.Packet | None = None
        self._position, self._linear = position, linear

    def _next(self) -> av.Packet | None:
        packet, self._pushed_back = self._pushed_back, None
        if packet is None:
            packet = next(self._packets, None)
        self._position += 1
        return packet

    def _skip_to(self, number: int) -> None:
        while self._position < number:
            if self._next() is None:
                raise self._mismatch(self._position - 1)

    def _bytes_between(self, first: int, last: int) -> int:
        return int(self._ends[last] - self._ends[first]) if first < len(self._ends) else 0

    def _matches(self, packet: av.Packet, number: int) -> bool:
        index = self._index
        return (
            number < index.n_packets
            and packet.size == index.packet_size[number]
            and checksum(packet) == index.packet_crc32[number]
        )

    def _mismatch(self, number: int) -> PlanMismatch | LostPlace:
        if not self._linear:
            return LostPlace(number)
        frames = np.flatnonzero(self._index.frame_packet == number)
        where = f"packet {number} (frame {frames[0]})" if len(frames) else f"packet {number}"
        return changed(self._index.path, f"{where} differs")

    def _ways(self, number: int) -> list[dict[str, Any]]:
        """Arguments of the seeks to try for packet `number`, the best first."""
        index, stream = self._index, self._opened().stream
        ways: list[dict[str, Any]] = []
        if index.container in _BYTE_SEEK and index.packet_pos[number] >= 0:
            ways.append({"offset": int(index.packet_pos[number]), "unsupported_byte_offset": True})
        earlier = index.entry_packet[: np.searchsorted(index.entry_packet, number, side="right")]
        for entry in (number, *earlier[:-3:-1].tolist()):
            times = [int(one[entry]) for one in (index.packet_pts, index.packet_dts) if one[entry] != NO_TIME]
            if times and (way := {"offset": min(times), "stream": stream}) not in ways:
                ways.append(way)
        return ways

    def _try(self, seek: dict[str, Any], number: int) -> bool:
        """Seek, and find out from the packets themselves whether `number` can be reached from there."""
        try:
            self._opened().container.seek(**seek)
        except av.error.FFmpegError:
            return False
        self._start_at(0, linear=False)
        first = next(self._packets, None)
        landed = None if first is None else self._locate(first)
        if landed is None or landed > number:
            return False
        self._position, self._pushed_back = landed, first
        while self._position < number:
            if self._next() is None:
                return False
        packet = self._next()
        if packet is None or not self._matches(packet, number):
            return False
        self._position, self._pushed_back = number, packet
        return True

    def _locate(self, packet: av.Packet) -> int | None:
        """The packet's number, if size and checksum, and where they repeat time or position, leave only one."""
        index = self._index
        same = np.flatnonzero(index.packet_size == packet.size)
        same = same[index.packet_crc32[same] == checksum(packet)]
        for value, known in ((packet.pts, index.packet_pts), (packet.pos, index.packet_pos)):
            if len(same) > 1 and value is not None:
                same = same[known[same] == value]
        return int(same[0]) if len(same) == 1 else None

"""An open stream in, its packet table out, with the packets from which decoding may start.

One pass: an entry point is proved by decoding from it while its packets are at hand. This module knows nothing of
display order.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable
from dataclasses import dataclass

import av
import numpy as np
from av.container import InputContainer
from av.video.codeccontext import VideoCodecContext
from av.video.stream import VideoStream

from .numbering import CORRUPT, HIDDEN, KEY, NO_TIME, Packets, Probe
from .packets import Tag, checksum, packets_of, pictures_from, tag_of

INTRA_SPACING = 8  # where every picture stands alone short runs make sparse reads cheap, and a reset is free
PROOF_PACKETS = 2  # a key picture may be two fields, each a packet; draining the decoder costs less than its delay

# FFmpeg does not mark these as intra-only, because animated or chained variants of the container exist.
_INTRA_ONLY = {"png", "tiff", "bmp", "targa"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    packets: Packets
    entries: list[int]  # packet numbers; the first packet is always one
    first_picture: av.VideoFrame | None
    probe: Probe


def scan_packets(
    container: InputContainer,
    stream: VideoStream,
    *,
    spacing: int,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scan:
    """All packets of the stream; entry points lie at least `spacing` packets apart."""
    decoder = stream.codec_context
    prover = _Prover(decoder, spacing, intra_only=is_intra_only(decoder.codec))
    vp8 = decoder.codec.canonical_name == "vp8"
    rows = array("q")  # seven numbers a packet, flat: cheaper than a list of tuples
    done, total = 0, container.size
    for number, packet in enumerate(packets_of(container, stream)):
        key, hidden = packet.is_keyframe, packet.is_discard or (vp8 and _is_invisible_vp8(packet))
        flags = KEY * key | HIDDEN * hidden | CORRUPT * packet.is_corrupt
        pts = NO_TIME if packet.pts is None else packet.pts
        dts = NO_TIME if packet.dts is None else packet.dts
        pos = -1 if packet.pos is None else packet.pos
        rows.extend((pts, dts, packet.duration or 0, pos, packet.size, checksum(packet), flags))
        if key or prover.busy or number == 0:
            prover.feed(packet, number, key=key, shown=not hidden)
        if on_progress is not None and number % 512 == 0:
            done = max(done, pos)
            on_progress(done, total)
    prover.finish()
    if on_progress is not None:
        on_progress(total, total)
    return Scan(
        packets=Packets.of_rows(np.frombuffer(rows, np.int64)),
        entries=prover.entries,
        first_picture=prover.first_picture,
        probe=Probe(first_packet=prover.first_packet, n_packets=prover.n_probed, n_pictures=prover.n_pictures),
    )


def is_intra_only(codec: av.Codec) -> bool:
    return bool(codec.intra_only) or codec.canonical_name in _INTRA_ONLY


def _is_invisible_vp8(packet: av.Packet) -> bool:
    """Alternate reference pictures of VP8 are packets of their own; the fifth bit says whether to show them."""
    return not memoryview(packet)[0] & 0x10


class _Prover:
    """Accepts a key packet as an entry point if decoding from it first gives its own picture, and that one is key.

    Key flags lie: intra refresh, recovery points, containers written in error. The first packet is always an entry;
    the packets from there to the next possible one show whether pictures and packets are equally many.
    """

    def __init__(self, decoder: VideoCodecContext, spacing: int, *, intra_only: bool) -> None:
        self.entries = [0]
        self.first_picture: av.VideoFrame | None = None
        self.first_packet = self.n_probed = self.n_pictures = 0
        self._decoder, self._intra_only = decoder, intra_only
        self._spacing = min(spacing, INTRA_SPACING) if intra_only else spacing
        self._candidate: int | None = None

    def feed(self, packet: av.Packet, number: int, *, key: bool, shown: bool) -> None:
        if number == 0:
            self._candidate = 0
        elif self._candidate is None and key and shown and number - self.entries[-1] >= self._spacing:
            if self._intra_only:
                self.entries.append(number)
            else:
                self._candidate = number
        if self._candidate is None:
            return
        packet.opaque = Tag(packet=number, shown=shown)
        n_fed = number + 1 - self._candidate
        self._see(pictures_from(self._decoder, packet))
        if self._candidate == 0:
            self.n_probed = n_fed
            if self.first_picture is not None and n_fed >= self._spacing:
                self.finish()
        elif n_fed >= PROOF_PACKETS:
            self.finish()

    @property
    def busy(self) -> bool:
        """Whether the packets that follow are needed for a proof under way."""
        return self._candidate is not None

    def finish(self) -> None:
        """Take what the decoder still holds into account, and be ready for the next candidate."""
        if self._candidate is not None:
            self._see(pictures_from(self._decoder, None))
            self._candidate = None
            self._decoder.flush_buffers()

    def _see(self, pictures: list[av.VideoFrame]) -> None:
        pictures = [picture for picture in pictures if tag_of(picture).shown]
        if not pictures or self._candidate is None:
            return
        packet = tag_of(pictures[0]).packet
        if self._candidate == 0:
            if self.first_picture is None:
                self.first_picture, self.first_packet = pictures[0], packet
            self.n_pictures += len(pictures)
            return
        if packet == self._candidate and pictures[0].key_frame:
            self.entries.append(packet)
        self._candidate = None
        self._decoder.flush_buffers()

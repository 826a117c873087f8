"""Packet times in, frame numbers, times and entry frames out: pure arithmetic on arrays.

A frame's number is its rank in display order. This module opens no file and decodes nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

NO_TIME = int(np.iinfo(np.int64).min)
KEY, HIDDEN, CORRUPT = 1, 2, 4  # bits of packet flags

_PACKING = {"mpeg4", "msmpeg4v1", "msmpeg4v2", "msmpeg4v3", "h263", "h263p", "flv1", "vc1", "wmv3"}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Packets:
    """One row per packet of the stream, in file order; times in ticks of the stream, NO_TIME where there is none."""

    pts: np.ndarray
    dts: np.ndarray
    duration: np.ndarray
    pos: np.ndarray
    size: np.ndarray
    crc32: np.ndarray
    flags: np.ndarray

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[int]] | np.ndarray) -> Packets:
        """From (n, 7) integers: pts, dts, duration, pos, size, crc32, flags."""
        types = (np.int64, np.int64, np.int64, np.int64, np.int32, np.uint32, np.uint8)
        columns = np.asarray(rows, np.int64).reshape(-1, len(types)).T
        return cls(**{n: column.astype(t) for n, column, t in zip(cls.__slots__, columns, types, strict=True)})

    @property
    def shown(self) -> np.ndarray:
        return self.flags & HIDDEN == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What decoding the first `n_packets` gave: the packet of the first shown picture, and how many there were."""

    first_packet: int
    n_packets: int
    n_pictures: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Numbering:
    """One row per frame, in display order. `occurrence` is 1 for the second picture of a packet that holds two."""

    packet: np.ndarray
    occurrence: np.ndarray
    segment: np.ndarray
    pts: np.ndarray


def segments(packets: Packets, *, jump: int | None) -> np.ndarray:
    """The number of times the clock went back, or ahead by more than `jump` ticks, before each packet in file order.

    In a sound stretch a key packet is shown after everything before it in the file. Decode times are only a second
    witness against false key flags: Matroska lacks the first ones, MPEG-TS and FLV have noise in them.
    """
    segment = np.zeros(len(packets.pts), np.int32)
    if not _clock_in_doubt(packets, jump):
        return segment
    latest, latest_dts, current = NO_TIME, NO_TIME, 0
    rows = zip(packets.pts.tolist(), packets.dts.tolist(), packets.flags.tolist(), strict=True)
    for number, (pts, dts, flags) in enumerate(rows):
        back = NO_TIME < pts <= latest and (NO_TIME in (dts, latest_dts) or dts <= latest_dts)
        ahead = jump is not None and latest > NO_TIME and pts - latest > jump
        if flags & KEY and (back or ahead):
            current += 1
            latest = latest_dts = NO_TIME
        latest, latest_dts = max(latest, pts), max(latest_dts, dts)
        segment[number] = current
    return segment


def _clock_in_doubt(packets: Packets, jump: int | None) -> bool:
    """Whether any key packet might begin a new segment: at no cost for sound files, where none does."""
    key, pts = packets.flags[1:] & KEY > 0, packets.pts[1:]
    latest = np.maximum.accumulate(packets.pts)[:-1]
    suspicious = (pts > NO_TIME) & (pts <= latest)
    if jump is not None:
        suspicious |= (latest > NO_TIME) & (pts > latest + jump)
    return bool((suspicious & key).any())


def doubt(codec: str, packets: Packets, segment: np.ndarray, probe: Probe) -> str | None:
    """Why packets cannot tell the order of the frames, if they cannot."""
    if codec in _PACKING:
        return f"a packet of {codec} may hold no picture or two"
    shown, pts = packets.shown, packets.pts
    if (pts[shown] == NO_TIME).any():
        return "packets without presentation times"
    order = np.lexsort((pts[shown], segment[shown]))
    if ((np.diff(pts[shown][order]) == 0) & (np.diff(segment[shown][order]) == 0)).any():
        return "packets with equal presentation times"
    first = probe.first_packet
    probed = np.flatnonzero(shown[: probe.n_packets])
    expected = ((segment[probed] > segment[first]) | (pts[probed] >= pts[first])).sum()
    if probe.n_pictures < 0.75 * expected:  # a picture or two may be lost at a join or to damage
        return "fewer pictures than packets"
    return None


def number_packets(packets: Packets, segment: np.ndarray, first_packet: int) -> Numbering:
    """Shown packets by (segment, time); those before the first picture that can be decoded do not exist for us."""
    order = np.lexsort((packets.pts, segment))
    order = order[packets.shown[order]]
    order = order[int(np.flatnonzero(order == first_packet)[0]) :]
    return Numbering(
        packet=order.astype(np.int32),
        occurrence=np.zeros(len(order), np.uint8),
        segment=segment[order],
        pts=packets.pts[order],
    )


def number_pictures(decoded: Sequence[tuple[int, int | None]], packets: Packets, *, step: float) -> Numbering:
    """The (packet, pts) of every picture in the order of a full sequential decode; `step` ticks lie between frames
    where nothing else tells."""
    seen: dict[int, int] = {}
    occurrence = []
    for packet, _ in decoded:
        occurrence.append(seen.get(packet, 0))
        seen[packet] = occurrence[-1] + 1
    return Numbering(
        packet=np.array([packet for packet, _ in decoded], np.int32),
        occurrence=np.array(occurrence, np.uint8),
        segment=np.zeros(len(decoded), np.int32),
        pts=_decoded_times([pts for _, pts in decoded], packets, step),
    )


def _decoded_times(times: Sequence[int | None], packets: Packets, step: float) -> np.ndarray:
    """The pictures' own times if they have and keep an order; else the file's slots; else a constant rate."""
    own = np.array([NO_TIME if time is None else time for time in times], np.int64)
    if len(own) and own.min() > NO_TIME and (np.diff(own) >= 0).all():
        return own
    slots = np.sort(packets.dts[packets.shown])
    if len(slots) == len(own) > 0 and slots[0] > NO_TIME and (np.diff(slots) > 0).all():
        return slots
    known = slots[slots > NO_TIME]
    start = int(known[0]) if len(known) else 0
    return start + np.rint(np.arange(len(own)) * step).astype(np.int64)


def times(frames: Numbering, packets: Packets, time_base: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """(ticks until the next frame, seconds that never go back).

    A packet's own duration is the step in decode order, which differs from the step in display order where the rate
    varies; it serves only where no next frame exists. A later segment follows the one before.
    """
    pts, segment, stored = frames.pts, frames.segment, packets.duration[frames.packet]
    ticks = np.diff(pts, append=pts[-1:])
    last = np.flatnonzero(np.diff(segment, append=segment[-1:] + 1))
    inner = np.delete(ticks, last)
    usual = int(np.median(inner)) if len(inner) else round(time_base[1] / (25 * time_base[0]))
    ticks[last] = np.where(stored[last] > 0, stored[last], usual)
    shifted = pts.copy()
    for end in last[:-1].tolist():
        shifted[end + 1 :] += shifted[end] + ticks[end] - shifted[end + 1]
    return ticks, shifted * time_base[0] / time_base[1]


def entry_frames(candidates: Sequence[int], frames: Numbering) -> tuple[np.ndarray, np.ndarray]:
    """(frames, packets) of the entry points: from such a frame on, every frame needs only packets from there on."""
    earliest_needed = np.minimum.accumulate(frames.packet[::-1])[::-1]
    first_pictures = np.flatnonzero(frames.occurrence == 0)
    frame_of = dict(zip(frames.packet[first_pictures].tolist(), first_pictures.tolist(), strict=True))
    entries = [(0, 0)]
    for packet in candidates[1:]:
        frame = frame_of.get(packet, -1)
        if frame < 0 or earliest_needed[frame] < packet:
            continue
        if frame == 0:  # what lies before it is hidden or cannot be decoded
            entries = [(0, packet)]
        elif frame > entries[-1][0]:
            entries.append((frame, packet))
    return np.array([frame for frame, _ in entries], np.int64), np.array([packet for _, packet in entries], np.int64)

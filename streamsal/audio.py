"""What a model hears: an indexed video and a frame number in, a row of mono samples around that frame's time out.

A sample depends on the file and its place alone, never on where a task begins: sound is decoded in segments of whole
seconds, each by a decoder that starts a fixed time before it, and brought to the model's rate segment by segment.
Segments are kept while a later row may need them, so memory depends on the window. Knows no model and no tensor.

    seconds    27     29     30                                            60     61
               ├──────┼──────┼─────────────────────────────────────────────┼──────┤
               settle margin               segment 1                        margin
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import Any

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from av.container import InputContainer
from av.stream import Discard

from .errors import VideoError
from .index import VideoIndex
from .models.spec import AudioWindow
from .numbering import NO_TIME
from .packets import packets_of

SEGMENT = 30  # seconds decoded together; whole seconds hold whole samples at every rate, so all grids meet there
MARGIN = 1  # seconds of sound on either side of a segment that its first and last samples are resampled from
SETTLE = 2  # seconds decoded before that and thrown away: decoders of MP3 and Opus need up to 0.1
SEEK_EARLIER = (1, 10, 60, 600)  # seconds, tried in turn: where sound lies ahead of its pictures a seek lands late
LOST = 5e-3  # seconds: a larger step between two pieces is missing sound, a smaller one the clock's rounding
# Samples per second. A resampling kernel has a row for every sample of the wanted rate until both rates meet again: 441
# rows from a multiple of 50 to 22050, but 22050 of 44117 numbers each from 44117. FFmpeg brings such rates to this one.
GRID_HZ, OF_OTHERS_HZ = 50, 48_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Moments:
    """When the frames of a video are shown, float64 (n,) seconds each; of frames behind the first `told` nothing tells
    which sound is theirs, because the clock jumps there."""

    start: np.ndarray
    duration: np.ndarray
    frame_rate: float
    told: int

    @classmethod
    def of(cls, index: VideoIndex) -> Moments:
        return cls(
            start=index.pts_seconds,
            duration=index.end_seconds - index.pts_seconds,
            frame_rate=index.frame_rate,
            told=int(np.searchsorted(index.segment, 0, side="right")),
        )

    def span(self, window: AudioWindow, frame: int) -> tuple[float, float]:
        """Seconds from half a frame before the window's first frame to half a frame behind its last; both lie in the
        video."""
        first, last = max(frame - window.past, 0), min(frame + window.future, self.told - 1)
        start = self.start[first] - self.duration[first] / 2
        return float(start), float(self.start[last] + self.duration[last] / 2)


class Sound:
    """Rows of samples for the frames of one video, to be asked for in rising order.

    Where there is no sound (no track, a hole, before its start, behind its end) samples are 0, as are all of a frame
    that cannot be told its sound.
    """

    def __init__(self, track: Track | Recording | None, moments: Moments, window: AudioWindow) -> None:
        self.window = window
        self._track, self._moments = track, moments
        self._segments: dict[int, np.ndarray] = {}

    @classmethod
    def of(cls, index: VideoIndex, window: AudioWindow) -> Sound:
        return cls(Track.of(index) if index.audio else None, Moments.of(index), window)

    def row(self, frame: int) -> np.ndarray:
        """(samples,) float32: the sound of the frame's window, tapered, scaled, centered in zeros or cut to fit."""
        row = np.zeros(self.window.samples, np.float32)
        if self._track is None or frame >= self._moments.told:
            return row
        heard = self._heard(self._track, frame)
        if self.window.taper == "hann":
            heard = heard * np.hanning(len(heard))
        heard = heard[max(0, len(heard) - len(row)) // 2 :][: len(row)]
        first = (len(row) - len(heard)) // 2
        row[first : first + len(heard)] = heard * self.window.scale
        return row

    def _heard(self, track: Track | Recording, frame: int) -> np.ndarray:
        rate_hz = self.window.rate_hz
        if rate_hz is not None:
            low, high = (round(seconds * rate_hz) for seconds in self._moments.span(self.window, frame))
            return self._samples(track, rate_hz, low, high)
        low, high = counted(self._moments, self.window, frame, track.rate_hz)
        first = round(track.first * track.rate_hz)
        samples = self._samples(track, track.rate_hz, first + low, first + high)
        return samples if track.end is None else samples[: max(0, round(track.end * track.rate_hz) - first - low)]

    def _samples(self, track: Track | Recording, rate_hz: int, low: int, high: int) -> np.ndarray:
        """(high - low,) float32, of the segments that hold them; earlier segments are forgotten."""
        length = SEGMENT * rate_hz
        numbers = range(low // length, -(-high // length))
        self._segments = {number: kept for number, kept in self._segments.items() if number >= numbers.start}
        for number in numbers:
            if number not in self._segments:
                self._segments[number] = resample(track.segment(number), track.rate_hz, rate_hz)
        joined = np.concatenate([np.zeros(0, np.float32), *(self._segments[number] for number in numbers)])
        return joined[low - numbers.start * length :][: high - low]


def counted(moments: Moments, window: AudioWindow, frame: int, rate_hz: int) -> tuple[int, int]:
    """Samples [low, high) of a frame's window as the published code of STAViS and ViNet counts them.

    From the first sample on, by the average frame rate, truncated to whole numbers, both ends taken.
    """
    per_frame = rate_hz / moments.frame_rate
    first, last = max(frame - window.past, 0), min(frame + window.future, len(moments.start) - 1)
    return int(max(0.0, first * per_frame - per_frame / 2)), int(last * per_frame + per_frame / 2) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """Sound in memory, float32 (n,) in -1 ... 1, that begins with the video."""

    samples: np.ndarray
    rate_hz: int
    first: float = 0.0

    @property
    def end(self) -> float:
        return len(self.samples) / self.rate_hz

    def segment(self, number: int) -> np.ndarray:
        """As of a Track."""
        start, stop = ((number * SEGMENT - MARGIN) * self.rate_hz, ((number + 1) * SEGMENT + MARGIN) * self.rate_hz)
        piece = self.samples[max(0, start) : max(0, stop)].astype(np.float32)
        before = max(0, -start)
        return np.pad(piece, (before, stop - start - before - len(piece)))


@dataclass(slots=True, kw_only=True)
class Track:
    """The sound of a file, mixed to one channel by FFmpeg, at its own rate where that is a usual one.

    `first`: seconds at which it begins. `end`: seconds at which it ends, or a bound, once a segment has come that far.
    """

    path: str
    stream: int
    rate_hz: int
    first: float
    seekable: bool
    end: float | None = None

    @classmethod
    def of(cls, index: VideoIndex) -> Track | None:
        """FFmpeg's choice among the tracks; None where not one piece of it can be decoded."""
        with _opened(index.path) as container:
            best: Any = container.streams.best("audio", related=container.streams[index.stream])
            known = [track.index for track in index.audio]
            stream = container.streams[best.index if best is not None and best.index in known else known[0]]
            for frame in _decoded(stream, _packets(container, stream)):
                return cls(
                    path=index.path,
                    stream=stream.index,
                    rate_hz=OF_OTHERS_HZ if frame.sample_rate % GRID_HZ else frame.sample_rate,
                    first=_seconds(frame) or 0.0,
                    seekable=_clock_rises(index),
                )
        return None

    def segment(self, number: int) -> np.ndarray:
        """float32, segment `number` with its margins; 0 where the file has nothing."""
        start, stop = number * SEGMENT - MARGIN, (number + 1) * SEGMENT + MARGIN
        samples = np.zeros((stop - start) * self.rate_hz, np.float32)
        if self.end is not None and self.end <= start:
            return samples
        for first, piece in self._stretches(start - SETTLE, stop):
            low = first - start * self.rate_hz
            kept = piece[max(0, -low) : max(0, len(samples) - low)]
            samples[max(0, low) : max(0, low) + len(kept)] = kept
        return samples

    def _stretches(self, start: int, stop: int) -> Iterator[tuple[int, np.ndarray]]:
        """(number of the first sample, samples) of what follows on each other without a break.

        A container's clock may be coarser than a sample, so a stretch lies where its stamps put it on average.
        """
        mixed = _Mixer(self.rate_hz)
        pieces: list[np.ndarray] = []
        firsts: list[float] = []  # where the stretch begins, as each of its pieces has it
        length = 0
        for frame in self._frames(start, stop):
            seconds, piece = _seconds(frame), mixed.of(frame)
            first = firsts[0] if seconds is None and firsts else (seconds or 0.0) * self.rate_hz - length
            if firsts and abs(first - firsts[0]) > LOST * self.rate_hz:
                yield round(float(np.mean(firsts))), np.concatenate(pieces)
                pieces, firsts, first, length = [], [], first + length, 0
            pieces.append(piece)
            firsts.append(first)
            length += len(piece)
        if firsts:
            yield round(float(np.mean(firsts))), np.concatenate(pieces)

    def _frames(self, start: int, stop: int) -> Iterator[AudioFrame]:
        """What a fresh decoder makes of the packets between these seconds, from whichever seek leads before them."""
        for earlier in (*SEEK_EARLIER, None) if self.seekable else (None,):
            with _opened(self.path) as container:
                stream = container.streams[self.stream]
                seek = None if earlier is None or start - earlier <= self.first else start - earlier
                try:
                    if seek is not None:
                        container.seek(seek * av.time_base)
                    packets = _packets(container, stream)
                    first = next(packets, None)
                except av.error.FFmpegError:
                    continue
                if seek is not None and (first is None or first[0] > start):
                    continue
                yield from self._between(start, stop, stream, chain([first] if first else [], packets))
                return

    def _between(
        self, start: int, stop: int, stream: Any, packets: Iterator[tuple[float, av.Packet]]
    ) -> Iterator[AudioFrame]:
        """Notes the end of the sound if that comes before `stop`."""
        beyond = False

        def inside() -> Iterator[tuple[float, av.Packet]]:
            nonlocal beyond
            for seconds, packet in packets:
                if seconds >= stop:
                    beyond = True
                    return
                if seconds >= start:
                    yield seconds, packet

        end = float(start)
        for frame in _decoded(stream, inside()):
            end = max(end, (_seconds(frame) or end) + frame.samples / frame.sample_rate)
            yield frame
        if not beyond:
            self.end = end


def _clock_rises(index: VideoIndex) -> bool:
    """Whether a time means one place of the file: in joined recordings it may mean several."""
    dts = index.packet_dts[index.packet_dts != NO_TIME]
    return bool((np.diff(dts) * index.time_base[0] > -MARGIN * index.time_base[1]).all())


def _opened(path: str) -> InputContainer:
    try:
        return av.open(path, "r", options={"protocol_whitelist": "file"}, metadata_errors="replace")
    except av.error.FFmpegError as error:
        raise VideoError(f"the sound of {path} cannot be read ({error.strerror}): is the file still there?") from error


def _packets(container: InputContainer, stream: Any) -> Iterator[tuple[float, av.Packet]]:
    """(seconds, packet) up to the end of the sound, or to where its clock jumps back."""
    for other in container.streams:
        if other.index != stream.index:
            other.discard = Discard.all
    latest = -math.inf
    for packet in packets_of(container, stream):
        stamp = packet.pts if packet.pts is not None else packet.dts
        seconds = latest if stamp is None else float(stamp * packet.time_base)
        if seconds < latest - MARGIN:
            return
        latest = max(latest, seconds)
        yield seconds, packet


def _decoded(stream: Any, packets: Iterator[tuple[float, av.Packet]]) -> Iterator[AudioFrame]:
    """A packet that cannot be decoded costs its own sound and no more."""
    for _, packet in chain(packets, [(math.inf, None)]):  # None: what the decoder still holds
        with suppress(av.error.FFmpegError):
            yield from stream.codec_context.decode(packet)


def _seconds(frame: AudioFrame) -> float | None:
    return None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)


class _Mixer:
    """Pieces of sound to one channel of float32, by FFmpeg's weights for the layout that each piece has.

    To integers, because those it scales so that nothing clips; two equal channels stay what they are.
    """

    def __init__(self, rate_hz: int) -> None:
        self._rate_hz = rate_hz
        self._resamplers: dict[tuple[str, str, int], AudioResampler] = {}

    def of(self, frame: AudioFrame) -> np.ndarray:
        form = (frame.format.name, frame.layout.name, frame.sample_rate)
        if form not in self._resamplers:
            self._resamplers[form] = AudioResampler(format="s32", layout="mono", rate=self._rate_hz)
        mixed = [piece.to_ndarray()[0] for piece in self._resamplers[form].resample(frame)]
        return np.concatenate([np.zeros(0, np.int32), *mixed]).astype(np.float32) / np.float32(1 << 31)


def resample(samples: np.ndarray, rate_hz: int, wanted_hz: int) -> np.ndarray:
    """A segment with margins at one rate to the segment at another: float32, `SEGMENT * wanted_hz` samples."""
    if rate_hz != wanted_hz:
        import torch
        from torchaudio import functional

        samples = functional.resample(torch.from_numpy(samples), rate_hz, wanted_hz).numpy()
    return samples[MARGIN * wanted_hz : (MARGIN + SEGMENT) * wanted_hz].copy()

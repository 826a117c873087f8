"""Sound in files of our own: bells at known times, found again in the rows at the samples where they belong."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from films import overwrite

from streamsal import audio
from streamsal.audio import Moments, Recording, Sound, resample
from streamsal.index import VideoIndex, index_video
from streamsal.models.spec import AudioWindow
from streamsal.prepare import Request, make_plan

FPS = 5
RATE = 22050
WINDOW = AudioWindow(rate_hz=RATE, samples=35280, past=3, future=2)  # 6 frames of 0.2 s: 26460 samples
LEVEL = 0.5
BELLS = (1.3, 16.1, 30.9, 33.5)  # seconds; the last two in the second segment


def bells(seconds: np.ndarray) -> np.ndarray:
    """Smooth enough that no codec and no rate moves its top."""
    return sum(LEVEL * np.exp(-((400 * (seconds - bell)) ** 2)) for bell in BELLS)  # type: ignore[return-value]


def write(
    path: Path,
    codec: str | None,
    rate: int = 48_000,
    *,
    layout: str = "mono",
    seconds: float = 35,
    begin: float = 0,
    n_frames: int = 175,
    frame_pts: Callable[[int], int] = lambda number: 200 * number,
    sound: Callable[[np.ndarray], np.ndarray] = bells,
    gop: int = 10,
    lost: range = range(0),
) -> VideoIndex:
    """Small pictures at `frame_pts` milliseconds, and `sound` in all channels from second `begin` on, but for the
    packets that begin in the seconds `lost`."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("mpeg4", rate=1000, options={"threads": "1"})
        video.width = video.height = 32
        video.codec_context.time_base = Fraction(1, 1000)
        video.codec_context.gop_size = gop
        track = container.add_stream(codec, rate=rate, layout=layout) if codec else None
        container.start_encoding()
        packets = [packet for number in range(n_frames) for packet in _picture(video, frame_pts(number))]
        packets += list(video.encode(None))
        for number, packet in enumerate(packets):
            packet.duration = frame_pts(number + 1) - frame_pts(number)
        if track is not None:
            encoded = _encoded(track, rate, layout, begin, sound(begin + np.arange(int(seconds * rate)) / rate))
            packets += [packet for packet in encoded if packet.pts * packet.time_base // 1 not in lost]
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return index_video(path)


def _picture(video, pts: int):
    picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")
    picture.pts, picture.time_base = pts, Fraction(1, 1000)
    return video.encode(picture)


def _encoded(track, rate: int, layout: str, begin: float, samples: np.ndarray) -> list[av.Packet]:
    form, packets = track.codec_context.format.name, []
    convert = av.AudioResampler(format=form, layout=layout, rate=rate)
    channels = len(av.AudioLayout(layout).channels)
    size = track.codec_context.frame_size or 1024
    for first in range(0, len(samples), size):
        piece = np.repeat(samples[None, first : first + size], channels, axis=0).astype(np.float32)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(piece), format="fltp", layout=layout)
        frame.sample_rate, frame.time_base = rate, Fraction(1, rate)
        frame.pts = round(begin * rate) + first
        for ready in convert.resample(frame):
            packets += track.encode(ready)
    return packets + list(track.encode(None))


def found(index: VideoIndex, bell: float, window: AudioWindow = WINDOW) -> tuple[float, float]:
    """(samples by which the bell is late, its height) in the row of the frame nearest to it."""
    frame = int(np.abs(index.pts_seconds - bell).argmin())
    row = Sound.of(index, window).row(frame)
    start, stop = Moments.of(index).span(window, frame)
    length = round(stop * RATE) - round(start * RATE)
    first = (window.samples - length) // 2
    assert not row[:first].any() and not row[first + length :].any()
    return first + (bell - start) * RATE - row.argmax(), float(row.max())


# Matroska counts milliseconds, so by half of one it misplaces what begins between them.
MILLISECOND = 0.5e-3 * RATE + 1


@pytest.mark.parametrize(
    ("file", "codec", "rate", "layout", "tolerance"),
    [
        ("a.mov", "pcm_s16le", 22_050, "mono", 1),
        ("a.mp4", "aac", 44_100, "stereo", 1),
        ("a.mp4", "aac", 48_000, "5.1", 1),
        ("a.mp4", "libmp3lame", 44_100, "stereo", 1),
        ("a.mp4", "libopus", 48_000, "mono", 2),
        ("a.mkv", "aac", 22_050, "mono", MILLISECOND),
        ("a.mkv", "libopus", 48_000, "stereo", MILLISECOND),
        ("a.mkv", "flac", 48_000, "stereo", 1),
        ("a.mkv", "ac3", 48_000, "5.1", MILLISECOND),
        ("a.mkv", "pcm_s16le", 44_100, "stereo", MILLISECOND),
        ("odd.mov", "pcm_s16le", 22_049, "stereo", 2 * MILLISECOND),
    ],
)
def test_a_bell_is_heard_when_it_rings(
    tmp_path: Path, file: str, codec: str, rate: int, layout: str, tolerance: float
) -> None:
    index = write(tmp_path / file, codec, rate, layout=layout)
    for bell in BELLS:
        late, height = found(index, bell)
        assert abs(late) <= tolerance
        assert height == pytest.approx(LEVEL, rel=0.08)


@pytest.mark.parametrize("begin", [0.7, 0.0])
@pytest.mark.parametrize("file", ["late.mp4", "late.mkv"])
def test_sound_and_picture_share_one_clock_wherever_each_begins(tmp_path: Path, file: str, begin: float) -> None:
    late_pictures = write(
        tmp_path / file, "aac", begin=begin, frame_pts=lambda number: 400 + 200 * number, n_frames=100, seconds=18
    )
    assert late_pictures.pts_seconds[0] == pytest.approx(0.4)
    for bell in BELLS[:2]:
        assert abs(found(late_pictures, bell)[0]) <= 2 * MILLISECOND  # MP4 writes a late start in whole milliseconds


def test_frames_of_unequal_length_hear_their_own_time(tmp_path: Path) -> None:
    index = write(tmp_path / "vfr.mkv", "flac", frame_pts=lambda number: 150 * number + 4 * (number * number % 11))
    assert index.variable_rate
    for bell in BELLS[:2]:
        late, height = found(index, bell)
        assert abs(late) <= 1
        assert height == pytest.approx(LEVEL, rel=0.02)


def test_outside_the_sound_there_is_silence(tmp_path: Path) -> None:
    index = write(tmp_path / "short.mov", "pcm_s16le", rate=RATE, begin=2, seconds=3, n_frames=350, sound=np.ones_like)
    sound, heard = Sound.of(index, WINDOW), []
    for frame in range(index.n_frames):
        start, stop = Moments.of(index).span(WINDOW, frame)
        row = sound.row(frame)
        inside = max(0.0, min(stop, 5) - max(start, 2)) * RATE
        assert abs(np.count_nonzero(row) - inside) <= 2
        heard.append(row.any())
    assert sum(heard) == 21  # windows that reach into seconds 2 ... 5
    longer = write(tmp_path / "long.mov", "pcm_s16le", rate=RATE, seconds=9, n_frames=20, sound=np.ones_like)
    assert np.count_nonzero(Sound.of(longer, WINDOW).row(19)) == round(0.2 * 4 * RATE)


@pytest.mark.parametrize("file", ["hole.mkv", "hole.mp4"])
def test_a_hole_is_silence_and_moves_nothing_behind_it(tmp_path: Path, file: str) -> None:
    index = write(tmp_path / file, "aac", lost=range(2, 31))
    for bell in BELLS:
        late, height = found(index, bell)
        assert (height < 1e-3) if 2 < bell < 31 else (abs(late) <= MILLISECOND and height > 0.4)


def test_a_far_key_frame_costs_time_and_not_a_bit(tmp_path: Path) -> None:
    """Matroska seeks by pictures alone; with one key frame in all it lands at the file's beginning."""
    far, near = (write(tmp_path / f"{gop}.mkv", "aac", sound=noise, gop=gop) for gop in (1000, 10))
    for frame in (151, 160, 174):
        np.testing.assert_array_equal(Sound.of(far, WINDOW).row(frame), Sound.of(near, WINDOW).row(frame))


def test_behind_a_jump_of_the_clock_there_is_silence(tmp_path: Path) -> None:
    """Two recordings, one behind the other, both from time 0; a seek to second 33 could lead into either."""
    parts = [
        write(tmp_path / "1.ts", "aac", sound=noise),
        write(tmp_path / "2.ts", "aac", sound=lambda seconds: noise(seconds)[::-1], seconds=70, n_frames=350),
    ]
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join(Path(part.path).read_bytes() for part in parts))
    index = index_video(joined)
    assert index.n_frames == 525
    of_joined, of_first = Sound.of(index, WINDOW), Sound.of(parts[0], WINDOW)
    for frame in (100, 171):
        np.testing.assert_array_equal(of_joined.row(frame), of_first.row(frame))
    assert not any(of_joined.row(frame).any() for frame in (182, 520))


def test_no_track_is_silence(tmp_path: Path) -> None:
    row = Sound.of(write(tmp_path / "mute.mp4", None), WINDOW).row(7)
    assert row.shape == (WINDOW.samples,) and row.dtype == np.float32 and not row.any()


def test_planning_says_once_where_a_model_will_hear_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    mute, heard = (
        write(tmp_path / f"{name}.mp4", codec, seconds=1, n_frames=5) for name, codec in (("m", None), ("h", "aac"))
    )
    for model in ("stavis", "stavis_visual"):
        request = Request(model=model, weights="synthetic")
        for _ in range(2):
            make_plan([mute.path, heard.path], tmp_path / model, request, say=said.append)
    assert [line for line in said if "silence" in line] == ["m.mp4: it has no sound, so stavis hears silence"]


def noise(seconds: np.ndarray) -> np.ndarray:
    return np.random.default_rng(5).uniform(-0.5, 0.5, len(seconds))


@pytest.mark.parametrize(("file", "codec"), [("n.mp4", "aac"), ("n.mkv", "libopus"), ("n.mp4", "libmp3lame")])
def test_rows_are_the_same_bits_in_1_and_7_shards(tmp_path: Path, file: str, codec: str) -> None:
    index = write(tmp_path / file, codec, rate=48_000, sound=noise)
    wanted = range(0, index.n_frames, 5)

    def rows(n_shards: int) -> np.ndarray:
        shards = [Sound.of(index, WINDOW) for _ in range(n_shards)]
        return np.stack([shards[n_shards * frame // index.n_frames].row(frame) for frame in wanted])

    whole = rows(1)
    assert whole.any(1).all()
    np.testing.assert_array_equal(rows(7), whole)


def test_memory_holds_the_segments_of_one_window(tmp_path: Path) -> None:
    index = write(tmp_path / "n.mov", "pcm_s16le", rate=8000, seconds=120, n_frames=600)
    sound = Sound.of(index, WINDOW)
    for frame in range(0, index.n_frames, 2):
        sound.row(frame)
        assert len(sound._segments) <= 2


def test_a_broken_packet_costs_its_own_sound(tmp_path: Path) -> None:
    path = tmp_path / "n.mkv"
    index = write(path, "flac", rate=RATE, sound=noise)
    frame = 75
    whole = Sound.of(index, WINDOW).row(frame)
    with av.open(str(path)) as container:
        packet = next(packet for packet in container.demux(audio=0) if packet.pts > 15_000)
    overwrite(path, path.read_bytes().index(bytes(packet)), b"\x55" * packet.size)
    row = Sound.of(index_video(path), WINDOW).row(frame)
    start, stop = Moments.of(index).span(WINDOW, frame)
    lost = (WINDOW.samples - round((stop - start) * RATE)) // 2 + round((packet.pts / 1000 - start) * RATE)
    length = packet.duration * RATE // 1000
    assert not row[lost + 12 : lost + length - 12].any()
    np.testing.assert_array_equal(row[: lost - 12], whole[: lost - 12])
    np.testing.assert_array_equal(row[lost + length + 12 :], whole[lost + length + 12 :])


def test_taper_and_scale_shape_the_sound_over_its_own_length(tmp_path: Path) -> None:
    index = write(tmp_path / "one.mov", "pcm_s16le", rate=RATE, sound=np.ones_like)
    window = AudioWindow(rate_hz=RATE, samples=35280, past=3, future=2, taper="hann", scale=256)
    for frame, n_frames in ((50, 6), (0, 3)):  # the first frame of the video has three, and half of what is before it
        row = Sound.of(index, window).row(frame)
        length = round(0.2 * n_frames * RATE)
        silent = round(0.1 * RATE) if frame == 0 else 0
        wanted = 256 * np.hanning(length) * (1 - 2**-15)
        wanted[:silent] = 0
        first = (35280 - length) // 2
        np.testing.assert_allclose(row[first : first + length], wanted, atol=0.02)


def test_a_sound_longer_than_the_row_is_cut_in_its_middle(tmp_path: Path) -> None:
    index = write(tmp_path / "b.mov", "pcm_s16le", rate=RATE)
    short = AudioWindow(rate_hz=RATE, samples=1000, past=3, future=2)
    long = Sound.of(index, WINDOW).row(80)
    middle = (len(long) - 1000) // 2
    np.testing.assert_array_equal(Sound.of(index, short).row(80), long[middle : middle + 1000])


def test_counted_rows_are_index_arithmetic_at_the_file_s_rate(tmp_path: Path) -> None:
    """As published: the n-th frame from 1 has samples (n - 1) r / f -+ r / 2f, truncated, the last one taken, too."""
    rate, window = 44_100, AudioWindow(rate_hz=None, samples=70560, past=3, future=2, taper="hann", scale=256)
    samples = np.round(32767 * noise(np.arange(rate * 34)))
    index = write(tmp_path / "n.mov", "pcm_s16le", rate=rate, seconds=34, sound=lambda _: samples / 32767)
    sound = Sound.of(index, window)
    for frame in (0, 2, 100, 167, 171, 174):  # the sound ends in the middle of frame 170
        first, last = max(0, frame - 3), min(174, frame + 2)
        start = int(max(0, first * rate / FPS - rate / FPS / 2))
        stop = int(min(len(samples), abs(last * rate / FPS + rate / FPS / 2)))
        heard = samples[start : stop + 1] / 32768
        wanted, low = np.zeros(70560), (70560 - len(heard)) // 2
        wanted[low : low + len(heard)] = 256 * heard * np.hanning(len(heard))
        np.testing.assert_allclose(sound.row(frame), wanted, atol=0.01)


@pytest.mark.parametrize("rate", [8000, 44_100, 48_000, 192_000])
def test_resampling_keeps_a_tone_and_drops_what_the_new_rate_cannot_hold(rate: int) -> None:
    seconds = np.arange((audio.SEGMENT + 2) * rate) / rate - audio.MARGIN
    kept = resample(np.sin(2 * np.pi * 1000 * seconds).astype(np.float32), rate, RATE)
    np.testing.assert_allclose(kept, np.sin(2 * np.pi * 1000 * np.arange(len(kept)) / RATE), atol=2e-3)
    if rate > 40_000:
        assert np.abs(resample(np.sin(2 * np.pi * 15_000 * seconds).astype(np.float32), rate, RATE)).max() < 0.01


@pytest.mark.parametrize("rate_hz", [RATE, None])
def test_sound_in_memory_is_heard_like_a_file_s(tmp_path: Path, rate_hz: int | None) -> None:
    """But for the last step of 16 bits."""
    samples = noise(np.arange(35 * 48_000))
    index = write(tmp_path / "n.mov", "pcm_s16le", sound=lambda _: samples)
    window = AudioWindow(rate_hz=rate_hz, samples=70560, past=3, future=2, taper="hann")
    recording = Recording(samples=samples, rate_hz=48_000)
    of_file, of_memory = Sound.of(index, window), Sound(recording, Moments.of(index), window)
    for frame in (0, 3, 150, 174):
        np.testing.assert_allclose(of_memory.row(frame), of_file.row(frame), atol=1e-4)

from __future__ import annotations

import resource
from collections.abc import Callable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.container import InputContainer
from talk import START, TAGS, TICK, write_talk

from streamsal import mux
from streamsal.errors import StreamsalError, UsageError, WriteError
from streamsal.mux import Encoder, SegmentWriter, Timeline, join

pytest_plugins = ("small_disk",)

ENCODER = Encoder(
    name="libx264",
    options={"preset": "veryfast", "crf": "20", "x264-params": "open-gop=0"},
    width=96,
    height=64,
    pixel_format="yuv420p",
    time_base=TICK,
    frame_rate=Fraction(22),
    color_tags=TAGS,
    threads=1,
)
N_FRAMES = 40


@pytest.fixture(scope="module")
def talk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_talk(tmp_path_factory.mktemp("talk") / "talk.mp4", N_FRAMES, subtitles="mov_text")


def display_times(video: Path) -> np.ndarray:
    with av.open(str(video)) as film:
        return np.sort([packet.pts for packet in film.demux(video=0) if packet.size])


def write_segments(folder: Path, pts: np.ndarray, borders: list[int], encoder: Encoder = ENCODER) -> list[Path]:
    """Picture k is gray of luma 20 + 5 k."""
    folder.mkdir(exist_ok=True)
    paths = []
    for start, stop in pairwise(borders):
        paths.append(folder / f"{start:04}.mp4")
        with SegmentWriter(paths[-1], encoder) as segment:
            for k in range(start, stop):
                picture = av.VideoFrame(encoder.width, encoder.height, encoder.pixel_format)
                for plane, value in zip(picture.planes, (20 + 5 * k, 128, 128), strict=True):
                    plane.update(bytes([value]) * plane.buffer_size)
                segment.write(picture, int(pts[k] - pts[start]))
    return paths


def whole(pts: np.ndarray) -> Timeline:
    return Timeline(pts=pts, last_duration=512, time_base=TICK)


def packets(path: Path, kind: str) -> list[tuple[bytes, int | None, int | None, int | None, Fraction]]:
    with av.open(str(path)) as film:
        stream = next(stream for stream in film.streams if stream.type == kind)
        return [(bytes(p), p.pts, p.dts, p.duration, p.time_base) for p in film.demux(stream) if p.size]


def chapters(film: InputContainer) -> list[tuple[Fraction, Fraction, str]]:
    found = []
    for chapter in film.chapters():
        unit = chapter["time_base"] or Fraction(0)
        found.append((chapter["start"] * unit, chapter["end"] * unit, chapter["metadata"]["title"]))
    return found


def pictures(path: Path) -> list[tuple[int, int]]:
    """(pts, number) of every decoded picture."""
    with av.open(str(path)) as film:
        found = []
        for picture in film.decode(video=0):
            luma = np.frombuffer(picture.planes[0], np.uint8).reshape(64, -1)[:, :96].mean()
            found.append((picture.pts, round((luma - 20) / 5)))
        return found


@pytest.mark.parametrize("borders", [[0, 40], [0, 13, 14, 40]])
def test_every_picture_keeps_its_display_time_and_order(talk: Path, tmp_path: Path, borders: list[int]) -> None:
    pts = display_times(talk)
    join(write_segments(tmp_path / "s", pts, borders), whole(pts), talk, 0, tmp_path / "film.mp4")
    assert pictures(tmp_path / "film.mp4") == [(int(time), k) for k, time in enumerate(pts)]


def test_sound_and_subtitles_are_the_same_packets_at_the_same_times(talk: Path, tmp_path: Path) -> None:
    pts = display_times(talk)
    join(write_segments(tmp_path / "s", pts, [0, 20, 40]), whole(pts), talk, 0, tmp_path / "film.mp4")
    for kind in ("audio", "subtitle"):
        assert packets(tmp_path / "film.mp4", kind) == packets(talk, kind)


def test_titles_languages_chapters_start_and_color_tags_are_kept(talk: Path, tmp_path: Path) -> None:
    pts = display_times(talk)
    join(write_segments(tmp_path / "s", pts, [0, 40]), whole(pts), talk, 0, tmp_path / "film.mp4")
    with av.open(str(talk)) as before, av.open(str(tmp_path / "film.mp4")) as after:
        assert after.metadata["title"] == before.metadata["title"] == "A talk"
        assert chapters(after) == chapters(before) == [(0, 1, "Question"), (1, Fraction(19, 10), "Answer")]
        kept = [stream for stream in after.streams if stream.type != "data"]  # MP4 has a track for its chapters
        for old, new in zip(before.streams, kept, strict=False):
            for name in ("type", "metadata", "disposition", "time_base", "start_time"):
                assert getattr(new, name) == getattr(old, name), (name, new)
        assert after.streams.video[0].start_time == START
        assert after.streams.video[0].duration == before.streams.video[0].duration
        context = after.streams.video[0].codec_context
        assert {tag: getattr(context, tag) for tag in TAGS} == TAGS


def test_display_matrix_is_kept(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "turned.mp4", 6, rotation=-90)
    pts = display_times(source)
    with av.open(str(source)) as film:
        matrix = np.frombuffer(bytes(next(film.decode(video=0)).side_data["DISPLAYMATRIX"]), np.int32).tolist()
    output = tmp_path / "film.mp4"
    join(write_segments(tmp_path / "s", pts, [0, 6]), whole(pts), source, 0, output, display_matrix=matrix)
    with av.open(str(output)) as film:
        assert next(film.decode(video=0)).rotation == -90


def test_streams_that_the_container_cannot_hold_are_left_out_with_one_line_each(talk: Path, tmp_path: Path) -> None:
    pts = display_times(talk)
    notes: list[str] = []
    join(write_segments(tmp_path / "s", pts, [0, 40]), whole(pts), talk, 0, tmp_path / "film.mkv", note=notes.append)
    assert notes == ["stream 2 (subtitle) is left out: matroska cannot hold mov_text"]
    with av.open(str(tmp_path / "film.mkv")) as film:
        assert [stream.type for stream in film.streams] == ["video", "audio"]
        assert len(film.chapters()) == 2
    assert [data for data, *_ in packets(tmp_path / "film.mkv", "audio")] == [d for d, *_ in packets(talk, "audio")]


def test_text_subtitles_stay_in_matroska(tmp_path: Path) -> None:
    source = write_talk(tmp_path / "talk.mkv", 12, subtitles="subrip")
    pts = display_times(source)
    timeline = Timeline(pts=pts, last_duration=40, time_base=Fraction(1, 1000))
    join(write_segments(tmp_path / "s", pts, [0, 12]), timeline, source, 0, tmp_path / "film.mkv")
    assert packets(tmp_path / "film.mkv", "subtitle") == packets(source, "subtitle")
    assert [pts for pts, _ in pictures(tmp_path / "film.mkv")] == pts.tolist()


def test_a_part_of_a_film_begins_at_zero_with_its_own_sound_and_chapters(talk: Path, tmp_path: Path) -> None:
    pts = display_times(talk)
    first, last = 10, 30
    begin, end = int(pts[first]), int(pts[last])
    timeline = Timeline(
        pts=pts[first:last] - begin,
        last_duration=512,
        time_base=TICK,
        start_seconds=float(begin * TICK),
        stop_seconds=float(end * TICK),
        shift_seconds=begin * TICK,
    )
    join(write_segments(tmp_path / "s", pts, [first, last]), timeline, talk, 0, tmp_path / "film.mp4")
    assert pictures(tmp_path / "film.mp4") == [(int(pts[k] - begin), k) for k in range(first, last)]
    heard = [p for p in packets(talk, "audio") if begin * TICK <= p[1] * p[4] < end * TICK]
    kept = packets(tmp_path / "film.mp4", "audio")
    assert [p[0] for p in kept] == [p[0] for p in heard]
    assert [p[1] for p in kept] == [p[1] - round(begin * TICK * 48_000) for p in heard]
    with av.open(str(tmp_path / "film.mp4")) as film:
        (start, change, _), (_, stop, _) = chapters(film)
    expected = [0, 1 - begin * TICK, (end - begin) * TICK]
    assert [start, change, stop] == pytest.approx([float(seconds) for seconds in expected], abs=1e-3)


def test_segments_of_different_settings_are_not_joined(talk: Path, tmp_path: Path) -> None:
    pts = display_times(talk)
    other = mux.Encoder(
        **{name: getattr(ENCODER, name) for name in mux.Encoder.__slots__} | {"pixel_format": "yuv444p"}
    )
    segments = write_segments(tmp_path / "a", pts, [0, 20]) + write_segments(tmp_path / "b", pts, [20, 40], other)
    with pytest.raises(StreamsalError, match="other settings"):
        join(segments, whole(pts), talk, 0, tmp_path / "film.mp4")
    assert not (tmp_path / "film.mp4").exists()


def test_sound_whose_clock_goes_back_follows_on(tmp_path: Path) -> None:
    clock = mux._RisingClock(step=1)
    times = []
    for pts in (0, 1024, 2048, -500_000, -498_976, -498_977):
        packet = av.Packet(b"x")
        packet.time_base, packet.pts, packet.dts, packet.duration = Fraction(1, 48_000), pts, pts, 1024
        clock.set(packet, 0)
        times.append(packet.pts)
    assert times == [0, 1024, 2048, 3072, 4096, 4097]


def test_a_full_disk_is_a_write_error_and_leaves_nothing(
    talk: Path, tmp_path: Path, small_disk: Callable[[str], Path]
) -> None:
    pts = display_times(talk)
    segments = write_segments(tmp_path / "s", pts, [0, 40])
    disk = small_disk("size=16k")
    with pytest.raises(WriteError, match="disk is full"):
        join(segments, whole(pts), talk, 0, disk / "film.mp4")
    assert list(disk.iterdir()) == []


def test_a_segment_beyond_the_file_limit_is_a_write_error(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = np.random.default_rng(0)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        with (
            pytest.raises(WriteError, match="larger than allowed"),
            SegmentWriter(tmp_path / "s.mp4", ENCODER) as segment,
        ):
            for k in range(60):
                picture = av.VideoFrame(96, 64, "yuv420p")
                picture.planes[0].update(noise.bytes(picture.planes[0].buffer_size))
                segment.write(picture, 512 * k)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_container_is_chosen_by_name_and_others_are_refused() -> None:
    assert mux.container_format(Path("film.MKV")) == "matroska"
    with pytest.raises(UsageError, match=r"\.mp4"):
        mux.container_format(Path("film.avi"))


def test_an_encoder_without_its_hardware_does_not_open() -> None:
    assert mux.opens(ENCODER)
    assert not mux.opens(
        mux.Encoder(
            name="libx264",
            options={},
            width=97,
            height=64,
            pixel_format="yuv420p",
            time_base=TICK,
            frame_rate=Fraction(25),
        )
    )

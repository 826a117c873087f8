from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from itertools import pairwise

import av
import numpy as np
import pytest
from corpus import CASES, encode, read_number

from streamsal import seek
from streamsal.decode import VideoReader, decode, plane_checksum, verify
from streamsal.errors import PlanMismatch, VideoError
from streamsal.index import index_video

SOUND = [name for name, case in CASES.items() if case.kind in ("ok", "odd")]
DAMAGED = [name for name, case in CASES.items() if case.kind == "damaged"]

# So short that every file of the corpus has several canonical runs.
SPACING = 8


def sequential(path, stream):
    """Checksums of what plain PyAV gives on one thread, in the order in which it gives them."""
    with av.open(str(path)) as container:
        container.streams[stream].codec_context.thread_count = 1
        return [plane_checksum(picture) for picture in container.decode(container.streams[stream])]


def read(index, frames, **options):
    """(number, hole, checksum) of each frame."""
    with VideoReader(index, **options) as reader:
        return [
            (frame.index, frame.hole, frame.picture and plane_checksum(frame.picture)) for frame in reader.read(frames)
        ]


def borders(index):
    """Before, at and after an entry point in the middle, and one frame from each end."""
    middle = int(index.entry_frame[len(index.entry_frame) // 2])
    return sorted({at for at in (1, middle - 1, middle, middle + 1, index.n_frames - 1) if 0 < at < index.n_frames})


@pytest.mark.parametrize("name", SOUND)
def test_any_shard_gives_the_pictures_of_a_sequential_decode(corpus, name):
    index = index_video(corpus.path(name), entry_spacing=SPACING)
    truth = [(n, False, crc) for n, crc in enumerate(sequential(index.path, index.stream))]
    assert len(truth) == index.n_frames
    cuts = [0, *borders(index), index.n_frames]
    assert [frame for a, b in pairwise(cuts) for frame in read(index, range(a, b))] == truth


@pytest.mark.parametrize("name", SOUND)
def test_the_pixels_say_the_frame_number(corpus, name):
    numbers = {
        "edit_skip": range(7, 60),
        "head_cut": range(12, 60),
        "still": [0] * 48,
    }
    frames = decode(corpus.path(name), rotate=False)
    assert [read_number(frame.rgb) for frame in frames] == list(numbers.get(name, range(corpus.n_pictures(name))))


@pytest.mark.parametrize("name", DAMAGED)
def test_shards_of_a_damaged_video_agree(corpus, name):
    index = index_video(corpus.path(name), entry_spacing=SPACING)
    whole = read(index, range(index.n_frames))
    assert [number for number, _, _ in whole] == list(range(index.n_frames))
    for n_parts in (2, 7):
        parts = np.array_split(np.arange(index.n_frames), n_parts)
        assert [frame for part in parts for frame in read(index, part.tolist())] == whole


def test_a_hole_keeps_its_number_and_shows_the_picture_before_it(corpus):
    index = index_video(corpus.path("truncated_faststart"))
    with VideoReader(index) as reader:
        before, hole, after = reader.read([32, 33, 34])
    assert [frame.hole for frame in (before, hole, after)] == [False, True, False]
    assert hole.index == 33 and hole.pts_seconds == pytest.approx(33 / 25)
    assert hole.rgb is None
    assert plane_checksum(hole.picture) == plane_checksum(before.picture)
    assert read_number(after.rgb) == 35  # the packet of picture 34 is not in the file at all, so no frame stands for it


@pytest.mark.parametrize("name", ["h264_open", "h264_open_ts", "vp9", "mpeg2", "mpeg4_packed", "flipped_packets"])
def test_several_workers_give_what_one_gives(corpus, name):
    index = index_video(corpus.path(name), entry_spacing=SPACING)
    alone = read(index, range(3, index.n_frames - 2))
    assert read(index, range(3, index.n_frames - 2), workers=2) == alone
    # No room at all: each worker may hold one picture, and the frame whose turn it is must still come through.
    assert read(index, range(3, index.n_frames - 2), workers=3, ahead_bytes=0) == alone


@pytest.mark.parametrize("name", ["h264_open", "hevc_open", "mpeg2"])
def test_several_threads_give_what_one_gives(corpus, name):
    index = index_video(corpus.path(name), entry_spacing=SPACING)
    assert read(index, range(index.n_frames), threads=3) == read(index, range(index.n_frames))


def decoding_threads():
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("streamsal-ahead")]


def test_workers_stop_when_reading_ends_early(corpus):
    index = index_video(corpus.path("h264_closed"), entry_spacing=SPACING)
    with VideoReader(index, workers=2, ahead_bytes=0) as reader:  # no room: they cannot be through by themselves
        frames = reader.read(range(index.n_frames))
        assert next(frames).index == 0
        assert decoding_threads()
        frames.close()
        assert not decoding_threads()
        assert [frame.index for frame in reader.read([5, 30, 50])] == [5, 30, 50]


def test_an_error_in_a_worker_reaches_the_reader(tmp_path):
    path, index = write_uncompressed(tmp_path)
    damage(path, len(path.read_bytes()) // 2)
    with VideoReader(index, workers=2) as reader, pytest.raises(PlanMismatch):
        list(reader.read(range(index.n_frames)))
    assert not decoding_threads()


@pytest.mark.parametrize("name", ["h264_open", "hevc_open_mkv", "mpeg2", "ts_jump_back", "h264_raw", "gray_ffv1"])
def test_sparse_frames_are_those_of_a_full_read(corpus, name):
    index = index_video(corpus.path(name), entry_spacing=SPACING)
    whole = read(index, range(index.n_frames))
    for frames in ([0], [index.n_frames - 1], [3, 4, 20, 25], range(2, index.n_frames, 7)):
        assert read(index, frames) == [whole[number] for number in frames]


def test_one_reader_reads_again_and_backwards(corpus):
    index = index_video(corpus.path("h264_open"), entry_spacing=SPACING)
    whole = read(index, range(index.n_frames))
    with VideoReader(index) as reader:
        for number in (50, 7, 7, 59, 0, 23, 24):
            (frame,) = reader.read([number])
            assert (number, False, plane_checksum(frame.picture)) == whole[number]


def test_frames_must_ascend_and_exist(corpus):
    with VideoReader(index_video(corpus.path("two"))) as reader:
        for frames in ([1, 0], [0, 0], [-1], [2]):
            with pytest.raises(ValueError, match="ascend"):
                list(reader.read(frames))
        assert list(reader.read([])) == []


def test_rotation_is_applied_unless_declined(corpus):
    turned = next(decode(corpus.path("rotated90"))).rgb
    stored = next(decode(corpus.path("rotated90"), rotate=False)).rgb
    assert turned.shape == (160, 96, 3)
    assert np.array_equal(turned, np.rot90(stored))


def test_a_picture_of_another_size_is_brought_to_the_first_one(corpus):
    assert {frame.rgb.shape for frame in decode(corpus.path("resize"))} == {(96, 160, 3)}


def test_a_range_is_taken_as_python_takes_it(corpus):
    path = corpus.path("h264_closed")
    index = index_video(path)
    assert [frame.index for frame in decode(path, 10, 14, index=index)] == [10, 11, 12, 13]
    assert [frame.index for frame in decode(path, 57, index=index, workers=2)] == [57, 58, 59]


def test_times_come_from_the_index(corpus):
    path = corpus.path("vfr")
    index = index_video(path)
    assert [frame.pts_seconds for frame in decode(path, index=index)] == index.pts_seconds.tolist()


@pytest.mark.parametrize("workers", [1, 2])
def test_a_closed_reader_gives_no_more(corpus, workers):
    index = index_video(corpus.path("h264_open"), entry_spacing=SPACING)
    with VideoReader(index, workers=workers) as reader:
        frames = reader.read(range(index.n_frames))
        first = next(frames)
    assert list(frames) == []
    assert read_number(first.rgb) == 0  # pictures outlive their decoder


def test_a_second_read_ends_the_first(corpus):
    index = index_video(corpus.path("h264_open"), entry_spacing=SPACING)
    with VideoReader(index) as reader:
        first = reader.read(range(index.n_frames))
        assert next(first).index == 0
        assert [frame.index for frame in reader.read([40, 41])] == [40, 41]
        assert list(first) == []


def write_uncompressed(folder):
    """A video so large that the middle is in neither the first nor the last MiB."""
    path = folder / "large.avi"
    encode(path, "rawvideo", n=150)
    return path, index_video(path)


def damage(path, at):
    """Change one byte, and nothing that a look at the file's facts would show."""
    stat = path.stat()
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)[0]
        file.seek(at)
        file.write(bytes([byte ^ 1]))
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("skip_bytes", [seek.SKIP_BYTES, -1], ids=["reading on", "after a seek"])
def test_a_change_that_only_a_packet_shows_is_found_and_named(tmp_path, monkeypatch, skip_bytes):
    monkeypatch.setattr(seek, "SKIP_BYTES", skip_bytes)
    path, index = write_uncompressed(tmp_path)
    damage(path, int(index.packet_pos[70]) + 1000)
    index.check_unchanged()
    with VideoReader(index) as reader:
        assert [frame.index for frame in reader.read(range(8))] == list(range(8))
        with pytest.raises(PlanMismatch, match=r"large\.avi has changed .*packet 70 \(frame 70\)"):
            list(reader.read(range(64, 80)))


def test_a_changed_file_is_refused_before_anything_is_decoded(corpus, tmp_path):
    path = tmp_path / "film.mp4"
    shutil.copy(corpus.path("h264_closed"), path)
    index = index_video(path)
    shutil.copy(corpus.path("h264_open"), path)
    with pytest.raises(PlanMismatch, match="has changed"):
        VideoReader(index)
    path.write_text("no video any more")
    with pytest.raises((PlanMismatch, VideoError)):
        VideoReader(index)


def test_a_forked_child_does_not_disturb_its_parent(corpus):
    index = index_video(corpus.path("h264_open"), entry_spacing=SPACING)
    whole = read(index, range(index.n_frames))
    with VideoReader(index) as reader:
        frames = reader.read(range(index.n_frames))
        mine = [next(frames) for _ in range(20)]
        child = os.fork()
        if child == 0:
            numbers = range(30, 50)
            theirs = [(f.index, f.hole, plane_checksum(f.picture)) for f in reader.read(numbers)]
            os._exit(0 if theirs == whole[30:50] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        mine += frames
    assert [(f.index, f.hole, plane_checksum(f.picture)) for f in mine] == whole


def test_verify_calls_a_sound_video_sound(corpus):
    report = verify(index_video(corpus.path("hevc_open"), entry_spacing=SPACING))
    assert report.ok and report.sound
    assert report.n_entries == 5


def test_verify_lists_holes_and_what_damage_changed(corpus):
    report = verify(index_video(corpus.path("truncated_faststart"), entry_spacing=SPACING))
    assert report.ok and not report.sound
    assert report.holes == (33,)
    report = verify(index_video(corpus.path("lost_packets"), entry_spacing=SPACING))
    assert report.ok and not report.sound
    assert report.differ_from_sequential and not report.differ_between_shards


def test_verify_finds_a_false_entry_point(corpus):
    index = index_video(corpus.path("h264_refresh"), entry_spacing=SPACING)
    false = replace(index, entry_frame=np.array([0, 20]), entry_packet=np.array([0, 20]))
    report = verify(false)
    assert not report.ok
    assert report.unproved_entries == (20,)

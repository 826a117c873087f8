from __future__ import annotations

import json
import os
import shutil

import numpy as np
import pytest
from corpus import CASES

from streamsal.errors import MissingInput, PlanMismatch
from streamsal.index import VideoIndex, index_video, summary

READABLE = [name for name, case in CASES.items() if case.kind != "reject"]

N_FRAMES = {"edit_skip": 53, "head_cut": 48, "lost_packets": 57, "truncated_mkv": 34, "truncated_faststart": 35}


@pytest.mark.parametrize("name", READABLE)
def test_every_shown_packet_is_a_frame(corpus, name):
    index = index_video(corpus.path(name))
    assert index.n_frames == N_FRAMES.get(name, corpus.n_pictures(name))
    assert index.stream == CASES[name].stream
    assert (np.diff(index.pts_seconds) >= 0).all()
    assert index.entry_frame[0] == index.entry_packet[0] == 0
    assert index.frame_packet[index.entry_frame[1:]].tolist() == index.entry_packet[1:].tolist()


@pytest.mark.parametrize("name", READABLE)
def test_numbers_come_from_packets_unless_packets_cannot_tell(corpus, name):
    reasons = {
        "h264_raw": "decoded: packets without presentation times",
        "still": "decoded: packets without presentation times",
        "dup_pts": "decoded: packets with equal presentation times",
        "mpeg4_bframes": "decoded: a packet of mpeg4 may hold no picture or two",
        "mpeg4_packed": "decoded: a packet of mpeg4 may hold no picture or two",
    }
    assert index_video(corpus.path(name)).trust == reasons.get(name, "packets")


def test_times_are_those_that_were_encoded(corpus):
    rng = np.random.default_rng(5)
    ticks = np.cumsum(rng.choice([1001, 500, 1, 9000, 2002], size=60))
    index = index_video(corpus.path("vfr"))
    assert index.pts.tolist() == ticks.tolist()
    assert index.pts_seconds.tolist() == (ticks / 30000).tolist()
    assert index.variable_rate
    assert index.frame_rate == pytest.approx(59 * 30000 / (ticks[-1] - ticks[0]))


@pytest.mark.parametrize("name", ["ts_jump_back", "ts_jump_forward"])
def test_joined_recordings_follow_one_another(corpus, name):
    index = index_video(corpus.path(name))
    assert index.segment.tolist() == [0] * 30 + [1] * 30
    assert np.diff(index.pts_seconds) == pytest.approx(np.full(59, 0.04))
    assert index.frame_rate == pytest.approx(25)


def test_times_start_where_the_container_says(corpus):
    assert index_video(corpus.path("edit_delay")).pts_seconds[0] == 2.0
    assert index_video(corpus.path("ts_offset")).pts_seconds[0] == pytest.approx(36000)


def test_a_single_frame_has_the_customary_rate(corpus):
    assert index_video(corpus.path("one")).frame_rate == 25.0


def test_rotation_is_known_and_the_displayed_size_follows_it(corpus):
    index = index_video(corpus.path("rotated90"))
    assert index.rotation == 90
    assert index.display_matrix is not None and len(index.display_matrix) == 9
    assert (index.width, index.height, index.display_width, index.display_height) == (160, 96, 96, 160)


def test_an_index_read_back_is_the_one_written(corpus, tmp_path):
    for name in ("h264_open", "rotated90", "longer_audio", "mpeg4_packed"):
        index = index_video(corpus.path(name))
        index.save(tmp_path / "index.npz")
        again = VideoIndex.load(tmp_path / "index.npz")
        assert index.differences(again) == []
        assert (again.path, again.mtime_ns, again.audio) == (index.path, index.mtime_ns, index.audio)
        again.check_unchanged()
    assert [file.name for file in tmp_path.iterdir()] == ["index.npz"]


def test_a_damaged_or_foreign_index_file_is_refused(corpus, tmp_path):
    path = tmp_path / "index.npz"
    with pytest.raises(MissingInput, match="plan again"):
        VideoIndex.load(path)
    index_video(corpus.path("one")).save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(PlanMismatch, match="damaged"):
        VideoIndex.load(path)
    np.savez(path, header=np.array(json.dumps({"format_version": 0})))
    with pytest.raises(PlanMismatch, match="another version of streamsal: plan a new run"):
        VideoIndex.load(path)


def test_a_copy_with_another_time_is_the_same_video_and_another_content_is_not(corpus, tmp_path):
    path = tmp_path / "copy.mp4"
    shutil.copy(corpus.path("h264_closed"), path)
    index = index_video(path)
    os.utime(path, ns=(1, 1))
    index.check_unchanged()
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(PlanMismatch, match="other content"):
        index.check_unchanged()
    path.write_bytes(data[:-1])
    with pytest.raises(PlanMismatch, match="bytes"):
        index.check_unchanged()
    path.unlink()
    with pytest.raises(MissingInput):
        index.check_unchanged()


def test_a_decoder_of_another_version_is_warned_of(corpus, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr("streamsal.index.versions", lambda: {"libavcodec": "1.2.3", "libavformat": "1.2.3"})
    index_video(corpus.path("one")).save(tmp_path / "index.npz")
    monkeypatch.undo()
    VideoIndex.load(tmp_path / "index.npz")
    assert "libavcodec 1.2.3" in caplog.text


def test_the_summary_is_json_and_counts_what_the_header_does_not(corpus):
    facts = json.loads(json.dumps(summary(index_video(corpus.path("edit_skip")))))
    assert (facts["frames"], facts["frames_header"], facts["hidden_packets"]) == (53, 60, 7)
    facts = json.loads(json.dumps(summary(index_video(corpus.path("longer_audio")))))
    assert [stream["codec"] for stream in facts["audio"]] == ["aac"]
    assert facts["duration_seconds"] == pytest.approx(2.4)


def test_progress_is_told_to_the_end(corpus):
    told = []
    index = index_video(corpus.path("h264_gop1000"), on_progress=lambda done, total: told.append((done, total)))
    assert told[-1] == (index.size, index.size)
    assert told == sorted(told)

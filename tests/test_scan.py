"""Entry points are proved by decoding, whatever the flags of packets say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsal.numbering import HIDDEN, KEY, Probe
from streamsal.packets import open_video, tag_of
from streamsal.scan import INTRA_SPACING, Scan, scan_packets


def scan_of(path: Path, spacing: int = 8) -> Scan:
    with open_video(str(path)) as (container, stream):
        return scan_packets(container, stream, spacing=spacing)


@pytest.mark.parametrize(
    ("name", "entries"),
    [
        ("h264_closed", [0, 12, 24, 36, 48]),
        ("h264_liar", [0, 12, 24, 36, 48]),  # every packet is flagged
        ("h264_noflags", [0, 12, 24, 36, 48]),  # only the first one is
        ("h264_refresh", [0]),  # flagged packets from which no whole picture can be decoded
        ("hevc_open", [0, 9, 21, 33, 45]),  # three pictures of each group of 12 are sent after the next key picture
        ("edit_skip", [0, 24, 48]),
        ("head_cut", [0, 19, 31, 43]),
        ("h264_gop1000", [0]),
        ("gray_ffv1", [0, 10, 20]),
        ("anim_gif", [0]),
    ],
)
def test_entry_points_are_those_that_decoding_proves(corpus, name, entries):
    assert scan_of(corpus.path(name)).entries == entries


def test_entry_points_keep_their_distance(corpus):
    assert scan_of(corpus.path("h264_closed"), spacing=20).entries == [0, 24, 48]


@pytest.mark.parametrize(("name", "n_packets"), [("mjpeg", 60), ("prores", 60), ("alpha_png", 30)])
def test_where_every_picture_stands_alone_entries_are_close(corpus, name, n_packets):
    assert scan_of(corpus.path(name), spacing=64).entries == list(range(0, n_packets, INTRA_SPACING))
    assert scan_of(corpus.path(name), spacing=3).entries == list(range(0, n_packets, 3))


@pytest.mark.parametrize(
    ("name", "probe"),
    [
        ("h264_closed", Probe(first_packet=0, n_packets=8, n_pictures=8)),
        ("two", Probe(first_packet=0, n_packets=2, n_pictures=2)),  # all there is
        ("edit_skip", Probe(first_packet=8, n_packets=10, n_pictures=3)),  # 7 of the first 10 are not to be shown
        ("head_cut", Probe(first_packet=7, n_packets=10, n_pictures=3)),  # 7 packets before anything can be decoded
    ],
)
def test_the_first_packets_are_decoded_and_counted(corpus, name, probe):
    scan = scan_of(corpus.path(name))
    assert scan.probe == probe
    assert scan.first_picture is not None and tag_of(scan.first_picture).packet == probe.first_packet


def test_packets_hidden_by_an_edit_list_are_told_from_those_shown(corpus):
    packets = scan_of(corpus.path("edit_skip")).packets
    assert np.flatnonzero(packets.flags & KEY).tolist() == [0, 24, 48]
    assert sorted(packets.pts[packets.flags & HIDDEN > 0]) == sorted(packets.pts)[:7]


def test_progress_goes_by_bytes_to_the_end(corpus):
    told: list[tuple[int, int]] = []
    path = corpus.path("h264_gop1000")
    with open_video(str(path)) as (container, stream):
        scan_packets(container, stream, spacing=64, on_progress=lambda done, total: told.append((done, total)))
    size = path.stat().st_size
    assert told == sorted(told) and len(told) == 3 and told[-1] == (size, size)

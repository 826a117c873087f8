from __future__ import annotations

import random

import pytest
from corpus import CASES

from streamsal import seek
from streamsal.decode import VideoReader, plane_checksum
from streamsal.index import index_video
from streamsal.seek import PacketSource

READABLE = [name for name, case in CASES.items() if case.kind != "reject" and name != "h264_gop1000"]


@pytest.fixture
def always_seek(monkeypatch):
    """Files of the corpus are so small that reading on would be quicker than any seek."""
    monkeypatch.setattr(seek, "SKIP_BYTES", -1)


@pytest.mark.parametrize("name", READABLE)
def test_a_packet_is_found_from_anywhere(corpus, name, always_seek):
    index = index_video(corpus.path(name))
    numbers = [number for number in range(index.n_packets) if index.packet_flags[number] & 1]
    source = PacketSource(index)
    order = random.Random(name).choices(numbers, k=6)
    for number in order:
        source.move_to(number)
        packet = source.read(number)
        assert (packet.size, seek.checksum(packet)) == (index.packet_size[number], index.packet_crc32[number])
    source.close()


@pytest.mark.parametrize(
    "name", ["h264_open", "h264_open_ts", "mpeg2", "ts_jump_back", "ts_wrap", "still", "h264_liar"]
)
def test_frames_read_after_seeks_are_those_read_in_order(corpus, name, always_seek):
    index = index_video(corpus.path(name), entry_spacing=8)
    with VideoReader(index) as reader:
        whole = [plane_checksum(frame.picture) for frame in reader.read(range(index.n_frames))]
        numbers = list(range(index.n_frames))
        random.Random(name).shuffle(numbers)
        for number in numbers[:25]:
            (frame,) = reader.read([number])
            assert plane_checksum(frame.picture) == whole[number]

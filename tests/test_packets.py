"""Packets and pictures of the stream that is meant, and one sentence for what is no video."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from corpus import CASES, read_number

from streamsal.errors import MissingInput, VideoError
from streamsal.numbering import HIDDEN
from streamsal.packets import Tag, checksum, decode_all, open_video, packets_of, pictures_from, tag_of


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("truncated_nomoov", "no video that FFmpeg can read"),
        ("audio_only", "no video stream, or is cut off"),
        ("cover_only", "only a cover picture"),
        ("no_frames", "no video stream"),
        ("empty", "is empty"),
        ("text", "no video that FFmpeg can read"),
    ],
)
def test_what_is_no_video_is_refused_in_one_sentence(corpus, name, says):
    with pytest.raises(VideoError, match=says) as caught:
        open_video(str(corpus.path(name)))
    assert CASES[name].file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_a_folder_are_missing_input(tmp_path):
    for path in (tmp_path / "nowhere.mp4", tmp_path):
        with pytest.raises(MissingInput, match="name a video file"):
            open_video(str(path))


def test_the_default_stream_is_chosen_unless_another_is_named(corpus):
    path = str(corpus.path("two_streams"))
    for number, width in ((None, 160), (0, 96)):
        with open_video(path, number) as (_, stream):
            assert stream.width == width
    with pytest.raises(VideoError, match=r"stream 5 of .* is no video stream"):
        open_video(path, 5)


def test_a_cover_is_never_the_film(corpus):
    path = str(corpus.path("cover_first"))
    with open_video(path) as (_, stream):
        assert (stream.index, stream.width) == (1, 160)
    with pytest.raises(VideoError, match=r"stream 0 of .* is no video stream"):
        open_video(path, 0)


@pytest.mark.parametrize("name", ["longer_audio", "truncated_mkv", "mpeg4_packed"])
def test_packets_are_those_of_one_stream_from_the_first_to_the_last_that_is_there(corpus, name):
    with open_video(str(corpus.path(name))) as (container, stream):
        packets = list(packets_of(container, stream))
    assert len(packets) == {"longer_audio": 60, "truncated_mkv": 34, "mpeg4_packed": 61}[name]
    assert {packet.stream.index for packet in packets} == {stream.index}
    assert all(checksum(packet) == zlib.crc32(bytes(packet)) for packet in packets)


def test_a_tag_leads_from_a_picture_to_its_packet(corpus):
    """Pictures come in another order than packets; the number drawn into each says which packet was its own."""
    path = str(corpus.path("h264_closed"))
    with open_video(path) as (container, stream):
        ranks = np.argsort(np.argsort([packet.pts for packet in packets_of(container, stream)]))
    with open_video(path) as (container, stream):
        pictures = list(decode_all(container, stream, np.zeros(60, np.uint8)))
    assert [read_number(picture.to_ndarray(format="rgb24")) for picture in pictures] == list(range(60))
    assert [ranks[tag_of(picture).packet] for picture in pictures] == list(range(60))
    assert (np.diff([tag_of(picture).packet for picture in pictures]) < 0).any()


def test_pictures_of_hidden_packets_are_decoded_and_not_given(corpus):
    flags = np.zeros(60, np.uint8)
    flags[:12] = HIDDEN
    with open_video(str(corpus.path("h264_closed"))) as (container, stream):
        pictures = list(decode_all(container, stream, flags))
    assert [read_number(picture.to_ndarray(format="rgb24")) for picture in pictures] == list(range(12, 60))


def test_a_packet_that_cannot_be_decoded_gives_no_picture(corpus):
    with open_video(str(corpus.path("head_cut"))) as (container, stream):
        for number, packet in zip(range(7), packets_of(container, stream), strict=False):
            packet.opaque = Tag(packet=number)
            assert pictures_from(stream.codec_context, packet) == []

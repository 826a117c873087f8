from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from streamsal.numbering import (
    HIDDEN,
    KEY,
    NO_TIME,
    Packets,
    Probe,
    doubt,
    entry_frames,
    number_packets,
    number_pictures,
    segments,
    times,
)


def table(*packets: tuple[int, int, int]) -> Packets:
    """Packets of 100 bytes and one tick from (pts, dts, flags)."""
    return Packets.of_rows([(pts, dts, 1, -1, 100, n, flags) for n, (pts, dts, flags) in enumerate(packets)])


def numbered(packets: Packets, first_packet: int = 0):
    return number_packets(packets, segments(packets, jump=None), first_packet)


@given(st.lists(st.integers(1, 5), min_size=1, max_size=30), st.booleans())
def test_frames_are_numbered_in_display_order_whatever_the_reordering(group_lengths, open_groups):
    packets, shown, start = [], [], 0
    for length in group_lengths:
        group = list(range(start, start + length))
        # The last picture of a group is sent first; as an open group's key picture it leads the others.
        order = [group[-1], *group[:-1]] if open_groups else group
        packets += [(pts, NO_TIME, KEY if k == 0 else 0) for k, pts in enumerate(order)]
        shown += order
        start += length
    frames = numbered(table(*packets))
    assert frames.pts.tolist() == list(range(shown[0], start))  # the first group's leading pictures cannot be decoded
    assert [shown[packet] for packet in frames.packet] == frames.pts.tolist()


def test_a_clock_that_starts_again_opens_a_new_segment():
    packets = table((10, 10, KEY), (11, 11, 0), (12, 12, 0), (10, 10, KEY), (11, 11, 0))
    assert segments(packets, jump=None).tolist() == [0, 0, 0, 1, 1]
    assert numbered(packets).packet.tolist() == [0, 1, 2, 3, 4]


def test_a_false_key_flag_on_a_b_picture_opens_no_segment():
    packets = table((0, -1, KEY), (2, 0, KEY), (1, 1, KEY), (4, 2, KEY), (3, 3, KEY))
    assert not segments(packets, jump=None).any()
    assert numbered(packets).packet.tolist() == [0, 2, 1, 4, 3]


def test_a_leap_ahead_is_a_segment_only_where_the_format_resets_its_clock():
    packets = table((0, 0, KEY), (1, 1, 0), (5000, 5000, KEY), (5001, 5001, 0))
    assert segments(packets, jump=None).tolist() == [0, 0, 0, 0]
    assert segments(packets, jump=100).tolist() == [0, 0, 1, 1]


def test_hidden_packets_are_no_frames_and_pictures_before_the_first_decodable_one_do_not_exist():
    packets = table((0, 0, KEY), (1, 1, HIDDEN), (2, 2, 0), (3, 3, 0))
    assert numbered(packets).packet.tolist() == [0, 2, 3]
    assert numbered(packets, first_packet=2).packet.tolist() == [2, 3]


def test_packets_are_doubted_where_they_cannot_tell_the_order():
    plain = Probe(first_packet=0, n_packets=4, n_pictures=4)

    def reason(codec, packets, probe=plain):
        return doubt(codec, packets, segments(packets, jump=None), probe)

    sound = table((0, 0, KEY), (1, 1, 0), (2, 2, 0), (3, 3, 0))
    assert reason("h264", sound) is None
    assert "mpeg4" in reason("mpeg4", sound)
    assert "without" in reason("h264", table((0, 0, KEY), (NO_TIME, 1, 0), (2, 2, 0), (3, 3, 0)))
    assert "equal" in reason("h264", table((0, 0, KEY), (1, 1, 0), (1, 2, 0), (3, 3, 0)))
    fields = Probe(first_packet=0, n_packets=4, n_pictures=2)
    assert "fewer" in reason("h264", sound, fields)
    assert reason("h264", table((0, 0, KEY), (1, 1, 0), (0, 0, KEY), (1, 1, 0))) is None  # equal times, other segment


def test_a_packet_that_holds_two_pictures_is_two_frames():
    packets = table((0, 0, KEY), (1, 1, 0), (2, 2, 0))
    frames = number_pictures([(0, 0), (1, 1), (1, 1), (2, 2)], packets, step=1.0)
    assert frames.packet.tolist() == [0, 1, 1, 2]
    assert frames.occurrence.tolist() == [0, 0, 1, 0]


def test_decoded_pictures_take_their_own_times_else_the_slots_else_a_constant_rate():
    slots = table((NO_TIME, 5, KEY), (NO_TIME, 6, 0), (NO_TIME, 7, 0))
    assert number_pictures([(0, 1), (1, 1), (2, 9)], slots, step=4.0).pts.tolist() == [1, 1, 9]
    assert number_pictures([(0, 7), (1, 5), (2, 6)], slots, step=4.0).pts.tolist() == [5, 6, 7]
    assert number_pictures([(0, None), (1, None)], slots, step=4.0).pts.tolist() == [5, 9]
    bare = table((NO_TIME, NO_TIME, KEY), (NO_TIME, NO_TIME, 0))
    assert number_pictures([(0, None), (1, None)], bare, step=2.5).pts.tolist() == [0, 2]


def test_seconds_never_go_back_and_a_later_segment_follows_the_one_before():
    packets = table((10, 10, KEY), (12, 12, 0), (16, 16, 0), (10, 10, KEY), (11, 11, 0))
    duration, seconds = times(numbered(packets), packets, (1, 2))
    assert duration.tolist() == [2, 4, 1, 1, 1]  # after the last frame of a segment: its packet's own duration
    assert seconds.tolist() == [5.0, 6.0, 8.0, 8.5, 9.0]


def test_an_entry_point_needs_every_later_frame_to_come_after_it():
    # Packet 3 is key, but frame 4 (packet 2) is shown after it.
    packets = table((0, 0, KEY), (1, 1, 0), (4, 2, 0), (3, 3, KEY), (5, 5, KEY), (6, 6, 0))
    frames, entries = entry_frames([0, 3, 4], numbered(packets))
    assert list(zip(frames.tolist(), entries.tolist(), strict=True)) == [(0, 0), (4, 4)]


def test_an_entry_point_stands_for_its_own_frame_in_open_groups():
    # The pictures shown before key packet 2 are sent after it.
    packets = table((0, 0, KEY), (1, 1, 0), (4, 2, KEY), (2, 3, 0), (3, 4, 0), (5, 5, 0))
    frames, entries = entry_frames([0, 2], numbered(packets))
    assert list(zip(frames.tolist(), entries.tolist(), strict=True)) == [(0, 0), (4, 2)]

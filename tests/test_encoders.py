from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from talk import write_talk

from streamsal.encoders import choose_encoder
from streamsal.errors import UsageError
from streamsal.index import VideoIndex, index_video
from streamsal.mux import opens


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> VideoIndex:
    return index_video(write_talk(tmp_path_factory.mktemp("talk") / "talk.mp4", 3))


def choice(index: VideoIndex, codec: str = "h264", **options: int | str | bool | None) -> tuple[str, str, list[str]]:
    notes: list[str] = []
    canvas, encoder = choose_encoder(index, codec=codec, **{"crf": None, "preset": None} | options, note=notes.append)
    assert canvas.pixel_format == encoder.pixel_format
    assert opens(encoder)
    return encoder.name, encoder.pixel_format, notes


@pytest.mark.parametrize(
    ("pixel_format", "kept"),
    [
        ("yuv420p", "yuv420p"),
        ("yuvj420p", "yuv420p"),
        ("yuv422p", "yuv422p"),
        ("yuv444p", "yuv444p"),
        ("yuv420p10le", "yuv420p10le"),
        ("yuv422p10le", "yuv422p10le"),
        ("yuv444p10le", "yuv444p10le"),
    ],
)
def test_pixel_formats_that_h264_can_hold_are_kept_in_silence(index: VideoIndex, pixel_format: str, kept: str) -> None:
    assert choice(replace(index, pixel_format=pixel_format)) == ("libx264", kept, [])


@pytest.mark.parametrize(
    ("pixel_format", "codec", "nearest"),
    [
        ("yuv420p12le", "h264", "yuv420p10le"),
        ("yuv422p10le", "av1", "yuv420p10le"),
        ("yuva420p", "h264", "yuv420p"),
        ("rgb24", "h264", "yuv420p"),
        ("gray", "h264", "yuv420p"),
        ("nv12", "h264", "yuv420p"),
    ],
)
def test_other_formats_go_to_the_nearest_and_it_is_said(
    index: VideoIndex, pixel_format: str, codec: str, nearest: str
) -> None:
    name, chosen, notes = choice(replace(index, pixel_format=pixel_format), codec)
    assert chosen == nearest
    assert notes == [f"pictures are encoded as {nearest}: {name} takes no {pixel_format}"]


def test_twelve_bits_stay_where_the_encoder_has_them(index: VideoIndex) -> None:
    assert choice(replace(index, pixel_format="yuv420p12le"), "hevc") == ("libx265", "yuv420p12le", [])


@pytest.mark.parametrize(("size", "why"), [((161, 97), "161x97"), ((160, 97), "160x97"), ((161, 96), "161x96")])
def test_odd_sizes_stay_exact_by_full_chroma(index: VideoIndex, size: tuple[int, int], why: str) -> None:
    odd = replace(index, width=size[0], height=size[1])
    _, chosen, notes = choice(odd)
    assert chosen == "yuv444p"
    assert notes == [f"pictures are encoded as yuv444p: with 420 chroma libx264 cannot keep the odd size {why}"]
    assert choice(odd, "av1")[1:] == ("yuv420p", [])


def test_range_and_matrix_are_the_source_s(index: VideoIndex) -> None:
    full, _ = choose_encoder(replace(index, pixel_format="yuvj420p"), codec="h264", crf=None, preset=None)
    assert full.full_range
    canvas, encoder = choose_encoder(index, codec="h264", crf=None, preset=None)
    assert (canvas.matrix, canvas.full_range, encoder.color_tags["color_trc"]) == (1, False, 1)
    rgb, encoder = choose_encoder(replace(index, pixel_format="gbrp"), codec="h264", crf=None, preset=None)
    assert (rgb.matrix, encoder.color_tags["colorspace"], rgb.full_range) == (1, 1, False)


def test_quality_preset_aspect_and_rate_reach_the_encoder(index: VideoIndex) -> None:
    wide = replace(index, sample_aspect=(16, 11))
    _, encoder = choose_encoder(wide, codec="h264", crf=30, preset="slow", threads=2)
    assert (encoder.options["crf"], encoder.options["preset"], encoder.threads) == ("30", "slow", 2)
    assert encoder.sample_aspect == Fraction(16, 11)
    assert encoder.time_base == Fraction(1, 12800)
    assert float(encoder.frame_rate) == pytest.approx(index.frame_rate, rel=1e-3)
    _, encoder = choose_encoder(index, codec="h264", crf=None, preset=None)
    assert (encoder.options["crf"], encoder.options["preset"]) == ("18", "medium")


def test_two_pictures_side_by_side_are_wide_as_shown(index: VideoIndex) -> None:
    _, encoder = choose_encoder(index, codec="h264", crf=None, preset=None, double=True)
    assert (encoder.width, encoder.height) == (320, 96)
    turned = replace(index, display_matrix=(0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30))
    _, encoder = choose_encoder(turned, codec="h264", crf=None, preset=None, double=True)
    assert (encoder.width, encoder.height) == (160, 192)


def test_an_encoder_that_does_not_open_gives_way_to_software(index: VideoIndex) -> None:
    name, _, notes = choice(index, "nvenc")
    if name == "h264_nvenc":
        pytest.skip("this machine has a video encoder in its GPU")
    assert (name, notes) == ("libx264", ["h264_nvenc does not work here: libx264 is used"])
    assert choice(index, "auto") == ("libx264", "yuv420p", [])


def test_an_unknown_encoder_is_a_usage_error(index: VideoIndex) -> None:
    with pytest.raises(UsageError, match="auto, h264, hevc"):
        choice(index, "divx")

from __future__ import annotations

import io
import platform
import re

import av
import numpy as np
import pytest
import torch
from av.filter import Graph

from streamsal import color
from streamsal.color import Orientation, RgbConverter, planes, rgb_from_planes

# log2 of how much smaller chroma is, down and across, of every 8-bit layout.
CHROMA_SHIFTS = {
    "yuv420p": (1, 1),
    "yuvj420p": (1, 1),
    "yuva420p": (1, 1),
    "nv12": (1, 1),
    "nv21": (1, 1),
    "yuv422p": (0, 1),
    "nv16": (0, 1),
    "yuyv422": (0, 1),
    "uyvy422": (0, 1),
    "yvyu422": (0, 1),
    "yuv440p": (1, 0),
    "yuv444p": (0, 0),
    "yuvj444p": (0, 0),
    "nv24": (0, 0),
    "yuv411p": (0, 2),
    "yuv410p": (2, 2),
}
# FFmpeg's tag of each matrix, with the weights of red and blue in luma that define it.
MATRICES = {
    "709": (1, 0.2126, 0.0722),
    "601": (5, 0.299, 0.114),
    "2020": (9, 0.2627, 0.0593),
    "240m": (7, 0.212, 0.087),
}
TURNS = [dict(rotation=r) for r in (0, 90, 180, -90)] + [
    dict(display_matrix=(a << 16, b << 16, 0, c << 16, d << 16, 0, 0, 0, 1 << 30))
    for a, b, c, d in [(-1, 0, 0, 1), (1, 0, 0, -1), (0, 1, 1, 0), (0, -1, -1, 0), (0, -1, 1, 0)]
]


def noise(name: str, height: int, width: int, *, matrix: int = 2, color_range: int = 0, seed: int = 0) -> av.VideoFrame:
    """A picture whose every sample, padding included, is random (within its depth)."""
    picture = av.VideoFrame(width, height, name)
    picture.colorspace, picture.color_range = matrix, color_range
    rng = np.random.default_rng(seed)
    depth = int((re.search(r"p(9|10|12|14|16)le", name) or [0, 8])[1])
    for plane in picture.planes:
        dtype = np.uint8 if depth == 8 else np.uint16
        samples = np.frombuffer(memoryview(plane), dtype)
        samples[...] = rng.integers(0, 1 << depth, samples.shape, dtype=dtype)
    return picture


def formula(y, u, v, shifts, *, matrix: str = "601", full_range: bool = False) -> np.ndarray:
    """The integer formula, one plain step after another in int64."""
    crv, cbu, cgu, cgv = {
        "601": (104597, 132201, 25675, 53279),
        "709": (117489, 138438, 13975, 34925),
        "2020": (110013, 140363, 12277, 42626),
        "240m": (117579, 136230, 16907, 35559),
    }[matrix]
    cy, oy = (65536, 0) if full_range else (65536 * 255 // 219, 16)
    if full_range:
        crv, cbu, cgu, cgv = (k * 224 // 255 for k in (crv, cbu, cgu, cgv))

    def q(k):
        return (k * 8192 + 32768) >> 16

    y, u, v = (plane.astype(np.int64) for plane in (y, u, v))
    rows, columns = np.arange(y.shape[0]) >> shifts[0], np.arange(y.shape[1]) >> shifts[1]
    u, v = ((chroma[np.ix_(rows, columns)] - 128) * 8 for chroma in (u, v))
    luma = ((y * 8 - oy * 8) * q(cy)) >> 16
    red = luma + (v * q(crv) >> 16)
    green = luma + (u * q(-cgu) >> 16) + (v * q(-cgv) >> 16)
    blue = luma + (u * q(cbu) >> 16)
    return np.stack([red, green, blue], -1).clip(0, 255).astype(np.uint8)


def swscale(picture: av.VideoFrame) -> np.ndarray:
    return picture.reformat(format="rgb24", threads=1).to_ndarray()


@pytest.mark.parametrize("size", [(96, 160), (2, 2), (54, 34), (30, 1922)])
@pytest.mark.parametrize("color_range", [0, 1, 2])
@pytest.mark.parametrize("name", ["yuv420p", "yuvj420p", "yuv422p"])
def test_formula_equals_swscale_where_swscale_is_fast(name, color_range, size):
    for matrix, (tag, *_) in MATRICES.items():
        picture = noise(name, *size, matrix=tag, color_range=color_range)
        full_range = name == "yuvj420p" or color_range == 2
        y, u, v = planes(picture).y, planes(picture).u, planes(picture).v
        expected = formula(y, u, v, CHROMA_SHIFTS[name], matrix=matrix, full_range=full_range)
        assert np.array_equal(RgbConverter()(picture), expected)
        if platform.machine() == "x86_64":  # elsewhere swscale may have no such code, and is then not used
            assert np.array_equal(swscale(picture), expected)
            assert color._has_fast_path(picture)


@pytest.mark.parametrize("step", [1, 2])
@pytest.mark.parametrize("size", [(48, 64), (47, 63), (1, 1), (5, 2), (3, 9), (200, 1030)])
@pytest.mark.parametrize("name", CHROMA_SHIFTS)
def test_every_layout_is_converted_by_the_formula(name, size, step):
    picture = noise(name, *size, matrix=1)
    found = planes(picture)
    down, across = CHROMA_SHIFTS[name]
    assert found.y.shape == size
    assert found.u.shape == found.v.shape == (-(-size[0] >> down), -(-size[1] >> across))
    expected = formula(found.y, found.u, found.v, (down, across), matrix="709", full_range=name.startswith("yuvj"))
    assert np.array_equal(RgbConverter()(picture, step=step), expected[::step, ::step])


@pytest.mark.parametrize(
    ("name", "planar"),
    [
        ("nv12", "yuv420p"),
        ("nv21", "yuv420p"),
        ("nv16", "yuv422p"),
        ("nv24", "yuv444p"),
        ("nv42", "yuv444p"),
        ("yuyv422", "yuv422p"),
        ("uyvy422", "yuv422p"),
        ("yvyu422", "yuv422p"),
    ],
)
def test_the_same_samples_in_another_order_are_the_same_planes(name, planar):
    mixed = noise(name, 24, 40)
    found, expected = planes(mixed), planes(mixed.reformat(format=planar))
    for plane in ("y", "u", "v"):
        assert np.array_equal(getattr(found, plane), getattr(expected, plane))


def test_top_and_bottom_aligned_ten_bits_give_the_same_rgb():
    low = noise("yuv420p10le", 24, 40)
    high = av.VideoFrame(40, 24, "p010le")
    y, u, v = planes(low).y, planes(low).u, planes(low).v
    planes(high).y[...], planes(high).u[...], planes(high).v[...] = y << 6, u << 6, v << 6
    assert np.array_equal(RgbConverter()(high), RgbConverter()(low))


@pytest.mark.parametrize("name", [f"yuv{s}p{d}{e}" for s, d, e in [
    ("420", 9, "le"), ("420", 10, "le"), ("422", 10, "be"), ("444", 12, "le"), ("420", 14, "le"), ("422", 16, "le"),
]])  # fmt: skip
def test_deep_samples_are_rounded_to_eight_bits_first(name):
    depth = int(re.search(r"p(\d+)", name)[1])
    picture = noise(name.replace("be", "le"), 30, 52)
    if name.endswith("be"):
        swapped = av.VideoFrame(52, 30, name)
        for old, new in zip(picture.planes, swapped.planes, strict=True):
            new.update(np.frombuffer(memoryview(old), np.uint16).byteswap().tobytes())
        picture = swapped
    found = planes(picture)
    assert found.depth == depth
    half = 1 << (depth - 9)
    eight = [np.minimum((p.astype(np.int64) + half) >> (depth - 8), 255) for p in (found.y, found.u, found.v)]
    shifts = {"420": (1, 1), "422": (0, 1), "444": (0, 0)}[name[3:6]]
    assert np.array_equal(RgbConverter()(picture), formula(*eight, shifts))


@pytest.mark.parametrize(("matrix", "full_range"), [(m, f) for m in MATRICES for f in (False, True)])
def test_formula_stays_near_the_exact_conversion(matrix, full_range):
    """The wrong matrix costs 5 levels in the mean; truncation costs 1.1, and 3 at most."""
    tag, kr, kb = MATRICES[matrix]
    y, cb, cr = np.mgrid[16:236:20, 16:241:8, 16:241:8].reshape(3, 1, -1).astype(np.uint8)
    got = rgb_from_planes(*map(torch.from_numpy, (y, cb, cr)), matrix=matrix, full_range=full_range).numpy()
    luma = y / 255.0 if full_range else (y - 16.0) / 219
    blue_difference, red_difference = ((c - 128.0) / (255 if full_range else 224) for c in (cb, cr))
    red = luma + 2 * (1 - kr) * red_difference
    blue = luma + 2 * (1 - kb) * blue_difference
    green = (luma - kr * red - kb * blue) / (1 - kr - kb)
    error = np.abs(got - np.stack([red, green, blue], -1).clip(0, 1) * 255)
    assert tag in color._MATRIX_OF_TAG and error.mean() < 1.2 and error.max() < 3.5


@pytest.mark.parametrize("size", [(48, 64), (47, 63), (3, 1)])
@pytest.mark.parametrize("name", ["yuv420p", "yuv422p", "yuv444p", "yuv411p", "yuv410p", "nv12", "yuv420p10le"])
def test_torch_formula_equals_numpy_bit_for_bit(name, size):
    for tag, color_range in [(1, 1), (5, 2), (9, 1)]:
        picture = noise(name, *size, matrix=tag, color_range=color_range)
        found = planes(picture)
        y, u, v = (torch.from_numpy(p.copy()) for p in (found.y, found.u, found.v))
        rgb = rgb_from_planes(y, u, v, matrix=found.matrix, full_range=found.full_range, depth=found.depth)
        assert rgb.dtype == torch.uint8
        assert np.array_equal(rgb.numpy(), RgbConverter()(picture))


def test_torch_formula_converts_a_batch_of_half_size_luma_with_whole_chroma():
    pictures = [noise("yuv420p", 48, 64, seed=seed) for seed in range(3)]
    y, u, v = (torch.from_numpy(np.stack([getattr(planes(p), name) for p in pictures])) for name in "yuv")
    rgb = rgb_from_planes(y[:, ::2, ::2], u, v, matrix="601", full_range=False)
    assert np.array_equal(rgb.numpy(), [RgbConverter()(p, step=2) for p in pictures])


@pytest.mark.parametrize("size", [(6, 8), (5, 8), (6, 7), (5, 7)])
@pytest.mark.parametrize("turn", TURNS, ids=str)
@pytest.mark.parametrize("name", ["yuv420p", "yuv444p", "yuv411p", "rgb24", "yuv420p10le"])
def test_step_two_is_the_displayed_picture_sliced(name, turn, size):
    picture = noise(name, *size)
    convert = RgbConverter(**turn)
    whole = convert(picture)
    assert np.array_equal(whole, convert.orientation.displayed(RgbConverter()(picture)))
    assert np.array_equal(convert(picture, step=2), whole[::2, ::2])


def test_rotation_is_counter_clockwise_degrees():
    corners = np.arange(6).reshape(2, 3)
    for rotation in (0, 90, 180, 270, -90, 360):
        turned = Orientation.of(rotation=rotation).displayed(corners)
        assert np.array_equal(turned, np.rot90(corners, rotation // 90))
    with pytest.raises(ValueError, match="45"):
        Orientation.of(rotation=45)


@pytest.mark.parametrize("turn", TURNS, ids=str)
def test_orientation_has_an_inverse_and_a_size(turn):
    corners = np.arange(12).reshape(3, 4)
    orientation = Orientation.of(**turn)
    shown = orientation.displayed(corners)
    assert shown.shape == orientation.displayed_size(3, 4)
    assert np.array_equal(orientation.decoded(shown), corners)


@pytest.mark.parametrize(
    ("abcd", "shown"),
    [
        ((-1, 0, 0, 1), [[2, 1, 0], [5, 4, 3]]),  # mirrored left to right
        ((1, 0, 0, -1), [[3, 4, 5], [0, 1, 2]]),  # top to bottom
        ((0, 1, 1, 0), [[0, 3], [1, 4], [2, 5]]),  # x' = y, y' = x
        ((0, 1, -1, 0), [[3, 0], [4, 1], [5, 2]]),  # a phone held upright: a quarter turn clockwise
    ],
)
def test_display_matrix_maps_x_and_y_as_written(abcd, shown):
    a, b, c, d = (value << 16 for value in abcd)
    orientation = Orientation.of(display_matrix=(a, b, 0, c, d, 0, 0, 0, 1 << 30))
    assert orientation.displayed(np.arange(6).reshape(2, 3)).tolist() == shown


@pytest.mark.parametrize("rotation", [90, 180, 270])
def test_matrix_in_a_file_turns_as_ffmpeg_says(rotation):
    """What FFmpeg reads back from the file as degrees and what we make of its 9 numbers are the same turn."""
    sine, cosine = {90: (1, 0), 180: (0, -1), 270: (-1, 0)}[rotation]
    matrix = (cosine << 16, -sine << 16, 0, sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.set_display_matrix(matrix)
        for packet in [*stream.encode(noise("yuv420p", 32, 64)), *stream.encode(None)]:
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        picture = next(container.decode(video=0))
        by_degrees = RgbConverter(rotation=picture.rotation)(picture)
        assert picture.rotation % 360 == rotation
        assert np.array_equal(RgbConverter(display_matrix=matrix)(picture), by_degrees)


def flipped(picture: av.VideoFrame) -> av.VideoFrame:
    """The picture upside down by a negative line size, as bottom-up decoders hand it out."""
    graph = Graph()
    source = graph.add_buffer(width=picture.width, height=picture.height, format=picture.format.name, time_base=1)
    flip, sink = graph.add("vflip"), graph.add("buffersink")
    source.link_to(flip)
    flip.link_to(sink)
    graph.configure()
    graph.push(picture)
    return graph.pull()


@pytest.mark.parametrize("name", ["yuv420p", "yuv444p", "nv12", "bgr24", "gray", "yuv420p10le"])
def test_bottom_up_pictures_are_read_from_the_top(name):
    picture = noise(name, 30, 52)
    expected = {step: RgbConverter(rotation=0)(picture)[::-1][::step, ::step] for step in (1, 2)}
    upside_down = flipped(picture)
    assert upside_down.planes[0].line_size < 0
    for step, rgb in expected.items():
        assert np.array_equal(RgbConverter()(upside_down, step=step), rgb)


def test_interlaced_picture_is_converted_like_any_other():
    """swscale would convert its two fields apart; the planes decide, so every device gives the same RGB."""
    file = io.BytesIO()
    with av.open(file, "w", format="mpegts") as container:
        stream = container.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.flags |= av.codec.context.Flags.interlaced_dct
        for packet in [*stream.encode(noise("yuv420p", 48, 64)), *stream.encode(None)]:
            container.mux(packet)
    file.seek(0)
    with av.open(file) as container:
        picture = next(container.decode(video=0))
        assert picture.interlaced_frame
        found = planes(picture)
        expected = formula(found.y, found.u, found.v, (1, 1))
        assert np.array_equal(RgbConverter()(picture), expected)
        assert not np.array_equal(swscale(picture), expected)


@pytest.mark.parametrize("name", ["rgb24", "bgr24", "rgba", "bgra", "argb", "abgr", "rgb0", "0bgr", "gbrp", "gbrap"])
def test_rgb_is_taken_as_it_is_without_alpha(name):
    picture = noise(name, 13, 21)
    assert planes(picture) is None
    assert np.array_equal(RgbConverter()(picture), swscale(picture))


@pytest.mark.parametrize(("name", "depth"), [("gbrp10le", 10), ("gbrp16le", 16), ("rgb48le", 16), ("bgra64le", 16)])
def test_deep_rgb_is_rounded(name, depth):
    picture = noise(name, 12, 20)
    got = RgbConverter()(picture).astype(int)
    if name.startswith("gbrp"):
        red = np.frombuffer(memoryview(picture.planes[2]), np.uint16).reshape(12, -1)[:, :20]
    else:
        channels = 3 if name == "rgb48le" else 4
        lines = np.frombuffer(memoryview(picture.planes[0]), np.uint16).reshape(12, -1)
        red = lines[:, 0 if name == "rgb48le" else 2 :: channels][:, :20]
    assert np.array_equal(got[..., 0], np.minimum((red.astype(int) + (1 << depth - 9)) >> (depth - 8), 255))


@pytest.mark.parametrize("name", ["gray", "gray10le", "gray16be", "ya8"])
def test_gray_is_repeated(name):
    values = np.arange(0, 252, 2).reshape(9, 14)
    picture = av.VideoFrame(14, 9, name)
    if name == "ya8":
        samples = np.frombuffer(memoryview(picture.planes[0]), np.uint8).reshape(9, -1)
        samples[...] = 77
        samples[:, : 2 * 14 : 2] = values
    else:
        dtype, shift = {"gray": ("u1", 0), "gray10le": ("<u2", 2), "gray16be": (">u2", 8)}[name]
        samples = np.frombuffer(memoryview(picture.planes[0]), dtype).reshape(9, -1)
        samples[:, :14] = values << shift
    assert np.array_equal(RgbConverter()(picture), np.repeat(values[..., None], 3, axis=2))


def test_palette_is_looked_up():
    indices = np.arange(40, dtype=np.uint8).reshape(5, 8)
    palette = np.random.default_rng(0).integers(0, 256, (256, 4), dtype=np.uint8)
    picture = av.VideoFrame(8, 5, "pal8")
    np.frombuffer(memoryview(picture.planes[0]), np.uint8).reshape(5, -1)[:, :8] = indices
    np.frombuffer(memoryview(picture.planes[1]), np.uint8).reshape(256, 4)[...] = palette  # b g r a
    assert planes(picture) is None
    assert np.array_equal(RgbConverter()(picture), palette[indices][..., 2::-1])


@pytest.mark.parametrize("turn", [dict(), dict(rotation=-90)], ids=str)
def test_picture_of_another_size_is_resized_to_the_target(turn):
    """A quadrant pattern keeps its quadrants; the converter goes on exactly when the size returns."""
    small, large = noise("yuv420p", 48, 64), av.VideoFrame(128, 96, "yuv420p")
    y, u, v = planes(large).y, planes(large).u, planes(large).v
    u[...] = v[...] = 128
    y[:48, :64], y[:48, 64:], y[48:, :64], y[48:, 64:] = 40, 90, 140, 190
    convert = RgbConverter(**turn, size=Orientation.of(**turn).displayed_size(48, 64))
    before = convert(small)
    resized = convert(large)
    assert resized.shape == before.shape
    whole = RgbConverter(**turn)(large)
    assert np.array_equal(resized[4::16, 4::16], whole[8::32, 8::32])
    assert np.array_equal(convert(large, step=2), resized[::2, ::2])
    assert np.array_equal(RgbConverter(**turn, size=convert.size)(large), resized)
    assert np.array_equal(convert(small), before)


def test_portrait_picture_amid_landscape_ones_fits_the_target():
    convert = RgbConverter(size=(48, 64))
    assert convert(noise("yuv420p", 64, 48)).shape == (48, 64, 3)


@pytest.mark.parametrize("name", ["yuv420p", "nv12", "rgb24"])
@pytest.mark.parametrize("step", [1, 2])
def test_out_is_written_in_place(name, step):
    picture = noise(name, 31, 52)
    slots = np.full((3, -(-31 // step), -(-52 // step), 3), 7, np.uint8)
    returned = RgbConverter()(picture, step=step, out=slots[1])
    assert np.shares_memory(returned, slots)
    assert np.array_equal(slots[1], RgbConverter()(picture, step=step))
    assert (slots[[0, 2]] == 7).all()


@pytest.mark.parametrize("out", [np.empty((31, 52, 3), np.int16), np.empty((52, 31, 3), np.uint8),
                                 np.empty((3, 31, 52), np.uint8).transpose(1, 2, 0)])  # fmt: skip
def test_out_that_does_not_fit_is_refused(out):
    with pytest.raises(ValueError, match=r"uint8 \(31, 52, 3\)"):
        RgbConverter()(noise("yuv420p", 31, 52), out=out)


def test_step_three_is_refused():
    with pytest.raises(ValueError, match="step"):
        RgbConverter()(noise("yuv420p", 8, 8), step=3)


def test_planes_are_views_of_the_picture():
    picture = noise("nv12", 24, 40)
    luma, chroma = (np.frombuffer(memoryview(plane), np.uint8) for plane in picture.planes)
    found = planes(picture)
    assert np.shares_memory(found.y, luma)
    assert np.shares_memory(found.u, chroma) and np.shares_memory(found.v, chroma)


@pytest.mark.parametrize(
    ("name", "tag", "color_range", "expected"),
    [
        ("yuv420p", 2, 0, ("601", False)),
        ("yuv420p", 6, 1, ("601", False)),
        ("yuv420p", 1, 2, ("709", True)),
        ("yuv420p10le", 9, 1, ("2020", False)),
        ("yuvj422p", 1, 0, ("709", True)),
        ("yuv444p", 8, 1, ("601", False)),
    ],
)
def test_matrix_and_range_come_from_the_tags(name, tag, color_range, expected):
    found = planes(noise(name, 8, 8, matrix=tag, color_range=color_range))
    assert (found.matrix, found.full_range) == expected


def test_reserved_tags_are_converted_by_the_formula():
    picture = noise("yuv420p", 16, 16, matrix=3)
    found = planes(picture)
    assert np.array_equal(RgbConverter()(picture), formula(found.y, found.u, found.v, (1, 1)))

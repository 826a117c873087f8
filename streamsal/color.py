"""Decoded pictures in, uint8 RGB in displayed orientation out, by one integer formula.

The same planes give the same RGB whoever holds them: numpy, torch on any device, or swscale where its fast path has
shown here that it computes the same formula. Matrix and range come from the picture's own tags. This module knows
pixels only: no files, no frame numbers. High dynamic range (PQ, HLG) is not tone mapped, alpha is dropped.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import av
import numpy as np
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter

if TYPE_CHECKING:
    from av.video.plane import VideoPlane
    from torch import Tensor

Matrix = Literal["601", "709", "2020", "240m", "fcc"]
_Yuv = tuple[np.ndarray, np.ndarray, np.ndarray, int]  # y, u, v, depth

# Cr > R, Cb > B, Cb > G, Cr > G in units of 2^-16, scaled from limited chroma (224 steps) to 255: the numbers that
# FFmpeg, OpenCV and imageio show video with. Red for BT.709, for example: 2 (1 - 0.2126) * 65536 * 255 / 224.
_COEFFICIENTS: dict[str, tuple[int, int, int, int]] = {
    "601": (104597, 132201, 25675, 53279),
    "709": (117489, 138438, 13975, 34925),
    "2020": (110013, 140363, 12277, 42626),
    "240m": (117579, 136230, 16907, 35559),
    "fcc": (104448, 132798, 24759, 53109),
}
# ITU-T H.273 matrix codes; 2 (unspecified) and anything else is read as BT.601, as players do.
_MATRIX_OF_TAG: dict[int, Matrix] = {1: "709", 4: "fcc", 5: "601", 6: "601", 7: "240m", 9: "2020", 10: "2020"}
_FULL_RANGE_TAG = 2
# With these two flags swscale's SIMD and portable code agree, so that every machine resizes alike.
_PORTABLE = Interpolation.BILINEAR | Interpolation.ACCURATE_RND | Interpolation.BITEXACT
_BLOCK_PIXELS = 1 << 17  # per block of rows; 1080p in 6.0 ms, with 2^14 in 9.3 (one core of a AMD EPYC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Planes:
    """Luma and chroma of one picture as it was decoded (not rotated): views, not copies.

    `u` and `v` may be smaller than `y` by 2 or 4 in either direction. Samples of more than 8 bits are uint16 holding
    `depth` significant bits.
    """

    y: np.ndarray
    u: np.ndarray
    v: np.ndarray
    matrix: Matrix
    full_range: bool
    depth: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Orientation:
    """How a decoded picture is shown: rows and columns exchanged first (`transpose`), then flipped."""

    transpose: bool = False
    flip_y: bool = False
    flip_x: bool = False

    @classmethod
    def of(cls, *, display_matrix: Sequence[int] | None = None, rotation: int = 0) -> Orientation:
        """From FFmpeg's 3 x 3 display matrix (row by row, 16.16), else from counter-clockwise degrees.

        x' = a x + c y and y' = b x + d y with y pointing down; angles in between go to the nearest quarter turn.
        """
        if display_matrix is None:
            if rotation % 90:
                raise ValueError(f"{rotation = } is not a multiple of 90 degrees")
            quarters = rotation // 90 % 4
            return cls(transpose=quarters in (1, 3), flip_y=quarters in (1, 2), flip_x=quarters in (2, 3))
        if len(display_matrix) != 9:
            raise ValueError(f"a display matrix has 9 numbers, not {len(display_matrix)}")
        a, b, _, c, d = display_matrix[:5]
        if abs(a) + abs(d) >= abs(b) + abs(c):
            return cls(flip_y=d < 0, flip_x=a < 0)
        return cls(transpose=True, flip_y=b < 0, flip_x=c < 0)

    def displayed(self, picture: np.ndarray) -> np.ndarray:
        """A view of a decoded (H, W, ...) array as it is shown."""
        turned = picture.swapaxes(0, 1) if self.transpose else picture
        return turned[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]

    def decoded(self, shown: np.ndarray) -> np.ndarray:
        """The inverse of `displayed`; writing into this view of a displayed array turns what is written."""
        unflipped = shown[:: -1 if self.flip_y else 1, :: -1 if self.flip_x else 1]
        return unflipped.swapaxes(0, 1) if self.transpose else unflipped

    def displayed_size(self, height: int, width: int) -> tuple[int, int]:
        return (width, height) if self.transpose else (height, width)


class RgbConverter:
    """Converts pictures of one stream; holds swscale contexts and scratch, so make one per thread.

    `size` (H, W) as displayed: a picture of another size, from a stream that changes its size, is resized to it
    (bilinear). Without it every picture keeps its own size.
    """

    def __init__(
        self,
        *,
        display_matrix: Sequence[int] | None = None,
        rotation: int = 0,
        size: tuple[int, int] | None = None,
    ) -> None:
        self.orientation = Orientation.of(display_matrix=display_matrix, rotation=rotation)
        self.size = size
        self._swscale = VideoReformatter()
        self._resizer = VideoReformatter()

    def __call__(self, picture: av.VideoFrame, *, step: int = 1, out: np.ndarray | None = None) -> np.ndarray:
        """RGB as displayed, (H, W, 3) uint8; `step` 2 gives exactly its [::2, ::2]. Written into `out` if given."""
        if step not in (1, 2):
            raise ValueError(f"{step = } is neither 1 nor 2")
        shown = self.orientation.displayed_size(picture.height, picture.width)
        target = self.size or shown
        shape = (-(-target[0] // step), -(-target[1] // step), 3)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8 or out.strides[2] != 1:
            raise ValueError(f"out is {out.dtype} {out.shape}, but this picture needs uint8 {shape}, pixels contiguous")
        if shown == target:
            self._convert(picture, step, out)
        else:
            rgb = np.empty((*shown, 3), np.uint8)
            self._convert(picture, 1, rgb)
            out[...] = self._resize(rgb, target)[::step, ::step]
        return out

    def _convert(self, picture: av.VideoFrame, step: int, out: np.ndarray) -> None:
        target = self.orientation.decoded(out)
        if step == 1 and _has_fast_path(picture):
            rgb = _rgb_view(self._swscale.reformat(picture, format="rgb24", threads=1))
            # Pixels as items of 3 bytes: a quarter turn of 1080p takes 3 ms this way, 8 ms byte by byte.
            target.view("V3")[...] = rgb.view("V3")
            return
        rows, columns = self._kept(picture, step)
        yuv = planes(picture)
        if yuv is None:
            channels, depth = _rgb_samples(picture, self._swscale)
            for channel, samples in enumerate(channels):
                target[..., channel] = _eight_bits(samples[rows, columns], depth)
        else:
            _apply_formula(yuv, rows, columns, target)

    def _kept(self, picture: av.VideoFrame, step: int) -> tuple[slice, slice]:
        """Decoded rows and columns that are the displayed [::step, ::step]: counted from the far edge where flipped."""
        turn = self.orientation
        flip_rows, flip_columns = (turn.flip_x, turn.flip_y) if turn.transpose else (turn.flip_y, turn.flip_x)
        first_row = (picture.height - 1) % step if flip_rows else 0
        first_column = (picture.width - 1) % step if flip_columns else 0
        return slice(first_row, None, step), slice(first_column, None, step)

    def _resize(self, rgb: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        # Each channel as a gray picture: from RGB to RGB swscale would go through subsampled chroma.
        resized = np.empty((*size, 3), np.uint8)
        for channel in range(3):
            gray = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb[..., channel]), format="gray")
            scaled = self._resizer.reformat(gray, width=size[1], height=size[0], interpolation=_PORTABLE, threads=1)
            resized[..., channel] = _samples(scaled.planes[0], np.dtype(np.uint8))[:, : size[1]]
        return resized


def planes(picture: av.VideoFrame) -> Planes | None:
    """The picture's luma and chroma planes without a copy; None for a picture that is RGB, gray or a palette."""
    name = picture.format.name
    layout = _planar(picture, name) or _semi_planar(picture, name) or _packed(picture, name)
    if layout is None:
        return None
    y, u, v, depth = layout
    return Planes(
        y=y,
        u=u,
        v=v,
        matrix=_MATRIX_OF_TAG.get(picture.colorspace, "601"),
        full_range=name.startswith("yuvj") or picture.color_range == _FULL_RANGE_TAG,
        depth=depth,
    )


def rgb_from_planes(y: Tensor, u: Tensor, v: Tensor, *, matrix: Matrix, full_range: bool, depth: int = 8) -> Tensor:
    """The formula in torch on the planes' device: (..., H, W) integer luma, chroma of its own size > (..., H, W, 3)."""
    import torch

    if depth > 8:
        y, u, v = ((p.to(torch.int32) + (1 << depth - 9) >> depth - 8).clamp_(max=255) for p in (y, u, v))
    luma_offset, luma_gain, *chroma_gains = _gains(matrix, full_range)
    red_gain, blue_gain, green_u_gain, green_v_gain = chroma_gains
    luma = (y.to(torch.int32) - luma_offset) * (8 * luma_gain) >> 16  # >> floors: arithmetic for signed integers
    u8, v8 = ((p.to(torch.int32) - 128) * 8 for p in (u, v))
    height, width = y.shape[-2:]
    row_repeat, column_repeat = _repeats(height, u.shape[-2]), _repeats(width, u.shape[-1])

    def channel(difference: Tensor) -> Tensor:
        wide = difference.repeat_interleave(column_repeat, -1).repeat_interleave(row_repeat, -2)
        return (luma + wide[..., :height, :width]).clamp_(0, 255).to(torch.uint8)

    green = (u8 * green_u_gain >> 16) + (v8 * green_v_gain >> 16)
    return torch.stack([channel(v8 * red_gain >> 16), channel(green), channel(u8 * blue_gain >> 16)], dim=-1)


def _gains(matrix: Matrix, full_range: bool) -> tuple[int, int, int, int, int, int]:
    """Luma offset, then gains for luma, Cr > R, Cb > B, Cb > G, Cr > G: 13 fraction bits, as swscale rounds them."""
    red, blue, green_u, green_v = _COEFFICIENTS[matrix]
    luma_offset, luma = (0, 65536) if full_range else (16, 65536 * 255 // 219)
    if full_range:
        red, blue, green_u, green_v = (value * 224 // 255 for value in (red, blue, green_u, green_v))
    rounded = [(value * 8192 + 32768) >> 16 for value in (luma, red, blue, -green_u, -green_v)]
    return luma_offset, *rounded  # pyright: ignore[reportReturnType]


def _apply_formula(yuv: Planes, rows: slice, columns: slice, out: np.ndarray) -> None:
    """Write RGB of the luma samples [rows, columns] into `out`, block by block of rows."""
    y = yuv.y[rows, columns]
    row_repeat, chroma_rows = _chroma_for(rows, yuv.y.shape[0], yuv.u.shape[0])
    column_repeat, chroma_columns = _chroma_for(columns, yuv.y.shape[1], yuv.u.shape[1])
    u, v = yuv.u[chroma_rows, chroma_columns], yuv.v[chroma_rows, chroma_columns]
    luma_offset, luma_gain, *chroma_gains = _gains(yuv.matrix, yuv.full_range)
    red_gain, blue_gain, green_u_gain, green_v_gain = chroma_gains
    height, width = y.shape
    block = max(4, _BLOCK_PIXELS // width // 4 * 4)  # whole chroma rows, whichever the layout
    for start in range(0, height, block):
        luma = _scaled(_eight_bits(y[start : start + block], yuv.depth), luma_offset, luma_gain)
        chroma = slice(start // row_repeat, (start + block) // row_repeat)
        cb, cr = _eight_bits(u[chroma], yuv.depth), _eight_bits(v[chroma], yuv.depth)
        green = _scaled(cb, 128, green_u_gain) + _scaled(cr, 128, green_v_gain)
        for channel, difference in enumerate((_scaled(cr, 128, red_gain), green, _scaled(cb, 128, blue_gain))):
            wide = np.repeat(difference, column_repeat, axis=1) if column_repeat > 1 else difference
            wide = np.repeat(wide, row_repeat, axis=0) if row_repeat > 1 else wide
            value = luma + wide[: luma.shape[0], :width]
            out[start : start + block, :, channel] = np.clip(value, 0, 255, out=value)


def _scaled(samples: np.ndarray, offset: int, gain: int) -> np.ndarray:
    """((sample - offset) * 8 * gain) >> 16, rounded down, as int16."""
    product = samples.astype(np.int32)
    product -= offset
    product *= 8 * gain
    product >>= 16
    return product.astype(np.int16)


def _repeats(luma: int, chroma: int) -> int:
    """How often a chroma sample repeats along one side: 1, 2 or 4; the last may be cut at an odd size."""
    return 1 << (-(-luma // chroma) - 1).bit_length()


def _chroma_for(kept: slice, luma: int, chroma: int) -> tuple[int, slice]:
    """Repeat count and chroma samples that belong to the luma samples `kept` along one side."""
    factor = _repeats(luma, chroma)
    if factor >= kept.step:
        return factor // kept.step, slice(None)
    return 1, slice(kept.start // factor, None, kept.step // factor)


def _eight_bits(samples: np.ndarray, depth: int) -> np.ndarray:
    """Samples of `depth` bits as 8, rounded: (x + half) >> (depth - 8), at most 255."""
    if depth == 8:
        return samples
    wide = samples.astype(np.int32)
    wide += 1 << depth - 9
    wide >>= depth - 8
    return np.minimum(wide, 255, out=wide).astype(np.uint8)


def _has_fast_path(picture: av.VideoFrame) -> bool:
    """Whether swscale computes the formula for this picture: 8-bit 4:2:0 or 4:2:2, even size, not in fields."""
    if picture.format.name not in ("yuv420p", "yuvj420p", "yuv422p", "yuvj422p"):
        return False
    # swscale converts an interlaced 4:2:0 picture field by field, each with its own chroma rows.
    if picture.width % 2 or picture.height % 2 or picture.interlaced_frame:
        return False
    return _swscale_agrees(picture.format.name, picture.width, picture.colorspace, picture.color_range)


@lru_cache
def _swscale_agrees(name: str, width: int, colorspace: int, color_range: int) -> bool:
    """Whether swscale computes the formula on this machine, tried on noise: its SIMD code does, other code may not."""
    probe = av.VideoFrame(width, 16, name)
    probe.colorspace, probe.color_range = colorspace, color_range
    noise = np.random.default_rng(0)
    for plane in probe.planes:
        samples = _samples(plane, np.dtype(np.uint8))
        samples[...] = noise.integers(0, 256, samples.shape, dtype=np.uint8)
    expected = np.empty((16, width, 3), np.uint8)
    yuv = planes(probe)
    assert yuv is not None
    _apply_formula(yuv, slice(0, None, 1), slice(0, None, 1), expected)
    try:
        got = _rgb_view(VideoReformatter().reformat(probe, format="rgb24", threads=1))
    except (FFmpegError, ValueError):  # a reserved tag
        return False
    return np.array_equal(got, expected)


def _samples(plane: VideoPlane, dtype: np.dtype) -> np.ndarray:
    """(rows, samples per line) of a plane, padding included; a bottom-up plane (negative line size) is turned."""
    lines = np.frombuffer(memoryview(plane), dtype).reshape(plane.height, -1)
    return lines[::-1] if plane.line_size < 0 else lines


def _rgb_view(picture: av.VideoFrame) -> np.ndarray:
    lines = _samples(picture.planes[0], np.dtype(np.uint8))
    return lines[:, : picture.width * 3].reshape(picture.height, picture.width, 3)


def _dtype(depth: int, byte_order: str | None) -> np.dtype:
    return np.dtype(np.uint8) if depth == 8 else np.dtype(">u2" if byte_order == "be" else "<u2")


def _planar(picture: av.VideoFrame, name: str) -> _Yuv | None:
    match = re.fullmatch(r"yuv[aj]?4\d\dp(9|10|12|14|16|)(le|be)?", name)
    if match is None:
        return None
    depth = int(match[1] or 8)
    y, u, v = (_samples(plane, _dtype(depth, match[2]))[:, : plane.width] for plane in picture.planes[:3])
    return y, u, v, depth


def _semi_planar(picture: av.VideoFrame, name: str) -> _Yuv | None:
    match = re.fullmatch(r"(nv12|nv21|nv16|nv24|nv42|nv20|p[024]1[026])(le|be)?", name)
    if match is None:
        return None
    # p010 and its kin hold their 10 or 12 bits at the top of 16, so they read as 16-bit samples.
    depth = 16 if name.startswith("p") else 10 if name.startswith("nv20") else 8
    luma, chroma = picture.planes[:2]
    y = _samples(luma, _dtype(depth, match[2]))[:, : luma.width]
    pairs = _samples(chroma, _dtype(depth, match[2]))[:, : 2 * chroma.width]
    u, v = pairs[:, 0::2], pairs[:, 1::2]
    return (y, v, u, depth) if match[1] in ("nv21", "nv42") else (y, u, v, depth)


def _packed(picture: av.VideoFrame, name: str) -> _Yuv | None:
    first = {"yuyv422": (0, 1, 3), "yvyu422": (0, 3, 1), "uyvy422": (1, 0, 2)}.get(name)
    if first is None:
        return None
    lines = _samples(picture.planes[0], np.dtype(np.uint8))
    chroma_width = -(-picture.width // 2)
    y = lines[:, first[0] :: 2][:, : picture.width]
    u, v = (lines[:, start::4][:, :chroma_width] for start in first[1:])
    return y, u, v, 8


def _rgb_samples(picture: av.VideoFrame, swscale: VideoReformatter) -> tuple[list[np.ndarray], int]:
    """Red, green and blue samples (H, W) of a picture without chroma planes, and their depth."""
    name, width = picture.format.name, picture.width
    if match := re.fullmatch(r"(gray|ya)(8|9|10|12|14|16|)(le|be)?", name):
        depth = int(match[2] or 8)
        gray = _samples(picture.planes[0], _dtype(depth, match[3]))
        return [gray[:, :: 2 if match[1] == "ya" else 1][:, :width]] * 3, depth
    if match := re.fullmatch(r"gbra?p(9|10|12|14|16|)(le|be)?", name):
        depth = int(match[1] or 8)
        green, blue, red = (_samples(plane, _dtype(depth, match[2]))[:, :width] for plane in picture.planes[:3])
        return [red, green, blue], depth
    if match := re.fullmatch(r"([rgba0]{3,4})(24|48|64)?(le|be)?", name):
        depth = 16 if match[2] in ("48", "64") else 8
        lines = _samples(picture.planes[0], _dtype(depth, match[3]))
        return [lines[:, match[1].index(letter) :: len(match[1])][:, :width] for letter in "rgb"], depth
    # Palettes, 5-6-5 bits, floating point and the like: swscale unpacks them.
    rgb = _rgb_view(swscale.reformat(picture, format="rgb24", interpolation=_PORTABLE, threads=1))
    return [rgb[..., channel] for channel in range(3)], 8

"""What is drawn on: size and layout of the decoded pictures, what their samples mean, how they are shown.

Colors go in as RGB and come out as samples of this picture; pictures as arrays, one per plane. Draws nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import av
import numpy as np

from ..color import Orientation

_BT601 = 5
_LUMA_WEIGHTS = {  # ITU-T H.273 matrix code > weights of red and blue in luma (its table 4)
    1: (0.2126, 0.0722),
    4: (0.30, 0.11),
    _BT601: (0.299, 0.114),
    7: (0.212, 0.087),
    9: (0.2627, 0.0593),
    10: (0.2627, 0.0593),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Canvas:
    """The decoded pictures of one film. `matrix` is an ITU-T H.273 code, `depth` the bits of a sample."""

    width: int
    height: int
    pixel_format: str
    matrix: int
    full_range: bool
    depth: int
    orientation: Orientation

    @property
    def chroma_step(self) -> tuple[int, int]:
        """Rows and columns of luma to one sample of chroma."""
        form = av.VideoFormat(self.pixel_format)
        return self.height // form.chroma_height(self.height) or 1, self.width // form.chroma_width(self.width) or 1

    @property
    def displayed_size(self) -> tuple[int, int]:
        """Height and width as shown."""
        return self.orientation.displayed_size(self.height, self.width)

    @property
    def meant_matrix(self) -> int:
        """The matrix that colors are converted with: a code that is unspecified or unknown means BT.601."""
        return self.matrix if self.matrix in _LUMA_WEIGHTS else _BT601

    def samples(self, rgb: np.ndarray) -> np.ndarray:
        """(..., 3) RGB, 0 to 255 > (..., 3) samples Y, U, V of this picture, rounded."""
        red_weight, blue_weight = _LUMA_WEIGHTS[self.meant_matrix]
        red, green, blue = np.moveaxis(np.asarray(rgb, np.float64) / 255, -1, 0)
        luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
        chroma_u = (blue - luma) / (2 - 2 * blue_weight)
        chroma_v = (red - luma) / (2 - 2 * red_weight)
        unit = 1 << self.depth - 8
        if self.full_range:
            top = (1 << self.depth) - 1
            yuv = (luma * top, chroma_u * top + 128 * unit, chroma_v * top + 128 * unit)
        else:
            yuv = ((16 + 219 * luma) * unit, (128 + 224 * chroma_u) * unit, (128 + 224 * chroma_v) * unit)
        return np.clip(np.rint(np.stack(yuv, axis=-1)), 0, (1 << self.depth) - 1).astype(np.int64)


def plane_views(picture: av.VideoFrame) -> list[np.ndarray]:
    """Y, U and V of a planar picture as writable arrays."""
    dtype = np.uint8 if picture.format.components[0].bits == 8 else np.uint16
    return [plane_of(picture, number, dtype) for number in range(3)]


def plane_of(picture: av.VideoFrame, number: int, dtype: type = np.uint8) -> np.ndarray:
    """One plane as an array without its padding."""
    plane: Any = picture.planes[number]  # a buffer, though PyAV's stubs do not say so
    lines = np.frombuffer(plane, dtype).reshape(plane.height, -1)
    return (lines[::-1] if plane.line_size < 0 else lines)[:, : plane.width]


def blank_picture(canvas: Canvas) -> av.VideoFrame:
    """Black, for a video whose first pictures are all missing."""
    blank = av.VideoFrame(canvas.width, canvas.height, canvas.pixel_format)
    for plane, sample in zip(plane_views(blank), canvas.samples(np.zeros(3)), strict=True):
        plane[...] = sample
    return blank

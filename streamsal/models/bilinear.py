"""Bilinear resizing that looks at no pixel but those that count: the four neighbors of each place in the result.

uint8 frames in, float32 levels out, as of `functional.interpolate(mode="bilinear", align_corners=False)` without
antialiasing, to within rounding. What counts may be picked by one process (`thinned`) and blended by another
(`squares`): the bits are those of the whole frames. Knows neither models nor colors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Neighbors:
    """Along one side of a frame: the pixels before n places in it and then those behind (2n,), and their weights."""

    pixels: Tensor
    weights: Tensor


@lru_cache(maxsize=1024)  # clips of a data set have many sizes, and a copy to a GPU waits for what the GPU is doing
def neighbors(
    pixels: int, resized: int, first: int, n: int, device: torch.device, *, thinned: bool = False
) -> Neighbors:
    """Of the places from `first` on in a side of so many pixels once it is resized; pixels count at their centers.

    `thinned`: all other pixels are gone.
    """
    scale = torch.tensor(pixels, dtype=torch.float32) / resized
    places = torch.arange(first, first + n, dtype=torch.float64)
    # Rounded to float32 once, after the difference: a fused multiply-add, as PyTorch's own resizing has it (2.11).
    position = ((places + 0.5) * scale.double() - 0.5).float().clamp_(min=0)
    before = position.long()
    behind = (before + 1).clamp_(max=pixels - 1)
    share = position - before
    around = torch.cat([before, behind])
    if thinned:
        around = around.unique(return_inverse=True)[1]
    return Neighbors(around.to(device), torch.cat([1 - share, share]).to(device))


def picked(frames_nhwc: Tensor, rows: Neighbors, columns: Neighbors) -> Tensor:
    """(..., 3, 2n, 2n) float32: the four neighbors of each place, in frames (..., H, W, 3)."""
    # No other pixel is converted: of 1080p a square of 160 pixels takes 1.0 ms, of 256 pixels 1.9, and with all of the
    # frame and `interpolate` 4.7 and 5.0; only frames smaller than the square take longer, 1.5 instead of 1.0 (one
    # thread of an EPYC). Against `interpolate` of PyTorch the last bit may differ.
    return frames_nhwc.index_select(-3, rows.pixels).index_select(-2, columns.pixels).movedim(-1, -3).float()


def between(x_nchw: Tensor, rows: Neighbors, columns: Neighbors) -> Tensor:
    """(..., 3, n, n): bilinear, from the four neighbors of each place, which are overwritten."""
    n = len(rows.pixels) // 2
    weighted = x_nchw.mul_(rows.weights[:, None] * columns.weights)
    pairs = weighted[..., :n, :] + weighted[..., n:, :]
    return pairs[..., :n] + pairs[..., n:]


def squares(frames_nhwc: Tensor, side: int, size: tuple[int, int] | None = None) -> Tensor:
    """(n, 3, side, side) float32 levels of uint8 frames (n, H, W, 3), whatever their shape.

    `size` is the height and width of whole frames where these are `thinned` for that side.
    """
    height, width = size or frames_nhwc.shape[1:3]
    if size and frames_nhwc.shape[1:3] != (len(counting(height, side)), len(counting(width, side))):
        raise ValueError(f"frames of {tuple(frames_nhwc.shape[1:3])} are not {size} thinned for {side = }")
    rows, columns = (
        neighbors(pixels, side, 0, side, frames_nhwc.device, thinned=size is not None) for pixels in (height, width)
    )
    return between(picked(frames_nhwc, rows, columns), rows, columns)


def thinned(frame_hwc: np.ndarray, side: int) -> np.ndarray:
    """The rows and columns of a frame that count for a square of this side: at most 2 side each. A copy."""
    rows, columns = (counting(pixels, side) for pixels in frame_hwc.shape[:2])
    return frame_hwc[rows][:, columns]


@lru_cache(maxsize=1024)
def counting(pixels: int, side: int) -> np.ndarray:
    """Numbers, ascending, of the pixels that count where so many are resized to `side`."""
    return neighbors(pixels, side, 0, side, torch.device("cpu")).pixels.unique().numpy()

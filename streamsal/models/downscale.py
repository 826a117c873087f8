"""Full-size uint8 frames to small float pictures, fast.

In: (B, H, W, 3) uint8 on any device. Out: one (B, 3, h, w) float32 picture in [0, 1] per wanted size, the bilinear
interpolation with antialiasing of `torch.nn.functional.interpolate(..., antialias=True)` to within rounding. It knows
no model.

The filter is separable and short, so it is done as narrow matrix products over a few rows of the frame at a time:
the frame is never held as floats. 1080p to 80 x 128 and 18 x 32 takes 3.6 ms on one core of an EPYC (Zen 5); to make
floats of the frame and call `interpolate`, 26 ms for the larger size alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

ROW_BLOCK_VALUES = 2**18  # floats of one block of rows: 1 MiB, what a core's second-level cache holds
COLUMN_BLOCK = 32  # output columns of one product: narrow enough to skip most of the zeros of the matrix


def triangle_weights(n_in: int, n_out: int) -> np.ndarray:
    """Interpolation along one axis as a matrix (n_out, n_in): a triangle as wide as the step, cut off at the border."""
    scale = n_in / n_out
    reach = max(scale, 1.0)
    center = (np.arange(n_out)[:, None] + 0.5) * scale
    first = np.maximum(np.floor(center - reach + 0.5), 0)
    stop = np.minimum(np.floor(center + reach + 0.5), n_in)
    source = np.arange(n_in)[None]
    weights = np.clip(1 - np.abs(source + 0.5 - center) / reach, 0, None) * ((source >= first) & (source < stop))
    return weights / weights.sum(axis=1, keepdims=True)


def nonzero_range(rows: np.ndarray) -> tuple[int, int]:
    """First and past-the-last index along axis 1 where any row of a banded matrix is not zero."""
    used = np.flatnonzero(rows.any(axis=0))
    return (int(used[0]), int(used[-1]) + 1) if used.size else (0, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class RowBlock:
    """Input rows [start, stop), and what they add to which rows of each size's vertically filtered picture."""

    start: int
    stop: int
    weights: Tensor  # (rows of all sizes stacked, stop - start)
    targets: tuple[slice, ...]  # one per size


@dataclass(frozen=True, slots=True, kw_only=True)
class ColumnBlock:
    """Output columns and the only input columns that they depend on."""

    target: slice
    source: slice
    weights: Tensor  # (input columns, output columns)


class Downscale:
    """Downscaling of frames of one size to several sizes, with the weights made once."""

    def __init__(self, height: int, width: int, sizes: Sequence[tuple[int, int]], *, device: torch.device | str):
        self.sizes = tuple(sizes)
        self.rows = row_blocks(height, max(8, ROW_BLOCK_VALUES // (3 * width)), [h for h, _ in sizes], device)
        self.columns = [column_blocks(width, w, device) for _, w in sizes]

    def __call__(self, frames_nhwc: Tensor) -> list[Tensor]:
        """(B, 3, h, w) float32 in [0, 1] for every size."""
        # On a CPU one frame at a time, so that a block of rows stays in the cache; on a GPU all frames in one launch.
        group = 1 if frames_nhwc.device.type == "cpu" else len(frames_nhwc)
        parts = [self._group(frames) for frames in frames_nhwc.split(group)]
        return [torch.cat(pictures) for pictures in zip(*parts, strict=True)]

    def _group(self, frames_nhwc: Tensor) -> list[Tensor]:
        n, height, width, _ = frames_nhwc.shape
        frames = frames_nhwc.reshape(n, height, width * 3)
        tall = [torch.zeros(n, h, width * 3, device=frames.device) for h, _ in self.sizes]
        for block in self.rows:
            added = torch.matmul(block.weights, frames[:, block.start : block.stop].float())
            counts = [target.stop - target.start for target in block.targets]
            for picture, target, part in zip(tall, block.targets, added.split(counts, dim=1), strict=True):
                picture[:, target] += part
        return [self._narrow(*each) for each in zip(tall, self.sizes, self.columns, strict=True)]

    def _narrow(self, tall: Tensor, size: tuple[int, int], columns: list[ColumnBlock]) -> Tensor:
        planes = tall.unflatten(2, (-1, 3)).permute(0, 3, 1, 2).contiguous()  # n 3 h W
        small = torch.empty(len(tall), 3, *size, device=tall.device)
        for block in columns:
            small[..., block.target] = torch.matmul(planes[..., block.source], block.weights)
        return small


def row_blocks(n_in: int, block_rows: int, heights: Sequence[int], device: torch.device | str) -> list[RowBlock]:
    matrices = [triangle_weights(n_in, h) / 255 for h in heights]
    blocks = []
    for start in range(0, n_in, block_rows):
        stop = min(start + block_rows, n_in)
        targets = tuple(slice(*nonzero_range(matrix[:, start:stop].T)) for matrix in matrices)
        stacked = np.concatenate([m[rows, start:stop] for m, rows in zip(matrices, targets, strict=True)])
        blocks.append(RowBlock(start=start, stop=stop, weights=as_float(stacked, device), targets=targets))
    return blocks


def column_blocks(n_in: int, n_out: int, device: torch.device | str) -> list[ColumnBlock]:
    matrix = triangle_weights(n_in, n_out)
    blocks = []
    for start in range(0, n_out, COLUMN_BLOCK):
        target = slice(start, min(start + COLUMN_BLOCK, n_out))
        source = slice(*nonzero_range(matrix[target]))
        weights = as_float(matrix[target, source].T, device)
        blocks.append(ColumnBlock(target=target, source=source, weights=weights))
    return blocks


def as_float(matrix: np.ndarray, device: torch.device | str) -> Tensor:
    return torch.tensor(matrix, dtype=torch.float32, device=device)

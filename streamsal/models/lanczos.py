"""Frames made smaller or larger as Pillow does it with LANCZOS, on any device: bytes in, the same bytes as float32 out.

Each axis is a product with a matrix that is zero but for a band, so it is done in pieces of some outputs that share
their inputs. Pillow computes in integers of 32 bits; their halves fit float32, and every sum of these is exact, in
whatever order a device adds.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .downscale import nonzero_range

REACH = 3  # zero crossings of the filter on each side
PRECISION = 22  # bits behind the point of Pillow's weights (Resample.c: 32 - 8 - 2)
HALF = float(1 << PRECISION // 2)
AT_ONCE = 16  # outputs of a piece: of more, the product is mostly zeros; of fewer, mostly calls


def lanczos_matrix(n_in: int, n_out: int) -> np.ndarray:
    """(n_out, n_in) int64: which inputs each output is made of; its rows sum to 2^22 but for rounding."""
    scale = n_in / n_out
    stretch = max(scale, 1.0)
    center = (np.arange(n_out)[:, None] + 0.5) * scale
    at = np.arange(n_in)[None]
    # Pillow truncates the borders of the window to whole numbers, and leaves what is beyond them out.
    first = np.maximum(center - REACH * stretch + 0.5, 0).astype(int)
    end = np.minimum(center + REACH * stretch + 0.5, n_in).astype(int)
    distance = (at + 0.5 - center) / stretch
    value = np.where(np.abs(distance) < REACH, np.sinc(distance) * np.sinc(distance / REACH), 0.0)
    value *= (at >= first) & (at < end)
    value *= 2.0**PRECISION / value.sum(1, keepdims=True)
    return np.trunc(value + np.copysign(0.5, value)).astype(np.int64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """Outputs made of the inputs in `reads`; `weights` (2 outputs, inputs): the upper halves of all, then the lower."""

    reads: slice
    weights: Tensor


class Lanczos:
    """From frames of one size to `size`, (height, width) in pixels."""

    def __init__(self, frame_size: tuple[int, int], size: tuple[int, int], *, device: torch.device):
        down, across = (lanczos_matrix(n_in, n_out) for n_in, n_out in zip(frame_size, size, strict=True))
        self.rows, self.columns = pieces(down, device), pieces(across, device)

    def __call__(self, frames_nhwc: Tensor) -> Tensor:
        """(n, 3, h, w) float32 of whole numbers from 0 to 255, of uint8 RGB."""
        x = frames_nhwc.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)  # n 3 H W
        x = torch.cat([as_bytes(x[..., piece.reads] @ piece.weights.mT, 3) for piece in self.columns], 3)  # n 3 H w
        return torch.cat([as_bytes(piece.weights @ x[:, :, piece.reads], 2) for piece in self.rows], 2)  # n 3 h w


def pieces(matrix: np.ndarray, device: torch.device) -> list[Piece]:
    found = []
    for low in range(0, len(matrix), AT_ONCE):
        start, stop = nonzero_range(matrix[low : low + AT_ONCE])
        upper, lower = np.divmod(matrix[low : low + AT_ONCE, start:stop], int(HALF))
        weights = torch.from_numpy(np.concatenate([upper, lower]).astype(np.float32)).to(device)
        found.append(Piece(reads=slice(start, stop), weights=weights))
    return found


def as_bytes(x: Tensor, axis: int) -> Tensor:
    """Rounded, halves upward, from upper and lower halves along `axis`."""
    upper, lower = x.chunk(2, axis)
    return ((lower / HALF).floor_().add_(upper).add_(HALF / 2).div_(HALF)).floor_().clamp_(0, 255)

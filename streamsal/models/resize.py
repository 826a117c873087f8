"""Frames of another size, bytes in, bytes out: for planning's --long-side, and for networks that see one size."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def resized(frames_nhwc: Tensor, height: int, width: int, *, antialias: bool) -> Tensor:
    """uint8 (n, H, W, 3) to (n, height, width, 3), a copy: bilinear, half-pixel centers, rounded; `antialias` as PIL
    does, without as OpenCV."""
    if frames_nhwc.shape[1:3] == (height, width):
        return frames_nhwc.clone()
    small = [
        functional.interpolate(
            frame[None].permute(0, 3, 1, 2).float(), (height, width), mode="bilinear", antialias=antialias
        )
        for frame in frames_nhwc  # one by one: the float32 copy of a whole batch of large frames would be several GB
    ]
    return torch.cat(small).round_().clamp_(0, 255).to(torch.uint8).permute(0, 2, 3, 1)

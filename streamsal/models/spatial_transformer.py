"""What spatial transformers (Jaderberg et al. 2015) of clips are made of: where a network looks in every frame.

In: frames of clips, one behind the other. Out: six numbers per frame, and the frames seen through them, in float32
whatever autocast says: bfloat16 rounds a position among 112 pixels by up to 0.2.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

IDENTITY = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
HIDDEN = 32
LAST_CHANNELS = 8  # of the localization, whose maps are a quarter as high and wide as what it reads


def affine(side: int) -> nn.Sequential:
    """From what a localization makes of pictures of `side` pixels to six numbers, which are the identity at first."""
    last = nn.Linear(HIDDEN, 6)
    with torch.no_grad():
        last.weight.zero_()
        last.bias.copy_(torch.tensor(IDENTITY))
    return nn.Sequential(nn.Linear(length_of_vector(side), HIDDEN), nn.Tanh(), last)


def length_of_vector(side: int) -> int:
    """Of what a localization makes of pictures of `side` pixels."""
    return LAST_CHANNELS * (side // 4) ** 2


def thetas(
    localization: nn.Module, fc_loc: nn.Module, pictures: Tensor, scale: Callable[[Tensor], Tensor] | None = None
) -> Tensor:
    """(n, c, side, side) -> (n, 2, 3), times what `scale` gives."""
    found = localization(pictures).flatten(1)
    with torch.autocast(found.device.type, enabled=False):
        found = found.to(torch.promote_types(found.dtype, torch.float32))
        theta = fc_loc(found) if scale is None else scale(found) * fc_loc(found)
        return theta.view(-1, 2, 3)


def warped(pictures: Tensor, theta: Tensor) -> Tensor:
    """(n, c, h, w) seen through (n, 2, 3); black where nothing is."""
    with torch.autocast(pictures.device.type, enabled=False):
        grid = functional.affine_grid(theta, list(pictures.shape), align_corners=False)
        seen = functional.grid_sample(pictures.to(theta.dtype), grid, align_corners=False)
    return seen.to(pictures.dtype)


def folded(clips_ncthw: Tensor) -> Tensor:
    """Frames of clips as one batch of pictures (n T, c, h, w), in the memory layout that convolutions like best."""
    return clips_ncthw.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)


def unfolded(frames_nchw: Tensor, frames: int) -> Tensor:
    """The clips (n, c, T, h, w) that `folded` was given."""
    return cast(Tensor, frames_nchw.unflatten(0, (-1, frames))).transpose(1, 2)


def planes(frames_nchw: Tensor, frames: int, legacy_layout: bool) -> Tensor:
    """What a transformer takes for frames: the frames, unless its weights were trained with the quirk of 2022.

    That program read the memory of a clip (c, T, h, w) as if it were (T, c, h, w), so that its first "frame" was the
    first color at times 0, 1 and 2, and the colors of one frame were warped by different numbers. Weights that were
    trained so need it; `frames_of` brings the planes back, which is why nothing looked wrong.
    """
    if not legacy_layout:
        return frames_nchw
    return unfolded(frames_nchw, frames).reshape(frames_nchw.shape)


def frames_of(planes_nchw: Tensor, frames: int, legacy_layout: bool) -> Tensor:
    """The frames that `planes` was given."""
    if not legacy_layout:
        return planes_nchw
    n, channels, height, width = planes_nchw.shape
    return folded(planes_nchw.reshape(n // frames, channels, frames, height, width))

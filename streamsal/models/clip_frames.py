"""How a frame becomes the input of a clip model: uint8 RGB of any size in, a normalized square out.

Each family of checkpoints was trained behind rules of its own, which differ by a pixel and by the rounding: those of
PySlowFast and those of torchvision are here, and a `Recipe` says which one, how small and which square. Which frames
make a clip is no matter of this file.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from .bilinear import between, neighbors, picked

# Of PySlowFast, and of what torchvision took over from it, in RGB of 0 ... 1.
GRAY_MEAN = (0.45, 0.45, 0.45)
GRAY_STD = (0.225, 0.225, 0.225)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """What is done to every frame.

    `family` "pyslowfast": normalize, resize in float, crop. "torchvision": resize and round to uint8, crop, normalize.
    Both resize bilinearly without antialiasing. `resize`: the new short side, or (height, width) whatever the shape of
    the frame. `crop`: side of the square, in pixels after resizing. `position` of the square along the longer side of
    the frame; for frames that are higher than wide, left means top and right means bottom. `mean` and `std` are those
    of RGB in 0 ... 1.
    """

    family: Literal["pyslowfast", "torchvision"]
    resize: int | tuple[int, int]
    crop: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    position: Literal["left", "center", "right"] = "center"

    def __post_init__(self) -> None:
        least = self.resize if isinstance(self.resize, int) else min(self.resize)
        if not 0 < self.crop <= least:
            raise ValueError(f"a square of {self.crop} pixels does not fit into frames resized to {self.resize}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Size of a frame after resizing, and the first row and column of its square there."""

    height: int
    width: int
    top: int
    left: int


def prepared(frames_nhwc: Tensor, recipe: Recipe) -> Tensor:
    """(n, 3, crop, crop) float32 as the network wants them, from uint8 RGB frames of one size; each by itself."""
    device, (height, width) = frames_nhwc.device, frames_nhwc.shape[1:3]
    place = placement(height, width, recipe)
    mean, std = (_per_channel(x, device) for x in (recipe.mean, recipe.std))

    def normalize(x_chw: Tensor) -> Tensor:
        return x_chw.div_(255).sub_(mean).div_(std)

    squares = torch.empty((len(frames_nhwc), 3, recipe.crop, recipe.crop), device=device)
    if recipe.family == "pyslowfast":
        rows = neighbors(height, place.height, place.top, recipe.crop, device)
        columns = neighbors(width, place.width, place.left, recipe.crop, device)
        for frame_hwc, square in zip(frames_nhwc, squares, strict=True):
            square.copy_(between(normalize(picked(frame_hwc, rows, columns)), rows, columns))
        return squares
    for frame_hwc, square in zip(frames_nhwc, squares, strict=True):
        # All of the frame, though only a square of it is wanted: to convert no more than that saves nothing here, and
        # every bit has to be that of torchvision, whose values are rounded.
        x = frame_hwc.permute(2, 0, 1).float()
        normalize(square.copy_(_square(x, place, recipe.crop)).round_())
    return squares


def crop_box(height: int, width: int, recipe: Recipe) -> tuple[float, float, float, float]:
    """(top, left, bottom, right) of what the network sees of a height x width frame, in fractions of its sides."""
    place = placement(height, width, recipe)
    bottom, right = place.top + recipe.crop, place.left + recipe.crop
    return place.top / place.height, place.left / place.width, bottom / place.height, right / place.width


def placement(height: int, width: int, recipe: Recipe) -> Placement:
    """Where the square of a height x width frame lies, in pixels of the resized frame."""
    new_height, new_width = _resized_size(height, width, recipe)
    rows, columns = new_height - recipe.crop, new_width - recipe.crop
    top, left = _middle(rows, recipe), _middle(columns, recipe)
    if recipe.position != "center":
        if new_height > new_width:
            top = 0 if recipe.position == "left" else rows
        else:
            left = 0 if recipe.position == "left" else columns
    return Placement(height=new_height, width=new_width, top=top, left=left)


def _resized_size(height: int, width: int, recipe: Recipe) -> tuple[int, int]:
    if not isinstance(recipe.resize, int):
        return recipe.resize
    short, long = sorted((height, width))
    if short == recipe.resize:
        return height, width
    # The two families round differently where the quotient is not exact, so each in its own order of operations.
    if recipe.family == "pyslowfast":
        longer = math.floor(long / short * recipe.resize)
    else:
        longer = int(recipe.resize * long / short)
    return (recipe.resize, longer) if height <= width else (longer, recipe.resize)


def _middle(room: int, recipe: Recipe) -> int:
    # `round` takes halves to the even number, as torchvision's center_crop does.
    return math.ceil(room / 2) if recipe.family == "pyslowfast" else round(room / 2)


@cache  # because a copy to a GPU waits for what the GPU is doing
def _per_channel(values: tuple[float, float, float], device: torch.device) -> Tensor | float:
    # One number for all channels where there is one: a third of the time, because pixels lie together in memory.
    return values[0] if len(set(values)) == 1 else torch.tensor(values, device=device).view(3, 1, 1)


def _square(x_chw: Tensor, place: Placement, crop: int) -> Tensor:
    """(3, crop, crop): the square of the resized picture."""
    size = (place.height, place.width)
    if size != x_chw.shape[1:]:
        x_chw = functional.interpolate(x_chw[None], size=size, mode="bilinear", align_corners=False)[0]
    return x_chw[:, place.top : place.top + crop, place.left : place.left + crop]

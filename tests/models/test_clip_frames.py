"""The input of clip models against PySlowFast's measured crops and against torchvision's own presets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.models import video
from torchvision.transforms._presets import VideoClassification

from streamsal.models.clip_frames import Recipe, crop_box, placement, prepared

FIXTURES = Path(__file__).parents[1] / "fixtures/embeddings"
POSITIONS = ("left", "center", "right")  # by number of the crop
PYSLOWFAST = Recipe(family="pyslowfast", resize=64, crop=56, mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))
PRESETS = {
    "fixed size": VideoClassification(crop_size=(112, 112), resize_size=(128, 171)),
    "short side": VideoClassification(crop_size=(60, 60), resize_size=(65,), mean=(0.45,) * 3, std=(0.225,) * 3),
    "swin3d_t": video.Swin3D_T_Weights.KINETICS400_V1.transforms(),
    "s3d": video.S3D_Weights.KINETICS400_V1.transforms(),
}
SIZES = [(90, 161), (161, 90), (65, 65), (64, 200), (128, 171), (256, 341), (317, 256), (40, 33), (540, 959)]


def noise(n: int, height: int, width: int) -> Tensor:
    values = np.random.default_rng(height * width).integers(0, 256, (n, height, width, 3), np.uint8)
    return torch.from_numpy(values)


def recipe_of(preset: Any) -> Recipe:
    size = preset.resize_size
    return Recipe(
        family="torchvision",
        resize=size[0] if len(size) == 1 else tuple(size),
        crop=preset.crop_size[0],
        mean=tuple(preset.mean),
        std=tuple(preset.std),
    )


@pytest.mark.parametrize("crop", range(3))
@pytest.mark.parametrize(
    "case", json.loads((FIXTURES / "spatial_sampling.json").read_text()), ids=lambda case: case["i"]
)
def test_the_three_crops_are_pyslowfasts(case: dict[str, int], crop: int) -> None:
    measured = np.load(FIXTURES / "spatial_sampling.npz")
    recipe = replace(PYSLOWFAST, resize=case["short_side"], crop=case["crop"], position=POSITIONS[crop])
    found = prepared(torch.from_numpy(measured[f"frames{case['i']}"]), recipe)
    wanted = measured[f"out{case['i']}_{crop}"]
    # The last bit differs: PyTorch adds in another order where the colors of a pixel lie together, as a decoder has
    # them, and that takes an eighth of the time of the layout in which these were measured.
    assert (found - torch.from_numpy(wanted).transpose(0, 1)).abs().max() <= 5e-7


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("preset", PRESETS)
def test_every_bit_is_that_of_torchvisions_presets(preset: str, size: tuple[int, int]) -> None:
    frames = noise(2, *size)
    wanted = PRESETS[preset](frames.permute(0, 3, 1, 2))
    found = prepared(frames, recipe_of(PRESETS[preset]))
    assert torch.equal(found, wanted.transpose(0, 1))


def test_a_frame_is_prepared_the_same_in_any_batch() -> None:
    frames = noise(5, 97, 150)
    for recipe in (PYSLOWFAST, recipe_of(PRESETS["swin3d_t"])):
        together = prepared(frames, recipe)
        assert torch.equal(together, torch.cat([prepared(frame[None], recipe) for frame in frames]))


def test_frames_of_the_right_short_side_are_only_cropped() -> None:
    """Upstream's rule is no matter of taste: 115 / 56 * 56 is a little less than 115, and would lose a column."""
    frames = noise(1, 56, 115)
    found = prepared(frames, replace(PYSLOWFAST, resize=56))
    wanted = (frames[0, :, 30:86].permute(2, 0, 1) / 255 - 0.45) / 0.225
    assert torch.equal(found[0], wanted)


def test_pixels_outside_the_square_do_not_matter() -> None:
    for recipe in (PYSLOWFAST, replace(PYSLOWFAST, position="right"), recipe_of(PRESETS["short side"])):
        frames = noise(1, 301, 600)
        changed = frames.clone()
        top, left, bottom, right = crop_box(301, 600, recipe)
        seen = torch.zeros((301, 600), dtype=torch.bool)
        seen[int(top * 301) - 1 : int(bottom * 301) + 2, max(0, int(left * 600) - 1) : int(right * 600) + 2] = True
        changed[:, ~seen] = 0
        assert torch.equal(prepared(frames, recipe), prepared(changed, recipe))
        changed[:, seen] = 0
        assert not torch.equal(prepared(frames, recipe), prepared(changed, recipe))


@pytest.mark.parametrize("position", POSITIONS)
def test_the_box_is_where_the_square_lies_in_the_frame(position: str) -> None:
    """A picture whose red is the row and whose green is the column tells where its corners came from."""
    height, width = 200, 240
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    frame = torch.stack([rows, columns, rows], -1).to(torch.uint8)[None]
    recipe = replace(PYSLOWFAST, resize=100, crop=80, mean=(0.0,) * 3, std=(1.0,) * 3, position=position)
    top, left, bottom, right = crop_box(height, width, recipe)
    found = prepared(frame, recipe)[0] * 255 + 0.5  # edges of pixels instead of their centers
    assert found[0, 0, 0] == pytest.approx(top * height + 1, abs=1e-3)
    assert found[1, 0, 0] == pytest.approx(left * width + 1, abs=1e-3)
    assert found[0, -1, 0] == pytest.approx(bottom * height - 1, abs=1e-3)
    assert found[1, 0, -1] == pytest.approx(right * width - 1, abs=1e-3)


def test_left_and_right_of_an_upright_frame_are_top_and_bottom() -> None:
    places = [placement(300, 200, replace(PYSLOWFAST, position=position)) for position in POSITIONS]
    assert [(place.height, place.width) for place in places] == [(96, 64)] * 3
    assert [(place.top, place.left) for place in places] == [(0, 4), (20, 4), (40, 4)]


def test_a_square_larger_than_the_resized_frame_is_refused() -> None:
    with pytest.raises(ValueError, match="a square of 224 pixels"):
        replace(PYSLOWFAST, crop=224)

"""Spatial transformers: one made of the parts against measured numbers in both layouts, and what warping promises."""

from __future__ import annotations

import pytest
import torch
from lowres_networks import clips, fixture, shapes, stand_ins
from torch import Tensor, nn

from streamsal.models.spatial_transformer import affine, folded, frames_of, planes, thetas, unfolded, warped


class Alone(nn.Module):
    """The transformer that the old program had before a resizer, in no classifier of ours."""

    def __init__(self, *, legacy_layout: bool = False) -> None:
        super().__init__()
        self.legacy_layout = legacy_layout
        self.localization = nn.Sequential(
            *(nn.Conv2d(3, 16, 7, padding=3), nn.MaxPool2d(3, 2, 1), nn.Tanh()),
            *(nn.Conv2d(16, 8, 5, padding=2), nn.MaxPool2d(2), nn.Tanh()),
        )
        self.fc_loc = affine(28)

    def thetas(self, clips_ncthw: Tensor) -> Tensor:
        seen = planes(folded(clips_ncthw), clips_ncthw.shape[2], self.legacy_layout)
        return thetas(self.localization, self.fc_loc, seen)

    def forward(self, clips_ncthw: Tensor) -> Tensor:
        frames = clips_ncthw.shape[2]
        shown = warped(planes(folded(clips_ncthw), frames, self.legacy_layout), self.thetas(clips_ncthw))
        return unfolded(frames_of(shown, frames, self.legacy_layout), frames)


@pytest.mark.parametrize(("legacy_layout", "suffix"), [(True, ""), (False, "_per_frame")], ids=["planes", "frames"])
def test_clips_are_warped_as_measured(legacy_layout: bool, suffix: str) -> None:
    net = Alone(legacy_layout=legacy_layout)
    net.load_state_dict(stand_ins("spatial_transformer_28"))
    wanted, clip = fixture("spatial_transformer_28"), clips(12, 13, size=(8, 28, 28))
    with torch.inference_mode():
        torch.testing.assert_close(net.thetas(clip), wanted[f"theta{suffix}"], rtol=0, atol=2e-4)
        torch.testing.assert_close(net(clip), wanted[f"output{suffix}"], rtol=0, atol=2e-4)


def test_its_entries_are_the_old_programs() -> None:
    found = {key: tuple(value.shape) for key, value in Alone().state_dict().items()}
    assert found == shapes("spatial_transformer_28")


@pytest.mark.parametrize("legacy_layout", [False, True], ids=["frames", "planes"])
def test_a_new_one_changes_nothing(legacy_layout: bool) -> None:
    clip = clips(1, size=(4, 28, 28))
    torch.testing.assert_close(Alone(legacy_layout=legacy_layout)(clip), clip, rtol=0, atol=1e-5)


def test_the_legacy_layout_takes_three_times_of_one_color_for_a_frame() -> None:
    color, time = torch.arange(3.0)[:, None] * 100, torch.arange(32.0)
    clip = (color + time)[None, :, :, None, None].expand(2, 3, 32, 4, 4)
    seen = planes(folded(clip), 32, legacy_layout=True)
    assert seen[0, :, 0, 0].tolist() == [0, 1, 2]
    assert seen[10, :, 0, 0].tolist() == [30, 31, 100]
    assert torch.equal(unfolded(frames_of(seen, 32, legacy_layout=True), 32), clip)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last_3d], ids=["plain", "last"])
def test_folding_and_unfolding_give_the_clip_back(memory_format: torch.memory_format) -> None:
    clip = clips(1, 2, size=(3, 5, 7)).contiguous(memory_format=memory_format)
    assert torch.equal(folded(clip)[4], clip[1, :, 1])
    assert torch.equal(unfolded(folded(clip), 3), clip)


def test_a_place_outside_of_the_picture_is_black() -> None:
    away = torch.tensor([[[1.0, 0, 5], [0, 1, 5]]])
    assert not warped(torch.ones(1, 3, 8, 8), away).any()


def test_a_warp_is_computed_in_float32_under_autocast() -> None:
    net = Alone()
    net.load_state_dict(stand_ins("spatial_transformer_28"))
    clip = clips(12, size=(4, 28, 28))
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        assert net.thetas(clip).dtype == torch.float32
        picture = clip[0, :, :1].transpose(0, 1)
        theta = net.thetas(clip)[:1]
        assert torch.equal(warped(picture, theta), _outside_autocast(picture, theta))


def _outside_autocast(picture: torch.Tensor, theta: torch.Tensor) -> torch.Tensor:
    with torch.autocast("cpu", enabled=False):
        return warped(picture, theta)

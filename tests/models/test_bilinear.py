"""Resizing from the pixels that count is PyTorch's bilinear resizing, whoever picked those pixels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional

from streamsal.models.bilinear import counting, squares, thinned

SIZES = st.integers(1, 200)


def noise(*size: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(sum(size)).integers(0, 256, (2, *size, 3), np.uint8))


def thin(frames_nhwc: Tensor, side: int) -> Tensor:
    return torch.from_numpy(np.stack([thinned(frame, side) for frame in frames_nhwc.numpy()]))


@settings(deadline=None)
@given(height=SIZES, width=SIZES, side=st.integers(1, 70))
def test_squares_are_pytorchs_larger_and_smaller(height: int, width: int, side: int) -> None:
    frames = noise(height, width)
    wanted = functional.interpolate(frames.permute(0, 3, 1, 2).float(), (side, side), mode="bilinear")
    # Of 255 levels: a place behind pixel 128 may be off by 2^-16 pixels, where a machine has no fused multiply-add.
    torch.testing.assert_close(squares(frames, side), wanted, rtol=0, atol=5e-3)


@settings(deadline=None)
@given(height=SIZES, width=SIZES, side=st.integers(1, 70))
def test_frames_without_the_pixels_that_do_not_count_give_the_same_bits(height: int, width: int, side: int) -> None:
    frames = noise(height, width)
    left = thin(frames, side)
    assert left.shape[1] <= min(height, 2 * side) and left.shape[2] <= min(width, 2 * side)
    assert torch.equal(squares(left, side, (height, width)), squares(frames, side))


def test_a_frame_has_the_same_bits_in_any_batch() -> None:
    frames = noise(97, 150)
    assert torch.equal(squares(frames, 14), torch.cat([squares(frame[None], 14) for frame in frames]))


def test_frames_of_the_right_size_are_as_they_are() -> None:
    frames = noise(20, 20)
    assert torch.equal(thin(frames, 20), frames)
    assert torch.equal(squares(frames, 20), frames.permute(0, 3, 1, 2).float())


def test_pixels_count_at_their_centers() -> None:
    assert counting(8, 2).tolist() == [1, 2, 5, 6]
    assert counting(9, 3).tolist() == [1, 2, 4, 5, 7, 8]  # 2, 5 and 8 with no weight
    assert counting(2, 5).tolist() == [0, 1]


def test_what_is_cached_without_gradients_serves_training() -> None:
    frames = noise(33, 35)
    with torch.inference_mode():
        first = squares(frames, 9)
    scale = torch.ones((), requires_grad=True)
    (squares(frames, 9) * scale).sum().backward()
    assert scale.grad is not None and scale.grad.allclose(first.sum())


def test_frames_thinned_for_another_side_are_refused() -> None:
    with pytest.raises(ValueError, match=r"are not .* thinned for side = 7"):
        squares(thin(noise(40, 60), 8), 7, (40, 60))


@pytest.mark.needs_cuda
def test_a_gpu_computes_the_same_to_rounding() -> None:
    frames = noise(135, 240)
    left = thin(frames, 14).cuda()
    assert torch.equal(squares(left, 14, (135, 240)), squares(frames.cuda(), 14))
    torch.testing.assert_close(squares(left, 14, (135, 240)).cpu(), squares(frames, 14), rtol=0, atol=1e-4)

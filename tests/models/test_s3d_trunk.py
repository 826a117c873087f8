"""The trunk of the S3D family: its parts are the whole, and kernels on views are the kernels of three axes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from streamsal.models import s3d_trunk as s3d
from streamsal.weights import synthetic


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return synthetic.state_dict(s3d.template(), adjust={})


def noise(*shape: int) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return x.contiguous(memory_format=torch.channels_last)


def normed(x: Tensor, weights: dict[str, Tensor], name: str) -> Tensor:
    leaves = (weights[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return functional.batch_norm(x, *leaves, eps=s3d.EPS).relu()


def as_clip(x_tchw: Tensor) -> Tensor:
    return x_tchw.transpose(0, 1)[None]


def test_a_folded_kernel_on_a_view_is_the_kernel_of_three_axes_and_its_norm(weights: dict[str, Tensor]) -> None:
    x = noise(6, 64, 6, 10)
    for axis, options in (("s", {"padding": (0, 1, 1)}), ("t", {"padding": (1, 0, 0)})):
        name = "base1.3"
        kernel = weights[f"{name}.conv_{axis}.weight"]
        wanted = normed(functional.conv3d(as_clip(x), kernel, **options), weights, f"{name}.bn_{axis}")
        found = s3d.Conv(weights, f"{name}.conv_{axis}", f"{name}.bn_{axis}")(x)
        torch.testing.assert_close(as_clip(found), wanted, rtol=0, atol=1e-4)
        x = found


def test_pooling_places_and_then_time_is_pooling_both() -> None:
    x = noise(6, 5, 7, 9)
    found = s3d.pool_time(functional.max_pool2d(x, 3, 2, 1), 3, stride=2, padding=1)
    assert torch.equal(as_clip(found), functional.max_pool3d(as_clip(x), 3, 2, 1))


def test_views_of_a_clip_copy_nothing() -> None:
    x = noise(6, 5, 7, 9)
    flat = s3d.time_by_place(x)
    assert flat.is_contiguous(memory_format=torch.channels_last)
    assert flat.data_ptr() == x.data_ptr()
    assert torch.equal(s3d.frames_again(flat, x), x)


def test_every_level_halves_what_it_should(weights: dict[str, Tensor]) -> None:
    with torch.no_grad():
        base1 = s3d.Base1(weights)(noise(16, 3, 32, 64))
        y2, y1, x = s3d.Later(weights)(base1)
        y0 = s3d.base4(weights)(functional.max_pool2d(x, 2))
    shapes = [(8, 192, 8, 16), (8, 480, 4, 8), (4, 832, 2, 4), (2, 832, 2, 4), (2, 1024, 1, 2)]
    assert [tuple(y.shape) for y in (base1, y2, y1, x, y0)] == shapes

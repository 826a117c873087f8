"""The trunk that TASED-Net, ViNet and ViNet-S share: an S3D; a clip of pictures in, maps at four depths out.

Xie et al. 2018, Rethinking Spatiotemporal Feature Learning. A clip is held as its frames, (t, c, h, w) in
channels_last, so that every kernel, which is one frame deep or one pixel wide, is a convolution of pictures on a view.
Batch norms are folded into the kernels. The first stage comes in three parts, because what it computes of a frame
serves every clip that shows the frame (see sliding_clip.py). Decoders, frame sizes and devices are no matter of this
file.

    first: 7x7, each frame alone  >  early: 7 frames, pool, 3x3  >  late: 3 time steps  >  base2 ... base4
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from .backbones import Weights, affine, constant

EPS = 1e-3  # of every batch norm, as in TensorFlow, where the S3D comes from
ROW_CHANNELS, STEP_CHANNELS = 64, 192  # after `first`; after `early` and `late`

# Mixed blocks by their keys: channels in, and of the kernels in four branches: 1x1; 1x1, 3x3; 1x1, 3x3; pool, 1x1.
MIXED = {
    "base2.0": (192, 64, 96, 128, 16, 32, 32),
    "base2.1": (256, 128, 128, 192, 32, 96, 64),
    "base3.0": (480, 192, 96, 208, 16, 48, 64),
    "base3.1": (512, 160, 112, 224, 24, 64, 64),
    "base3.2": (512, 128, 128, 256, 24, 64, 64),
    "base3.3": (512, 112, 144, 288, 32, 64, 64),
    "base3.4": (528, 256, 160, 320, 32, 128, 128),
    "base4.0": (832, 256, 160, 320, 32, 128, 128),
    "base4.1": (832, 384, 192, 384, 48, 128, 128),
}


class Base1(nn.Module):
    """The first stage, in parts that need a few frames each.

    first   (n, 3, h, w) pictures -> (n, 64, h / 2, w / 2)
    early   (7 + 2 k, 64, h / 2, w / 2) -> (1 + k, 192, h / 4, w / 4), each from 7 consecutive rows, two rows apart
    late    (3 + k, 192, h / 4, w / 4) -> (1 + k, 192, h / 4, w / 4), each from 3 consecutive steps
    """

    def __init__(self, weights: Weights, prefix: str = ""):
        super().__init__()
        self.first = Conv(weights, f"{prefix}base1.0.conv_s", f"{prefix}base1.0.bn_s", stride=2)
        self.seven = Conv(weights, f"{prefix}base1.0.conv_t", f"{prefix}base1.0.bn_t", stride=2, padded=False)
        self.mix = Conv(weights, f"{prefix}base1.2.conv", f"{prefix}base1.2.bn")
        self.look = Conv(weights, f"{prefix}base1.3.conv_s", f"{prefix}base1.3.bn_s")
        self.late = Conv(weights, f"{prefix}base1.3.conv_t", f"{prefix}base1.3.bn_t", padded=False)

    def early(self, rows_tchw: Tensor) -> Tensor:
        return self.look(self.mix(functional.max_pool2d(self.seven(rows_tchw), 3, 2, 1)))

    def forward(self, frames_tchw: Tensor) -> Tensor:
        """(t, 3, h, w), t even -> (t / 2, 192, h / 4, w / 4): all of a clip, with nothing before and behind it."""
        steps = self.early(functional.pad(self.first(frames_tchw), (0, 0) * 3 + (3, 2)))
        return self.late(functional.pad(steps, (0, 0) * 3 + (1, 1)))


class Later(nn.Module):
    """base2 and base3: (t, 192, h, w) -> (t, 480, h / 2, w / 2), (t / 2, 832, h / 4, w / 4), and the higher of each two
    frames of the latter, which base4 has its input from."""

    def __init__(self, weights: Weights, prefix: str = ""):
        super().__init__()
        self.base2, self.base3 = (stage(weights, prefix, name) for name in ("base2", "base3"))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        y2 = self.base2(functional.max_pool2d(x, 3, 2, 1))
        y1 = self.base3(pool_time(functional.max_pool2d(y2, 3, 2, 1), 3, stride=2, padding=1))
        return y2, y1, pool_time(y1, 2)


def base4(weights: Weights, prefix: str = "") -> nn.Module:
    """(t, 832, h, w) -> (t, 1024, h, w)."""
    return stage(weights, prefix, "base4")


def stage(weights: Weights, prefix: str, name: str) -> nn.Module:
    return nn.Sequential(*(Mixed(weights, f"{prefix}{key}") for key in MIXED if key.startswith(f"{name}.")))


class Mixed(nn.Module):
    """Four branches side by side; their channels one behind the other."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.branch0 = Conv(weights, f"{name}.branch0.0.conv", f"{name}.branch0.0.bn")
        self.branch1, self.branch2 = (
            nn.Sequential(
                Conv(weights, f"{branch}.0.conv", f"{branch}.0.bn"),
                Conv(weights, f"{branch}.1.conv_s", f"{branch}.1.bn_s"),
                Conv(weights, f"{branch}.1.conv_t", f"{branch}.1.bn_t"),
            )
            for branch in (f"{name}.branch1", f"{name}.branch2")
        )
        self.branch3 = Conv(weights, f"{name}.branch3.1.conv", f"{name}.branch3.1.bn")

    def forward(self, x: Tensor) -> Tensor:
        highest = pool_time(functional.max_pool2d(x, 3, 1, 1), 3, stride=1, padding=1)
        return torch.cat([self.branch0(x), self.branch1(x), self.branch2(x), self.branch3(highest)], 1)


class Conv(nn.Module):
    """A kernel of one frame or of one pixel, the batch norm behind it and a ReLU, on (t, c, h, w)."""

    def __init__(self, weights: Weights, name: str, norm: str, *, stride: int = 1, padded: bool = True):
        super().__init__()
        weight, self.bias = folded(weights, name, norm)
        self.over_time = weight.shape[2] > 1
        kernel = weight[..., 0] if self.over_time else weight[:, :, 0]
        pads = [size // 2 if padded else 0 for size in kernel.shape[2:]]
        self.stride, self.padding = (stride, 1 if self.over_time else stride), pads
        self.weight = constant(kernel)

    def forward(self, x: Tensor) -> Tensor:
        inside = time_by_place(x) if self.over_time else x
        y = functional.conv2d(inside, self.weight, self.bias, self.stride, self.padding).relu_()
        return frames_again(y, x) if self.over_time else y


def folded(weights: Weights, name: str, norm: str, *, transposed: bool = False) -> tuple[Tensor, nn.Parameter]:
    """A kernel (out, in, t, h, w), transposed (in, out, t, h, w), in float64 with its batch norm; and its bias."""
    scale, shift = affine(weights, norm, EPS)
    shape = (1, -1, 1, 1, 1) if transposed else (-1, 1, 1, 1, 1)
    return weights[f"{name}.weight"].double() * scale.view(shape), constant(shift)


def pool_time(x: Tensor, size: int, *, stride: int | None = None, padding: int = 0) -> Tensor:
    """Highest of `size` frames. After a pool over places it makes one over both, to the bit."""
    return frames_again(functional.max_pool2d(time_by_place(x), (size, 1), (stride or size, 1), (padding, 0)), x)


def time_by_place(x: Tensor) -> Tensor:
    """(t, c, h, w) as one picture (1, c, t, h w); a view, in channels_last again."""
    return x.transpose(0, 1).flatten(2)[None]


def frames_again(x: Tensor, like: Tensor) -> Tensor:
    """(1, c, t, h w) as (t, c, h, w), places as in `like`; a view."""
    return x[0].unflatten(2, like.shape[2:]).transpose(0, 1)


def template(prefix: str = "") -> dict[str, Tensor]:
    """Keys, shapes and dtypes of the trunk in a checkpoint, in order, as meta tensors."""
    entries: dict[str, Tensor] = {}
    entries |= pair_template(f"{prefix}base1.0", 3, 64, 7)
    entries |= conv_template(f"{prefix}base1.2.conv", f"{prefix}base1.2.bn", (64, 64, 1, 1, 1))
    entries |= pair_template(f"{prefix}base1.3", 64, 192, 3)
    for key, (inside, alone, *pairs, last) in MIXED.items():
        name = f"{prefix}{key}"
        entries |= conv_template(f"{name}.branch0.0.conv", f"{name}.branch0.0.bn", (alone, inside, 1, 1, 1))
        for branch, narrow, wide in ((1, *pairs[:2]), (2, *pairs[2:])):
            first = f"{name}.branch{branch}.0"
            entries |= conv_template(f"{first}.conv", f"{first}.bn", (narrow, inside, 1, 1, 1))
            entries |= pair_template(f"{name}.branch{branch}.1", narrow, wide, 3)
        entries |= conv_template(f"{name}.branch3.1.conv", f"{name}.branch3.1.bn", (last, inside, 1, 1, 1))
    return entries


def pair_template(name: str, inside: int, outside: int, size: int) -> dict[str, Tensor]:
    space = conv_template(f"{name}.conv_s", f"{name}.bn_s", (outside, inside, 1, size, size))
    return space | conv_template(f"{name}.conv_t", f"{name}.bn_t", (outside, outside, size, 1, 1))


def conv_template(name: str, norm: str, shape: tuple[int, ...], *, channels: int | None = None) -> dict[str, Tensor]:
    """A kernel and the batch norm behind it, of as many channels as the kernel gives unless told otherwise."""
    return {f"{name}.weight": torch.empty(shape, device="meta")} | norm_template(norm, channels or shape[0])


def norm_template(name: str, channels: int) -> dict[str, Tensor]:
    entries: Mapping[str, Tensor] = nn.BatchNorm3d(channels, device="meta").state_dict()
    return {f"{name}.{leaf}": value for leaf, value in entries.items()}

"""SoundNet: a vector of 1024 numbers for every stretch of sound, shared by STAViS and AViNet.

Aytar, Vondrick & Torralba 2016, SoundNet: Learning Sound Representations from Unlabeled Video. A row of samples in,
features over time out. Batch norms are folded into the kernels; what follows the features is their users' matter.
Which sound they hear of a frame is here, because both were trained on the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from .backbones import Weights, affine, constant
from .spec import AudioWindow, Window

# Channels and kernel of each convolution, stride 2, and the length of the pool behind it; the paper's table 1.
LAYERS = ((16, 64, 8), (32, 32, 8), (64, 16, 1), (128, 8, 1), (256, 4, 4), (512, 4, 1), (1024, 4, 1))
RATE_HZ = 22050
SCALE = 256.0  # the authors of both read 16-bit sound as 32 bits wide and take 2^-23 of it
TRAINED_FPS = 10  # a row has room for as many frames of a video of this rate as a clip has

Hearing = Literal["time", "upstream", "off"]


def heard(name: str, audio: Hearing, window: Window) -> AudioWindow | None:
    """`audio`: sound by presentation time at 22050 Hz (`time`); at the file's own rate, counted from its first sample,
    as the authors do (`upstream`); or none (`off`). Raises UsageError."""
    if audio not in get_args(Hearing):
        raise UsageError(f"{name} has no audio {audio!r}: choose {', '.join(get_args(Hearing))}")
    if audio == "off":
        return None
    return AudioWindow(
        rate_hz=RATE_HZ if audio == "time" else None,
        samples=samples(window),
        past=window.past,
        future=window.future,
        taper="hann",
        scale=SCALE,
    )


def samples(window: Window) -> int:
    """Length of a row: 35280 for 16 frames, 70560 for 32."""
    return RATE_HZ // TRAINED_FPS * window.length


class SoundNet(nn.Module):
    """`names`: the keys of each layer's kernel and batch norm, as each user's checkpoint has them."""

    def __init__(self, weights: Weights, names: Sequence[tuple[str, str]]):
        super().__init__()
        self.kernels, self.biases = nn.ParameterList(), nn.ParameterList()
        for kernel, norm in names:
            scale, shift = affine(weights, norm)
            weight = weights[f"{kernel}.weight"].double().flatten(2)
            self.kernels.append(constant(weight * scale[:, None, None]))
            self.biases.append(constant(weights[f"{kernel}.bias"].double() * scale + shift))

    def forward(self, sound_n: Tensor) -> Tensor:
        """(n,) samples -> (1024, t): 2 of 35280, 3 of 70560."""
        x = sound_n[None, None]
        for kernel, bias, (_, size, pool) in zip(self.kernels, self.biases, LAYERS, strict=True):
            x = functional.conv1d(x, kernel, bias, stride=2, padding=size // 2).relu_()
            x = functional.max_pool1d(x, pool) if pool > 1 else x
        return x[0]


def template(names: Sequence[tuple[str, str]], *, across: bool) -> dict[str, Tensor]:
    """Keys, shapes and dtypes in a checkpoint, as meta tensors; `across`: its kernels lie along the last axis."""
    entries: dict[str, Tensor] = {}
    inside = 1
    for (kernel, norm), (channels, size, _) in zip(names, LAYERS, strict=True):
        entries[f"{kernel}.weight"] = torch.empty(
            (channels, inside, *((1, size) if across else (size, 1))), device="meta"
        )
        entries[f"{kernel}.bias"] = torch.empty(channels, device="meta")
        norms = nn.BatchNorm2d(channels, device="meta").state_dict()
        entries |= {f"{norm}.{leaf}": value for leaf, value in norms.items()}
        inside = channels
    return entries

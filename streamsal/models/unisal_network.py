"""The network of UNISAL for one of its four domains: normalized pictures and a memory in, log densities out.

Droste, Jiao & Noble 2020. `one_domain` picks the parts of a checkpoint that belong to a domain, and every batch norm
goes into the convolution before it. Knows no video: which frame follows which in the memory is not its matter.

    picture > MobileNetV2 > coarse ─┬─────────────────── + ─ up ─ up ─ one channel ─ x8 ─ smooth > log density
                 │       H/32       └─ recurrent cell ───┘   │    │
                 └─ features at H/16 and H/8 ────────────────┴────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..density import normalize
from .backbones import Conv, Weights, constant

Domain = Literal["dhf1k", "hollywood", "ucfsports", "salicon"]
DOMAINS: dict[Domain, str] = {  # in keys of parameters, and of batch norms
    "dhf1k": "DHF1K",
    "hollywood": "Hollywood",
    "ucfsports": "UCFSports",
    "salicon": "SALICON",
}
COARSE = 32  # pixels per position of the coarse features; a picture's sides are multiples of it
FINE = 8  # pixels per position where the density is computed, before it is smoothed
CHANNELS = 256  # of the coarse features and of the memory
STAGES = (  # of MobileNetV2: expansion, channels, blocks, stride of the first block
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
SKIP_4X, SKIP_2X = 7, 14  # blocks whose full-size output the decoder sees: H/8 and H/16
GAUSSIANS = 16
GAUSSIAN_HEIGHT = 6.0
SMOOTHING = 41  # pixels a side
GATES = {"r": ("w_r", "u_r", "r"), "z": ("w_z", "u_z", "z"), "h": ("w", "u", "out")}  # of x, of the memory, their norms
CELL = "rnn.cell_list.0"


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors."""
    entries: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        entries[name] = torch.empty(shape, device="meta")

    def norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            add(f"{name}.{leaf}", channels)
        entries[f"{name}.num_batches_tracked"] = torch.empty((), dtype=torch.int64, device="meta")

    def norms(name: str, channels: int) -> None:
        for suffix in DOMAINS.values():
            norm(f"{name}.bn_{suffix}", channels)

    def upsampling(name: str, channels_in: int, channels: int) -> None:
        wide = 2 * channels_in
        for at, shape in ((0, (wide, channels_in, 1, 1)), (3, (wide, 1, 3, 3)), (6, (channels, wide, 1, 1))):
            add(f"{name}.inv_res.conv.{at}.weight", *shape)
            norms(f"{name}.inv_res.conv.{at + 1}", shape[0])

    def skip(name: str, channels_in: int, channels: int) -> None:
        add(f"{name}.expansion.0.weight", 2 * channels_in, channels_in, 1, 1)
        norms(f"{name}.expansion.1", 2 * channels_in)
        add(f"{name}.reduction.0.weight", channels, 2 * channels_in, 1, 1)
        add(f"{name}.reduction.0.bias", channels)
        norms(f"{name}.reduction.1", channels)

    for domain in DOMAINS:
        add(f"coarse_gaussians_{domain}", GAUSSIANS, 2, 2)
    add("cnn.features.0.0.weight", 32, 3, 3, 3)
    norm("cnn.features.0.1", 32)
    for block in blocks():
        for at, shape in block.convolutions:
            add(f"{block.name}.conv.{at}.weight", *shape)
            norm(f"{block.name}.conv.{at + 1}", shape[0])
    add("cnn.features.18.0.weight", 1280, 320, 1, 1)
    norm("cnn.features.18.1", 1280)
    with_gaussians = 1280 + GAUSSIANS
    for at, shape in ((0, (with_gaussians, 1, 3, 3)), (3, (CHANNELS, with_gaussians, 1, 1))):
        add(f"post_cnn.inv_res.conv.{at}.weight", *shape)
        norm(f"post_cnn.inv_res.conv.{at + 1}", shape[0])
    for gate in GATES:
        add(f"{CELL}.b_{gate}", CHANNELS, 1, 1)
    for gate in GATES:
        for side in ("x", "h"):
            add(f"{CELL}.a_{gate}_{side}", CHANNELS, 1, 1)
    add(f"{CELL}.drop_mask_1", 3, CHANNELS)  # of training only
    for *_, normed in GATES.values():
        for side in ("x", "h"):
            norms(f"{CELL}.norm_{normed}_{side}", CHANNELS)
    for of_x, of_memory, _ in GATES.values():
        for name in (of_x, of_memory):
            add(f"{CELL}.{name}.conv_dw.weight", CHANNELS, 1, 3, 3)
            norms(f"{CELL}.{name}.sep_bn", CHANNELS)
            add(f"{CELL}.{name}.conv_sep.weight", CHANNELS, CHANNELS, 1, 1)
    add("post_rnn.0.weight", CHANNELS, CHANNELS, 1, 1)
    norms("post_rnn.1", CHANNELS)
    skip("skip_2x", 160, 128)
    upsampling("upsampling_2", 384, 128)
    skip("skip_4x", 64, 64)
    upsampling("post_upsampling_2", 192, 64)
    for domain in DOMAINS:
        add(f"adaptation_{domain}.0.weight", 1, 64, 1, 1)
        add(f"adaptation_{domain}.0.bias", 1)
        add(f"smoothing_{domain}.weight", 1, 1, SMOOTHING, SMOOTHING)
    return entries


def one_domain(weights: Weights, domain: Domain) -> dict[str, Tensor]:
    """What the network for `domain` needs of a checkpoint, under keys that name no domain."""
    found = {}
    for key, value in weights.items():
        owners = [name for name, suffix in DOMAINS.items() if f".bn_{suffix}." in key or f"_{name}" in key]
        if owners in ([], [domain]):
            found[key.replace(f".bn_{DOMAINS[domain]}.", ".").replace(f"_{domain}", "")] = value
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """An inverted residual block of MobileNetV2: `convolutions` are (place in the block, shape of the kernels)."""

    number: int
    convolutions: tuple[tuple[int, tuple[int, int, int, int]], ...]
    halves: bool
    adds: bool

    @property
    def name(self) -> str:
        return f"cnn.features.{self.number}"


def blocks() -> list[Block]:
    found, channels_in = [], 32
    for expansion, channels, repeats, stride in STAGES:
        for repeat in range(repeats):
            wide = expansion * channels_in
            shapes = [(wide, channels_in, 1, 1)] if expansion > 1 else []
            shapes += [(wide, 1, 3, 3), (channels, wide, 1, 1)]
            found.append(
                Block(
                    number=len(found) + 1,
                    convolutions=tuple((3 * i, shape) for i, shape in enumerate(shapes)),
                    halves=repeat == 0 and stride == 2,
                    adds=repeat > 0,
                )
            )
            channels_in = channels
    return found


class Chain(nn.Module):
    """Convolutions one after the other, each with its batch norm and, but for the last where `linear`, a ReLU6."""

    def __init__(self, weights: Weights, named: list[tuple[str, str]], *, stride: int = 1, linear: bool = True):
        super().__init__()
        self.layers = nn.ModuleList()
        for number, (name, norm) in enumerate(named):
            channels, channels_in, size, _ = weights[f"{name}.weight"].shape
            deep = size == 3 and channels_in == 1
            last = number == len(named) - 1
            self.layers.append(
                Conv(
                    weights,
                    name,
                    norm,
                    stride=stride if size == 3 else 1,
                    padding=size // 2,
                    groups=channels if deep else 1,
                    activation=None if linear and last else functional.relu6,
                )
            )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x, {})
        return x


def inverted_residual(weights: Weights, name: str, *, places: tuple[int, ...], stride: int = 1) -> Chain:
    return Chain(weights, [(f"{name}.{at}", f"{name}.{at + 1}") for at in places], stride=stride)


class Encoder(nn.Module):
    """MobileNetV2 and what reduces its 1280 channels and the Gaussian maps to 256."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.stem = Chain(weights, [("cnn.features.0.0", "cnn.features.0.1")], stride=2, linear=False)
        self.table = blocks()
        # Upstream halves behind the block, having computed all of it. Where nothing reads the whole, the depthwise
        # convolution with a stride gives the same numbers.
        self.blocks = nn.ModuleList(
            inverted_residual(
                weights,
                f"{block.name}.conv",
                places=tuple(at for at, _ in block.convolutions),
                stride=2 if block.halves and block.number not in (SKIP_4X, SKIP_2X) else 1,
            )
            for block in self.table
        )
        self.head = Chain(weights, [("cnn.features.18.0", "cnn.features.18.1")], linear=False)
        self.post = inverted_residual(weights, "post_cnn.inv_res.conv", places=(0, 3))

    def forward(self, x: Tensor, gaussians_1chw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Coarse features (n, 256, H/32, W/32); those of blocks 14 (n, 160, H/16, W/16) and 7 (n, 64, H/8, W/8)."""
        x = self.stem(x)  # n 32 H/2 W/2
        kept = {}
        for block, compute in zip(self.table, self.blocks, strict=True):
            x = compute(x).add_(x) if block.adds else compute(x)
            if block.number in (SKIP_4X, SKIP_2X):
                kept[block.number] = x
                x = x[..., ::2, ::2].contiguous(memory_format=torch.channels_last)
        x = self.head(x)
        x = torch.cat([x, gaussians_1chw.expand(len(x), -1, -1, -1)], 1)
        return self.post(x), kept[SKIP_2X], kept[SKIP_4X]


def gaussian_maps(parameters: Tensor, height: int, width: int) -> Tensor:
    """(1, 16, height, width) from (16, 2, 2): per map and axis (y, x) a mean in 0 ... 1 and the log of a sigma."""

    def falloff(axis: int, n: int) -> Tensor:
        at = torch.linspace(0, 1, n, dtype=torch.float64)
        mean, sigma = parameters[:, axis, :1].double(), parameters[:, axis, 1:].double().exp()
        return (-(((at - mean) / sigma) ** 2) / 2).exp()

    maps = GAUSSIAN_HEIGHT * falloff(0, height)[:, :, None] * falloff(1, width)[:, None]
    return maps.float()[None].contiguous(memory_format=torch.channels_last)


class Gates(nn.Module):
    """The three convolutions of the cell on one of its inputs, x or the memory h, each (n, 256, h, w)."""

    def __init__(self, weights: Weights, side: Literal["x", "h"]):
        super().__init__()
        self.gates = nn.ModuleList()
        for gate, (of_x, of_memory, normed) in GATES.items():
            name, norm = f"{CELL}.{of_x if side == 'x' else of_memory}", f"{CELL}.norm_{normed}_{side}"
            scale = weights[f"{CELL}.a_{gate}_{side}"].flatten().double()
            shift = weights[f"{CELL}.b_{gate}"].flatten().double() if side == "x" else 0.0
            scaled = dict(weights)
            scaled[f"{norm}.weight"] = weights[f"{norm}.weight"].double() * scale
            scaled[f"{norm}.bias"] = weights[f"{norm}.bias"].double() * scale + shift
            self.gates.append(Chain(scaled, [(f"{name}.conv_dw", f"{name}.sep_bn"), (f"{name}.conv_sep", norm)]))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        reset, update, new = (gate(x) for gate in self.gates)
        return reset, update, new


class Decoder(nn.Module):
    """From the coarse features, the memory and the finer features to log densities."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.post_rnn = Chain(weights, [("post_rnn.0", "post_rnn.1")], linear=False)
        self.skip_2x, self.skip_4x = (
            Chain(weights, [(f"{name}.{part}.0", f"{name}.{part}.1") for part in ("expansion", "reduction")])
            for name in ("skip_2x", "skip_4x")
        )
        self.up_2x, self.up_4x = (
            inverted_residual(weights, f"{name}.inv_res.conv", places=(0, 3, 6))
            for name in ("upsampling_2", "post_upsampling_2")
        )
        self.adaptation = Conv(weights, "adaptation.0", activation=None)
        self.phases = constant(phase_kernels(weights["smoothing.weight"]))

    def forward(self, coarse: Tensor, hidden: Tensor | None, skip_2x: Tensor, skip_4x: Tensor) -> Tensor:
        """(n, H, W) log densities; without a memory (`hidden` None) those of pictures by themselves."""
        x = coarse if hidden is None else coarse + self.post_rnn(hidden)
        x = self.up_2x(torch.cat([doubled(x), self.skip_2x(skip_2x)], 1))
        x = self.up_4x(torch.cat([doubled(x), self.skip_4x(skip_4x)], 1))  # n 64 H/8 W/8
        return normalize(smooth(self.adaptation(x, {}), self.phases))


def doubled(x: Tensor) -> Tensor:
    return functional.interpolate(x, scale_factor=2, mode="bilinear")


def smooth(x: Tensor, phases: Tensor) -> Tensor:
    """(n, H, W): a map (n, 1, H/8, W/8) enlarged by repetition and convolved with what `phases` are the phases of.

    Outside the picture its border continues.
    """
    around = phases.shape[-1] // 2
    x = functional.conv2d(functional.pad(x, [around] * 4, mode="replicate"), phases)
    return functional.pixel_shuffle(x, FINE)[:, 0]


def phase_kernels(kernel: Tensor) -> Tensor:
    """(64, 1, 7, 7) kernels on the map before its enlargement by 8 from the (1, 1, 41, 41) on the map behind it.

    Pixel 8a + p is reached by 41 pixels, that lie in at most 6 positions of the map, a - 3 ... a + 3. Linear, so equal
    but for rounding, at a 34th of the multiplications.
    """
    taps = torch.arange(SMOOTHING) - SMOOTHING // 2
    phase = torch.arange(FINE)[:, None]
    position = (phase + taps).div(FINE, rounding_mode="floor")
    around = int(position.max())
    belongs = functional.one_hot(position + around, 2 * around + 1).double()  # phase, tap, position
    kernels = torch.einsum("ij,pia,qjb->pqab", kernel[0, 0].double(), belongs, belongs)
    return kernels.reshape(FINE * FINE, 1, 2 * around + 1, 2 * around + 1)


class Network(nn.Module):
    """UNISAL for one domain. Float32, and its layout in memory channels_last."""

    def __init__(self, weights: Mapping[str, Tensor], domain: Domain):
        super().__init__()
        own = one_domain(weights, domain)
        self.encoder = Encoder(own)
        self.of_picture = Gates(own, "x")
        self.of_memory = Gates(own, "h")
        self.decoder = Decoder(own)
        self.gaussians = own["coarse_gaussians"]
        self.gaussians_at = cache(self._gaussians_at)

    def _gaussians_at(self, height: int, width: int, device: torch.device) -> Tensor:
        return gaussian_maps(self.gaussians, height // COARSE, width // COARSE).to(device)

    def encode(self, pictures_nchw: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What `Encoder` gives of normalized pictures whose sides are multiples of 32."""
        return self.encoder(pictures_nchw, self.gaussians_at(*pictures_nchw.shape[-2:], pictures_nchw.device))

    def remember(self, gates: tuple[Tensor, Tensor, Tensor], hidden: Tensor) -> Tensor:
        """The memory (n, 256, h, w) after a picture, from what `of_picture` gives of it and the memory before it."""
        (reset_x, update_x, new_x), (reset_h, update_h, new_h) = gates, self.of_memory(hidden)
        reset, update = (reset_x + reset_h).sigmoid_(), (update_x + update_h).sigmoid_()
        return hidden.lerp(torch.addcmul(new_x, reset, new_h).tanh_(), update)

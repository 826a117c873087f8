"""Clip networks after ResNet: C2D, I3D, Slow, SlowFast and X3D; prepared clips in, one vector per clip out.

Feichtenhofer et al. 2019 (SlowFast, Slow, C2D), Carreira & Zisserman 2017 (I3D), Feichtenhofer 2020 (X3D), in the form
of PySlowFast (Apache-2.0), whose parameter names are kept. What a network looks like is read from its weights; what
they cannot tell is in VARIANTS. Which frames make a clip, and how a frame is prepared, is no matter of this file.

    slow     stem > s2 > s3 > s4 > s5 > mean over t, h, w |
                ^    ^    ^    ^                          | > vector > projection
    fast     stem > s2 > s3 > s4 > s5 > mean over t, h, w |
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from ..timing import Clip
from ..vectors import latent_vectors_service as service
from ..weights import checkpoints
from .clip_frames import GRAY_MEAN, GRAY_STD, Recipe
from .clip_model import ClipModel, clip_spec
from .spec import Model, ModelSpec

Weights = Mapping[str, Tensor]
Kernels = tuple[tuple[int, ...], ...]
Shapes = dict[str, tuple[int, ...]]


# Frames under the first kernel of a block (of the stem, then of s2 ... s5), repeated along the blocks of a stage.
C2D: Kernels = ((1,), (1,), (1,), (1,), (1,))
I3D: Kernels = ((5,), (3,), (3, 1), (3, 1), (1, 3))
SLOW: Kernels = ((1,), (1,), (1,), (3,), (3,))
FAST: Kernels = ((5,), (3,), (3,), (3,), (3,))

R50 = (3, 4, 6, 3)
R101 = (3, 4, 23, 3)
FIFTY_FIFTY = (3,) * 6 + (1,) * 17  # s4 of a ResNet-101 "50_50": frames are mixed where a ResNet-50 would mix them
HALF = tuple((*kernels[:3], FIFTY_FIFTY, kernels[4]) for kernels in (SLOW, FAST))
WIDTHS = (64, 256, 512, 1024, 2048)  # channels after the stem and s2 ... s5; a fast pathway has an eighth
FAST_SHARE = 8

X3D_SMALL = (3, 5, 11, 7)
X3D_LARGE = (5, 10, 25, 15)
X3D_STEM = 24
X3D_STAGES = ((24, 54, 8), (48, 108, 8), (96, 216, 16), (192, 432, 32))  # channels: after, inside, squeezed
UNNORMED = "s2.pathway0_res0.branch1_bn"  # not in PyTorchVideo's X3D, where 24 channels stay 24

POSITION_PX = 32  # one position of the last map, in pixels of the clip


@dataclass(frozen=True, slots=True, kw_only=True)
class Variant:
    """What weights do not tell of a network, and what has to be known before there are any.

    frames      of one clip, `step` apart at `rate` frames per second
    crop        side of the square that it was trained on, in pixels, cut from frames whose short side is `short_side`
    features    length of the vector
    gmac        10^9 multiply-adds for one clip of that size
    kernels     of each pathway; none: an X3D
    alpha       frames of the fast pathway per frame of the slow one
    fusion      frames under the kernels that lead from fast to slow
    pool        time is halved after s2
    """

    frames: int
    step: int
    rate: float = 30
    crop: int = 224
    short_side: int = 256
    classes: int = 400
    features: int = 2048
    gmac: float
    blocks: tuple[int, int, int, int] = R50
    kernels: tuple[Kernels, ...] = ()
    alpha: int | None = None
    fusion: int = 0
    pool: bool = False


_slowfast = partial(Variant, step=2, features=2304, kernels=(SLOW, FAST))


# Frames, steps, sizes and alpha: PySlowFast, configs/Kinetics and configs/SSv2; R101: PyTorchVideo's model zoo.
VARIANTS: dict[str, Variant] = {
    "c2d_r50": Variant(frames=8, step=8, kernels=(C2D,), gmac=32.7),
    "i3d_r50": Variant(frames=8, step=8, kernels=(I3D,), pool=True, gmac=28.4),
    "slow_r50_4x16": Variant(frames=4, step=16, kernels=(SLOW,), gmac=20.9),
    "slow_r50_8x8": Variant(frames=8, step=8, kernels=(SLOW,), gmac=41.7),
    "slowfast_r50_4x16": _slowfast(frames=32, alpha=8, fusion=5, gmac=27.6),
    "slowfast_r50_8x8": _slowfast(frames=32, alpha=4, fusion=7, gmac=50.3),
    "slowfast_r50_16x8_ssv2": _slowfast(frames=64, alpha=4, fusion=7, classes=174, short_side=224, gmac=100.6),
    "slowfast_r101_8x8": _slowfast(frames=32, alpha=4, fusion=5, blocks=R101, gmac=96.4),
    "slowfast_r101_16x8": _slowfast(frames=64, alpha=4, fusion=5, blocks=R101, kernels=HALF, gmac=163.1),
    "x3d_xs": Variant(frames=4, step=12, crop=160, short_side=182, blocks=X3D_SMALL, gmac=0.605),
    "x3d_s": Variant(frames=13, step=6, crop=160, short_side=182, blocks=X3D_SMALL, gmac=1.96),
    "x3d_m": Variant(frames=16, step=5, blocks=X3D_SMALL, gmac=4.73),
    "x3d_l": Variant(frames=16, step=5, crop=312, short_side=356, blocks=X3D_LARGE, gmac=18.4),
}


def spec(*, variant: str, logits: bool = False, pool: str = "", slow_first: bool = False) -> ModelSpec:
    """`logits`, `pool` as for `clip_spec`. `slow_first`: clips of the latent-vectors service, see `SlowFirst`."""
    facts = VARIANTS[variant]
    if slow_first and facts.alpha is None:
        raise UsageError(f"{variant} has one pathway, and the preset is for slow and fast ones: take a slowfast model")
    if slow_first and pool:
        raise UsageError("the preset's slow frame has no place among its fast ones to be weighed at: leave --pool out")
    clip = (
        Clip(length=1 + service.FAST, step=service.SLOT, rate=service.FPS)
        if slow_first
        else Clip(length=facts.frames, step=facts.step, rate=facts.rate)
    )
    return clip_spec(variant, clip, recipe(variant, slow_first=slow_first), logits=logits, pool=pool)


def build(
    weights: str | Path | Weights | None = None,
    *,
    device: torch.device | str,
    variant: str,
    logits: bool = False,
    pool: str = "",
    slow_first: bool = False,
) -> Model:
    """`weights` as for `checkpoints.clip_weights`, the rest as for `spec`."""
    wanted = spec(variant=variant, logits=logits, pool=pool, slow_first=slow_first)
    found = checkpoints.clip_weights(variant, weights, partial(template, variant))
    halved = VARIANTS[variant].pool or (variant == "c2d_r50" and found.origin == "pytorchvideo")  # theirs has the pool
    net = network(found.weights, variant, pool=halved).to(device)
    return ClipModel(wanted, SlowFirst(net) if slow_first else net, recipe(variant, slow_first=slow_first))


def recipe(variant: str, *, slow_first: bool = False) -> Recipe:
    facts = VARIANTS[variant]
    short_side, position = (facts.crop, "left") if slow_first else (facts.short_side, "center")
    return Recipe(
        family="pyslowfast", resize=short_side, crop=facts.crop, mean=GRAY_MEAN, std=GRAY_STD, position=position
    )


def packed(clips_ncthw: Tensor, alpha: int) -> list[Tensor]:
    """The two pathways of a clip: every alpha-th frame or so, from the first to the last, and all of them.

    In float32 as PySlowFast does it: of 160 frames and alpha 4, float64 would choose another one.
    """
    frames = clips_ncthw.shape[2]
    slow = torch.linspace(0, frames - 1, frames // alpha).long()
    return [clips_ncthw.index_select(2, slow.to(clips_ncthw.device)), clips_ncthw]


class ResNet3D(nn.Module):
    """A network with one or two pathways, whose structure is that of `weights` (which may be meta tensors)."""

    def __init__(self, weights: Weights, *, alpha: int | None, pool: bool):
        super().__init__()
        self.alpha, self.pool = alpha, pool
        x3d = "s1.pathway0_stem.conv_xy.weight" in weights
        self.s1 = Stems(weights)
        self.s1_fuse = Fusion(weights, "s1_fuse", alpha)
        self.s2 = Stage(weights, "s2", stride=2 if x3d else 1)
        self.s2_fuse = Fusion(weights, "s2_fuse", alpha)
        self.s3 = Stage(weights, "s3", stride=2)
        self.s3_fuse = Fusion(weights, "s3_fuse", alpha)
        self.s4 = Stage(weights, "s4", stride=2)
        self.s4_fuse = Fusion(weights, "s4_fuse", alpha)
        self.s5 = Stage(weights, "s5", stride=2)
        self.head = Head(weights)

    def features(self, clips_ncthw: Tensor) -> Tensor:
        """(n, D) the vector that the projection onto classes reads, its maps averaged over all times and places."""
        return self.vector([x.float().mean((2, 3, 4)) for x in self.maps(clips_ncthw)])

    def logits(self, features: Tensor) -> Tensor:
        """(..., D) -> (..., classes), before the softmax."""
        return linear(features, self.head.projection.weight, self.head.projection.bias)

    def maps(self, clips_ncthw: Tensor) -> list[Tensor]:
        """What is averaged: (n, c, t, h, w) per pathway, slow before fast, 32 pixels per position."""
        return self.maps_of([clips_ncthw] if self.alpha is None else packed(clips_ncthw, self.alpha))

    def maps_of(self, pathways: list[Tensor]) -> list[Tensor]:
        """`maps` of a clip whose pathways (n, 3, t, h, w) the caller chose; the fast one has alpha times the frames."""
        xs = self.s1_fuse(self.s1(pathways))
        xs = self.s2_fuse(self.s2(xs))
        if self.pool:
            xs = [functional.max_pool3d(x, (2, 1, 1)) for x in xs]
        xs = self.s3_fuse(self.s3(xs))
        xs = self.s4_fuse(self.s4(xs))
        return self.head(self.s5(xs))

    def vector(self, pooled: list[Tensor]) -> Tensor:
        """(..., c) averages per pathway, channels last -> (..., D)."""
        x = torch.cat(pooled, -1)
        return linear(x, self.head.lin_5.weight.flatten(1)).relu_() if self.head.x3d else x

    def positions(self, clips_ncthw: Tensor, train_crop: int) -> Tensor:
        """(n, h, w, D) vectors of all places of a window of `train_crop` pixels, where a clip is larger than that."""
        window = -(-train_crop // POSITION_PX)
        pooled = [functional.avg_pool2d(x.float().mean(2), window, stride=1) for x in self.maps(clips_ncthw)]
        return self.vector([x.movedim(1, -1) for x in pooled])

    def probabilities(self, clips_ncthw: Tensor, train_crop: int) -> Tensor:
        """(n, classes) as PySlowFast tests: a softmax at each of the `positions`, and their mean."""
        return self.logits(self.positions(clips_ncthw, train_crop)).softmax(-1).mean((1, 2))


class SlowFirst:
    """A SlowFast whose clips have their one slow frame in front of the fast ones."""

    def __init__(self, net: ResNet3D) -> None:
        self.net, self.vector, self.logits = net, net.vector, net.logits

    def maps(self, clips_ncthw: Tensor) -> list[Tensor]:
        return self.net.maps_of([clips_ncthw[:, :, :1], clips_ncthw[:, :, 1:]])

    def features(self, clips_ncthw: Tensor) -> Tensor:
        return self.vector([x.mean((2, 3, 4)) for x in self.maps(clips_ncthw)])


class Stems(nn.Module):
    def __init__(self, weights: Weights):
        super().__init__()
        self.pathways = []
        for pathway in range(pathways(weights)):
            stem = Stem(weights, f"s1.pathway{pathway}_stem")
            self.add_module(f"pathway{pathway}_stem", stem)
            self.pathways.append(stem)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return [stem(x) for stem, x in zip(self.pathways, xs, strict=True)]


class Stem(nn.Module):
    """7x7 and a max-pool; of an X3D, 3x3 and frames mixed channel by channel."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.x3d = f"{name}.conv_xy.weight" in weights
        if self.x3d:
            self.conv_xy = convolution(weights, f"{name}.conv_xy", stride=2)
        self.conv = convolution(weights, f"{name}.conv", stride=1 if self.x3d else 2)
        self.bn = norm(weights, f"{name}.bn")

    def forward(self, x: Tensor) -> Tensor:
        if self.x3d:
            return self.bn(self.conv(self.conv_xy(x))).relu_()
        return functional.max_pool3d(self.bn(self.conv(x)).relu_(), (1, 3, 3), (1, 2, 2), (0, 1, 1))


class Fusion(nn.Module):
    """What the fast pathway found, put behind the channels of the slow one; nothing where there is one pathway."""

    def __init__(self, weights: Weights, name: str, alpha: int | None):
        super().__init__()
        self.alpha = alpha
        if alpha is not None:
            self.conv_f2s = convolution(weights, f"{name}.conv_f2s", time_stride=alpha)
            self.bn = norm(weights, f"{name}.bn")

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        if self.alpha is None:
            return xs
        slow, fast = xs
        return [torch.cat([slow, self.bn(self.conv_f2s(fast)).relu_()], 1), fast]


class Stage(nn.Module):
    def __init__(self, weights: Weights, name: str, *, stride: int):
        super().__init__()
        self.pathways: list[list[Block]] = []
        for pathway in range(pathways(weights)):
            blocks = []
            while f"{name}.pathway{pathway}_res{len(blocks)}.branch2.a.weight" in weights:
                block = f"pathway{pathway}_res{len(blocks)}"
                blocks.append(Block(weights, f"{name}.{block}", stride=1 if blocks else stride))
                self.add_module(block, blocks[-1])
            self.pathways.append(blocks)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        done = []
        for blocks, x in zip(self.pathways, xs, strict=True):
            for block in blocks:
                x = block(x)
            done.append(x)
        return done


class Block(nn.Module):
    def __init__(self, weights: Weights, name: str, *, stride: int):
        super().__init__()
        # PySlowFast has a norm on every skip connection, PyTorchVideo none on that of X3D's s2: see UNNORMED.
        skip, skip_norm = (f"{name}.{x}.weight" in weights for x in ("branch1", "branch1_bn"))
        self.branch1 = convolution(weights, f"{name}.branch1", stride=stride) if skip else None
        self.branch1_bn = norm(weights, f"{name}.branch1_bn") if skip_norm else None
        self.branch2 = Branch(weights, f"{name}.branch2", stride=stride)

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.branch1 is None else self.branch1(x)
        skip = skip if self.branch1_bn is None else self.branch1_bn(skip)
        return self.branch2(x).add_(skip).relu_()


class Branch(nn.Module):
    """1x1 over `kernels` frames, 3x3 with the stride, 1x1; of an X3D, 1x1x1, channels alone, 1x1x1."""

    def __init__(self, weights: Weights, name: str, *, stride: int):
        super().__init__()
        self.a = convolution(weights, f"{name}.a")
        self.a_bn = norm(weights, f"{name}.a_bn")
        self.b = convolution(weights, f"{name}.b", stride=stride)
        self.b_bn = norm(weights, f"{name}.b_bn")
        self.se = SqueezeExcitation(weights, f"{name}.se") if f"{name}.se.fc1.weight" in weights else None
        self.c = convolution(weights, f"{name}.c")
        self.c_bn = norm(weights, f"{name}.c_bn")

    def forward(self, x: Tensor) -> Tensor:
        x = self.a_bn(self.a(x)).relu_()
        x = self.b_bn(self.b(x))
        x = x if self.se is None else self.se(x)
        x = functional.silu(x, inplace=True) if self.b.groups > 1 else x.relu_()
        return self.c_bn(self.c(x))


class SqueezeExcitation(nn.Module):
    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.fc1 = convolution(weights, f"{name}.fc1")
        self.fc2 = convolution(weights, f"{name}.fc2")

    def forward(self, x: Tensor) -> Tensor:
        return x * self.fc2(self.fc1(x.mean((2, 3, 4), keepdim=True)).relu_()).sigmoid_()


class Head(nn.Module):
    def __init__(self, weights: Weights):
        super().__init__()
        self.x3d = "head.conv_5.weight" in weights
        if self.x3d:
            self.conv_5 = convolution(weights, "head.conv_5")
            self.conv_5_bn = norm(weights, "head.conv_5_bn")
            self.lin_5 = convolution(weights, "head.lin_5")  # applied to averages: see ResNet3D.vector
        classes, features = weights["head.projection.weight"].shape
        self.projection = nn.Linear(features, classes)

    def forward(self, xs: list[Tensor]) -> list[Tensor]:
        return [self.conv_5_bn(self.conv_5(x)).relu_() for x in xs] if self.x3d else xs


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A projection of averages, which costs nothing: in float32, whatever the autocast around it."""
    with torch.autocast(x.device.type, enabled=False):
        return functional.linear(x.float(), weight, bias)


def pathways(weights: Weights) -> int:
    return 2 if "s1.pathway1_stem.conv.weight" in weights else 1


def convolution(weights: Weights, name: str, *, stride: int = 1, time_stride: int = 1) -> nn.Conv3d:
    """Sizes are those of the weights; as much is padded as a kernel looks aside. `stride` is that of height and width.

    A kernel for one channel belongs to as many groups as there are channels: no network here reads gray pictures.
    """
    channels, per_group, t, h, w = weights[f"{name}.weight"].shape
    groups = channels if per_group == 1 else 1
    return nn.Conv3d(
        per_group * groups,
        channels,
        (t, h, w),
        stride=(time_stride, stride, stride),
        padding=(t // 2, h // 2, w // 2),
        groups=groups,
        bias=f"{name}.bias" in weights,
    )


def norm(weights: Weights, name: str) -> nn.BatchNorm3d:
    return nn.BatchNorm3d(len(weights[f"{name}.weight"]))


def network(weights: Weights, variant: str, *, pool: bool | None = None) -> ResNet3D:
    """The network that `weights` are of, sharing their memory, for inference only.

    `pool`: time is halved after s2, where the weights are not those that VARIANTS means (PyTorchVideo's C2D does).
    """
    facts = VARIANTS[variant]
    with torch.device("meta"):
        net = ResNet3D(weights, alpha=facts.alpha, pool=facts.pool if pool is None else pool)
    net.load_state_dict(weights, assign=True)
    return net.eval().requires_grad_(False)


def template(variant: str, found: Weights | None = None) -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors.

    Checkpoints of one variant differ in the number of classes, in the frames that s4 of a ResNet-101 mixes, and in one
    norm of an X3D (see `Block`): there the template follows what is `found` in a file.
    """
    facts, found = VARIANTS[variant], found or {}
    entries = resnet_entries(facts, found) if facts.kernels else x3d_entries(facts, found)
    classes = len(found["head.projection.weight"]) if "head.projection.weight" in found else facts.classes
    entries |= {"head.projection.weight": (classes, facts.features), "head.projection.bias": (classes,)}
    dtypes = {key: torch.int64 if key.endswith(".num_batches_tracked") else torch.float32 for key in entries}
    return {key: torch.empty(shape, dtype=dtypes[key], device="meta") for key, shape in entries.items()}


def resnet_entries(facts: Variant, found: Weights) -> Shapes:
    entries: Shapes = {}
    for stage, width in enumerate(WIDTHS, start=1):
        for pathway, kernels in enumerate(kernels_found(facts, found)):
            name, share = f"s{stage}.pathway{pathway}", FAST_SHARE if pathway else 1
            if stage == 1:
                entries |= normed(f"{name}_stem.conv", f"{name}_stem.bn", width // share, 3, kernels[0][0], 7, 7)
                continue
            before = WIDTHS[stage - 2] // share
            if facts.alpha is not None and pathway == 0:
                before += 2 * WIDTHS[stage - 2] // FAST_SHARE
            for block, kernel in zip(range(facts.blocks[stage - 2]), itertools.cycle(kernels[stage - 1])):
                entries |= bottleneck(f"{name}_res{block}", before, width // share, kernel, skip=block == 0)
                before = width // share
        if facts.alpha is not None and stage < len(WIDTHS):
            fast = width // FAST_SHARE
            entries |= normed(f"s{stage}_fuse.conv_f2s", f"s{stage}_fuse.bn", 2 * fast, fast, facts.fusion, 1, 1)
    return entries


def kernels_found(facts: Variant, found: Weights) -> tuple[Kernels, ...]:
    beyond_half = found.get("s4.pathway0_res6.branch2.a.weight")
    if facts.blocks != R101 or beyond_half is None:
        return facts.kernels
    return HALF if beyond_half.shape[2:3] == (1,) else (SLOW, FAST)


def bottleneck(name: str, before: int, after: int, kernel: int, *, skip: bool) -> Shapes:
    inside = after // 4
    entries = normed(f"{name}.branch1", f"{name}.branch1_bn", after, before, 1, 1, 1) if skip else {}
    entries |= normed(f"{name}.branch2.a", f"{name}.branch2.a_bn", inside, before, kernel, 1, 1)
    entries |= normed(f"{name}.branch2.b", f"{name}.branch2.b_bn", inside, inside, 1, 3, 3)
    return entries | normed(f"{name}.branch2.c", f"{name}.branch2.c_bn", after, inside, 1, 1, 1)


def x3d_entries(facts: Variant, found: Weights) -> Shapes:
    stem = "s1.pathway0_stem"
    entries: Shapes = {f"{stem}.conv_xy.weight": (X3D_STEM, 3, 1, 3, 3)}
    entries |= normed(f"{stem}.conv", f"{stem}.bn", X3D_STEM, 1, 5, 1, 1)
    before = X3D_STEM
    for stage, (blocks, widths) in enumerate(zip(facts.blocks, X3D_STAGES, strict=True), start=2):
        for block in range(blocks):
            name = f"s{stage}.pathway0_res{block}"
            entries |= x3d_block(name, before, widths, skip=block == 0, squeezed=block % 2 == 0)
            before = widths[0]
    inside = X3D_STAGES[-1][1]
    entries |= normed("head.conv_5", "head.conv_5_bn", inside, before, 1, 1, 1)
    entries |= {"head.lin_5.weight": (facts.features, inside, 1, 1, 1)}
    if found and f"{UNNORMED}.weight" not in found:
        entries = {key: shape for key, shape in entries.items() if not key.startswith(f"{UNNORMED}.")}
    return entries


def x3d_block(name: str, before: int, widths: tuple[int, int, int], *, skip: bool, squeezed: bool) -> Shapes:
    after, inside, squeeze = widths
    branch = f"{name}.branch2"
    entries = normed(f"{name}.branch1", f"{name}.branch1_bn", after, before, 1, 1, 1) if skip else {}
    entries |= normed(f"{branch}.a", f"{branch}.a_bn", inside, before, 1, 1, 1)
    entries |= normed(f"{branch}.b", f"{branch}.b_bn", inside, 1, 3, 3, 3)
    if squeezed:
        entries |= {f"{branch}.se.fc1.weight": (squeeze, inside, 1, 1, 1), f"{branch}.se.fc1.bias": (squeeze,)}
        entries |= {f"{branch}.se.fc2.weight": (inside, squeeze, 1, 1, 1), f"{branch}.se.fc2.bias": (inside,)}
    return entries | normed(f"{branch}.c", f"{branch}.c_bn", after, inside, 1, 1, 1)


def normed(conv: str, bn: str, channels: int, *kernel: int) -> Shapes:
    """A convolution without bias and its batch norm."""
    leaves = dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (channels,))
    norm = {f"{bn}.{leaf}": shape for leaf, shape in (leaves | {"num_batches_tracked": ()}).items()}
    return {f"{conv}.weight": (channels, *kernel)} | norm

"""ViNet-A: where people look in each frame of a video, from two seconds around it.

Girmaji et al. 2025, Minimalistic Video Saliency Prediction via Efficient Decoder & Spatio Temporal Action Cues
(CC-BY-NC-SA-4.0, code and weights). A SlowFast with dilated last stages, trained to find actions, and a decoder of
grouped kernels. RGB frames in, a saliency map of 256 x 456 values in 0 ... 1 out; checked against numbers of the
authors' program. It looks ahead: the map of frame t rests on every second frame of t - 31 ... t + 31.

    fast    stem > res1 > res2 > res3 > res4 ──┐        32 frames, an eighth of the channels
                v      v      v      v         neck > decoder > 1 map
    slow    stem > res1 > res2 > res3 > res4 ──┘ │      8 frames; what enters res1 ... res4 is skipped to the decoder
                 └──────┴──────┴──────┴──────────┘
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from ..weights import checkpoints
from .backbones import Weights, affine, constant
from .precision import Precisions, wanted_dtype
from .resize import resized
from .s3d_trunk import frames_again, norm_template, time_by_place
from .sliding_clip import SALIENCY, Memory, result
from .spec import Batch, Model, ModelSpec, Result, Video, Window

AROUND = 31  # frames on either side of the one that a map is of
FRAMES = 32  # of them that are shown, every second one
ALPHA = 4  # of which the slow pathway sees every fourth
MULTIPLE = 8  # pixels; 256 x 456 is none of 32
GRAY_MEAN, GRAY_STD = 0.45, 0.225

BLOCKS = (3, 4, 6, 3)
PLANES = (64, 128, 256, 512)
FAST_SHARE = 8  # how many times fewer channels the fast pathway has
WIDTHS = (64, 256, 512, 1024, 2048)  # of the slow pathway behind the stem and each stage, without what is fast
SHUFFLED = (32, 16, 8)  # groups, before convtsp2, 3 and 4


def spec(*, height: int = 256, width: int = 456) -> ModelSpec:
    """`height`, `width`: what frames are resized to, 256 x 456 in training; multiples of 8."""
    if height < MULTIPLE or width < MULTIPLE or height % MULTIPLE or width % MULTIPLE:
        raise UsageError(
            f"vinet_a computes at multiples of {MULTIPLE} pixels, not at {height} x {width}: try 256 x 456"
        )
    return ModelSpec(
        name="vinet_a",
        summary="saliency map of each frame of a video from a second before and after it: a SlowFast of actions",
        licence="CC-BY-NC-SA-4.0 (no commercial use)",
        citation="Girmaji, Jain, Beri, Bansal & Gandhi 2025, Minimalistic Video Saliency Prediction via Efficient "
        "Decoder & Spatio Temporal Action Cues, ICASSP",
        outputs=(SALIENCY,),
        window=lambda frame_rate: Window(past=AROUND, future=AROUND),
        state="window",
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    height: int = 256,
    width: int = 456,
) -> Model:
    """`weights` as for `checkpoints.load`, the rest as for `spec`."""
    checked = spec(height=height, width=width)
    loaded = checkpoints.load("vinet_a", weights, template(), adjust={})
    return ViNetA(checked, Network(loaded), height=height, width=width, device=torch.device(device))


@dataclass(slots=True)
class State:
    """`waiting`: wanted frames whose look-ahead has not come yet."""

    memory: Memory | None = None
    waiting: list[int] = field(default_factory=list)


class ViNetA:
    """Before the first frame of a video and behind its last one these two are shown."""

    def __init__(self, spec: ModelSpec, network: Network, *, height: int, width: int, device: torch.device) -> None:
        self.spec = spec
        self.networks = Precisions(network.to(device))
        self.height, self.width = height, width
        self.device = device

    def begin(self, video: Video) -> State:
        return State()

    def step(self, batch: Batch, state: State) -> Result:
        memory, waiting, done = state.memory, list(state.waiting), dict[int, Tensor]()
        for slot in range(batch.present.start, batch.present.stop):
            frame = int(batch.frame[slot])
            if memory is not None and frame != memory.last + 1:
                done |= {number: self.map(memory, number) for number in waiting}
                memory, waiting = None, []
            picture = resized(batch.frames_nhwc[slot : slot + 1], self.height, self.width, antialias=True)
            memory = followed(memory, picture, frame)
            waiting += [frame] if batch.wanted[slot] else []
            if waiting and waiting[0] + AROUND <= frame:
                done[waiting[0]] = self.map(memory, waiting[0])
                waiting = waiting[1:]
        state.memory, state.waiting = memory, waiting
        return result(done, memory)

    def end(self, state: State) -> Result | None:
        if state.memory is None or not state.waiting:
            return None
        frame = state.waiting[0]
        done = {frame: self.map(state.memory, frame)}
        state.waiting = state.waiting[1:]
        return result(done, state.memory)

    def map(self, memory: Memory, frame: int) -> Tensor:
        numbers = range(frame - AROUND, frame + AROUND + 2, 2)
        pictures = torch.cat([memory.picture(min(number, memory.last)) for number in numbers])
        dtype = wanted_dtype(self.device)
        with torch.autocast(self.device.type, enabled=False):
            logits = self.logits(pictures, dtype)
            if dtype != torch.float32 and not bool(logits.isfinite().all()):
                logits = self.logits(pictures, torch.float32)
        return logits.float().sigmoid()

    def logits(self, pictures_nhwc: Tensor, dtype: torch.dtype) -> Tensor:
        return cast(Network, self.networks[dtype])(normalized(pictures_nhwc).to(dtype))


def followed(memory: Memory | None, picture: Tensor, frame: int) -> Memory:
    if memory is None:
        return Memory(first=frame, last=frame, pictures=(picture,), shared=None)
    pictures = (*memory.pictures, picture)[-2 * AROUND - 1 :]
    return Memory(first=memory.first, last=frame, pictures=pictures, shared=None)


def normalized(pictures_nhwc: Tensor) -> Tensor:
    """(n, 3, h, w) from uint8 RGB."""
    return pictures_nhwc.permute(0, 3, 1, 2).float().div_(255).sub_(GRAY_MEAN).div_(GRAY_STD)


class Network(nn.Module):
    """(32, 3, h, w) -> logits (h, w)."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.fast_stem, self.slow_stem = (
            Conv(weights, f"backbone.{way}_conv1", f"backbone.{way}_bn1", stride=2) for way in ("fast", "slow")
        )
        self.lateral = nn.ModuleList(
            Conv(weights, f"backbone.Tconv{k}", step=ALPHA, active=False) for k in (1, 2, 3, 4)
        )
        self.fast, self.slow = (
            nn.ModuleList(stage(weights, f"backbone.{way}_res{k}", k) for k in (1, 2, 3, 4)) for way in ("fast", "slow")
        )
        self.to_neck = Conv(weights, "neck.conv_slow.0")
        self.skips = nn.ModuleList(Conv(weights, f"neck.conv_skip{k}.0") for k in (1, 2, 3, 4))
        self.decoder = Decoder(weights)

    def forward(self, frames_tchw: Tensor) -> Tensor:
        fast = functional.max_pool2d(self.fast_stem(frames_tchw), 3, 2, 1)
        slow = functional.max_pool2d(self.slow_stem(frames_tchw[::ALPHA]), 3, 2, 1)
        skipped = []
        ways = zip(self.lateral, self.fast, self.slow, self.skips, strict=True)
        for lateral, fast_stage, slow_stage, skip in ways:
            slow = torch.cat([slow, lateral(fast)], 1)
            skipped.append(skip(slow))
            slow, fast = slow_stage(slow), fast_stage(fast)
        return self.decoder(torch.cat([self.to_neck(slow), halves_as_channels(fast)], 1), skipped)


def halves_as_channels(x: Tensor) -> Tensor:
    """(32, c, h, w) -> (8, 2 c, h, w): each half of the time is a channel, and pairs of frames their maximum.

    The authors view (c, 32) as (2 c, 16), which makes channel 2 k of the first and 2 k + 1 of the second half of k.
    """
    t, c, h, w = x.shape
    return x.view(2, t // 4, 2, c, h, w).amax(2).permute(1, 2, 0, 3, 4).reshape(t // 4, 2 * c, h, w)


def stage(weights: Weights, name: str, number: int) -> nn.Module:
    """The last stage keeps its size and looks at every second pixel instead."""
    strides = [1 if number in (1, 4) else 2] + [1] * (BLOCKS[number - 1] - 1)
    dilation = 2 if number == 4 else 1
    return nn.Sequential(
        *(Block(weights, f"{name}.{block}", stride=stride, dilation=dilation) for block, stride in enumerate(strides))
    )


class Block(nn.Module):
    def __init__(self, weights: Weights, name: str, *, stride: int, dilation: int):
        super().__init__()
        self.conv1 = Conv(weights, f"{name}.conv1", f"{name}.bn1")
        self.conv2 = Conv(weights, f"{name}.conv2", f"{name}.bn2", stride=stride, dilation=dilation)
        self.conv3 = Conv(weights, f"{name}.conv3", f"{name}.bn3", active=False)
        skip, norm = f"{name}.downsample.0", f"{name}.downsample_bn"
        projected = f"{skip}.weight" in weights
        self.skip = Conv(weights, skip, norm, stride=stride, active=False) if projected else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv3(self.conv2(self.conv1(x))).add_(self.skip(x)).relu_()


class Decoder(nn.Module):
    def __init__(self, weights: Weights):
        super().__init__()
        self.levels = nn.ModuleList(Conv(weights, f"decoder.convtsp{k}.0") for k in (1, 2, 3, 4))
        self.shorter = nn.ModuleList(
            Conv(weights, f"decoder.{name}.0", step=2, pad_time=0) for name in ("convtsp5", "convtsp6")
        )
        self.last = nn.Sequential(
            Conv(weights, "decoder.convtsp6.3", pad_time=0),
            Conv(weights, "decoder.convtsp6.5"),
            Conv(weights, "decoder.convtsp6.7", active=False),
        )

    def forward(self, x: Tensor, skipped: list[Tensor]) -> Tensor:
        for level, skip, groups in zip(self.levels, reversed(skipped), (*SHUFFLED, 1), strict=True):
            x = torch.cat([sized(level(x), skip.shape[2:]), skip], 1)
            x = functional.channel_shuffle(x, groups)
        for level in self.shorter:
            x = level(x)
            x = sized(x, torch.Size([2 * x.shape[2], 2 * x.shape[3]]))
        return self.last(x)[0, 0]


def sized(x: Tensor, size: torch.Size) -> Tensor:
    return x if x.shape[2:] == size else functional.interpolate(x, size, mode="bilinear", align_corners=False)


class Conv(nn.Module):
    """A kernel (out, in / groups, k, s, s) on (t, c, h, w), the batch norm behind it if there is one, and a ReLU.

    As much is padded as it looks aside, along time unless told otherwise. `step`: its stride along time.
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        norm: str = "",
        *,
        stride: int = 1,
        dilation: int = 1,
        step: int = 1,
        pad_time: int | None = None,
        active: bool = True,
    ):
        super().__init__()
        weight = weights[f"{name}.weight"].double()
        bias = weights.get(f"{name}.bias")
        if norm:
            scale, bias = affine(weights, norm)
            weight = weight * scale.view(-1, 1, 1, 1, 1)
        self.frames, size = weight.shape[2:4]
        self.over_time = self.frames > 1 and size == 1
        self.weight = constant(weight[..., 0] if self.over_time else weight.flatten(1, 2))
        self.bias = None if bias is None else constant(bias)
        self.stride, self.dilation, self.padding = stride, dilation, dilation * (size // 2)
        self.step, self.pad_time = step, self.frames // 2 if pad_time is None else pad_time
        self.active = active

    def forward(self, x: Tensor) -> Tensor:
        y = self.along_time(x) if self.over_time else self.in_pictures(x)
        return y.relu_() if self.active else y

    def along_time(self, x: Tensor) -> Tensor:
        y = functional.conv2d(time_by_place(x), self.weight, self.bias, (self.step, 1), (self.pad_time, 0))
        return frames_again(y, x)

    def in_pictures(self, x: Tensor) -> Tensor:
        """The frames under a kernel are the channels of one picture."""
        if self.frames > 1:
            x = functional.pad(x, (0, 0) * 3 + (self.pad_time,) * 2)
            x = x.unfold(0, self.frames, self.step).movedim(-1, 2).flatten(1, 2)
        groups = x.shape[1] // self.weight.shape[1]
        return functional.conv2d(x, self.weight, self.bias, self.stride, self.padding, self.dilation, groups)


def add_stage(add: Callable[..., None], name: str, number: int, blocks: int, share: int) -> None:
    """The entries of one stage of one pathway."""
    planes, width = PLANES[number - 1] // share, WIDTHS[number] // share
    entered = WIDTHS[number - 1] // share
    if share == 1:
        entered += 2 * entered // FAST_SHARE  # what is fast
    frames = 3 if share > 1 or number > 2 else 1
    for block in range(blocks):
        inside = width if block else entered
        add(f"{name}.{block}.conv1", planes, inside, frames, 1, 1, norm=f"{name}.{block}.bn1")
        add(f"{name}.{block}.conv2", planes, planes, 1, 3, 3, norm=f"{name}.{block}.bn2")
        add(f"{name}.{block}.conv3", width, planes, 1, 1, 1, norm=f"{name}.{block}.bn3")
        if block == 0:
            add(f"{name}.0.downsample.0", width, inside, 1, 1, 1, norm=f"{name}.0.downsample_bn")


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors."""
    entries: dict[str, Tensor] = {}

    def add(name: str, *shape: int, norm: str = "") -> None:
        entries[f"{name}.weight"] = torch.empty(shape, device="meta")
        if norm:
            entries.update(norm_template(norm, shape[0]))

    for way, share in (("fast", FAST_SHARE), ("slow", 1)):
        frames = 5 if way == "fast" else 1
        add(f"backbone.{way}_conv1", 64 // share, 3, frames, 7, 7, norm=f"backbone.{way}_bn1")
        for number, blocks in enumerate(BLOCKS, 1):
            add_stage(add, f"backbone.{way}_res{number}", number, blocks, share)
    for number, width in enumerate(WIDTHS[:4], 1):
        add(f"backbone.Tconv{number}", 2 * width // FAST_SHARE, width // FAST_SHARE, 5, 1, 1)
    add("neck.conv_slow.0", 1024, 2048, 1, 1, 1)
    for number, width in enumerate(WIDTHS[:4], 1):
        entered = width + 2 * width // FAST_SHARE
        add(f"neck.conv_skip{number}.0", entered // 2, entered, 1, 1, 1)
    kernels = {
        "1.0": (640, 48, 3, 3, 3),
        "2.0": (320, 80, 3, 3, 3),
        "3.0": (160, 80, 3, 3, 3),
        "4.0": (40, 40, 3, 3, 3),
        "5.0": (64, 20, 2, 3, 3),
        "6.0": (32, 32, 2, 3, 3),
        "6.3": (16, 32, 2, 3, 3),
        "6.5": (16, 16, 1, 1, 1),
        "6.7": (1, 16, 1, 1, 1),
    }
    for name, shape in kernels.items():
        add(f"decoder.convtsp{name}", *shape)
    return entries | {"decoder.convtsp6.7.bias": torch.empty(1, device="meta")}

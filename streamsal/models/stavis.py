"""STAViS: where people look in each frame of a video, from the pictures around it and, if it has any, their sound.

Tsiami, Koutras & Maragos 2020, STAViS: Spatio-Temporal AudioVisual Saliency Network (atsiami/STAViS, MIT). RGB frames
t-8 ... t+7 and their sound in, a saliency map of 112 x 112 values in 0 ... 1 of frame t out; checked against numbers of
the authors' program. Two models: `stavis` sees and hears, `stavis_visual` has the weights that were trained without
sound. Each level says with one map of attention where the next one should look.

    16 frames > conv1 ─┬─ layer1 ─┬─ layer2 ──┬── layer3 ──┐
                    maps       maps    │    maps         maps > all maps of 112 x 112 > one map
    35280 samples > SoundNet ──────────┴─ where it sounds ──────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..errors import UsageError
from ..weights import checkpoints
from . import soundnet
from .backbones import Weights, affine, constant
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video, Window

WINDOW = Window(past=8, future=7)
SIZE = 112  # of a frame as the network sees it, and of the map
STRIDE = 16  # pixels per position of layer3
STORED = (240, 320)  # height and width that the authors brought their videos to before
MEAN = (114.7748, 107.7354, 99.4750)  # of ActivityNet's frames, RGB
LAYERS = {"layer1": (64, 3, 1), "layer2": (128, 4, 2), "layer3": (256, 6, 2)}  # width, blocks, stride
SIDES = (64, 256, 512, 1024)  # channels behind conv1 and each layer
SOUND_NAMES = tuple((f"soundnet8.{kernel}", f"soundnet8.{kernel + 1}") for kernel in (0, 4, 8, 11, 14, 18, 21))
OF_SOUND = ("soundnet8.", "fusion3.", "fuseav.")


def spec(
    *, variant: str = "stavis", audio: soundnet.Hearing = "time", height: int = SIZE, width: int = SIZE
) -> ModelSpec:
    """`audio`: which sound it hears, see `soundnet.heard`; `height`, `width`: what frames are resized to, 112 in
    training; multiples of 16."""
    if min(height, width) < STRIDE or height % STRIDE or width % STRIDE:
        raise UsageError(
            f"{variant} computes at multiples of {STRIDE} pixels, not at {height} x {width}: try 112 x 112"
        )
    heard = soundnet.heard(variant, audio, WINDOW)
    seen = "16 around it and their sound" if variant == "stavis" else "16 around it"
    return ModelSpec(
        name=variant,
        summary=f"saliency map of each frame of a video from {seen}: a 3D ResNet-50 at 112x112",
        licence="MIT; weights: none stated by their authors",
        citation="Tsiami, Koutras & Maragos 2020, STAViS: Spatio-Temporal AudioVisual Saliency Network, CVPR",
        outputs=(Output(name="saliency", kind="saliency_map", units="1", readback=Readback()),),
        window=lambda frame_rate: WINDOW,
        state="window",
        audio=heard if variant == "stavis" else None,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    variant: str = "stavis",
    audio: soundnet.Hearing = "time",
    height: int = SIZE,
    width: int = SIZE,
) -> Model:
    """`weights` as for `checkpoints.load`, the rest as for `spec`. Files without sound keep keys of it that nobody
    trained: `stavis_visual` leaves them."""
    checked = spec(variant=variant, audio=audio, height=height, width=width)
    hears = variant == "stavis"
    loaded = checkpoints.load(
        variant, weights, template(hears=hears), nested="state_dict", idle=() if hears else OF_SOUND
    )
    return Stavis(checked, Network(loaded, hears=hears), device=torch.device(device), size=(height, width))


def template(*, hears: bool = True) -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors; with `hears` false those that see alone."""
    entries: dict[str, Tensor] = {}

    def add(name: str, *shape: int) -> None:
        entries[name] = torch.empty(shape, device="meta")

    def convolution(name: str, norm: str, *shape: int) -> None:
        add(f"{name}.weight", *shape)
        norms = nn.BatchNorm3d(shape[0], device="meta").state_dict()
        entries.update({f"{norm}.{leaf}": value for leaf, value in norms.items()})

    convolution("conv1", "bn1", 64, 3, 7, 7, 7)
    inside = 64
    for layer, (width, blocks, _) in LAYERS.items():
        for block in range(blocks):
            name = f"{layer}.{block}"
            convolution(f"{name}.conv1", f"{name}.bn1", width, inside, 1, 1, 1)
            convolution(f"{name}.conv2", f"{name}.bn2", width, width, 3, 3, 3)
            convolution(f"{name}.conv3", f"{name}.bn3", 4 * width, width, 1, 1, 1)
            if block == 0:
                convolution(f"{name}.downsample.0", f"{name}.downsample.1", 4 * width, inside, 1, 1, 1)
            inside = 4 * width
    for level, channels in enumerate(SIDES):
        name, step = f"score_dsn.{level}", 2 ** (level + 1)
        for leaf, shape in (("side_prep", (16, channels, 3, 3)), ("score_dsn", (1, 16, 1, 1))):
            add(f"{name}.{leaf}.weight", *shape)
            add(f"{name}.{leaf}.bias", shape[0])
        add(f"{name}.upscale_.weight", 1, 1, 2 * step, 2 * step)
        add(f"{name}.upscale.weight", 16, 16, 2 * step, 2 * step)
    add("fuse.weight", 1, 64, 1, 1)
    add("fuse.bias", 1)
    add("fuseav.weight", 1, 128, 1, 1)
    add("fuseav.bias", 1)
    entries |= soundnet.template(SOUND_NAMES, across=True)
    for name, shape in (("affine_rgb", (128, 512)), ("affine_audio", (128, 1024)), ("w_a_rgb", (64, 128, 128))):
        add(f"fusion3.{name}.weight", *shape)
        add(f"fusion3.{name}.bias", shape[0])
    return entries if hears else {key: value for key, value in entries.items() if not key.startswith(OF_SOUND)}


class Network(nn.Module):
    """A clip (3, 16, 112, 112), mean taken off, and a row of sound, where it `hears`, to logits (112, 112)."""

    def __init__(self, weights: Weights, *, hears: bool):
        super().__init__()
        self.conv1 = Conv(weights, "conv1", "bn1", stride=(1, 2, 2))
        self.layer1, self.layer2, self.layer3 = (
            nn.Sequential(*(Block(weights, f"{layer}.{block}", stride if block == 0 else 1) for block in range(blocks)))
            for layer, (_, blocks, stride) in LAYERS.items()
        )
        self.sides = nn.ModuleList(Side(weights, f"score_dsn.{level}", 2 ** (level + 1)) for level in range(len(SIDES)))
        self.source = Source(weights) if hears else None
        self.last = Affine(weights, "fuseav" if hears else "fuse")

    def forward(self, clip_cthw: Tensor, sound_n: Tensor) -> Tensor:
        x, maps0 = self.sides[0](self.conv1(clip_cthw[None]).relu_())
        x, maps1 = self.sides[1](self.layer1(functional.max_pool3d(x, 3, 2, 1)))
        seen = self.layer2(x)
        x, maps2 = self.sides[2](seen)
        _, maps3 = self.sides[3](self.layer3(x))
        maps = [maps0, maps1, maps2, maps3, *([self.source(seen, sound_n)] if self.source else [])]
        return functional.conv2d(torch.cat(maps, 1), self.last.weight, self.last.bias)[0, 0]


class Conv(nn.Module):
    """A kernel with the batch norm behind it."""

    def __init__(self, weights: Weights, name: str, norm: str, *, stride: int | tuple[int, int, int] = 1):
        super().__init__()
        scale, shift = affine(weights, norm)
        self.weight = constant(weights[f"{name}.weight"].double() * scale.view(-1, 1, 1, 1, 1))
        self.bias = constant(shift)
        self.stride, self.padding = stride, self.weight.shape[-1] // 2

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv3d(x, self.weight, self.bias, self.stride, self.padding)


class Block(nn.Module):
    """A bottleneck: narrow, look around, widen; added to what came in."""

    def __init__(self, weights: Weights, name: str, stride: int):
        super().__init__()
        self.narrow = Conv(weights, f"{name}.conv1", f"{name}.bn1")
        self.look = Conv(weights, f"{name}.conv2", f"{name}.bn2", stride=stride)
        self.widen = Conv(weights, f"{name}.conv3", f"{name}.bn3")
        projected = f"{name}.downsample.0.weight" in weights
        past = Conv(weights, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride) if projected else None
        self.past = past or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.widen(self.look(self.narrow(x).relu_()).relu_())
        return y.add_(self.past(x)).relu_()


class Affine(nn.Module):
    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.weight, self.bias = constant(weights[f"{name}.weight"]), constant(weights[f"{name}.bias"])


class Side(nn.Module):
    """The authors' DSAM: a level weighed by one map of attention, and 16 maps of it at 112 x 112."""

    def __init__(self, weights: Weights, name: str, step: int):
        super().__init__()
        self.prepare, self.score = Affine(weights, f"{name}.side_prep"), Affine(weights, f"{name}.score_dsn")
        self.upscale, self.step = constant(weights[f"{name}.upscale.weight"]), step

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        side = functional.conv2d(x.mean(2), self.prepare.weight, self.prepare.bias, padding=1)
        score = functional.conv2d(side, self.score.weight, self.score.bias)
        # softmax takes the maximum off first; the authors' exponentials are infinite where a score exceeds 88.
        attention = score.flatten(1).softmax(1).view_as(score)
        maps = functional.conv_transpose2d(side, self.upscale, stride=self.step, padding=self.step // 2)
        return x * (1 + attention[:, :, None]), maps


class Source(nn.Module):
    """Where in the picture the sound comes from: each place of layer2 against the sound, 64 maps of 112 x 112."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.hearing = soundnet.SoundNet(weights, SOUND_NAMES)
        self.of_sight, self.of_sound, self.both = (
            Affine(weights, f"fusion3.{leaf}") for leaf in ("affine_rgb", "affine_audio", "w_a_rgb")
        )

    def forward(self, seen: Tensor, sound_n: Tensor) -> Tensor:
        """seen (1, 512, 4, 14, 14), of which the two middle times are meant; sound (35280,)."""
        middle = seen[0, :, 1:3].mean(1)  # 512 14 14
        place = functional.linear(middle.flatten(1).T, self.of_sight.weight, self.of_sight.bias).relu()
        heard = functional.max_pool1d(self.hearing(sound_n), 2)[:, 0]
        heard = functional.linear(heard, self.of_sound.weight, self.of_sound.bias).relu()
        maps = functional.linear(place, self.both.weight @ heard, self.both.bias)  # 196 64
        maps = maps.T.unflatten(1, middle.shape[1:])[None]
        return functional.interpolate(maps, scale_factor=8, mode="bilinear", align_corners=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """A frame whose future has not come yet."""

    frame: int
    wanted: bool
    sound_n: Tensor


@dataclass(slots=True)
class State:
    """`frames`: the 16 last pictures, or fewer, up to frame `latest` without a jump; each uint8 (3, h, w)."""

    latest: int | None = None
    frames: list[Tensor] = field(default_factory=list)
    waiting: list[Waiting] = field(default_factory=list)


class Stavis:
    def __init__(self, spec: ModelSpec, network: Network, *, device: torch.device, size: tuple[int, int]) -> None:
        self.spec = spec
        self.device = device
        self.size = size
        self.network = network.to(device)
        self.mean = torch.tensor(MEAN, device=device)[:, None, None, None]
        self.silence = torch.zeros(soundnet.samples(WINDOW), device=device)

    def begin(self, video: Video) -> State:
        return State()

    def step(self, batch: Batch, state: State) -> Result:
        """Results of the wanted frames whose future is known by now."""
        latest, frames, waiting = state.latest, state.frames, state.waiting
        found: list[tuple[int, Tensor]] = []
        for slot in range(batch.present.start, batch.present.stop):
            frame = int(batch.frame[slot])
            if latest is not None and frame != latest + 1:
                found += self.results(waiting, frames, latest)
                frames, waiting = [], []
            latest, frames = frame, [*frames, small(batch.frames_nhwc[slot], self.size)][-WINDOW.length :]
            sound_n = self.silence if batch.audio_nt is None else batch.audio_nt[slot].clone()
            waiting = [*waiting, Waiting(frame=frame, wanted=bool(batch.wanted[slot]), sound_n=sound_n)]
            if waiting[0].frame + WINDOW.future == frame:
                found += self.results(waiting[:1], frames, latest)
                waiting = waiting[1:]
        state.latest, state.frames, state.waiting = latest, frames, waiting
        return self.result(found)

    def end(self, state: State) -> Result | None:
        if not state.waiting or state.latest is None:
            return None
        found = self.results(state.waiting, state.frames, state.latest)
        state.waiting = []
        return self.result(found)

    def results(self, waiting: list[Waiting], frames: list[Tensor], latest: int) -> list[tuple[int, Tensor]]:
        """(frame, map) of those wanted, each clip for itself; the first and last frame stand for those beyond."""
        found = []
        for one in waiting:
            if not one.wanted:
                continue
            places = np.arange(one.frame - WINDOW.past, one.frame + WINDOW.future + 1) - (latest - len(frames) + 1)
            clip = [frames[place] for place in places.clip(0, len(frames) - 1)]
            logits = self.network(torch.stack(clip, 1).float() - self.mean, one.sound_n)
            found.append((one.frame, logits.sigmoid()))
        return found

    def result(self, found: list[tuple[int, Tensor]]) -> Result:
        maps = [saliency for _, saliency in found]
        stacked = torch.stack(maps) if maps else torch.empty(0, *self.size, device=self.device)
        return Result(frame=np.array([frame for frame, _ in found], np.int64), values={"saliency": stacked})


def small(frame_hwc: Tensor, size: tuple[int, int]) -> Tensor:
    """uint8 (H, W, 3) to (3, h, w): to 320 x 240 by cubics, then by triangles, as Pillow does since its version 7.

    The authors leave the first filter to Pillow, whose default was the nearest pixel before. Either step is rounded.
    """
    x = frame_hwc.permute(2, 0, 1)[None].float()
    for shape, mode in ((STORED, "bicubic"), (size, "bilinear")):
        x = functional.interpolate(x, size=shape, mode=mode, antialias=True, align_corners=False)
        x = x.round_().clamp_(0, 255)
    return x[0].to(torch.uint8)

"""DeepGaze III: where people look next, given where they have looked so far.

Kümmerer, Bethge & Wallis 2022. What it makes of a picture does not depend on the fixations before, and what it makes of
the fixations needs no picture, so it is computed in two passes: tasks store ten small saliency maps of each frame, and
one cheap pass over the whole video, in order, makes densities of them for any scanpath. Fixations may thus be chosen
from the model's own densities, one after another, although the frames were computed by many tasks.

    frame[::2, ::2] > DenseNet-201 > features > saliency networks > 10 maps    `step`: tasks, frame by frame
    4 fixations > distances > scanpath networks ─┐
    10 maps ─────────────────────────────────────┴> fixation networks > blur, center bias, normalize > mean    `derive`
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ..density import nearest_indices
from ..fixations import LENGTH, Central, Source, follow
from ..weights import checkpoints
from . import center_bias as bias
from . import finalizer
from .backbones import densenet201, densenet201_template, normalized
from .finalizer import Finalizer, Parameters
from .precision import Precisions, at_wanted_precision
from .readout import (
    EPSILON,
    Grid,
    Layer,
    SaliencyNetworks,
    centered,
    fixation_template,
    folded,
    layer,
    on_meta,
    saliency_template,
    softplus,
    to,
)
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video

BLOCK = 4  # pixels per value, along both sides
STRIDE = 8  # pixels per position of the readout grid
N_COMPONENTS = 10  # cross-validation folds
CHANNELS = 2048  # of the features
HIDDEN = 128  # channels that the scanpath and the fixation networks work with


def spec(*, center_bias: str = "mit1003") -> ModelSpec:
    del center_bias
    readback = Readback(interpolation="nearest", block=BLOCK)
    return ModelSpec(
        name="deepgaze_iii",
        summary="density of the next fixation in each frame, given the last four: one backbone, 10 readouts",
        licence="weights: none stated by their authors",
        citation="Kümmerer, Bethge & Wallis 2022, DeepGaze III: Modeling free-viewing human scanpaths with deep "
        "learning, Journal of Vision 22(5):7",
        outputs=(Output(name="components", kind="features", units="arbitrary", exact=True),),
        derived=(Output(name="log_density", kind="log_density", units="nats", readback=readback),),
        pixel_step=2,
        px_per_degree=35,
        long_side=1024,
        min_side=64,
        bytes_per_px=60,
        constants=("center_bias",),
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    center_bias: str = "mit1003",
) -> Model:
    """`weights` as for `checkpoints.load`, `center_bias` as for `center_bias.template`."""
    loaded = checkpoints.load("deepgaze_iii", weights, template())
    return DeepGazeIII(loaded, center_bias=bias.template(center_bias), device=torch.device(device))


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors."""
    entries = densenet201_template("features.features.1.")
    for k in range(N_COMPONENTS):
        entries |= saliency_template(f"saliency_networks.{k}", CHANNELS)
    for k in range(N_COMPONENTS):
        entries |= scanpath_template(f"scanpath_networks.{k}")
    for k in range(N_COMPONENTS):
        entries |= fixation_template(f"fixation_selection_networks.{k}", extra_parts=(16,))
    for k in range(N_COMPONENTS):
        entries |= finalizer.template(f"finalizers.{k}")
    return entries


def scanpath_template(prefix: str) -> dict[str, Tensor]:
    shapes: dict[str, tuple[int, ...]] = {}
    for back in range(LENGTH):
        shapes[f"encoding0.convolutions.{back}.weight"] = (HIDDEN, 3, 1, 1)
        shapes[f"encoding0.convolutions.{back}.bias"] = (HIDDEN,)
    shapes["layernorm1.weight"] = shapes["layernorm1.bias"] = (HIDDEN,)
    shapes |= {"conv1.weight": (16, HIDDEN, 1, 1), "bias1.bias": (16,)}
    return on_meta(prefix, shapes)


@dataclass(slots=True)
class State:
    size: tuple[int, int]
    center_bias: np.ndarray
    grid: Grid | None = None  # made with the first batch


class DeepGazeIII:
    def __init__(self, weights: Mapping[str, Tensor], *, center_bias: np.ndarray, device: torch.device) -> None:
        self.spec = spec()
        self.device = device
        self.center_bias = center_bias
        self.backbones = Precisions(densenet201(weights, "features.features.1.").to(device))
        self.saliency = SaliencyNetworks(weights, components("saliency_networks"), device)
        self.head = Head(weights, device)
        self.parameters = Parameters.of(weights, components("finalizers"))

    def begin(self, video: Video) -> State:
        return State(size=(video.height, video.width), center_bias=bias.of_video(self.center_bias, video))

    def constants(self, state: State) -> dict[str, np.ndarray]:
        return {"center_bias": finalizer.on_grid(state.center_bias, BLOCK)}

    def step(self, batch: Batch, state: State) -> Result:
        height, width = state.size
        frames = batch.frames_nhwc[:, : height // 2, : width // 2]  # the rest is never looked at
        maps = at_wanted_precision(self.device, lambda dtype: self.saliency_maps(frames, state, dtype))
        return Result(frame=batch.frame[batch.present], values={"components": maps[batch.present]})

    def end(self, state: State) -> None:
        return None

    def saliency_maps(self, frames_nhwc: Tensor, state: State, dtype: torch.dtype) -> Tensor:
        """(n, 10, h, w) on the features' own grid."""
        taps = self.backbones[dtype](normalized(frames_nhwc, dtype))
        sizes = [(tap.shape[-2], tap.shape[-1]) for tap in taps]
        grid = state.grid or Grid.make(readout_grid(state.size), sizes, self.device)
        maps = self.saliency(taps, grid)[:, :, 0].unflatten(-1, grid.size)
        state.grid = grid
        return maps

    def derive(self, video: Video, fixations: Source | None = None) -> SecondPass:
        """Without `fixations`: one in the middle of the frame."""
        return SecondPass(self, video, fixations or Central())


class SecondPass:
    """Log densities of one video from its saliency maps and a scanpath; several scanpaths are averaged."""

    def __init__(self, model: DeepGazeIII, video: Video, source: Source) -> None:
        size = video.height, video.width
        self.model = model
        self.scanpaths = follow(source, height=video.height, width=video.width, scale=video.scale)
        self.places = Places.make(size, model.device)
        readout = readout_grid(size)
        self.finalizer = Finalizer.make(
            model.parameters,
            size=size,
            block=BLOCK,
            sources=(np.arange(readout[0]), np.arange(readout[1])),
            center_bias=bias.of_video(model.center_bias, video),
            device=model.device,
        )
        self.encodings: list[tuple[np.ndarray, Tensor]] = []  # of each scanpath, with the history that it encodes

    def step(self, values: Mapping[str, Tensor], pts_seconds: np.ndarray) -> dict[str, Tensor]:
        device = self.model.device
        maps_nkhw = values["components"].to(device)
        found = torch.empty(len(maps_nkhw), *self.finalizer.center_bias.shape, device=device)
        with torch.autocast(device.type, enabled=False):
            for row, (maps_khw, seconds) in enumerate(zip(maps_nkhw, pts_seconds, strict=True)):
                found[row] = self.log_density(maps_khw, float(seconds))
        return {"log_density": found}

    def table(self) -> list[dict[str, float]]:
        return self.scanpaths.table()

    def log_density(self, maps_khw: Tensor, seconds: float) -> Tensor:
        """(H // 4, W // 4) natural-log density on the stored grid, summing to 1 there."""
        saliency = self.places.shown(maps_khw)
        densities = torch.stack(
            [
                self.density(saliency, self.encoding(number, history))
                for number, history in enumerate(self.scanpaths.history(seconds))
            ]
        )
        if self.scanpaths.choosing:
            self.scanpaths.look(finalizer.log_density(densities).cpu().numpy())
        return finalizer.log_density(densities.sum(0))

    def density(self, saliency: Tensor, encoding: Tensor) -> Tensor:
        """(H // 4, W // 4) density for one scanpath, up to a factor that is the same for all."""
        priority = self.model.head.priority(saliency, encoding).unflatten(-1, self.places.size)
        return self.finalizer.density_sum(priority[None])[0]

    def encoding(self, number: int, history: np.ndarray) -> Tensor:
        """As `Head.encoding`, computed only when the history is another one than in the frame before."""
        if number == len(self.encodings):
            self.encodings.append((history, self.model.head.encoding(self.places, history)))
        elif not np.array_equal(self.encodings[number][0], history, equal_nan=True):
            self.encodings[number] = (history, self.model.head.encoding(self.places, history))
        return self.encodings[number][1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The readout grid (h, w) of a frame, and the pixel x, y of the frame for which each of its P positions stands."""

    size: tuple[int, int]
    x: Tensor  # P
    y: Tensor

    @classmethod
    def make(cls, frame: tuple[int, int], device: torch.device) -> Places:
        size = readout_grid(frame)
        y, x = (nearest_indices(n, r).astype(np.float32) for n, r in zip(frame, size, strict=True))
        grid_y, grid_x = np.meshgrid(y, x, indexing="ij")
        flat_x, flat_y = (torch.from_numpy(each.ravel()).to(device) for each in (grid_x, grid_y))
        return cls(size=size, x=flat_x, y=flat_y)

    def shown(self, maps_khw: Tensor) -> Tensor:
        """(K, 1, P): maps of another grid as they are shown on this one."""
        rows, columns = (
            torch.from_numpy(nearest_indices(n, r)).to(maps_khw.device)
            for n, r in zip(maps_khw.shape[1:], self.size, strict=True)
        )
        return maps_khw[:, rows][:, :, columns].flatten(1)[:, None]

    def distances(self, xy: Tensor) -> Tensor:
        """(v * 3, P) of each place from v fixations (v, 2): along x, along y, and as the crow flies."""
        across, down = self.x - xy[:, :1], self.y - xy[:, 1:]
        return torch.stack([across, down, (across.square() + down.square()).sqrt()], 1).flatten(0, 1)


class Head:
    """Scanpath and fixation selection networks of all components, for one frame.

    At 1920x1080 the maps of 128 channels of all components are 166 MB; a CPU takes one component at a time.
    """

    def __init__(self, weights: Mapping[str, Tensor], device: torch.device) -> None:
        scanpath, selection = components("scanpath_networks"), components("fixation_selection_networks")

        def distance_layers(leaf: str) -> Tensor:
            entries = [
                torch.stack([weights[f"{prefix}.encoding0.convolutions.{back}.{leaf}"] for back in range(LENGTH)], 1)
                for prefix in scanpath
            ]
            return torch.stack(entries).float().to(device)

        self.distance_weight = distance_layers("weight").flatten(3)  # K 128 4 3
        self.distance_bias = distance_layers("bias")  # K 128 4
        saliency = folded(weights, selection, "layernorm0.layernorm_part0", "conv0.conv_part0", "bias0")
        encoding = folded(weights, selection, "layernorm0.layernorm_part1", "conv0.conv_part1", None)
        joined = Layer(weight=torch.cat([saliency.weight, encoding.weight], 2), bias=saliency.bias + encoding.bias)
        layers = [joined, layer(weights, scanpath, 1), layer(weights, selection, 1)]
        self.joined, self.encode, self.select = to(layers, device)
        last = torch.stack([weights[f"{prefix}.conv2.weight"].flatten(1) for prefix in selection])
        self.last = last.float().to(device)  # K 1 16
        at_once = 1 if device.type == "cpu" else N_COMPONENTS
        self.chunks = [slice(k, k + at_once) for k in range(0, N_COMPONENTS, at_once)]

    def encoding(self, places: Places, history: np.ndarray) -> Tensor:
        """(K, 16, P), normalized: what the scanpath networks make of the fixations (4, 2) that are not NaN."""
        valid = ~np.isnan(history[:, 0])
        device = places.x.device
        distances = places.distances(torch.from_numpy(history[valid]).float().to(device))
        known = torch.from_numpy(np.flatnonzero(valid)).to(device)
        weight, bias = (
            self.distance_weight[:, :, known].flatten(2),
            self.distance_bias[:, :, known].sum(2, keepdim=True),
        )
        found = [narrowed((weight[k] @ distances).add_(bias[k]), self.encode, k) for k in self.chunks]
        return normalized_maps(torch.cat(found))

    def priority(self, saliency: Tensor, encoding: Tensor) -> Tensor:
        """(K, P) priority maps of (K, 1, P) saliency maps and an encoding."""
        joined, found = torch.cat([normalized_maps(saliency), encoding], 1), []
        for k in self.chunks:
            wide = torch.baddbmm(self.joined.bias[k], self.joined.weight[k], joined[k])
            found.append(self.last[k] @ narrowed(wide, self.select, k))
        return torch.cat(found)[:, 0]


def narrowed(wide: Tensor, narrow: Layer, which: slice) -> Tensor:
    """(k, 16, P) of (k, 128, P): softplus, layer normalization and convolution of some components, softplus.

    Centered twice, as `readout.centered` says; the second time on the 16 channels, where it is eight times cheaper.
    """
    x = softplus(wide)
    n = x.shape[-1]
    x -= x.mean(-1).mean(-1)[:, None, None]
    rest = x.mean(-1).mean(-1)[:, None, None]
    variance = torch.linalg.vector_norm(x, dim=-1).square().mean(-1)[:, None, None] / n - rest.square()
    weight = narrow.weight[which]
    x = weight @ x - rest * weight.sum(-1, keepdim=True)
    return softplus(torch.addcmul(narrow.bias[which], x, (variance + EPSILON).rsqrt()))


def normalized_maps(x: Tensor) -> Tensor:
    """(K, c, P) of mean 0 and variance 1 for each component."""
    x, scale = centered(x, x.new_full(x.shape[-1:], 1 / x.shape[-1]))
    return x * scale


def readout_grid(size: tuple[int, int]) -> tuple[int, int]:
    return -(-size[0] // STRIDE), -(-size[1] // STRIDE)


def components(network: str) -> list[str]:
    return [f"{network}.{k}" for k in range(N_COMPONENTS)]

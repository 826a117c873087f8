"""DeepGaze MR: where people look in a video, from the mean of an image network's features over the last 16 frames.

Tangemann, Kümmerer, Wallis & Bethge 2020. The first layer behind the mean is linear, so its 32 channels are taken
before the mean and only they are remembered: every frame passes the backbone once. What is stored is the small priority
map; two matrices and the center bias make the log density of it, at the size the model saw, and nothing is lost.

    frame > VGG-19 > 512 to 32 channels ─┬─ mean of 16 > two hidden layers > priority > enlarge, blur, center bias
                       the 15 before it ─┘
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..density import FLOOR_NATS, nearest_indices
from ..errors import UsageError
from ..weights import checkpoints
from . import center_bias as bias
from .backbones import normalized, vgg19, vgg19_template
from .finalizer import blur_matrix
from .precision import Precisions, at_wanted_precision
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video, Window

WINDOW = 16  # frames, the predicted one among them
PAST = WINDOW - 1
CHANNELS = 32
STRIDE = 16  # pixels per position of the priority map, by four halvings that drop an odd row
BLUR_RADIUS = 48  # pixels, whatever sigma is
# Pixels that go through the backbone at once. Its first layers hold 128 float32 per pixel: 512 MiB.
PIXELS_AT_ONCE = 1 << 20

History = Literal["grow", "none", "repeat"]
HISTORIES = ("grow", "none", "repeat")


def spec(*, history: History = "grow", center_bias: str = "ledov") -> ModelSpec:
    """`history`: what the first 15 frames of a video rest on. `grow`: the frames there are; `none`: they get no map;
    `repeat`: the first frame stands for those before it."""
    del center_bias
    if history not in HISTORIES:
        raise UsageError(f"deepgaze_mr has no history {history!r}: choose {', '.join(HISTORIES)}")
    return ModelSpec(
        name="deepgaze_mr",
        summary="fixation density of each frame of a video from the last 16: VGG-19 features, their mean, one readout",
        licence="MIT",
        citation="Tangemann, Kümmerer, Wallis & Bethge 2020, Measuring the Importance of Temporal Features in Video "
        "Saliency, ECCV",
        outputs=(
            Output(
                name="priority",
                kind="priority",
                units="nats",
                readback=Readback(interpolation="matrices"),
                exact=True,
            ),
            Output(name="log_normalizer", kind="features", units="nats", exact=True, scalar=True),
            Output(name="history_len", kind="features", units="frames", exact=True, scalar=True),
        ),
        window=lambda frame_rate: Window(past=PAST),
        state="window",
        long_side=640,
        min_side=2 * STRIDE,
        bytes_per_px=530,  # of the frames in one pass, see PIXELS_AT_ONCE; the others of a batch need 10
        constants=("rows", "columns", "prior"),
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    history: History = "grow",
    center_bias: str = "ledov",
) -> Model:
    """`weights` as for `checkpoints.load`, `center_bias` as for `center_bias.template`, the rest as for `spec`."""
    checked = spec(history=history, center_bias=center_bias)
    loaded = checkpoints.load("deepgaze_mr", weights, template(), nested="model_state_dict")
    return DeepGazeMR(
        checked, loaded, history=history, center_bias=bias.template(center_bias), device=torch.device(device)
    )


def template() -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors; the grids, which are constants, are real."""
    entries = vgg19_template("features.vgg.")

    def add(name: str, *shape: int) -> None:
        entries[name] = torch.empty(shape, device="meta")

    for layer, channels_in, channels in ((1, 512, CHANNELS), (2, CHANNELS, CHANNELS), (3, CHANNELS, 1)):
        add(f"readout.conv{layer}.weight", channels, channels_in, 1, 1)
        add(f"readout.conv{layer}.bias", channels)
        if layer < 3:
            add(f"readout.norm{layer}.weight", channels)
            add(f"readout.norm{layer}.bias", channels)
    add("finalizer.center_bias_weight", 1)
    grid = torch.arange(-BLUR_RADIUS, BLUR_RADIUS + 1, dtype=torch.float32)
    for axis, shape in (("x", (1, 1, 1, -1)), ("y", (1, 1, -1, 1))):
        add(f"finalizer.gauss_{axis}.sigma", 1)
        entries[f"finalizer.gauss_{axis}.grid"] = grid.view(shape)
    return entries


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What makes a log density of a priority map R: rows @ R @ columns.T + prior, up to a constant."""

    rows: Tensor  # H h
    columns: Tensor  # W w
    prior: Tensor  # H W

    def log_normalizer(self, priority_nhw: Tensor) -> Tensor:
        """(n,) log of the sum of the exponentials over the frame, frame by frame to hold one full-size map at most."""
        sums = [
            (self.rows @ (priority @ self.columns.mT)).add_(self.prior).logsumexp(1).logsumexp(0)
            for priority in priority_nhw
        ]
        return torch.stack(sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """The latest 15 rows, oldest first. `age`: how many of them, 15 at most, come before `frame` without a jump."""

    frame: int | None
    age: int
    rows: Tensor  # 15 32 h w


@dataclass(slots=True)
class State:
    tables: Tables
    memory: Memory


class DeepGazeMR:
    """A frame's row is the readout's first layer, without its bias, on that frame's features: (32, h, w)."""

    def __init__(
        self,
        spec: ModelSpec,
        weights: Mapping[str, Tensor],
        *,
        history: History,
        center_bias: np.ndarray,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.history = history
        self.center_bias = center_bias
        self.device = device
        self.backbones = Precisions(vgg19(weights, "features.vgg.").to(device))
        self.readout = {
            name.removeprefix("readout."): value.float().to(device)
            for name, value in weights.items()
            if name.startswith("readout.")
        }
        self.sigma_y, self.sigma_x, self.center_bias_weight = (
            float(weights[f"finalizer.{name}"]) for name in ("gauss_y.sigma", "gauss_x.sigma", "center_bias_weight")
        )

    def begin(self, video: Video) -> State:
        h, w = video.height // STRIDE, video.width // STRIDE
        rows = torch.zeros(PAST, CHANNELS, h, w, device=self.device)
        return State(tables=self.tables(video), memory=Memory(frame=None, age=0, rows=rows))

    def tables(self, video: Video) -> Tables:
        def enlarge_and_blur(n: int, sigma: float) -> Tensor:
            return on_device(blur_matrix(nearest_indices(n // STRIDE, n), n // STRIDE, sigma, BLUR_RADIUS))

        def on_device(array: np.ndarray) -> Tensor:
            return torch.from_numpy(array.astype(np.float32)).to(self.device)

        center_bias = self.center_bias if video.center_bias is None else video.center_bias
        return Tables(
            rows=enlarge_and_blur(video.height, self.sigma_y),
            columns=enlarge_and_blur(video.width, self.sigma_x),
            prior=on_device(self.center_bias_weight * nearest(center_bias, video.height, video.width)),
        )

    def constants(self, state: State) -> dict[str, np.ndarray]:
        return {name: getattr(state.tables, name).cpu().numpy() for name in self.spec.constants}

    def step(self, batch: Batch, state: State) -> Result:
        rows = self.rows(batch)
        ages = ages_of(batch, state.memory)
        with torch.autocast(self.device.type, enabled=False):
            known = torch.cat([state.memory.rows, rows[batch.present]])
            mean = mean_of_windows(known, batch, ages, repeat=self.history == "repeat")
            priority = read_out(mean, self.readout)[batch.present]
            log_normalizer = state.tables.log_normalizer(priority)
        history_len = torch.from_numpy(ages + 1).to(self.device)
        if self.history == "none":
            short = history_len < WINDOW
            priority[short], log_normalizer[short] = torch.nan, torch.nan
        frame = batch.frame[batch.present]
        state.memory = Memory(frame=int(frame[-1]), age=int(ages[-1]), rows=known[-PAST:])
        values = {"priority": priority, "log_normalizer": log_normalizer, "history_len": history_len.float()}
        return Result(frame=frame, values=values)

    def end(self, state: State) -> None:
        return None

    def rows(self, batch: Batch) -> Tensor:
        """(B, 32, h, w), zero in slots that are not present unless they share a pass with one that is.

        Passes are made of fixed slots, so a frame is computed in the same shape whatever the shard.
        """
        n, height, width = batch.frames_nhwc.shape[:3]
        rows = torch.zeros(n, CHANNELS, height // STRIDE, width // STRIDE, device=self.device)
        at_once = max(1, PIXELS_AT_ONCE // (height * width))
        for low in range(0, n, at_once):
            if low < batch.present.stop and low + at_once > batch.present.start:
                compute = partial(self.first_layer, batch.frames_nhwc[low : low + at_once])
                rows[low : low + at_once] = at_wanted_precision(self.device, compute)
        return rows

    def first_layer(self, frames_nhwc: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, 32, h, w) float32 from a backbone that computes in `dtype`."""
        return functional.conv2d(self.features(frames_nhwc, dtype), self.readout["conv1.weight"])

    def features(self, frames_nhwc: Tensor, dtype: torch.dtype) -> Tensor:
        """(n, 512, h, w) float32."""
        (features,) = self.backbones[dtype](normalized(frames_nhwc, dtype))
        return features.float()


def nearest(log_density_hw: np.ndarray, height: int, width: int) -> np.ndarray:
    """A center bias at a frame's size, float64, exponentials summing to 1; probability 0 becomes `FLOOR_NATS`.

    DeepGaze MR takes the nearest sample as torch does, where DeepGaze IIE and III take scipy's.
    """
    rows, columns = (nearest_indices(n, size) for n, size in zip(log_density_hw.shape, (height, width), strict=True))
    found = log_density_hw[rows[:, None], columns].astype(np.float64)
    found = np.maximum(found - found.max(), FLOOR_NATS)
    return np.maximum(found - np.log(np.exp(found).sum()), FLOOR_NATS)


def ages_of(batch: Batch, memory: Memory) -> np.ndarray:
    """int64, per present frame: how many frames before it are known without a jump in frame numbers, 15 at most."""
    ages, frame, age = [], memory.frame, memory.age
    for number in batch.frame[batch.present].tolist():
        age = min(age + 1, PAST) if frame is not None and number == frame + 1 else 0
        frame = number
        ages.append(age)
    return np.array(ages)


def mean_of_windows(known: Tensor, batch: Batch, ages: np.ndarray, *, repeat: bool) -> Tensor:
    """(B, 32, h, w) mean over each present frame's window, zero in the other slots.

    `known`: 15 rows of earlier frames, then those of the present ones. Each window is summed afresh, oldest row first,
    so that no bit depends on where a shard began. Before the first frame there is nothing, or with `repeat` that frame.
    """
    known = torch.cat([torch.zeros_like(known[:1]), known])  # row 0 is nothing
    newest = 1 + PAST + np.arange(len(ages))
    lags = np.arange(PAST, -1, -1)[:, None]
    inside = newest - lags
    before = newest - ages if repeat else 0
    index = np.zeros((WINDOW, len(batch.frame)), np.int64)
    index[:, batch.present] = np.where(lags <= ages, inside, before)
    count = np.ones(len(batch.frame), np.float32)
    count[batch.present] = WINDOW if repeat else ages + 1
    total = torch.zeros_like(known[:1])
    for rows in torch.from_numpy(index).to(known.device):
        total = total + known[rows]
    return total / torch.from_numpy(count).to(known.device)[:, None, None, None]


def read_out(mean_nchw: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    """(n, h, w) priority from the mean rows."""
    x = mean_nchw + weights["conv1.bias"][:, None, None]
    for layer in (1, 2):
        x = functional.group_norm(x, 1, weights[f"norm{layer}.weight"], weights[f"norm{layer}.bias"])
        x = functional.softplus(x)
        x = functional.conv2d(x, weights[f"conv{layer + 1}.weight"], weights[f"conv{layer + 1}.bias"])
    return x[:, 0]

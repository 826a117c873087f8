"""sigmotion: image signature of intensity, two color opponents and camera-compensated motion, with a center prior.

Needs no weights. The image signature (sign of the DCT) is Hou, Harel & Koch (2012); the soft sign, the motion channel
and the causal filter that never crosses a cut are ours. In: RGB frames. Out: log density in nats at a native size of at
most 64 pixels on the long side. Verified against tests/fixtures/sigmotion_*.npz to 2e-4. `signature.py` is this network
without motion.

    frame ─ downscale ─┬─ opponents ── motion at lags L, 2L ─┬─ signature ─ weighted mean ─ causal filter ─ density
                       └─ cuts, age of the scene ────────────┴──────────────────────────────────┘
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .downscale import Downscale
from .spec import Batch, ModelSpec, Output, Readback, Result, Video, Window

WORK_LONG_SIDE = 128
CUT_SIZE = (18, 32)
CUT_CHANGE = 0.10  # least mean absolute difference, of pictures of CUT_SIZE
CUT_RATIO = 3.0  # and least ratio to the difference one frame before
MOTION_LAG_SECONDS = 0.10
FILTER_SECONDS = 0.30
FILTER_DECAY_SECONDS = 0.10
MAX_GAIN = 1.5
MAX_SHIFT = 0.15  # of height and width
MOTION_FLOOR = 0.015
FULL_MOTION = 0.06
MOTION_BLUR_PX = 2.0
SOFT_SIGN = 0.005
SIGNATURE_BLUR = 0.045  # of the native width
FULL_ACTIVITY = 0.01
MOTION_WEIGHT = 2.0
DENSITY_FLOOR = 0.05
PRIOR_SIGMA = 0.25  # of height and width


def spec(*, center_bias: bool = True) -> ModelSpec:
    return ModelSpec(
        name="sigmotion",
        summary="image signature and camera-compensated motion; needs no weights",
        licence="Apache-2.0",
        citation="Hou, Harel & Koch 2012, Image Signature: Highlighting Sparse Salient Regions, TPAMI 34(1), 194-201",
        outputs=(log_density_output(prior_weight=float(center_bias)),),
        window=lambda frame_rate: history(frame_rate, motion=True),
        state="window",
    )


def build(weights: None = None, *, device: torch.device | str, center_bias: bool = True) -> Sigmotion:
    del weights  # there are none
    model_spec = spec(center_bias=center_bias)
    return Sigmotion(model_spec, motion_weight=MOTION_WEIGHT, prior_weight=float(center_bias), device=device)


def log_density_output(*, prior_weight: float) -> Output:
    readback = Readback(interpolation="bilinear", gaussian_prior=(PRIOR_SIGMA, PRIOR_SIGMA, prior_weight))
    return Output(name="log_density", kind="log_density", units="nats", readback=readback)


def n_frames(seconds: float, frame_rate: float) -> int:
    """Nearest whole number of frames, halves upward."""
    # 0.1 s at 25 fps is such a half: 1e-6 keeps a rate of 24.999999999999996, as a quotient of times may be, there.
    return math.floor(seconds * frame_rate + 0.5 + 1e-6)


def motion_lag(frame_rate: float) -> int:
    return max(1, n_frames(MOTION_LAG_SECONDS, frame_rate))


def filter_reach(frame_rate: float) -> int:
    return n_frames(FILTER_SECONDS, frame_rate)


def history(frame_rate: float, *, motion: bool) -> Window:
    """The filter reaches over raw maps, each looks back two lags, and a cut is known from two frames before it."""
    lags = 2 * motion_lag(frame_rate) if motion else 0
    return Window(past=filter_reach(frame_rate) + lags + 2)


def work_size(height: int, width: int) -> tuple[int, int]:
    """Long side 128, both sides multiples of 16 (halves upward) and at least 32; the native size is half of it."""
    longest = max(height, width)

    def sixteenths(side: int) -> int:
        return (WORK_LONG_SIDE // 8 * side + longest) // (2 * longest)

    return max(32, 16 * sixteenths(height)), max(32, 16 * sixteenths(width))


def blur_matrix(n: int, sigma: float) -> np.ndarray:
    """Gaussian blur along one axis with replicated border as a matrix (n, n): at these sizes faster than a filter."""
    radius = max(1, math.ceil(3 * sigma))
    offset = np.arange(-radius, radius + 1)
    taps = np.exp(-(offset**2) / (2 * sigma**2))
    matrix = np.zeros((n, n))
    rows = np.broadcast_to(np.arange(n)[:, None], (n, len(offset)))
    np.add.at(matrix, (rows, np.clip(rows + offset, 0, n - 1)), taps / taps.sum())
    return matrix


def dct_matrix(n: int) -> np.ndarray:
    """Orthonormal DCT-II."""
    k, i = np.arange(n)[:, None], np.arange(n)[None]
    matrix = math.sqrt(2 / n) * np.cos(math.pi * (i + 0.5) * k / n)
    matrix[0] /= math.sqrt(2)
    return matrix


def hann(n: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * math.pi * np.arange(n) / (n - 1))


def center_prior(height: int, width: int) -> np.ndarray:
    """Unnormalized log density (height, width) of the Gaussian center prior: 0 in the middle."""
    v = ((np.arange(height) + 0.5) / height - 0.5)[:, None]
    u = ((np.arange(width) + 0.5) / width - 0.5)[None]
    return -(v**2 + u**2) / (2 * PRIOR_SIGMA**2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """What depends on frame size and rate only."""

    lags: tuple[int, ...]  # of the motion channel, ascending; empty without one
    reach: int
    decay: np.ndarray  # (reach + 1,) weights of the causal filter
    size: tuple[int, int]
    downscale: Downscale
    hann_hw: Tensor
    motion_blur: tuple[Tensor, Tensor]
    dct: tuple[Tensor, Tensor]
    signature_blur: tuple[Tensor, Tensor]
    prior_hw: Tensor

    @property
    def lookback(self) -> int:
        return max(self.lags, default=0)


def make_tables(video: Video, *, motion: bool, prior_weight: float, device: torch.device) -> Tables:
    lag, reach = motion_lag(video.frame_rate), filter_reach(video.frame_rate)
    h, w = work_size(video.height, video.width)
    native = h // 2, w // 2

    def on_device(array: np.ndarray) -> Tensor:
        return torch.tensor(array, dtype=torch.float32, device=device)

    def along_axes(matrix: Callable[[int], np.ndarray], size: tuple[int, int]) -> tuple[Tensor, Tensor]:
        return on_device(matrix(size[0])), on_device(matrix(size[1]))

    return Tables(
        lags=(lag, 2 * lag) if motion else (),
        reach=reach,
        decay=np.exp(-np.arange(reach + 1) / (FILTER_DECAY_SECONDS * video.frame_rate)),
        size=(h, w),
        downscale=Downscale(video.height, video.width, [(h, w), CUT_SIZE], device=device),
        hann_hw=on_device(np.outer(hann(h), hann(w))),
        motion_blur=along_axes(lambda n: blur_matrix(n, MOTION_BLUR_PX), (h, w)),
        dct=along_axes(dct_matrix, native),
        signature_blur=along_axes(lambda n: blur_matrix(n, SIGNATURE_BLUR * native[1]), native),
        prior_hw=on_device(prior_weight * center_prior(*native)),
    )


def along_both(vertical: Tensor, x: Tensor, horizontal: Tensor) -> Tensor:
    return vertical @ x @ horizontal.mT


@dataclass(frozen=True, slots=True, kw_only=True)
class Intensity:
    """Mean-free intensity of frames, with what the search for their shift needs."""

    values: Tensor  # n h w
    rms: Tensor  # n
    spectrum: Tensor  # n h w/2+1, complex, of the windowed values

    def take(self, index: slice | list[int]) -> Intensity:
        return Intensity(values=self.values[index], rms=self.rms[index], spectrum=self.spectrum[index])

    def followed_by(self, other: Intensity) -> Intensity:
        return Intensity(
            values=torch.cat([self.values, other.values]),
            rms=torch.cat([self.rms, other.rms]),
            spectrum=torch.cat([self.spectrum, other.spectrum]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What is kept of earlier frames: the latest `lookback` intensities and `reach` raw maps, zero before the first."""

    frame: int | None
    age: int
    change: float
    thumbnail: Tensor  # 1 3 18 32
    intensity: Intensity
    raw: Tensor


def blank_memory(tables: Tables, device: torch.device) -> Memory:
    (h, w), n = tables.size, tables.lookback
    return Memory(
        frame=None,
        age=0,
        change=0.0,
        thumbnail=torch.zeros(1, 3, *CUT_SIZE, device=device),
        intensity=Intensity(
            values=torch.zeros(n, h, w, device=device),
            rms=torch.zeros(n, device=device),
            spectrum=torch.zeros(n, h, w // 2 + 1, dtype=torch.complex64, device=device),
        ),
        raw=torch.zeros(tables.reach, h // 2, w // 2, device=device),
    )


@dataclass(slots=True)
class State:
    tables: Tables
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Trace:
    """Everything computed on the way to the maps: one row per slot of the batch, in `ages` one per present frame."""

    ages: list[int]
    change: float
    thumbnail: Tensor
    intensity: Intensity
    motion: Tensor
    weights: Tensor
    raw: Tensor
    smoothed: Tensor
    log_density: Tensor


class Sigmotion:
    """All slots of a batch are computed and only those present are remembered, so shapes never depend on the shard."""

    def __init__(self, spec: ModelSpec, *, motion_weight: float, prior_weight: float, device: torch.device | str):
        self.spec = spec
        self.motion_weight = motion_weight
        self.prior_weight = prior_weight
        self.device = torch.device(device)

    def begin(self, video: Video) -> State:
        motion = self.motion_weight > 0
        tables = make_tables(video, motion=motion, prior_weight=self.prior_weight, device=self.device)
        return State(tables=tables, memory=blank_memory(tables, self.device))

    def step(self, batch: Batch, state: State) -> Result:
        # Thresholds and phases need float32, whatever the caller runs other models in.
        with torch.autocast(self.device.type, enabled=False):
            trace = self.trace(batch, state.tables, state.memory)
            memory = remember(batch, trace, state.tables, state.memory)
        state.memory = memory
        return Result(frame=batch.frame[batch.present], values={"log_density": trace.log_density[batch.present]})

    def end(self, state: State) -> None:
        return None

    def trace(self, batch: Batch, tables: Tables, memory: Memory) -> Trace:
        """The whole computation for one batch; changes nothing."""
        picture, thumbnail = tables.downscale(batch.frames_nhwc)
        ages, change = scene_ages(batch, thumbnail, memory)
        opponents = opponent_channels(picture)
        intensity = intensity_of(opponents[:, 0], tables)
        motion = residual_motion(batch, intensity, ages, tables, memory)
        raw, weights = signature_map(opponents, motion, self.motion_weight, tables)
        smoothed = causal_filter(batch, raw, ages, tables, memory)
        return Trace(
            ages=ages,
            change=change,
            thumbnail=thumbnail,
            intensity=intensity,
            motion=motion,
            weights=weights,
            raw=raw,
            smoothed=smoothed,
            log_density=normalized(smoothed, tables.prior_hw),
        )


def rows_back(batch: Batch, lag: int, n_history: int) -> list[int]:
    """For each slot, the row of the frame `lag` before it in the tensor `history, then the batch`.

    Slots that are not present get some row that exists.
    """
    n, first = len(batch.frames_nhwc), batch.present.start
    earlier = (slot - lag if slot - lag >= first else slot - first - lag for slot in range(n))
    return [max(0, n_history + row) for row in earlier]


def by_slot(batch: Batch, per_present: np.ndarray, device: torch.device) -> Tensor:
    """Values of the present frames in their slots, zero in the others."""
    slots = np.zeros((len(batch.frames_nhwc), *per_present.shape[1:]), dtype=per_present.dtype)
    slots[batch.present] = per_present
    return torch.from_numpy(slots).to(device)


def scene_ages(batch: Batch, thumbnail: Tensor, memory: Memory) -> tuple[list[int], float]:
    """Frames since the latest cut or jump in frame numbers, per present frame; and the last frame's change."""
    before = torch.cat([memory.thumbnail, thumbnail])[rows_back(batch, 1, 1)]
    changes = (thumbnail - before).abs().mean((1, 2, 3)).tolist()  # the one place where the host waits for the device
    ages: list[int] = []
    frame, age, last_change = memory.frame, memory.age, memory.change
    for number, change in zip(batch.frame[batch.present].tolist(), changes[batch.present], strict=True):
        if number - 1 != frame:
            age, last_change = 0, 0.0
        else:
            is_cut = change > CUT_CHANGE and change > CUT_RATIO * last_change
            age, last_change = 0 if is_cut else age + 1, change
        ages.append(age)
        frame = number
    return ages, last_change


def opponent_channels(picture: Tensor) -> Tensor:
    """(n, 3, h, w) RGB to intensity, red-green, blue-yellow."""
    red, green, blue = picture.unbind(1)
    return torch.stack([(red + green + blue) / 3, red - green, blue - (red + green) / 2], dim=1)


def intensity_of(values: Tensor, tables: Tables) -> Intensity:
    values = values - values.mean((1, 2), keepdim=True)
    rms = values.square().mean((1, 2)).sqrt()
    windowed = tables.hann_hw * values
    return Intensity(values=values, rms=rms, spectrum=torch.fft.rfft2(windowed))


def residual_motion(batch: Batch, now: Intensity, ages: list[int], tables: Tables, memory: Memory) -> Tensor:
    """(B, h, w): what moved against the camera, above the floor; zero while the scene is younger than the lag."""
    moved = torch.zeros_like(now.values)
    known = memory.intensity.followed_by(now)
    for lag in tables.lags:
        residual = compensated_residual(now, known.take(rows_back(batch, lag, tables.lookback)))
        # The lesser of both lags, the double difference, leaves no ghost at the place an object has left.
        residual = residual if lag == tables.lags[0] else torch.minimum(moved, residual)
        old_enough = by_slot(batch, np.array(ages) >= lag, moved.device)
        moved = torch.where(old_enough[:, None, None], residual, moved)
    return (moved - MOTION_FLOOR).clamp_min(0)


def compensated_residual(now: Intensity, earlier: Intensity) -> Tensor:
    """Absolute difference after gain and whole-pixel shift, or without the shift where that leaves less."""
    gain = (now.rms / earlier.rms).clamp(1 / MAX_GAIN, MAX_GAIN)
    gain = torch.where(earlier.rms > 1e-3, gain, torch.ones_like(gain))[:, None, None]
    before = gain * earlier.values
    still = (now.values - before).abs()
    aligned = shifted(before, *camera_shift(now.spectrum, gain * earlier.spectrum, now.values.shape[1:]))
    moved = (now.values - aligned).abs()
    better = moved.mean((1, 2), keepdim=True) < still.mean((1, 2), keepdim=True)
    return torch.where(better, moved, still)


def camera_shift(now: Tensor, before: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """Phase correlation of two spectra: (dy, dx) int64 (n,) that moves `before` onto `now`, (0, 0) if implausible."""
    h, w = size
    cross = now * before.conj()
    correlation = torch.fft.irfft2(cross / cross.abs().clamp_min(1e-6), s=(h, w))
    peak = correlation.flatten(1).argmax(1)
    dy, dx = peak // w, peak % w
    dy, dx = torch.where(dy > h / 2, dy - h, dy), torch.where(dx > w / 2, dx - w, dx)
    plausible = (dy.abs() <= MAX_SHIFT * h) & (dx.abs() <= MAX_SHIFT * w)
    return dy * plausible, dx * plausible


def shifted(x: Tensor, dy: Tensor, dx: Tensor) -> Tensor:
    """Each of the pictures (n, h, w) moved by its whole-pixel shift, border replicated."""
    n, h, w = x.shape
    rows = (torch.arange(h, device=x.device) - dy[:, None]).clamp(0, h - 1)
    columns = (torch.arange(w, device=x.device) - dx[:, None]).clamp(0, w - 1)
    source = rows[:, :, None] * w + columns[:, None, :]
    return x.flatten(1).gather(1, source.flatten(1)).view(n, h, w)


def signature_map(opponents: Tensor, motion: Tensor, motion_weight: float, tables: Tables) -> tuple[Tensor, Tensor]:
    """Raw map (n, h/2, w/2) and channel weights (n, 4) in the order intensity, red-green, blue-yellow, motion."""
    peak = along_both(tables.motion_blur[0], motion, tables.motion_blur[1]).amax((1, 2))
    strength = (peak / FULL_MOTION).clamp(0, 1)
    channels = functional.avg_pool2d(torch.cat([opponents, motion[:, None]], dim=1), 2)  # n 4 h/2 w/2
    channels = channels - channels.mean((2, 3), keepdim=True)
    activity = (channels[:, :3].abs().mean((2, 3)) / FULL_ACTIVITY).clamp(0, 1)
    weights = torch.cat([activity, motion_weight * strength[:, None]], dim=1)

    vertical, horizontal = tables.dct
    coefficients = along_both(vertical, channels, horizontal)
    signs = coefficients / (coefficients.square() + SOFT_SIGN**2).sqrt()
    signs[..., 0, 0] = 0
    energy = along_both(vertical.mT, signs, horizontal.mT).square()
    maps = along_both(tables.signature_blur[0], energy, tables.signature_blur[1])
    mean = maps.mean((2, 3), keepdim=True)
    maps = torch.where(mean > 1e-9, maps / mean, torch.zeros_like(maps))
    raw = (weights[:, :, None, None] * maps).sum(1) / weights.sum(1).clamp_min(1e-6)[:, None, None]
    return raw, weights


def causal_filter(batch: Batch, raw: Tensor, ages: list[int], tables: Tables, memory: Memory) -> Tensor:
    """Exponentially weighted mean of the raw maps of the same scene, at most `reach` frames back."""
    known = torch.cat([memory.raw, raw])
    lags = range(tables.reach + 1)
    weights = tables.decay * (np.array(lags) <= np.array(ages, dtype=np.int64)[:, None])
    weights = weights / weights.sum(1, keepdims=True)
    weights = by_slot(batch, weights.astype(np.float32), raw.device)
    smoothed = torch.zeros_like(raw)
    for lag in lags:
        smoothed = smoothed + weights[:, lag, None, None] * known[rows_back(batch, lag, tables.reach)]
    return smoothed


def normalized(smoothed: Tensor, prior_hw: Tensor) -> Tensor:
    """(n, h/2, w/2) log density in nats, logsumexp 0 over the native grid."""
    low = smoothed.amin((1, 2), keepdim=True)
    span = smoothed.amax((1, 2), keepdim=True) - low
    relative = torch.where(span > 1e-4, (smoothed - low) / span.clamp_min(1e-4), torch.zeros_like(smoothed))
    log_density = (relative + DENSITY_FLOOR).log() + prior_hw
    return log_density - log_density.logsumexp((1, 2), keepdim=True)


def remember(batch: Batch, trace: Trace, tables: Tables, memory: Memory) -> Memory:
    """The memory after this batch, of the same shapes as before it."""
    if not trace.ages:
        return memory
    kept = batch.present
    intensity = memory.intensity.followed_by(trace.intensity.take(kept))
    raw = torch.cat([memory.raw, trace.raw[kept]])
    return Memory(
        frame=int(batch.frame[kept][-1]),
        age=trace.ages[-1],
        change=trace.change,
        thumbnail=trace.thumbnail[kept][-1:],
        intensity=intensity.take(slice(len(intensity.rms) - tables.lookback, None)),
        raw=raw[len(raw) - tables.reach :],
    )

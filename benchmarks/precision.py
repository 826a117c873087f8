"""What do float16, bfloat16 and smaller files cost, in bits and in nats?

Frames from every scene of the sample clip go through DeepGaze IIE in float32 on the same device, and again in the lower
precisions; then the float32 densities go through every storage format and back. Reported, of the full-size densities:
KL divergence from float32 in bits (how much worse a code for fixations gets), mean and largest of the frames, and the
largest difference of a log density in nats. With stand-in weights this says what rounding does to such a network; with
the official ones, what it does to this one.

    python benchmarks/precision.py [--device cuda] [--frames 6] [-o results/precision-cuda.json]
"""

from __future__ import annotations

import math
from typing import cast

import numpy as np
import torch
from measure import Report, arguments, table
from throughput import loaded_weights

from streamsal import density, gauges, predict
from streamsal.bench import parse_size
from streamsal.density import StoreDtype, pack, unpack
from streamsal.devices import resolve_device
from streamsal.engine import Dtype
from streamsal.models import create_model
from streamsal.models.spec import Model, Readback
from streamsal.sample_clip import open_scene, shot_list

COMPUTED = ("fp16", "bf16", "tf32")
STORED: tuple[StoreDtype, ...] = ("float16", "uint16")


def spread(n: int, height: int, width: int) -> np.ndarray:
    """(n, H, W, 3): one frame of every scene in turn, each from another moment of it."""
    shots = shot_list(600)
    scenes = [open_scene(shot, width, height) for shot in shots]
    return np.stack([scenes[i % len(scenes)].paint(7 * (i // len(scenes)) + 10) for i in range(n)])


def computed(model: Model, frames: np.ndarray, dtype: str, device: str) -> np.ndarray:
    """(n, H, W) float64 log densities."""
    found = predict(frames, model=model, dtype=cast(Dtype, dtype), device=device, batch_size=1)
    return found.astype(np.float64)


def stored(model: Model, frames: np.ndarray, store_dtype: StoreDtype, device: str) -> np.ndarray:
    """The float32 densities, put into a file of `store_dtype` and read back at full size."""
    height, width = frames.shape[1:3]
    native = predict(frames, model=model, dtype="fp32", device=device, batch_size=1, native=True)
    values, offset = pack(native, store_dtype)
    readback = cast(Readback, model.spec.outputs[0].readback)
    maps = density.full_size(torch.from_numpy(unpack(values, offset)), height, width, readback)
    return maps.numpy().astype(np.float64)


def cost(found_nhw: np.ndarray, exact_nhw: np.ndarray) -> dict[str, float]:
    # Summed in float64: what float32 leaves of a sum of 1 would be as large as the costs.
    exact, found = (x - np.log(np.exp(x).sum((1, 2), keepdims=True)) for x in (exact_nhw, found_nhw))
    bits = (np.exp(exact) * (exact - found)).sum((1, 2)) / math.log(2)
    return {
        "mean_kl_bits": float(bits.mean()),
        "max_kl_bits": float(bits.max()),
        "max_difference_nats": float(abs(found_nhw - exact_nhw).max()),
    }


def main() -> None:
    parser = arguments(__doc__, rounds=1)
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps")
    parser.add_argument("--size", default="540p", help="default: 540p")
    parser.add_argument("--frames", type=int, default=6, help="of the clip (default: 6)")
    parser.add_argument("--weights", metavar="FILE|synthetic", help="default: the official ones if they are here")
    options = parser.parse_args()
    device = resolve_device(options.device)
    weights_name, weights = loaded_weights(options.weights)
    model = create_model("deepgaze_iie", weights=weights, device=device, center_bias="gaussian")
    frames = spread(options.frames, *parse_size(options.size))

    report = Report(benchmark="precision", options=options)
    exact = computed(model, frames, "fp32", str(device))
    dtypes = [name for name in COMPUTED if name != "tf32" or device.type == "cuda"]
    costs = {f"computed in {name}": cost(computed(model, frames, name, str(device)), exact) for name in dtypes}
    costs |= {f"stored as {name}": cost(stored(model, frames, name, str(device)), exact) for name in STORED}

    print(f"DeepGaze IIE, weights {weights_name}, {options.frames} frames of {options.size}, {device}\n")
    table(
        ["", "KL in bits, mean", "max", "log density in nats, max"],
        [[name, *(f"{value:.1e}" for value in found.values())] for name, found in costs.items()],
    )
    report.finish(
        targets={},
        model="deepgaze_iie",
        weights=weights_name,
        size=options.size,
        device=gauges.describe(device),
        costs={name: {key: float(f"{value:.3g}") for key, value in found.items()} for name, found in costs.items()},
    )


if __name__ == "__main__":
    main()

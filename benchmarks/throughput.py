"""How fast and how lean is DeepGaze IIE here, alone and beside the best short script around its authors' own package?

First all that `streamsal bench` reports, at every size, batch and precision. Then, at every size, in turns on frames
that are on the device already:
- ours (on a GPU also with its work recorded as a CUDA graph);
- deepgaze-pytorch as a careful user would call it: no gradients, float16 on a GPU, batches of 8 (on a CPU float32,
  batches of 1); where it is not installed, `unfused.py`, the same network in the plainest code.
The backbones are told apart from what follows them. Memory is what one batch takes on top of the loaded model: on a GPU
as torch counts it, on a CPU the largest resident set of new processes that compute it, less that of such that do not.

    python benchmarks/throughput.py [--device cuda] [--sizes 720p,1080p] [--batch 1,4,8] [--dtype fp16] [-o FILE.json]
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from measure import HERE, Report, Sample, Samples, arguments, interleaved, median, peak_megabytes, ratio, table
from torch import Tensor, nn

from streamsal import gauges
from streamsal.bench import Settings, Size, measured, parse_size, print_tables, usual
from streamsal.cores import decoders_for, usable_cores
from streamsal.devices import inference, resolve_device, resolve_dtype
from streamsal.errors import MissingWeights
from streamsal.models import create_model
from streamsal.models.deepgaze_iie import DeepGazeIIE, template
from streamsal.models.spec import Batch, Model, Video
from streamsal.sample_clip import open_scene, shot_list
from streamsal.weights import checkpoints
from streamsal.weights.cache import SYNTHETIC

CPU_TOTAL, CPU_REST, CPU_MEMORY = 3.5, 10.0, 1 / 3  # at 540p on one thread
GPU_MILLISECONDS, GPU_TOTAL = 5.0, 4.0  # per frame at 1080p, and relative to the baseline
MEMORY_ROUNDS = 3  # at most; what malloc keeps differs by a fifth between processes
BASELINES = ("deepgaze-pytorch", "unfused")
OURS, RECORDED = "ours", "ours, recorded"

ONE_BATCH = """
import sys
sys.path.insert(0, {here!r})
import torch
torch.set_num_threads({threads})
from streamsal.gauges import forget_peak
from throughput import Step, alone, frames
step = alone({name!r}, {weights!r}, {size!r}, {batch}, {dtype!r})
Step(step.model, frames((96, 128), 1), step.dtype)()  # the libraries' code is loaded when it is first used
forget_peak()
if {computes}: step()
"""


class Step:
    """A model's step on the same batch again and again; `parts` of every call, seconds of backbones and of the rest."""

    def __init__(self, model: Model, frames_nhwc: Tensor, dtype: torch.dtype) -> None:
        n, height, width = frames_nhwc.shape[:3]
        self.model, self.dtype, self.device = model, dtype, frames_nhwc.device
        every = model.spec.pixel_step
        self.batch = Batch(
            frames_nhwc=frames_nhwc[:, ::every, ::every].contiguous(),
            frame=np.arange(n),
            pts_seconds=np.arange(n) / 25,
            present=slice(0, n),
        )
        self.state = model.begin(Video(name="clip", n_frames=n, frame_rate=25, height=height, width=width))
        self.parts: list[dict[str, float]] = []
        self.marks = gauges.Marks(self.device)

    def __call__(self) -> float:
        self.marks = gauges.Marks(self.device)
        with inference(self.device, self.dtype, autocast=self.model.spec.autocast):
            self.model.step(self.batch, self.state)
        self.marks("rest")
        self.parts.append(self.marks.seconds())
        return sum(self.parts[-1].values())

    def tell_backbones_apart(self) -> None:
        """Ours by its branches; the others by their modules called `features`."""
        if isinstance(self.model, DeepGazeIIE):
            for branch in self.model.branches:
                branch.taps = self.watched(branch.taps)
            return
        network: Any = self.model.network  # type: ignore[attr-defined]
        for model in network.models:
            features: nn.Module = model.features
            features.register_forward_pre_hook(lambda *_: self.marks("rest"))
            features.register_forward_hook(lambda *_: self.marks("backbones"))

    def watched(self, taps: Callable[..., list[Tensor]]) -> Callable[..., list[Tensor]]:
        def watching(*arguments: Any) -> list[Tensor]:
            self.marks("rest")
            found = taps(*arguments)
            self.marks("backbones")
            return found

        return watching


def alone(
    name: str, weights: str | Mapping[str, Tensor], size: Size, batch: int, dtype: str, device: str = "cpu"
) -> Step:
    """One of the competitors with a batch of the sample clip on the device, at float32, float16 or bfloat16."""
    where = torch.device(device)
    given: dict[str, Any] = {"weights": weights, "device": where, "center_bias": "gaussian"}
    if name in (OURS, RECORDED):
        model = create_model("deepgaze_iie", cuda_graph=name == RECORDED, **given)
    elif name == "unfused":
        model = create_model(HERE / "unfused.py", **given)
    else:
        model = create_model("deepgaze_iie", backend="reference", **given)
    return Step(model, frames(size, batch).to(where), getattr(torch, dtype))


def frames(size: Size, n: int) -> Tensor:
    """(n, H, W, 3) uint8 from the sample clip."""
    height, width = size
    scene = open_scene(shot_list(200)[0], width, height)
    return torch.from_numpy(np.stack([scene.paint(i) for i in range(n)]))


def loaded_weights(given: str | None) -> tuple[str, dict[str, Tensor]]:
    """What they are, and the weights themselves: the official ones where they are here, else stand-ins."""
    try:
        name = given or "official"
        return name, checkpoints.load("deepgaze_iie", given, template())
    except MissingWeights:
        print("the official weights are not here: STAND-INS are measured, which are as fast\n")
        return SYNTHETIC, checkpoints.load("deepgaze_iie", SYNTHETIC, template())


def compared(
    names: list[str],
    weights: Mapping[str, Tensor],
    size: Size,
    batch: int,
    dtype: torch.dtype,
    device: torch.device,
    rounds: int,
) -> tuple[dict[str, Samples], dict[str, float | None]]:
    """{"total", "backbones", "rest"} of the samples of each name, and megabytes per batch on a GPU."""
    steps = {name: alone(name, weights, size, batch, str(dtype).removeprefix("torch."), str(device)) for name in names}
    for name, step in steps.items():
        if name != RECORDED:
            step.tell_backbones_apart()
    interleaved(steps, rounds)
    samples: dict[str, Samples] = {
        part: {
            name: [Sample(wall=parts.get(part, sum(parts.values())), cpu=0.0) for parts in step.parts[1:]]  # warm-up
            for name, step in steps.items()
            if part == "total" or name != RECORDED
        }
        for part in ("total", "backbones", "rest")
    }
    memory = {name: gauges.peak_memory(device, step) if device.type == "cuda" else None for name, step in steps.items()}
    return samples, {name: peak.added / 1e6 if peak else None for name, peak in memory.items()}


def resident_megabytes(name: str, weights: str, size: Size, batch: int, dtype: torch.dtype) -> float:
    """What the computation of one batch takes on top of the loaded model."""

    def peak(computes: bool) -> float:
        return peak_megabytes(
            ONE_BATCH.format(
                here=str(HERE),
                threads=torch.get_num_threads(),
                name=name,
                weights=weights,
                size=size,
                batch=batch,
                dtype=str(dtype).removeprefix("torch."),
                computes=computes,
            )
        )

    return peak(True) - peak(False)


def compare(
    options: argparse.Namespace, weights_name: str, weights: Mapping[str, Tensor], device: torch.device
) -> dict[str, Any]:
    """Every size, in the first of the precisions: ours beside the baselines."""
    names = [OURS, *([RECORDED] if device.type == "cuda" else []), *options.baselines]
    dtype = resolve_dtype(options.dtypes[0], device)
    found = {}
    for size in options.sizes:
        samples, memory = compared(names, weights, size, options.compare_batch, dtype, device, options.rounds)
        if device.type == "cpu":
            given = SYNTHETIC if weights_name == SYNTHETIC else options.weights
            turns = [
                {name: resident_megabytes(name, given, size, options.compare_batch, dtype) for name in names}
                for _ in range(min(MEMORY_ROUNDS, options.rounds))
            ]
            memory = {name: statistics.median(turn[name] for turn in turns) for name in names}
        found[f"{size[1]}x{size[0]}"] = {
            "batch": options.compare_batch,
            "dtype": str(dtype).removeprefix("torch."),
            "seconds_per_frame": {
                part: {name: round(median(each) / options.compare_batch, 6) for name, each in of.items()}
                for part, of in samples.items()
            },
            "megabytes": {name: None if peak is None else round(peak, 1) for name, peak in memory.items()},
            "times_as_fast": {
                part: {name: round(ratio(of[name], of[OURS]), 3) for name in options.baselines}
                for part, of in samples.items()
            },
            "share_of_memory": {name: _share(memory[OURS], memory[name]) for name in options.baselines},
        }
    return found


def _share(ours: float | None, theirs: float | None) -> float | None:
    return round(ours / theirs, 4) if ours and theirs else None


def print_comparison(found: Mapping[str, Any]) -> None:
    for size, facts in found.items():
        of = facts["seconds_per_frame"]
        print(f"{size}, batches of {facts['batch']}, {facts['dtype']}: the model alone\n")
        table(
            ["", "ms per frame", "backbones", "rest", "MB per batch", "ours: times as fast", "rest", "memory"],
            [
                [
                    name,
                    *(
                        f"{1000 * of[part][name]:.1f}" if name in of[part] else ""
                        for part in ("total", "backbones", "rest")
                    ),
                    "" if facts["megabytes"][name] is None else f"{facts['megabytes'][name]:.0f}",
                    *(f"{facts['times_as_fast'][part].get(name, 1):.2f}" for part in ("total", "rest")),
                    f"{facts['share_of_memory'].get(name) or 1:.2f}",
                ]
                for name in of["total"]
            ],
        )


def targets(found: Mapping[str, Any], device: torch.device, baseline: str) -> dict[str, tuple[float, str, float]]:
    """Only what is defined for this device, and measured."""
    if device.type == "cpu" and torch.get_num_threads() == 1 and (facts := found.get("960x540")):
        times = facts["times_as_fast"]
        return {
            f"540p, times as fast as {baseline}": (times["total"][baseline], ">=", CPU_TOTAL),
            "540p, readouts and finalizers": (times["rest"][baseline], ">=", CPU_REST),
            "540p, memory": (facts["share_of_memory"][baseline], "<=", CPU_MEMORY),
        }
    if device.type == "cuda" and (facts := found.get("1920x1080")):
        seconds = facts["seconds_per_frame"]["total"]
        best = min(seconds[OURS], seconds[RECORDED])
        return {
            "1080p, ms per frame": (1000 * best, "<=", GPU_MILLISECONDS),
            f"1080p, times as fast as {baseline}": (seconds[baseline] / best, ">=", GPU_TOTAL),
        }
    return {}


def parsed() -> argparse.Namespace:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps")
    parser.add_argument("--sizes", metavar="LIST", help="default: 720p,1080p on a GPU, 540p on a CPU")
    parser.add_argument("--batch", metavar="LIST", help="default: 1,4,8 on a GPU, 1 on a CPU")
    parser.add_argument("--dtype", default="auto", metavar="LIST", help="the first is compared (default: auto)")
    parser.add_argument("--weights", metavar="FILE|synthetic", help="default: the official ones if they are here")
    parser.add_argument("--frames", type=int, metavar="N", help="of the clip (default: 256 on a GPU, 64 on a CPU)")
    parser.add_argument("--seconds", type=float, default=5, help="for each stage (default: 5)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU, for the model (default: 1)")
    parser.add_argument("--compare-batch", type=int, metavar="N", help="default: 8 on a GPU, 1 on a CPU")
    parser.add_argument("--baselines", metavar="LIST", help=f"of {', '.join(BASELINES)} (default: the first there is)")
    options = parser.parse_args()
    as_usual = usual(resolve_device(options.device))
    options.sizes = tuple(map(parse_size, options.sizes.split(","))) if options.sizes else as_usual.sizes
    options.batches = tuple(map(int, options.batch.split(","))) if options.batch else as_usual.batches
    options.dtypes = tuple(options.dtype.split(","))
    options.compare_batch = options.compare_batch or max(as_usual.batches)
    installed = importlib.util.find_spec("deepgaze_pytorch") is not None
    options.baselines = options.baselines.split(",") if options.baselines else [BASELINES[0 if installed else 1]]
    return options


def main() -> None:
    options = parsed()
    device = resolve_device(options.device)
    torch.set_num_threads(options.threads)
    report = Report(benchmark="throughput", options=options)
    weights_name, weights = loaded_weights(options.weights)
    settings = Settings(
        sizes=options.sizes,
        batches=options.batches,
        dtypes=options.dtypes,
        frames=options.frames,
        seconds=options.seconds,
    )
    ours = create_model("deepgaze_iie", weights=weights, device=device, center_bias="gaussian")
    facts = {"model": "deepgaze_iie", "weights": weights_name}
    workers = decoders_for(usable_cores())
    facts |= measured(None, settings, ours, device, decode_workers=workers, say=lambda text: print(text, flush=True))
    del ours
    comparison = compare(options, weights_name, weights, device)
    print()
    print_tables(facts)
    print_comparison(comparison)
    report.finish(targets=targets(comparison, device, options.baselines[0]), **facts, comparison=comparison)


if __name__ == "__main__":
    main()

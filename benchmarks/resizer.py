"""What does a resizer of single frames gain by running on pictures, and not on clips with kernels one frame long?

The same network with the same weights, in turns on the same clips, in one process: ours, which takes the frames of all
clips for a batch of pictures, against convolutions over clips, one operation after the other, as the program of 2022
had it. Beside them the resizer that looks over frames ("3d"), with as many blocks. In inference, and in training (forth
and back).

    python benchmarks/resizer.py [--rounds 5] [--clips 1] [--side-in 56] [-o results/resizer.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import torch
from measure import Report, arguments, interleaved, median, parsed_on_device, ratio, table
from torch import Tensor
from torch.nn import functional

from streamsal.models.design import Design, ResizerKind
from streamsal.models.resizer import Resizer, template
from streamsal.weights import synthetic

GAIN = 3.0  # times as fast as over clips, on a CPU
APART = 1e-3  # float32 of other convolutions, on values around 4


def over_clips(weights: Mapping[str, Tensor], x: Tensor, *, side: int, blocks: int, training: bool) -> Tensor:
    """The network of single frames on clips (n, c, T, h, w), with these weights."""

    def convolved(name: str, x: Tensor) -> Tensor:
        weight = weights[f"{name}.weight"]
        around = [n for size in reversed(weight.shape[2:]) for n in (size // 2, size // 2)]
        return functional.conv3d(functional.pad(x, around), weight, weights.get(f"{name}.bias"))

    def normed(name: str, x: Tensor, eps: float) -> Tensor:
        mean, variance, weight, bias = (
            weights[f"{name}.{what}"] for what in ("running_mean", "running_var", "weight", "bias")
        )
        return functional.batch_norm(x, mean, variance, weight, bias, training, eps=eps)

    def enlarged(x: Tensor) -> Tensor:
        size = (x.shape[2], side, side)
        return functional.interpolate(x, size, mode="trilinear", align_corners=True)

    skipped = enlarged(x)
    x = functional.leaky_relu(convolved("c1.conv3d", x), 0.2)
    x = normed("c2.bn", functional.leaky_relu(convolved("c2.conv3d", x), 0.2), 1e-3)
    x = inner = enlarged(x)
    for block in (f"residual_blocks.{number}" for number in range(blocks)):
        y = functional.leaky_relu(normed(f"{block}.bn1", convolved(f"{block}.conv1", x), 1e-5), 0.2)
        x = x + normed(f"{block}.bn2", convolved(f"{block}.conv2", y), 1e-5)
    x = normed("c3.bn", convolved("c3.conv3d", x), 1e-3) + inner
    return convolved("c4.conv3d", x) + skipped


def made(kind: ResizerKind, options: argparse.Namespace, device: torch.device) -> Resizer:
    design = Design(classes=("any",), resizer=kind, side_in=options.side_in, side=options.side, blocks=options.blocks)
    net = Resizer.of(design)
    net.load_state_dict(synthetic.state_dict(template(design), adjust={}))
    return net.to(device)


def ways(options: argparse.Namespace, device: torch.device) -> dict[str, Callable[[Tensor, bool], Tensor]]:
    folded, over_time = made("2d", options, device), made("3d", options, device)
    weights = folded.state_dict(keep_vars=True)
    sizes = {"side": options.side, "blocks": options.blocks}
    return {
        "folded": lambda clips, training: folded.train(training)(clips),
        "over clips": lambda clips, training: over_clips(weights, clips, training=training, **sizes),
        "3d": lambda clips, training: over_time.train(training)(clips),
    }


def infer(way: Callable[[Tensor, bool], Tensor], clips_ncthw: Tensor) -> None:
    with torch.inference_mode():
        way(clips_ncthw, False)
    if clips_ncthw.device.type == "cuda":
        torch.cuda.synchronize()


def train(way: Callable[[Tensor, bool], Tensor], clips_ncthw: Tensor) -> None:
    way(clips_ncthw, True).square().mean().backward()
    if clips_ncthw.device.type == "cuda":
        torch.cuda.synchronize()


def measured(
    work: Callable[[Callable[[Tensor, bool], Tensor], Tensor], None],
    nets: Mapping[str, Callable[[Tensor, bool], Tensor]],
    clips_ncthw: Tensor,
    rounds: int,
) -> dict[str, Any]:
    samples = interleaved({name: partial(work, net, clips_ncthw) for name, net in nets.items()}, rounds)
    return {
        "seconds_per_clip": {name: round(median(found) / len(clips_ncthw), 4) for name, found in samples.items()},
        "times_as_fast": {
            name: round(ratio(found, samples["folded"]), 3) for name, found in samples.items() if name != "folded"
        },
    }


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--clips", type=int, default=1, metavar="N", help="of a measured call (default: 1)")
    parser.add_argument("--frames", type=int, default=32, metavar="N", help="of a clip (default: 32)")
    parser.add_argument("--side-in", type=int, default=56, metavar="PX", help="of the clips (default: 56)")
    parser.add_argument("--side", type=int, default=112, metavar="PX", help="of what comes out (default: 112)")
    parser.add_argument("--blocks", type=int, default=3, metavar="N", help="residual blocks (default: 3)")
    options, device = parsed_on_device(parser)
    report = Report(benchmark="resizer", options=options)

    nets = ways(options, device)
    generator = torch.Generator().manual_seed(0)
    size = (options.clips, 3, options.frames, options.side_in, options.side_in)
    clips_ncthw = (torch.rand(size, generator=generator) * 2 - 1).to(device)
    with torch.inference_mode():
        apart = float((nets["folded"](clips_ncthw, False) - nets["over clips"](clips_ncthw, False)).abs().max())
    found = {work.__name__: measured(work, nets, clips_ncthw, options.rounds) for work in (infer, train)}

    print(f"\nseconds per clip; folded and over clips at most {apart:.1e} apart\n")
    table(["", *nets], [[name, *map("{:.3f}".format, of["seconds_per_clip"].values())] for name, of in found.items()])
    report.finish(
        targets={
            "times as fast as over clips": (found["infer"]["times_as_fast"]["over clips"], ">=", GAIN),
            "largest difference": (apart, "<=", APART),
        },
        device=str(device),
        largest_difference=apart,
        **found,
    )


if __name__ == "__main__":
    main()

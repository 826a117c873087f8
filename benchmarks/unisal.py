"""Is UNISAL faster than real time on two cores, and what does its time go to?

Measured on the sample clip, in turns:
- whole tasks at 224 x 384 (decode, resize, network, compression, store), as the command line runs them: films of
  several sizes against their 25 frames per second;
- the parts of one frame's work, on one thread: resize, encoder, recurrent cell (of all chains at once, so a fifth of a
  call), decoder, and in it the smoothing, as it is done here and as 41 x 41 convolution of the enlarged map.

    python benchmarks/unisal.py [--seconds 24] [--sizes 360p,720p,1080p] [--weights FILE] [-o results/unisal.json]
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from clips import clip
from engine import forget_results
from measure import Report, arguments, interleaved, median, ratio, rounded, table
from torch import Tensor
from torch.nn import functional

from streamsal.bench import parse_size
from streamsal.cores import usable_cores
from streamsal.models import create_model
from streamsal.models.spec import Video
from streamsal.models.unisal import Unisal
from streamsal.models.unisal_network import SMOOTHING, one_domain, smooth, template
from streamsal.prepare import Request, make_plan
from streamsal.task import infer
from streamsal.weights import checkpoints

REAL_TIME = 25.0
HEIGHT, WIDTH = 224, 384
CALLS = 20  # of each part in a round


def unisal(weights: str, **options: str) -> Unisal:
    model = create_model("unisal", weights=weights, device="cpu", height=HEIGHT, width=WIDTH, **options)
    assert isinstance(model, Unisal)
    return model


def whole_task(video: Path, run: Path, weights: str) -> Callable[[], object]:
    options = {"height": HEIGHT, "width": WIDTH}
    make_plan([video], run, Request(model="unisal", weights=weights, options=options, tasks=1))

    def task() -> None:
        forget_results(run)
        infer(run, 0)

    return task


def direct(x: Tensor, kernel: Tensor) -> Tensor:
    """What `smooth` computes, the plain way."""
    large = functional.interpolate(x, scale_factor=8, mode="nearest")
    return functional.conv2d(functional.pad(large, [SMOOTHING // 2] * 4, mode="replicate"), kernel)[:, 0]


def parts(model: Unisal, weights: str, frame_size: tuple[int, int]) -> dict[str, Callable[[], object]]:
    """Each does its part `CALLS` times."""
    height, width = frame_size
    state = model.begin(Video(name="clip", n_frames=1, frame_rate=REAL_TIME, height=height, width=width))
    network, chains = model.network, model.chains(REAL_TIME)
    frame = torch.randint(0, 256, (1, height, width, 3), dtype=torch.uint8)
    x = (state.resize(frame) / 255 - 0.5) / 0.25
    coarse, skip_2x, skip_4x = network.encode(x)
    of_picture = network.of_picture(coarse)
    reset, update, new = (torch.cat([gate] * chains) for gate in of_picture)
    hidden = torch.cat([coarse.tanh()] * chains)
    small = torch.randn(1, 1, HEIGHT // 8, WIDTH // 8)
    kernel = one_domain(checkpoints.load("unisal", weights, template()), "dhf1k")["smoothing.weight"]
    once: dict[str, Callable[[], object]] = {
        "resize": lambda: state.resize(frame),
        "encoder": lambda: (network.encode(x), network.of_picture(coarse)),
        "recurrent cell": lambda: network.remember((reset, update, new), hidden),
        "decoder": lambda: network.decoder(coarse, hidden[:1], skip_2x, skip_4x),
        "smoothing": lambda: smooth(small, network.decoder.phases),
        "smoothing, direct": lambda: direct(small, kernel),
    }
    difference = (smooth(small, network.decoder.phases) - direct(small, kernel)).abs().max().item()
    print(f"both ways of smoothing differ by {difference:.1e}, of values up to {direct(small, kernel).abs().max():.1f}")

    def repeated(compute_once: Callable[[], object]) -> Callable[[], None]:
        def calls() -> None:
            with torch.no_grad():
                for _ in range(CALLS):
                    compute_once()

        return calls

    return {name: repeated(compute_once) for name, compute_once in once.items()}


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--seconds", type=float, default=24, help="length of the films (default: 24)")
    parser.add_argument("--sizes", default="360p,720p,1080p", metavar="LIST", help="default: 360p,720p,1080p")
    parser.add_argument("--weights", default="synthetic", metavar="FILE|synthetic", help="default: synthetic")
    options = parser.parse_args()
    sizes = {name: parse_size(name) for name in options.sizes.split(",")}
    films = {
        name: clip(options.work_dir, seconds=options.seconds, width=width, height=height)
        for name, (height, width) in sizes.items()
    }
    n_frames = round(options.seconds * REAL_TIME)
    first = next(iter(sizes))

    report = Report(benchmark="unisal", options=options)
    torch.set_num_threads(max(1, usable_cores() - 1))  # as the command line does
    tasks = interleaved(
        {
            name: whole_task(film, options.work_dir / f"unisal_{name}.streamsal", options.weights)
            for name, film in films.items()
        },
        options.rounds,
    )
    torch.set_num_threads(1)
    model = unisal(options.weights)
    with torch.no_grad():
        work = parts(model, options.weights, sizes[first])
    spent = interleaved(work, options.rounds)
    chains = model.chains(REAL_TIME)
    per_call = {name: CALLS * (chains if name == "recurrent cell" else 1) for name in work}
    faster = ratio(spent["smoothing, direct"], spent["smoothing"])

    print(f"\n{n_frames} frames, network at {HEIGHT}x{WIDTH}, {usable_cores()} cores\n")
    table(
        ["whole task", "frames/s", "times real time", "cpu ms per frame"],
        [
            [
                name,
                f"{n_frames / median(samples):.1f}",
                f"{n_frames / median(samples) / REAL_TIME:.2f}",
                f"{1000 * median(samples, 'cpu') / n_frames:.1f}",
            ]
            for name, samples in tasks.items()
        ],
    )
    table(
        [f"part, {first}, one thread", "ms per frame"],
        [[name, f"{1000 * median(samples) / per_call[name]:.2f}"] for name, samples in spent.items()],
    )
    report.finish(
        targets={
            f"frames/s, {first}": (n_frames / median(tasks[first]), ">=", REAL_TIME),
        },
        frames=n_frames,
        frames_per_second={name: round(n_frames / median(samples), 2) for name, samples in tasks.items()},
        task_seconds_per_frame=rounded(tasks, per=n_frames),
        part_seconds_per_frame={name: round(median(spent[name]) / per_call[name], 6) for name in spent},
        smoothing_times_as_fast=round(faster, 2),
    )


if __name__ == "__main__":
    main()

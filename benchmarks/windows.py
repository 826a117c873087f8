"""What does a model that looks back over 32 frames gain by what its clips share?

ViNet-S and TASED-Net with stand-in weights, in turns on the same frames, in one process: ours, which computes what
clips share once, against the same network with every clip computed by itself from its 32 pictures, as scripts around
such networks do. Frames are on the device already and of the size the networks see.

    python benchmarks/windows.py [--rounds 5] [--models vinet_s,tased] [--frames 4] [-o results/windows.json]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from measure import Report, arguments, interleaved, median, ratio, table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamsal.devices import inference, resolve_device, resolve_dtype
from streamsal.models import create_model
from streamsal.models.sliding_clip import SlidingClip, State
from streamsal.models.spec import Batch, Video
from streamsal.sample_clip import open_scene, shot_list

GAIN = 1.2  # times as fast as one clip at a time
HEIGHT, WIDTH = 224, 384
FILM = 70  # frames, shown over and over


class Slide:
    """A model sliding on over a film without end; a call is some more frames, every one of which is wanted."""

    def __init__(self, model: SlidingClip, film_nhwc: Tensor, n: int, dtype: torch.dtype) -> None:
        self.model, self.film, self.n, self.dtype = model, film_nhwc, n, dtype
        self.next, self.state = 0, model.begin(video())
        self.step(range(model.frames), wanted=())  # the warm-up of a shard

    def step(self, numbers: Iterable[int], wanted: Iterable[int]) -> dict[int, Tensor]:
        found = stepped(self.model, self.film, numbers, wanted, self.state, self.dtype)
        self.next = max(numbers) + 1
        return found

    def __call__(self) -> None:
        numbers = range(self.next, self.next + self.n)
        self.step(numbers, wanted=numbers)
        if self.film.device.type == "cuda":
            torch.cuda.synchronize()


def video() -> Video:
    return Video(name="film", n_frames=FILM, frame_rate=25, height=HEIGHT, width=WIDTH)


def stepped(
    model: SlidingClip,
    film_nhwc: Tensor,
    numbers: Iterable[int],
    wanted: Iterable[int],
    state: State,
    dtype: torch.dtype,
) -> dict[int, Tensor]:
    """Maps by frame of one step, whose batch are these frames."""
    frame = np.array(list(numbers))
    batch = Batch(
        frames_nhwc=film_nhwc[torch.from_numpy(frame % len(film_nhwc)).to(film_nhwc.device)],
        frame=frame,
        pts_seconds=frame / 25,
        present=slice(0, len(frame)),
        wanted=np.isin(frame, list(wanted)),
    )
    with inference(film_nhwc.device, dtype, autocast=True):
        result = model.step(batch, state)
    return dict(zip(result.frame.tolist(), result.values["saliency"], strict=True))


def film(n: int) -> Tensor:
    """(n, 224, 384, 3) uint8 from the sample clip."""
    scene = open_scene(shot_list(3 * n)[0], WIDTH, HEIGHT)
    return torch.from_numpy(np.stack([scene.paint(i) for i in range(n)]))


def models(name: str, device: torch.device) -> dict[str, SlidingClip]:
    """The same network twice: with what clips share, and one clip at a time."""
    shares = create_model(name, weights="synthetic", device=device)
    assert isinstance(shares, SlidingClip)
    alone = SlidingClip(shares.spec, shares.network, device=device, frames=shares.frames, shares=False)
    return {"shared": shares, "one clip at a time": alone}


def gmac(slide: Slide) -> float:
    with FlopCounterMode(display=False) as counter:
        slide()
    return counter.get_total_flops() / 2e9 / slide.n


def measured(name: str, options: argparse.Namespace, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    film_nhwc, both = film(FILM).to(device), models(name, device)
    slides = {way: Slide(model, film_nhwc, options.frames, dtype) for way, model in both.items()}
    samples = interleaved(slides, options.rounds)
    last = [slide.step([slide.next], [slide.next])[slide.next - 1] for slide in slides.values()]
    return {
        "seconds_per_frame": {way: round(median(found) / options.frames, 4) for way, found in samples.items()},
        "gmac_per_frame": {way: round(gmac(slide), 1) for way, slide in slides.items()},
        "times_as_fast": round(ratio(samples["one clip at a time"], samples["shared"]), 3),
        "largest_difference": float((last[0] - last[1]).abs().max()),
    }


def show(found: dict[str, dict[str, Any]]) -> None:
    for name, facts in found.items():
        print(f"{name}: {facts['times_as_fast']:.2f} times as fast, at most {facts['largest_difference']:.1e} apart\n")
        table(
            ["", "seconds per frame", "GMAC"],
            [
                [way, f"{seconds:.3f}", f"{facts['gmac_per_frame'][way]:.1f}"]
                for way, seconds in facts["seconds_per_frame"].items()
            ],
        )


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--models", default="vinet_s,tased", metavar="LIST", help="(default: vinet_s,tased)")
    parser.add_argument("--frames", type=int, default=4, metavar="N", help="of a measured call (default: 4)")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    parser.add_argument("--device", default="auto", metavar="auto|cpu|cuda|cuda:N|mps")
    parser.add_argument("--dtype", default="auto", metavar="auto|fp32|tf32|fp16|bf16")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = resolve_device(options.device)
    dtype = resolve_dtype(options.dtype, device)
    report = Report(benchmark="windows", options=options)
    found = {name: measured(name, options, device, dtype) for name in options.models.split(",")}
    print()
    show(found)
    report.finish(
        targets={f"{name}, times as fast": (facts["times_as_fast"], ">=", GAIN) for name, facts in found.items()},
        device=str(device),
        dtype=str(dtype).removeprefix("torch."),
        models=found,
    )


if __name__ == "__main__":
    main()

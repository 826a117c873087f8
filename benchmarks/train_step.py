"""What does a step of training cost in half precision, beside float32?

Steps of the published size, in turns, in one process: clips of 32 frames of 56x56, a resizer of single frames with
three blocks to 112x112, an I3D of full width, 26 classes; random weights, clips of noise on the device already.
Each dtype has a classifier and an optimizer of its own and steps as `streamsal train` does: forth and back, gradients
clipped (and scaled in float16), AdamW. On a CPU only float32 is measured: training refuses half precision there.

    python benchmarks/train_step.py [--rounds 5] [--batch 8] [--tiny] [-o results/train_step.json]
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from measure import Report, arguments, interleaved, median, parsed_on_device, ratio, table

from streamsal.actions.config import Config, Data, Network, Train
from streamsal.actions.processes import Processes
from streamsal.actions.stepping import Stepper
from streamsal.actions.train import precision
from streamsal.errors import UsageError
from streamsal.models.classifier import Classifier

DTYPES = ("fp32", "bf16", "fp16")
CLASSES = tuple(map(str, range(26)))
PUBLISHED = Network(blocks=3)
TINY = Network(blocks=3, frames=8, side_in=14, side=28, width=0.125)


class Step:
    """The next step of a training that goes on for ever on one batch."""

    def __init__(self, config: Config, device: torch.device, dtype: torch.dtype) -> None:
        torch.manual_seed(config.train.seed)
        design, batch = config.design(CLASSES), config.train.batch
        labels = np.eye(batch, len(CLASSES), dtype=np.uint8)
        classifier = Classifier(design, dropout=config.model.dropout)
        processes = Processes(device=device)
        self.stepper = Stepper(classifier, config, labels, processes=processes, dtype=dtype, n_steps=10**6)
        clips_ncthw = torch.rand(batch, 3, design.frames, design.side_in, design.side_in) * 2 - 1
        self.clips, self.labels, self.number = clips_ncthw.to(device), torch.from_numpy(labels).to(device), 0

    def __call__(self) -> None:
        self.stepper.step(self.number, iter([(self.clips, self.labels)]), 1, len(self.clips))
        self.number += 1
        if self.clips.device.type == "cuda":
            torch.cuda.synchronize()


def steps(config: Config, device: torch.device) -> tuple[dict[str, Step], dict[str, str]]:
    """Those that the device trains with, and why not the others."""
    able: dict[str, Step] = {}
    refused: dict[str, str] = {}
    for name in DTYPES:
        try:
            able[name] = Step(config, device, precision(name, device))
        except UsageError as error:
            refused[name] = str(error)
    return able, refused


def measured(able: dict[str, Step], batch: int, rounds: int) -> dict[str, Any]:
    samples = interleaved(able, rounds)
    return {
        "seconds_per_step": {name: round(median(found), 4) for name, found in samples.items()},
        "clips_per_second": {name: round(batch / median(found), 2) for name, found in samples.items()},
        "time_relative_to_fp32": {name: round(ratio(found, samples["fp32"]), 3) for name, found in samples.items()},
    }


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--batch", type=int, default=8, metavar="N", help="clips of a step (default: 8)")
    parser.add_argument("--tiny", action="store_true", help="a small network, to see that it runs")
    options, device = parsed_on_device(parser)
    report = Report(benchmark="train_step", options=options)
    model = TINY if options.tiny else PUBLISHED
    config = Config(data=Data(train="none"), model=model, train=Train(batch=options.batch))
    able, refused = steps(config, device)
    found = measured(able, options.batch, options.rounds)

    print()
    table(["", *able], [[what, *(f"{value:.3f}" for value in of.values())] for what, of in found.items()])
    for name, why in refused.items():
        print(f"{name} is not measured: {why}")
    report.finish(targets={}, device=str(device), batch=options.batch, tiny=options.tiny, refused=refused, **found)


if __name__ == "__main__":
    main()

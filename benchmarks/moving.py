"""Is the example learnt, and what is left of that when frames come in the order of their numbers as text?

The clips and the recipe of `streamsal train --example`, trained by the code of that command, once per seed and
order of frames: in order, and 0 1 10 11 ... 19 2 20 ..., as the program of 2022 read them. Then macro F1 on the test
clips, scenes that neither training nor the choice of the best epoch has seen:
- natural: trained and tested in order,
- shown legacy: trained in order, tested on frames in that program's order,
- legacy: trained and tested in that program's order.
Processor time is that of a whole training, decoding and validation included.

    python benchmarks/moving.py [--seeds 0,1,2] [--tiny] [-o results/moving.json]
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from measure import Report, arguments, now, table

from streamsal.actions.config import Config, config_of, read_toml
from streamsal.actions.example import RECIPE, SCENES, write_example
from streamsal.actions.judge import judge
from streamsal.actions.train import train
from streamsal.models.classifier import load, save
from streamsal.progress import Progress

LEARNT, LOST = 0.9, 0.1  # macro F1, and how much of it the other order has to cost
WAYS = ("natural", "shown legacy", "legacy")
TINY = {"epochs": 1, "batch": 12}
TINY_SCENES = {"train": range(2), "test": range(2, 3)}


def recipe(folder: Path, order: str, seed: int, *, tiny: bool) -> Config:
    tables = read_toml(folder / RECIPE)
    tables["data"]["order"] = order
    tables["train"] |= {"seed": seed, "every": 1000, **(TINY if tiny else {})}
    return config_of(tables, folder / RECIPE)


def trained(config: Config, folder: Path, progress: Progress) -> tuple[Path, float]:
    """best.pt, and the minutes of processor time that it took."""
    before = now()
    best = train(config, folder, resume="no", progress=progress)
    return best, (now() - before).cpu / 60


def in_order(best: Path, order: Any) -> Path:
    """The same network, for frames in another order."""
    network = load(best)
    network.design = replace(network.design, order=order)
    path = best.with_name(f"shown_{order}.pt")
    save(path, network)
    return path


def f1(network: Path, config: Config) -> float:
    scores = judge(network, config.data.test, test=config.test, plots=False, workers=config.data.workers)
    assert scores is not None  # test clips have labels
    return scores.f1_macro


def measured(folder: Path, seed: int, progress: Progress, *, tiny: bool) -> dict[str, float]:
    found: dict[str, float] = {}
    for order in ("natural", "legacy"):
        config = recipe(folder, order, seed, tiny=tiny)
        best, minutes = trained(config, folder / f"{order}_{seed}", progress)
        found |= {order: f1(best, config), f"{order}, cpu minutes": round(minutes, 2)}
        if order == "natural":
            found["shown legacy"] = f1(in_order(best, "legacy"), config)
    return found


def show(found: dict[int, dict[str, float]]) -> None:
    header = ["seed", *WAYS, "minutes of processor time"]
    table(
        header,
        [
            [str(seed), *(f"{facts[way]:.3f}" for way in WAYS), f"{facts['natural, cpu minutes']:.1f}"]
            for seed, facts in found.items()
        ],
    )


def main() -> None:
    parser = arguments(__doc__, rounds=None)
    parser.add_argument("--seeds", default="0,1,2", metavar="LIST", help="(default: 0,1,2)")
    parser.add_argument("--tiny", action="store_true", help="one epoch of three scenes, to see that it runs")
    parser.add_argument("--threads", type=int, default=1, help="of the CPU (default: 1)")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    report = Report(benchmark="moving", options=options)
    folder = options.work_dir / "moving"
    write_example(folder, TINY_SCENES if options.tiny else SCENES)
    progress = Progress()
    found = {seed: measured(folder, seed, progress, tiny=options.tiny) for seed in map(int, options.seeds.split(","))}
    show(found)
    worst = min(facts["natural"] for facts in found.values())
    targets = {"macro F1 in order, worst seed": (worst, ">=", LEARNT)}
    for way in WAYS[1:]:
        lost = min(facts["natural"] - facts[way] for facts in found.values())
        targets[f"macro F1 lost, {way}, least of all seeds"] = (round(lost, 4), ">=", LOST)
    report.finish(targets=targets, seeds={str(seed): facts for seed, facts in found.items()})


if __name__ == "__main__":
    main()

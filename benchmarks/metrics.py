"""How many frames per second are scored against gaze?

Smooth random densities of 540x960 in float32, 20 fixations per frame and 200 of other videos as negatives, in batches
of 8. "per fixation": log-likelihood, information gain over a center bias, NSS, AUC and, of the log ratio to the center
bias, shuffled AUC. "with maps": those, and CC, SIM and KL of the blurred density against an empirical map made from the
fixations. Peak memory is of new processes that score 40 frames and 800.

    python benchmarks/metrics.py [--rounds 5] [-o results/metrics.json]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from measure import Report, arguments, interleaved, median, peak_megabytes, rounded, table
from torch import Tensor

from streamsal.density import gaussian_prior, normalize
from streamsal.evaluation import metrics

HERE = Path(__file__).resolve().parent
HEIGHT, WIDTH, BATCH = 540, 960, 8
FIXATIONS, NEGATIVES = 20, 200  # per frame
SIGMA_PX = 24.0  # of MIT300 at the Tübingen benchmark

Fixations = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """A batch of predictions and what people looked at, here and elsewhere."""

    log_density_nhw: Tensor
    center_bias_hw: Tensor
    at: Fixations
    elsewhere: Fixations


def scene() -> Scene:
    random = torch.Generator().manual_seed(0)
    coarse = 2 * torch.randn(BATCH, 1, 12, 20, generator=random)
    smooth = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic")[:, 0]
    return Scene(
        log_density_nhw=normalize(smooth + 0.01 * torch.randn(smooth.shape, generator=random)),
        center_bias_hw=normalize(gaussian_prior(HEIGHT, WIDTH, 0.2, 0.2)[None])[0],
        at=fixations(1, FIXATIONS),
        elsewhere=fixations(2, NEGATIVES),
    )


def fixations(seed: int, per_frame: int) -> Fixations:
    random, k = np.random.default_rng(seed), BATCH * per_frame
    return np.repeat(np.arange(BATCH), per_frame), random.integers(0, HEIGHT, k), random.integers(0, WIDTH, k)


def log_likelihood(scene: Scene) -> None:
    metrics.log_likelihood(scene.log_density_nhw, *scene.at)


def information_gain(scene: Scene) -> None:
    metrics.information_gain(scene.log_density_nhw, scene.center_bias_hw, *scene.at)


def nss(scene: Scene) -> None:
    metrics.nss(scene.log_density_nhw.exp(), *scene.at)


def auc(scene: Scene) -> None:
    metrics.auc(scene.log_density_nhw, *scene.at)


def shuffled_auc(scene: Scene) -> None:
    ratio = metrics.shuffled_auc_map(scene.log_density_nhw, scene.center_bias_hw)
    metrics.shuffled_auc(ratio, *scene.at, *scene.elsewhere)


def cc_sim_kl(scene: Scene) -> None:
    truth = metrics.empirical_map(*scene.at, *scene.log_density_nhw.shape, SIGMA_PX)
    expected = metrics.blurred(scene.log_density_nhw.exp(), SIGMA_PX)
    for score in (metrics.cc, metrics.sim, metrics.kl_divergence):
        score(truth, expected)


PER_FIXATION: tuple[Callable[[Scene], None], ...] = (log_likelihood, information_gain, nss, auc, shuffled_auc)


def score(scene: Scene, n_frames: int, *parts: Callable[[Scene], None]) -> None:
    for _ in range(n_frames // BATCH):
        for part in parts:
            part(scene)


def peak(n_frames: int) -> float:
    scored = f"metrics.score(metrics.scene(), {n_frames}, *metrics.PER_FIXATION, metrics.cc_sim_kl)"
    return peak_megabytes(f"import sys; sys.path.insert(0, {str(HERE)!r}); import metrics; {scored}")


def main() -> None:
    parser = arguments(__doc__, rounds=5)
    parser.add_argument("--frames", type=int, default=40, help="per case and round, multiple of 8 (default: 40)")
    options = parser.parse_args()

    report = Report(benchmark="metrics", options=options)
    given = scene()
    parts = {part.__name__: (part,) for part in (*PER_FIXATION, cc_sim_kl)}
    sums = {"per fixation": PER_FIXATION, "with maps": (*PER_FIXATION, cc_sim_kl)}

    def case(functions: tuple[Callable[[Scene], None], ...]) -> Callable[[], None]:
        return lambda: score(given, options.frames, *functions)

    samples = interleaved({name: case(functions) for name, functions in (parts | sums).items()}, options.rounds)
    memory = {n: peak(n) for n in (40, 800)}
    rates = {name: options.frames / median(found) for name, found in samples.items()}

    print(f"{HEIGHT}x{WIDTH}, {FIXATIONS} fixations per frame, {torch.get_num_threads()} threads\n")
    table(
        ["", "ms per frame", "frames/s", "processor ms"],
        [
            [name, f"{1e3 / rate:.2f}", f"{rate:.0f}", f"{1e3 * median(samples[name], 'cpu') / options.frames:.2f}"]
            for name, rate in rates.items()
        ],
    )
    print("peak memory: " + ", ".join(f"{megabytes:.0f} MB for {n} frames" for n, megabytes in memory.items()))
    report.finish(
        targets={
            "frames per second, scores per fixation": (rates["per fixation"], ">=", 200),
            "frames per second, with maps": (rates["with maps"], ">=", 40),
            "peak memory, 800 frames relative to 40": (memory[800] / memory[40], "<=", 1.05),
        },
        seconds_per_frame=rounded(samples, options.frames),
        memory_megabytes={str(n): round(megabytes, 1) for n, megabytes in memory.items()},
        threads=torch.get_num_threads(),
    )


if __name__ == "__main__":
    main()

"""Each metric is scored with the map that it is meant for, and the numbers are those of the metrics' own tests."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.evaluation import metrics
from streamsal.evaluation.scoring import PROTOCOLS, UNITS, Batch, exact, mit, unfitted

METRICS = Path(__file__).parents[1] / "fixtures" / "metrics"
SIGMA = 3.0  # of the empirical maps of these files


def batch_of(name: str, *, density: bool) -> tuple[Batch, dict[str, np.ndarray]]:
    """The frames of a file that pysaliency has scored; negatives are the fixations of all other frames."""
    file = dict(np.load(METRICS / f"pysaliency_{name}.npz"))
    maps = torch.tensor(file["in/log_density"] if density else file["in/saliency"])
    row, col = metrics.pixels(file["in/x"], file["in/y"])
    frame = torch.tensor(file["in/n"])
    others = [torch.nonzero(frame != i)[:, 0] for i in range(len(maps))]
    negative = torch.cat(others)
    return Batch(
        maps_nhw=maps,
        is_density=density,
        number=np.arange(len(maps)),
        frame=frame,
        row=row,
        col=col,
        baseline_hw=torch.tensor(file["in/centerbias_log_density"]),
        others_hw=None,
        negatives=(
            torch.arange(len(maps)).repeat_interleave(torch.tensor([len(o) for o in others])),
            row[negative],
            col[negative],
        ),
        sigma_px=SIGMA,
    ), file


@pytest.mark.parametrize("name", ["smooth", "uint8", "sparse"])
def test_a_density_is_scored_as_pysaliency_scores_the_maps_that_it_says_are_best(name: str) -> None:
    batch, file = batch_of(name, density=True)
    found = exact(batch)
    of_fixations = {
        "log_likelihood_nats": "ll_nats",
        "log_likelihood_over_uniform_bits": "ig_uniform_bits",
        "information_gain_bits": "ig_centerbias_bits",
        "auc": "density/auc_uniform",
        "nss_sd": "density/nss",
    }
    for ours, theirs in of_fixations.items():
        expected = metrics.per_frame(file[f"out/{theirs}"], batch.frame, len(batch.maps_nhw))
        torch.testing.assert_close(found[ours], expected, atol=1e-8, rtol=0, equal_nan=True)
    there = file["out/frame_has_fixations"].astype(bool)
    for ours, theirs in {"cc": "cc", "sim": "sim", "kl_divergence_nats": "kldiv_mit"}.items():
        expected = file[f"out/blurred_density/{theirs}"]
        np.testing.assert_allclose(found[ours][there], expected[there], atol=1e-8, err_msg=ours)


@pytest.mark.parametrize("name", ["smooth", "uint8", "sparse"])
def test_a_saliency_map_is_scored_as_pysaliency_scores_it(name: str) -> None:
    batch, file = batch_of(name, density=False)
    found = exact(batch)
    assert "information_gain_bits" not in found and "log_likelihood_nats" not in found
    for ours, theirs in {"auc": "auc_uniform", "shuffled_auc": "auc_shuffled", "nss_sd": "nss"}.items():
        expected = metrics.per_frame(file[f"out/map/{theirs}"], batch.frame, len(batch.maps_nhw))
        torch.testing.assert_close(found[ours], expected, atol=1e-8, rtol=0, equal_nan=True)
    there = file["out/frame_has_fixations"].astype(bool)
    for ours, theirs in {"cc": "cc", "sim": "sim", "kl_divergence_nats": "kldiv_mit"}.items():
        np.testing.assert_allclose(found[ours][there], file[f"out/map/{theirs}"][there], atol=1e-8, err_msg=ours)


def test_units_are_said_of_every_score() -> None:
    for density in (True, False):
        batch, _ = batch_of("smooth", density=density)
        for protocol in PROTOCOLS.values():
            assert set(protocol(batch)) <= set(UNITS)


def test_the_ratio_to_the_center_bias_is_what_shuffled_auc_is_scored_with() -> None:
    batch, _ = batch_of("smooth", density=True)
    bias = batch.baseline_hw
    assert bias is not None
    assert batch.negatives is not None
    ratio = batch.maps_nhw - bias
    expected = metrics.shuffled_auc(ratio, batch.frame, batch.row, batch.col, *batch.negatives)
    found = exact(replace(batch, others_hw=bias))["shuffled_auc"]
    torch.testing.assert_close(found, metrics.per_frame(expected, batch.frame, len(ratio)), equal_nan=True)
    assert not torch.allclose(found, exact(batch)["shuffled_auc"], equal_nan=True)


def test_an_unfitted_map_is_its_share_with_one_percent_everywhere() -> None:
    maps = torch.tensor([[[0.0, 1], [1, 2]], [[-1, 0], [0, 1]], [[5, 5], [5, 5]], [[0, 0], [0, 0]]])
    densities = unfitted(maps).exp()
    once = [0.0025, 0.25, 0.25, 0.4975]
    expected = torch.tensor([once, once, [0.25] * 4, [0.25] * 4], dtype=torch.float64).view(4, 2, 2)
    torch.testing.assert_close(densities, expected)


def test_without_negatives_there_is_no_shuffled_auc() -> None:
    batch, _ = batch_of("smooth", density=True)
    batch = replace(batch, negatives=None)
    assert exact(batch)["shuffled_auc"].isnan().all()
    assert mit(batch)["mit_auc_shuffled"].isnan().all()


def test_mit_has_no_information_gain_over_the_uniform_baseline() -> None:
    batch, _ = batch_of("smooth", density=True)
    assert "mit_information_gain" in mit(batch)
    assert "mit_information_gain" not in mit(replace(batch, baseline_hw=None))


def test_frames_without_fixations_have_no_scores() -> None:
    batch, _ = batch_of("sparse", density=True)
    empty = sorted(set(range(len(batch.maps_nhw))) - set(batch.frame.tolist()))
    assert empty  # the file has some on purpose
    for protocol in PROTOCOLS.values():
        for metric, values in protocol(batch).items():
            if metric not in ("cc", "sim", "kl_divergence_nats"):  # maps against an empty map
                assert all(math.isnan(values[i]) for i in empty), metric

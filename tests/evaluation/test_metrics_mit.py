from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.evaluation import metrics
from streamsal.evaluation.metrics_mit import (
    auc_borji,
    auc_judd,
    auc_judd_of_fixations,
    auc_shuffled,
    cc,
    draw_others,
    draw_pixels,
    fixation_map,
    information_gain,
    kl_divergence,
    nss,
    sim,
)

FIXTURES = Path(__file__).parents[1] / "fixtures/metrics"
CASES = [(name, kind) for name in ("smooth", "uint8", "sparse", "constant") for kind in ("map", "density")]


@cache
def scored(name: str, kind: str) -> dict[str, np.ndarray]:
    """Ours for every frame: {score: (n,)}, from the same maps and the same random draws as the MATLAB code had."""
    case, file = (np.load(FIXTURES / f"{program}_{name}.npz") for program in ("pysaliency", "mit_matlab"))
    maps = {"map": case["in/saliency"], "density": np.exp(case["in/log_density"])}[kind]
    baseline, truths = np.exp(case["in/centerbias_log_density"]), case["out/empirical_map"]
    scores = []
    for i, fixated in enumerate(file["in/fixation_map"].astype(bool)):
        n, others = np.count_nonzero(fixated), np.flatnonzero(file["in/other_map"][i])
        anywhere = file["in/borji_pixel_index"][:n, :, i].T
        elsewhere = others[file["in/shuffle_order"][: min(n, len(others)), :, i].T]
        scores.append(
            {
                "auc_judd": auc_judd(maps[i], fixated),
                "auc_judd_jitter": auc_judd(maps[i], fixated, file["in/jitter_uniform"][i]),
                "auc_borji": auc_borji(maps[i], fixated, anywhere),
                "auc_shuffled": auc_shuffled(maps[i], fixated, elsewhere),
                "nss": nss(maps[i], fixated),
                "infogain": information_gain(maps[i], fixated, baseline),
                "cc": cc(maps[i], truths[i]),
                "sim": sim(maps[i], truths[i]),
                "kldiv": kl_divergence(truths[i], maps[i]),
            }
        )
    return {score: np.array([frame[score] for frame in scores]) for score in scores[0]}


TOLERANCES = {
    **dict.fromkeys(("auc_judd", "auc_judd_jitter", "auc_borji", "auc_shuffled"), 1e-12),
    **dict.fromkeys(("nss", "infogain", "cc", "sim"), 1e-9),
    "kldiv": 1e-8,
}


@pytest.mark.parametrize("score", TOLERANCES)
@pytest.mark.parametrize("name, kind", CASES)
def test_scores_are_those_of_the_matlab_code(name: str, kind: str, score: str) -> None:
    found = scored(name, kind)[score]
    expected = np.load(FIXTURES / f"mit_matlab_{name}.npz")[f"out/{kind}/{score}"]
    if (name, kind, score) == ("constant", "map", "nss"):
        assert (found == 0).all() and (abs(expected) > 0.9).all()  # theirs divides rounding by rounding
        return
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.nanmax(abs(found - expected), initial=0) <= TOLERANCES[score]


@pytest.mark.parametrize("name, kind", CASES)
def test_judds_auc_of_all_fixations_is_pysaliencys(name: str, kind: str) -> None:
    file = np.load(FIXTURES / f"pysaliency_{name}.npz")
    maps = {"map": file["in/saliency"], "density": np.exp(file["in/log_density"])}[kind]
    row, col = (index.numpy() for index in metrics.pixels(file["in/x"], file["in/y"]))
    noise, plain, jittered = np.random.RandomState(42), [], []
    for i, values in enumerate(maps):
        at = (row[file["in/n"] == i], col[file["in/n"] == i])
        jitter = 1e-7 * noise.randn(*values.shape) if len(at[0]) else None
        plain.append(auc_judd_of_fixations(values, *at))
        jittered.append(auc_judd_of_fixations(values, *at, jitter))
    expected = file[f"out/{kind}/auc_judd_thresholds_at_fixations_no_jitter_per_frame"]
    np.testing.assert_allclose(plain, expected, rtol=0, atol=1e-12)
    assert abs(np.nanmean(jittered) - file[f"out/{kind}/auc_judd_jitter_seed42_mean"]) <= 1e-12


@pytest.mark.parametrize("name, column", [("smooth", 2), ("uint8", 4)])
def test_the_table_of_the_docs_holds_what_both_protocols_give(name: str, column: int) -> None:
    lines = (Path(__file__).parents[2] / "docs/metrics.md").read_text().splitlines()
    table = {
        cells[0]: cells for line in lines if len(cells := [cell.strip() for cell in line.strip("|").split("|")]) == 6
    }
    file = np.load(FIXTURES / f"pysaliency_{name}.npz")
    log_density, density = file["in/log_density"], np.exp(file["in/log_density"])
    frame, (row, col) = file["in/n"], metrics.pixels(file["in/x"], file["in/y"])
    others = [(i, j) for i in range(len(density)) for j in np.flatnonzero(frame != i)]
    negative_frame, which = (np.array(column) for column in zip(*others, strict=True))
    at, negatives = (frame, row, col), (negative_frame, row[which], col[which])
    per_fixation = {
        "AUC": metrics.auc(density, *at),
        "shuffled AUC": metrics.shuffled_auc(density, *at, *negatives),
        "NSS": metrics.nss(density, *at),
        "information gain over the center bias": metrics.information_gain(
            log_density, file["in/centerbias_log_density"], *at
        ),
    }
    truth = file["out/empirical_map"]
    exact = {
        **{score: metrics.per_frame(values, frame, len(density)) for score, values in per_fixation.items()},
        "KL from the empirical map": metrics.kl_divergence(truth, density),
        "SIM": metrics.sim(truth, density),
        "CC": metrics.cc(truth, density),
    }
    mit = {score: f"{np.nanmean(values):.3f}" for score, values in scored(name, "density").items()}
    expected = {
        "AUC": f"Judd {mit['auc_judd_jitter']}, Borji {mit['auc_borji']}",
        "shuffled AUC": mit["auc_shuffled"],
        "NSS": mit["nss"],
        "information gain over the center bias": mit["infogain"],
        "KL from the empirical map": mit["kldiv"],
        "SIM": mit["sim"],
        "CC": mit["cc"],
    }
    for score, values in exact.items():
        assert table[score][column : column + 2] == [f"{values.nanmean():.3f}", expected[score]]


def some_map(seed: int, *, height: int = 12, width: int = 17) -> tuple[np.ndarray, np.random.Generator]:
    random = np.random.default_rng(seed)
    return random.normal(size=(height, width)), random


@given(seed=st.integers(0, 1000), n=st.integers(1, 30))
@settings(max_examples=50, deadline=None)
def test_judds_auc_exceeds_the_exact_one_by_half_the_lowest_false_alarm_rate_per_fixation(seed: int, n: int) -> None:
    values, random = some_map(seed)
    row, col = np.divmod(random.choice(values.size, n, replace=False), values.shape[1])
    exact = metrics.auc(values[None], np.zeros(n, int), row, col, negatives="unfixated")
    false_alarms = np.mean(np.delete(values.ravel(), row * values.shape[1] + col) >= values[row, col].min())
    found = auc_judd(values, fixation_map(row, col, *values.shape))
    assert abs(found - float(exact.mean()) - false_alarms / (2 * n)) <= 1e-12


def test_chance_is_three_quarters_for_judds_auc_of_one_fixation_and_half_for_the_exact_one() -> None:
    values, _ = some_map(0)
    row, col = np.divmod(np.arange(values.size), values.shape[1])
    judd = [auc_judd(values, fixation_map(row[[i]], col[[i]], *values.shape)) for i in range(values.size)]
    assert abs(np.mean(judd) - 0.75) <= 1e-12
    assert abs(float(metrics.auc(values[None], np.zeros_like(row), row, col).mean()) - 0.5) <= 1e-12


@given(seed=st.integers(0, 1000), n=st.integers(2, 30), n_others=st.integers(1, 40))
@settings(max_examples=30, deadline=None)
def test_draws_are_of_the_right_pixels_and_repeat_with_their_seed(seed: int, n: int, n_others: int) -> None:
    values, random = some_map(seed)
    others = fixation_map(*np.divmod(random.choice(values.size, n_others, replace=False), 17), *values.shape)
    elsewhere = draw_others(np.random.default_rng(seed), others, n, splits=5)
    assert elsewhere.shape == (5, min(n, n_others))
    assert others.ravel()[elsewhere].all()
    assert all(len(set(split)) == len(split) for split in elsewhere.tolist())
    anywhere = draw_pixels(np.random.default_rng(seed), values.size, n, splits=5)
    assert anywhere.shape == (5, n)
    assert anywhere.min() >= 0 and anywhere.max() < values.size
    assert np.array_equal(anywhere, draw_pixels(np.random.default_rng(seed), values.size, n, splits=5))
    assert np.array_equal(elsewhere, draw_others(np.random.default_rng(seed), others, n, splits=5))


def test_ten_thresholds_are_blind_to_a_peaked_map_until_it_is_equalized() -> None:
    values = np.exp(np.linspace(0, 60, 40 * 60)).reshape(40, 60)  # all but the last rows are within a tenth of nothing
    row, col = np.divmod(np.arange(1200, 2280, 30), 60)
    fixated, drawn = fixation_map(row, col, 40, 60), draw_pixels(np.random.default_rng(3), 2400, len(row))
    exact = float(metrics.auc(values[None], np.zeros_like(row), row, col).mean())
    assert exact > 0.7
    assert abs(auc_borji(values, fixated, drawn) - 0.5) < 0.02
    assert abs(auc_borji(metrics.equalized(values[None])[0].numpy(), fixated, drawn) - exact) < 0.02


def test_frames_without_fixations_score_nan_and_maps_of_another_size_are_refused() -> None:
    values, _ = some_map(1)
    nothing = np.zeros(values.shape, bool)
    drawn = np.zeros((3, 0), np.int64)
    assert np.isnan([auc_judd(values, nothing), auc_borji(values, nothing, drawn), nss(values, nothing)]).all()
    assert np.isnan([auc_shuffled(values, nothing, drawn), information_gain(values, nothing, values)]).all()
    assert np.isnan([cc(values, nothing), kl_divergence(nothing, values), sim(values, nothing)]).all()
    with pytest.raises(ValueError, match=r"\(12, 17\) does not fit fixations on \(6, 17\)"):
        auc_judd(values, nothing[:6])

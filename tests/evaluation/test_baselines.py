"""A center bias is a density of the places it is made of; a file is one, or is refused with what it sums to."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from streamsal.errors import BadInput, MissingInput, UsageError
from streamsal.evaluation.baselines import center_bias, read_log_density, resized


def test_one_percent_of_the_center_bias_is_uniform() -> None:
    places = np.full((400, 2), 0.1) + np.random.default_rng(0).normal(0, 0.01, (400, 2))
    lowest = float(center_bias(places, 30, 40).min().exp())
    assert lowest == pytest.approx(0.01 / 1200, rel=1e-3)


def test_a_center_bias_is_densest_where_most_is_fixated_and_sums_to_1() -> None:
    random = np.random.default_rng(0)
    places = np.clip(random.normal((0.3, 0.7), 0.05, (500, 2)), 0, 0.999)
    bias = center_bias(places, 40, 60).numpy()
    row, col = np.unravel_index(bias.argmax(), bias.shape)
    assert np.exp(bias).sum() == pytest.approx(1)
    assert (row / 40, col / 60) == pytest.approx((0.7, 0.3), abs=0.05)


def test_more_fixations_give_a_narrower_bandwidth_within_limits() -> None:
    places = np.random.default_rng(0).normal(0.5, 0.15, (20_000, 2)).clip(0, 0.999)
    peaks = [float(center_bias(places[:n], 40, 60).max()) for n in (5, 100, 20_000)]
    spread_out, some, many = (center_bias(places[:n], 40, 60).exp() for n in (5, 100, 20_000))
    entropies = [float(-(p * p.log()).sum()) for p in (some, many)]
    assert entropies[1] < entropies[0] and spread_out.min() > 0 and len(set(peaks)) == 3


def test_a_density_is_read_and_enlarged_as_one(tmp_path: Path) -> None:
    density = np.arange(1.0, 61).reshape(6, 10)
    np.save(tmp_path / "bias.npy", np.log(density / density.sum()).astype(np.float32))
    found = read_log_density(tmp_path / "bias.npy")
    assert resized(found, 6, 10) is found
    large = resized(found, 60, 100)
    assert large.shape == (60, 100) and float(large.logsumexp((0, 1))) == pytest.approx(0, abs=1e-5)
    assert float(large[-1, -1]) == float(large.max())


def test_what_is_no_log_density_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.full((6, 10), 1 / 60))
    np.save(tmp_path / "line.npy", np.zeros(3))
    np.save(tmp_path / "whole.npy", np.zeros((2, 2), int))
    (tmp_path / "text.npy").write_text("no array")
    cases = {
        "none.npy": (MissingInput, "name a .npy file that exists"),
        "p.txt": (UsageError, "none of center-bias, uniform"),
        "p.npy": (BadInput, "its logsumexp is 4.111 nats, not 0"),
        "line.npy": (BadInput, r"of shape \(3,\)"),
        "whole.npy": (BadInput, "int64"),
        "text.npy": (BadInput, "no array of numpy"),
    }
    for name, (error, says) in cases.items():
        with pytest.raises(error, match=says) as caught:
            read_log_density(tmp_path / name)
        assert name in str(caught.value)

"""Averages count what has a value, by video before all, and their interval is one over videos."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from streamsal.evaluation.averages import Means, bootstrap, cell, score_rows, setting_rows, summarize, write_table

NAN = math.nan


def row(video: str, frames: int, auc: float, **more: float) -> dict[str, object]:
    counts = dict.fromkeys(("frames_without_fixations", "holes", "fixations", "fixations_outside"), 1)
    return {"video": video, "frames": frames, **counts, "auc": auc, **more}


def test_running_means_leave_out_what_has_no_value() -> None:
    means = Means()
    for auc, nss in ((0.5, 1.0), (1.0, NAN), (0.75, 3.0)):
        means.add({"frame": 7, "fixations": 2, "auc": auc, "nss_sd": nss, "shuffled_auc": NAN})
    assert (means.frames, means.fixations) == (3, 6)
    found = means.values()
    assert found["auc"] == 0.75 and found["nss_sd"] == 2.0 and math.isnan(found["shuffled_auc"])
    assert "frame" not in found


def test_the_headline_is_over_videos_and_beside_it_stands_the_mean_over_frames() -> None:
    summary = summarize([row("a", 10, 0.6), row("b", 30, 0.8), row("c", 5, NAN)])
    auc = summary["metrics"]["auc"]
    assert auc["mean_over_videos"] == pytest.approx(0.7) and auc["videos"] == 2
    assert auc["mean_over_frames"] == pytest.approx((0.6 * 10 + 0.8 * 30) / 40)
    assert summary["videos"] == 3 and summary["frames_scored"] == 45 and summary["fixations_outside"] == 3
    assert "nss_sd" not in summary["metrics"]


def test_a_metric_without_any_value_is_not_in_the_summary() -> None:
    assert summarize([row("a", 3, NAN)])["metrics"] == {}


def test_the_bootstrap_draws_videos() -> None:
    assert bootstrap(np.array([1.0])) == (None, None)
    assert bootstrap(np.full(5, 2.0)) == (2.0, 2.0)
    values = np.random.default_rng(1).normal(3, 1, 200)
    low, high = bootstrap(values)
    assert low is not None and high is not None
    margin = 1.96 * values.std(ddof=1) / math.sqrt(200)
    assert (low, high) == pytest.approx((values.mean() - margin, values.mean() + margin), abs=0.02)


def test_tables_leave_empty_what_has_no_value(tmp_path: Path) -> None:
    write_table(
        tmp_path / "t.csv", [{"video": "a", "auc": 0.1 + 0.2}, {"video": "b", "auc": NAN}, {"video": "c", "cc": 1}]
    )
    with (tmp_path / "t.csv").open() as file:
        assert list(csv.reader(file)) == [["video", "auc", "cc"], ["a", "0.3", ""], ["b", "", ""], ["c", "", "1"]]
    assert cell("text") == "text"


def test_what_is_printed_names_protocol_baseline_and_fit() -> None:
    summary = {
        **summarize([row("a", 10, 0.6)]),
        "protocol": "exact",
        "scored_as": "density fitted to the map",
        "baseline": {"name": "file", "file": "bias.npy"},
        "shuffle": {"negatives": "dataset"},
        "fit": {"parameters": 32, "fitted_on": "the other videos"},
    }
    rows, head = score_rows(summary)
    assert rows == [["auc", "0.6", "", "0.6"]] and len(head) == 4  # one video: no interval
    said = dict(setting_rows(summary))
    assert said["protocol"] == "exact, scored as a density fitted to the map"
    assert said["baseline"] == "file, bias.npy" and said["negatives"] == "dataset"
    assert said["fit"] == "32 parameters, fitted on the other videos"

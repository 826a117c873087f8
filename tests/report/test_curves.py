"""Numbers per frame: what is kept of long curves, what is measured on maps, and whose tables are believed."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from talk import log_bump, make_run, write_talk

from streamsal.maps import Maps
from streamsal.merge import open_run
from streamsal.report.curves import AOIS, STATS, map_curves, score_columns, table, table_curves, thinned
from streamsal.stats import stats

HOLES = (7, 8)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("curves")
    make_run(write_talk(folder / "talk.mp4", 40), folder / "talk.streamsal", holes=HOLES)
    return folder / "talk.streamsal"


@pytest.fixture
def maps(folder: Path) -> Iterator[Maps]:
    with open_run(folder) as run:
        yield run["talk.mp4"]


@given(st.lists(st.floats(-10, 10) | st.just(math.nan), min_size=1, max_size=300), st.integers(2, 60))
def test_a_thinned_curve_has_few_points_and_keeps_both_extremes(values: list[float], points: int) -> None:
    value = np.array(values)
    frame = np.arange(len(value)) * 3
    few, kept = thinned(frame, value, points)
    assert len(few) <= max(points, 2)
    assert (np.diff(few) > 0).all()
    np.testing.assert_array_equal(kept, value[few // 3])
    if np.isfinite(value).any():
        assert np.nanmin(kept) == np.nanmin(value) and np.nanmax(kept) == np.nanmax(value)


def test_a_stretch_without_values_stays_a_gap() -> None:
    value = np.r_[np.arange(50.0), np.full(50, np.nan), np.arange(50.0)]
    frame, kept = thinned(np.arange(150), value, 30)
    gap = (frame >= 50) & (frame < 100)
    assert gap.sum() == 5 and np.isnan(kept[gap]).all()
    assert np.isfinite(kept[~gap]).all() and (~gap).sum() == 20


def test_curves_of_maps_are_those_of_stats_on_the_stored_grid(folder: Path, maps: Maps, tmp_path: Path) -> None:
    stats(folder, output=tmp_path, native=True)
    measured = {curve.quantity: curve for curve in map_curves(maps)}
    for curve in table_curves(STATS, table(tmp_path / "frames.csv", maps)):
        np.testing.assert_allclose(measured[curve.quantity].value, curve.value, rtol=1e-5, atol=1e-6)
        assert measured[curve.quantity].unit == curve.unit == "bits"
    assert np.flatnonzero(np.isnan(measured["Entropy"].value)).tolist() == list(HOLES)


def test_entropy_counts_displayed_pixels(maps: Maps) -> None:
    log_density = log_bump(3).astype(np.float64)
    bits = -(np.exp(log_density) * log_density).sum() / math.log(2)
    (entropy, _) = map_curves(maps)
    assert entropy.value[3] == pytest.approx(bits + math.log2(96 * 160 / log_density.size), abs=2e-3)  # float16


def test_many_frames_are_sampled_and_the_curve_says_so(maps: Maps) -> None:
    (entropy,) = map_curves(maps, points=10)
    assert entropy.frame.tolist() == list(range(0, 40, 4))
    assert "every 4th" in entropy.about
    whole = map_curves(maps)[0]
    np.testing.assert_array_equal(entropy.value, whole.value[::4])


def test_a_table_of_other_frames_or_older_than_the_maps_is_not_believed(
    folder: Path, maps: Maps, tmp_path: Path
) -> None:
    stats(folder, output=tmp_path, native=True)
    path = tmp_path / "frames.csv"
    assert table(path, maps)[""]["frame"].tolist() == list(range(40))
    assert table(path, maps, newer_than=os.stat(path).st_mtime + 1) == {}
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:20]))
    assert table(path, maps) == {}
    assert len(table(path, maps, whole=False)[""]["frame"]) == 40
    path.write_text("\n".join([*lines, lines[-1].replace(",39,", ",40,")]))
    assert table(path, maps, whole=False) == {}
    path.write_text("video,frame\ntalk.mp4,\n")
    assert table(path, maps, whole=False) == {}
    assert table(tmp_path / "nothing.csv", maps) == {}


def test_areas_are_series_of_one_quantity_in_percent(maps: Maps, tmp_path: Path) -> None:
    path = tmp_path / "aois.csv"
    rows = [f"talk.mp4,{frame},{aoi},{mass}" for frame in range(40) for aoi, mass in (("left", 0.25), ("right", ""))]
    path.write_text("\n".join(["video,frame,aoi,mass", *rows]))
    (left,) = table_curves(AOIS, table(path, maps))
    assert (left.series, left.unit) == ("left", "%")
    np.testing.assert_array_equal(left.value, 25)


def test_scores_say_their_protocol_baseline_and_negatives() -> None:
    baseline = {"name": "center bias", "of": "the fixations on all other videos (leave one video out)"}
    summary = {"protocol": "exact", "baseline": baseline, "shuffle": {"negatives": "other-videos"}}
    columns = {column.name: column for column in score_columns(summary)}
    gain = columns["information_gain_bits"]
    assert gain.about.startswith("over center bias of the fixations on all other videos")
    assert "protocol exact" in gain.about and gain.drawn
    assert "other videos" in columns["shuffled_auc"].about and not columns["shuffled_auc"].drawn

"""What a table says of a frame is what its map says."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
from synthetic_run import HEIGHT, WIDTH, make_plan, make_run

from streamsal.exported import COLUMNS, exported, read_map, summary, why_not
from streamsal.maps import Maps
from streamsal.merge import open_run
from streamsal.models.spec import Output


@pytest.fixture(scope="module")
def maps(tmp_path_factory: pytest.TempPathFactory) -> Maps:
    plan = make_plan({"talk.mp4": 12}, {"talk.mp4": []})
    return open_run(make_run(tmp_path_factory.mktemp("readout") / "run", plan))["talk.mp4"]


def test_a_frame_is_read_at_the_displayed_or_the_stored_size(maps: Maps) -> None:
    np.testing.assert_array_equal(read_map(maps, 3, False), maps.log_density(3))
    np.testing.assert_array_equal(read_map(maps, 3, True), maps.native(3))
    assert exported(maps, False).kind == "log_density" and "density" in why_not(maps)


@pytest.mark.parametrize(
    ("first", "said"),
    [
        (Output(name="probabilities", kind="probabilities", units="1", labels=("a",)), "class: export it as csv, npy"),
        (Output(name="features", kind="features", units="1"), "features is no map: export it as npy or npz"),
        (Output(name="saliency", kind="saliency_map", units="1"), "is no density (see --as-density): export it as npy"),
    ],
    ids=lambda value: getattr(value, "name", None),
)
def test_what_is_no_density_is_said_to_be_what_it_is_with_the_formats_that_hold_it(first: Output, said: str) -> None:
    assert said in why_not(cast(Maps, SimpleNamespace(first=first)))


@pytest.mark.parametrize("native", [False, True])
def test_a_summary_is_of_displayed_pixels_whatever_it_is_read_from(maps: Maps, native: bool) -> None:
    row = dict(zip(COLUMNS, summary(maps, 5, native), strict=True))
    density = np.exp(maps.log_density(5))
    y, x = np.unravel_index(density.argmax(), density.shape)
    assert (float(row["peak_x_px"]), float(row["peak_y_px"])) == pytest.approx((x + 0.5, y + 0.5), abs=1.5)
    center = (density.sum(0) @ (np.arange(WIDTH) + 0.5), density.sum(1) @ (np.arange(HEIGHT) + 0.5))
    assert (float(row["centroid_x_px"]), float(row["centroid_y_px"])) == pytest.approx(center, abs=0.3)
    assert row["frame"] == 5 and float(row["pts_seconds"]) == pytest.approx(0.2) and row["status"] == "done"


def test_a_hole_has_a_number_and_a_time_and_nothing_else(maps: Maps) -> None:
    assert summary(maps, 7, False) == [7, "0.280000", "hole", *[""] * (len(COLUMNS) - 3)]

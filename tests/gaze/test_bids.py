"""Eye tracking in a BIDS data set: samples, what the tracker called fixations, and films by their onset."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from streamsal.errors import BadInput
from streamsal.gaze.read import read_gaze

SIDECAR: dict[str, Any] = {
    "PhysioType": "eyetrack",
    "SamplingFrequency": 100,
    "StartTime": -1.0,
    "Columns": ["timestamp", "x_coordinate", "y_coordinate", "pupil_size"],
    "timestamp": {"Units": "ms"},
    "x_coordinate": {"Units": "pixel"},
}
NAME = "sub-07_task-films_recording-eye1_physio"


def recording(folder: Path, n: int = 500, **changes: Any) -> Path:
    """n samples, 10 ms apart, from 1 s before the scan on; x counts them."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{90000 + 10 * k}\t{k}\t{'n/a' if k == 3 else 50}\t{1000}\n" for k in range(n)]
    path = folder / f"{NAME}.tsv.gz"
    path.write_bytes(gzip.compress("".join(lines).encode()))
    (folder / f"{NAME}.json").write_text(json.dumps({**SIDECAR, **changes}))
    return path


def test_a_film_begins_with_its_onset_in_the_events(tmp_path: Path) -> None:
    recording(tmp_path / "sub-07" / "func")
    (tmp_path / "sub-07/func/sub-07_task-films_events.tsv").write_text(
        "onset\tduration\ttrial_type\tstim_file\n0.5\t1.0\tfilm\tfilms/a.mp4\n2\t0.2\tpause\tn/a\n3.0\tn/a\tfilm\tb.mp4\n"
    )
    gaze = read_gaze(tmp_path, size_px={"a.mp4": (640, 360), "b.mp4": (640, 360)})
    a, b = gaze.of("a.mp4"), gaze.of("b.mp4")
    assert a.x_px[[0, -1]].tolist() == [150, 249] and a.t_seconds[[0, -1]].tolist() == pytest.approx([0, 0.99])
    assert b.x_px[[0, -1]].tolist() == [400, 499] and b.t_seconds[0] == pytest.approx(0)
    assert set(gaze.subject) == {"07"}


def test_without_events_the_recording_is_one_film_and_that_is_said(tmp_path: Path) -> None:
    gaze = read_gaze(recording(tmp_path), size_px={"a.mp4": (640, 360)})
    assert gaze.t_seconds[:2].tolist() == pytest.approx([0, 0.01]) and len(gaze) == 499
    assert any("first sample was taken for the film's beginning" in note for note in gaze.notes)
    assert any("1 samples without a place" in note for note in gaze.notes)


def test_samples_without_time_stamps_have_their_rate(tmp_path: Path) -> None:
    path = recording(tmp_path)
    text = "".join(f"{k}\t50\n" for k in range(10))
    path.write_bytes(gzip.compress(text.encode()))
    sidecar = {"Columns": ["x_coordinate", "y_coordinate"], "SamplingFrequency": 50}
    (tmp_path / f"{NAME}.json").write_text(json.dumps(sidecar))
    assert read_gaze(path).t_seconds.tolist() == pytest.approx([k / 50 for k in range(10)])


def test_what_the_tracker_called_fixations_lies_at_the_mean_of_its_samples(tmp_path: Path) -> None:
    path = recording(tmp_path)
    events = path.with_name(path.name.replace("_physio", "_physioevents"))
    text = "90100\t100\tfixation\n90250\t30\tsaccade\n90300\t50\tfixation\n"
    events.write_bytes(gzip.compress(text.encode()))
    sidecar = {"Columns": ["onset", "duration", "trial_type"], "OnsetSource": "timestamp"}
    events.with_name(events.name.replace(".tsv.gz", ".json")).write_text(json.dumps(sidecar))
    (tmp_path / "sub-07_task-films_events.tsv").write_text("onset\tduration\tstim_file\n-1.0\t5\ta.mp4\n")
    gaze = read_gaze(path, size_px={"a.mp4": (640, 360)})
    assert gaze.x_px.tolist() == [15, 32.5]  # samples 10 ... 20 and 30 ... 35
    assert gaze.t_seconds.tolist() == pytest.approx([0.1, 0.3])
    assert gaze.duration_s.tolist() == pytest.approx([0.1, 0.05])


def test_bad_data_sets_are_named(tmp_path: Path) -> None:
    path = recording(tmp_path / "unit", **{"x_coordinate": {"Units": "deg"}})
    with pytest.raises(BadInput, match="places in deg"):
        read_gaze(path)
    path = recording(tmp_path / "heart", Columns=["cardiac"])
    with pytest.raises(BadInput, match="no column x_coordinate"):
        read_gaze(path)
    with pytest.raises(BadInput, match="heart holds no eye tracking"):
        read_gaze(tmp_path / "heart")
    (tmp_path / "heart" / f"{NAME}.json").write_text("{")
    with pytest.raises(BadInput, match="is no JSON"):
        read_gaze(path)
    (tmp_path / "heart" / f"{NAME}.json").unlink()
    with pytest.raises(BadInput, match=r"has no .*\.json beside it"):
        read_gaze(path)

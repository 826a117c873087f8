"""Frames, shapes and files are those of the latent-vectors service."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.errors import BadInput
from streamsal.vectors.intervals import Vectors
from streamsal.vectors.latent_vectors_service import legacy_clips, legacy_slots, write_legacy

CASES = json.loads((Path(__file__).parents[1] / "fixtures/embeddings/legacy_sampling.json").read_text())


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['duration_s']}s")
def test_slots_are_those_of_the_service(case: dict) -> None:
    slow, fast, intervals = legacy_slots(case["duration_s"])
    assert slow.tolist() == [clip["slow"] for clip in case["clips"]]
    assert fast.tolist() == [clip["fast"] for clip in case["clips"]]
    assert len(slow) == case["vectors"] and len(intervals) == case["intervals_rows"]
    np.testing.assert_array_equal(intervals[:, 1], np.array(case["sampled"]) / case["fps"])
    np.testing.assert_array_equal(intervals[1:, 0], intervals[:-1, 1])
    assert intervals[0, 0] == 0


@pytest.mark.parametrize("seconds, vectors", [(5, 5), (7, 9), (10, 13), (30, 53), (61.99, 117), (120, 233)])
def test_as_many_vectors_as_the_service_gave(seconds: float, vectors: int) -> None:
    slow, fast, intervals = legacy_slots(seconds)
    assert slow.shape == (vectors, 1) and fast.shape == (vectors, 4)
    assert len(intervals) == 2 * int(seconds) - 1 and fast.max() < 30 * seconds


@pytest.mark.parametrize("seconds", [0, 1.5, 3, 4.99, float("nan")])
def test_videos_that_the_service_failed_on_are_refused(seconds: float) -> None:
    with pytest.raises(BadInput, match="without --preset"):
        legacy_slots(seconds)


@pytest.mark.parametrize("fps", [30.0, 60.0, 25.0, 30 / 1.001])
def test_clips_show_what_was_on_screen_at_the_times_of_the_service(fps: float) -> None:
    pts = 1.4 + np.arange(int(20 * fps) + 1) / fps
    clips = legacy_clips(pts, pts[-1] + 1 / fps)
    slow, fast, _ = legacy_slots(20)
    wanted = np.hstack([slow, fast]) / 30
    assert clips.members.shape == wanted.shape and clips.own.all()
    assert np.abs(pts[clips.members] - 1.4 - wanted).max() <= max(1 / fps, 1 / 60)
    np.testing.assert_array_equal(clips.start, clips.members[:, 1])
    assert (np.diff(clips.start) > 0).all()
    if fps in (30.0, 60.0):
        np.testing.assert_array_equal(clips.members * (30 / fps), np.hstack([slow, fast]))


@pytest.mark.parametrize("n", [1, 113])
def test_files_have_the_layout_of_the_service_and_say_that_they_are_a_legacy(tmp_path: Path, n: int) -> None:
    features = np.random.default_rng(n).random((n, 2304), np.float32)
    vectors = Vectors(
        video="_T3uHSwRgdU.mp4",
        features=features,
        start_seconds=np.arange(n) / 2,
        end_seconds=np.arange(n) / 2 + 2,
        frames=np.zeros((n, 5), np.int64),
        valid=np.ones(n, np.float32),
        facts={"model": "slowfast_r50_16x8_ssv2"},
    )
    intervals = legacy_slots(59)[2]
    path = write_legacy(vectors, intervals, tmp_path / "output_vecs", stem="_T3uHSwRgdU")
    assert path.name == "output_latent_vec__T3uHSwRgdU.pk"
    with open(path, "rb") as file:
        stored = pickle.load(file)
    (entry,) = stored.values()
    assert list(stored) == ["_T3uHSwRgdU"] and set(entry) == {"features", "intervals"}
    assert entry["features"].dtype == torch.float32 and entry["features"].shape == (n, 1, 1, 1, 1, 2304)
    np.testing.assert_array_equal(entry["features"].numpy().reshape(n, -1), features)
    assert entry["intervals"].dtype == np.float64 and entry["intervals"].shape == (117, 2)
    facts = json.loads(path.with_suffix(".json").read_text())
    assert "latent-vectors service" in facts["legacy"] and facts["model"] == "slowfast_r50_16x8_ssv2"
    assert len(list(path.parent.iterdir())) == 2

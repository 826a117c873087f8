"""When frames were on screen: as the index says, as the stored frames say, or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from films import write_film
from maps_run import bump, maps_run

from streamsal.errors import MissingInput
from streamsal.gaze.clock import Clock
from streamsal.index import index_video
from streamsal.merge import open_run
from streamsal.prepare import index_path


def flat(n: int) -> np.ndarray:
    return bump(n, 24, 40, np.full(n, 20), np.full(n, 12))


def test_without_an_index_the_stored_frames_are_the_film(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(6)}, first_seconds=3.0)) as run:
        clock = Clock.of(run.folder, run["a.mp4"])
    assert clock.frame.tolist() == [0, 1, 2, 3, 4, 5]
    np.testing.assert_allclose(clock.end_seconds - clock.pts_seconds, 0.04)


def test_every_fifth_frame_is_shown_for_a_fifth_of_the_time(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(3)}, every=5)) as run:
        clock = Clock.of(run.folder, run["a.mp4"])
    np.testing.assert_allclose(clock.pts_seconds, [0, 0.2, 0.4])
    np.testing.assert_allclose(clock.end_seconds, [0.04, 0.24, 0.44])


def test_the_index_knows_frames_that_the_run_does_not_hold(tmp_path: Path) -> None:
    path = maps_run(tmp_path / "r", {"a.mp4": flat(3)}, every=5)
    index = index_video(write_film(tmp_path / "a.mp4", 15))
    index_path(path, "a.mp4").parent.mkdir()
    index.save(index_path(path, "a.mp4"))
    with open_run(path) as run:
        clock = Clock.of(run.folder, run["a.mp4"])
    assert len(clock.frame) == 15 and clock.pts_seconds[-1] == pytest.approx(clock.pts_seconds[0] + 14 / 25)


def test_who_begins_later_and_has_no_index_does_not_know_when_the_film_began(tmp_path: Path) -> None:
    with open_run(maps_run(tmp_path / "r", {"a.mp4": flat(3)})) as run:
        maps = run["a.mp4"]
        maps.frame = maps.frame + 10
        with pytest.raises(MissingInput, match=r"tells when a\.mp4 begins"):
            Clock.of(run.folder, maps)

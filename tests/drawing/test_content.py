"""What can be shown together, and what is refused in one sentence."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from painting import gaze_of
from talk import make_run, write_talk

from streamsal.drawing.content import content_of, index_of, opened
from streamsal.drawing.shown_maps import Densities, Differences, GazeDensities
from streamsal.errors import UsageError
from streamsal.merge import Run, open_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("content")
    talk = write_talk(folder / "talk.mp4", 8)
    make_run(talk, folder / "run")
    make_run(talk, folder / "other")
    make_run(write_talk(folder / "lecture.mp4", 9), folder / "lecture")
    (folder / "gaze.csv").write_text("subject,t_seconds,x_px,y_px,duration_s\na,0.1,40,30,0.2\nb,0.2,90,50,0.2\n")
    return open_run(folder / "run")


def test_content_can_be_sent_to_another_process_which_opens_it(run: Run) -> None:
    index = index_of(run, "talk.mp4")
    gaze = run.path.parent / "gaze.csv"
    wanted = {
        Densities: {},
        Differences: {"compare": run.path.parent / "other"},
        GazeDensities: {"gaze": gaze, "gaze_density": "9px"},
    }
    for kind, wish in wanted.items():
        content = pickle.loads(pickle.dumps(content_of(run, "talk.mp4", index, **wish)))
        with opened(content) as (_, shown):
            assert type(shown) is kind
            assert np.isfinite(shown.at(3)).all()


def test_two_runs_of_one_model_are_named_after_their_folders(run: Run) -> None:
    content = content_of(run, "talk.mp4", index_of(run, "talk.mp4"), compare=run.path.parent / "other")
    assert content.difference_of == ("run", "other")


def test_runs_of_other_videos_are_refused(run: Run) -> None:
    with pytest.raises(UsageError, match=r"lecture is of other videos \(lecture.mp4\): compare runs of talk.mp4"):
        content_of(run, "talk.mp4", index_of(run, "talk.mp4"), compare=run.path.parent / "lecture")


@pytest.mark.parametrize(
    ("wish", "said"),
    [
        ({"gaze_density": "9px"}, "--gaze"),
        ({"gaze_density": "9px", "gaze": gaze_of(("a", 0, 1, 1, 1)), "compare": "x"}, "leave one of them out"),
        ({"gaze_density": "9", "gaze": gaze_of(("a", 0, 1, 1, 1))}, "35px or 1deg"),
        ({"gaze_density": "0px", "gaze": gaze_of(("a", 0, 1, 1, 1))}, "35px or 1deg"),
        ({"gaze_density": "1deg", "gaze": gaze_of(("a", 0, 1, 1, 1))}, "--px-per-degree"),
    ],
)
def test_what_cannot_be_shown_is_said_in_one_sentence(run: Run, wish: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        content_of(run, "talk.mp4", index_of(run, "talk.mp4"), **wish)


def test_a_video_without_gaze_is_shown_and_noted(run: Run) -> None:
    notes: list[str] = []
    gaze = gaze_of(("a", 0, 1, 1, 1)).of("another.mp4")
    content = content_of(run, "talk.mp4", index_of(run, "talk.mp4"), gaze=gaze, note=notes.append)
    assert content.track is not None and notes == ["there is no gaze on talk.mp4"]

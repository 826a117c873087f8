"""From what a user types to a plan: which files, which frames, how many tasks, and who writes the plan."""

from __future__ import annotations

import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from films import write_film
from program import SPEC_ONLY, end, start

from streamsal.errors import MissingInput, PlanMismatch, StreamsalError, UsageError, VideoError
from streamsal.index import VideoIndex, index_video
from streamsal.models import spec_of
from streamsal.prepare import (
    Request,
    auto_batch_size,
    checked_index,
    find_videos,
    frame_at,
    index_path,
    make_plan,
    model_scale,
    plan_video,
    video_names,
)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", 50)


@pytest.fixture(scope="module")
def index(film: Path) -> VideoIndex:
    return index_video(film)


@pytest.mark.parametrize(
    ("position", "frame"),
    [
        (0, 0),
        (12, 12),
        ("12", 12),
        ("0.48s", 12),
        ("0.5s", 13),
        ("0:00.48", 12),
        ("00:00:01.2", 30),
        (99, 50),
        ("2s", 50),
    ],
)
def test_positions_name_the_first_frame_at_or_after_them(index: VideoIndex, position: int | str, frame: int) -> None:
    assert frame_at(index, position, "film") == frame


def test_times_count_from_the_first_frame(index: VideoIndex) -> None:
    late = replace(index, pts_seconds=index.pts_seconds + 100)
    assert frame_at(late, "1s", "film") == 25


@pytest.mark.parametrize("position", ["", "-1", "1.5", "12f", "1:2:3:4", "ten"])
def test_no_positions(index: VideoIndex, position: str) -> None:
    with pytest.raises(UsageError, match=r"frame \(120\), seconds \(4.8s\) or a time"):
        frame_at(index, position, "film")


def test_an_empty_selection_is_refused(index: VideoIndex) -> None:
    with pytest.raises(UsageError, match="film: no frame from 30 to 20; the video has frames 0 to 49"):
        plan_video(index, name="film", spec=spec_of("uniform"), start=30, stop=20)
    with pytest.raises(UsageError, match="film: no frame from 50 to the end"):
        plan_video(index, name="film", spec=spec_of("uniform"), start=50)


def test_scale_of_the_model(index: VideoIndex) -> None:
    any_scale, trained = spec_of("uniform"), replace(spec_of("uniform"), px_per_degree=20.0)
    assert model_scale(64, 96, any_scale, 48, None) == 0.5
    assert model_scale(64, 96, any_scale, 500, None) == 1.0
    assert model_scale(64, 96, trained, None, 40.0) == 0.5
    with pytest.raises(UsageError, match="--long-side"):
        model_scale(64, 96, any_scale, None, 40.0)
    video = plan_video(index, name="film", spec=any_scale, long_side=48)
    assert (video.height, video.width, video.model_height, video.model_width) == (64, 96, 32, 48)


def test_requests_that_make_no_sense() -> None:
    for wrong in ({"tasks": 0}, {"every": 0}, {"batch_size": 0}, {"long_side": -1}, {"px_per_degree": 0.0}):
        with pytest.raises(UsageError, match=f"--{next(iter(wrong)).replace('_', '-')}"):
            Request(**wrong)
    with pytest.raises(UsageError, match="one of them"):
        Request(long_side=100, px_per_degree=30.0)


def test_auto_batch_size_fits_48_mebibytes(index: VideoIndex) -> None:
    video = plan_video(index, name="film", spec=spec_of("uniform"))
    sizes = {size: auto_batch_size(replace(video, height=size[0], width=size[1])) for size in [(64, 96), (1080, 1920)]}
    assert sizes == {(64, 96): 32, (1080, 1920): 8}
    assert auto_batch_size(replace(video, height=8000, width=8000)) == 1


def test_find_videos(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in (
        "b.mp4",
        "a.MKV",
        "notes.txt",
        ".hidden.mp4",
        "sub/c.webm",
        "old.streamsal/side.mp4",
        "odd[1]",
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    everything = [Path(name) for name in ("a.MKV", "b.mp4", "sub/c.webm")]
    assert find_videos(["."]) == everything
    assert find_videos(["b.mp4", ".", "b.mp4"]) == [Path("b.mp4"), Path("a.MKV"), Path("sub/c.webm")]
    assert find_videos(["*.mp4"]) == [Path("b.mp4")]
    assert find_videos(["**/*.webm"]) == [Path("sub/c.webm")]
    assert find_videos(["notes.txt"]) == [Path("notes.txt")]  # named outright, it is for the index to refuse
    assert find_videos(["odd[1]"]) == [Path("odd[1]")]
    Path("list.txt").write_text("# these\nb.mp4\n\nsub\n")
    assert find_videos(["@list.txt"]) == [Path("b.mp4"), Path("sub/c.webm")]
    Path("empty").mkdir()
    for missing in ("no.mp4", "*.avi", "@no.txt", "empty"):
        with pytest.raises(MissingInput, match=missing.strip("@*.")):
            find_videos([missing])


def test_names_are_paths_below_the_common_folder() -> None:
    assert video_names([Path("/a/b/film.mp4")]) == ["film.mp4"]
    assert video_names([Path("/a/day1/cam.mp4"), Path("/a/day2/cam.mp4")]) == ["day1__cam.mp4", "day2__cam.mp4"]
    assert video_names([Path("/a/x.mp4"), Path("/a/b/c/x.mp4")]) == ["x.mp4", "b__c__x.mp4"]
    with pytest.raises(UsageError, match="twice"):
        video_names([Path("/a/x.mp4"), Path("/a/x.mp4")])
    with pytest.raises(UsageError, match="same name"):
        video_names([Path("/a/b/x.mp4"), Path("/a/b__x.mp4")])


def test_the_number_of_tasks_is_the_plan_s_unless_asked(film: Path, tmp_path: Path) -> None:
    first = make_plan([film], tmp_path / "r", Request(model="uniform", tasks=3))
    assert len(first.shards) == 3
    assert make_plan([film], tmp_path / "r", Request(model="uniform")) == first
    assert make_plan([film], tmp_path / "r", Request(model="uniform", tasks=3)) == first
    with pytest.raises(PlanMismatch, match="3 tasks in the plan, 4 now"):
        make_plan([film], tmp_path / "r", Request(model="uniform", tasks=4))
    assert len(make_plan([film], tmp_path / "s", Request(model="uniform")).shards) == 1


def test_a_moved_video_is_the_same_and_an_edited_one_is_not(film: Path, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    copy = Path(shutil.copy(film, tmp_path / "b" / "film.mp4"))
    plan = make_plan([film], tmp_path / "r", Request(model="uniform"))
    assert make_plan([copy], tmp_path / "r", Request(model="uniform")).id == plan.id
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(PlanMismatch, match=r"film\.mp4 has changed"):
        make_plan([copy], tmp_path / "r", Request(model="uniform"))


def test_an_index_left_by_an_earlier_attempt_is_of_use_only_for_its_video(film: Path, tmp_path: Path) -> None:
    other = write_film(tmp_path / "film.mp4", 20)
    (tmp_path / "r" / "index").mkdir(parents=True)
    index_video(film).save(index_path(tmp_path / "r", "film.mp4"))
    plan = make_plan([other], tmp_path / "r", Request(model="uniform"))
    assert plan.videos[0].n_frames == 20
    assert checked_index(tmp_path / "r", plan.videos[0]).n_frames == 20
    index_video(film).save(index_path(tmp_path / "r", "film.mp4"))
    with pytest.raises(PlanMismatch, match=r"film\.mp4"):
        checked_index(tmp_path / "r", plan.videos[0])


def test_a_lost_index_is_made_again_for_the_same_video_alone(film: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copy(film, tmp_path))
    plan = make_plan([copy], tmp_path / "r", Request(model="uniform"))
    index_path(tmp_path / "r", "film.mp4").unlink()
    write_film(copy, 20)
    with pytest.raises(PlanMismatch, match=r"film\.mp4 has changed"):
        make_plan([copy], tmp_path / "r", Request(model="uniform"))
    assert not index_path(tmp_path / "r", "film.mp4").exists()
    shutil.copy(film, tmp_path)
    assert make_plan([copy], tmp_path / "r", Request(model="uniform")) == plan
    assert checked_index(tmp_path / "r", plan.videos[0]).n_frames == 50


def test_what_is_no_video_is_reported_and_the_rest_is_planned(film: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.mp4"
    bad.write_text("no film")
    rejected: list[StreamsalError] = []
    plan = make_plan([film, bad], tmp_path / "r", Request(model="uniform"), on_rejected=rejected.append)
    assert [Path(video.path) for video in plan.videos] == [film]
    assert len(rejected) == 1 and isinstance(rejected[0], VideoError) and "bad.mp4" in str(rejected[0])
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        make_plan([bad], tmp_path / "s", Request(model="uniform"), on_rejected=rejected.append)
    with pytest.raises(VideoError, match=r"bad\.mp4"):
        make_plan([film, bad], tmp_path / "t", Request(model="uniform"))
    assert not (tmp_path / "t" / "plan.json").exists()


def test_a_wrong_model_is_refused_before_the_video_is_read(tmp_path: Path) -> None:
    for wrong in ({"model": "unifrom"}, {"weights": "w.pt"}, {"options": {"sharpness": 1}}):
        with pytest.raises(UsageError):
            make_plan([tmp_path / "no.mp4"], tmp_path / "r", Request(**{"model": "uniform", **wrong}))


def test_threads_that_plan_at_once_agree(film: Path, tmp_path: Path) -> None:
    said: list[str] = []
    ids: list[str] = []

    def plan() -> None:
        made = make_plan([film], tmp_path / "r", Request(model="uniform", tasks=2), say=said.append)
        ids.append(made.id)

    threads = [threading.Thread(target=plan) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ids) == 8 and len(set(ids)) == 1
    assert len(said) == 1  # one has indexed the video


def test_processes_that_start_at_once_plan_once(film: Path, tmp_path: Path) -> None:
    command = ("plan", film, "--model", SPEC_ONLY, "--tasks", "4", "-o", tmp_path / "r")
    planners = [start(*command) for _ in range(8)]
    said = [end(planner, 0) for planner in planners]
    assert len({out for out, _ in said}) == 1
    assert sum("50 frames" in err for _, err in said) == 1  # one has indexed the video
    assert sorted(os.listdir(tmp_path / "r")) == [".plan.lock", "index", "plan.json"]


def test_high_dynamic_range_is_said(corpus, tmp_path: Path) -> None:
    said: list[str] = []
    for name in ("hevc_2020_10bit", "h264_709"):
        make_plan([corpus.path(name)], tmp_path / name, Request(model="uniform"), say=said.append)
    assert [line for line in said if "not tone mapped" in line and "PQ" in line] == [said[0]]

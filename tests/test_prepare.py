"""From what a user types to a plan: which files, which frames, how many tasks, and who writes the plan."""

from __future__ import annotations

import inspect
import os
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from films import write_film
from program import SPEC_ONLY, end, start

from streamsal import cli
from streamsal.engine import stream
from streamsal.errors import (
    BadInput,
    MissingInput,
    MissingWeights,
    PlanMismatch,
    StreamsalError,
    UsageError,
    VideoError,
)
from streamsal.index import VideoIndex, index_video
from streamsal.models import DEFAULT_MODEL, spec_of
from streamsal.plan import Plan, PlannedModel, PlannedVideo, Settings
from streamsal.prepare import (
    Request,
    auto_batch_size,
    check_model,
    checked_index,
    find_videos,
    frame_at,
    index_path,
    make_plan,
    model_scale,
    plan_video,
    say_doubts,
    video_names,
)
from streamsal.timing import Clip
from streamsal.weights.cache import SYNTHETIC_SHA256, file_sha256


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


def test_auto_batch_size_fits_48_mebibytes_and_the_longest_video(index: VideoIndex) -> None:
    spec = spec_of("uniform")
    video = replace(plan_video(index, name="film", spec=spec), n_frames=1000, start=0, stop=1000)
    sizes = {n: auto_batch_size([replace(video, height=n, width=n)], spec) for n in (64, 1440, 2200, 8000)}
    assert sizes == {64: 32, 1440: 8, 2200: 2, 8000: 1}
    lengths = {n: auto_batch_size([replace(video, height=64, width=64, stop=n)], spec) for n in (1, 2, 5, 8, 20, 500)}
    assert lengths == {1: 1, 2: 2, 5: 8, 8: 8, 20: 32, 500: 32}
    assert auto_batch_size([replace(video, stop=3), replace(video, stop=30)], spec) == 32
    assert auto_batch_size([replace(video, start=40, stop=42, past=15)], spec) == 32  # it has to see 17


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


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No weights on this machine, and no network to get them from."""
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("STREAMSAL_OFFLINE", "1")
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


def template(path: Path, value: float = -3.0) -> Path:
    np.save(path, np.full((8, 8), value, np.float32))
    return path


def checkpoint(path: Path) -> Path:
    """Enough of one for a plan, which does not look inside."""
    torch.save({"weight": torch.zeros(10)}, path)
    return path


def test_the_default_model_is_the_same_everywhere() -> None:
    typed = cli.parser().parse_args(["plan", "film.mp4"]).model
    assert typed == Request().model == DEFAULT_MODEL == inspect.signature(stream).parameters["model"].default


def test_everything_that_is_missing_is_said_at_once(film: Path, empty_cache: Path, tmp_path: Path) -> None:
    with pytest.raises(MissingWeights) as caught:
        make_plan([film], tmp_path / "r", Request())
    for line in ("fetch deepgaze_iie", "import deepgaze_iie FILE", "fetch centerbias_mit1003"):
        assert f"\n  streamsal weights {line}" in str(caught.value)
    assert not (tmp_path / "r").exists()
    checkpoint(empty_cache / "deepgaze2e.pth")
    with pytest.raises(MissingWeights, match=r"^centerbias_mit1003\.npy \(center bias of MIT1003\) is not on this"):
        make_plan([film], tmp_path / "r", Request())
    assert make_plan([film], tmp_path / "r", Request(options={"center_bias": "uniform"})).model.center_bias == ""


def test_a_plan_names_weights_and_center_bias_by_path_and_checksum(
    film: Path, empty_cache: Path, tmp_path: Path
) -> None:
    weights, bias = checkpoint(empty_cache / "deepgaze2e.pth"), template(empty_cache / "centerbias_mit1003.npy")
    model = make_plan([film], tmp_path / "r", Request()).model
    assert (model.weights, model.center_bias) == (str(weights), str(bias))
    assert (model.sha256, model.center_bias_sha256) == (file_sha256(weights), file_sha256(bias))
    check_model(model)
    moved = Path(shutil.move(bias, tmp_path / "bias.npy"))
    with pytest.raises(MissingWeights):
        check_model(model)
    assert make_plan([film], tmp_path / "s", Request(options={"center_bias": str(moved)})).model.options == {
        "center_bias": str(moved)
    }
    (empty_cache / "centerbias_mit1003.npy.json").unlink()
    template(bias, -4.0)
    with pytest.raises(PlanMismatch, match=r"centerbias_mit1003\.npy has changed since the plan was made"):
        check_model(model)
    weights.unlink()
    with pytest.raises(MissingWeights, match="deepgaze2e"):
        check_model(model)


def test_where_weights_lie_does_not_make_another_plan(film: Path, empty_cache: Path, tmp_path: Path) -> None:
    asked = Request(weights=str(checkpoint(tmp_path / "w.pth")), options={"center_bias": "uniform"})
    plan = make_plan([film], tmp_path / "r", asked)
    shutil.copy(tmp_path / "w.pth", empty_cache / "deepgaze2e.pth")
    assert make_plan([film], tmp_path / "r", replace(asked, weights=None)).id == plan.id


def test_stand_in_weights_need_nothing_and_are_recorded_as_such(film: Path, empty_cache: Path, tmp_path: Path) -> None:
    plan = make_plan([film], tmp_path / "r", Request(weights="synthetic"))
    assert (plan.model.weights, plan.model.options) == ("synthetic", {"center_bias": "gaussian"})
    assert plan.model.sha256 == SYNTHETIC_SHA256
    check_model(plan.model)
    checkpoint(empty_cache / "deepgaze2e.pth")
    with pytest.raises(PlanMismatch, match="model sha256"):
        make_plan([film], tmp_path / "r", Request(options={"center_bias": "gaussian"}))
    assert make_plan([film], tmp_path / "u", Request(model="uniform")).model.weights == ""
    with pytest.raises(UsageError, match="uniform has no weights"):
        make_plan([film], tmp_path / "v", Request(model="uniform", weights="synthetic"))


@pytest.mark.parametrize(
    ("bias", "error", "said"),
    [
        ("mit", UsageError, "no center bias is named 'mit': give mit1003, "),
        ("none.npy", MissingInput, r"no center bias at .*none\.npy"),
        ("cube.npy", BadInput, r"cube\.npy holds float32 \(2, 2, 2\), but a center bias is one log density"),
        ("nan.npy", BadInput, r"nan\.npy holds NaN"),
        ("text.npy", BadInput, r"text\.npy is no \.npy file"),
    ],
)
def test_a_wrong_center_bias_is_one_sentence(
    film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bias: str, error: type[StreamsalError], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("cube.npy", np.zeros((2, 2, 2), np.float32))
    template(Path("nan.npy"), np.nan)
    Path("text.npy").write_text("no array")
    with pytest.raises(error, match=said) as caught:
        make_plan([film], tmp_path / "r", Request(weights="synthetic", options={"center_bias": bias}))
    assert "\n" not in str(caught.value) and not Path("r").exists()


def test_center_biases_are_for_models_that_take_one(film: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="sigmotion takes no --center-bias"):
        make_plan([film], tmp_path / "r", Request(model="sigmotion", options={"center_bias": "mit1003"}))
    none = make_plan([film], tmp_path / "s", Request(model="sigmotion", options={"center_bias": False}))
    assert none.model.options == {"center_bias": False}
    uniform = make_plan([film], tmp_path / "t", Request(weights="synthetic", options={"center_bias": False}))
    assert uniform.model.options == {"center_bias": "uniform"}


def test_frames_that_a_model_cannot_compute_are_refused(film: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UsageError, match=r"film\.mp4: frames of 60x40 px are too small for deepgaze_iie, which needs 6"
    ):
        make_plan([film], tmp_path / "r", Request(weights="synthetic", long_side=60))


def test_frames_off_the_scale_of_the_training_are_said_to_be(index: VideoIndex, tmp_path: Path) -> None:
    spec = replace(spec_of("uniform"), long_side=1024)
    said: list[str] = []
    video = plan_video(index, name="film.mp4", spec=spec)
    for width, settings in ((1280, {}), (1281, {}), (1920, {"long_side": 1280}), (1920, {"px_per_degree": 40.0})):
        plan = plan_of(replace(video, width=width, height=1080), **settings)
        say_doubts(plan, spec, said.append)
    assert said == [
        "film.mp4: 1281 px is more than uniform was trained at: --long-side 1024 is closer to that, and faster"
    ]


def plan_of(video: PlannedVideo, **settings: object) -> Plan:
    model = PlannedModel(name="uniform")
    return Plan(model=model, settings=Settings(**settings), batch_size=4, videos=(video,), shards=())


def test_auto_batch_size_leaves_the_model_2_gibibytes(index: VideoIndex) -> None:
    video = plan_video(index, name="film", spec=spec_of("uniform"))
    video = replace(video, n_frames=1000, start=0, stop=1000)
    large = replace(video, height=1080, width=1920, model_height=1080, model_width=1920)
    specs = {need: replace(spec_of("uniform"), bytes_per_px=need) for need in (0, 120, 200, 600, 1e4)}
    assert [auto_batch_size([large], spec) for spec in specs.values()] == [8, 8, 4, 1, 1]
    assert auto_batch_size([replace(large, model_height=540, model_width=960)], specs[600]) == 4
    clip = Clip(length=4, step=2, rate=30)
    clips = {need: replace(specs[0], clip=clip, bytes_per_clip=need) for need in (0, 5e8, 4e9)}
    assert [auto_batch_size([large], spec) for spec in clips.values()] == [8, 4, 1]


def test_what_is_not_for_commercial_use_is_refused_and_named(film: Path, tmp_path: Path) -> None:
    def plan(name: str, **asked: object) -> Plan:
        return make_plan([film], tmp_path / name, Request(commercial_only=True, **asked))

    refused = r"--commercial-only: deepgaze_iie needs deepgaze2e\.pth, whose licence is: none stated"
    with pytest.raises(UsageError, match=refused):
        plan("a")
    with pytest.raises(UsageError, match=refused):
        plan("b", weights=str(checkpoint(tmp_path / "mine.pth")), options={"center_bias": "uniform"})
    with pytest.raises(UsageError, match=r"needs centerbias_mit1003\.npy"):
        plan("c", weights="synthetic", options={"center_bias": "mit1003"})
    assert plan("d", weights="synthetic").model.name == "deepgaze_iie"
    assert plan("e", model="sigmotion").model.name == "sigmotion"

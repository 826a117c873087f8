"""Which frames make which clip: the arithmetic, and that the engine shows a model exactly these, however divided."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from films import destroy_packets, write_film
from hypothesis import given
from hypothesis import strategies as st
from program import TELLCLIP

import streamsal
from streamsal.clips import (
    FrameTimes,
    clips_of,
    linspace_float32,
    member_offsets,
    nominal_rate,
    protocol_members,
)
from streamsal.errors import PlanMismatch, Stopped, UsageError
from streamsal.maps import Maps
from streamsal.merge import merge, open_run
from streamsal.prepare import Request, make_plan
from streamsal.task import infer
from streamsal.timing import Clip, Timing

FIXTURES = Path(__file__).parent / "fixtures" / "embeddings"
CLIP = Clip(length=5, step=3, rate=25.0)  # a window of 15 frames at 25 per second: 0, 3, 7, 10, 14
N_FRAMES = 100


def at_rate(n_frames: int, frame_rate: float = 25.0) -> FrameTimes:
    return FrameTimes(pts_seconds=np.arange(n_frames) / frame_rate, frame_rate=frame_rate)


def test_views_of_the_official_test() -> None:
    cases = json.loads((FIXTURES / "clip_sampling.json").read_text())["cases"]
    assert len(cases) == 241
    for case in cases:
        clip = Clip(length=case["num_frames"], step=case["sampling_rate"], rate=case["target_fps"])
        views = {"view": case["clip_idx"], "views": case["num_clips"], "by_frame": case["use_offset"]}
        found = protocol_members(case["n_frames"], case["fps"], clip, **views)
        assert found.tolist() == case["indices"], case


@given(st.floats(0, 1e6), st.floats(1, 500), st.integers(1, 130))
def test_spaced_numbers_are_those_of_torch_to_a_rounding(start: float, length: float, n: int) -> None:
    ours, theirs = linspace_float32(start, start + length, n), torch.linspace(start, start + length, n).numpy()
    assert np.all(np.abs(ours - theirs) <= 2 * np.spacing(np.abs(theirs)))


@pytest.mark.parametrize("rate", [15.0, 24.0, 24 / 1.001, 25.0, 30 / 1.001, 30.0, 50.0, 60 / 1.001, 60.0])
@pytest.mark.parametrize(
    ("length", "step"), [(4, 12), (4, 16), (8, 8), (13, 6), (16, 4), (16, 5), (32, 2), (32, 3), (64, 2)]
)
def test_members_are_those_that_torch_would_name(length: int, step: int, rate: float) -> None:
    window = step * length * rate / 30
    theirs = torch.linspace(0, window - 1, length).long().tolist()
    offsets = member_offsets(Clip(length=length, step=step, rate=30), rate, "pyslowfast")
    assert offsets.astype(int).tolist() == theirs


@given(
    n_frames=st.integers(1, 400),
    rate=st.sampled_from([10.0, 24000 / 1001, 25.0, 30000 / 1001, 60.0]),
    stride=st.sampled_from(["1", "7", "40", "0.2s", "0.5s", "3s"]),
    tail=st.sampled_from(["shift", "clamp", "drop"]),
    sampling=st.sampled_from(["pyslowfast", "strided"]),
)
def test_laws_of_the_table(n_frames: int, rate: float, stride: str, tail: str, sampling: str) -> None:
    timing = Timing(stride=stride, tail=tail, sampling=sampling)  # type: ignore[arg-type]
    clips = clips_of(at_rate(n_frames, rate), CLIP, timing)
    offsets = clips.members - clips.start[:, None]
    assert np.all(np.diff(clips.start) > 0) and np.all(np.diff(clips.members) >= 0)
    assert np.all((clips.members >= 0) & (clips.members < n_frames))
    whole = clips.own.all(1)
    assert len({tuple(row) for row in offsets[whole].tolist()}) <= 1  # a clip does not depend on where it lies
    if tail == "drop":
        assert whole.all()
    else:
        assert clips.start[0] == 0
    if tail == "shift":
        assert clips.members[-1, -1] == n_frames - 1 and (whole.all() or len(clips) == 1)
    assert np.all(clips.members[~clips.own] == n_frames - 1)


def test_a_window_and_what_each_tail_makes_of_the_end() -> None:
    assert member_offsets(CLIP, 25, "pyslowfast").astype(int).tolist() == [0, 3, 7, 10, 14]
    assert member_offsets(CLIP, 25, "strided").astype(int).tolist() == [0, 3, 6, 9, 12]
    assert member_offsets(CLIP, 50, "strided").astype(int).tolist() == [0, 6, 12, 18, 24]
    starts = {
        tail: clips_of(at_rate(33), CLIP, Timing(stride="10", tail=tail)).start.tolist()  # type: ignore[arg-type]
        for tail in ("shift", "clamp", "drop")
    }
    assert starts == {"shift": [0, 10, 18], "clamp": [0, 10, 20, 30], "drop": [0, 10]}
    assert clips_of(at_rate(35), CLIP, Timing(stride="10")).start.tolist() == [0, 10, 20]
    assert clips_of(at_rate(4), CLIP, Timing()).members.tolist() == [[0, 3, 3, 3, 3]]
    assert len(clips_of(at_rate(4), CLIP, Timing(tail="drop"))) == 0
    assert clips_of(at_rate(1), CLIP, Timing()).own.tolist() == [[True, False, False, False, False]]


def test_a_stride_in_seconds_keeps_time_for_hours() -> None:
    rate = 30000 / 1001
    clips = clips_of(at_rate(2 * 3600 * 30, rate), CLIP, Timing(stride="0.5s"))
    assert np.all(np.abs(clips.start[:-1] / rate - 0.5 * np.arange(len(clips) - 1)) < 1 / rate)


def test_rates_are_read_through_the_rounding_of_time_stamps() -> None:
    assert nominal_rate(29.9698) == nominal_rate(29.97) == 30 / 1.001
    assert nominal_rate(30.001) == 30 and nominal_rate(25.0004) == 25
    assert nominal_rate(12.3456) == 12.3456


def test_where_frames_last_differently_long_members_are_those_on_screen() -> None:
    pts = np.cumsum([0, *[0.04] * 20, *[0.08] * 20])  # 25 frames per second, then 12.5
    video = FrameTimes(pts_seconds=pts, frame_rate=len(pts) / pts[-1], variable=True)
    clips = clips_of(video, Clip(length=3, step=10, rate=25), Timing(stride="0.4s", sampling="strided"))
    assert clips.members[:3].tolist() == [[0, 10, 20], [10, 20, 25], [20, 25, 30]]
    assert clips.start[-1] == 30 and clips.members[-1].tolist() == [30, 35, 40]
    steady = at_rate(200)
    by_time = FrameTimes(pts_seconds=steady.pts_seconds, frame_rate=25.0, variable=True)
    assert np.array_equal(clips_of(steady, CLIP, Timing()).members, clips_of(by_time, CLIP, Timing()).members)


@pytest.mark.parametrize("stride", ["", "0", "0s", "-1", "half", "1.5"])
def test_strides_that_are_none(stride: str) -> None:
    with pytest.raises(UsageError, match="is no stride"):
        Timing(stride=stride)


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_film(tmp_path_factory.mktemp("film") / "film.mp4", N_FRAMES)


def computed(film: Path, folder: Path, tasks: int, **request: object) -> Maps:
    """The film as so many tasks, the last first."""
    plan = make_plan([film], folder, Request(tasks=tasks, **{"model": TELLCLIP, "batch_size": 4, **request}))
    for task in reversed(range(len(plan.shards))):
        infer(folder, task)
    return open_run(folder)[film.name]


def seen(maps: Maps) -> dict[int, list[int]]:
    return {int(frame): maps.output("features", int(frame)).astype(int).tolist() for frame in maps.frame}


def expected(stride: str = "0.2s", tail: str = "shift") -> dict[int, list[int]]:
    clips = clips_of(at_rate(N_FRAMES), CLIP, Timing(stride=stride, tail=tail))  # type: ignore[arg-type]
    return dict(zip(clips.start.tolist(), clips.members.tolist(), strict=True))


@pytest.mark.parametrize("tasks", [1, 2, 7, 40])
def test_every_clip_is_shown_its_members_however_the_work_is_divided(film: Path, tmp_path: Path, tasks: int) -> None:
    maps = computed(film, tmp_path / "r", tasks, timing=Timing(stride="0.2s"))
    assert seen(maps) == expected()
    assert np.all(maps.scalar("valid") == 1)
    assert np.array_equal(maps.pts_seconds, maps.frame / 25)


def test_only_clips_that_start_in_the_range(film: Path, tmp_path: Path) -> None:
    maps = computed(film, tmp_path / "r", 3, timing=Timing(stride="0.2s"), start="1s", stop=60)
    assert seen(maps) == {start: members for start, members in expected().items() if 25 <= start < 60}


def test_a_frame_is_decoded_and_prepared_once_whatever_the_overlap(film: Path) -> None:
    model = streamsal.create_model(TELLCLIP)
    rows = [
        chunk.values["features"].tolist() for chunk in streamsal.stream(film, model=model, timing=Timing(stride="1"))
    ]
    assert sum(map(len, rows)) == N_FRAMES - 14
    assert model.n_prepared == N_FRAMES  # type: ignore[attr-defined]


def test_memory_holds_the_frames_of_one_batch(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from streamsal import batches

    kept: list[int] = []
    assemble = batches._clip_batch
    monkeypatch.setattr(batches, "_clip_batch", lambda *a: kept.append(len(a[3])) or assemble(*a))
    for _ in streamsal.stream(film, model=TELLCLIP, timing=Timing(stride="1"), batch_size=2):
        pass
    assert max(kept) <= 15 + 1


def test_a_stopped_task_goes_on_behind_its_last_clip(film: Path, tmp_path: Path) -> None:
    make_plan([film], tmp_path / "r", Request(model=TELLCLIP, batch_size=4, timing=Timing(stride="0.2s")))
    stops = 0
    while True:
        try:
            infer(tmp_path / "r", 0, stop=lambda: "SIGTERM")
            break
        except Stopped:
            stops += 1
    assert stops > 2
    merge(tmp_path / "r", materialise=True)
    assert seen(open_run(tmp_path / "r")[film.name]) == expected()


def test_holes_are_seen_as_neighbors_and_counted_out_of_valid(tmp_path: Path) -> None:
    film = destroyed = write_film(tmp_path / "film.mov", 60, codec="mjpeg")
    destroy_packets(destroyed, [7, *range(20, 55)])
    maps = computed(film, tmp_path / "r", 2, timing=Timing(stride="10"))
    assert maps.output("features", 0).tolist() == [0, 3, 6, 10, 14]  # the picture before it stands in for 7
    assert maps.scalar("valid")[0] == np.float32(0.8)
    assert maps.frame[maps.status == 2].tolist() == [20, 30, 40] and np.isnan(maps.output("features", 30)).all()


def test_a_plan_with_other_clips_is_another(film: Path, tmp_path: Path) -> None:
    make_plan([film], tmp_path / "r", Request(model=TELLCLIP, timing=Timing(stride="0.2s")))
    with pytest.raises(PlanMismatch, match="stride"):
        make_plan([film], tmp_path / "r", Request(model=TELLCLIP, timing=Timing(stride="0.4s")))


@pytest.mark.parametrize("asked", [{"every": 2}, {"long_side": 64}])
def test_what_has_no_meaning_for_clips_is_refused(film: Path, tmp_path: Path, asked: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="tellclip takes clips"):
        make_plan([film], tmp_path / "r", Request(model=TELLCLIP, **asked))  # type: ignore[arg-type]

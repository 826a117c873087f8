"""Arithmetic of plans: what must hold for any videos, windows, batch sizes and numbers of tasks."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from streamsal.errors import MissingInput, PlanMismatch
from streamsal.plan import (
    Grid,
    Part,
    Plan,
    PlannedModel,
    PlannedVideo,
    Selection,
    Settings,
    array_spec,
    counted,
    cut,
    differences,
    tasks_named,
)

sizes = st.tuples(st.integers(1, 2000), st.integers(1, 2000))


@st.composite
def videos(draw: st.DrawFn, number: int = 0) -> PlannedVideo:
    n_frames = draw(st.integers(1, 500))
    start = draw(st.integers(0, n_frames))
    stop = draw(st.integers(start, n_frames))
    height, width = draw(sizes)
    return PlannedVideo(
        name=f"v{number}.mp4",
        path=f"/videos/v{number}.mp4",
        size=1,
        mtime_ns=1,
        fingerprint=f"{number:016x}",
        stream=0,
        n_frames=n_frames,
        frame_rate=25.0,
        height=height,
        width=width,
        model_height=height,
        model_width=width,
        start=start,
        stop=stop,
        every=draw(st.integers(1, 40)),
        past=draw(st.integers(0, 20)),
        future=draw(st.integers(0, 20)),
    )


lists = st.integers(1, 4).flatmap(lambda n: st.tuples(*(videos(i) for i in range(n))))


def plan_of(planned: tuple[PlannedVideo, ...], n_shards: int = 3, batch_size: int = 4, **settings: object) -> Plan:
    return Plan(
        model=PlannedModel(name="sigmotion"),
        settings=Settings(**settings),  # type: ignore[arg-type]
        batch_size=batch_size,
        videos=planned,
        shards=cut(planned, n_shards, batch_size),
        version="test",
    )


@given(lists, st.integers(1, 700), st.integers(1, 33))
@settings(max_examples=400, deadline=None)
def test_shards_tile_every_selected_frame_exactly_once_and_in_order(planned, n_shards, batch_size):
    shards = cut(planned, n_shards, batch_size)
    assert len(shards) == n_shards
    got = [(p.video, f) for shard in shards for p in shard for f in range(p.start, p.stop, planned[p.video].every)]
    assert got == [(i, f) for i, video in enumerate(planned) for f in video.selection.frames]


def test_a_video_that_begins_inside_a_batch_keeps_its_first_frames():
    video = plan_video(n_frames=2, start=1)
    assert cut((video,), 1, 2) == ((Part(video=0, start=1, stop=2),),)


@given(lists, st.integers(1, 50))
@settings(max_examples=200, deadline=None)
def test_a_shard_has_at_most_one_part_of_a_video_and_no_empty_part(planned, n_shards):
    for shard in cut(planned, n_shards, 4):
        assert len({part.video for part in shard}) == len(shard)
        assert all(part.start < part.stop for part in shard)


@given(videos(), st.integers(1, 33), st.data())
@settings(max_examples=400, deadline=None)
def test_a_shard_sees_the_whole_window_of_every_frame_it_owns(video, batch_size, data):
    grid, selection = video.grid(batch_size), video.selection
    low = data.draw(st.integers(0, len(selection.frames)))
    high = data.draw(st.integers(low, len(selection.frames)))
    start, stop = selection.border(low), selection.border(high)
    seen = [f for slots in grid.batches(start, stop) for f in slots.frames]
    assert seen == sorted(set(seen))
    needed = {
        f
        for owned in range(start, stop, video.every)
        for f in range(owned - video.past, owned + video.future + 1)
        if 0 <= f < video.n_frames
    }
    assert needed <= set(seen)
    assert all(0 <= f < video.n_frames for f in seen)
    if not grid.dense:
        assert needed == set(seen), "sparse sampling must not look at frames that no window holds"


@given(videos(), st.integers(1, 33), st.data())
@settings(max_examples=400, deadline=None)
def test_a_frame_is_in_the_same_slot_with_the_same_neighbors_in_every_shard(video, batch_size, data):
    grid, selection = video.grid(batch_size), video.selection
    low = data.draw(st.integers(0, len(selection.frames)))
    high = data.draw(st.integers(low, len(selection.frames)))

    def slots_of(start: int, stop: int) -> dict[int, tuple[int, int]]:
        found = {}
        for slots in grid.batches(start, stop):
            assert slots.present.stop - slots.present.start == len(slots.frames) <= batch_size
            for offset, frame in enumerate(slots.frames):
                found[frame] = slots.present.start + offset
        return found

    whole = slots_of(selection.start, selection.stop)
    assert slots_of(selection.border(low), selection.border(high)).items() <= whole.items()


def test_batches_begin_at_multiples_of_the_batch_size_wherever_a_shard_begins():
    grid = Grid(selection=Selection(start=0, stop=100), n_frames=100, batch_size=8, past=3)
    first, second, *_ = grid.batches(37, 60)
    assert (first.present, first.frames) == (slice(2, 8), (34, 35, 36, 37, 38, 39))
    assert (second.present, second.frames[0]) == (slice(0, 8), 40)


def test_sparse_sampling_sees_only_windows():
    grid = Grid(selection=Selection(start=0, stop=100, every=50), n_frames=100, batch_size=4, past=2)
    assert [slots.frames for slots in grid.batches(0, 100)] == [(0, 48), (49, 50)]


@given(st.integers(2, 64), st.integers(1, 32))
@settings(max_examples=200, deadline=None)
def test_shards_of_one_long_video_cost_about_the_same(n_shards, batch_size):
    video = plan_video(n_frames=100_000)
    counts = [sum(p.stop - p.start for p in shard) for shard in cut((video,), n_shards, batch_size)]
    assert max(counts) - min(counts) <= 2 * batch_size + 2 * 33


def plan_video(**changes: object) -> PlannedVideo:
    fields = dict(
        name="a.mp4", path="/v/a.mp4", size=10, mtime_ns=1, fingerprint="f", stream=0, n_frames=1000, frame_rate=25.0,
        height=36, width=64, model_height=36, model_width=64, start=0, stop=1000, every=1, past=0, future=0,
    )  # fmt: skip
    fields.update(changes)
    fields["stop"] = min(fields["stop"], fields["n_frames"]) if "stop" in changes else fields["n_frames"]  # type: ignore[type-var]
    return PlannedVideo(**fields)  # type: ignore[arg-type]


@pytest.mark.parametrize("n_frames, n_shards", [(120, 2), (120, 7), (3000, 100)])
def test_short_shards_are_even_too(n_frames, n_shards):
    counts = [sum(p.stop - p.start for p in shard) for shard in cut((plan_video(n_frames=n_frames),), n_shards, 32)]
    assert max(counts) - min(counts) <= 1


def test_many_short_videos_are_shared_out_evenly():
    shards = cut([plan_video(name=f"{i}.mp4", n_frames=20) for i in range(100)], 10, 8)
    assert [len(shard) for shard in shards] == [10] * 10


def test_long_shards_begin_where_a_batch_begins():
    shards = cut((plan_video(n_frames=10_000, past=16),), 7, 16)
    assert [part.start % 16 for shard in shards for part in shard] == [0] * 7


def test_a_large_frame_costs_more_than_a_small_one():
    small, large = (
        plan_video(name="s.mp4"),
        plan_video(name="l.mp4", height=720, width=1280, model_height=720, model_width=1280),
    )
    first, *_ = cut((small, large), 2, 1)
    assert first[0].video == 0 and first[1].video == 1 and first[1].stop > 400


def test_a_plan_survives_its_json(tmp_path):
    plan = plan_of((plan_video(), plan_video(name="b.mp4")), 5)
    plan.save(tmp_path / "plan.json")
    assert Plan.load(tmp_path / "plan.json") == plan


def test_an_edited_plan_is_refused(tmp_path):
    plan_of((plan_video(),)).save(tmp_path / "plan.json")
    content = json.loads((tmp_path / "plan.json").read_text())
    content["batch_size"] = 5
    (tmp_path / "plan.json").write_text(json.dumps(content))
    with pytest.raises(PlanMismatch, match="edited"):
        Plan.load(tmp_path / "plan.json")
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(PlanMismatch, match="not readable"):
        Plan.load(tmp_path / "plan.json")
    with pytest.raises(MissingInput, match="streamsal plan"):
        Plan.load(tmp_path / "elsewhere" / "plan.json")


def test_the_same_video_elsewhere_is_the_same_plan():
    here, there = plan_of((plan_video(),)), plan_of((plan_video(path="/scratch/a.mp4", mtime_ns=9),))
    assert here.id == there.id
    assert not differences(here, there, shards=True)


@pytest.mark.parametrize(
    "other, words",
    [
        (plan_of((plan_video(fingerprint="g", size=11),)), "a.mp4 has changed since it was planned"),
        (plan_of((plan_video(), plan_video(name="b.mp4"))), "b.mp4 is not in the plan"),
        (plan_of((plan_video(every=2),)), "every 1 in the plan, 2 now"),
        (plan_of((plan_video(),), long_side=100), "long side none in the plan, 100 now"),
        (plan_of((plan_video(),), batch_size=5), "batch size 4 in the plan, 5 now"),
        (plan_of((plan_video(),), 4), "3 tasks in the plan, 4 now"),
    ],
)
def test_what_differs_from_the_plan_is_said(other, words):
    found = differences(plan_of((plan_video(),)), other, shards=True)
    assert len(found) == 1 and words in found[0]


@pytest.mark.parametrize("ids, spec", [([], ""), ([3], "3"), ([3, 7], "3,7"), ([0, 1, 2, 7, 9, 8], "0-2,7-9")])
def test_missing_tasks_are_printed_as_an_array_spec(ids, spec):
    assert array_spec(ids) == spec


def test_one_task_is_not_tasks():
    assert [tasks_named(ids) for ids in ([3], [3, 4, 7])] == ["task 3", "tasks 3-4,7"]
    assert [counted(number, "task") for number in (0, 1, 2)] == ["0 tasks", "1 task", "2 tasks"]

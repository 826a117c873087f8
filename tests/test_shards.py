"""Which shards are whole, and which belong together."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from synthetic_run import CUTS, PRIOR, VIDEOS, make_plan, make_run, run_with_constants

from streamsal.errors import BadInput, IncompleteRun
from streamsal.merge import merge, open_run
from streamsal.plan import Plan
from streamsal.shards import Unfinished, read_shard, whole_shards
from streamsal.store import shard_path


def test_every_part_of_a_whole_run_is_found_once(talks: Path) -> None:
    plan = Plan.load(talks / "plan.json")
    parts = [part for shard in whole_shards(talks, plan).values() for part in shard.values()]
    for name, n_frames in VIDEOS.items():
        rows = np.concatenate([part.arrays["frame"] for part in parts if part.video == name])
        assert rows.tolist() == list(range(n_frames))
    assert list(whole_shards(talks, plan, video=1)) == [4, 5]


def test_why_a_shard_cannot_be_used_is_said(talks: Path) -> None:
    plan = Plan.load(talks / "plan.json")
    shard_path(talks, 0).unlink()
    shard_path(talks, 1).write_bytes(b"no HDF5")
    for number, reason in enumerate(("missing", "unreadable")):
        with pytest.raises(Unfinished, match=reason):
            read_shard(talks, number, plan)
    assert read_shard(talks, 2, plan)


def test_a_shard_of_another_plan_is_not_merged(talks: Path, tmp_path: Path) -> None:
    other = make_run(tmp_path / "b", make_plan(VIDEOS, CUTS, store_dtype="float32"))
    shutil.copy(shard_path(other, 3), shard_path(talks, 3))
    with pytest.raises(IncompleteRun, match=r"task 3 of .* is not done \(3: of another plan\)"):
        merge(talks)


def test_tasks_beyond_the_last_frame_are_not_missed(tmp_path: Path) -> None:
    plan = make_plan({"a.mp4": 2}, {"a.mp4": [1]})
    empty = Plan(
        **{**{f: getattr(plan, f) for f in ("model", "settings", "batch_size", "videos")}, "shards": (*plan.shards, ())}
    )
    run = make_run(tmp_path / "a.streamsal", empty, skip=(2,))
    assert list(open_run(run)["a.mp4"].frame) == [0, 1]
    assert len(merge(run)) == 1


def test_shards_computed_with_different_constants_are_not_merged(tmp_path: Path) -> None:
    run = run_with_constants(tmp_path, PRIOR, PRIOR, PRIOR + 1)
    with pytest.raises(BadInput, match=r"0002\.h5 was computed with another prior of a\.mp4 than .*0000\.h5"):
        merge(run)

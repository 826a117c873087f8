"""Videos on the machine's own disk: copied once, used when whole, checked as the original is."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from program import call

from streamsal.cluster import staging
from streamsal.cluster.staging import staged
from streamsal.plan import Plan, PlannedVideo


@pytest.fixture
def video(computed: Path) -> PlannedVideo:
    return Plan.load(computed / "film.streamsal" / "plan.json").videos[0]


def test_a_video_is_copied_once_whoever_asks(video: PlannedVideo, tmp_path: Path) -> None:
    copy = Path(staged(video, tmp_path / "scratch"))
    assert copy.suffix == ".mp4" and copy.read_bytes() == Path(video.path).read_bytes()
    made = copy.stat().st_mtime_ns
    assert staged(video, tmp_path / "scratch") == str(copy) and copy.stat().st_mtime_ns == made
    copy.write_bytes(b"cut off")
    assert Path(staged(video, tmp_path / "scratch")).stat().st_size == video.size


def test_a_video_that_does_not_fit_is_read_where_it_lies(
    video: PlannedVideo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "SHARE_OF_FREE_SPACE", 0.0)
    assert staged(video, tmp_path) == video.path
    assert not list(tmp_path.glob("*.mp4"))


def test_a_task_reads_the_copy_and_stores_the_same(computed: Path, tmp_path: Path) -> None:
    shutil.copytree(computed / "film.streamsal", tmp_path / "r", ignore=shutil.ignore_patterns("shards", "logs"))
    scratch = {"TMPDIR": str(tmp_path / "scratch")}
    (tmp_path / "scratch").mkdir()
    call("infer", tmp_path / "r", "--task-id", "1", "--stage", env=scratch)
    assert (tmp_path / "r/shards/0001.h5").read_bytes() == (computed / "film.streamsal/shards/0001.h5").read_bytes()
    (copy,) = (tmp_path / "scratch").glob("*.mp4")
    copy.write_bytes(bytes(copy.stat().st_size))
    _, err = call("infer", tmp_path / "r", "--task-id", "0", "--stage", env=scratch, code=65)
    assert str(copy) in err

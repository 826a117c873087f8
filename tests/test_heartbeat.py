"""The small files that a task tells of itself with: what survives a crash, a pause and a disk that takes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from streamsal.errors import WriteError
from streamsal.heartbeat import Log, read_heartbeat


def test_a_heartbeat_that_was_cut_off_counts_as_none(tmp_path: Path) -> None:
    log = Log(run=tmp_path, task=3)
    log.start(rows=10, done=0, holes=0, device="cpu")
    assert read_heartbeat(tmp_path, 3)
    path = tmp_path / "logs" / "0003.json"
    path.write_bytes(path.read_bytes()[:20])
    assert read_heartbeat(tmp_path, 3) is None


def test_heartbeats_are_not_written_at_every_block(tmp_path: Path) -> None:
    log = Log(run=tmp_path, task=0)
    log.start(rows=10, done=0, holes=0, device="cpu")
    log.beat(done=5)
    beat = read_heartbeat(tmp_path, 0)
    assert beat and beat["done"] == 0
    log.end("stopped", "by hand")
    beat = read_heartbeat(tmp_path, 0)
    assert beat and (beat["done"], beat["state"], beat["error"]) == (5, "stopped", "by hand")


def test_a_log_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(WriteError):
        Log(run=tmp_path / "file", task=0)
    log = Log(run=tmp_path, task=0)
    (tmp_path / "logs" / "0000.jsonl").mkdir()
    with pytest.raises(WriteError, match=r"0000\.jsonl"):
        log.event("start")
    log.end("failed", "the reason")  # best effort: the reason itself must reach the user

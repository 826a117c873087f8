"""What is left of a training's log is read, whatever happened to its end."""

from __future__ import annotations

from pathlib import Path

from streamsal.actions.log import read_log


def test_lines_that_were_cut_off_or_say_nothing_do_not_count(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    assert read_log(log) == []
    log.write_bytes(b'{"step": 1}\n\n3\n{"step": 2}\n\xff\xfe\n{"step": 3')
    assert read_log(log) == [{"step": 1}, {"step": 2}]

"""What is seen of a computation under way."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path

import pytest

from streamsal import progress
from streamsal.progress import Meter, Progress, memory_mb


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_meter_names_the_stage_that_was_busy_longest() -> None:
    meter = Meter()
    meter.seconds.update(decode=2.0, model=8.0, write=1.0)
    meter.frames.update(decode=100, model=80, write=80)
    assert meter.binds == "model"
    assert (meter.fps("decode"), meter.fps("model")) == (50.0, 10.0)
    summary = meter.summary()
    assert (summary["decode_fps"], summary["model_fps"], summary["write_fps"]) == (50.0, 10.0, 80.0)
    assert summary["binds"] == "model" and summary["memory_mb"] > 10


def test_meter_counts_frames_and_time_even_when_the_block_fails() -> None:
    meter = Meter()
    with pytest.raises(KeyError), meter.busy("write", frames=3):
        raise KeyError
    assert meter.frames["write"] == 3 and meter.seconds["write"] > 0
    assert meter.fps("decode") == 0.0


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_memory_is_the_peak_in_mebibytes() -> None:
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak and abs(memory_mb() - int(peak[1]) / 1024) < 8


def test_json_lines_carry_every_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    stream = io.StringIO()
    shown = Progress(as_json=True, stream=stream)
    shown.say("hello")
    with shown.track("task 3", 10, done=2):
        shown.update(6, Meter())
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert [line["event"] for line in lines] == ["note", "start", "progress"]
    assert (lines[1]["frames"], lines[1]["done"]) == (10, 2)
    assert (lines[2]["frame"], lines[2]["frames"], lines[2]["binds"]) == (6, 10, "decode")


def test_a_log_gets_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    shown = Progress(stream=stream)
    with shown.track("task 3", 10):
        shown.update(5)
        assert stream.getvalue() == ""  # too soon
        monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
        shown.update(5)
    assert stream.getvalue().startswith("task 3: frames 5/10 50.0% ")


def test_quiet_is_quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "LOG_EVERY_SECONDS", 0.0)
    for stream in (io.StringIO(), Terminal()):
        shown = Progress(quiet=True, stream=stream)
        shown.say("hello")
        with shown.track("task 3", 10):
            shown.update(5)
        assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar() -> None:
    stream = Terminal()
    shown = Progress(stream=stream)
    with shown.track("task 3", 10):
        shown.update(7, Meter())
    assert "task 3" in stream.getvalue() and "7/10" in stream.getvalue()


@pytest.mark.parametrize(("seconds", "text"), [(0, "0m00s"), (59.6, "1m00s"), (61, "1m01s"), (7322, "2h02m")])
def test_clock(seconds: float, text: str) -> None:
    assert progress.clock(seconds) == text

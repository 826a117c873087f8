"""What is in a video, in a table and in JSON, and which files were none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from films import destroy_packets, write_film

from streamsal.errors import StreamsalError, VideoError
from streamsal.probe import facts_of, probe, table


def run(paths: list[Path], failed: list[StreamsalError], *, verify: bool = False, as_json: bool = False) -> int:
    return probe(paths, stream=None, verify=verify, as_json=as_json, say=lambda text: None, on_failed=failed.append)


def test_counted_facts(tmp_path: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 30)
    facts = facts_of(film, None, False, lambda text: None)
    assert (facts["frames"], facts["width"], facts["height"], facts["codec"]) == (30, 96, 64, "h264")
    assert facts["frame_rate"] == pytest.approx(25) and facts["keyframes"] == 3
    lines = table(facts)
    assert lines[0] == str(film)
    assert [line.split()[0] for line in lines[1:]] == [
        *("frames", "rate", "duration", "picture", "color", "keyframes", "numbering", "sound"),
    ]


def test_a_header_that_lies_is_shown_beside_the_count(tmp_path: Path) -> None:
    facts = facts_of(write_film(tmp_path / "film.mp4", 30), None, False, lambda text: None)
    assert "30 (the header says 31)" in "\n".join(table({**facts, "frames_header": 31}))
    assert "the header" not in "\n".join(table(facts))


def test_one_json_document_per_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    films = [write_film(tmp_path / f"{n}.mp4", n) for n in (5, 8)]
    assert run(films, [], as_json=True) == 0
    assert [json.loads(line)["frames"] for line in capsys.readouterr().out.splitlines()] == [5, 8]


def test_a_file_that_is_no_video_among_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad.mp4").write_text("no film")
    film, failed = write_film(tmp_path / "film.mp4", 5), []
    assert run([tmp_path / "bad.mp4", film], failed) == 1
    assert str(film) in capsys.readouterr().out
    assert len(failed) == 1 and "bad.mp4" in str(failed[0])
    with pytest.raises(VideoError):
        run([tmp_path / "bad.mp4"], failed)


def test_proof_of_a_sound_and_of_a_damaged_film(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    film = write_film(tmp_path / "film.mov", 30, codec="mjpeg")
    assert run([film], [], verify=True) == 0
    assert "1, 2 and 7 shards give the same pictures" in capsys.readouterr().out
    destroy_packets(film, [4, 5, 20])
    assert run([film], [], verify=True) == 1
    assert "3 (frames 4-5,20)" in capsys.readouterr().out
    assert run([film], [], verify=True, as_json=True) == 1
    assert json.loads(capsys.readouterr().out)["holes"] == [4, 5, 20]

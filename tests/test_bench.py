"""`streamsal bench` says all it promises of every case, for people and for programs."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import torch
from program import TELLCLIP, call

from streamsal.bench import Case, Settings, Steps, bench, load, measured, parse_size, print_tables
from streamsal.errors import UsageError
from streamsal.gauges import Profile, Work, count, profiled
from streamsal.models import deepgaze_iie

STAGES = {"decode", "upload", "model", "store", "end_to_end"}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_program_prints_a_table_and_ends_with_one_json_document(tmp_path: Path) -> None:
    out, err = call(
        *("bench", "--model", "sigmotion", "--device", "cpu", "--sizes", "128x96,96x64", "--batch", "1,2"),
        *("--dtype", "fp32,bf16", "--frames", "5", "--seconds", "0.05", "--json", tmp_path / "found.json"),
    )
    *table, last = out.splitlines()
    assert (tmp_path / "found.json").read_text() == last + "\n"
    assert "96x64 batch 2 bf16" in out and "end to end" in table[2]
    found = json.loads(last)
    assert {"device", "ceilings", "cases", "versions", "commit", "date", "machine", "weights"} <= set(found)
    assert set(found["ceilings"]["tflops"]) == {"fp32", "bf16"}
    sizes = [(case["height"], case["width"], case["batch"], case["dtype"]) for case in found["cases"]]
    assert sizes == [(h, w, n, d) for h, w in ((96, 128), (64, 96)) for n in (1, 2) for d in ("fp32", "bf16")]
    for case in found["cases"]:
        assert set(case) == {item.name for item in fields(Case)}
        assert set(case["fps"]) == STAGES
        assert all(case["fps"][stage] > 0 for stage in STAGES - {"upload"})
        assert case["fps"]["upload"] is None
        assert 0 < case["busy"] <= 1 and case["tflops"] > 0 and case["gbps"] > 0 and case["slowest"]
        assert case["failed"] == ""
    assert "drawing a clip of 128x96" in err


def test_deepgaze_iie_is_measured_part_by_part_and_the_parts_are_all_of_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    iie = deepgaze_iie.build("synthetic", device="cpu", center_bias="gaussian")
    counted: list[Work] = []

    def counting(device: torch.device, work: Steps) -> Profile | None:
        counted.extend((count(work), count(work.once)))
        return profiled(device, work)

    monkeypatch.setattr("streamsal.gauges.profiled", counting)
    settings = Settings(sizes=((96, 128),), batches=(1,), dtypes=("fp32",), frames=2, seconds=0)
    facts = measured(None, settings, iie, torch.device("cpu"), say=lambda text: None)
    (case,) = facts["cases"]
    assert set(case["milliseconds"]) == {"model", "backbones", "readout", "finalizer"}
    assert min(case["milliseconds"].values()) > 0
    whole, parts = counted
    assert whole.flops == parts.flops > 1e9
    print_tables({"model": "deepgaze_iie", "weights": "synthetic", **facts})
    assert "finalizer, ms" in capsys.readouterr().out


def test_a_video_is_measured_at_its_own_size_or_a_smaller_one(corpus, tmp_path: Path) -> None:
    for sizes, wanted in (((), (96, 160)), (((48, 80),), (48, 80))):
        settings = Settings(model="center", device="cpu", sizes=sizes, frames=4, seconds=0)
        facts = bench(corpus.path("h264_closed"), settings, output_json=tmp_path / "found.json")
        (case,) = facts["cases"]
        assert (case["height"], case["width"]) == wanted
        assert case["fps"]["end_to_end"] > 0


def test_a_case_that_does_not_fit_is_said_to_and_the_others_go_on(capsys: pytest.CaptureFixture[str]) -> None:
    class Hungry:
        """Fits one frame."""

        def __init__(self) -> None:
            self.inner, _ = load(Settings(model="center"), torch.device("cpu"), lambda text: None)
            self.spec = self.inner.spec
            self.begin, self.end = self.inner.begin, self.inner.end

        def step(self, batch, state):
            if len(batch.frame) > 1:
                raise torch.OutOfMemoryError("too much")
            return self.inner.step(batch, state)

    settings = Settings(model="center", sizes=((64, 96),), batches=(2, 1), frames=3, seconds=0)
    facts = measured(None, settings, Hungry(), torch.device("cpu"), say=lambda text: None)
    assert [case["failed"] for case in facts["cases"]] == ["out of memory", ""]
    print_tables({"model": "hungry", "weights": "none", **facts})
    assert "96x64 batch 2 fp32  out of memory" in capsys.readouterr().out


@pytest.mark.parametrize("text, size", [("1080p", (1080, 1920)), ("540p", (540, 960)), ("2048x858", (858, 2048))])
def test_sizes_are_read_as_people_write_them(text: str, size: tuple[int, int]) -> None:
    assert parse_size(text) == size


def test_what_is_no_size_is_refused() -> None:
    with pytest.raises(UsageError, match="'full hd' is no size"):
        parse_size("full hd")


@pytest.mark.parametrize("model", ["x3d_m", TELLCLIP], ids=["ours", "a file"])
def test_a_model_of_clips_is_refused_before_it_is_loaded(model: str) -> None:
    _, err = call("bench", "--model", model, "--device", "cpu", code=2)
    refused = f"{model} answers for clips, and these stages are those of frames"
    assert err == f"streamsal: {refused}: see benchmarks/embed.py\n"


@pytest.mark.needs_cuda
def test_a_gpu_also_uploads_and_knows_its_memory() -> None:
    settings = Settings(model="sigmotion", device="cuda", sizes=((96, 128),), batches=(2,), frames=4, seconds=0)
    device = torch.device("cuda")
    network, _ = load(settings, device, lambda text: None)
    (case,) = measured(None, settings, network, device, say=lambda text: None)["cases"]
    assert case["fps"]["upload"] > 0
    assert case["memory_mb"] > 0

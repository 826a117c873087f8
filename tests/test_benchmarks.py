"""What benchmarks compare with computes the same, and what they report can be set side by side."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from streamsal import create_model, predict

ROOT = Path(__file__).parents[1]
BENCHMARKS = ROOT / "benchmarks"
FIXTURES = Path(__file__).parent / "fixtures/deepgaze"


def benchmark(name: str, *arguments: str | Path, code: int = 0) -> tuple[str, str]:
    """Runs a file of benchmarks/ on one thread, since on busy cores threads only wait; returns (stdout, stderr)."""
    command = [sys.executable, str(BENCHMARKS / name), *map(str, arguments)]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, env=one_thread)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


@pytest.mark.parametrize("name", ["iie_96x128", "iie_100x244_index_trap"])
def test_the_plain_version_computes_what_the_authors_program_does(unfused, name: str) -> None:
    measured = np.load(FIXTURES / f"{name}.npz")
    frames, center_bias = measured["image"].transpose(0, 2, 3, 1), measured["centerbias"][0]
    found = predict(frames, model=unfused, device="cpu", batch_size=1, center_bias=center_bias)
    assert abs(found - measured["log_density"][:, 0]).max() <= 2e-5


@pytest.fixture(scope="module")
def unfused():
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield create_model(BENCHMARKS / "unfused.py", weights="synthetic", device="cpu", center_bias="gaussian")
    torch.set_num_threads(before)


def test_the_loop_over_clips_shows_a_network_what_ours_does(tmp_path: Path) -> None:
    size = ("--seconds", "6", "--width", "192", "--height", "108")
    out, _ = benchmark(
        "embed.py", "--work-dir", tmp_path, *size, "--rounds", "1", "--short", "0.05", "--long", "0.05", "--models"
    )
    report = json.loads(out.splitlines()[-1])
    assert (report["clips"], report["frames"]) == (8, 150)
    assert report["levels_between"] <= 1


def test_a_resizer_of_pictures_computes_what_convolutions_over_clips_do() -> None:
    out, _ = benchmark("resizer.py", "--rounds", "1", "--frames", "8", "--side-in", "14", "--side", "28")
    report = json.loads(out.splitlines()[-1])
    assert report["largest_difference"] <= 1e-4
    assert set(report["infer"]["times_as_fast"]) == set(report["train"]["times_as_fast"]) == {"over clips", "3d"}


def test_clips_from_videos_and_from_jpg_files_are_the_same_frames_in_the_same_order(tmp_path: Path) -> None:
    out, _ = benchmark("loader.py", "--work-dir", tmp_path, "--clips", "2", "--passes", "1", "--rounds", "1")
    report = json.loads(out.splitlines()[-1])
    assert report["levels_between"] <= 3  # the loss of JPEG; neighboring frames are 30 apart
    assert report["files_per_clip"] == {"videos": 1, "jpg files": 91}


def test_steps_of_training_are_measured_in_what_a_device_trains_with() -> None:
    out, _ = benchmark("train_step.py", "--tiny", "--rounds", "1", "--batch", "2", "--device", "cpu")
    report = json.loads(out.splitlines()[-1])
    assert report["time_relative_to_fp32"] == {"fp32": 1} and report["seconds_per_step"]["fp32"] > 0
    assert list(report["refused"]) == ["bf16", "fp16"] and "on a CPU take 'fp32'" in report["refused"]["fp16"]


def test_what_the_order_of_frames_costs_is_measured_in_three_ways(tmp_path: Path) -> None:
    out, _ = benchmark("moving.py", "--tiny", "--seeds", "5", "--work-dir", tmp_path)
    (facts,) = json.loads(out.splitlines()[-1])["seeds"].values()
    assert all(0 <= facts[way] <= 1 for way in ("natural", "shown legacy", "legacy"))


def result(device: str, rates: dict[int, float]) -> str:
    """A file as `streamsal bench --json` writes it; of each height the model's frames per second."""
    cases = [
        {
            "height": height,
            "width": 2 * height,
            "batch": 4,
            "dtype": "fp16",
            "fps": {"model": rate, "end_to_end": rate / 2, "decode": 100.0, "upload": None, "store": 50.0},
            "failed": "" if rate else "out of memory",
        }
        for height, rate in rates.items()
    ]
    return json.dumps({"device": {"name": device}, "cases": cases}) + "\n"


@pytest.fixture
def results(tmp_path: Path) -> list[Path]:
    files = [tmp_path / "slow.json", tmp_path / "fast.json"]
    files[0].write_text("a table for people\n\n" + result("Slow One", {720: 12.5, 1080: 0}))
    files[1].write_text(result("Fast One", {1080: 250.0}))
    return files


def test_results_of_two_devices_make_one_table(results: list[Path]) -> None:
    out, _ = benchmark("compare.py", *results)
    lines = [line.split("  ") for line in out.splitlines() if line]
    cells = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert cells == [
        ["model, frames per second"],
        ["Slow One", "Fast One"],
        ["1440x720 batch 4 fp16", "12.5", "-"],
        ["2160x1080 batch 4 fp16", "out of memory", "250.0"],
    ]


def test_later_results_of_a_device_take_the_place_of_earlier_ones(results: list[Path], tmp_path: Path) -> None:
    (tmp_path / "again.json").write_text(result("Fast One", {1080: 300.0}))
    out, _ = benchmark("compare.py", *results, tmp_path / "again.json", "--what", "end_to_end")
    assert "150.0" in out and "125.0" not in out and out.count("Fast One") == 1


@pytest.mark.needs_matplotlib
def test_results_of_two_devices_make_one_plot(results: list[Path], tmp_path: Path) -> None:
    benchmark("compare.py", *results, "-o", tmp_path / "plot.svg")
    benchmark("compare.py", *results, "-o", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "plot.svg").stat().st_size > 1000


def test_a_file_that_is_no_result_is_named(tmp_path: Path) -> None:
    for text in ("", "{}", '{"cases": [1]}'):
        (tmp_path / "other.json").write_text(text)
        _, err = benchmark("compare.py", tmp_path / "other.json", code=1)
        assert "other.json is no result of" in err
        assert "Traceback" not in err


def test_the_script_for_clusters_submits_one_job_per_type_and_goes_on_behind_a_refusal(tmp_path: Path) -> None:
    """A scheduler that notes what it is asked for, and has no rtx_none."""
    fake = tmp_path / "sbatch"
    fake.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\ncase "$*" in *rtx_none*) exit 1;; esac\n')
    fake.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    environment |= {"PATH": f"{tmp_path}:{os.environ['PATH']}", "GPUS": "rtx_none rtx_a4000"}
    script = str(ROOT / "scripts/sbatch/bench.sbatch")
    assert subprocess.run([script, "--sizes", "720p"], env=environment).returncode == 1
    asked = (tmp_path / "asked").read_text().splitlines()
    assert [line.split()[1] for line in asked] == ["--gres=gpu:rtx_none:1", "--gres=gpu:rtx_a4000:1"]
    assert all(line.endswith(f"{script} --sizes 720p") for line in asked)

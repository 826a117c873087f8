"""Trainings on a cluster, without one: what is submitted of a configuration and of a grid; and its cells run here."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path

import pytest
from program import call, run

from streamsal.cluster import slurm
from streamsal.cluster.kubernetes import Pods, manifests
from streamsal.cluster.steps import Resources
from streamsal.cluster.study import Study, cells_of, inputs_of, rows_of
from streamsal.errors import MissingInput, MissingWeights

CLIPS = Path(__file__).parents[1] / "fixtures" / "lowres_action" / "mini_tinyvirat"
SMALL = """
[data]
train = "clips/tiny_train.json"
validation = 0.4
workers = 0
[model]
frames = 8
side_in = 12
side = 28
width = 0.125
[train]
epochs = 1
batch = 2
"""
GRID = f"{SMALL}[grid]\nmodel.resizer = ['none', '2d']\ntrain.seed = [0, 1]\nwhere = ['train.seed == 0']\n"
K8S = ("--backend", "k8s", "--image", "registry.example/streamsal:0.1", "--claim", "lab-data")
STUDY = Study(folder=Path("/data/tiny.training"), config=Path("/data/tiny.toml"), grid=True, resources=Resources())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With grid.toml, plain.toml and the clips that they name."""
    shutil.copytree(CLIPS, tmp_path / "clips")
    (tmp_path / "grid.toml").write_text(GRID)
    (tmp_path / "plain.toml").write_text(SMALL)
    return tmp_path


def test_a_grid_is_an_array_of_its_cells_and_a_table_and_a_plain_configuration_one_task() -> None:
    train, summary = STUDY.steps
    assert train.number == "--index" and train.gpu == "any" and summary.number is None
    assert STUDY.how_far == ("streamsal", *summary.words) and summary.gpu == "none" and summary.after == "any"
    plain = Study(folder=STUDY.folder, config=STUDY.config, grid=False, resources=Resources())
    assert [step.number for step in plain.steps] == [""]
    assert plain.how_far == ("tail", "/data/tiny.training/log.jsonl")


def test_a_script_trains_the_cell_that_it_is_told_and_comes_back_when_it_was_stopped() -> None:
    text = slurm.scripts(STUDY)["train"]
    command = "streamsal train /data/tiny.toml -o /data/tiny.training --device cuda --index"
    assert f'\n{command} "$((SLURM_ARRAY_TASK_ID + ${{STREAMSAL_TASK_OFFSET:-0}}))" &\n' in text
    assert text.endswith(slurm.WAIT_AND_REQUEUE) and "--signal=B:USR1@120" in text
    plain = Study(folder=STUDY.folder, config=STUDY.config, grid=False, resources=Resources())
    text = slurm.scripts(plain)["train"]
    assert "--index" not in text and text.endswith(slurm.WAIT_AND_REQUEUE)


def test_a_job_of_kubernetes_trains_the_cell_of_its_index_and_the_table_waits_for_all() -> None:
    made = manifests(STUDY, Pods(image="streamsal", claim="data"), 45)
    train, summary = (document["spec"]["template"]["spec"]["containers"][0]["command"] for document in made.values())
    assert made["train"]["spec"]["completions"] == 45
    assert train[-2:] == ["--index", "$(JOB_COMPLETION_INDEX)"] and summary[-2:] == ["--summary", "--wait"]


def test_what_trainings_read_is_looked_for_before_anything_waits(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cells, _ = cells_of(folder / "grid.toml")
    assert inputs_of(cell.config for cell in cells) == {"data.train =": folder / "clips" / "tiny_train.json"}
    monkeypatch.setenv("STREAMSAL_HOME", str(folder / "nothing"))
    monkeypatch.setenv("TORCH_HOME", str(folder / "nothing"))
    weights = SMALL.replace("[model]", '[model]\nweights = "i3d_rgb_charades"')
    (folder / "plain.toml").write_text(weights)
    with pytest.raises(MissingWeights):
        inputs_of(cell.config for cell in cells_of(folder / "plain.toml")[0])
    (folder / "clips" / "tiny_train.json").unlink()
    with pytest.raises(MissingInput, match=r"data.train = .*tiny_train.json is not there"):
        inputs_of(cell.config for cell in cells)


def test_a_design_that_cannot_be_built_is_found_before_it_waits_in_a_queue(folder: Path) -> None:
    (folder / "plain.toml").write_text(SMALL.replace("frames = 8", "frames = 12"))
    _, err = call("submit", "plain.toml", "--dry-run", cwd=folder, code=2)
    assert err.startswith(f"streamsal: {folder / 'plain.toml'}: [model] ") and "12" in err


def test_without_a_grid_the_folder_is_that_of_the_training(folder: Path) -> None:
    cells, grid = cells_of(folder / "plain.toml")
    assert not grid and [row.state for row in rows_of(folder / "x", cells, grid=grid)] == ["missing"]


def test_cells_that_are_not_done_train_here_and_the_others_are_left_alone(folder: Path) -> None:
    env, study = {"OMP_NUM_THREADS": "1"}, folder / "grid.training"
    call("train", "grid.toml", "--index", "0", cwd=folder, env=env)
    _, err = call("train", "grid.toml", "--summary", cwd=folder, code=3)
    assert "cells not done: 1" in err
    kept = (study / "0000" / "best.pt").stat().st_mtime_ns
    out, err = run("submit", "grid.toml", "--backend", "local", "--gpu", "none", cwd=folder, env=env)
    assert "task 1: done" in err and "task 0" not in err
    assert re.findall(r"^\d.*(done|begun|missing)", out, re.MULTILINE) == ["done", "done"]
    assert {path.name for path in study.iterdir()} == {"0000", "0001", "logs", "submit"}
    assert (study / "0000" / "best.pt").stat().st_mtime_ns == kept
    _, err = call("submit", "grid.toml", "--dry-run", cwd=folder)
    assert err == f"{study}: all tasks are done\n"


def test_dry_run_prints_manifests_and_lines_and_writes_nothing(folder: Path) -> None:
    out, _ = call("submit", "grid.toml", *K8S, "--mount", str(folder), "--dry-run", cwd=folder)
    assert out.count("kind: Job") == 2 and "completions: 2" in out and "# kubectl apply -f" in out
    assert not (folder / "grid.training").exists()
    out, _ = call("submit", "grid.toml", *K8S, "--mount", str(folder), cwd=folder)
    written = sorted(path.name for path in (folder / "grid.training" / "submit").iterdir())
    assert written == ["summary.yaml", "train.yaml"] and out.startswith("kubectl apply -f ")
    again, _ = call("submit", "grid.toml", *K8S, "--mount", str(folder), "--resume", cwd=folder)
    assert again == f"{again.splitlines()[0]}\n{out}" and again.startswith("kubectl delete --ignore-not-found -f ")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ((*K8S,), "the study .*grid.training is not below /data, where pods see the claim lab-data"),
        ((*K8S, "--mount", "data"), "--mount data is no absolute path"),
        ((*K8S[:4],), "--backend k8s needs --image.* and --claim"),
        ((*K8S, "--time", "1:00:00"), "--time is for --backend slurm or local: leave it out"),
        ((*K8S, "--sbatch=--qos=long"), "--sbatch is for --backend slurm or local"),
        (("--dry-run", "--image", "x"), "--image is for --backend k8s"),
        (("--dry-run", "--render"), "--render is for runs, and grid.toml says how to train"),
        (("--dry-run", "--model", "unisal", "--tasks", "3"), "--model, --tasks is for runs"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options: tuple[str, ...], said: str, folder: Path) -> None:
    _, err = call("submit", "grid.toml", *options, cwd=folder, code=2)
    assert re.search(said, err) and err.count("\n") == 1
    assert not (folder / "grid.training").exists()


def test_a_wrong_image_is_said_before_anything_is_written(folder: Path) -> None:
    options = ("--backend", "k8s", "--image", "my image", "--claim", "data", "--mount", str(folder))
    _, err = call("submit", "grid.toml", *options, cwd=folder, code=2)
    assert "Kubernetes would not take the train of" in err and "'my image'" in err
    assert not (folder / "grid.training").exists()


def test_jobs_say_whose_they_are(folder: Path) -> None:
    out, _ = call("submit", "plain.toml", *K8S, "--mount", str(folder), "--dry-run", cwd=folder)
    assert out.count("kind: Job") == 1 and "completions: 1\n" in out and "--index" not in out
    assert f"runAsUser: {os.getuid() or 1000}" in out
    assert json.dumps(str(folder)).strip('"') in out

"""What `streamsal submit` writes for Slurm is read by Slurm as it was meant, or refused before anything is sent."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from cluster import Cluster
from program import TELLTALE, call

PLAN = ("film.mp4", "--model", TELLTALE, "--tasks", "2")


@pytest.fixture
def folder(undisturbed: Path, tmp_path: Path) -> Path:
    """A folder with the film, and a name that shells and Slurm would like to read otherwise."""
    folder = tmp_path / 'my "best" films: 100% $HOME it\'s'
    folder.mkdir()
    shutil.copy(undisturbed / "film.mp4", folder)
    return folder


def test_awkward_paths_reach_the_tasks_and_their_logs(cluster: Cluster, folder: Path) -> None:
    out, _ = call("submit", *PLAN, "--gpu", "none", "--cpus", "1", "--stage", cwd=folder, env=cluster.environment)
    jobs = dict(line.split() for line in out.splitlines())
    assert [task.state for task in cluster.finish(jobs["merge"]).values()] == ["COMPLETED"]
    made = folder / "film.streamsal"
    assert (made / "film.mp4.h5").exists()
    logs = {path.name for path in (made / "logs").glob("*.log")}
    assert logs == {*(f"infer-{jobs['infer']}_{task}.log" for task in (0, 1)), f"merge-{jobs['merge']}.log"}


def test_what_slurm_would_refuse_is_refused_at_once(cluster: Cluster, folder: Path) -> None:
    for wrong in (("--gpu", "no_such_card"), ("--partition", "nowhere"), ("--sbatch=--no-such-option",)):
        _, err = call("submit", *PLAN, *wrong, cwd=folder, env=cluster.environment, code=2)
        assert err.splitlines()[-1].startswith("streamsal: Slurm refuses `sbatch --test-only ")
    assert not (folder / "film.streamsal" / "submit" / "jobs.jsonl").exists()

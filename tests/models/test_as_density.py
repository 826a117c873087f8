"""Densities made of saliency maps: the stated rule, stored with what was made by it, the same for any sharding."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from films import write_film

from streamsal.cli import main
from streamsal.errors import UsageError
from streamsal.merge import open_run
from streamsal.models import create_model, spec_of
from streamsal.models.as_density import RULE, UNIFORM_SHARE, log_density

BRIGHTNESS = """
import torch
from streamsal.models.spec import ModelSpec, Output, Readback, Result

SPEC = ModelSpec(
    name="brightness", summary="how bright", licence="CC0-1.0", citation="none",
    outputs=(Output(name="saliency", kind="saliency_map", units="1", readback=Readback()),
             Output(name="mean", kind="features", units="1", scalar=True)),
)

class Brightness:
    spec = SPEC
    def begin(self, video): return None
    def step(self, batch, state):
        maps = batch.frames_nhwc[batch.present, ::8, ::8].float().mean(-1) / 255
        return Result(frame=batch.frame[batch.present], values={"saliency": maps, "mean": maps.mean((1, 2))})
    def end(self, state): return None

def build(weights=None, *, device): return Brightness()
"""


@pytest.fixture
def brightness(tmp_path: Path) -> Path:
    path = tmp_path / "brightness.py"
    path.write_text(BRIGHTNESS)
    return path


def test_the_rule_is_the_one_that_is_stated() -> None:
    maps = torch.rand(3, 4, 6)
    found = log_density(maps).exp()
    expected = (1 - UNIFORM_SHARE) * maps / maps.sum((1, 2), keepdim=True) + UNIFORM_SHARE / 24
    torch.testing.assert_close(found, expected)
    assert f"{1 - UNIFORM_SHARE:g} * map / sum(map) + {UNIFORM_SHARE:g} / cells" in RULE


def test_a_map_of_nothing_is_uniform_and_a_missing_one_stays_missing() -> None:
    found = log_density(torch.stack([torch.zeros(4, 6), torch.full((4, 6), torch.nan)]))
    torch.testing.assert_close(found[0], torch.full((4, 6), -np.log(24)).float())
    assert found[1].isnan().all()


def test_a_run_of_densities_says_how_they_were_made(tmp_path: Path, brightness: Path) -> None:
    film = write_film(tmp_path / "film.mp4", 20)
    for name, tasks in (("one", "1"), ("three", "3")):
        asked = ["--model", str(brightness), "--as-density", "--tasks", tasks, "--store-dtype", "float32"]
        assert main(["run", str(film), "-o", str(tmp_path / name), "--no-render", "-q", *asked]) == 0
    maps, others = (open_run(tmp_path / name)["film.mp4"] for name in ("one", "three"))
    assert maps.first.kind == "log_density" and maps.first.rule == RULE
    assert [*maps.outputs] == ["log_density", "mean"]
    density = np.exp(maps.log_density(slice(0, 20)), dtype=np.float64)
    assert np.allclose(density.sum((1, 2)), 1, atol=1e-5)
    np.testing.assert_array_equal(maps.log_density(slice(0, 20)), others.log_density(slice(0, 20)))
    with h5py.File(tmp_path / "one" / "film.mp4.h5") as file:
        assert file["log_density"].attrs["rule"] == RULE
    assert json.loads((tmp_path / "one" / "plan.json").read_text())["model"]["options"] == {"as_density": True}


def test_a_model_of_densities_has_no_maps_to_make_them_of(brightness: Path) -> None:
    with pytest.raises(UsageError, match="--as-density is for saliency maps, and log_density of center is a log_dens"):
        create_model("center", as_density=True)
    assert spec_of(brightness).outputs[0].kind == "saliency_map"
    assert spec_of(brightness, as_density=True).outputs[0].kind == "log_density"

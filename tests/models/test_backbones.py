"""backbones: the taps of the fixtures, the keys of the official checkpoints, and torchvision's networks, not folded."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn

from streamsal.models import backbones
from streamsal.weights import synthetic

FIXTURES = Path(__file__).parents[1] / "fixtures" / "deepgaze"
TOLERANCE = 1e-4  # largest difference, in standard deviations of the tap


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A backbone, the official checkpoint that holds it under `prefix`, and torchvision's network of that layout."""

    name: str
    checkpoint: str
    prefix: str
    torchvision: Callable[[], nn.Module] | None
    layers: tuple[str, ...]  # of torchvision's network, whose outputs are the taps

    def template(self) -> dict[str, Tensor]:
        return getattr(backbones, f"{self.name}_template")(self.prefix)


CASES = (
    Case(
        name="resnet50",
        checkpoint="iie",
        prefix="models.0.features.features.1.module.",
        torchvision=torchvision.models.resnet50,
        layers=backbones.RESNET50_TAPS,
    ),
    Case(
        name="efficientnet_b5",
        checkpoint="iie",
        prefix="models.1.features.features.1.",
        torchvision=None,
        layers=(),
    ),
    Case(
        name="densenet201",
        checkpoint="iie",
        prefix="models.2.features.features.1.",
        torchvision=torchvision.models.densenet201,
        layers=backbones.DENSENET201_TAPS,
    ),
    Case(
        name="resnext50",
        checkpoint="iie",
        prefix="models.3.features.features.1.",
        torchvision=torchvision.models.resnext50_32x4d,
        layers=backbones.RESNEXT50_TAPS,
    ),
    Case(
        name="alexnet",
        checkpoint="i",
        prefix="features.features.1.",
        torchvision=lambda: torchvision.models.alexnet().features,
        layers=("10",),
    ),
    Case(
        name="vgg19",
        checkpoint="mr",
        prefix="features.vgg.",
        torchvision=lambda: torchvision.models.vgg19().features,
        layers=("35",),  # the ReLU behind the last convolution
    ),
)
IIE = CASES[:4]
VGG19 = CASES[5]


@pytest.fixture(scope="module", params=CASES, ids=lambda case: case.name)
def case(request: pytest.FixtureRequest) -> Case:
    return request.param


@pytest.fixture(scope="module")
def weights(case: Case) -> dict[str, Tensor]:
    """Without the classifier, which no DeepGaze uses and which is most of AlexNet."""
    classifier = tuple(case.prefix + name for name in ("fc.", "_fc.", "classifier."))
    return synthetic.state_dict({k: v for k, v in case.template().items() if not k.startswith(classifier)})


@pytest.fixture(scope="module")
def network(case: Case, weights: dict[str, Tensor]) -> nn.Module:
    return getattr(backbones, case.name)(weights, case.prefix)


def pictures(n: int, height: int, width: int) -> Tensor:
    frames = np.random.default_rng(0).integers(0, 256, (n, height, width, 3), dtype=np.uint8)
    return backbones.normalized(torch.from_numpy(frames))


def distance(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).abs().max() / wanted.std())


@pytest.mark.parametrize("case", IIE, indirect=True, ids=lambda case: case.name)
def test_taps_match_the_fixture_in_order(case: Case, network: nn.Module) -> None:
    start = f"tap{IIE.index(case)}:"
    with np.load(FIXTURES / "iie_96x128.npz") as wanted:
        frames_nhwc = torch.from_numpy(wanted["image"])[:, :, ::2, ::2].permute(0, 2, 3, 1)
        names = [key.removesuffix(":shape") for key in wanted if key.startswith(start) and key.endswith(":shape")]
        for name, tap in zip(names, network(backbones.normalized(frames_nhwc)), strict=True):
            assert list(tap.shape) == wanted[f"{name}:shape"].tolist(), name
            mean, std = wanted[f"{name}:mean_std"]
            assert abs(float(tap.double().mean()) - mean) <= TOLERANCE * std, name
            assert abs(float(tap.double().std(correction=0)) - std) <= TOLERANCE * std, name
            np.testing.assert_allclose(tap[:, :4], wanted[f"{name}:first4"], rtol=0, atol=TOLERANCE * std, err_msg=name)


@pytest.mark.parametrize("case", [VGG19], indirect=True, ids=lambda case: case.name)
def test_features_of_a_video_match_the_fixture(network: nn.Module) -> None:
    with np.load(FIXTURES / "mr_64x96_t20.npz") as wanted:
        [features] = network(backbones.normalized(torch.from_numpy(wanted["video"][15:16]).permute(0, 2, 3, 1)))
        mean, std = wanted["features15_mean_std"]
        assert abs(float(features.double().mean()) - mean) <= TOLERANCE * std
        np.testing.assert_allclose(features[0, :8], wanted["features15_first8"], rtol=0, atol=TOLERANCE * std)


@pytest.mark.parametrize(
    ("checkpoint", "name", "prefix"),
    [*((case.checkpoint, case.name, case.prefix) for case in CASES), ("iii", "densenet201", "features.features.1.")],
)
def test_template_is_the_part_of_the_official_checkpoint(checkpoint: str, name: str, prefix: str) -> None:
    official = json.loads((FIXTURES / f"keys_{checkpoint}.json").read_text())
    template = getattr(backbones, f"{name}_template")(prefix)
    found = [(key, list(value.shape)) for key, value in template.items()]
    assert found == [(key, shape) for key, shape in official.items() if key.startswith(prefix)]
    assert all(value.is_meta for value in template.values())
    for key, value in template.items():
        assert value.dtype == (torch.int64 if key.endswith("num_batches_tracked") else torch.float32)


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.torchvision], indirect=True, ids=lambda case: case.name
)
def test_folded_network_equals_torchvision_at_an_odd_size(
    case: Case, weights: dict[str, Tensor], network: nn.Module
) -> None:
    assert case.torchvision is not None
    plain, seen = case.torchvision().eval(), {}
    own = {key.removeprefix(case.prefix): value for key, value in weights.items()}
    if case.name in ("alexnet", "vgg19"):
        own = {key.removeprefix("features."): value for key, value in own.items()}
    missing, unexpected = plain.load_state_dict(own, strict=False)
    assert not unexpected and all(key.startswith(("fc.", "classifier.")) for key in missing)
    for layer in case.layers:
        # A copy: an activation behind the layer may work in place.
        plain.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, layer=layer: seen.update({layer: output.clone()})
        )
    picture = pictures(1, 85, 119)
    with torch.no_grad():
        plain(picture)
    for layer, tap in zip(case.layers, network(picture), strict=True):
        assert distance(tap, seen[layer]) <= TOLERANCE, layer


@pytest.mark.parametrize(
    ("kernel", "stride", "before", "after"), [(3, 1, 1, 1), (5, 1, 2, 2), (3, 2, 0, 1), (5, 2, 1, 2)]
)
@pytest.mark.parametrize(("height", "width"), [(13, 8), (8, 7)])
def test_padding_of_efficientnet_is_that_of_456_pixels_at_any_size(
    kernel: int, stride: int, before: int, after: int, height: int, width: int
) -> None:
    weights = synthetic.state_dict({"conv.weight": torch.empty(4, 3, kernel, kernel)})
    picture = pictures(2, height, width)
    padding = backbones.static_padding(kernel, stride)
    found = backbones.Conv(weights, "conv", activation=torch.nn.functional.silu, **padding)(picture, {})
    padded = torch.nn.functional.pad(picture, (before, after, before, after))
    wanted = torch.nn.functional.silu(torch.nn.functional.conv2d(padded, weights["conv.weight"], stride=stride))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)
    assert found.is_contiguous(memory_format=torch.channels_last)


def test_pictures_of_a_batch_do_not_mix_and_taps_survive_the_next_call(network: nn.Module) -> None:
    batch = pictures(3, 70, 66)
    together = network(batch)
    before = [tap.clone() for tap in together]
    alone = [torch.cat(taps) for taps in zip(*(network(batch[k : k + 1]) for k in range(3)), strict=True)]
    for tap, kept, singles in zip(together, before, alone, strict=True):
        assert torch.equal(tap, kept)
        assert distance(singles, tap) <= TOLERANCE


def test_network_can_be_had_in_bfloat16_and_keeps_no_graph(network: nn.Module) -> None:
    picture = pictures(1, 64, 96)
    rough = copy.deepcopy(network).to(torch.bfloat16)(picture.bfloat16())
    for tap, exact in zip(rough, network(picture), strict=True):
        assert tap.dtype == torch.bfloat16
        assert tap.grad_fn is None and exact.grad_fn is None
        assert 0 < distance(tap.float(), exact) < 0.5
        assert exact.is_contiguous(memory_format=torch.channels_last)


def test_pictures_are_normalized_as_by_torchvision() -> None:
    frames_nhwc = torch.arange(256, dtype=torch.uint8).repeat_interleave(3).reshape(1, 16, 16, 3)
    found = backbones.normalized(frames_nhwc)
    transform = torchvision.transforms.Normalize(list(backbones.MEAN), list(backbones.STD))
    torch.testing.assert_close(found, transform(frames_nhwc.permute(0, 3, 1, 2) / 255), rtol=0, atol=1e-6)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(backbones.normalized(frames_nhwc, torch.float16), found.half())


@pytest.mark.needs_cuda
def test_cuda_gives_the_numbers_of_the_processor(network: nn.Module) -> None:
    picture = pictures(2, 67, 91)
    exact = network(picture)
    on_cuda = copy.deepcopy(network).cuda()
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        for tap, full in zip(on_cuda(picture.cuda()), exact, strict=True):
            assert distance(tap.cpu(), full) <= TOLERANCE
    for tap, full in zip(on_cuda.half()(picture.cuda().half()), exact, strict=True):
        assert 0 < distance(tap.float().cpu(), full) < 0.2

"""DeepGaze IIE as one would first write it: what streamsal's own is compared with where the authors' package is absent.

Whole classifiers with hooks on the layers that are read, features enlarged and stacked for each of them, then 30
readouts one after the other and 120 densities at the frame's full size. The same weights, the same numbers; nothing is
shared, folded or left out. It is a model file like a user's own: `streamsal run talk.mp4 --model unfused.py`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision.models import densenet201, resnet50, resnext50_32x4d

from streamsal.models import center_bias as bias
from streamsal.models.backbones import (
    DENSENET201_TAPS,
    EFFICIENTNET_B5_TAPS,
    MEAN,
    RESNET50_TAPS,
    RESNEXT50_TAPS,
    STD,
    Stage,
    efficientnet_blocks,
)
from streamsal.models.deepgaze_iie import N_COMPONENTS, STRIDE, template
from streamsal.models.spec import Batch, ModelSpec, Output, Readback, Result, Video
from streamsal.weights import checkpoints


def spec() -> ModelSpec:
    return ModelSpec(
        name="unfused",
        summary="DeepGaze IIE, written plainly",
        licence="weights: none stated by their authors",
        citation="Linardatos, Kümmerer, Press & Bethge 2021",
        outputs=(Output(name="log_density", kind="log_density", units="nats", readback=Readback()),),
        min_side=64,
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    center_bias: str = "mit1003",
) -> Unfused:
    network = DeepGazeIIE(checkpoints.load("deepgaze_iie", weights, template())).eval().to(device)
    return Unfused(network, center_bias, torch.device(device))


class Unfused:
    """The network behind the engine's contract; its state is a video's center bias, (H, W) on the device."""

    def __init__(self, network: DeepGazeIIE, center_bias: str, device: torch.device) -> None:
        self.spec = spec()
        self.network = network
        self.template_hw = bias.template(center_bias)
        self.device = device

    def begin(self, video: Video) -> Tensor:
        template_hw = self.template_hw if video.center_bias is None else video.center_bias
        return torch.from_numpy(bias.sampled(template_hw, video.height, video.width)).to(self.device)

    def step(self, batch: Batch, state: Tensor) -> Result:
        log_density = self.network(batch.frames_nhwc.permute(0, 3, 1, 2).float(), state)
        return Result(frame=batch.frame[batch.present], values={"log_density": log_density[batch.present].float()})

    def end(self, state: Tensor) -> None:
        return None


class DeepGazeIIE(nn.Module):
    """Pictures (n, 3, H, W), RGB from 0 to 255, and a center bias (H, W) to log densities (n, H, W)."""

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.models = nn.ModuleList(Backbone(weights, number) for number in range(len(BACKBONES)))

    def forward(self, pictures_nchw: Tensor, center_bias_hw: Tensor) -> Tensor:
        densities = [model(pictures_nchw, center_bias_hw) for model in self.models]
        return torch.logsumexp(torch.stack(densities), 0) - math.log(len(densities))


class Backbone(nn.Module):
    """One backbone with its 30 readouts."""

    def __init__(self, weights: Mapping[str, Tensor], number: int) -> None:
        super().__init__()
        make, taps, prefix = BACKBONES[number]
        self.features = Features(make(), taps, part(weights, f"models.{number}.features.features.1.{prefix}"))
        self.components = nn.ModuleList(
            Component(
                part(weights, f"models.{number}.saliency_networks.{k}."),
                part(weights, f"models.{number}.fixation_selection_networks.{k}."),
                part(weights, f"models.{number}.finalizers.{k}."),
            )
            for k in range(N_COMPONENTS)
        )

    def forward(self, pictures_nchw: Tensor, center_bias_hw: Tensor) -> Tensor:
        features = self.features(pictures_nchw)
        densities = [component(features, center_bias_hw) for component in self.components]
        return torch.logsumexp(torch.stack(densities), 0) - math.log(len(densities))


class Features(nn.Module):
    """Every second pixel through the whole classifier; what its hooks saw, on one grid of 32 pixels."""

    def __init__(self, classifier: nn.Module, taps: Sequence[str], weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        classifier.load_state_dict(weights)
        self.classifier = classifier
        self.taps = taps
        self.seen: dict[str, Tensor] = {}
        for name in taps:
            classifier.get_submodule(name).register_forward_hook(partial(self.remember, name))
        self.mean, self.std = (constant(torch.tensor(x).view(3, 1, 1)) for x in (MEAN, STD))

    def remember(self, name: str, layer: nn.Module, inputs: object, output: Tensor) -> None:
        self.seen[name] = output.clone()  # a ReLU in place may come next

    def forward(self, pictures_nchw: Tensor) -> Tensor:
        height, width = pictures_nchw.shape[-2:]
        pictures = pictures_nchw[..., : height // 2 * 2 : 2, : width // 2 * 2 : 2]
        self.classifier((pictures / 255 - self.mean) / self.std)
        grid = -(-height // STRIDE), -(-width // STRIDE)
        return torch.cat([functional.interpolate(self.seen.pop(name), grid) for name in self.taps], 1)


class Component(nn.Module):
    """Saliency network, fixation selection network and finalizer number k of a backbone, from stacked features."""

    def __init__(
        self, saliency: Mapping[str, Tensor], fixation: Mapping[str, Tensor], finalizer: Mapping[str, Tensor]
    ) -> None:
        super().__init__()
        self.saliency = nn.ModuleList(Layer(saliency, f"layernorm{i}", f"conv{i}", f"bias{i}.bias") for i in range(3))
        self.fixation = nn.ModuleList(
            [
                Layer(fixation, "layernorm0.layernorm_part0", "conv0.conv_part0", "bias0.bias"),
                Layer(fixation, "layernorm1", "conv1", "bias1.bias"),
            ]
        )
        self.last = constant(fixation["conv2.weight"])
        self.sigma = float(finalizer["gauss.sigma"])
        self.center_bias_weight = constant(finalizer["center_bias_weight"])

    def forward(self, features: Tensor, center_bias_hw: Tensor) -> Tensor:
        x = features
        for layer in (*self.saliency, *self.fixation):
            x = layer(x)
        return self.finalize(functional.conv2d(x, self.last), center_bias_hw)

    def finalize(self, priority: Tensor, center_bias_hw: Tensor) -> Tensor:
        """(n, 1, h, w) to log densities (n, H, W)."""
        height, width = center_bias_hw.shape
        grid = height // 2, width // 2
        x = blur(functional.interpolate(priority, grid), self.sigma)
        x = x + self.center_bias_weight * center_bias_hw[: 2 * grid[0] : 2, : 2 * grid[1] : 2]
        x = functional.interpolate(x, (height, width))[:, 0]
        return x - x.logsumexp((1, 2), keepdim=True)


class Layer(nn.Module):
    """Layer normalization over channels and positions together, a 1x1 convolution, softplus."""

    def __init__(self, weights: Mapping[str, Tensor], norm: str, conv: str, bias_name: str) -> None:
        super().__init__()
        self.scale, self.shift = (constant(weights[f"{norm}.{leaf}"].view(-1, 1, 1)) for leaf in ("weight", "bias"))
        self.weight, self.bias = constant(weights[f"{conv}.weight"]), constant(weights[bias_name])

    def forward(self, x: Tensor) -> Tensor:
        x = functional.layer_norm(x, x.shape[1:], eps=1e-12) * self.scale + self.shift
        return functional.softplus(functional.conv2d(x, self.weight, self.bias))


def blur(x: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of (n, 1, h, w), cut off at 3 sigma, borders repeated."""
    radius = math.ceil(3 * sigma)
    kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, device=x.device) / sigma) ** 2)
    kernel = kernel / kernel.sum()
    x = functional.conv2d(functional.pad(x, (0, 0, radius, radius), mode="replicate"), kernel.view(1, 1, -1, 1))
    return functional.conv2d(functional.pad(x, (radius, radius, 0, 0), mode="replicate"), kernel.view(1, 1, 1, -1))


class EfficientNetB5(nn.Module):
    """All of it, in the layout of its weights, with the paddings of a picture of 456 x 456."""

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = StaticConv(3, 48, 3, stride=2)
        self._bn0 = nn.BatchNorm2d(48, eps=1e-3)
        self._blocks = nn.ModuleList(InvertedBottleneck(stage, first) for _, stage, first in efficientnet_blocks())
        self._conv_head = StaticConv(512, 2048, 1)
        self._bn1 = nn.BatchNorm2d(2048, eps=1e-3)
        self._fc = nn.Linear(2048, 1000)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self._bn0(self._conv_stem(x)))
        for block in self._blocks:
            x = block(x)
        x = functional.silu(self._bn1(self._conv_head(x)))
        return self._fc(x.mean((2, 3)))


class InvertedBottleneck(nn.Module):
    def __init__(self, stage: Stage, first: bool) -> None:
        super().__init__()
        c = stage.channels_in if first else stage.channels
        inside, stride = c * stage.expand, stage.stride if first else 1
        self.adds = stride == 1 and c == stage.channels
        self.expands = stage.expand > 1
        if self.expands:
            self._expand_conv = StaticConv(c, inside, 1)
            self._bn0 = nn.BatchNorm2d(inside, eps=1e-3)
        self._depthwise_conv = StaticConv(inside, inside, stage.kernel, stride=stride, groups=inside)
        self._bn1 = nn.BatchNorm2d(inside, eps=1e-3)
        self._se_reduce = nn.Conv2d(inside, c // 4, 1)
        self._se_expand = nn.Conv2d(c // 4, inside, 1)
        self._project_conv = StaticConv(inside, stage.channels, 1)
        self._bn2 = nn.BatchNorm2d(stage.channels, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.silu(self._bn0(self._expand_conv(x))) if self.expands else x
        y = functional.silu(self._bn1(self._depthwise_conv(y)))
        gate = self._se_expand(functional.silu(self._se_reduce(y.mean((2, 3), keepdim=True))))
        y = self._bn2(self._project_conv(torch.sigmoid(gate) * y))
        return x + y if self.adds else y


class StaticConv(nn.Conv2d):
    """Stride 2 pads one more at the right and bottom than at the left and top."""

    def __init__(self, c_in: int, c_out: int, kernel: int, *, stride: int = 1, groups: int = 1) -> None:
        super().__init__(c_in, c_out, kernel, stride, groups=groups, bias=False)
        after = kernel // 2
        before = after - (stride == 2)
        self.pads = (before, after, before, after)

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(functional.pad(input, self.pads) if self.pads[1] else input)


# Constructor, layers that are read in the order in which their features are stacked, prefix in the checkpoint.
BACKBONES = (
    (resnet50, RESNET50_TAPS, "module."),
    (EfficientNetB5, EFFICIENTNET_B5_TAPS, ""),
    (densenet201, DENSENET201_TAPS, ""),
    (resnext50_32x4d, RESNEXT50_TAPS, ""),
)


def part(weights: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def constant(x: Tensor) -> nn.Parameter:
    return nn.Parameter(x, requires_grad=False)

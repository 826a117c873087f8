"""The six image networks that DeepGaze reads: normalized RGB pictures in, the raw outputs of a few layers out.

Each `X(weights, prefix)` takes its part of a checkpoint and gives a module that returns its taps, a list of tensors
(n, c, h, w) in the order the readouts were trained with. Nothing behind the last tap is computed, and batch norms are
folded into the convolutions before them. Each `X_template(prefix)` gives keys, shapes and dtypes of that part of the
checkpoint. What the taps are used for, frame sizes and devices are no matter of this file.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor, nn
from torch.nn import functional

Weights = Mapping[str, Tensor]
Taps = dict[str, Tensor]

MEAN = (0.485, 0.456, 0.406)  # of ImageNet, RGB in 0 ... 1
STD = (0.229, 0.224, 0.225)

RESNET50_TAPS = (
    "layer3.0.conv2",
    "layer3.3.conv2",
    "layer3.5.conv1",
    "layer3.5.conv2",
    "layer4.1.conv2",
    "layer4.2.conv2",
)
RESNEXT50_TAPS = ("layer3.5.conv1", "layer3.5.conv2", "layer3.4.conv2", "layer4.2.conv2")  # 3.5 before 3.4 indeed
RESNET_BLOCKS = (3, 4, 6, 3)

DENSENET201_TAPS = (
    "features.denseblock4.denselayer32.norm1",
    "features.denseblock4.denselayer32.conv1",
    "features.denseblock4.denselayer31.conv2",
)
DENSENET201_BLOCKS = (6, 12, 48, 32)
GROWTH = 32  # channels that each layer of a DenseNet adds

EFFICIENTNET_B5_TAPS = ("_blocks.24._depthwise_conv", "_blocks.26._depthwise_conv", "_blocks.35._project_conv")


@dataclass(frozen=True, slots=True)
class Stage:
    """Consecutive blocks of an EfficientNet; the first one has the stride and changes the number of channels."""

    blocks: int
    kernel: int
    stride: int
    expand: int
    channels_in: int
    channels: int


EFFICIENTNET_B5 = (
    Stage(3, 3, 1, 1, 48, 24),
    Stage(5, 3, 2, 6, 24, 40),
    Stage(5, 5, 2, 6, 40, 64),
    Stage(7, 3, 2, 6, 64, 128),
    Stage(7, 5, 1, 6, 128, 176),
    Stage(9, 5, 2, 6, 176, 304),
    Stage(3, 3, 1, 6, 304, 512),
)

VGG19_CONVS = ((0, 2), (5, 7), (10, 12, 14, 16), (19, 21, 23, 25), (28, 30, 32, 34))  # a max-pool between the groups


def normalized(frames_nhwc: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
    """(n, 3, h, w) pictures as the networks were trained on, in channels_last, from uint8 RGB."""
    scale, shift = pixel_scale(frames_nhwc.device)
    return torch.mul(frames_nhwc.permute(0, 3, 1, 2), scale).add_(shift).to(dtype)


@cache
def pixel_scale(device: torch.device) -> tuple[Tensor, Tensor]:
    # Kept, because a copy to a GPU waits for what the GPU is doing, and a CUDA graph cannot contain it.
    mean, std = (torch.tensor(x, dtype=torch.float64).view(3, 1, 1) for x in (MEAN, STD))
    return (1 / (255 * std)).float().to(device), (-mean / std).float().to(device)


def resnet50(weights: Weights, prefix: str) -> nn.Module:
    return ResNet(part(weights, prefix), RESNET50_TAPS, groups=1).eval()


def resnext50(weights: Weights, prefix: str) -> nn.Module:
    return ResNet(part(weights, prefix), RESNEXT50_TAPS, groups=32).eval()


def densenet201(weights: Weights, prefix: str) -> nn.Module:
    return DenseNet(part(weights, prefix)).eval()


def efficientnet_b5(weights: Weights, prefix: str) -> nn.Module:
    return EfficientNet(part(weights, prefix)).eval()


def alexnet(weights: Weights, prefix: str) -> nn.Module:
    """One tap: the fifth convolution, before its ReLU."""
    weights = part(weights, prefix)
    layers = [
        Conv(weights, "features.0", stride=4, padding=2),
        nn.MaxPool2d(3, 2),
        Conv(weights, "features.3", padding=2),
        nn.MaxPool2d(3, 2),
        Conv(weights, "features.6", padding=1),
        Conv(weights, "features.8", padding=1),
        Conv(weights, "features.10", padding=1, activation=None),
    ]
    return Chain(layers).eval()


def vgg19(weights: Weights, prefix: str) -> nn.Module:
    """One tap: the last convolution, after its ReLU and without the max-pool behind it."""
    weights = part(weights, prefix)
    layers: list[nn.Module] = []
    for group in VGG19_CONVS:
        layers += [nn.MaxPool2d(2), *(Conv(weights, f"features.{i}", padding=1) for i in group)]
    return Chain(layers[1:]).eval()


def resnet50_template(prefix: str) -> dict[str, Tensor]:
    from torchvision.models import resnet50

    return meta_state(resnet50, prefix)


def resnext50_template(prefix: str) -> dict[str, Tensor]:
    from torchvision.models import resnext50_32x4d

    return meta_state(resnext50_32x4d, prefix)


def densenet201_template(prefix: str) -> dict[str, Tensor]:
    from torchvision.models import densenet201

    return meta_state(densenet201, prefix)


def alexnet_template(prefix: str) -> dict[str, Tensor]:
    from torchvision.models import alexnet

    return meta_state(alexnet, prefix)


def vgg19_template(prefix: str) -> dict[str, Tensor]:
    """The convolutions alone: DeepGaze MR keeps no classifier."""
    from torchvision.models import vgg19

    return {key: value for key, value in meta_state(vgg19, prefix).items() if key.startswith(f"{prefix}features.")}


def efficientnet_b5_template(prefix: str) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}

    def add(name: str, *shape: int, dtype: torch.dtype = torch.float32) -> None:
        state[prefix + name] = torch.empty(shape, dtype=dtype, device="meta")

    def add_norm(name: str, channels: int) -> None:
        for leaf in ("weight", "bias", "running_mean", "running_var"):
            add(f"{name}.{leaf}", channels)
        add(f"{name}.num_batches_tracked", dtype=torch.int64)

    add("_conv_stem.weight", 48, 3, 3, 3)
    add_norm("_bn0", 48)
    for name, stage, first in efficientnet_blocks():
        channels_in = stage.channels_in if first else stage.channels
        inside, squeezed = channels_in * stage.expand, channels_in // 4
        if stage.expand > 1:
            add(f"{name}._expand_conv.weight", inside, channels_in, 1, 1)
            add_norm(f"{name}._bn0", inside)
        add(f"{name}._depthwise_conv.weight", inside, 1, stage.kernel, stage.kernel)
        add_norm(f"{name}._bn1", inside)
        add(f"{name}._se_reduce.weight", squeezed, inside, 1, 1)
        add(f"{name}._se_reduce.bias", squeezed)
        add(f"{name}._se_expand.weight", inside, squeezed, 1, 1)
        add(f"{name}._se_expand.bias", inside)
        add(f"{name}._project_conv.weight", stage.channels, inside, 1, 1)
        add_norm(f"{name}._bn2", stage.channels)
    add("_conv_head.weight", 2048, 512, 1, 1)
    add_norm("_bn1", 2048)
    add("_fc.weight", 1000, 2048)
    add("_fc.bias", 1000)
    return state


def efficientnet_blocks() -> list[tuple[str, Stage, bool]]:
    """Name, stage and whether it is the first of its stage, of each block in order."""
    places = [(stage, k == 0) for stage in EFFICIENTNET_B5 for k in range(stage.blocks)]
    return [(f"_blocks.{i}", stage, first) for i, (stage, first) in enumerate(places)]


def meta_state(constructor: Callable[[], nn.Module], prefix: str) -> dict[str, Tensor]:
    with torch.device("meta"):
        return {prefix + key: value for key, value in constructor().state_dict().items()}


def part(weights: Weights, prefix: str) -> Weights:
    return {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}


def affine(weights: Weights, norm: str, eps: float = 1e-5) -> tuple[Tensor, Tensor]:
    """What a batch norm does outside training: scale and shift (c,) in float64."""
    weight, bias, mean, var = (
        weights[f"{norm}.{leaf}"].double() for leaf in ("weight", "bias", "running_mean", "running_var")
    )
    scale = weight / (var + eps).sqrt()
    return scale, bias - mean * scale


def constant(x: Tensor) -> nn.Parameter:
    """Float32, and kernels in channels_last: the convolutions then compute in it, whatever the layout of the picture.

    The four networks of DeepGaze IIE on 270x480, one thread of an EPYC: 0.97 s, 1.03 s in NCHW (0.90 and 1.09 s per
    picture in batches of 4); that is 90 % of what its matrix products reach.
    """
    layout = torch.channels_last if x.ndim == 4 else torch.contiguous_format
    return nn.Parameter(x.float().contiguous(memory_format=layout), requires_grad=False)


class Norm(nn.Module):
    """A batch norm that no convolution can take over."""

    def __init__(self, weights: Weights, name: str, eps: float = 1e-5):
        super().__init__()
        self.scale, self.shift = (constant(x.view(1, -1, 1, 1)) for x in affine(weights, name, eps))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift, x, self.scale)


def convolved(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int, padding: int, groups: int) -> Tensor:
    """`functional.conv2d`, by oneDNN on a CPU.

    With one thread and few frames PyTorch (2.11) does not give 1x1 convolutions to oneDNN, but multiplies matrices with
    MKL: on an AMD EPYC 60 ... 75 GFLOP/s instead of 105 ... 155, a third of the time of all four backbones.
    """
    if x.device.type == "cpu" and x.dtype == torch.float32 and torch.backends.mkldnn.is_available():
        return torch.mkldnn_convolution(x, weight, bias, [padding] * 2, [stride] * 2, [1, 1], groups)
    return functional.conv2d(x, weight, bias, stride, padding, groups=groups)


class Conv(nn.Module):
    """A convolution, the batch norm behind it and the activation.

    The norm is folded into the weights, except of a tapped convolution, whose raw output is put into `taps`.
    """

    def __init__(
        self,
        weights: Weights,
        name: str,
        norm: str | None = None,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        activation: Callable[..., Tensor] | None = functional.relu,
        eps: float = 1e-5,
        tapped: Collection[str] = (),
        shifted: bool = False,
    ):
        super().__init__()
        self.name = name
        self.stride, self.padding, self.groups = stride, padding, groups
        self.activation = activation
        self.tapped = name in tapped
        self.shifted = shifted
        weight = weights[f"{name}.weight"].double()
        bias = weights[f"{name}.bias"].double() if f"{name}.bias" in weights else None
        self.norm = Norm(weights, norm, eps) if norm and self.tapped else None
        if norm and not self.tapped:
            scale, shift = affine(weights, norm, eps)
            weight = weight * scale.view(-1, 1, 1, 1)
            bias = shift if bias is None else bias * scale + shift
        self.weight = constant(weight)
        self.bias = None if bias is None else constant(bias)

    def forward(self, x: Tensor, taps: Taps) -> Tensor:
        y = convolved(x, self.weight, self.bias, self.stride, self.padding, self.groups)
        if self.shifted:
            y = y[:, :, 1 : 1 + x.shape[2] // 2, 1 : 1 + x.shape[3] // 2]
        if self.tapped:
            taps[self.name] = y
        if self.norm is not None:
            y = self.norm(y)
        # Out of place, the activation makes a shifted output dense again.
        return y if self.activation is None else self.activation(y, inplace=not self.shifted)


class Chain(nn.Module):
    """Convolutions and max-pools one after the other; the end is the only tap."""

    def __init__(self, layers: list[nn.Module]):
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        for layer in self.layers:
            x = layer(x, {}) if isinstance(layer, Conv) else layer(x)
        return [x]


class ResNet(nn.Module):
    """ResNet-50 and ResNeXt-50, which differ in the groups of conv2 and in widths that the weights know."""

    def __init__(self, weights: Weights, tapped: tuple[str, ...], *, groups: int):
        super().__init__()
        self.tapped = tapped
        self.stem = Conv(weights, "conv1", "bn1", stride=2, padding=3)
        self.blocks = nn.ModuleList()
        for layer, blocks in enumerate(RESNET_BLOCKS, start=1):
            for block in range(blocks):
                stride = 2 if block == 0 and layer > 1 else 1
                self.blocks.append(Bottleneck(weights, f"layer{layer}.{block}", tapped, stride=stride, groups=groups))

    def forward(self, x: Tensor) -> list[Tensor]:
        taps: Taps = {}
        x = self.stem(x, taps)
        x = functional.max_pool2d(x, 3, 2, 1)
        for block in self.blocks:
            x = block(x, taps)
        return [taps[name] for name in self.tapped]


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, and the input added; the last one of the network ends after the 3x3."""

    def __init__(self, weights: Weights, name: str, tapped: Collection[str], *, stride: int, groups: int):
        super().__init__()
        self.last = name == "layer4.2"
        self.conv1 = Conv(weights, f"{name}.conv1", f"{name}.bn1", tapped=tapped)
        self.conv2 = Conv(
            weights,
            f"{name}.conv2",
            None if self.last else f"{name}.bn2",
            stride=stride,
            padding=1,
            groups=groups,
            activation=None if self.last else functional.relu,
            tapped=tapped,
        )
        if self.last:
            return
        self.conv3 = Conv(weights, f"{name}.conv3", f"{name}.bn3", activation=None)
        self.downsample = None
        if f"{name}.downsample.0.weight" in weights:
            self.downsample = Conv(
                weights, f"{name}.downsample.0", f"{name}.downsample.1", stride=stride, activation=None
            )

    def forward(self, x: Tensor, taps: Taps) -> Tensor:
        y = self.conv2(self.conv1(x, taps), taps)
        if self.last:
            return y
        y = self.conv3(y, taps)
        y += x if self.downsample is None else self.downsample(x, taps)
        return y.relu_()


class DenseNet(nn.Module):
    """DenseNet-201."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.stem = Conv(weights, "features.conv0", "features.norm0", stride=2, padding=3)
        self.blocks = nn.ModuleList()
        for block, layers in enumerate(DENSENET201_BLOCKS, start=1):
            if block > 1:
                self.blocks.append(Transition(weights, f"features.transition{block - 1}"))
            self.blocks.append(DenseBlock(weights, f"features.denseblock{block}", layers))

    def forward(self, x: Tensor) -> list[Tensor]:
        taps: Taps = {}
        x = self.stem(x, taps)
        x = functional.max_pool2d(x, 3, 2, 1)
        for block in self.blocks:
            x = block(x, taps)
        return [taps[name] for name in DENSENET201_TAPS]


class DenseBlock(nn.Module):
    """Layers that each read all channels before them and add 32, in one tensor made beforehand."""

    def __init__(self, weights: Weights, name: str, layers: int):
        super().__init__()
        self.layers = nn.ModuleList(DenseLayer(weights, f"{name}.denselayer{k}") for k in range(1, layers + 1))

    def forward(self, x: Tensor, taps: Taps) -> Tensor:
        n, start, h, w = x.shape
        shape = (n, start + GROWTH * len(self.layers), h, w)
        grown = torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
        grown[:, :start] = x
        for k, layer in enumerate(self.layers):
            channels = start + GROWTH * k
            layer(grown[:, :channels], grown[:, channels : channels + GROWTH], taps)
        return grown


class DenseLayer(nn.Module):
    """norm, ReLU, 1x1, norm, ReLU, 3x3; the last one of the network ends after the 1x1."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.name = name
        self.last = f"{name}.conv1" in DENSENET201_TAPS
        self.norm1 = Norm(weights, f"{name}.norm1")
        self.conv1 = Conv(
            weights,
            f"{name}.conv1",
            None if self.last else f"{name}.norm2",
            activation=None if self.last else functional.relu,
            tapped=DENSENET201_TAPS,
        )
        if not self.last:
            self.conv2 = Conv(weights, f"{name}.conv2", padding=1, activation=None, tapped=DENSENET201_TAPS)

    def forward(self, x: Tensor, added: Tensor, taps: Taps) -> None:
        y = self.norm1(x)
        if self.last:
            taps[f"{self.name}.norm1"] = y
            self.conv1(y.relu(), taps)
        else:
            added.copy_(self.conv2(self.conv1(y.relu_(), taps), taps))


class Transition(nn.Module):
    """norm, ReLU, 1x1 and mean of 2x2; the mean is taken before the 1x1, which is the same at a quarter of the cost."""

    def __init__(self, weights: Weights, name: str):
        super().__init__()
        self.norm = Norm(weights, f"{name}.norm")
        self.conv = Conv(weights, f"{name}.conv", activation=None)

    def forward(self, x: Tensor, taps: Taps) -> Tensor:
        return self.conv(functional.avg_pool2d(self.norm(x).relu_(), 2), taps)


class EfficientNet(nn.Module):
    """EfficientNet-B5 with the padding of a picture of 456x456, whatever the size."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.stem = Conv(weights, "_conv_stem", "_bn0", activation=functional.silu, eps=1e-3, **static_padding(3, 2))
        self.blocks = nn.ModuleList()
        for name, stage, first in efficientnet_blocks():
            self.blocks.append(InvertedBottleneck(weights, name, stage, first=first))
            if self.blocks[-1].last:
                break

    def forward(self, x: Tensor) -> list[Tensor]:
        taps: Taps = {}
        x = self.stem(x, taps)
        for block in self.blocks:
            x = block(x, taps)
        return [taps[name] for name in EFFICIENTNET_B5_TAPS]


def static_padding(kernel: int, stride: int) -> dict:
    """Stride 1: the same on all sides. Stride 2: one more at the right and bottom, 0 and 1 (3x3) or 1 and 2 (5x5).

    One more on all sides gives that too, with one output too many at the left and top: cheaper than a padded copy.
    """
    shifted = stride == 2
    return {"stride": stride, "padding": kernel // 2 + shifted, "shifted": shifted}


class InvertedBottleneck(nn.Module):
    """1x1 up, depthwise, a gate per channel, 1x1 down, and the input added; the last one ends after the second 1x1."""

    def __init__(self, weights: Weights, name: str, stage: Stage, *, first: bool):
        super().__init__()
        self.last = f"{name}._project_conv" in EFFICIENTNET_B5_TAPS
        self.adds = not first and not self.last
        self.expand = None
        if stage.expand > 1:
            self.expand = Conv(weights, f"{name}._expand_conv", f"{name}._bn0", activation=functional.silu, eps=1e-3)
        self.depthwise = Conv(
            weights,
            f"{name}._depthwise_conv",
            f"{name}._bn1",
            groups=len(weights[f"{name}._depthwise_conv.weight"]),
            activation=functional.silu,
            eps=1e-3,
            tapped=EFFICIENTNET_B5_TAPS,
            **static_padding(stage.kernel, stage.stride if first else 1),
        )
        self.squeeze = Conv(weights, f"{name}._se_reduce", activation=functional.silu)
        self.excite = Conv(weights, f"{name}._se_expand", activation=None)
        self.project = Conv(
            weights,
            f"{name}._project_conv",
            None if self.last else f"{name}._bn2",
            activation=None,
            eps=1e-3,
            tapped=EFFICIENTNET_B5_TAPS,
        )

    def forward(self, x: Tensor, taps: Taps) -> Tensor:
        y = x if self.expand is None else self.expand(x, taps)
        y = self.depthwise(y, taps)
        y *= self.excite(self.squeeze(y.mean((2, 3), keepdim=True), taps), taps).sigmoid_()
        y = self.project(y, taps)
        return y.add_(x) if self.adds else y

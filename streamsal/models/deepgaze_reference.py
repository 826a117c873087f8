"""deepgaze-pytorch, the authors' own package, behind the engine's contract: the peer of our DeepGaze.

Where that package is installed, `--backend reference` runs DeepGaze IIE, III or I through it on the same frames, with
the same checkpoint and center bias, as a careful user of it would: no gradients, RGB, float32 unless the run says
otherwise. Code: https://github.com/matthias-k/DeepGaze (1.2.1). Nothing is downloaded. Knows nothing of our networks.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import math
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import model_zoo

from ..errors import DeviceError, StreamsalError, UsageError
from ..weights import checkpoints
from . import center_bias as bias
from .spec import Batch, ModelSpec, Output, Readback, Result, Video, Window

PACKAGE = "deepgaze_pytorch"
INSTALL = (
    "pip install --group reference in a checkout of streamsal, or elsewhere "
    "pip install 'deepgaze-pytorch @ git+https://github.com/matthias-k/DeepGaze'"
)
ONLY_NEWEST = ("clip", "einops")  # imported with the package, used by DeepGaze MSDB alone
INTERPOLATE = functional.interpolate
HISTORY = 4  # fixations that DeepGaze III looks back on


@dataclass(frozen=True, slots=True, kw_only=True)
class Peer:
    """Upstream's class for a model, the least side of a frame it can compute, and whether it wants fixations."""

    network: str
    min_side: int
    fixations: bool = False


PEERS: dict[str, Peer] = {
    "deepgaze_iie": Peer(network="DeepGazeIIE", min_side=64),
    "deepgaze_iii": Peer(network="DeepGazeIII", min_side=58, fixations=True),
    "deepgaze_i": Peer(network="DeepGazeI", min_side=126),
}


@dataclass(frozen=True, slots=True)
class Backend:
    """One model as `models.create_model` and `spec_of` ask for it."""

    name: str

    def spec(self, *, center_bias: str = "mit1003") -> ModelSpec:
        del center_bias
        return reference_spec(self.name)

    def build(
        self,
        weights: str | Path | Mapping[str, Tensor] | None = None,
        *,
        device: torch.device | str,
        center_bias: str = "mit1003",
    ) -> Reference:
        return build(self.name, weights, device=device, center_bias=center_bias)


def reference_spec(name: str) -> ModelSpec:
    """The spec of our own model, but for what upstream gives: one full-size density per frame, and nothing else."""
    summary = f"{peer(name).network} of deepgaze-pytorch, the authors' own code"
    log_density = Output(name="log_density", kind="log_density", units="nats", readback=Readback())
    return replace(
        importlib.import_module(f".{name}", __package__).spec(),
        summary=summary,
        outputs=(log_density,),
        window=lambda frame_rate: Window(),
        state="none",
        pixel_step=1,
        min_side=peer(name).min_side,
        bytes_per_px=500.0,  # 1 GB per 1080p frame: 30 maps and their sums in float32
        constants=(),
        derived=(),
        autocast=True,
    )


def build(
    name: str,
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    center_bias: str | Path = "mit1003",
    dtype: torch.dtype = torch.float32,
) -> Reference:
    """Upstream's network with `weights`, strictly loaded; in float64 what float32 would give without rounding.

    Raises UsageError, MissingWeights, BadInput, DeviceError.
    """
    if torch.device(device).type == "mps":
        raise DeviceError("deepgaze-pytorch keeps constants in float64, which mps does not have: use --device cpu")
    package = import_upstream()
    with no_downloads(package):
        network = getattr(package, peer(name).network)(pretrained=False)
    network.load_state_dict(checkpoints.load(name, weights, network.state_dict()))
    network.eval()  # on a line of its own: upstream's train() returns nothing
    network.to(device, dtype)
    if dtype == torch.float64 and peer(name).fixations:
        for scanpath_network in network.scanpath_networks:  # their input is float32 whatever the fixations are
            scanpath_network.register_forward_pre_hook(lambda module, inputs: inputs[0].double())
    return Reference(reference_spec(name), network, bias.template(center_bias), peer(name).fixations, device, dtype)


class Reference:
    """One of upstream's networks; its state is a video's center bias, (1, H, W) on the device."""

    def __init__(
        self,
        spec: ModelSpec,
        network: nn.Module,
        template_hw: np.ndarray,
        fixations: bool,
        device: torch.device | str,
        dtype: torch.dtype,
    ):
        self.spec = spec
        self.network = network
        self.template_hw = template_hw
        self.fixations = fixations
        self.device, self.dtype = torch.device(device), dtype

    def begin(self, video: Video) -> Tensor:
        # Of the network's dtype: a float64 center bias would make upstream's whole finalizer float64.
        return torch.from_numpy(bias.of_video(self.template_hw, video))[None].to(self.device, self.dtype)

    def step(self, batch: Batch, state: Tensor) -> Result:
        frames_nchw = batch.frames_nhwc.permute(0, 3, 1, 2).to(self.dtype)
        n, _, height, width = frames_nchw.shape
        inputs = [frames_nchw, state.expand(n, -1, -1)]
        if self.fixations:
            inputs += central_fixation(n, height, width, self.device)
        with replaced(functional, "interpolate", interpolate_as_float32):
            log_density = self.network(*inputs).reshape(n, height, width)
        return Result(frame=batch.frame[batch.present], values={"log_density": log_density[batch.present].float()})

    def end(self, state: Tensor) -> None:
        return None


def interpolate_as_float32(x: Tensor, *arguments: Any, **options: Any) -> Tensor:
    """torch's own, but float64 takes the nearest samples that float32 would take: at some sizes they are others."""
    if x.dtype != torch.float64:
        return INTERPOLATE(x, *arguments, **options)
    height, width = x.shape[-2:]
    rows = torch.arange(height, dtype=torch.float32, device=x.device)[:, None].expand(1, 1, height, width)
    columns = torch.arange(width, dtype=torch.float32, device=x.device).expand(1, 1, height, width)
    down, across = (INTERPOLATE(grid, *arguments, **options)[0, 0].long() for grid in (rows, columns))
    return x[..., down[:, 0], :][..., across[0]]


def central_fixation(n: int, height: int, width: int, device: torch.device) -> list[Tensor]:
    """x and y (n, 4) of the last fixations, most recent first: one in the middle of the frame, none before it."""
    x, y = (torch.full((n, HISTORY), math.nan, device=device) for _ in range(2))
    x[:, 0], y[:, 0] = width / 2, height / 2
    return [x, y]


def peer(name: str) -> Peer:
    if name not in PEERS:
        raise UsageError(f"{name} has no reference backend, only {', '.join(PEERS)} have: use --backend own")
    return PEERS[name]


def import_upstream() -> ModuleType:
    """The package deepgaze_pytorch, with placeholders for what only its newest model needs and is not installed."""
    if importlib.util.find_spec(PACKAGE) is None:
        raise UsageError(f"the reference backend needs the package deepgaze-pytorch, which is not installed: {INSTALL}")
    with placeholders(ONLY_NEWEST):
        try:
            return importlib.import_module(PACKAGE)
        except ImportError as error:
            raise UsageError(f"deepgaze-pytorch is installed but cannot be imported ({error}): {INSTALL}") from error


@contextlib.contextmanager
def placeholders(names: tuple[str, ...]) -> Iterator[None]:
    """Empty modules in the place of those that are not installed, gone again afterwards."""
    absent = [name for name in names if name not in sys.modules and importlib.util.find_spec(name) is None]
    for name in absent:
        sys.modules[name] = Placeholder(name)
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


class Placeholder(ModuleType):
    """Has every function one could import from it; calling one says that the module is not installed."""

    def __getattr__(self, attribute: str) -> Callable[..., Any]:
        if attribute.startswith("__"):
            raise AttributeError(attribute)

        def absent(*arguments: object, **options: object) -> Any:
            raise ImportError(f"{self.__name__} is not installed, and {self.__name__}.{attribute} was called")

        return absent


@contextlib.contextmanager
def no_downloads(package: ModuleType) -> Iterator[None]:
    """While upstream builds a network, what it would download for its backbones are untrained networks instead.

    The checkpoint, which is loaded next, has all of these tensors.
    """

    def hub_load(repository: str, network: str, **options: Any) -> nn.Module:
        return torchvision.models.get_model(network, weights=None)

    def load_url(url: str, **options: Any) -> dict[str, Any]:
        if "/resnet50_finetune" in url:
            untrained = nn.ModuleDict({"module": torchvision.models.resnet50(weights=None)})
            return {"state_dict": untrained.state_dict()}
        if "/efficientnet-b5" in url:
            lukemelas = importlib.import_module(f"{package.__name__}.features.efficientnet_pytorch")
            return lukemelas.EfficientNet.from_name("efficientnet-b5").state_dict()
        raise StreamsalError(f"the installed deepgaze-pytorch wants {url}, which 1.2.1 does not: install 1.2.1")

    with (
        replaced(torch.hub, "load", hub_load),
        replaced(model_zoo, "load_url", load_url),
        contextlib.redirect_stdout(io.StringIO()),  # stdout is for results; upstream says there what it has loaded
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", UserWarning)  # torchvision's, about arguments that upstream gives
        yield


@contextlib.contextmanager
def replaced(module: ModuleType, name: str, value: object) -> Iterator[None]:
    original = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, original)

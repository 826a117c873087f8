"""AViNet: ViNet with ears; where people look in each frame of a video, from a clip that ends with it and its sound.

Jain et al. 2021, ViNet: Pushing the Limits of Visual Modality for Audio-Visual Saliency Prediction (samyak0210/ViNet,
MIT), its network "AViNet (bilinear)". RGB frames in, a saliency map of 224 x 384 values in 0 ... 1 out; checked against
numbers of the authors' program. They report that after training the sound hardly matters.

    32 frames > base1 ... base3 > base4 ─┐
                                         ├─ channel by channel > in base4's place to the decoder of ViNet
    70560 samples > SoundNet ────────────┘
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..weights import checkpoints
from . import soundnet, vinet
from .backbones import Weights, constant
from .precision import wanted_dtype
from .sliding_clip import SALIENCY, Memory, SlidingClip, State, check_size, result, window
from .spec import Batch, Model, ModelSpec, Result

FRAMES = 32
WINDOW = window(FRAMES, "replicate")
STEPS = 4  # of base4 in time
VISUAL = "visual_model."
SOUND_NAMES = tuple((f"audionet.conv{layer}", f"audionet.batchnorm{layer}") for layer in range(1, 8))
UNUSED = {"objs": 1000, "scns": 401}  # SoundNet's own answers, which the official file still has


def spec(*, audio: soundnet.Hearing = "time", height: int = 224, width: int = 384) -> ModelSpec:
    """`audio`: which sound it hears, see `soundnet.heard`.

    `height`, `width`: what frames are resized to. The official weights are for 224 x 384 and nothing else, because the
    layer where sight and sound meet has a weight for every place.
    """
    check_size("avinet", height, width)
    return ModelSpec(
        name="avinet",
        summary="saliency map of each frame of a video from the last 32 and their sound: ViNet and SoundNet",
        licence=vinet.LICENCES["vinet"],
        citation=vinet.CITATIONS["vinet"],
        outputs=(SALIENCY,),
        window=lambda frame_rate: WINDOW,
        state="window",
        audio=soundnet.heard("avinet", audio, WINDOW),
        autocast=True,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    audio: soundnet.Hearing = "time",
    height: int = 224,
    width: int = 384,
) -> Model:
    """`weights` as for `checkpoints.load`, the rest as for `spec`."""
    checked = spec(audio=audio, height=height, width=width)
    loaded = checkpoints.load("avinet", weights, template(height, width), adjust={})
    return AViNet(checked, loaded, device=torch.device(device), height=height, width=width)


def template(height: int = 224, width: int = 384) -> dict[str, Tensor]:
    """Every entry of the official checkpoint, in order, as meta tensors; of other sizes, if there were any."""
    entries = {f"{VISUAL}{key}": value for key, value in vinet.template(FRAMES).items()}
    entries |= soundnet.template(SOUND_NAMES, across=False)
    for name, answers in UNUSED.items():
        entries[f"audionet.conv8_{name}.weight"] = torch.empty((answers, 1024, 8, 1), device="meta")
        entries[f"audionet.conv8_{name}.bias"] = torch.empty(answers, device="meta")
    rows, columns = height // 32, width // 32
    places, heard = STEPS * rows * columns, 3
    entries["bilinear.weight"] = torch.empty((places, rows * -(-columns // 2), heard), device="meta")
    entries["bilinear.bias"] = torch.empty(places, device="meta")
    return entries


class Joint(nn.Module):
    """What base4 gave, (4, 1024, h, w), and a row of sound to what the decoder reads in its place."""

    def __init__(self, weights: Weights):
        super().__init__()
        self.hearing = soundnet.SoundNet(weights, SOUND_NAMES)
        self.weight, self.bias = constant(weights["bilinear.weight"]), constant(weights["bilinear.bias"])

    def forward(self, x: Tensor, sound_n: Tensor) -> Tensor:
        seen = x.float().amax(0)[:, :, ::2].flatten(1)  # the highest of all times, every second column
        joined = functional.bilinear(seen, self.hearing(sound_n), self.weight, self.bias)
        return joined.unflatten(1, (STEPS, *x.shape[2:])).transpose(0, 1).to(x.dtype)


class AViNet(SlidingClip):
    """A slid clip whose every map has a row of sound. Sound and where it meets the pictures stay float32."""

    def __init__(self, spec: ModelSpec, weights: Weights, *, device: torch.device, height: int, width: int) -> None:
        visual = {key.removeprefix(VISUAL): value for key, value in weights.items() if key.startswith(VISUAL)}
        self.sight = vinet.Prepared(vinet.ViNet(visual).to(device), height=height, width=width)
        super().__init__(spec, self.sight, device=device, frames=FRAMES)
        self.joint = Joint(weights).to(device)
        self.silence = torch.zeros(soundnet.samples(WINDOW), device=device)

    def step(self, batch: Batch, state: State) -> Result:
        dtype, memory, done = wanted_dtype(self.device), state.memory, dict[int, Tensor]()
        with torch.autocast(self.device.type, enabled=False):
            for slot in range(batch.present.start, batch.present.stop):
                frame = int(batch.frame[slot])
                if memory is not None and frame != memory.last + 1:
                    memory = None
                memory = self.followed(memory, batch.frames_nhwc[slot : slot + 1], frame, dtype)
                if batch.wanted[slot]:
                    sound_n = self.silence if batch.audio_nt is None else batch.audio_nt[slot]
                    done[frame] = self.with_sound(memory, sound_n, dtype)
        state.memory = memory
        return result(done, memory)

    def with_sound(self, memory: Memory, sound_n: Tensor, dtype: torch.dtype) -> Tensor:
        """The map of the last frame. One that float16 cannot hold is computed again from its pictures in float32."""
        assert memory.shared is not None
        logits = self.logits(memory.shared.base1(self.network.base1(dtype)), sound_n, dtype)
        if dtype != torch.float32 and not bool(logits.isfinite().all()):
            logits = self.of_clip(torch.cat(self.clip(memory, memory.last)), sound_n)
        return self.finish(logits.float())

    def of_clip(self, pictures_nhwc: Tensor, sound_n: Tensor) -> Tensor:
        """Logits (h, w) of 32 pictures of their final size, nothing of which is known, in float32."""
        pictures = self.network.normalized(pictures_nhwc, torch.float32)
        return self.logits(self.network.base1(torch.float32)(pictures), sound_n, torch.float32)

    def logits(self, y3: Tensor, sound_n: Tensor, dtype: torch.dtype) -> Tensor:
        network = self.sight[dtype]
        y2, y1, x = network.later(y3)
        joined = self.joint(network.base4(functional.max_pool2d(x, 2)), sound_n)
        return network.decoder(joined, y1, y2, y3)

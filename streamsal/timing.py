"""What a clip is and where clips begin: words of a model and of a user, as plans record them. See `clips`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, get_args

from .errors import UsageError

Sampling = Literal["model", "pyslowfast", "strided", "latent-vectors-service"]
Tail = Literal["shift", "clamp", "drop"]
TIMES = re.compile(r"(?P<seconds>\d+(\.\d+)?|\.\d+)s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """What a clip model sees for one result: `length` frames, `step` apart in a video of `rate` frames per second.

    The window is length * step / rate seconds long, whatever the video's own rate. `sampling`: as the model was tested.
    """

    length: int
    step: int
    rate: float
    sampling: Sampling = "pyslowfast"

    def __post_init__(self) -> None:
        if self.length < 1 or self.step < 1 or not self.rate > 0:
            raise ValueError(f"no such clip: {self}")

    @property
    def seconds(self) -> float:
        return self.length * self.step / self.rate


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where clips begin and how their members lie.

    `stride`: from one start to the next, in frames ("16") or seconds ("0.5s").
    `sampling`: `pyslowfast` spreads the members over the window W as that program's test does, W - 1 frames from first
    to last; `strided` takes every step-th frame of the window, as torchvision does; `model`: as the model was tested;
    `latent-vectors-service` is legacy.
    `tail`: what becomes of the video's last frames, which no whole window may reach. `shift`: one more clip that ends
    with the last frame; `clamp`: every start of the stride gets a clip, which repeats the last frame; `drop`: nothing.
    """

    stride: str = "0.5s"
    sampling: Sampling = "model"
    tail: Tail = "shift"

    def __post_init__(self) -> None:
        match = TIMES.fullmatch(self.stride)
        if not (match and float(match["seconds"]) > 0) and not (self.stride.isdecimal() and int(self.stride) > 0):
            raise UsageError(f"{self.stride!r} is no stride: give seconds (0.5s) or a number of frames (16)")
        for name, known in (("sampling", get_args(Sampling)), ("tail", get_args(Tail))):
            if getattr(self, name) not in known:
                raise UsageError(f"no {name} is named {getattr(self, name)!r}: take {', '.join(known)}")

    @property
    def stride_seconds(self) -> float | None:
        """None where the stride is counted in frames."""
        return float(self.stride[:-1]) if self.stride.endswith("s") else None

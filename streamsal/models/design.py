"""How a classifier of low-resolution clips is built: all that has to be known before there are weights. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

from ..errors import BadInput

ResizerKind = Literal["none", "2d", "3d", "transformer"]
ColorOrder = Literal["rgb", "bgr"]
FrameOrder = Literal["natural", "legacy"]
CHOICES = {"resizer": get_args(ResizerKind), "colors": get_args(ColorOrder), "order": get_args(FrameOrder)}
LAST_TAP = 8  # a transformer may read and warp at nine places of its resizer, see models/resizer.py


@dataclass(frozen=True, slots=True, kw_only=True)
class Architecture:
    """What of a classifier a configuration chooses.

    frames         of one clip; I3D averages over frames / 8 times at its end
    rate           frames per second that a clip is taken at from a film; clips of a data set are taken as they are
    side_in        height and width in pixels of the frames that the resizer gets
    side           of those that I3D sees
    width          factor on the number of channels of I3D; 1 is the published network
    pool_early     I3D's second pooling is there, as in the networks for 224 pixels; without it for 112 and less
    resizer        "none": bilinear. "2d": learned, every frame by itself; "3d": learned, over frames; "transformer":
                   "2d" with a spatial transformer, which reads at tap `read` and warps at tap `apply` (0 ... 8)
    blocks         residual blocks of the resizer
    legacy_layout  the transformer takes planes for frames, as the weights of the program it comes from want it
    """

    frames: int = 32
    rate: float = 30.0
    side_in: int = 56
    side: int = 112
    width: float = 1.0
    pool_early: bool = False
    resizer: ResizerKind = "2d"
    blocks: int = 1
    read: int = 0
    apply: int = 0
    legacy_layout: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Design(Architecture):
    """A resizer in front of an I3D. Raises BadInput where the numbers do not fit together.

    classes        names of the classes, in the order of the logits
    channels       3: colors; 2: optical flow
    colors         "bgr" for weights that were trained with red and blue exchanged
    order          "legacy": the frames of a clip in the order of their numbers as text, 0 1 10 11 ... 19 2 20
    """

    classes: tuple[str, ...]
    channels: Literal[2, 3] = 3
    colors: ColorOrder = "rgb"
    order: FrameOrder = "natural"

    def __post_init__(self) -> None:
        if len(self.classes) < 1 or len(set(self.classes)) < len(self.classes):
            raise BadInput("a classifier needs classes with different names")
        if self.frames < 8 or self.frames % 8:
            raise BadInput(f"frames = {self.frames}: a clip has 16, 32 or 64 frames, or another multiple of 8")
        for name in ("side_in", "side", "blocks"):
            if getattr(self, name) < 1:
                raise BadInput(f"{name} = {getattr(self, name)} makes no sense: it has to be at least 1")
        if not (self.width > 0 and self.rate > 0):
            raise BadInput(f"width = {self.width} and rate = {self.rate} have to be positive")
        if self.channels not in (2, 3):
            raise BadInput(f"channels = {self.channels}: there are 3 of colors, or 2 of flow")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise BadInput(f"{name} = {getattr(self, name)!r} is not known: take {', '.join(known)}")
        if self.resizer == "transformer":
            if not 0 <= self.read <= self.apply <= LAST_TAP:
                raise BadInput(f"read = {self.read}, apply = {self.apply}: they have to be 0 <= read <= apply <= 8")
            side = self.side_in if self.read <= 2 else self.side
            if side % 4:
                raise BadInput(f"a transformer reads pictures whose side is a multiple of 4, not {side} pixels")

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "classes": list(self.classes)}

    @classmethod
    def from_dict(cls, found: Any) -> Design:
        """Of what `to_dict` gives. Raises BadInput for anything else, whatever it is."""
        if not (isinstance(found, Mapping) and isinstance(found.get("classes"), (list, tuple))):
            raise BadInput("it names no classes")
        default = {field.name: field.default for field in fields(cls)}
        if unknown := ", ".join(sorted(map(str, set(found) - set(default)))):
            raise BadInput(f"nothing is known of {unknown}")
        for name, value in found.items():
            allowed = (int, float) if type(default[name]) is float else (type(default[name]),)
            if name != "classes" and type(value) not in allowed:
                raise BadInput(f"{name} = {value!r} is of another kind than {default[name]!r}")
        return cls(**{**found, "classes": tuple(map(str, found["classes"]))})

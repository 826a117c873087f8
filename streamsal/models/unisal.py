"""UNISAL: where people look in each frame of a video, from a small network with a memory; Droste, Jiao & Noble 2020.

The memory takes a step every m frames: frames f, f + m, f + 2m, ... form one of m chains that know nothing of each
other, as in the authors' program (https://github.com/rdroste/unisal, Apache-2.0). A chain would reach back to the
video's first frame; where it begins anew is the option `state`. The default makes every shard compute the same numbers:

    steps of a chain   0 ─────────── 48 ── 60 ──────────── 108 ── 120 ────
    segment 0          └──────────────────┤
    segment 1                        └┄┄┄┄┄└─────────────────────┤         ┄ warm-up of 12 steps, from nothing
    segment 2                                              └┄┄┄┄┄┄└───────
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..errors import UsageError
from ..weights import checkpoints
from .backbones import pixel_scale
from .downscale import Downscale
from .lanczos import Lanczos
from .sigmotion import CUT_CHANGE, CUT_RATIO, CUT_SIZE
from .spec import Batch, Model, ModelSpec, Output, Readback, Result, Video, Window
from .unisal_network import CHANNELS, COARSE, DOMAINS, Domain, Network, template

__all__ = ["Unisal", "build", "network_size", "spec", "template"]

SEGMENT = 60  # steps of a chain that share a beginning
WARM_UP = 12  # steps before them: as many as the sequences it was trained on
STEPS_PER_SECOND = 6  # of the videos it was trained on: every 5th frame at 30 frames per second

Mode = Literal["auto", "dynamic", "static"]
Step = Literal["upstream", "auto"]
Policy = Literal["anchored", "shot", "relay"]
CHOICES = {
    "domain": tuple(DOMAINS),
    "mode": ("auto", "dynamic", "static"),
    "step": ("upstream", "auto"),
    "state": ("anchored", "shot", "relay"),
}


def spec(
    *,
    domain: Domain = "dhf1k",
    mode: Mode = "auto",
    step: Step = "upstream",
    state: Policy = "anchored",
    height: int | None = None,
    width: int | None = None,
) -> ModelSpec:
    """`domain`: the data whose norms, prior and smoothing it computes with. `mode`: with memory (`dynamic`) or each
    frame by itself (`static`); `auto` is static for pictures (salicon) only. `step`: a chain takes every 5th frame of
    dhf1k and every 4th of the others, as upstream, whatever the frame rate; `auto`: those nearest to 6 per second.
    `state`: chains begin anew in segments (`anchored`), besides at every cut (`shot`), or never: every shard goes on
    where the one before it ended (`relay`). `height`, `width`: what the network sees, multiples of 32; by default what
    upstream makes of a frame's size."""
    for option, value in (("domain", domain), ("mode", mode), ("step", step), ("state", state)):
        if value not in CHOICES[option]:
            raise UsageError(f"unisal has no {option} {value!r}: choose {', '.join(CHOICES[option])}")
    check_sides(height, width)
    static = is_static(domain, mode)

    def window(frame_rate: float) -> Window:
        if static or state == "relay":
            return Window()
        # A chain's oldest frame of any use is where its segment's warm-up begins; a cut is known from two frames more.
        return Window(past=(SEGMENT + WARM_UP - 1) * frames_per_step(domain, step, frame_rate) + 2 * (state == "shot"))

    return ModelSpec(
        name="unisal",
        summary="log density of each frame of a video from all that was before: MobileNetV2 with a memory",
        licence="Apache-2.0",
        citation="Droste, Jiao & Noble 2020, Unified Image and Video Saliency Modeling, ECCV",
        outputs=(Output(name="log_density", kind="log_density", units="nats", readback=Readback()),),
        window=window,
        state="none" if static else "relay" if state == "relay" else "window",
        bytes_per_px=60,
    )


def build(
    weights: str | Path | Mapping[str, Tensor] | None = None,
    *,
    device: torch.device | str,
    domain: Domain = "dhf1k",
    mode: Mode = "auto",
    step: Step = "upstream",
    state: Policy = "anchored",
    height: int | None = None,
    width: int | None = None,
) -> Model:
    """`weights` as for `checkpoints.load`, the rest as for `spec`."""
    checked = spec(domain=domain, mode=mode, step=step, state=state, height=height, width=width)
    loaded = checkpoints.load("unisal", weights, template())
    return Unisal(
        checked,
        Network(loaded, domain),
        domain=domain,
        static=is_static(domain, mode),
        step=step,
        policy=state,
        size=(height, width) if height and width else None,
        device=torch.device(device),
    )


def is_static(domain: Domain, mode: Mode) -> bool:
    return domain == "salicon" if mode == "auto" else mode == "static"


def frames_per_step(domain: Domain, step: Step, frame_rate: float) -> int:
    if step == "auto":
        return max(1, math.floor(frame_rate / STEPS_PER_SECOND + 0.5))
    return 5 if domain == "dhf1k" else 4


def check_sides(height: int | None, width: int | None) -> None:
    sides = height, width
    if sides != (None, None) and not all(side and side > 0 and side % COARSE == 0 for side in sides):
        raise UsageError(f"unisal cannot see {height}x{width}: give height and width, multiples of 32 like 224 and 384")


def network_size(domain: Domain, height: int, width: int) -> tuple[int, int]:
    """As upstream: the size of the data set, else the shape of 100 to 120 squares of 32 that is nearest."""
    if domain == "dhf1k" and (height, width) == (360, 640):
        return 224, 384
    if domain in ("hollywood", "ucfsports"):
        return (224, 416) if domain == "hollywood" else (256, 384)
    shapes = [(rows, columns) for rows in range(7, 14) for columns in range(7, 14) if 100 <= rows * columns <= 120]

    def likeness(shape: tuple[int, int]) -> float:
        ratios = height / width, shape[0] / shape[1]
        return min(ratios) / max(ratios)

    rows, columns = max(shapes, key=likeness)
    return COARSE * rows, COARSE * columns


Source = Literal["nothing", "scan", "ahead"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Goes:
    """What a chain goes on from at its next frame: its memory (`scan`), and what warms up beside it for the next
    segment (`ahead`); None where there is none."""

    scan: Source | None = None
    ahead: Source | None = None

    def at_step(self, step: int) -> Goes:
        """As a step in the life of all chains wants it, wherever this one was begun."""
        if step == 0:
            return Goes(scan="nothing")
        if step % SEGMENT == 0 and self.ahead:
            return Goes(scan=self.ahead)
        return replace(self, ahead="nothing") if step % SEGMENT == SEGMENT - WARM_UP else self

    def after(self) -> Goes:
        """Behind a frame."""
        return Goes(scan="scan" if self.scan else None, ahead="ahead" if self.ahead else None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A frame that has to be encoded: its slot, its chain and what that goes on from."""

    slot: int
    chain: int
    goes: Goes


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Memory (1, 256, h, w) of a chain after its latest frame, and of what warms up beside it, if there are."""

    scan: Tensor | None = None
    ahead: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """`frame`: the latest one. `thumbnail` (1, 3, 18, 32) and `change` of it are for finding cuts, else None and 0."""

    frame: int | None
    chains: tuple[Chain, ...]
    thumbnail: Tensor | None = None
    change: float = 0.0


@dataclass(slots=True, kw_only=True)
class State:
    size: tuple[int, int]
    resize: Lanczos
    thumbnails: Downscale | None
    memory: Memory


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoded:
    """Of one frame, all (1, c, y, x): what the decoder needs, and the cell's gates; none for a frame by itself."""

    coarse: Tensor
    skip_2x: Tensor
    skip_4x: Tensor
    gates: tuple[Tensor, Tensor, Tensor] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Looked:
    """What the pixels of a batch say: features by slot, slots that begin a shot, and what the next cut is found by."""

    encoded: dict[int, Encoded]
    cuts: set[int]
    thumbnail: Tensor | None
    change: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What a density is made of: features, and the memory (1, 256, h, w) after the frame; none in `static`."""

    encoded: Encoded
    hidden: Tensor | None


class Unisal:
    """All in float32: in float16 densities move by 0.04 in total variation.

    A CPU computes frames one by one, a GPU all slots of a batch at once, and the cell always all chains, so that no bit
    of a frame depends on its neighbors.
    """

    def __init__(
        self,
        spec: ModelSpec,
        network: Network,
        *,
        domain: Domain,
        static: bool,
        step: Step,
        policy: Policy,
        size: tuple[int, int] | None,
        device: torch.device,
    ) -> None:
        self.spec = spec
        self.network = network.to(device).eval()
        self.domain: Domain = domain
        self.static = static
        self.stride: Step = step
        self.policy = policy
        self.size = size
        self.device = device
        self.one_by_one = device.type == "cpu"

    def begin(self, video: Video) -> State:
        size = self.size or network_size(self.domain, video.height, video.width)
        frame_size = video.height, video.width
        finds_cuts = self.policy == "shot" and not self.static
        return State(
            size=size,
            resize=Lanczos(frame_size, size, device=self.device),
            thumbnails=Downscale(*frame_size, [CUT_SIZE], device=self.device) if finds_cuts else None,
            memory=Memory(frame=None, chains=(Chain(),) * self.chains(video.frame_rate)),
        )

    def step(self, batch: Batch, state: State) -> Result:
        known, memory = self.recall(batch, self.look(batch, state), state)
        result = self.answer(batch, known, state)
        state.memory = memory
        return result

    def look(self, batch: Batch, state: State) -> Looked:
        """What does not depend on the memory, for the state `relay` at least: there every present frame is encoded."""
        cuts, thumbnail, change = self.cuts(batch, state)
        if self.static:
            slots = np.flatnonzero(batch.wanted).tolist()
        else:
            slots = [visit.slot for visit in self.plan(batch, cuts, state)[0]]
        return Looked(encoded=self.encode(batch, slots, state), cuts=cuts, thumbnail=thumbnail, change=change)

    def remember(self, batch: Batch, looked: Looked, state: State) -> dict[int, Known]:
        known, state.memory = self.recall(batch, looked, state)
        return known

    def answer(self, batch: Batch, known: Mapping[int, Known], state: State) -> Result:
        """The densities of wanted frames."""
        found = [torch.zeros(0, *state.size, device=self.device)]
        for together in self.passes(np.flatnonzero(batch.wanted).tolist(), len(batch.frame)):
            frames = [known[slot] for slot in range(together.start, together.stop)]
            memories = [frame.hidden for frame in frames if frame.hidden is not None]
            maps = self.densities([frame.encoded for frame in frames], torch.cat(memories) if memories else None)
            found.append(maps[torch.from_numpy(batch.wanted[together]).to(self.device)])
        return Result(frame=batch.frame[batch.wanted], values={"log_density": torch.cat(found)})

    def recall(self, batch: Batch, looked: Looked, state: State) -> tuple[dict[int, Known], Memory]:
        """What is known of the frames to answer for, by slot, and the memory behind the batch."""
        if self.static:
            return {slot: Known(encoded=one, hidden=None) for slot, one in looked.encoded.items()}, state.memory
        visits, ends = self.plan(batch, looked.cuts, state)
        hidden, chains = self.scan(visits, ends, looked.encoded, state)
        known = {
            slot: Known(encoded=replace(one, gates=None), hidden=hidden.get(slot, self.blank(state.size)))
            for slot, one in looked.encoded.items()
            if batch.wanted[slot] or not self.one_by_one
        }
        frame = int(batch.frame[batch.present][-1])
        return known, Memory(frame=frame, chains=chains, thumbnail=looked.thumbnail, change=looked.change)

    def plan(self, batch: Batch, cuts: set[int], state: State) -> tuple[list[Visit], tuple[Goes, ...]]:
        return plan_visits(batch, state.memory, cuts, anchored=self.policy != "relay")

    def chains(self, frame_rate: float) -> int:
        return frames_per_step(self.domain, self.stride, frame_rate)

    def end(self, state: State) -> None:
        return None

    def save(self, state: State) -> dict[str, np.ndarray]:
        """What the next shard needs, for the state `relay`: `hidden` (m, 256, h, w) float32, zero for a chain without a
        frame, and the number of the latest `frame`, -1 before the first."""
        chains = [self.blank(state.size) if chain.scan is None else chain.scan for chain in state.memory.chains]
        frame = -1 if state.memory.frame is None else state.memory.frame
        return {"hidden": torch.cat(chains).contiguous().cpu().numpy(), "frame": np.array(frame, np.int64)}

    def load(self, state: State, arrays: Mapping[str, np.ndarray]) -> None:
        """Raises ValueError for arrays of another frame size or rate."""
        wanted = (len(state.memory.chains), *self.blank(state.size).shape[1:])
        if arrays["hidden"].shape != wanted:
            raise ValueError(f"a saved state of shape {arrays['hidden'].shape} is not one of {wanted}")
        hidden = torch.from_numpy(arrays["hidden"]).to(self.device, memory_format=torch.channels_last)
        frame = int(arrays["frame"])
        chains = tuple(Chain(scan=hidden[row : row + 1]) for row in range(len(hidden)))
        state.memory = Memory(frame=None if frame < 0 else frame, chains=chains)

    def cuts(self, batch: Batch, state: State) -> tuple[set[int], Tensor | None, float]:
        """Slots that begin a shot, by the rule of sigmotion, which looks at no later frame; and what it goes on from.

        None are looked for without `shot`.
        """
        memory = state.memory
        if state.thumbnails is None:
            return set(), None, 0.0
        (thumbnails,) = state.thumbnails(batch.frames_nhwc)
        found, frame, change, before = set(), memory.frame, memory.change, memory.thumbnail
        for slot in range(batch.present.start, batch.present.stop):
            thumbnail, last = thumbnails[slot : slot + 1], change
            change = 0.0
            if before is not None and batch.frame[slot] - 1 == frame:
                change = float((thumbnail - before).abs().mean())
                if change > CUT_CHANGE and change > CUT_RATIO * last:
                    found.add(slot)
            frame, before = int(batch.frame[slot]), thumbnail
        return found, before, change

    def encode(self, batch: Batch, slots: Sequence[int], state: State) -> dict[int, Encoded]:
        """By slot. `slots` rise; on a GPU all of the batch are computed if any is wanted."""
        found: dict[int, Encoded] = {}
        for together in self.passes(slots, len(batch.frame)):
            scale, shift = pixel_scale(self.device)
            x = torch.addcmul(shift, state.resize(batch.frames_nhwc[together]), scale)
            coarse, skip_2x, skip_4x = self.network.encode(x)
            gates = None if self.static else self.network.of_picture(coarse)
            for row, slot in enumerate(range(together.start, together.stop)):
                found[slot] = Encoded(
                    coarse=one_row(coarse, row),
                    skip_2x=one_row(skip_2x, row),
                    skip_4x=one_row(skip_4x, row),
                    gates=gates and (one_row(gates[0], row), one_row(gates[1], row), one_row(gates[2], row)),
                )
        return found

    def passes(self, slots: Sequence[int], n_slots: int) -> list[slice]:
        if self.one_by_one:
            return [slice(slot, slot + 1) for slot in slots]
        return [slice(0, n_slots)] if slots else []

    def scan(
        self,
        visits: Sequence[Visit],
        ends: Sequence[Goes],
        encoded: Mapping[int, Encoded],
        state: State,
    ) -> tuple[dict[int, Tensor], tuple[Chain, ...]]:
        """The memory after each visited frame, by slot, and the chains behind the last one."""
        blank = self.blank(state.size)
        chains = [{"nothing": blank, "scan": chain.scan, "ahead": chain.ahead} for chain in state.memory.chains]
        found: dict[int, Tensor] = {}
        for wave in waves(visits):
            gates = self.gates(wave, encoded, blank, len(chains))
            after = {}
            for which in ("scan", "ahead"):
                sources = {chain: source for chain, visit in wave.items() if (source := getattr(visit.goes, which))}
                if sources:
                    hidden = [chain[sources[row]] if row in sources else blank for row, chain in enumerate(chains)]
                    after[which] = self.network.remember(gates, torch.cat(hidden)), sources
            for which, (hidden, sources) in after.items():
                for row in sources:
                    chains[row][which] = one_row(hidden, row)
            found |= {visit.slot: chains[row]["scan"] for row, visit in wave.items() if visit.goes.scan}
        return found, tuple(
            Chain(scan=end.scan and chain[end.scan], ahead=end.ahead and chain[end.ahead])
            for chain, end in zip(chains, ends, strict=True)
        )

    def gates(
        self, wave: Mapping[int, Visit], encoded: Mapping[int, Encoded], blank: Tensor, n_chains: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of the frames of a wave, one row per chain; zero for chains without a frame in it."""
        rows = [encoded[wave[row].slot].gates if row in wave else None for row in range(n_chains)]
        reset, update, new = (torch.cat([gates[part] if gates else blank for gates in rows]) for part in range(3))
        return reset, update, new

    def remembered(self, frames: Sequence[Encoded], hidden: Tensor | None) -> Tensor:
        """The memory of all chains after a frame of each, (m, 256, h, w), from that before it; None is nothing."""
        reset, update, new = (torch.cat([frame.gates[part] for frame in frames if frame.gates]) for part in range(3))
        return self.network.remember((reset, update, new), torch.zeros_like(reset) if hidden is None else hidden)

    def densities(self, frames: Sequence[Encoded], hidden: Tensor | None) -> Tensor:
        """(n, H, W) log densities of frames, with the memory after each, (n, 256, h, w), or without any."""
        return self.network.decoder(
            torch.cat([frame.coarse for frame in frames]),
            hidden,
            torch.cat([frame.skip_2x for frame in frames]),
            torch.cat([frame.skip_4x for frame in frames]),
        )

    def blank(self, size: tuple[int, int]) -> Tensor:
        """The memory of nothing, (1, 256, h, w)."""
        zeros = torch.zeros(1, CHANNELS, size[0] // COARSE, size[1] // COARSE, device=self.device)
        return zeros.contiguous(memory_format=torch.channels_last)


def one_row(x: Tensor, row: int) -> Tensor:
    """(1, ...) of (n, ...), a copy where there are others: a view keeps all of them in memory, and in a pickle."""
    return x if len(x) == 1 else x[row : row + 1].clone(memory_format=torch.preserve_format)


def plan_visits(
    batch: Batch, memory: Memory, cuts: set[int], *, anchored: bool
) -> tuple[list[Visit], tuple[Goes, ...]]:
    """Which present frames have to be encoded, and what every chain goes on from behind the last of them.

    Frames that no wanted one depends on are left out: those before the warm-up of the first segment that is wanted.
    """
    last, n_chains = memory.frame, len(memory.chains)
    chains = [
        Goes(scan="scan" if c.scan is not None else None, ahead="ahead" if c.ahead is not None else None)
        for c in memory.chains
    ]
    visits = []
    for slot in range(batch.present.start, batch.present.stop):
        frame = int(batch.frame[slot])
        if frame - 1 != last:
            chains = [Goes()] * n_chains
        if slot in cuts:
            chains = [Goes(scan="nothing")] * n_chains
        step, chain = divmod(frame, n_chains)
        goes = chains[chain]
        if anchored:
            goes = goes.at_step(step)
        if goes.scan is None and (batch.wanted[slot] or not anchored):
            goes = replace(goes, scan="nothing")
        if goes != Goes():
            visits.append(Visit(slot=slot, chain=chain, goes=goes))
        chains[chain] = goes.after()
        last = frame
    return visits, tuple(chains)


def waves(visits: Iterable[Visit]) -> Iterator[dict[int, Visit]]:
    """Consecutive visits by chain, each chain once at most."""
    wave: dict[int, Visit] = {}
    for visit in visits:
        if visit.chain in wave:
            yield wave
            wave = {}
        wave[visit.chain] = visit
    if wave:
        yield wave

"""A model whose memory has no end: what it answers for a frame tells of every frame before it, in order.

`memory` of frame k is how many frames were remembered, and a checksum of the numbers drawn into them (telltale.py) that
another order, a frame twice or a frame left out would change.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))
from telltale import read_numbers

from streamsal.models.spec import Batch, ModelSpec, Output, Result, Video

PRIME = 65521
SPEC = ModelSpec(
    name="relaytale",
    summary="says what it remembers",
    licence="Apache-2.0",
    citation="none needed",
    outputs=(Output(name="memory", kind="features", units="1", exact=True),),
    state="relay",
)


def folded(memory: tuple[int, int], number: int) -> tuple[int, int]:
    return memory[0] + 1, (memory[1] * 31 + number + 1) % PRIME


@dataclass(slots=True)
class State:
    memory: tuple[int, int] = (0, 0)


class Relaytale:
    spec = SPEC

    def begin(self, video: Video) -> State:
        return State()

    def step(self, batch: Batch, state: State) -> Result:
        return self.answer(batch, self.remember(batch, self.look(batch, state), state), state)

    def end(self, state: State) -> None:
        return None

    def look(self, batch: Batch, state: State) -> list[int]:
        return read_numbers(batch.frames_nhwc[batch.present])

    def remember(self, batch: Batch, looked: list[int], state: State) -> list[tuple[int, int]]:
        known = []
        for number in looked:
            state.memory = folded(state.memory, number)
            known.append(state.memory)
        return known

    def answer(self, batch: Batch, known: list[tuple[int, int]], state: State) -> Result:
        wanted = batch.wanted[batch.present]
        rows = torch.tensor(known, dtype=torch.float32)[torch.from_numpy(wanted)]
        return Result(frame=batch.frame[batch.wanted], values={"memory": rows})

    def save(self, state: State) -> dict[str, np.ndarray]:
        return {"memory": np.array(state.memory)}

    def load(self, state: State, arrays: Mapping[str, np.ndarray]) -> None:
        count, checksum = arrays["memory"].tolist()
        state.memory = count, checksum


def build(weights: None = None, *, device: torch.device | str) -> Relaytale:
    return Relaytale()

"""Who computes which frame: integer arithmetic and its JSON. Knows no files but plan.json, no video, no model.

A selection says which frames of a video get a result, a grid in which slot of which batch a model sees a frame, a plan
cuts the selections of all videos into shards of near-equal cost. Selection and grid are functions of the video alone,
so a frame meets the same neighbors in the same slots however the work is divided.

    frame      0    8    16   24   32         batch size 8, window of 3 past frames
    batches    ├────┼────┼────┼────┤
    shard            ···[==========)          ··· seen for warm-up only, [==) owned
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from .errors import MissingInput, PlanMismatch
from .files import write_bytes
from .timing import Clip, Timing

FORMAT = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The frames of a video that get a result: start, start + every, ... below stop."""

    start: int
    stop: int
    every: int = 1

    def __post_init__(self) -> None:
        if not (0 <= self.start <= self.stop and self.every >= 1):
            raise ValueError(f"no such selection: {self}")

    @property
    def frames(self) -> range:
        return range(self.start, self.stop, self.every)

    def owned(self, start: int, stop: int) -> range:
        """Those that a shard owning [start, stop) answers for; `start` is one of them."""
        return range(start, min(stop, self.stop), self.every)

    def ordinal(self, frame: int) -> int:
        """How many selected frames lie before `frame`."""
        return max(0, -(-(min(frame, self.stop) - self.start) // self.every))

    def border(self, ordinal: int) -> int:
        """The frame that begins at `ordinal`; the end of the selection behind the last one."""
        return min(self.start + ordinal * self.every, self.stop)


@dataclass(frozen=True, slots=True, kw_only=True)
class Slots:
    """One batch as a shard sees it: the frames it holds, in the slots `present` of a batch of fixed size."""

    present: slice
    frames: tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grid:
    """In which slot of which batch a model sees a frame.

    Frames are ranked, and batch b holds ranks b * batch_size ... While every selected frame's window touches the next
    one's, all frames are seen and the rank is the frame number itself. Where windows leave gaps (sparse sampling)
    only the windows are seen, one after another.
    """

    selection: Selection
    n_frames: int
    batch_size: int
    past: int = 0
    future: int = 0

    @property
    def length(self) -> int:
        return self.past + 1 + self.future

    @property
    def dense(self) -> bool:
        return self.selection.every <= self.length

    def frame(self, rank: int) -> int:
        """Frame of a rank; outside 0 ... n_frames - 1 where a window reaches beyond the video."""
        if self.dense:
            return rank
        ordinal, offset = divmod(rank, self.length)
        return self.selection.start + ordinal * self.selection.every + offset - self.past

    def ranks(self, start: int, stop: int) -> range:
        """Ranks that a shard owning the selected frames in [start, stop) has to see."""
        owned = self.selection.owned(start, stop)
        if not owned:
            return range(0)
        if self.dense:
            return range(max(0, start - self.past), min(owned[-1] + self.future, self.n_frames - 1) + 1)
        first = self.selection.ordinal(start) * self.length
        last = self.selection.ordinal(owned[-1]) * self.length + self.length - 1
        while self.frame(first) < 0:
            first += 1
        while self.frame(last) >= self.n_frames:
            last -= 1
        return range(first, last + 1)

    def batches(self, start: int, stop: int) -> Iterator[Slots]:
        """The batches of a shard that owns [start, stop), warm-up first."""
        ranks = self.ranks(start, stop)
        if not ranks:
            return
        for batch in range(ranks[0] // self.batch_size, ranks[-1] // self.batch_size + 1):
            base = batch * self.batch_size
            low, high = max(base, ranks[0]), min(base + self.batch_size, ranks[-1] + 1)
            yield Slots(present=slice(low - base, high - base), frames=tuple(map(self.frame, range(low, high))))

    def aligned(self, frame: int) -> int:
        """The selected frame nearest to `frame` at which a batch begins, if that can be had; else `frame`."""
        selection, size = self.selection, self.batch_size
        if self.length == 1 and not self.dense:
            ordinal = (selection.ordinal(frame) + size // 2) // size * size
            return selection.border(ordinal)
        if selection.every == 1:
            return min(max((frame + size // 2) // size * size, selection.start), selection.stop)
        return frame


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Selected frames of one video in [start, stop); `video` counts in the plan's list."""

    video: int
    start: int
    stop: int


Shard = tuple[Part, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedVideo:
    """A video as it was when the plan was made, and what is wanted of it.

    `height`, `width`: displayed size in pixels, the size maps are read back at. `model_height`, `model_width`: what the
    model sees. `past`, `future`: its window in frames. `clips`: how many clips a clip model makes of the video; what is
    selected and divided (`start`, `stop`) are then clips, not frames. `fingerprint` identifies the content wherever the
    file lies.
    """

    name: str
    path: str
    size: int
    mtime_ns: int
    fingerprint: str
    stream: int
    n_frames: int
    frame_rate: float
    height: int
    width: int
    model_height: int
    model_width: int
    start: int
    stop: int
    every: int
    past: int
    future: int
    clips: int | None = None

    @property
    def selection(self) -> Selection:
        return Selection(start=self.start, stop=self.stop, every=self.every)

    def grid(self, batch_size: int) -> Grid:
        return Grid(
            selection=self.selection,
            n_frames=self.n_frames if self.clips is None else self.clips,
            batch_size=batch_size,
            past=self.past,
            future=self.future,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedModel:
    """The model of a run: its name or file, its weights file, and the checksum of what these two hold.

    `weights` is a path or "synthetic"; `center_bias` is the path of its center bias where that comes from a file;
    `saliency` the run that places are weighed by, where vectors are pooled so, and `saliency_plan` that run's plan.
    """

    name: str
    weights: str = ""
    sha256: str = ""
    center_bias: str = ""
    center_bias_sha256: str = ""
    saliency: str = ""
    saliency_plan: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What changes the stored numbers beside video and model. `clip`, `timing`: of clip models, what one of their clips
    is and where clips begin."""

    dtype: str = "auto"
    store_dtype: str = "float16"
    long_side: int | None = None
    px_per_degree: float | None = None
    clip: Clip | None = None
    timing: Timing | None = None


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything the tasks of one run agree on. Written once, read by all."""

    model: PlannedModel
    settings: Settings
    batch_size: int
    videos: tuple[PlannedVideo, ...]
    shards: tuple[Shard, ...]
    version: str = ""

    @cached_property
    def id(self) -> str:
        """Identity of the work: where a file lies and when it was copied there do not count."""
        content = self.to_dict()
        for video in content["videos"]:
            del video["path"], video["mtime_ns"]
        for name in ("weights", "center_bias", "saliency"):
            del content["model"][name]
        del content["version"]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    @property
    def of_clips(self) -> tuple[Clip, Timing] | None:
        """What a clip is and where clips begin, in a plan for a clip model."""
        clip, timing = self.settings.clip, self.settings.timing
        return (clip, timing) if clip and timing else None

    def rows(self, shard: int) -> int:
        """Number of results that a shard owns."""
        return sum(len(self.owned(part)) for part in self.shards[shard])

    def owned(self, part: Part) -> range:
        return self.videos[part.video].selection.owned(part.start, part.stop)

    def owner(self, video: int, frame: int) -> int | None:
        """The shard that has a frame (of a clip model: a clip) of a video; None where no shard has it."""
        for shard, parts in enumerate(self.shards):
            if any(part.video == video and part.start <= frame < part.stop for part in parts):
                return shard
        return None

    def to_dict(self) -> dict[str, Any]:
        """By hand where plans are long: `asdict` takes most of a second for ten thousand shards."""
        return {
            "format": FORMAT,
            "model": asdict(self.model),
            "settings": asdict(self.settings),
            "batch_size": self.batch_size,
            "videos": [asdict(video) for video in self.videos],
            "shards": [[{"video": p.video, "start": p.start, "stop": p.stop} for p in shard] for shard in self.shards],
            "version": self.version,
        }

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Plan:
        if content.get("format") != FORMAT:
            raise ValueError(f"plan format {content.get('format')} is not {FORMAT}")
        clip, timing = content["settings"]["clip"], content["settings"]["timing"]
        return cls(
            model=PlannedModel(**content["model"]),
            settings=Settings(
                **{**content["settings"], "clip": clip and Clip(**clip), "timing": timing and Timing(**timing)}
            ),
            batch_size=content["batch_size"],
            videos=tuple(PlannedVideo(**video) for video in content["videos"]),
            shards=tuple(tuple(Part(**part) for part in shard) for shard in content["shards"]),
            version=content["version"],
        )

    def save(self, path: str | Path) -> None:
        content = {**self.to_dict(), "id": self.id}
        write_bytes(path, (json.dumps(content, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Plan:
        """Raises MissingInput where there is no plan, PlanMismatch where the file is not what was written."""
        try:
            content = json.loads(Path(path).read_bytes())
        except FileNotFoundError:
            raise MissingInput(f"no plan in {Path(path).parent}: make one with `streamsal plan VIDEO...`") from None
        except ValueError:
            raise PlanMismatch(f"{path} is not readable as a plan: delete the run directory and plan again") from None
        try:
            plan = cls.from_dict(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise PlanMismatch(f"{path} is no plan of this version ({error}): plan again in a new directory") from None
        if plan.id != content.get("id"):
            raise PlanMismatch(
                f"{path} was edited after planning: its checksum is wrong; plan again in a new directory"
            )
        return plan


# Opening a video costs a task about as much as this many of its frames (seek, pre-roll, warm-up). It is spread over the
# video's frames, because every shard that holds a part of it opens it.
OPENING_FRAMES = 32


def cut(videos: Sequence[PlannedVideo], n_shards: int, batch_size: int) -> tuple[Shard, ...]:
    """Shards of near-equal cost that hold every selected frame exactly once, in order.

    A border moves to where a batch begins if shards are long enough not to feel it, and never leaves a sliver of a
    video shorter than its warm-up is worth. With more shards than frames some are empty.
    """
    if n_shards < 1:
        raise ValueError(f"{n_shards = } must be at least 1")
    counts = [len(video.selection.frames) for video in videos]
    totals = [
        _frame_cost(video) * (count + OPENING_FRAMES) if count else 0
        for video, count in zip(videos, counts, strict=True)
    ]
    total = sum(totals)
    borders = [_border(videos, counts, totals, t * total // n_shards, batch_size, n_shards) for t in range(n_shards)]
    borders.append((len(videos), 0))
    return tuple(_shard(videos, first, last) for first, last in itertools.pairwise(borders))


def _frame_cost(video: PlannedVideo) -> int:
    """Relative cost of one result: the pixels its model sees, and a sixteenth of those decoded to get there."""
    seen, decoded = min(video.every, video.past + 1 + video.future), video.every
    if video.clips:
        seen = decoded = max(1, video.n_frames // video.clips)
    return max(1, (seen * video.model_height * video.model_width + decoded * video.height * video.width // 16) // 256)


def _border(
    videos: Sequence[PlannedVideo],
    counts: Sequence[int],
    totals: Sequence[int],
    position: int,
    batch_size: int,
    n_shards: int,
) -> tuple[int, int]:
    """(video, ordinal) at which the shard beginning at `position` of the whole cost starts. Monotone in `position`."""
    for number, (video, count, here) in enumerate(zip(videos, counts, totals, strict=True)):
        if position >= here:
            position -= here
            continue
        ordinal = (2 * position * count + here) // (2 * here)
        per_shard = sum(totals) * count // (n_shards * here)
        if per_shard >= 16 * batch_size and 0 < ordinal < count:  # the ends of a video are not to be moved
            aligned = video.grid(batch_size).aligned(video.selection.border(ordinal))
            ordinal = video.selection.ordinal(aligned)
        sliver = min(64, 4 * (video.past + video.future))
        if per_shard >= 8 * sliver:
            ordinal = 0 if ordinal < sliver else count if count - ordinal < sliver else ordinal
        return (number, ordinal) if ordinal < count else (number + 1, 0)
    return len(videos), 0


def _shard(videos: Sequence[PlannedVideo], first: tuple[int, int], last: tuple[int, int]) -> Shard:
    parts = []
    for number in range(first[0], min(last[0] + 1, len(videos))):
        selection = videos[number].selection
        low = first[1] if number == first[0] else 0
        high = last[1] if number == last[0] else len(selection.frames)
        if low < high:
            parts.append(Part(video=number, start=selection.border(low), stop=selection.border(high)))
    return tuple(parts)


def array_spec(ids: Iterable[int]) -> str:
    """Task numbers as a scheduler writes them: [0, 1, 2, 7] is "0-2,7"."""
    runs: list[list[int]] = []
    for number in sorted(set(ids)):
        if runs and runs[-1][1] == number - 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in runs)


def tasks_named(ids: Sequence[int]) -> str:
    """ "task 3", "tasks 0-2,7"."""
    return f"{'task' if len(ids) == 1 else 'tasks'} {array_spec(ids)}"


def counted(number: int, noun: str) -> str:
    """ "1 task", "3 tasks"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def differences(planned: Plan, wanted: Plan, *, shards: bool) -> list[str]:
    """What a new request asks for that the existing plan does not say, in words; empty when they agree."""
    found = []
    for video, other in _paired(planned.videos, wanted.videos):
        if video is None or other is None:
            name = (video or other).name  # type: ignore[union-attr]
            found.append(f"video {name} is {'not in the plan' if video is None else 'in the plan but not asked for'}")
        elif video.fingerprint != other.fingerprint:
            found.append(
                f"video {video.name} has changed since it was planned ({video.size} bytes then, {other.size} now)"
            )
        else:
            found += _fields(f"{video.name}: ", video, other, skip={"path", "mtime_ns", "size"})
    found += _fields("model ", planned.model, wanted.model, skip={"weights", "center_bias", "saliency"})
    found += _fields("", planned.settings, wanted.settings)
    if planned.batch_size != wanted.batch_size:
        found.append(f"batch size {planned.batch_size} in the plan, {wanted.batch_size} now")
    if shards and not found and len(planned.shards) != len(wanted.shards):
        found.append(f"{counted(len(planned.shards), 'task')} in the plan, {len(wanted.shards)} now")
    return found


def _paired(
    planned: Sequence[PlannedVideo], wanted: Sequence[PlannedVideo]
) -> Iterator[tuple[PlannedVideo | None, PlannedVideo | None]]:
    ours, theirs = {v.name: v for v in planned}, {v.name: v for v in wanted}
    for name in dict.fromkeys([*ours, *theirs]):
        yield ours.get(name), theirs.get(name)


def _fields(prefix: str, planned: object, wanted: object, skip: set[str] = frozenset()) -> list[str]:  # type: ignore[assignment]
    ours, theirs = asdict(planned), asdict(wanted)  # type: ignore[call-overload]
    return [
        f"{prefix}{key.replace('_', ' ')} {ours[key] or 'none'} in the plan, {theirs[key] or 'none'} now"
        for key in ours
        if key not in skip and ours[key] != theirs[key]
    ]

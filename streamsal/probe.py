"""`streamsal probe`: what is in a video, counted from its packets, and on request proved from its pictures."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .errors import StreamsalError
from .plan import array_spec

RANGES = {1: "limited", 2: "full"}
MATRICES = {1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"}


def probe(
    paths: Sequence[Path],
    *,
    stream: int | None,
    verify: bool,
    as_json: bool,
    say: Callable[[str], None],
    on_failed: Callable[[StreamsalError], None],
) -> int:
    """Prints a table (or a JSON line) per video; 0, or 1 if one has holes or failed while others did not.

    A single file that is no video raises its own error.
    """
    code = 0
    for path in paths:
        try:
            facts = facts_of(path, stream, verify, say)
        except StreamsalError as error:
            if len(paths) == 1:
                raise
            on_failed(error)
            code = 1
            continue
        if as_json:
            print(json.dumps(facts))
        else:
            print("\n".join(table(facts)))
        sys.stdout.flush()
        if verify and not facts["sound"]:
            code = 1
    return code


def facts_of(path: Path, stream: int | None, verify: bool, say: Callable[[str], None]) -> dict[str, Any]:
    from .decode import verify as prove
    from .index import index_video, summary

    index = index_video(path, stream=stream)
    facts = summary(index)
    if verify:
        say(f"{path}: decoding {index.n_frames} frames, then again as 1, 2 and 7 shards")
        report = prove(index)
        facts.update(exact=report.ok, sound=report.sound, holes=list(report.holes), proof=asdict(report))
    return facts


def table(facts: dict[str, Any]) -> list[str]:
    """Lines for a person; every number is counted, and where the file's header says otherwise that is said."""
    vfr = "variable, on average " if facts["variable_rate"] else ""
    header = facts["frames_header"]
    color = facts["color"]
    rows = {
        "frames": f"{facts['frames']}" + (f" (the header says {header})" if header not in (0, facts["frames"]) else ""),
        "rate": f"{vfr}{facts['frame_rate']:.4f} frames per second",
        "duration": f"{facts['duration_seconds']:.3f} s from {facts['start_seconds']:.3f} s",
        "picture": f"{facts['width']}x{facts['height']} {facts['codec']} {facts['pixel_format']}"
        + (f", turned by {facts['rotation']} degrees" if facts["rotation"] else ""),
        "color": f"{MATRICES.get(color['matrix'], 'unspecified, taken as BT.601')}, "
        f"{RANGES.get(color['range'], 'unspecified, taken as limited')} range",
        "keyframes": f"{facts['keyframes']}, of which {facts['entry_points']} are used to enter; "
        f"at most {facts['longest_run_frames']} frames between two",
        "numbering": "from the packets" if facts["trust"] == "packets" else facts["trust"],
        "sound": ", ".join(f"{a['codec']} {a['rate_hz']} Hz {a['channels']} ch" for a in facts["audio"]) or "none",
    }
    if facts["clock_jumps"]:
        rows["clock"] = f"jumps {facts['clock_jumps']} times; times after a jump follow those before it"
    if facts["hidden_packets"]:
        rows["hidden"] = f"{facts['hidden_packets']} packets are decoded but not shown"
    if "proof" in facts:
        proof = facts["proof"]
        rows["verified"] = (
            "index and entry points hold; 1, 2 and 7 shards give the same pictures"
            if facts["exact"]
            else f"NO: {_frames(proof['differ_between_shards'])} differ between shards; please report this file"
        )
        rows["holes"] = _frames(proof["holes"])
        if proof["differ_from_sequential"]:
            rows["damaged"] = f"{_frames(proof['differ_from_sequential'])} look otherwise in a player"
    return [facts["path"], *(f"  {name:<10} {value}" for name, value in rows.items())]


def _frames(numbers: Sequence[int]) -> str:
    if not numbers:
        return "none"
    spec = array_spec(numbers[:50]) + (" ..." if len(numbers) > 50 else "")
    return f"{len(numbers)} (frames {spec})"

"""Designs of classifiers: which numbers fit together, and that a design survives as plain values."""

from __future__ import annotations

import json
from typing import Any

import pytest

from streamsal.errors import BadInput
from streamsal.models.design import Design

CLASSES = ("run", "walk")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": ()}, "needs classes"),
        ({"classes": ("run", "run")}, "different names"),
        ({"frames": 4}, "frames = 4"),
        ({"frames": 20}, "another multiple of 8"),
        ({"side_in": 0}, "side_in = 0"),
        ({"blocks": 0}, "blocks = 0"),
        ({"width": 0.0}, "positive"),
        ({"resizer": "4d"}, "resizer = '4d' is not known: take none, 2d, 3d, transformer"),
        ({"colors": "gray"}, "colors = 'gray' is not known: take rgb, bgr"),
        ({"order": "reverse"}, "order = 'reverse' is not known: take natural, legacy"),
        ({"channels": 1}, "channels = 1"),
        ({"resizer": "transformer", "read": 3, "apply": 2}, "0 <= read <= apply <= 8"),
        ({"resizer": "transformer", "read": 0, "apply": 9}, "0 <= read <= apply <= 8"),
        ({"resizer": "transformer", "read": 2, "apply": 2, "side_in": 14}, "a multiple of 4, not 14 pixels"),
        ({"resizer": "transformer", "read": 3, "apply": 3, "side": 30}, "a multiple of 4, not 30 pixels"),
    ],
)
def test_numbers_that_do_not_fit_together_are_named(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Design(**{"classes": CLASSES, **fields})


def test_only_what_a_transformer_reads_needs_a_multiple_of_four() -> None:
    Design(classes=CLASSES, resizer="transformer", read=3, apply=3, side_in=14)
    Design(classes=CLASSES, side_in=14, side=30, read=5, apply=1)


def test_a_design_comes_back_from_json() -> None:
    design = Design(classes=CLASSES, resizer="transformer", read=1, apply=4, width=0.5, colors="bgr")
    assert Design.from_dict(json.loads(json.dumps(design.to_dict()))) == design


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (None, "it names no classes"),
        (["run"], "it names no classes"),
        ({"frames": 32}, "it names no classes"),
        ({"classes": "run"}, "it names no classes"),
        ({"classes": ["run"], "heads": 8, "colour": "rgb"}, "nothing is known of colour, heads"),
        ({"classes": ["run"], "frames": "32"}, "frames = '32' is of another kind than 32"),
        ({"classes": ["run"], "blocks": True}, "blocks = True is of another kind than 1"),
        ({"classes": ["run"], "rate": None}, "rate = None is of another kind than 30.0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_design_is_refused(found: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        Design.from_dict(found)

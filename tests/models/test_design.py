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
        ({"resizer": "4d"}, "no resizer is named '4d'"),
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


def test_what_is_no_design_is_refused() -> None:
    with pytest.raises(BadInput, match="no design of a classifier: it names no classes"):
        Design.from_dict({"frames": 32})
    with pytest.raises(BadInput, match="no design of a classifier: colour, heads"):
        Design.from_dict({"classes": ["run"], "heads": 8, "colour": "rgb"})

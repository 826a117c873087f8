from __future__ import annotations

import string

import numpy as np

from streamsal.drawing.lettering import text


def test_letters_are_seven_dots_high_and_stand_apart() -> None:
    assert text("0").shape == (7, 5)
    assert text("10").shape == (7, 11)
    assert not text("10")[:, 5].any()


def test_no_two_letters_look_the_same() -> None:
    """All that ASCII can print: names of classes hold quotes, ampersands and what not."""
    letters = string.ascii_letters + string.digits + string.punctuation + " "
    assert len({text(letter).tobytes() for letter in letters}) == len(letters)


def test_what_cannot_be_written_is_a_question_mark() -> None:
    np.testing.assert_array_equal(text("é1"), text("?1"))
    assert not text("").any()

"""Facts as a table and as JSON."""

from __future__ import annotations

import json

import pytest

from streamsal.tables import print_facts


def test_columns_are_as_wide_as_their_widest_cell(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({}, [["a", "long cell", ""], ["bcd", "x", "y"]], ["", "head", ""], False)
    assert capsys.readouterr().out == "     head\na    long cell\nbcd  x          y\n"


def test_a_table_without_any_heading_has_no_line_for_it(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({}, [["a", "b"]], ["", ""], False)
    assert capsys.readouterr().out == "a  b\n"


def test_json_holds_the_facts_and_not_the_rows(capsys: pytest.CaptureFixture[str]) -> None:
    print_facts({"n": 3}, [["three"]], [""], True)
    assert json.loads(capsys.readouterr().out) == {"n": 3}

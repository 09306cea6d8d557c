"""The examples of docs/optimisation.md."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "optimisation.md"


def test_examples_of_the_page():
    outcome = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 25
    assert outcome.failed == 0


def test_table_is_that_of_the_script():
    text = PAGE.read_text(encoding="utf-8")
    assert text.count("| lower |") == 8
    assert "54 with at least 6" in text

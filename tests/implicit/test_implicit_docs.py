"""The examples of docs/implicit.md."""

import doctest
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "implicit.md"


def test_examples_of_the_page():
    outcome = doctest.testfile(str(PAGE), module_relative=False, optionflags=doctest.ELLIPSIS)
    assert outcome.attempted > 20
    assert outcome.failed == 0

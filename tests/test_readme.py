"""Everything that README.md shows is run: sessions by doctest, commands by the command line itself."""

from __future__ import annotations

import doctest
import re
import shlex
from pathlib import Path

import pytest

from jacana import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {language for language, _ in BLOCKS} == {"pycon", "sh"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_sessions() -> None:
    """One session: later blocks use the names of earlier ones."""
    source = "\n".join(block for language, block in BLOCKS if language == "pycon")
    test = doctest.DocTestParser().get_doctest(source, {}, "README.md", "README.md", 0)
    assert len(test.examples) > 30
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


def test_the_error_that_is_shown_is_the_error() -> None:
    """doctest compares the class of an error only; its text is compared here."""
    import math

    import numpy as np

    import jacana as jc

    shown = re.search(r"jacana\.errors\.RecordingError: (.*?)\. \.\.\.", README)
    assert shown is not None
    with pytest.raises(jc.RecordingError, match=re.escape(shown.group(1))):
        jc.jacobian(lambda x: math.atan2(x[1], x[0]))(np.array([1.0, 2.0]))


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("jacana ")])
def test_commands(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(shlex.split(command)[1:])
    assert left.value.code == 0
    assert "fine: " in capsys.readouterr().out


@pytest.mark.parametrize("command", [line for line in COMMANDS if line.startswith("make ")])
def test_make_targets_exist(command: str) -> None:
    target = shlex.split(command, comments=True)[1]
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)


def test_there_are_commands_of_both_kinds() -> None:
    assert {line.split()[0] for line in COMMANDS} == {"make", "jacana"}


@pytest.mark.parametrize("target", sorted({*re.findall(r"\]\((?!https?:)([^)#]+)\)", README)} - {"docs/benchmarks.md"}))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()

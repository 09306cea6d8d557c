"""Everything that README.md shows is run: sessions by doctest, commands by the command line itself."""

from __future__ import annotations

import doctest
import math
import re
import shlex
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jacana as jc
from jacana import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, block in BLOCKS if language == "sh" for line in block.splitlines()]
NATIVE = jc.native_available()
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def test_every_block_is_of_a_kind_that_is_tested() -> None:
    assert {language for language, _ in BLOCKS} == {"pycon", "sh"}
    assert README.count("```") == 2 * len(BLOCKS)


def test_sessions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One session: later blocks use the names of earlier ones."""
    monkeypatch.setattr("jacana.run.executors._default", "auto")  # put back what set_executor leaves
    source = "\n".join(block for language, block in BLOCKS if language == "pycon")
    test = doctest.DocTestParser().get_doctest(source, {}, "README.md", "README.md", 0)
    assert len(test.examples) > 30
    report: list[str] = []
    result = doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append)
    assert result.failed == 0, "".join(report)


def test_the_error_that_is_shown_is_the_error() -> None:
    """doctest compares the class of an error only; its text is compared here."""
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


def at(*numbers: float) -> Any:
    return np.array(numbers)


KINKS: list[tuple[str, Callable[[Any], Any], Any, list[float]]] = [
    ("| `abs(x)`, `sign(x)` at 0 | 0 |", np.abs, at(0.0), [0.0]),
    ("| `abs(x)`, `sign(x)` at 0 | 0 |", np.sign, at(0.0), [0.0]),
    ("| shared in equal parts", lambda x: np.maximum(x[:1], x[1:]), at(2.0, 2.0), [0.5, 0.5]),
    ("| shared in equal parts", lambda x: np.minimum(x[:1], x[1:]), at(2.0, 2.0), [0.5, 0.5]),
    ("| shared in equal parts", lambda x: np.max(x, keepdims=True), at(1.0, 1.0, 0.0), [0.5, 0.5, 0.0]),
    ("| shared in equal parts", lambda x: np.min(x, keepdims=True), at(1.0, 1.0, 2.0), [0.5, 0.5, 0.0]),
    ("| `clip` at a bound | ½ |", lambda x: np.clip(x, 0.0, 1.0), at(0.0), [0.5]),
    ("| `clip` at a bound | ½ |", lambda x: np.clip(x, 0.0, 1.0), at(1.0), [0.5]),
    ("| `norm`, `hypot` at 0 | 0 |", np.linalg.norm, at(0.0, 0.0), [0.0, 0.0]),
    ("| `norm`, `hypot` at 0 | 0 |", lambda x: np.hypot(x[0], x[1]), at(0.0, 0.0), [0.0, 0.0]),
    ("| `x**0` at 0 | 0 |", lambda x: x**0, at(0.0), [0.0]),
    ("| `x**p` by p at x = 0, p ≥ 0 | 0 |", lambda p: 0.0**p, at(0.0), [0.0]),
    ("| `x**p` by p at x = 0, p ≥ 0 | 0 |", lambda p: 0.0**p, at(1.5), [0.0]),
    ("| `x**p` by p at x < 0 | NaN |", lambda p: at(-2.0) ** p, at(3.0), [math.nan]),
    ("| `sqrt`, `log` at 0 | inf |", np.sqrt, at(0.0), [math.inf]),
    ("| `sqrt`, `log` at 0 | inf |", np.log, at(0.0), [math.inf]),
    ("| `arctan2(0, 0)` | NaN |", lambda x: np.arctan2(x[0], x[1]), at(0.0, 0.0), [math.nan, math.nan]),
    ("| `floor`, `ceil`, `round`, `heaviside` | 0 |", np.floor, at(1.0), [0.0]),
    ("| `floor`, `ceil`, `round`, `heaviside` | 0 |", np.ceil, at(1.0), [0.0]),
    ("| `floor`, `ceil`, `round`, `heaviside` | 0 |", np.round, at(0.5), [0.0]),
    ("| `floor`, `ceil`, `round`, `heaviside` | 0 |", lambda x: np.heaviside(x, 0.5), at(0.0), [0.0]),
    ("| `prod` with zeros | exact |", np.prod, at(0.0, 2.0, 3.0), [6.0, 0.0, 0.0]),
]


@pytest.mark.parametrize("executor", ["numpy", pytest.param("native", marks=pytest.mark.skipif("not NATIVE"))])
@pytest.mark.parametrize(("row", "function", "x", "expected"), KINKS)
def test_table_of_kinks(row: str, function: Callable[[Any], Any], x: Any, expected: list[float], executor: Any) -> None:
    assert row in README
    with np.errstate(all="ignore"), jc.executor(executor):
        found = jc.jacobian(function)(x)
    np.testing.assert_array_equal(np.ravel(found), expected)


@pytest.mark.parametrize("page", ["loops.md", "custom.md", "checking.md"])
def test_pages(page: str) -> None:
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    if page == "custom.md":
        pytest.importorskip("scipy")
        if sys.platform == "win32":
            pytest.skip("ctypes finds no libm there")
    test = doctest.DocTestParser().get_doctest(text, {}, page, page, 0)
    report: list[str] = []
    assert doctest.DocTestRunner(optionflags=OPTIONS).run(test, out=report.append).failed == 0, "".join(report)

"""The line where a NaN or an infinity came in."""

from __future__ import annotations

import sys

import numpy as np
import pytest

import jacana as jc

INF = np.inf


def inner(x):
    shifted = x * 2 - 2
    return np.log(shifted)


def guarded(x):
    y = inner(x)
    z = np.where(x > 0, np.sqrt(x), 0.0)
    return np.sum(y * z)


def test_value_in_an_inner_function():
    found = jc.find_nan(guarded, np.array([2.0, 1.0, 0.5]))
    assert (found.part, found.kind, found.operation) == ("value", "inf", "log")
    assert (found.element, found.operands) == ((1,), (0.0,))
    assert (found.function, found.source) == ("inner", "return np.log(shifted)")
    assert found.file == __file__
    assert found.line == inner.__code__.co_firstlineno + 2
    assert str(found).splitlines()[0] == "The value first becomes inf in log of 0, element (1,)"
    assert jc.find_nan(guarded, np.array([2.0, 1.5])) is None


def loss(x):
    scale = np.linalg.norm(x)
    power = (x[0] - x[0]) ** 0.5
    return scale + power


def overflow(x):
    y = x * 1e200
    return y * 1e200 * 0.0


def untaken(x):
    return np.sum(np.where(x > 0, np.log(np.where(x > 0, x, 1.0)), np.where(x > 0, np.sqrt(x), x)))


def looped(x):
    total = 0.0
    for k in range(3):
        total = total + 1.0 / (x[0] - k)
    return total


def scanned(x):
    def body(carry, step):
        return carry * x[0], np.sqrt(carry - step)

    return jc.scan(body, x[1], np.arange(3.0))[1]


@pytest.mark.parametrize(
    ("function", "x", "part", "kind", "operation", "source"),
    [
        (loss, [2.0, 0.0], "derivative", "inf", "power", "power = (x[0] - x[0]) ** 0.5"),
        (overflow, [1.0], "value", "inf", "multiply", "return y * 1e200 * 0.0"),
        (looped, [2.0], "value", "inf", "divide", "total = total + 1.0 / (x[0] - k)"),
        (lambda x: np.arctan2(x[0], x[1]), [0.0, 0.0], "derivative", "nan", "arctan2", None),
        (lambda x: x * np.nan, [1.0], "value", "nan", "multiply", None),
        (lambda x: np.cumprod(x) / x[1], [1.0, 0.0], "value", "inf", "divide", None),
        (lambda x: np.sqrt(x.reshape(2, 2)).T @ x[:2], [1.0, 0.0, 1.0, 1.0], "derivative", "inf", "sqrt", None),
    ],
)
def test_where(function, x, part, kind, operation, source):
    found = jc.find_nan(function, np.array(x))
    assert (found.part, found.kind, found.operation) == (part, kind, operation)
    assert source is None or found.source == source
    assert found.file == __file__


def test_the_line_of_a_loop():
    found = jc.find_nan(scanned, np.array([0.5, 1.0]))
    assert found.part == "value"
    assert found.source == "return jc.scan(body, x[1], np.arange(3.0))[1]"


def test_branches_that_were_not_taken_are_not_reported():
    assert jc.find_nan(untaken, np.array([1.0, -2.0, 0.0])) is None
    assert jc.find_nan(lambda x: np.max(x, initial=-INF), np.array([1.0])) is None


def test_what_came_from_outside():
    found = jc.find_nan(lambda p, t: p["a"] * t, {"a": np.array([1.0, np.nan])}, 2.0)
    assert (found.operation, found.kind, found.element, found.file) == ("argument", "nan", (1,), "")
    assert str(found) == "The value is not finite because the argument is nan, element (1,)"
    table = np.array([1.0, INF])
    found = jc.find_nan(lambda x: x * table, np.ones(2))
    assert (found.operation, found.kind, found.element) == ("captured array", "inf", (1,))
    assert "table" in found.source


def test_complex_intermediates_and_arguments():
    assert jc.find_nan(lambda x: np.abs(np.fft.fft(x)), np.array([1.0, 2.0, 4.0])) is None
    assert jc.find_nan(lambda x: np.log(x + 0j), np.array([1.0, 0.0])).part == "value"
    with pytest.raises(jc.InvalidInputError, match="real"):
        jc.find_nan(np.abs, np.array([1j]))


def test_a_debugger_keeps_its_trace():
    seen = []
    before = sys.gettrace()
    sys.settrace(lambda *event: seen.append(event) and None)
    try:
        mine = sys.gettrace()
        jc.find_nan(loss, np.array([1.0, 2.0]))
        assert sys.gettrace() is mine
    finally:
        sys.settrace(before)


def test_an_error_of_the_function_passes_through():
    with pytest.raises(ZeroDivisionError):
        jc.find_nan(lambda x: x * (1 / 0), np.ones(1))

"""Comparisons of recorded complex programs with NumPy, and of their derivatives with differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from record_helpers import flat

import jacana as jc
from jacana.record import ComplexVariable, Variable, as_node, record
from jacana.run import Program, compile_numpy, native_available

EXECUTORS = ["numpy", "native"] if native_available() else ["numpy"]


def parts(z: Any) -> list[Any]:
    return [np.real(z), np.imag(z)] if np.iscomplexobj(z) else [z]


def compiled(name: str, program: Program) -> Any:
    if name == "numpy":
        return compile_numpy(program)
    from jacana.run.native import compile_native

    return compile_native(program)


def same(actual: Any, expected: Any, ulps: float = 200) -> None:
    """Equal up to so many units in the last place of the largest number; shape and dtype are NumPy's own."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape
    assert actual.dtype == expected.dtype
    if expected.dtype.kind not in "fc" or not expected.size:
        np.testing.assert_array_equal(actual, expected)
        return
    finite = np.abs(expected[np.isfinite(expected)])
    bound = ulps * np.finfo(expected.dtype).eps * max(1.0, float(finite.max(initial=0.0)))
    for a, b in zip(parts(actual), parts(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=bound)


def check(function: Callable[..., Any], *arrays: Any, constant: bool = False) -> None:
    """The number while recording is NumPy's, and so is that of the graph, on every executor."""
    arrays = tuple(np.asarray(a) for a in arrays)
    kinds = [np.iscomplexobj(a) for a in arrays]
    inputs = [np.array(p, order="C") for a in arrays for p in parts(a)]

    def on_parts(*variables: Any) -> Any:
        rest = iter(variables)
        return function(*(ComplexVariable(next(rest), next(rest)) if c else next(rest) for c in kinds))

    with np.errstate(all="ignore"):
        expected = flat(function(*(np.array(a) for a in arrays)))
        recording = record(on_parts, inputs)
    got = flat(recording.result)
    assert len(got) == len(expected)
    nodes, wanted = [], []
    for ours, theirs in zip(got, expected, strict=True):
        same(ours._value if isinstance(ours, (Variable, ComplexVariable)) else ours, theirs)
        mine = [ours.real, ours.imag] if isinstance(ours, ComplexVariable) else [ours]
        assert constant or all(isinstance(p, Variable) for p in mine), "the dependence on the arguments was lost"
        for part, number in zip(mine, parts(theirs), strict=True):
            nodes.append(as_node(part))
            wanted.append(number)
    for name in EXECUTORS:
        found = compiled(name, Program(recording.inputs, tuple(nodes)))(inputs)
        for value, number in zip(found, wanted, strict=True):
            same(value, np.asarray(number))


def differences(function: Callable[[Any], Any], z: Any) -> Any:
    """``u_x + i u_y`` of a real function by central differences of fourth order, part by part."""
    gradient = np.zeros(z.shape, z.dtype)
    step = 2e-4
    for k in np.ndindex(*z.shape):
        for turn in (1.0, 1j) if np.iscomplexobj(z) else (1.0,):
            values = []
            for h in (-2, -1, 1, 2):
                moved = z.copy()
                moved[k] += h * step * turn
                values.append(function(moved))
            gradient[k] += turn * (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    return gradient


def weighted(function: Callable[..., Any]) -> Callable[..., Any]:
    """One real number of everything that a function returns: ``Re sum(conj(c) * w)`` with fixed c."""

    def scalar(z: Any) -> Any:
        total = 0.0
        for k, w in enumerate(flat(function(z))):
            c = np.random.default_rng(k).normal(size=(2, *np.shape(w)))
            total = total + np.sum(c[0] * np.real(w)) + np.sum(c[1] * np.imag(w))
        return total

    return scalar


def check_derivative(function: Callable[..., Any], z: Any, tolerance: float = 1e-7) -> None:
    """The gradient by both parts, the directional derivative and the Jacobian agree with differences."""
    scalar = weighted(function)
    expected = differences(scalar, np.asarray(z))
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    for name in EXECUTORS:
        with jc.executor(name):
            gradient = jc.grad(scalar)(z)
            assert gradient.shape == z.shape
            assert gradient.dtype == z.dtype
            np.testing.assert_allclose(gradient, expected, rtol=0, atol=tolerance * scale)
            tangent = np.random.default_rng(3).normal(size=z.shape) * (1 - 2j if np.iscomplexobj(z) else 1)
            _, moved = jc.jvp(scalar)(z, tangent)
            np.testing.assert_allclose(
                moved, np.sum(np.real(np.conj(gradient) * tangent)), rtol=1e-9, atol=1e-9 * scale
            )

"""Loops over elements become vectors: the same numbers as the unrolled program, and a graph that is short."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import examples

import jacana as jc
from jacana import replay
from jacana.graph.node import Node, topological
from jacana.graph.rolling import FEWEST

N = 3 * FEWEST


def recorded(function: Callable[..., Any], *args: Any) -> tuple[Node, ...]:
    return jc.jacobian(function)._replay.trace(args, {})[1].outputs


def length(function: Callable[..., Any], *args: Any) -> int:
    return len(topological(recorded(function, *args)))


def check(function: Callable[..., Any], x: Any, *, rolled: bool = True) -> None:
    """The value bit for bit as without rolling (NumPy); of the Jacobian the pattern, and the numbers but for rounding.

    The Jacobian's products may be formed in another order: the cheapest one depends on the graph.
    """
    with jc.executor("numpy"):
        value, jacobian = jc.value_and_jacobian(function, format="csr")(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replay, "roll", list)
            unrolled, expected = jc.value_and_jacobian(function, format="csr")(x)
            long = length(function, x)
    assert value.tobytes() == unrolled.tobytes()
    tolerance = 1e-13 if value.dtype == np.float64 else 1e-5
    np.testing.assert_array_equal(jacobian.indices, expected.indices)
    np.testing.assert_array_equal(jacobian.indptr, expected.indptr)
    np.testing.assert_allclose(jacobian.data, expected.data, rtol=tolerance)
    np.testing.assert_allclose(value, function(x), rtol=1e-14)
    if jc.native_available() and rolled:
        with jc.executor("native"):
            found = jc.jacobian(function)(x)
        whole = expected.toarray().reshape(found.shape)
        np.testing.assert_allclose(found, whole, rtol=10 * tolerance, atol=1e-14)
    if rolled:
        assert length(function, x) < 60
    else:
        assert length(function, x) == long


X = np.random.default_rng(8).uniform(0.5, 2.0, N + 2)


def test_a_stencil_that_fills_an_array():
    def f(x):
        out = np.zeros(N)
        for i in range(N):
            out[i] = x[i] * x[i + 2] / (1.0 + x[i + 1] ** 2)
        return out

    check(f, X)


def test_strides_tables_and_the_other_way_round():
    places = np.random.default_rng(2).permutation(N)

    def f(x):
        out = np.zeros(2 * N)
        for i in reversed(range(N)):
            out[2 * i] = x[places[i]] * x[N - i]
            out[2 * i + 1] = np.sqrt(x[i]) - x[places[i]]
        return out

    check(f, X)


def test_numbers_that_differ_and_numbers_that_do_not():
    weights = np.linspace(-1.0, 1.0, N)
    weights[::2] = 0.0

    def f(x):
        return np.array([weights[i] * x[i] ** 2 + i * 0.5 + 3.0 for i in range(N)])

    check(f, X)


def test_what_all_copies_share():
    def f(x):
        scale = np.exp(x[0]) + np.sum(x)
        return np.array([scale * x[i] * x[0] for i in range(N)])

    check(f, X)


def test_two_bodies_and_parts_that_are_alone():
    def f(x):
        out = np.zeros(2 * N + 3)
        out[0] = x[0] * 2.0
        for i in range(N):
            out[1 + i] = np.maximum(x[i], x[i + 1])
            out[1 + N + i] = np.where(x[i] > 1.0, x[i], 2.0)
        out[2 * N + 2] = x[1] - x[0]
        return out

    check(f, X)


def test_grids_have_axes_of_their_own():
    def f(x):
        out = np.zeros((6, 7))
        for i in range(6):
            for j in range(7):
                out[i, j] = x[i, j] * x[i + 1, j] - x[i, j + 1]
        return out

    check(f, np.random.default_rng(4).uniform(0.5, 2.0, (7, 8)))
    outputs = recorded(f, np.ones((7, 8)))
    assert any(node.shape == (6, 7) and node.op.name == "multiply" for node in topological(outputs))


def test_arrays_that_were_computed_before():
    def f(x):
        y = np.cumsum(x) * 2.0
        return np.array([y[i] * x[i] for i in range(N)])

    check(f, X)


def test_dtypes_stay_what_they_are():
    def f(x):
        return np.array([x[i] * np.float32(0.1) + x[i + 1] for i in range(N)], dtype=np.float32)

    (node,) = recorded(f, X.astype(np.float32))
    assert node.dtype == np.float32
    check(f, X.astype(np.float32))


def test_a_recurrence_stays_a_straight_line():
    def f(x):
        out = np.zeros(N)
        out[0] = x[0]
        for i in range(1, N):
            out[i] = out[i - 1] * 0.5 + x[i]
        return out

    check(f, X, rolled=False)


def test_steps_that_share_most_of_their_work_are_left_alone():
    # A pyramid: each copy would repeat what its neighbours compute, n times over.
    def f(x):
        row = [x[i] for i in range(N + 2)]
        while len(row) > FEWEST + 2:
            row = [np.sqrt(a * b) for a, b in itertools.pairwise(row)]
        return np.array(row)

    check(f, X, rolled=False)


def test_few_copies_are_left_alone():
    def f(x):
        return np.array([x[i] * x[i + 1] for i in range(FEWEST - 1)])

    check(f, X, rolled=False)


def test_a_body_that_uses_its_own_results_again_is_not_repeated():
    def f(x):
        out = np.zeros(N)
        for i in range(N):
            y = x[i]
            for _ in range(40):  # a tree of 2**40 leaves, a graph of 40 nodes
                y = y * y + 0.01
                y = y - np.floor(y)
            out[i] = y
        return out

    with jc.executor("numpy"):
        np.testing.assert_array_equal(jc.compile(f)(X), f(X))
    assert length(f, X) < 200


STEPS: list[Callable[[Any, Any, float], Any]] = [
    lambda a, b, c: a + b,
    lambda a, b, c: a * b,
    lambda a, b, c: a - c,
    lambda a, b, c: b / (a * a + 1.0),
    lambda a, b, c: np.sqrt(a * a + b * b),
    lambda a, b, c: np.where(a > b, a, c * b),
    lambda a, b, c: np.maximum(a, b),
    lambda a, b, c: c * a,
]


@st.composite
def loops(draw: Any) -> Callable[[Any], Any]:
    """A random body over random places: one loop in Python."""
    steps = draw(st.lists(st.integers(0, len(STEPS) - 1), min_size=1, max_size=5))
    seed = draw(st.integers(0, 2**32 - 1))
    rng = np.random.default_rng(seed)
    reads = [
        rng.integers(0, N + 2, N) if rng.random() < 0.3 else np.arange(N) * int(rng.integers(0, 2)) + rng.integers(0, 3)
        for _ in range(3)
    ]
    numbers = rng.choice([1.5, -2.0, 0.0], N) if rng.random() < 0.5 else np.full(N, 0.25)
    writes = rng.permutation(2 * N)[:N] if rng.random() < 0.3 else np.arange(N) * 2 + 1
    chosen = [(step, int(rng.integers(0, 3)), int(rng.integers(0, 3))) for step in steps]
    odd = int(rng.integers(0, N)) if rng.random() < 0.3 else -1

    def f(x):
        out = np.zeros(2 * N + 1)
        for i in range(N):
            values = [x[int(r[i])] for r in reads]
            for k, (step, a, b) in enumerate(chosen):
                values[k % 3] = STEPS[step](values[a], values[b], float(numbers[i]))
            out[int(writes[i])] = values[(len(chosen) - 1) % 3] if i != odd else np.sin(values[0])
        return out

    return f


@given(loops())
@examples(12)
def test_random_loops(f):
    check(f, X)

"""Programs of many equal steps: derivatives against products of the Jacobians of the steps, patterns, growth."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import examples

import jacana as jc
from jacana import recurrences
from jacana.datasets import posegraph
from jacana.differentiate.eliminate import PACKED, eliminate
from jacana.record import as_node, record

Array = np.ndarray[Any, Any]


def rolled(x: Any) -> Any:
    return x + 0.1 * np.sin(x) * np.roll(x, 1)


def two_sided(x: Any) -> Any:
    return 0.5 * x * x + np.roll(x, 2) * 0.3 - np.roll(x, -1) * x


def ghost_cells(x: Any) -> Any:
    padded = np.pad(x, 1, mode="edge")
    return x + 0.2 * (padded[2:] - 2.0 * x + padded[:-2]) * x


def held_ends(x: Any) -> Any:
    inner = x[1:-1] - 0.1 * x[1:-1] * (x[2:] - x[:-2])
    return np.concatenate([x[:1], inner, x[-1:]])


def clipped(x: Any) -> Any:
    return np.where(x > 0.5, np.sin(x), x * np.roll(x, 1)) + np.maximum(x, 0.2) * 0.1


STEPS = {f.__name__: f for f in (rolled, two_sided, ghost_cells, held_ends, clipped)}


def step_jacobian(step: Callable[[Any], Any], x: Array) -> Array:
    """By differences of fourth order in long double."""
    x = x.astype(np.longdouble)
    h = np.longdouble(1e-4)
    columns = []
    for k in range(len(x)):
        e = np.zeros_like(x)
        e[k] = h
        columns.append((8 * (step(x + e) - step(x - e)) - (step(x + 2 * e) - step(x - 2 * e))) / (12 * h))
    return np.stack(columns, axis=1).astype(float)


def reference(step: Callable[[Any], Any], x: Array, steps: int) -> tuple[Array, Array, Array]:
    """The value, the Jacobian as a product of those of the steps, and its pattern as a product of theirs."""
    total, pattern = np.eye(len(x)), np.eye(len(x), dtype=int)
    for _ in range(steps):
        one = step_jacobian(step, x)
        total = one @ total
        pattern = np.minimum(touched(step, len(x)) @ pattern, 1)
        x = step(x)
    return x, total, pattern


def touched(step: Callable[[Any], Any], n: int) -> Array:
    """Which elements a step reads, whatever their values: from differences at many points."""
    rng = np.random.default_rng(0)
    return np.any([np.abs(step_jacobian(step, rng.uniform(0.1, 0.9, n))) > 1e-9 for _ in range(4)], axis=0).astype(int)


def loop(step: Callable[[Any], Any], steps: int) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for _ in range(steps):
            x = step(x)
        return x

    return run


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
@pytest.mark.parametrize("name", STEPS)
def test_jacobians_of_many_steps(name, order):
    # 13 elements: with 5 steps there are bands with gaps, with 20 the matrix is full.
    step, x = STEPS[name], np.random.default_rng(3).uniform(0.3, 0.8, 13)
    for steps in (5, 20):
        _, expected, pattern = reference(step, x, steps)
        dense = jc.jacobian(loop(step, steps), order=order)(x)
        np.testing.assert_allclose(dense, expected, atol=1e-9)
        sparse = jc.jacobian(loop(step, steps), format="csr", order=order)(x)
        np.testing.assert_allclose(sparse.toarray(), expected, atol=1e-9)
        assert sparse.nnz == pattern.sum()
        np.testing.assert_array_equal(sparse.astype(bool).toarray() <= pattern.astype(bool), True)


@pytest.mark.parametrize("name", STEPS)
def test_products_of_many_steps(name):
    step, x = STEPS[name], np.random.default_rng(5).uniform(0.3, 0.8, 13)
    v = np.random.default_rng(6).normal(size=13)
    for steps in (9, 40):
        _, expected, _ = reference(step, x, steps)
        np.testing.assert_allclose(jc.vjp(loop(step, steps))(x, v)[1], v @ expected, atol=1e-9)
        np.testing.assert_allclose(jc.jvp(loop(step, steps))(x, v)[1], expected @ v, atol=1e-9)


def test_a_grid_of_two_axes():
    def step(u: Any) -> Any:
        return u + 0.1 * (np.roll(u, 1, 0) + np.roll(u, -1, 1) - 2.0 * u) * u

    def flat(x: Any) -> Any:
        return step(x.reshape(4, 5)).reshape(20)

    x = np.random.default_rng(7).uniform(0.3, 0.8, (4, 5))
    for steps in (4, 12):
        _, expected, pattern = reference(flat, x.ravel(), steps)
        sparse = jc.jacobian(loop(step, steps), format="csr")(x)
        np.testing.assert_allclose(sparse.toarray(), expected, atol=1e-9)
        assert sparse.nnz == pattern.sum()
        np.testing.assert_allclose(jc.jacobian(loop(step, steps))(x).reshape(20, 20), expected, atol=1e-9)


@pytest.mark.parametrize("step", [rolled, ghost_cells, held_ends])
def test_a_structural_zero_is_never_multiplied(step):
    # The derivative of sqrt is infinite at 0. It belongs to one element, and to those that the element has reached.
    def program(x: Any) -> Any:
        return loop(step, 8)(np.sqrt(loop(step, 12)(x)))

    x = np.random.default_rng(1).uniform(0.3, 0.6, 40)
    x[20:26] = 0.0
    for found in (jc.jacobian(program)(x), jc.jacobian(program, format="csr")(x).toarray()):
        _, _, pattern = reference(step, np.full(40, 0.5), 20)
        assert not found[pattern == 0].any()
        bad = ~np.isfinite(found)
        assert bad.any()
        assert not bad[0].any() or step is rolled
        assert np.isfinite(found[5:12]).all()


def terms_of(function: Callable[[Any], Any], n: int) -> int:
    found = record(function, [np.linspace(0.2, 0.7, n)])
    return len(eliminate([as_node(found.result)], list(found.inputs)).terms[0][0])


def test_the_number_of_terms_does_not_grow():
    assert terms_of(loop(rolled, 60), 50) <= PACKED
    assert terms_of(loop(ghost_cells, 60), 50) <= PACKED
    assert terms_of(lambda x: np.sum(loop(ghost_cells, 60)(x) ** 2), 50) <= PACKED


def test_the_program_of_a_gradient_grows_with_the_steps(monkeypatch):
    monkeypatch.setattr(recurrences, "FEWEST_NODES", 10**9)  # as straight-line code
    sizes = []
    for steps in (20, 40, 80):
        replay = jc.grad(lambda x, steps=steps: np.sum(loop(two_sided, steps)(x)))._replay
        recording, traced = replay.trace((np.linspace(0.2, 0.7, 30),), {})
        nodes = replay.build(traced).nodes
        sizes.append(len(jc.run.Program(tuple(recording.inputs), tuple(nodes)).nodes()))
    assert sizes[2] - sizes[1] <= 2 * (sizes[1] - sizes[0]) + 8


@examples(15)
@given(st.integers(0, 10**6))
def test_random_steps(seed):
    rng = np.random.default_rng(seed)
    kinds = [STEPS[name] for name in rng.choice(list(STEPS), size=3)]
    n, steps = int(rng.integers(5, 12)), int(rng.integers(3, 14))

    def step(x: Any) -> Any:
        for kind in kinds:
            x = kind(x) * 0.5 + 0.2
        return x

    x = rng.uniform(0.3, 0.45, n)
    _, expected, _ = reference(step, x, steps)
    found = [jc.jacobian(loop(step, steps), order=order)(x) for order in ("forward", "reverse", "cost")]
    found.append(jc.jacobian(loop(step, steps), format="csr")(x).toarray())
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-8)


def test_terms_of_items_found_through_tables_stay_apart() -> None:
    """They share a loop over the items; packed, every entry would be looked up, and those in masks be masked singly."""
    graph = posegraph.load("tinyGrid3D")
    recording = record(graph.residual, [graph.x0])
    found = eliminate([as_node(recording.result)], recording.inputs).terms[0][0]
    edges = len(graph.moves)
    assert len(found) > 24
    assert {t.domain[0] % edges for t in found} == {0}
    jacobian = jc.jacobian(graph.residual, format="csr")(graph.x0)
    expected = step_jacobian(lambda x: graph.residual(x).ravel(), graph.x0)
    np.testing.assert_allclose(jacobian.toarray(), expected, rtol=1e-8, atol=1e-8)


def rotated(p: Array, steps: int) -> Array:
    """A quaternion turned by matrices whose numbers are computed one by one."""
    q = np.array([1.0, 0.0, 0.0, 0.0])
    for _ in range(steps):
        a, b, c = 0.1 * p
        q = q + np.array([[0.0, -a, -b, -c], [a, 0.0, c, -b], [b, -c, 0.0, a], [c, b, -a, 0.0]]) @ q
        q = q / np.linalg.norm(q)
    return q


def passed_on(p: Array, steps: int) -> Array:
    """A state that goes along the edges of a graph, by gather and scatter; the last two never meet the others."""
    edges = np.array([[1, 2], [2, 3], [0, 3], [0, 1], [1, 3], [4, 5]])
    y = np.concatenate([p, 2.0 * p])
    for _ in range(steps):
        following = np.zeros(6)
        np.add.at(following, edges[:, 0], np.sin(y[edges[:, 1]]))
        np.add.at(following, edges[:, 1], 0.5 * y[edges[:, 0]])
        y = following
    return y


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
@pytest.mark.parametrize(("function", "entries"), [(rotated, 12), (passed_on, 4 * 3 + 2)])
def test_paths_that_meet_again_are_added_up(function: Any, entries: int, order: Any) -> None:
    """A point for every path would be three to the power of the number of steps."""
    x, steps = np.array([0.3, 0.2, 0.1]), 24
    jacobian = jc.jacobian(lambda p: function(p, steps), format="csr", order=order)
    dense = jc.jacobian(lambda p: function(p, steps))(x)
    found = jacobian(x)
    np.testing.assert_allclose(found.toarray(), dense, rtol=1e-11, atol=1e-14)
    np.testing.assert_allclose(dense, step_jacobian(lambda p: function(p, steps), x), rtol=1e-8, atol=1e-8)
    recording = record(lambda p: function(p, steps), [x])
    terms = eliminate([as_node(recording.result)], recording.inputs, order).terms[0][0]
    assert sum(math.prod(t.domain) for t in terms) <= 2 * dense.size * steps
    assert found.nnz == entries

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


def check(function: Callable[..., Any], x: Any, *, rolled: bool = True, bits: bool = True) -> None:
    """The value bit for bit as without rolling (NumPy); of the Jacobian the pattern, and the numbers but for rounding.

    ``bits``: false where small matrices are multiplied, which BLAS does in another order when there are many.

    The Jacobian's products may be formed in another order: the cheapest one depends on the graph.
    """
    with jc.executor("numpy"):
        value, jacobian = jc.value_and_jacobian(function, format="csr")(x)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(replay, "roll", list)
            unrolled, expected = jc.value_and_jacobian(function, format="csr")(x)
            long = length(function, x)
    assert not bits or value.tobytes() == unrolled.tobytes()
    tolerance = 1e-13 if value.dtype == np.float64 else 1e-5
    np.testing.assert_array_equal(jacobian.indices, expected.indices)
    np.testing.assert_array_equal(jacobian.indptr, expected.indptr)
    rounding = 0.0 if bits else 1e-15 * np.abs(expected.data).max(initial=0.0)  # an entry may be a sum that cancels
    np.testing.assert_allclose(jacobian.data, expected.data, rtol=tolerance, atol=rounding)
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


# --- copies over arrays -------------------------------------------------------------------------------------------

NODES = 3 * FEWEST
EDGES = [(k, k + 1) for k in range(NODES - 1)]
STIFFNESS = np.random.default_rng(1).uniform(0.5, 2.0, (len(EDGES), 3, 3))
XY = np.random.default_rng(3).uniform(0.5, 2.0, (NODES, 2))


def test_elements_written_by_hand():
    """Gather, a small matrix, and a vector added at the nodes."""
    elements = np.random.default_rng(4).integers(0, N, (3 * FEWEST, 3))
    elements = np.array([e for e in elements if len(set(e)) == 3])
    kernel = np.array([[2.0, -1.0, 0.0], [-1.0, 2.0, -1.0], [0.0, -1.0, 2.0]])

    def residual(u):
        r = np.zeros(N + 2)
        for e in elements:
            r[e] += kernel @ u[e] * (1.0 + np.mean(u[e]) ** 2)
        return r

    def matrix(u):
        a = np.zeros((N + 2, N + 2))
        for e in elements:
            a[np.ix_(e, e)] += np.exp(np.mean(u[e])) * kernel
        return a @ u

    check(residual, X)
    check(matrix, X)


def test_bars_that_pull_at_both_ends():
    def forces(x):
        f = np.zeros_like(x)
        for i, j in EDGES:
            d = x[j] - x[i]
            length = np.sqrt(d @ d)
            pull = (length - 1.0) * d / length
            f[i] += pull
            f[j] -= pull
        return f

    check(forces, XY, bits=False)


def test_matrices_and_numbers_of_each_element():
    def f(u):
        parts = []
        for k, (i, j) in enumerate(EDGES):
            local = STIFFNESS[k] @ np.array([u[i], u[j], 1.0]) * (0.5 + 0.1 * k)
            parts.append(local[:2])
        return np.concatenate(parts)

    check(f, X, bits=False)


def test_vectors_of_one_element_at_scalar_places():
    def f(u):
        r = np.zeros(NODES)
        for k, (i, j) in enumerate(EDGES):
            local = STIFFNESS[k, :2, :2] @ np.stack([u[i], u[j]]) ** 2
            r[i] += local[0]
            r[j] += local[1]
        return r

    check(f, X, bits=False)


def test_kinds_of_elements_one_after_another():
    def f(u):
        r = np.zeros(NODES)
        for i, j in EDGES:
            r[[i, j]] += np.sin(u[[i, j]])
        for i, j in EDGES:
            r[[i, j]] -= np.cumsum(u[[j, i]] ** 2)
        return r

    check(f, X, bits=False)


def test_distances_of_points():
    def f(x):
        return np.array([np.linalg.norm(x[i] - x[j]) - 1.0 for i, j in EDGES])

    check(f, XY)


def test_matrices_that_change_between_calls():
    matrices = STIFFNESS[:, :2, :2].copy()

    def f(u):
        return np.concatenate([matrices[k] @ u[[i, j]] for k, (i, j) in enumerate(EDGES)])

    jacobian = jc.jacobian(f, format="csr")
    before = jacobian(X).toarray()
    matrices[3] *= 2.0
    after = jacobian(X).toarray()
    np.testing.assert_allclose(after[6:8], 2.0 * before[6:8], rtol=1e-14)
    np.testing.assert_array_equal(np.delete(after, [6, 7], 0), np.delete(before, [6, 7], 0))
    assert length(f, X) < 20


def test_states_of_a_recurrence_are_no_copies():
    def f(x):
        states = [x[:2]]
        for _ in range(2 * FEWEST):
            states.append(np.sin(states[-1]) + x[2:4])
        return np.concatenate(states)

    check(f, X[:4], rolled=False)


# --- sums that are added up term by term --------------------------------------------------------------------------

TRIANGLES = np.random.default_rng(6).permuted(np.tile(np.arange(N), (2 * FEWEST, 1)), axis=1)[:, :3]
PLACES = np.random.default_rng(7).uniform(0.5, 2.0, (N, 2))


def area_energy(q: Any, weight: float) -> Any:
    d, e = q[1] - q[0], q[2] - q[0]
    area = d[0] * e[1] - d[1] * e[0]
    return weight * area**2 - np.log(1.0 + d @ d) + 0.5 * np.sum(e * e)


def summed(terms: Any) -> Any:
    total = 0.0
    for term in terms:
        total += term
    return total


SUMS = {
    "with +=": lambda x: summed((area_energy(x[t], 0.5 + k) for k, t in enumerate(TRIANGLES))),
    "with sum": lambda x: sum(area_energy(x[t], 2.0) for t in TRIANGLES),
    "without a start": lambda x: sum(
        (area_energy(x[t], 2.0) for t in TRIANGLES[1:]), area_energy(x[TRIANGLES[0]], 2.0)
    ),
    "subtracted": lambda x: 3.0 - summed(-area_energy(x[t], 2.0) for t in TRIANGLES),
    "of single numbers": lambda x: summed((x[i, 0] * np.exp(-x[j, 1]) for i, j, _ in TRIANGLES)),
    "of small matrices": lambda x: sum(np.outer(x[i] - x[j], x[j]) for i, j, _ in TRIANGLES),
    "of elements": lambda x: summed(x[i, 1] for i in range(N)),
}


@pytest.mark.parametrize("name", SUMS)
def test_sums_term_by_term(name):
    check(SUMS[name], PLACES, bits=name.startswith("of"))


def test_terms_in_turn_and_from_the_other_side():
    def turns(x):
        total = np.sum(x)
        for i, j, k in TRIANGLES:
            total = x[i] @ x[j] + total
            total -= np.sin(x[k, 0])
        return total * x[0, 0]

    def two(x):
        first = sum(x[i] @ x[j] for i, j, _ in TRIANGLES)
        second = sum(np.exp(x[j, 0]) for _, j, _ in TRIANGLES)
        return first + second

    check(turns, PLACES)
    check(two, PLACES)


def test_a_term_is_not_torn_apart():
    # Each of them is tiny; the sums of what they are made of are not.
    small = 1e-9 * np.arange(1.0, N + 1.0)

    def f(x):
        return sum((x[k] * small[k] + 1.0) - 1.0 for k in range(N))

    with jc.executor("numpy"):
        value, _ = jc.value_and_grad(f)(np.ones(N))
    assert length(f, np.ones(N)) < 20
    assert abs(value - f(np.ones(N))) < 1e-22


def test_partial_sums_that_are_read_stay():
    def running(x):
        total, steps = 0.0, []
        for k in range(N):
            total = total + x[k] * x[k + 1]
            steps.append(total)
        return np.array(steps)

    def fed_back(x):
        total = x[0]
        for k in range(N):
            total = total + np.sin(total) * x[k]
        return total

    check(running, X, rolled=False)
    check(fed_back, X, rolled=False)
    check(lambda x: sum(x[k] ** 2 for k in range(FEWEST - 1)), X, rolled=False)


def test_second_derivatives_of_a_sum_are_those_of_its_elements():
    def energy(x):
        return sum(area_energy(x[t], 2.0) for t in TRIANGLES)

    hessian = jc.hessian(energy, format="csr")(PLACES)
    want = np.zeros((PLACES.size, PLACES.size))
    for t in TRIANGLES:
        places = (2 * t[:, None] + [0, 1]).ravel()
        element = jc.hessian(lambda q: area_energy(q, 2.0))(PLACES[t])
        want[np.ix_(places, places)] += element.reshape(6, 6)
    np.testing.assert_allclose(hessian.toarray(), want, rtol=1e-12, atol=1e-12)
    assert hessian.nnz == len({(2 * i + a, 2 * j + b) for t in TRIANGLES for i in t for j in t for a in (0, 1)
                               for b in (0, 1)})  # fmt: skip
    structure = jc.hessian(energy, format="csr").structure(PLACES)
    assert structure.nnz == hessian.nnz

"""The structure of loops that are not written out: trajectories side by side, elements on their own, what mixes them.

Patterns are written out here by loops over places; random bodies are compared with the Python loop that they stand for.
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jacana as jc
from jacana.differentiate import unrolling

MIX = np.array([[0.9, 0.1, 0.0], [-0.2, 0.8, 0.05], [0.3, -0.1, 0.95]])
FORMATS = ["csr", "csc", "coo", "bsr", "dia", "auto"]


@pytest.fixture(autouse=True)
def nothing_is_written_out(monkeypatch):
    monkeypatch.setattr(unrolling, "UNROLLED_NODES", 0)


def rng():
    return np.random.default_rng(4)


def pattern(matrix):
    coo = matrix.tocoo()
    return set(zip(coo.row.tolist(), coo.col.tolist(), strict=True))


def places(shape, *indices):
    return int(np.ravel_multi_index(indices, shape))


def trajectories(x0, force):
    """Four systems of three numbers, one in each row."""

    def step(x, f):
        x = x @ MIX.T + 0.1 * np.tanh(x) * f[:, None]
        return x, x[:, 0]

    return jc.scan(step, x0, force)[0]


def by_columns(x0, force):
    """The same systems, one in each column."""
    return jc.scan(lambda x, f: (MIX @ x + 0.1 * np.tanh(x) * f, None), x0, force)[0]


@pytest.mark.parametrize("form", FORMATS)
def test_trajectories_side_by_side(form):
    x, f = rng().normal(size=(4, 3)), rng().normal(size=(6, 4))
    found = jc.jacobian(trajectories, format=form)(x, f)
    want = {(3 * b + i, 3 * b + j) for b in range(4) for i in range(3) for j in range(3)}
    dense = jc.jacobian(trajectories)(x, f).reshape(12, 12)
    if form != "auto":
        np.testing.assert_allclose(found.toarray(), dense, rtol=1e-13)
    if form in ("csr", "csc", "coo"):
        assert pattern(found) == want and found.nnz == 36
    if form == "bsr":
        assert found.blocksize == (3, 3) and len(found.indices) == 4
    by_force = jc.jacobian(trajectories, argnums=1, format="csr")(x, f)
    want = {(3 * b + i, 4 * t + b) for b in range(4) for i in range(3) for t in range(6)}
    assert pattern(by_force) == want and by_force.nnz == 72
    np.testing.assert_allclose(by_force.toarray(), jc.jacobian(trajectories, argnums=1)(x, f).reshape(12, 24))


def test_blocks_of_trajectories():
    x, f = rng().normal(size=(4, 3)), rng().normal(size=(6, 4))
    found = jc.jacobian(trajectories, format="blocks")(x, f)
    dense = jc.jacobian(trajectories)(x, f)
    assert found.shape == (4, 3, 3)
    np.testing.assert_array_equal(found, dense[range(4), :, range(4)])


def test_trajectories_in_columns():
    x, f = rng().normal(size=(3, 4)), rng().normal(size=(6, 4))
    found = jc.jacobian(by_columns, format="csr")(x, f)
    assert pattern(found) == {(4 * i + b, 4 * j + b) for b in range(4) for i in range(3) for j in range(3)}
    want = jc.jacobian(trajectories)(x.T, f)
    np.testing.assert_allclose(found.toarray(), want.transpose(1, 0, 3, 2).reshape(12, 12), rtol=1e-13, atol=1e-15)


@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_elements_on_their_own(shape):
    def f(a, x):
        return jc.scan(lambda c, v: (np.tanh(a * c + v), c * v), np.zeros(shape), x)

    a, x = rng().normal(size=shape), rng().normal(size=(7, *shape))
    size = a.size
    last = jc.jacobian(lambda a, x: f(a, x)[0], format="dia")(a, x)
    assert list(last.offsets) == [0]
    ys = jc.jacobian(lambda a, x: f(a, x)[1], format="csr")(a, x)
    assert pattern(ys) == {(t * size + e, e) for t in range(7) for e in range(size)}
    by_x = jc.jacobian(lambda a, x: f(a, x)[0], argnums=1, format="csr")(a, x)
    assert pattern(by_x) == {(e, t * size + e) for t in range(7) for e in range(size)}


def test_captured_arrays_and_carries_beside_the_axis():
    weights, still = rng().normal(size=(2, 4)), rng().normal(size=3)

    def f(x):
        def step(carry, _):
            y, t, z = carry
            return (np.sin(y * weights) / (1.0 + t), t + 0.5, np.roll(z, 1)), None

        return jc.scan(step, (x, 0.0, still), None, length=9)[0][0]

    x = rng().normal(size=(2, 4))
    found = jc.jacobian(f, format="csr")(x)
    assert pattern(found) == {(e, e) for e in range(8)}
    want = x
    slope = np.ones((2, 4))
    for t in range(9):
        slope *= weights * np.cos(want * weights) / (1.0 + 0.5 * t)
        want = np.sin(want * weights) / (1.0 + 0.5 * t)
    np.testing.assert_allclose(found.diagonal(), slope.ravel(), rtol=1e-13)


def test_reductions_and_products_across_other_axes():
    def f(x):  # rows on their own, in every kind of operation
        def step(c, _):
            c = c * 0.9 + c.max(axis=1, keepdims=True) - np.cumsum(c, axis=1) / 7
            c = c + np.einsum("bi,ij,bj->b", c, MIX, np.tanh(c))[:, None] * 0.01
            return np.concatenate([c[:, 1:], c[:, :1]], axis=1), None

        return jc.scan(step, x, None, length=3)[0]

    x = rng().normal(size=(2, 3))
    found = jc.jacobian(f, format="csr")(x)
    assert pattern(found) == {(3 * b + i, 3 * b + j) for b in range(2) for i in range(3) for j in range(3)}
    h = 1e-6
    for k in range(6):
        e = np.zeros(6)
        e[k] = h
        slope = (f(x + e.reshape(2, 3)) - f(x - e.reshape(2, 3))).ravel() / (2 * h)
        np.testing.assert_allclose(found.toarray()[:, k], slope, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize(
    "step",
    [
        lambda c: c[::-1] * 0.9,
        lambda c: c - c.mean(axis=0),
        lambda c: np.concatenate([c[1:], c[:1]]),
        lambda c: c + c[0],
        lambda c: np.outer(c[:, 0], np.ones(2)) @ np.ones((2, 2)) + c.sum(),
        lambda c: c[np.array([1, 0, 2])] + c,
        lambda c: np.diag(np.diag(c[:2])).sum() + c,
    ],
    ids=["flip", "mean", "roll", "first", "sum", "gather", "diagonal"],
)
def test_places_that_mix_are_not_taken_apart(step):
    def f(x):
        return jc.scan(lambda c, _: (np.sin(step(c)), None), x, None, length=4)[0]

    def straight(x):
        for _ in range(4):
            x = np.sin(step(x))
        return x

    x = rng().normal(size=(3, 2))
    want = jc.jacobian(straight)(x).reshape(6, 6)
    found = jc.jacobian(f, format="csr")(x)
    np.testing.assert_allclose(found.toarray(), want, rtol=1e-12, atol=1e-14)
    np.testing.assert_allclose(jc.jacobian(f)(x).reshape(6, 6), want, rtol=1e-12, atol=1e-14)


def test_fori_loop_that_reads_and_writes_at_its_number():
    def f(x):  # rows of x are on their own
        def body(i, y):
            y[:, i] = 0.5 * y[:, i - 1] * x[:, i]
            return y

        return jc.fori_loop(1, 5, body, np.zeros((3, 5)) + x)

    x = rng().normal(size=(3, 5))
    found = jc.jacobian(f, format="csr")(x)
    assert pattern(found) <= {(5 * b + i, 5 * b + j) for b in range(3) for i in range(5) for j in range(5)}
    straight = np.zeros((3, 5, 3, 5))
    y = x.copy()
    slope = np.einsum("ab,ij->aibj", np.eye(3), np.eye(5))
    for i in range(1, 5):
        slope[:, i] = 0.5 * (slope[:, i - 1] * x[:, i, None, None])
        slope[range(3), i, range(3), i] += 0.5 * y[:, i - 1]
        y[:, i] = 0.5 * y[:, i - 1] * x[:, i]
    straight = slope
    np.testing.assert_allclose(found.toarray(), straight.reshape(15, 15), rtol=1e-13)


def test_a_loop_in_a_loop_keeps_the_axis():
    def f(x, a):
        def outer(c, v):
            inner = jc.scan(lambda d, _: (np.sin(d) * a + v, None), c, None, length=5)[0]
            return inner, inner * v

        return jc.scan(outer, x, np.linspace(0, 1, 4))

    x, a = rng().normal(size=(3, 2)), rng().normal(size=2)
    last = jc.jacobian(lambda x: f(x, a)[0], format="csr")(x)
    assert pattern(last) == {(e, e) for e in range(6)}
    ys = jc.jacobian(lambda x: f(x, a)[1], format="csr")(x)
    assert pattern(ys) == {(6 * t + e, e) for t in range(4) for e in range(6)}


def test_blocks_of_a_long_loop_keep_the_axis(monkeypatch):
    from jacana.record import bodies

    monkeypatch.setattr(bodies, "STORED_BYTES", 100)
    x, f = rng().normal(size=(4, 3)), rng().normal(size=(11, 4))
    for function, argument in ((trajectories, x), (by_columns, x.T.copy())):
        found = jc.jacobian(function, format="csr")(argument, f)
        assert found.nnz == 36
        np.testing.assert_allclose(found.toarray(), jc.jacobian(function)(argument, f).reshape(12, 12), rtol=1e-13)
    monkeypatch.undo()
    np.testing.assert_allclose(
        jc.jacobian(trajectories)(x, f).reshape(12, 12)[:3, :3],
        jc.jacobian(by_columns)(x.T.copy(), f)[:, 0, :, 0],
        rtol=1e-12,
    )


# --- what steps hand on -----------------------------------------------------------------------------------------


def chain(x0, u):
    """x0 -> x1 within two steps; x2 on its own, driven by another force."""

    def step(x, v):
        x = np.stack([x[0] * 0.9 + v[0], np.sin(x[1]) + x[0], x[2] * v[1]])
        return x, (x[0], x[2] + v[0])

    return jc.scan(step, x0, u)


@pytest.mark.parametrize("steps", [5, 64])
def test_what_a_carry_can_come_to_depend_on(steps):
    x0, u = rng().normal(size=3), rng().normal(size=(steps, 2))
    last = jc.jacobian(lambda x, u: chain(x, u)[0], format="csr")(x0, u)
    assert pattern(last) == {(0, 0), (1, 0), (1, 1), (2, 2)}
    last = jc.jacobian(lambda x, u: chain(x, u)[0], argnums=1, format="csr")(x0, u)
    want = {(0, 2 * t) for t in range(steps)} | {(1, 2 * t) for t in range(steps - 1)}
    assert pattern(last) == want | {(2, 2 * t + 1) for t in range(steps)}


@pytest.mark.parametrize("reverse", [False, True])
def test_stacked_outputs_do_not_depend_on_what_comes_later(reverse):
    def f(x, u, k):
        def step(c, v):
            c = 0.5 * np.tanh(c) + v
            return c, (c, c[:1] * 0.5, v * v)[k]

        return jc.scan(step, x, u, reverse=reverse)[1]

    x, u = rng().normal(size=2), rng().normal(size=(6, 2))

    def seen(s, t):
        return s >= t if reverse else s <= t

    all_of_it = jc.jacobian(lambda u: f(x, u, 0), format="csr")(u)
    assert pattern(all_of_it) == {
        (2 * t + e, 2 * s + e) for t in range(6) for s in range(6) if seen(s, t) for e in range(2)
    }
    assert all_of_it.nnz == 42
    first = jc.jacobian(lambda u: f(x, u, 1), format="csc")(u)
    assert pattern(first) == {(t, 2 * s) for t in range(6) for s in range(6) if seen(s, t)}
    own = jc.jacobian(lambda u: f(x, u, 2), format="csr")(u)
    assert pattern(own) == {(k, k) for k in range(12)}
    np.testing.assert_allclose(all_of_it.toarray(), jc.jacobian(lambda u: f(x, u, 0))(u).reshape(12, 12))
    banded = jc.jacobian(lambda u: np.diff(f(x, u, 0), axis=0), format="csr")(u)
    assert pattern(banded) <= {
        (2 * t + e, 2 * s + e) for t in range(5) for s in range(6) if seen(s, t) or seen(s, t + 1) for e in range(2)
    }


def test_a_triangular_system_stays_triangular():
    lower = np.tril(rng().normal(size=(4, 4)))

    def f(x, b):
        return jc.fori_loop(0, 9, lambda i, c: 0.5 * np.sin(lower @ c) + b, x)

    x, b = rng().normal(size=4), rng().normal(size=4)
    triangle = {(i, j) for i in range(4) for j in range(i + 1)}
    for place in (0, 1):
        found = jc.jacobian(f, argnums=place, format="csr")(x, b)
        assert pattern(found) == triangle and found.nnz == 10
        dense = jc.jacobian(f, argnums=place)(x, b)
        np.testing.assert_allclose(found.toarray(), dense, rtol=1e-13)
        assert not np.triu(dense, 1).any()


def test_a_vmapped_loop_is_triangular_in_each_sample():
    def f(u):
        return jc.scan(lambda c, v: (0.5 * np.tanh(c) + v,) * 2, 0.0, u)[1]

    u = rng().normal(size=(3, 5))
    found = jc.jacobian(jc.vmap(f), format="csr")(u)
    assert pattern(found) == {(5 * b + t, 5 * b + s) for b in range(3) for t in range(5) for s in range(t + 1)}
    assert found.nnz == 45
    np.testing.assert_allclose(found.toarray(), jc.jacobian(jc.vmap(f))(u).reshape(15, 15), rtol=1e-13)
    h = jc.hessian(lambda u: np.sum(jc.vmap(f)(u)[:, 2] ** 2), format="csr")(u)
    assert pattern(h) <= {(5 * b + t, 5 * b + s) for b in range(3) for t in range(5) for s in range(5)}


def test_while_loops_and_branches_have_the_pattern_of_their_bodies():
    lower = np.tril(rng().normal(size=(3, 3)))

    def f(x):
        return jc.while_loop(lambda c: np.sum(np.abs(c)) > 0.5, lambda c: 0.5 * np.sin(lower @ c), x)

    def g(x):
        return jc.cond(x[0] > 0, lambda v: lower @ v, lambda v: v * v, x)

    x = np.array([1.0, 2.0, -1.0])
    triangle = {(i, j) for i in range(3) for j in range(i + 1)}
    for function in (f, g):
        found = jc.jacobian(function, format="csr")(x)
        assert pattern(found) == triangle
        np.testing.assert_allclose(found.toarray(), jc.jacobian(function)(x), rtol=1e-14)


# --- random bodies ----------------------------------------------------------------------------------------------

SHAPE = (2, 3)
PIECES = {
    "sine": lambda c, x, w: np.sin(c),
    "row sum": lambda c, x, w: c.sum(axis=1, keepdims=True) + 0.0 * c,
    "column mean": lambda c, x, w: c - c.mean(axis=0),
    "mix": lambda c, x, w: c @ w,
    "transposed mix": lambda c, x, w: (w @ c.T).T,
    "times slice": lambda c, x, w: c * x,
    "slice row": lambda c, x, w: c + x[0],
    "roll": lambda c, x, w: np.roll(c, 1, axis=1),
    "swap": lambda c, x, w: c[::-1],
    "largest": lambda c, x, w: c - c.max(axis=1, keepdims=True),
    "where": lambda c, x, w: np.where(c > 0.1, c * c, x),
    "first column": lambda c, x, w: c[:, :1] * np.ones(3),
    "running": lambda c, x, w: np.cumsum(c, axis=1),
    "weights": lambda c, x, w: c * w[:2],
    "fill": lambda c, x, w: np.concatenate([c[:, 1:], x[:, :1]], axis=1),
}


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.sampled_from(sorted(PIECES)), min_size=1, max_size=4),
    st.sampled_from(sorted(PIECES)),
    st.booleans(),
    st.sampled_from(["last", "all"]),
)
def test_no_entry_is_missing(names, output, reverse, which):
    w = rng().normal(size=(3, 3)) * 0.5

    def body(c, x):
        for name in names:
            c = PIECES[name](c, x, w)
        return 0.7 * np.cos(c), PIECES[output](c, x, w)

    def f(c, xs):
        last, ys = jc.scan(body, c, xs, reverse=reverse)
        return last if which == "last" else ys

    def straight(c, xs):
        rows = []
        for t in range(3)[:: -1 if reverse else 1]:
            c, y = body(c, xs[t])
            rows.append(y)
        return c if which == "last" else np.stack(rows[:: -1 if reverse else 1])

    c, xs = rng().normal(size=SHAPE), rng().normal(size=(3, *SHAPE))
    for argnums in (0, 1):
        want = jc.jacobian(straight, argnums=argnums)(c, xs)
        found = jc.jacobian(f, argnums=argnums, format="csr")(c, xs)
        np.testing.assert_allclose(found.toarray(), want.reshape(found.shape), rtol=1e-11, atol=1e-13)
        dense = jc.jacobian(f, argnums=argnums)(c, xs)
        np.testing.assert_allclose(dense, want, rtol=1e-11, atol=1e-13)
        exact = jc.jacobian(straight, argnums=argnums, format="csr")(c, xs)
        assert pattern(found) >= pattern(exact) and found.nnz <= 3 * exact.nnz + 36


def test_instances_do_not_see_one_another():
    """A NaN in one trajectory stays in it, in value and derivative."""
    x, f = rng().normal(size=(4, 3)), rng().normal(size=(6, 4))
    x[2, 0] = np.nan
    found = jc.jacobian(trajectories)(x, f)
    for a, b in itertools.product(range(4), repeat=2):
        block = found[a, :, b]
        assert np.isnan(block).any() if a == b == 2 else np.isfinite(block).all()
        assert a == b or not block.any()

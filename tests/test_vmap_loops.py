"""``vmap`` of loops and branches: values and derivatives against the same program sample by sample."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc

A = np.array([[0.9, 0.1], [-0.2, 0.8]])


def rng():
    return np.random.default_rng(11)


def simulate(x0, force, weight):
    """Two carries, one of which is the same for every sample; slices, a constant, outputs."""

    def step(carry, f):
        x, t = carry
        x = A @ x + weight * np.array([0.0, 1.0]) * np.tanh(f) + 0.1 * np.sin(x) / (1.0 + t)
        return (x, t + 1.0), x[0] * weight

    (x, t), ys = jc.scan(step, (x0, 0.0), force)
    return np.concatenate([x * t, ys])


def taken(arguments, axes, k):
    return [a if axis is None else a[k] for a, axis in zip(arguments, axes, strict=True)]


AXES = [(0, 0, None), (0, None, None), (None, 0, None), (None, None, 0), (0, 0, 0)]


@pytest.mark.parametrize("axes", AXES)
@pytest.mark.parametrize("steps", [6, 300])  # written out where structure is asked for, and not
@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_scan(executor, steps, axes):
    samples = 5
    every = rng().normal(size=(samples, 2)), rng().normal(size=(samples, steps)), np.linspace(0.1, 0.5, samples)
    arguments = [a if axis == 0 else a[0] for a, axis in zip(every, axes, strict=True)]
    f = jc.vmap(simulate, in_axes=axes)
    rows = [taken(arguments, axes, k) for k in range(samples)]
    with jc.executor(executor):
        value = f(*arguments)
        np.testing.assert_allclose(value, [simulate(*row) for row in rows], rtol=1e-11, atol=1e-12)
        for place, axis in enumerate(axes):
            one = jc.jacobian(simulate, argnums=place)
            each = np.stack([one(*row) for row in rows])
            np.testing.assert_allclose(jc.vmap(one, in_axes=axes)(*arguments), each, rtol=1e-11, atol=1e-12)
            want = each
            if axis == 0:
                want = np.zeros((*value.shape, *arguments[place].shape))
                want[range(samples), :, range(samples)] = each
            close = {"rtol": 1e-11, "atol": 1e-12}
            np.testing.assert_allclose(jc.jacobian(f, argnums=place)(*arguments), want, **close)
            sparse = jc.jacobian(f, argnums=place, format="csr")(*arguments)
            np.testing.assert_allclose(sparse.toarray(), want.reshape(sparse.shape), **close)
            if axis == 0:
                assert sparse.nnz <= each.size  # nothing between samples
                blocks = jc.jacobian(f, argnums=place, format="blocks")(*arguments)
                np.testing.assert_allclose(blocks, each.reshape(blocks.shape), **close)
            gradient = jc.grad(lambda *a: np.sum(f(*a) ** 2), argnums=place)(*arguments)
            np.testing.assert_allclose(gradient, np.tensordot(2 * value, want, 2), rtol=1e-10, atol=1e-11)


def test_second_derivatives():
    x, u = rng().normal(size=(3, 2)), rng().normal(size=(3, 40))

    def energy(x0, force):
        return np.sum(simulate(x0, force, 0.3) ** 2)

    each = np.stack([jc.hessian(energy, argnums=1)(*row) for row in zip(x, u, strict=True)])
    np.testing.assert_allclose(jc.vmap(jc.hessian(energy, argnums=1))(x, u), each, rtol=1e-9, atol=1e-10)
    total = jc.hessian(lambda v: jc.vmap(energy)(x, v).sum(), format="csr")(u)
    want = np.zeros((3, 40, 3, 40))
    want[range(3), :, range(3)] = each
    np.testing.assert_allclose(total.toarray(), want.reshape(120, 120), rtol=1e-9, atol=1e-10)
    assert total.nnz <= 3 * 40 * 40


def test_nested_batches_and_axes_in_and_out():
    x, u = rng().normal(size=(3, 2)), rng().normal(size=(25, 4))
    inner = jc.vmap(simulate, in_axes=(None, 1, None), out_axes=1)
    outer = jc.vmap(inner, in_axes=(0, None, None))
    want = np.stack([[simulate(x[i], u[:, j], 0.2) for j in range(4)] for i in range(3)]).swapaxes(1, 2)
    np.testing.assert_allclose(outer(x, u, 0.2), want, rtol=1e-11, atol=1e-12)
    by_x = np.stack([[jc.jacobian(simulate)(x[i], u[:, j], 0.2) for j in range(4)] for i in range(3)]).swapaxes(1, 2)
    blocks = jc.jacobian(outer, format="blocks")(x, u, 0.2)
    np.testing.assert_allclose(blocks, by_x.reshape(blocks.shape), rtol=1e-11, atol=1e-12)
    by_u = jc.jacobian(outer, argnums=1, format="csr")(x, u, 0.2)
    full = np.zeros((3, 27, 4, 25, 4))
    for i in range(3):
        for j in range(4):
            full[i, :, j, :, j] = jc.jacobian(simulate, argnums=1)(x[i], u[:, j], 0.2)
    np.testing.assert_allclose(by_u.toarray(), full.reshape(by_u.shape), rtol=1e-11, atol=1e-12)
    assert by_u.nnz <= 3 * 27 * 4 * 25


def test_a_loop_in_a_loop():
    def f(x, v):
        def outer(total, s):
            inner = jc.fori_loop(0, 7, lambda i, c: np.sin(c) + s * v[i], total)
            return inner, inner

        return jc.scan(outer, x, np.arange(20.0) / 20)[1]

    x, v = rng().normal(size=4), rng().normal(size=(4, 7))
    g = jc.vmap(f)
    np.testing.assert_allclose(g(x, v), [f(*row) for row in zip(x, v, strict=True)], rtol=1e-12)
    want = np.stack([jc.jacobian(f, argnums=1)(*row) for row in zip(x, v, strict=True)])
    np.testing.assert_allclose(jc.vmap(jc.jacobian(f, argnums=1))(x, v), want, rtol=1e-11, atol=1e-13)
    found = jc.jacobian(g, argnums=1, format="blocks")(x, v)
    np.testing.assert_allclose(found, want, rtol=1e-11, atol=1e-13)


def test_reverse_float32_integers_and_no_steps():
    def f(x, n):
        def step(c, v):
            total, count = c
            return (total * np.float32(0.5) + v, count + n), (total * v, count)

        return jc.scan(step, (np.float32(0.0), 0), x, reverse=True)

    x, n = rng().normal(size=(3, 5)).astype("f4"), np.array([1, 0, 4])
    (total, count), (ys, counts) = jc.vmap(f)(x, n)
    assert total.dtype == np.float32 and count.dtype == np.int64
    for k in range(3):
        (a, b), (c, d) = f(x[k], int(n[k]))
        np.testing.assert_allclose(total[k], a, rtol=1e-6)
        np.testing.assert_allclose(ys[k], c, rtol=1e-6)
        assert count[k] == b
        np.testing.assert_array_equal(counts[k], d)
    empty = jc.vmap(lambda x: jc.scan(lambda c, v: (c + v, c), x[0], x[1:])[0])
    np.testing.assert_array_equal(empty(np.ones((3, 1))), np.ones(3))
    np.testing.assert_array_equal(jc.jacobian(empty)(np.ones((3, 1)))[:, :, 0], np.eye(3))


# --- loops that end when they end -------------------------------------------------------------------------------


def newton_root(a):
    return jc.while_loop(lambda x: abs(x * x - a) > 1e-13 * a, lambda x: 0.5 * (x + a / x), a)


@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_while_loop_runs_until_every_sample_has_ended(executor):
    # The first sample takes few steps, others more than the first recording has room for.
    a = np.array([4.0, 1e-6, 1.0, 1e26, 2.0])
    with jc.executor(executor):
        np.testing.assert_allclose(jc.vmap(newton_root)(a), np.sqrt(a), rtol=1e-13)
        slopes = 0.5 / np.sqrt(a)
        slopes[2] = 1.0  # it starts at its root, and is its argument there
        np.testing.assert_allclose(jc.vmap(jc.grad(newton_root))(a), slopes, rtol=1e-12)
        found = jc.jacobian(jc.vmap(newton_root), format="csr")(a)
        assert found.nnz == 5
        np.testing.assert_allclose(found.toarray(), np.diag(slopes), rtol=1e-12)
        np.testing.assert_allclose(jc.grad(lambda v: jc.vmap(newton_root)(v).sum())(a), slopes, rtol=1e-12)


def countdown(x):
    """A step after the last one would take the root and the logarithm of a negative number."""

    def body(c):
        v, total = c
        return v - 1.0, total + np.sqrt(v) * np.log(v)

    return jc.while_loop(lambda c: c[0] > 0.5, body, (x, 0.0))[1]


@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_what_an_ended_sample_would_compute_does_not_leak(executor):
    x = np.array([0.2, -3.0, 1.0, 2.5, 7.3])
    f = jc.vmap(countdown)
    with jc.executor(executor):
        np.testing.assert_allclose(f(x), [countdown(v) for v in x], rtol=1e-14)
        slopes = np.array([jc.grad(countdown)(v) for v in x])
        # d(sqrt(v) log(v)) = (log(v) / 2 + 1) / sqrt(v), for every number on the way down.
        ways = [v - np.arange(max(np.ceil(v - 0.5), 0)) for v in x]
        np.testing.assert_allclose(slopes, [np.sum((np.log(w) / 2 + 1) / np.sqrt(w)) for w in ways], rtol=1e-13)
        np.testing.assert_allclose(jc.vmap(jc.grad(countdown))(x), slopes, rtol=1e-13)
        np.testing.assert_allclose(jc.jacobian(f)(x), np.diag(slopes), rtol=1e-13)
        sparse = jc.jacobian(f, format="csr")(x)
        assert sparse.nnz == 5
        np.testing.assert_allclose(sparse.toarray(), np.diag(slopes), rtol=1e-13)
        np.testing.assert_allclose(jc.jvp(f)(x, np.ones(5))[1], slopes, rtol=1e-13)
        bends = [np.sum(-np.log(w) / 4 * w**-1.5) for w in ways]
        np.testing.assert_allclose(jc.vmap(jc.hessian(countdown))(x), bends, rtol=1e-12)
        np.testing.assert_allclose(jc.hessian(lambda v: f(v).sum())(x), np.diag(bends), rtol=1e-12)


def test_while_loop_inside_a_recorded_function_makes_room_for_all():
    a = np.array([4.0, 3.0])
    f = jc.jacobian(lambda v: jc.vmap(newton_root)(v))
    np.testing.assert_allclose(f(a), np.diag(0.5 / np.sqrt(a)), rtol=1e-12)
    a = np.array([4.0, 1e30])  # more steps than at the first call
    np.testing.assert_allclose(f(a), np.diag(0.5 / np.sqrt(a)), rtol=1e-12)
    twice = jc.vmap(lambda row: jc.vmap(newton_root)(row).sum())
    rows = np.array([[4.0, 9.0], [1e20, 16.0], [2.0, 1e-10]])
    np.testing.assert_allclose(twice(rows), np.sqrt(rows).sum(axis=1), rtol=1e-12)


def test_a_condition_that_all_samples_share():
    def f(x, n):
        return jc.while_loop(lambda c: c[0] < n, lambda c: (c[0] + 1, np.sin(c[1])), (0, x), max_steps=9)[1]

    x = np.array([0.3, 2.0, -1.0])
    want = np.sin(np.sin(np.sin(x)))
    np.testing.assert_allclose(jc.vmap(f, in_axes=(0, None))(x, 3), want, rtol=1e-15)
    slopes = np.cos(np.sin(np.sin(x))) * np.cos(np.sin(x)) * np.cos(x)
    found = jc.jacobian(jc.vmap(f, in_axes=(0, None)), format="csr")(x, 3)
    assert found.nnz == 3
    np.testing.assert_allclose(found.diagonal(), slopes, rtol=1e-14)


# --- branches ---------------------------------------------------------------------------------------------------


def branch(x, y):
    return jc.cond(x > 0, lambda v: np.sqrt(v) * y, lambda v: np.log(-v) * y * y, x)


@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_cond(executor):
    x, y = np.array([1.0, -2.0, 0.25, -1.0, 9.0]), np.array([2.0, 3.0, 4.0, 5.0, 6.0])
    by_x = np.where(x > 0, y / 2 / np.sqrt(abs(x)), y * y / x)
    by_y = np.where(x > 0, np.sqrt(abs(x)), 2 * y * np.log(abs(x)))
    f = jc.vmap(branch)
    with jc.executor(executor):
        np.testing.assert_allclose(f(x, y), [branch(*row) for row in zip(x, y, strict=True)], rtol=1e-15)
        for place, want in enumerate((by_x, by_y)):
            np.testing.assert_allclose(jc.vmap(jc.grad(branch, argnums=place))(x, y), want, rtol=1e-14)
            sparse = jc.jacobian(f, argnums=place, format="csr")(x, y)
            assert sparse.nnz == 5
            np.testing.assert_allclose(sparse.toarray(), np.diag(want), rtol=1e-14)
        bends = np.where(x > 0, -y / 4 * abs(x) ** -1.5, -y * y / x**2)
        np.testing.assert_allclose(jc.vmap(jc.hessian(branch))(x, y), bends, rtol=1e-13)


def test_a_predicate_that_all_samples_share_runs_one_branch():
    def f(p, x):
        return jc.cond(p > 0, lambda v: v @ v, lambda v: np.linalg.solve(np.diag(v), np.ones(2)).sum(), x)

    x = rng().normal(size=(3, 2))
    g = jc.vmap(f, in_axes=(None, 0))
    np.testing.assert_allclose(g(1.0, x), np.sum(x**2, axis=1), rtol=1e-15)
    np.testing.assert_allclose(g(-1.0, x), np.sum(1 / x, axis=1), rtol=1e-14)
    x[1] = 0.0  # where the branch that is not taken would raise
    np.testing.assert_allclose(g(1.0, x), np.sum(x**2, axis=1), rtol=1e-15)
    np.testing.assert_allclose(jc.jacobian(g, argnums=1, format="blocks")(1.0, x), 2 * x, rtol=1e-15)
    with pytest.raises(np.linalg.LinAlgError):
        g(-1.0, x)


# --- positions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_positions_that_differ_from_sample_to_sample(executor):
    def fill(x, k):
        def body(c):
            i, y = c
            y[i] = 0.5 * y[i - 1] + x[i] * x[-1 - i]
            return i + 1, y

        return jc.while_loop(lambda c: c[0] < k, body, (1, np.zeros(3) + x))[1]

    x, k = rng().normal(size=(4, 3)), np.array([0, 3, 1, 2])
    with jc.executor(executor):
        np.testing.assert_allclose(jc.vmap(fill)(x, k), [fill(a, int(n)) for a, n in zip(x, k, strict=True)])
        want = np.stack([jc.jacobian(fill)(a, int(n)) for a, n in zip(x, k, strict=True)])
        np.testing.assert_allclose(jc.jacobian(jc.vmap(fill), format="blocks")(x, k), want, rtol=1e-13, atol=1e-15)


def test_a_position_outside_is_not_silent():
    def read(x, k):
        return jc.while_loop(lambda c: c[0] < k, lambda c: (c[0] + 1, c[1] + x[c[0]]), (0, 0.0), max_steps=9)[1]

    x = np.ones((2, 3))
    np.testing.assert_array_equal(jc.vmap(read)(x, np.array([2, 3])), [2.0, 3.0])
    np.testing.assert_array_equal(jc.vmap(read)(x, np.array([2, 5])), [2.0, np.nan])


def test_what_has_no_batch_is_named_with_its_line():
    cube = jc.custom_operation(lambda x: x**3, partials=lambda x: [[3 * x**2]], name="cube")

    def f(a):
        b = a * 2.0
        return cube(b)  # here

    with pytest.raises(jc.UnsupportedOperationError, match="cannot be carried out on a batch") as caught:
        jc.vmap(f)(np.array([1.0, 2.0]))
    assert "# here" in str(caught.value) and __file__ in str(caught.value)

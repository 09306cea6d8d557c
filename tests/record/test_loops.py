"""scan, fori_loop, while_loop, cond against the Python loops they stand for: values, derivatives, formats, errors."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support import EXECUTORS

import jacana as jc
from jacana import trees
from jacana.record import bodies


@pytest.fixture(params=EXECUTORS, autouse=True)
def executor(request):
    with jc.executor(request.param):
        yield request.param


def same(found, wanted, tolerance=1e-11):
    have, tree = trees.flatten(found)
    want, other = trees.flatten(wanted)
    assert tree == other
    for a, b in zip(have, want, strict=True):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape and a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)


def python_scan(f, init, xs=None, length=None, reverse=False):
    """The loop, which jacana records step by step."""
    leaves, tree = trees.flatten(xs)
    steps = len(leaves[0]) if leaves else length
    rows = []
    for t in range(steps)[:: -1 if reverse else 1]:
        init, y = f(init, trees.unflatten(tree, [leaf[t] for leaf in leaves]))
        rows.append(y)
    if reverse:
        rows.reverse()
    structure = trees.flatten(rows[0])[1]
    columns = zip(*(trees.flatten(row)[0] for row in rows), strict=True)
    return init, trees.unflatten(structure, [np.stack(column) for column in columns])


RNG = np.random.default_rng(0)
W, U = RNG.normal(size=(3, 3)) * 0.5, RNG.normal(size=(3, 2))
X, H = RNG.normal(size=(4, 2)), RNG.normal(size=3)


def cell(scan, w, u, h, xs, reverse=False):
    """A recurrent network with a tree as carry, a tree as output, and two matrices from outside."""

    def step(carry, x):
        new = np.tanh(w @ carry["h"] + u @ x)
        return {"h": new, "energy": carry["energy"] + np.sum(new**2)}, (new, x[0] * carry["h"])

    return scan(step, {"h": h, "energy": 0.0}, xs, reverse=reverse)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("steps", [1, 2, 4])
def test_values(steps, reverse):
    wanted = cell(python_scan, W, U, H, X[:steps], reverse)
    same(cell(jc.scan, W, U, H, X[:steps], reverse), wanted)  # not recorded: the loop itself
    value = jc.value_and_jacobian(lambda h: cell(jc.scan, W, U, h, X[:steps], reverse))(H)[0]
    same(trees.flatten(value)[0], trees.flatten(wanted)[0])


@pytest.mark.parametrize("order", ["forward", "reverse", "cost", "auto"])
@pytest.mark.parametrize("reverse", [False, True])
def test_jacobians_by_everything(order, reverse):
    def by(scan):
        def f(w, u, h, xs):
            return cell(scan, w, u, h, xs, reverse)

        return jc.jacobian(f, argnums=(0, 1, 2, 3), order=order)(W, U, H, X)

    same(by(jc.scan), by(python_scan))


@pytest.mark.parametrize("argnum", [0, 2, 3])
def test_hessians(argnum):
    def by(scan):
        def loss(*args):
            carry, (ys, zs) = cell(scan, *args)
            return np.sum(np.sin(ys) * zs[:, ::-1]) + carry["energy"] ** 2

        return jc.hessian(loss, argnums=argnum)(W, U, H, X)

    same(by(jc.scan), by(python_scan), 1e-10)


def test_third_derivative():
    def third(scan):
        def f(x):
            return scan(lambda c, v: (np.sin(c * v), c), x[0], x)[0]

        return jc.jacobian(lambda x: jc.hessian(f)(x))(X[:3, 0])

    same(third(jc.scan), third(python_scan), 1e-10)


def test_against_finite_differences():
    def loss(w):
        return np.sum(cell(jc.scan, w, U, H, X)[1][0] ** 2)

    found = jc.grad(loss)(W)
    for i, j in [(0, 0), (1, 2), (2, 1)]:
        e = np.zeros_like(W)
        e[i, j] = 1e-6
        np.testing.assert_allclose(found[i, j], (loss(W + e) - loss(W - e)) / 2e-6, rtol=1e-7)


def test_closed_forms():
    # A running sum, and c' = a c + x, whose Jacobian has powers of a.
    x = RNG.normal(size=6)
    same(jc.jacobian(lambda x: jc.scan(lambda c, v: (c + v, c + v), 0.0, x)[1])(x), np.tri(6))
    a = 0.7
    found = jc.jacobian(lambda x: jc.scan(lambda c, v: (a * c + v, a * c + v), 0.0, x)[1])(x)
    same(found, np.tril(a ** (np.arange(6)[:, None] - np.arange(6.0))))


@pytest.mark.parametrize("format", ["csr", "csc", "coo", "bsr", "operator"])
def test_formats(format):
    def heat(scan):
        def step(u, f):
            new = u + 0.1 * (np.concatenate([u[1:], u[-1:]]) - 2 * u + np.concatenate([u[:1], u[:-1]])) + f
            return new, new

        return lambda fs: scan(step, np.ones(5), fs)[1]

    fs = RNG.normal(size=(3, 5))
    found, wanted = (jc.jacobian(heat(s), format=format)(fs) for s in (jc.scan, python_scan))
    dense = jc.jacobian(heat(python_scan))(fs).reshape(15, 15)
    np.testing.assert_allclose(found @ np.eye(15), dense, atol=1e-13)
    if hasattr(found, "nnz"):
        assert found.nnz == wanted.nnz  # written out: bands in a lower block triangle, not full blocks


def test_residuals_of_time_stepping_are_block_bidiagonal():
    # The loop carries the state that is given at each step, so row t depends on states t and t - 1 alone.
    def residual(states):
        def step(before, now):
            return now, now - before - 0.1 * np.sin(now[::-1])

        return jc.scan(step, np.zeros(2), states)[1]

    states = RNG.normal(size=(5, 2))
    assert jc.jacobian(residual, format="csr")(states).nnz == 5 * 2 * 2 + 4 * 2


def test_long_loops_are_planned_at_once(executor):
    # Two thousand steps are as many nodes as ten.
    from jacana.graph import topological

    def nodes(n):
        _recording, traced = jc.grad(lambda x: jc.scan(lambda c, v: (np.sin(c) + v, None), 0.0, x)[0])._replay.trace(
            (np.ones(n),), {}
        )
        return len(topological(traced.outputs))

    assert nodes(10) == nodes(2_000)


def test_blocks(monkeypatch):
    def by(limit, steps, reverse):
        monkeypatch.setattr(bodies, "STORED_BYTES", limit)

        def loss(x, w):
            def step(c, v):
                i, c = c
                return (i + 1, np.tanh(w * c + v)), c * i

            (_, last), ys = jc.scan(step, (0, np.ones(2)), x, reverse=reverse)
            return np.sum(last * 2.0) + np.sum(np.sin(ys))

        return jc.value_and_grad(loss, argnums=(0, 1))(RNG2, np.array([0.3, 0.8]))

    RNG2 = np.random.default_rng(2).normal(size=(11, 2))
    for reverse in (False, True):
        same(by(10, 11, reverse), by(2**20, 11, reverse))


def test_integers_floats_and_casts():
    # A counter, a boolean, float32 within float64: every dtype of a carry and of an output stays what it is.
    def f(x, scan):
        def step(carry, v):
            count, flag, single, double = carry
            count = count + 2
            new = (count, np.logical_not(flag), (single * np.float32(0.5) + v).astype(np.float32), double * v + single)
            return new, (count * 3, flag, np.where(flag, double, -double))

        return scan(step, (np.int32(1), True, np.float32(0.5), 2.0), x)

    x = np.array([0.5, 1.5, -1.0])
    same(jc.value_and_jacobian(lambda x: f(x, jc.scan))(x)[0], f(x, python_scan), 1e-6)

    def smooth(scan):
        return jc.grad(lambda x: f(x, scan)[0][3] + np.sum(f(x, scan)[1][2]))(x)

    same(smooth(jc.scan), smooth(python_scan), 1e-6)


def test_float32():
    x = X.astype(np.float32)

    def cell32(scan, x):
        def step(h, v):
            new = np.tanh(W.astype("f4") @ h + U.astype("f4") @ v)
            return new, new

        return np.sum(scan(step, H.astype("f4"), x)[1])

    found = jc.grad(lambda x: cell32(jc.scan, x))(x)
    assert found.dtype == np.float32
    same(found, jc.grad(lambda x: cell32(python_scan, x))(x), 1e-5)


def test_no_steps_and_empty_slices():
    def f(x, n=0):
        carry, ys = jc.scan(lambda c, v: (c * np.sum(v), np.log(v)), x[0], np.zeros((n, 3)) + x)
        return carry, ys

    x = np.array([2.0, 3.0, 4.0])
    same(f(x), (np.float64(2.0), np.zeros((0, 3))))
    (carry, ys), (by_carry, by_ys) = jc.value_and_jacobian(f)(x)
    same((carry, ys), (np.array(2.0), np.zeros((0, 3))))
    same((by_carry, by_ys), (np.array([1.0, 0, 0]), np.zeros((0, 3, 3))))
    empty = jc.jacobian(lambda x: jc.scan(lambda c, v: (c + 1.0, v * 2), 0.0, x)[1])(np.zeros((2, 0)))
    assert empty.shape == (2, 0, 2, 0)


def test_length_without_slices():
    found = jc.grad(lambda a: jc.scan(lambda c, _: (c * a, None), 1.0, length=3)[0])(2.0)
    same(found, np.array(12.0))
    assert jc.scan(lambda c, _: (c + 1, None), 0, length=4) == (4, None)


def test_what_does_not_depend_on_arguments_is_no_variable():
    def f(x):
        total, _ = jc.scan(lambda c, v: (c + v, None), 0.0, np.arange(4.0))
        assert not isinstance(total, jc.Variable) or total.shape == ()
        return x * total

    same(jc.grad(f)(3.0), np.array(6.0))


def test_changed_arrays_from_outside_are_seen():
    weights = np.array([1.0, 2.0])
    f = jc.grad(lambda x: np.sum(jc.scan(lambda c, v: (c * weights + v, None), x, np.ones((2, 2)))[0]))
    same(f(np.ones(2)), weights**2)
    weights[:] = 3.0, 5.0
    same(f(np.ones(2)), weights**2)


def test_nested_loops_and_transforms_inside():
    def f(x, scan, loop):
        def outer(c, row):
            inner = loop(0, 3, lambda i, s: np.sin(s) * row[i] + c, c)
            slope = jc.grad(lambda z: z**3 * row[0])(c)
            return inner + 0.1 * slope, inner

        return scan(outer, x[0, 0], x)

    def plain(lower, upper, body, init):
        for i in range(lower, upper):
            init = body(i, init)
        return init

    x = RNG.normal(size=(2, 3))
    for derivative in (jc.jacobian, lambda g: jc.hessian(lambda x: g(x)[0] * 1.0)):
        found = derivative(lambda x: f(x, jc.scan, jc.fori_loop))(x)
        same(found, derivative(lambda x: f(x, python_scan, plain))(x), 1e-9)


def test_define_by_run():
    x = jc.Variable(np.array([1.0, 2.0, 3.0]))
    carry, ys = jc.scan(lambda c, v: (c * v, c + v), 1.0, x)
    same(carry.data, np.array(6.0))
    same(carry.jacobian(x), np.array([6.0, 3.0, 2.0]))
    same(ys.jacobian(x), np.array([[1.0, 0, 0], [1, 1, 0], [2, 1, 1]]))


# --- fori_loop --------------------------------------------------------------------------------------------------


def gather(loop):
    def f(x):
        def body(i, carry):
            y, total = carry
            total = total + x[i] ** 2 * i
            y[i] = total * x[i - 1]
            y[0] += 0.5
            return y, total

        return loop(1, x.shape[0], body, (np.zeros(x.shape[0]), 0.0))[0]

    return f


def plain_for(lower, upper, body, init):
    for i in range(lower, upper):
        init = body(i, init)
    return init


def test_reading_and_writing_at_the_step():
    x = np.linspace(0.3, 1.7, 5)
    fs = gather(jc.fori_loop), gather(plain_for)
    for make in (jc.jacobian, lambda f: jc.jacobian(f, order="forward"), lambda f: jc.jacobian(f, format="csr")):
        found, want = (make(f)(x) for f in fs)
        if hasattr(found, "toarray"):
            found, want = found.toarray(), want.toarray()
        same(found, want)
    found, want = (jc.hessian(lambda x, f=f: np.sum(f(x) ** 2))(x) for f in fs)
    same(found, want)


def test_keys_with_the_step():
    x = RNG.normal(size=(3, 4, 2))

    def f(loop):
        def body(i, s):
            return s + x0[i, 1:, 0] * x0[-1, i, ...][0] + np.array(TABLE)[i] * x0[:, None, i, 1][2]

        def call(x):
            nonlocal x0
            x0 = x
            return loop(0, 3, body, np.zeros(3))

        x0 = None
        return call

    TABLE = np.array([2.0, 3.0, 5.0])
    same(jc.jacobian(f(jc.fori_loop))(x), jc.jacobian(f(plain_for))(x))


def test_out_of_bounds_is_an_error():
    def f(x, n):
        return jc.fori_loop(0, n, lambda i, s: s + x[i], 0.0)

    with pytest.raises(IndexError):
        jc.grad(f)(np.ones(3), 4)


# --- while_loop -------------------------------------------------------------------------------------------------


def root(a):
    return jc.while_loop(lambda x: abs(x * x - a) > 1e-13 * a, lambda x: 0.5 * (x + a / x), a)


def test_newton_takes_as_many_steps_as_it_needs():
    g, h = jc.grad(root), jc.hessian(root)
    for a in (4.0, 2.0, 1e6, 1e-4, 1e40):
        same(root(a), np.sqrt(a), 1e-10)
        same(g(a), np.array(0.5 / np.sqrt(a)), 1e-6)
    same(g(1.0), np.array(1.0))  # starts at its root, so the result is the argument: what the program says
    same(h(4.0), np.array(-0.25 * 4**-1.5), 1e-4)
    same(jc.jacobian(root, order="forward")(4.0), np.array(0.25), 1e-6)


def test_more_steps_than_there_was_room_for():
    f = jc.grad(lambda x, n: jc.while_loop(lambda c: c[1] < n, lambda c: (c[0] * x, c[1] + 1.0), (1.0, 0.0))[0])
    for n in (3.0, 100.0, 0.0, 40.0, 5.0):
        same(f(1.01, n), np.array(n * 1.01 ** (n - 1)) if n else np.array(0.0))


def test_while_with_integers_and_bound():
    def f(x, bound=None):
        return jc.while_loop(lambda c: c[0] < 6, lambda c: (c[0] + 1, c[1] * x), (np.int64(0), x), max_steps=bound)

    count, power = jc.value_and_jacobian(f)(1.5)[0]
    assert count == 6 and count.dtype == np.int64
    same(power, np.array(1.5**7))
    same(jc.grad(lambda x: f(x, 3)[1])(2.0), np.array(4 * 2.0**3))
    assert f(2.0, 3) == (3, 16.0)


def test_while_inside_scan_needs_room():
    def f(x, room):
        def step(c, v):
            return jc.while_loop(lambda z: z < 10.0, lambda z: z * v, c, max_steps=room) * 0.1, None

        return jc.scan(step, 1.0, x)[0]

    with pytest.raises(jc.InvalidInputError, match="needs max_steps"):
        jc.grad(lambda x: f(x, None))(np.array([2.0, 3.0]))
    x = np.array([2.0, 3.0])  # 2**4 = 16 -> 1.6; 1.6 * 3**2 = 14.4 -> 1.44
    same(jc.grad(lambda x: f(x, 20))(x), np.array([4 * 2**3 * 9 * 0.01, 16 * 6 * 0.01]))


# --- cond -------------------------------------------------------------------------------------------------------


def test_cond():
    calls = []

    def f(x):
        calls.append(1)
        return jc.cond(np.sum(x) > 0, lambda v: np.sqrt(v) * 2.0, lambda v: v**2, x)

    g = jc.jacobian(f)
    same(g(np.array([1.0, 4.0])), np.diag([1.0, 0.5]))
    same(g(np.array([-1.0, -4.0])), np.diag([-2.0, -8.0]))  # no NaN from the branch that is not taken
    assert len(calls) == 1
    same(jc.hessian(lambda x: np.sum(f(x)))(np.array([-1.0, -4.0])), 2 * np.eye(2))
    same(f(np.array([1.0, 4.0])), np.array([2.0, 4.0]))


def test_cond_in_a_loop_and_by_what_it_closes_over():
    def f(scan, choose):
        def call(x, w):
            def step(c, v):
                return choose(v > 0, lambda c: np.log(c + v) * w, lambda c: c * w, c), c

            return scan(step, 1.0, x)[0]

        return call

    def plain(p, a, b, *args):
        return a(*args) if p else b(*args)

    x = np.array([0.5, -0.3, 1.2])
    for k in (0, 1):
        found = jc.jacobian(f(jc.scan, jc.cond), argnums=k)(x, 2.0)
        same(found, jc.jacobian(f(python_scan, plain), argnums=k)(x, 2.0))


def test_cond_errors():
    with pytest.raises(jc.InvalidInputError, match=r"on_true returns .*\(3,\), on_false .*\(2,\)"):
        jc.grad(lambda x: np.sum(jc.cond(x[0] > 0, lambda v: v, lambda v: v[:2], x)))(np.ones(3))
    with pytest.raises(jc.InvalidInputError, match="predicate has shape"):
        jc.grad(lambda x: np.sum(jc.cond(x > 0, lambda v: v, lambda v: v, x)))(np.ones(3))


# --- errors -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize(
    ("body", "init", "message"),
    [
        (lambda c, x: (np.stack([c, c]), None), 0.0, r"turns carry of shape \(\) into shape \(2,\)"),
        (lambda c, x: (c + 0.5, None), 0, "turns carry of dtype int64 into dtype float64"),
        (lambda c, x: ((c, c), None), 0.0, "another tree"),
        (lambda c, x: c, 0.0, "must return a pair"),
    ],
)
def test_a_carry_that_changes(body, init, message, recorded):
    def run(x):
        return jc.scan(body, init, x)[0] * 1.0

    with pytest.raises(jc.InvalidInputError, match=message) as error:
        (jc.grad(run) if recorded else run)(np.ones(2))
    assert f"{__file__}" in str(error.value) and "jc.scan(body, init, x)" in str(error.value)


def test_other_errors():
    with pytest.raises(jc.InvalidInputError, match=r"lengths \[2, 3\]"):
        jc.scan(lambda c, x: (c, None), 0.0, (np.ones(2), np.ones(3)))
    with pytest.raises(jc.InvalidInputError, match="neither xs nor length"):
        jc.scan(lambda c, x: (c, None), 0.0)
    with pytest.raises(jc.InvalidInputError, match="init\\['a'\\] is a str"):
        jc.scan(lambda c, x: (c, None), {"a": "b"}, np.ones(2))
    with pytest.raises(jc.RecordingError, match="not the same in every step"):
        jc.grad(lambda x: jc.scan(lambda c, v: (c + v if v > 0 else c, None), 0.0, x)[0])(np.ones(2))


# --- random bodies ----------------------------------------------------------------------------------------------

STEPS = [
    lambda a, b, w: np.sin(a) * b,
    lambda a, b, w: a + w * b,
    lambda a, b, w: a[::-1] - np.tanh(b),
    lambda a, b, w: np.where(a > b, a, 0.5 * b),
    lambda a, b, w: np.exp(-(a**2)) + np.sum(b) * 0.1,
    lambda a, b, w: np.concatenate([b[1:], a[:1]]),
    lambda a, b, w: np.outer(a, w) @ b * 0.3,
    lambda a, b, w: w * 1.0,
]


@given(
    st.lists(st.tuples(*[st.integers(0, 7), st.integers(0, 3), st.integers(0, 3)]), min_size=2, max_size=5),
    st.integers(1, 4),
    st.booleans(),
    st.sampled_from(["forward", "reverse", "auto"]),
)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_random_bodies(program, steps, reverse, order):
    def f(scan):
        def call(w, init, xs):
            def step(carry, x):
                pool = [*carry, x, w]
                for kind, a, b in program:
                    pool.append(STEPS[kind](pool[a], pool[b], w))
                return (pool[-1], pool[-2]), pool[-1] * pool[0]

            return scan(step, (init, 0.5 * init), xs, reverse=reverse)

        return call

    rng = np.random.default_rng(steps)
    args = rng.normal(size=3), rng.normal(size=3), rng.normal(size=(steps, 3))
    found, want = (jc.jacobian(f(s), argnums=(0, 1, 2), order=order)(*args) for s in (jc.scan, python_scan))
    same(found, want, 1e-9)
    loss = [lambda x, s=s: np.sum(np.sin(f(s)(args[0], args[1], x)[1])) for s in (jc.scan, python_scan)]
    same(jc.hessian(loss[0])(args[2]), jc.hessian(loss[1])(args[2]), 1e-8)

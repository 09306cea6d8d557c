"""Random programs of plain NumPy code: orders, formats and executors agree with one another and with differences."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import jacana as jc

EXECUTORS = ["numpy", "native"] if jc.native_available() else ["numpy"]
C = np.linspace(-1.0, 1.0, 24)


def smooth(v):
    """Something bounded, so that chains of operations stay in a range where differences are accurate."""
    return np.tanh(v) + 0.1 * v


# Each step takes the list of arrays computed so far, an integer that chooses operands and parameters, and appends.
def pick(stack, seed, k=0):
    return stack[(seed // (7**k + 1) + k * 3) % len(stack)]


STEPS = {
    "sin": lambda s, n: np.sin(pick(s, n)),
    "smooth": lambda s, n: smooth(pick(s, n)),
    "sqrt": lambda s, n: np.sqrt(1.5 + np.tanh(pick(s, n))),
    "exp": lambda s, n: np.exp(-(pick(s, n) ** 2)),
    "add": lambda s, n: _broadcast(np.add, s, n),
    "multiply": lambda s, n: _broadcast(np.multiply, s, n),
    "divide": lambda s, n: _broadcast(lambda a, b: a / (2.0 + np.cos(b)), s, n),
    "maximum": lambda s, n: _broadcast(np.maximum, s, n),
    "where": lambda s, n: _broadcast(lambda a, b: np.where(a > 0.1, a, b * b), s, n),
    "hypot": lambda s, n: _broadcast(lambda a, b: np.hypot(a, b + 2.0), s, n),
    "slice": lambda s, n: np.atleast_1d(pick(s, n))[..., min(n % 2, _last(pick(s, n))) :: 1 + n % 3],
    "flip": lambda s, n: pick(s, n)[..., ::-1] if pick(s, n).ndim else pick(s, n),
    "gather": lambda s, n: pick(s, n)[_table(pick(s, n), n)] if _length(pick(s, n)) else pick(s, n),
    "mask": lambda s, n: _masked(pick(s, n)),
    "transpose": lambda s, n: pick(s, n).T,
    "reshape": lambda s, n: pick(s, n).reshape(-1, _divisor(pick(s, n).size, n)),
    "ravel": lambda s, n: np.ravel(pick(s, n)),
    "concatenate": lambda s, n: np.concatenate([np.ravel(pick(s, n)), np.ravel(pick(s, n, 1))]),
    "stack": lambda s, n: np.stack([pick(s, n), np.cos(pick(s, n)), 2.0 * pick(s, n)], axis=n % (pick(s, n).ndim + 1)),
    "roll": lambda s, n: np.roll(pick(s, n), 1 + n % 3),
    "pad": lambda s, n: np.pad(np.ravel(pick(s, n)), (1, n % 3), mode=("constant", "edge", "wrap")[n % 3]),
    "diff": lambda s, n: np.diff(np.ravel(pick(s, n))) if pick(s, n).size > 1 else pick(s, n),
    "tile": lambda s, n: np.tile(np.ravel(pick(s, n))[:4], 2),
    "repeat": lambda s, n: np.repeat(np.ravel(pick(s, n))[:4], 1 + n % 3),
    "sum": lambda s, n: np.sum(pick(s, n), axis=_axis(pick(s, n), n)),
    "mean": lambda s, n: np.mean(pick(s, n), axis=_axis(pick(s, n), n), keepdims=True),
    "max": lambda s, n: np.max(pick(s, n), axis=_axis(pick(s, n), n)),
    "prod": lambda s, n: np.prod(np.cos(0.3 * pick(s, n)), axis=_axis(pick(s, n), n)),
    "cumsum": lambda s, n: np.cumsum(np.tanh(pick(s, n)), axis=_axis(pick(s, n), n)),
    "norm": lambda s, n: np.linalg.norm(np.ravel(pick(s, n)) + 1.0),
    "matvec": lambda s, n: _weights(3, pick(s, n).size) @ np.ravel(pick(s, n)),
    "matmul": lambda s, n: _weights(2, _rows(pick(s, n)).shape[0]) @ _rows(pick(s, n)),
    "gram": lambda s, n: _rows(pick(s, n)) @ _rows(pick(s, n)).T,
    "outer": lambda s, n: np.outer(np.ravel(pick(s, n))[:3], np.ravel(pick(s, n, 1))[:4]),
    "einsum": lambda s, n: np.einsum("ij,ik->jk", _rows(pick(s, n)), np.sin(_rows(pick(s, n)))),
    "solve": lambda s, n: np.linalg.solve(3.0 * np.eye(2) + np.tanh(np.outer(_two(s, n), C[:2])), _two(s, n)),
    "fill": lambda s, n: _filled(pick(s, n)),
    "add_at": lambda s, n: _assembled(pick(s, n), n),
    "branch": lambda s, n: np.sin(pick(s, n)) if np.sum(pick(s, n)) > 0 else pick(s, n) * 2.0,
}  # fmt: skip


def _broadcast(f, s, n):
    a, b = pick(s, n), pick(s, n, 1)
    try:
        np.broadcast_shapes(a.shape, b.shape)
    except ValueError:
        b = np.sum(b)
    return f(a, b)


def _length(a):
    return a.shape[0] if a.ndim else 0


def _last(a):
    return a.shape[-1] - 1 if a.ndim else 0


def _table(a, n):
    return (np.arange(5) * (n % 4 + 1)) % a.shape[0]


def _masked(a):
    flat = np.ravel(a)
    chosen = flat[flat > -0.2]
    return chosen if chosen.size else flat


def _divisor(size, n):
    options = [k for k in range(1, size + 1) if size % k == 0] or [1]
    return options[n % len(options)]


def _axis(a, n):
    return None if n % 3 == 0 or a.ndim == 0 else n % a.ndim


def _weights(m, n):
    return np.sin(np.arange(m * n, dtype=float).reshape(m, n) + 1.0) / (n + 1)


def _rows(a):
    flat = np.ravel(a)
    return flat.reshape(_divisor(flat.size, 1), -1)


def _two(s, n):
    return np.tanh(np.resize(0.0, 2) + np.sum(pick(s, n))) * C[3:5] + C[6:8]


def _filled(a):
    flat = np.ravel(a)
    out = np.zeros(flat.size + 2)
    for k in range(min(flat.size, 5)):
        out[k + 1] = flat[k] * flat[0]
    out[0] += flat[-1]
    return out


def _assembled(a, n):
    flat = np.ravel(a)
    out = np.zeros(4)
    np.add.at(out, (np.arange(flat.size) * (n % 3 + 1)) % 4, flat)
    return out


class Program:
    def __init__(self, steps):
        self.steps = steps

    def __call__(self, x):
        stack = [x, C[:6].reshape(2, 3), x * 0.5 + 0.25]
        for name, n in self.steps:
            new = STEPS[name](stack, n)
            if new.size and new.size <= 60:
                stack.append(new)
        return np.concatenate([np.ravel(stack[-1]), np.ravel(stack[len(stack) // 2])])

    def __repr__(self):
        return f"Program({self.steps!r})"


programs = st.builds(
    Program, st.lists(st.tuples(st.sampled_from(sorted(STEPS)), st.integers(0, 1000)), min_size=1, max_size=9)
)
points = st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).uniform(-1.2, 1.2, size=(2, 3)))


def differences(f, x):
    """Central differences with one Richardson step, and an estimate of their own error."""
    h = 1e-4

    def central(h):
        columns = []
        for k in range(x.size):
            e = np.zeros(x.size)
            e[k] = h
            e = e.reshape(x.shape)
            columns.append((f(x + e) - f(x - e)) / (2 * h))
        return np.stack(columns, axis=-1)

    coarse, fine = central(2 * h), central(h)
    return (4 * fine - coarse) / 3, np.abs(fine - coarse)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, points)
def test_all_routes_agree(program, x):
    reference = jc.jacobian(program, order="forward")(x).reshape(-1, x.size)
    scale = 1.0 + np.abs(reference).max(initial=0.0)
    for executor in EXECUTORS:
        with jc.executor(executor):
            for order in ("reverse", "cost", "auto"):
                y, dense = jc.value_and_jacobian(program, order=order)(x)
                np.testing.assert_allclose(y, program(x), rtol=1e-12, atol=1e-13)
                np.testing.assert_allclose(dense.reshape(-1, x.size), reference, atol=1e-12 * scale, rtol=1e-11)
            sparse = jc.jacobian(program, format="csr")(x)
            np.testing.assert_allclose(sparse.toarray(), reference, atol=1e-12 * scale, rtol=1e-11)
    try:
        expected, spread = differences(program, x)
    except ValueError:
        return  # a branch or a mask changed within the step: the shapes of the results differ
    # At a kink or a branch within the step the differences disagree with themselves: nothing to compare there.
    smooth_entries = spread < 1e-5 * scale
    assert smooth_entries.mean() > 0.5 or spread.max() > 1e-3
    np.testing.assert_allclose(reference[smooth_entries], expected[smooth_entries], atol=1e-6 * scale)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(programs, points, st.integers(0, 1000))
def test_products_and_second_derivatives(program, x, seed):
    rng = np.random.default_rng(seed)
    y, J = jc.value_and_jacobian(program)(x)
    J = J.reshape(y.size, x.size)
    scale = 1.0 + np.abs(J).max(initial=0.0)
    tangent, cotangent = rng.normal(size=x.shape), rng.normal(size=y.shape)
    np.testing.assert_allclose(jc.jvp(program)(x, tangent)[1], J @ tangent.ravel(), atol=1e-11 * scale)
    np.testing.assert_allclose(jc.vjp(program)(x, cotangent)[1].ravel(), cotangent @ J, atol=1e-11 * scale)

    def scalar(x):
        return np.sum(program(x) * cotangent)

    np.testing.assert_allclose(jc.grad(scalar)(x).ravel(), cotangent @ J, atol=1e-11 * scale)
    H = jc.hessian(scalar)(x).reshape(x.size, x.size)
    size = 1.0 + np.abs(H).max()
    np.testing.assert_allclose(H, H.T, atol=1e-10 * size)
    np.testing.assert_allclose(jc.hessian(scalar, format="csr")(x).toarray(), H, atol=1e-11 * size)
    np.testing.assert_allclose(jc.jacobian(jc.grad(scalar))(x).reshape(H.shape), H, atol=1e-11 * size)
    expected, spread = differences(lambda v: jc.grad(scalar)(v).ravel(), x)
    good = spread < 1e-5 * size
    np.testing.assert_allclose(H[good], expected[good], atol=1e-5 * size)


def test_a_replay_follows_the_branch_that_its_argument_takes():
    def f(x):
        return np.sin(x) if x[0] > 0 else x**2

    J = jc.jacobian(f)
    up, down = np.array([1.0, 2.0]), np.array([-1.0, 2.0])
    for x in (up, down, up, down):
        np.testing.assert_allclose(J(x), np.diag(np.cos(x) if x[0] > 0 else 2 * x))


@pytest.mark.parametrize("executor", EXECUTORS)
def test_an_untaken_branch_is_untaken_in_every_order(executor):
    x = np.array([0.0, -1.0, 2.0])
    # The untaken branch divides by zero; NumPy says so when the function is recorded, as it would without jacana.
    with jc.executor(executor), np.errstate(all="ignore"):
        for order in ("forward", "reverse", "cost", "auto"):
            J = jc.jacobian(lambda x: np.where(x > 0, np.log(np.sqrt(np.abs(x))), 0.0) + x, order=order)(x)
            np.testing.assert_allclose(J, np.diag([1.0, 1.0, 1.25]))
            H = jc.hessian(lambda x: np.sum(np.where(x > 0, np.sqrt(x), 0.0)), order=order)(x)
            np.testing.assert_allclose(H, np.diag([0.0, 0.0, -0.25 * 2.0**-1.5]))

"""Python loops over steps become loop nodes, and nothing else changes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import scipy.linalg

import jacana as jc
from jacana import plans, recurrences
from jacana.graph.node import topological
from jacana.graph.rolling import roll
from jacana.record import record

STEPS = 60
P = np.array([10.0, 28.0, 8.0 / 3.0])
CONTROLS = 0.1 * np.random.default_rng(0).normal(size=STEPS)
DATA = np.random.default_rng(1).normal(size=(STEPS, 2))


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Short loops count, so that the programs here are quick to differentiate without rolling, too."""
    monkeypatch.setattr(recurrences, "FEWEST_NODES", 100)
    plans.forget()
    yield
    plans.forget()


def lorenz(p):
    x, y, z = 1.0 + 0 * p[0], 1.0, 1.0
    for _ in range(STEPS):
        dx, dy, dz = p[0] * (y - x), x * (p[1] - z) - y, x * y - p[2] * z
        x, y, z = x + 0.005 * dx, y + 0.005 * dy, z + 0.005 * dz
    return np.array([x, y, z])


def runge_kutta(p):
    def rate(s):
        return np.array([p[0] * (s[1] - s[0]), s[0] * (p[1] - s[2]) - s[1], s[0] * s[1] - p[2] * s[2]])

    s, h = np.array([1.0, 1.0, 1.0]) * p[0] / 10.0, 0.01
    for _ in range(STEPS):
        k1 = rate(s)
        k2 = rate(s + 0.5 * h * k1)
        k3 = rate(s + 0.5 * h * k2)
        s = s + h / 6 * (k1 + 2 * k2 + 2 * k3 + rate(s + h * k3))
    return s


def with_time(p):
    """What differs from step to step is a number of the program."""
    x, v = p[0], p[1]
    for k in range(STEPS):
        force = np.sin(0.1 * k) * p[2] - x
        x, v = x + 0.01 * v, v + 0.01 * (force - 0.1 * v * v)
    return np.array([x, v])


def controlled(u):
    x, v = 1.0 + u[0], 0.5 - u[1]
    for k in range(STEPS):
        x, v = x + 0.1 * v, v + 0.1 * (u[k] - np.sin(x) * v)
    return x * v


def backwards(u):
    x = u[0]
    for k in reversed(range(STEPS)):
        x = np.tanh(x + u[k] * u[(7 * k) % STEPS])
    return x + u[3]


def trajectory(p):
    x, v, seen = p[0], p[1], []
    for _ in range(STEPS):
        x, v = x + 0.05 * v, v - 0.05 * p[2] * np.sin(x)
        seen.append(x)
    return np.array(seen)


def captured_rows(p):
    total, level = 0.0 * p[0], p[1]
    for row in DATA:
        level = 0.9 * level + p[2] * (row @ np.array([1.0, 2.0]))
        total = total + (row[0] * p[0] - level) ** 2
    return total


def recorded_rows(p):
    rows = DATA * p[:2]
    total = p[2]
    for k in range(STEPS):
        total = np.cos(total) + np.sum(np.sin(rows[k] * total))
    return total


def chained(x):
    total = 0.0
    for k in range(len(x) - 1):
        total = total + 100.0 * (x[k + 1] - x[k] ** 2) ** 2 + (1.0 - x[k]) ** 2
    return total


def counted(p):
    """One number is carried along without ever being differentiated, and one result is of the last step alone."""
    x, n, last = p[0], 0 * p[1], 0.0
    for _ in range(STEPS):
        last = np.sin(x * p[1])
        n = n + p[1]
        x = x + 1e-4 * last * n + 0.1 * p[2]
    return x * last


def two_loops(p):
    x = p[0]
    for _ in range(STEPS):
        x = np.sin(x * p[1]) + p[2]
    y = x
    for _ in range(STEPS):
        y = y - 0.01 * np.cos(y) * p[0] * (p[1] + p[2] * y)
    return np.array([x, y])


def epidemic(p):
    """The last number follows the others and moves none of them; the start is recorded with numbers of its own."""

    def rate(s):
        return np.stack([-p[0] * s[0] * s[1], p[0] * s[0] * s[1] - p[1] * s[1], p[1] * s[1]])

    s, h, states = np.array([0.99, 0.01, 0.0]), 0.1 * p[2], []
    for _ in range(STEPS):
        s = s + h * rate(s + 0.5 * h * rate(s))
        states.append(s)
    return np.stack(states)


MATRIX = np.array([[0.0, 1.0, 0.0], [-2.0, -0.3, 0.1], [0.1, 0.0, -0.2]])


def captured_matrix(p):
    """A captured array with zeros and numbers that differ from step to step, in an array filled row by row."""
    x = np.empty((STEPS + 1, 3))
    x[0] = p
    for k in range(STEPS):
        x[k + 1] = x[k] + 0.02 * (MATRIX @ x[k] + np.array([0.0, p[0], p[1] * np.sin(0.1 * k)]))
    return x[:, 0]


def filled_columns(p):
    y = np.zeros((2, STEPS + 1))
    y[:, 0] = p[:2]
    for k in range(STEPS):
        a, b = y[:, k]
        y[:, k + 1] = y[:, k] + 0.01 * np.array([p[2] * a - a * b, a * b - 0.5 * b])
    return y[1]


def rods(p):
    """Heat along a rod: the inner part and the ends of each row are written on their own."""
    u = np.zeros((STEPS + 1, 7))
    u[0] = np.sin(np.arange(7.0)) * p[2]
    for k in range(STEPS):
        u[k + 1, 1:-1] = u[k, 1:-1] + 0.1 * p[0] * (u[k, 2:] - 2.0 * u[k, 1:-1] + u[k, :-2])
        u[k + 1, 0] = u[k, 1] * p[1]
        u[k + 1, -1] = p[1] * u[k, -2]
    return u[:, 3]


ROLLED: dict[str, tuple[Any, Any]] = {
    "lorenz": (lorenz, P),
    "runge_kutta": (runge_kutta, P),
    "with_time": (with_time, P),
    "controlled": (controlled, CONTROLS),
    "backwards": (backwards, CONTROLS),
    "trajectory": (trajectory, P),
    "captured_rows": (captured_rows, P),
    "recorded_rows": (recorded_rows, P),
    "chained": (chained, np.random.default_rng(2).normal(size=STEPS)),
    "counted": (counted, P / 10.0),
    "two_loops": (two_loops, P / 10.0),
    "epidemic": (epidemic, np.array([1.5, 0.3, 0.9])),
    "captured_matrix": (captured_matrix, P / 10.0),
    "filled_columns": (filled_columns, P / 10.0),
    "rods": (rods, np.array([1.1, 0.9, 1.2])),
}


def loops(function: Any, x: Any) -> int:
    _, traced = jc.jacobian(function)._replay.trace((x,), {})
    return sum(n.op.name == "loop" for n in topological(recurrences.rolled_steps(traced.outputs)))


def straight(make: Any, *args: Any) -> Any:
    """The same without loops, by NumPy: programs of up to 20,000 nodes, which machine code would take seconds for."""
    fewest, recurrences.FEWEST_NODES = recurrences.FEWEST_NODES, 10**9
    plans.forget()
    try:
        with jc.executor("numpy"):
            return make(*args)
    finally:
        recurrences.FEWEST_NODES = fewest
        plans.forget()


@pytest.mark.parametrize("executor", ["numpy", "native"])
@pytest.mark.parametrize("name", ROLLED)
def test_the_same_numbers(name, executor):
    if executor == "native" and not jc.native_available():
        pytest.skip("llvmlite is not installed")
    function, x = ROLLED[name]
    # The terms of a sum that do not depend on one another are no steps, but lanes.
    assert loops(function, x) == {"two_loops": 2, "chained": 0}.get(name, 1)
    with jc.executor("numpy"):
        value, jacobian = straight(lambda: jc.value_and_jacobian(function)(x))
    with jc.executor(executor):
        found_value, found = jc.value_and_jacobian(function)(x)
        np.testing.assert_allclose(jc.compile(function)(x), value, rtol=1e-12, atol=1e-13)
        for factor in (1.0, 1.01):
            again = jc.jacobian(function)(x * factor)
            expected = straight(lambda factor=factor: jc.jacobian(function)(x * factor))
            np.testing.assert_allclose(again, expected, rtol=1e-9, atol=1e-11 * np.abs(expected).max())
    np.testing.assert_allclose(found_value, function(x), rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(found, jacobian, rtol=1e-9, atol=1e-11 * np.abs(jacobian).max())


@pytest.mark.parametrize("name", ROLLED)
def test_values_are_the_same_bit_for_bit(name):
    function, x = ROLLED[name]
    with jc.executor("numpy"):
        np.testing.assert_array_equal(jc.compile(function)(x), function(x))


@pytest.mark.parametrize("name", ["lorenz", "controlled", "captured_rows", "trajectory", "recorded_rows"])
def test_second_derivatives_and_products(name):
    function, x = ROLLED[name]

    def scalar(v):
        return np.sum(np.sin(function(v)))

    rng = np.random.default_rng(3)
    u = rng.normal(size=x.shape)
    expected = straight(lambda: jc.hessian(scalar)(x))
    found = jc.hessian(scalar)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-8, atol=1e-10 * np.abs(expected).max())
    _, tangent = jc.jvp(function)(x, u)
    jacobian = straight(lambda: jc.jacobian(function)(x))
    np.testing.assert_allclose(tangent, jacobian @ u, rtol=1e-8, atol=1e-10 * np.abs(jacobian).max())
    w = rng.normal(size=np.shape(tangent))
    _, cotangent = jc.vjp(function)(x, w)
    np.testing.assert_allclose(cotangent, np.tensordot(w, jacobian, w.ndim), rtol=1e-8,
                               atol=1e-10 * np.abs(jacobian).max())  # fmt: skip


def test_a_float32_loop_stays_one():
    found = jc.jacobian(lorenz)(P.astype("f4"))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, straight(lambda: jc.jacobian(lorenz)(P.astype("f4"))), rtol=2e-3, atol=1e-4)


# --- what stays as it is -----------------------------------------------------------------------------------------


def uncoupled(p):
    x, y = p[0], p[1]
    for _ in range(STEPS):
        x, y = x - 0.01 * np.sin(x), y + 0.02 * np.log(y)
    return np.array([x, y])


def swapped(p):
    x, y = p[0], p[1]
    for _ in range(STEPS):
        x, y = np.sin(y), np.cos(x)
    return np.array([x, y])


def two_back(p):
    a, b = p[0], p[1]
    for _ in range(STEPS):
        a, b = b, 0.5 * np.sin(b) + 0.4 * a * b
    return b


def pendulum(p):
    """Verlet's method: a step takes the two before it, whose values are in one array."""
    x = np.zeros(STEPS + 2)
    x[0], x[1] = p[0], p[1]
    for k in range(1, STEPS + 1):
        x[k + 1] = 2.0 * x[k] - x[k - 1] - 0.01 * p[2] * np.sin(x[k])
    return x


def multistep(p):
    """Adams and Bashforth: three rates back, the first steps by Euler's method."""
    y, rates = [p[:2]], []
    for k in range(STEPS):
        a, b = y[-1]
        rates.append(np.array([p[2] * b, -np.sin(a) * (1.0 + 0.1 * np.cos(0.1 * k))]))
        if k < 2:
            y.append(y[-1] + 0.01 * rates[-1])
        else:
            y.append(y[-1] + 0.01 / 12.0 * (23.0 * rates[-1] - 16.0 * rates[-2] + 5.0 * rates[-3]))
    return np.array(y)


def fields(x):
    for _ in range(STEPS):
        x = x + 0.1 * np.sin(x) * np.roll(x, 1)
    return x


@pytest.mark.parametrize(
    ("function", "x"), [(uncoupled, P), (swapped, P / 30.0), (fields, np.linspace(0.0, 1.0, 100))],
    ids=["uncoupled", "swapped", "fields"],
)  # fmt: skip
def test_structural_zeros_are_not_given_up(function, x):
    assert loops(function, x) == (0 if function is fields else 1)  # of many numbers none is made
    jacobian = jc.jacobian(function)(x)
    pattern = jc.jacobian(function, format="csr")(x)
    np.testing.assert_array_equal(jacobian != 0, pattern.toarray() != 0)
    np.testing.assert_allclose(jacobian, straight(lambda: jc.jacobian(function)(x)), rtol=1e-10, atol=1e-13)


def test_an_entry_that_is_structurally_zero_stays_zero_beside_infinities():
    with np.errstate(all="ignore"):
        jacobian = jc.jacobian(uncoupled)(np.array([0.5, 0.0, 1.0]))
    assert jacobian[0, 1] == 0.0 and jacobian[1, 0] == 0.0


def follower(p):
    x, y = p[0] * p[1], np.sqrt(p[1])
    for _ in range(STEPS):
        x, y = x - 0.01 * p[0] * np.sin(x), y + 0.02 * x
    return np.array([x, y])


def test_a_first_value_of_infinite_derivative_does_not_reach_what_it_does_not_move():
    assert loops(follower, np.array([0.5, 0.0])) == 1
    with np.errstate(all="ignore"):
        jacobian = jc.jacobian(follower)(np.array([0.5, 0.0]))
    assert np.isinf(jacobian[1, 1])
    step = 1e-6
    ahead, behind = follower(np.array([0.5, step])), follower(np.array([0.5, 0.0]))
    np.testing.assert_allclose(jacobian[0, 1], (ahead[0] - behind[0]) / step, rtol=1e-5)


def test_slices_of_one_array_are_put_together_at_once():
    x = np.random.default_rng(5).normal(size=(64, 20))
    for function in (
        lambda x: np.stack([x[k] for k in range(3, 43)]),
        lambda x: np.stack([x[60 - 2 * k, 1:] for k in range(20)], axis=1),
        lambda x: np.stack([x[k % 8 * (k % 8)] for k in range(24)]),
    ):
        (node,) = roll([record(function, [x]).result.node])
        assert len(node.inputs) == (24 if node.shape[0] == 24 else 1)
        value, jacobian = jc.value_and_jacobian(function, format="csr")(x)
        np.testing.assert_array_equal(value, function(x))
        np.testing.assert_array_equal(jacobian @ x.ravel(), function(x).ravel())
        assert jacobian.nnz == value.size


def test_steps_that_look_two_back_carry_both():
    assert loops(two_back, P / 10.0) == 1
    np.testing.assert_allclose(jc.grad(two_back)(P / 10.0), straight(lambda: jc.grad(two_back)(P / 10.0)), rtol=1e-12)


@pytest.mark.parametrize("function", [pendulum, multistep])
@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_methods_of_several_steps(function, executor):
    if executor == "native" and not jc.native_available():
        pytest.skip("llvmlite is not installed")
    p = np.array([0.3, 0.31, 1.4])
    assert loops(function, p) == 1
    expected = straight(lambda: jc.value_and_jacobian(function)(p))
    with jc.executor(executor):
        for found, right in zip(jc.value_and_jacobian(function)(p), expected, strict=True):
            np.testing.assert_allclose(found, right, rtol=1e-9, atol=1e-12 * np.abs(right).max())
        np.testing.assert_array_equal(jc.compile(function)(p), function(p))


def test_sparse_formats_keep_the_exact_structure():
    x = np.random.default_rng(2).normal(size=STEPS)
    hessian = jc.hessian(chained, format="csr")(x)
    assert hessian.nnz == 3 * STEPS - 2
    np.testing.assert_allclose(jc.hessian(chained)(x), hessian.toarray(), rtol=1e-10, atol=1e-9)


def test_automatic_format_and_fits_take_loops():
    found = jc.jacobian(trajectory, format="auto")(P)
    assert type(found) is np.ndarray
    np.testing.assert_allclose(found, straight(lambda: jc.jacobian(trajectory)(P)), rtol=1e-9, atol=1e-12)
    data = trajectory(P / 5.0)
    fit = jc.least_squares(lambda p: trajectory(p) - data, P / 5.0 * 1.02)
    assert fit.success
    np.testing.assert_allclose(fit.x, P / 5.0, rtol=1e-6)


def path(u):
    q, places = np.zeros(3), []
    for k in range(STEPS):
        q = q + 0.1 * np.array([u[2 * k] * np.cos(q[2]), u[2 * k] * np.sin(q[2]), u[2 * k + 1]])
        places.append(q)
    return np.array(places)


def test_operators_and_automatic_formats_of_a_path_by_its_controls(monkeypatch):
    u = np.random.default_rng(6).normal(size=2 * STEPS)
    expected = straight(lambda: jc.jacobian(path)(u)).reshape(3 * STEPS, 2 * STEPS)
    value, operator = jc.value_and_jacobian(path, format="operator")(u)
    np.testing.assert_array_equal(value, path(u))
    rng = np.random.default_rng(7)
    for matrix in (operator, jc.jacobian(path, format="auto")(u).reshape(3 * STEPS, 2 * STEPS)):
        v, w = rng.normal(size=2 * STEPS), rng.normal(size=3 * STEPS)
        np.testing.assert_allclose(matrix @ v, expected @ v, rtol=1e-9, atol=1e-11)
        np.testing.assert_allclose(matrix.T @ w, expected.T @ w, rtol=1e-9, atol=1e-11)
    jacobian = jc.jacobian(path)(u).reshape(3 * STEPS, 2 * STEPS)
    np.testing.assert_array_equal(jacobian != 0, expected != 0)
    monkeypatch.setattr("jacana.results.AUTO_OPERATOR", 100)
    plans.forget()
    large = jc.jacobian(path, format="auto")(u)
    assert not isinstance(large, np.ndarray)
    np.testing.assert_allclose(large @ v, expected @ v, rtol=1e-9, atol=1e-11)


MASK = np.array([[True, False], [True, True]])


def masked(p):
    """A mask that stays, one that is made anew in every step, and one that differs from step to step."""
    x = np.outer(p[:2], [1.0, 0.5])
    for k in range(60):
        x = np.where(MASK, np.sin(x), 0.3 * x.T) + 0.1 * p[2]
        x = np.where(np.tri(2, dtype=bool), x, 0.5 * x)
        x = x + np.where(np.array([k % 2 == 0, True]), 0.01 * x[0], x[1] * 0.02)
    return x


def factorised(p):
    """SciPy's factors, of which only one triangle is read."""
    x, a = p[:2], np.array([[2.0, 0.3], [0.3, 1.0]])
    for _ in range(40):
        c = scipy.linalg.cho_factor(a + p[2] * np.outer(x, x))
        x = scipy.linalg.cho_solve(c, x + 0.1)
    return x


@pytest.mark.parametrize("executor", ["numpy", "native"])
@pytest.mark.parametrize("function", [masked, factorised])
def test_masks_and_triangles_are_no_obstacle(function, executor):
    if executor == "native" and not jc.native_available():
        pytest.skip("llvmlite is not installed")
    x = np.array([0.4, -0.7, 0.2])
    assert loops(function, x) == 1
    with jc.executor(executor):
        found = jc.jacobian(function)(x)
    expected = np.stack([(function(x + h) - function(x - h)) / 2e-6 for h in 1e-6 * np.eye(3)], axis=-1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-9)


def test_guards_in_the_loop_still_hold():
    def bouncing(p):
        x, v = p[0], p[1]
        for _ in range(STEPS):
            x, v = x + 0.1 * v, v - 0.1 * p[2]
            if x < 0:
                x, v = -x, -0.9 * v
        return np.array([x, v])

    derivative = jc.jacobian(bouncing)
    for p in (np.array([1.0, 0.0, 1.0]), np.array([1.0, 0.5, 1.0]), np.array([90.0, 0.0, 0.1])):
        expected = straight(lambda p=p: jc.jacobian(bouncing)(p))
        np.testing.assert_allclose(derivative(p), expected, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(derivative(p), expected, rtol=1e-10, atol=1e-12)


def seldom_stored(p):
    """A result of every fourth step alone reads what the next step reads anyway, only earlier."""

    def rate(s):
        a, b, c = s
        return np.array([p[0] * (b - a), a * (p[1] - c) - b, a * b - p[2] * c])

    s, kept = p / 10.0, []
    for k in range(2 * STEPS):
        if k % 4 == 0:
            kept.append(s[2])
        middle = s + 0.005 * rate(s)
        s = s + 0.01 * rate(middle)
    return np.array(kept)


def test_what_only_some_steps_store_does_not_hide_the_loop(monkeypatch):
    loops = []
    original = recurrences._Loop.program
    monkeypatch.setattr(recurrences._Loop, "program", lambda self: loops.append(self.steps.count) or original(self))
    found = jc.jacobian(seldom_stored)(P)
    assert len(loops) == 1 and loops[0] > 1.8 * STEPS
    assert "steps that repeat" in str(jc.explain(seldom_stored, P))
    monkeypatch.setattr(recurrences, "FEWEST_STEPS", 10**9)
    plans.forget()
    with jc.executor("numpy"):
        np.testing.assert_allclose(found, jc.jacobian(seldom_stored)(P), rtol=1e-12, atol=1e-12)


def field(k):
    """Explicit steps of diffusion on a grid, written into a copy, with a boundary that is kept."""
    u = np.zeros((9, 11))
    u[0] = 1.0
    for _ in range(STEPS):
        flow = np.zeros((9, 11))
        flow[1:-1] += k[1:-1] * (u[2:] - 2 * u[1:-1] + u[:-2])
        flow[:, 1:-1] += k[:, 1:-1] * (u[:, 2:] - 2 * u[:, 1:-1] + u[:, :-2])
        u = u + 0.1 * flow
        u[0], u[-1] = 1.0, 0.0
    return np.sum(u**3)


def test_gradients_and_products_take_loops_of_whole_fields(monkeypatch):
    k = 1.0 + 0.1 * np.random.default_rng(4).normal(size=(9, 11))
    v = np.random.default_rng(5).normal(size=(9, 11))

    def results():
        one = jc.grad(field)(k), jc.jacobian(field)(k), jc.jvp(field)(k, v)[1], jc.vjp(field)(k, 2.0)[1]
        return [np.asarray(a) for a in (*one, jc.compile(field)(k))]

    loops = []
    original = recurrences._Loop.program
    monkeypatch.setattr(recurrences._Loop, "program", lambda self: loops.append(self.steps.count) or original(self))
    found = results()
    assert len(loops) == 5 and min(loops) >= STEPS - 2
    assert "steps that repeat" in str(jc.explain(jc.grad(field), k))
    with jc.executor("native"):
        np.testing.assert_allclose(jc.grad(field)(k), found[0], rtol=1e-11, atol=1e-13)
    monkeypatch.setattr(recurrences, "FEWEST_STEPS", 10**9)
    plans.forget()
    with jc.executor("numpy"):
        for one, other in zip(found, results(), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-13)

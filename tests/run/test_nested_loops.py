"""Loops inside loops, and programs run for every row, as machine code against NumPy."""

import numpy as np
import pytest

import jacana as jc
from jacana.record.recording import record
from jacana.record.variable import as_node
from jacana.rows import recorded_rows
from jacana.run import Program, executor, native_available

native_loops = pytest.importorskip("jacana.run.native.loop_calls")
compile_native = pytest.importorskip("jacana.run.native.executor").compile_native
pytestmark = pytest.mark.skipif(not native_available(), reason="needs llvmlite")

A = np.array([[0.5, -0.2, 0.1], [0.3, 0.4, -0.6]])
RATES = np.array([0.2, 0.7, 1.1, 0.4])


def powers(x):
    """A loop of known length in a scan, with outputs of the inner one."""

    def step(carry, rate):
        inner, seen = jc.scan(lambda c, k: (np.tanh(c * rate + 0.1 * k), np.sum(c)), carry, np.arange(3.0))
        return inner, (seen, inner[::-1])

    return jc.scan(step, x, RATES)


def until(x):
    """A loop of a length that depends on values, in a loop that runs backwards."""

    def step(carry, rate):
        halved, count = jc.while_loop(
            lambda s: np.sum(s[0] ** 2) > 0.01, lambda s: (s[0] * 0.5, s[1] + 1.0), (carry + rate, 0.0), max_steps=30
        )
        return halved, count

    return jc.scan(step, x, RATES, reverse=True)


def products(x):
    """Small matrix products and a loop in a loop in a loop."""

    def outer(k, v):
        def middle(j, w):
            return jc.fori_loop(0, 2, lambda i, u: A @ (A.T @ u) + 0.1 * i, w) + 0.01 * j

        return jc.fori_loop(0, 3, middle, v) * 0.9 + 0.001 * k

    return jc.fori_loop(0, 4, outer, x[:2])


def branches(x):
    """A branch in a loop: a loop of one step or of none."""

    def step(carry, rate):
        return jc.cond(np.sum(carry) > 0.0, lambda c: c - rate, lambda c: c + 0.5 * rate, carry), np.max(carry)

    return jc.scan(step, x, RATES)


def gathers(x):
    """Elements at integers that a step computes, in a loop inside."""

    def step(carry, rate):
        return jc.fori_loop(0, 3, lambda i, c: c + rate * x[i], carry), carry

    return jc.scan(step, 0.0, RATES)


FUNCTIONS = [powers, until, products, branches, gathers]


def compiled(function, example):
    found = recorded_rows(function, example)
    return None if found is None else found.compiled()


def flat(result):
    leaves = result if isinstance(result, (tuple, list)) else (result,)
    parts = [flat(leaf) if isinstance(leaf, (tuple, list)) else np.ravel(leaf) for leaf in leaves]
    return np.concatenate(parts)


@pytest.mark.parametrize("function", FUNCTIONS)
def test_values_and_derivatives_are_those_of_numpy(function):
    x = np.array([0.9, -0.3, 0.4])
    with executor("numpy"):
        value = flat(function(x))
        slope = jc.jacobian(lambda x: np.concatenate([np.ravel(leaf) for leaf in leaves(function(x))]))(x)
    with executor("native"):
        np.testing.assert_allclose(flat(jc.compile(function)(x)), value, rtol=1e-14, atol=1e-16)
        found = jc.jacobian(lambda x: np.concatenate([np.ravel(leaf) for leaf in leaves(function(x))]))(x)
    np.testing.assert_allclose(found, slope, rtol=1e-12, atol=1e-15)


def leaves(result):
    if isinstance(result, (tuple, list)):
        return [leaf for part in result for leaf in leaves(part)]
    return [result]


@pytest.mark.parametrize("function", FUNCTIONS)
def test_all_of_it_is_machine_code(function, monkeypatch):
    x = np.array([0.9, -0.3, 0.4])
    expected = flat(function(x))

    def left_to_python(*_):
        raise AssertionError("a loop was left to Python")

    monkeypatch.setattr(native_loops, "run_loop", left_to_python)
    program = recorded(function, x)
    run = compile_native(program)
    np.testing.assert_allclose(np.concatenate([np.ravel(v) for v in run([x])]), expected, rtol=1e-14, atol=1e-16)


def recorded(function, x):
    recording = record(function, [x])
    return Program(recording.inputs, tuple(as_node(leaf) for leaf in leaves(recording.result)))


def test_an_index_out_of_bounds_in_an_inner_loop_is_an_error():
    def far(x, n):
        return jc.scan(lambda c, r: (jc.fori_loop(0, n, lambda i, v: v + x[i] * r, c), c), 0.0, RATES)[0]

    with executor("native"):
        compiled = jc.compile(far)
        np.testing.assert_allclose(compiled(np.ones(3), 2), 2 * RATES.sum(), rtol=1e-14)
        with pytest.raises(IndexError):
            compiled(np.ones(3), 5)


@pytest.mark.parametrize("count", [1, 3, 64, 65, 1000, 20_011])
def test_every_row(count):
    def search(x, target):
        def step(s):
            return s[0] - (s[0] ** 3 - target) / (3.0 * s[0] ** 2), s[1] + 1.0

        return jc.while_loop(lambda s: np.abs(s[0] ** 3 - target) > 1e-13 * target, step, (x, 0.0), max_steps=60)

    target = np.linspace(0.5, 50.0, count)
    rows = compiled(search, [np.array(1.0), np.array(2.0)])
    assert rows is not None
    root, steps = rows(np.ones(count), target)
    np.testing.assert_allclose(root, np.cbrt(target), rtol=1e-12)
    assert root.shape == steps.shape == (count,)
    assert (steps >= 1.0).any() or count == 1


def test_rows_see_captured_arrays_and_refuse_what_looks_at_values():
    weights = np.array([1.0, 2.0, 3.0])
    rows = compiled(lambda x: np.sum(weights * x), [np.ones(3)])
    np.testing.assert_array_equal(rows(np.eye(3))[0], weights)
    others = np.array([5.0, 6.0, 7.0])
    again = compiled(lambda x: np.sum(others * x), [np.ones(3)])
    assert again.run is rows.run  # one program, whatever the numbers
    np.testing.assert_array_equal(again(np.eye(3))[0], others)
    assert compiled(lambda x: x if x[0] > 0 else -x, [np.ones(3)]) is None
    assert compiled(lambda x: np.linalg.eigvalsh(np.outer(x, x)), [np.ones(3)]) is None


@pytest.mark.parametrize("n", [2, 3, 4, 5, 7, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_products_along_short_axes(n, dtype):
    rng = np.random.default_rng(n)
    left, right = rng.standard_normal((5, 6, n)).astype(dtype), rng.standard_normal((5, 6, 2)).astype(dtype)

    def gram(a, b):
        return a.T @ a, a.T @ b, b.T @ a, a @ a.T, b[:, 0] @ a

    rows = compiled(gram, [left[0], right[0]])
    assert rows is not None
    expected = [np.stack(part) for part in zip(*(gram(a, b) for a, b in zip(left, right, strict=True)), strict=True)]
    for found, wanted in zip(rows(left, right), expected, strict=True):
        assert found.dtype == dtype
        np.testing.assert_allclose(found, wanted, rtol=30 * np.finfo(dtype).eps, atol=30 * np.finfo(dtype).eps)

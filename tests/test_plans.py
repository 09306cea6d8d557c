"""Plans found again by structure: when they are, when they must not be, and that numbers never mix."""

from __future__ import annotations

import gc
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support import examples, grow, interpret

import jacana as jc
from jacana import plans
from jacana.graph.node import literal, new_input, substitute_nodes, topological
from jacana.graph.structure import structure

Array = np.ndarray[Any, Any]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: Any) -> None:
    monkeypatch.setattr(plans, "_plans", OrderedDict())


def count() -> int:
    return len(plans._plans)


def tanh_layer(W: Array, b: Array) -> Callable[[Any], Any]:
    return lambda x: np.tanh(W @ x + b)


def test_the_same_code_with_other_data_is_planned_once():
    rng = np.random.default_rng(0)
    for _ in range(4):
        W, b, x = rng.normal(size=(2, 3)), rng.normal(size=2), rng.normal(size=3)
        expected = (1 - np.tanh(W @ x + b) ** 2)[:, None] * W
        np.testing.assert_allclose(jc.jacobian(tanh_layer(W, b))(x), expected, rtol=1e-12)
    assert count() == 1


def test_least_squares_with_new_data_is_planned_once():
    t = np.linspace(0.0, 1.0, 9)
    for rate in (0.5, 1.5, 2.5):
        y = 3.0 * np.exp(-rate * t)
        fit = jc.least_squares(lambda p, t, y: p[0] * np.exp(-p[1] * t) - y, np.array([1.0, 1.0]), args=(t.copy(), y))
        np.testing.assert_allclose(fit.x, [3.0, rate], rtol=1e-9)
    assert count() == 1


@pytest.mark.parametrize("format", ["dense", "csr", "csc", "coo", "operator"])
def test_every_format_gets_its_own_plan_and_fresh_results(format):
    x = np.array([0.3, 0.7, 1.1])
    found = [jc.jacobian(lambda x: np.sin(x[1:]) * x[:-1], format=format)(x + k) for k in range(3)]
    assert count() == 1
    for k, one in enumerate(found):
        matrix = one @ np.eye(3) if format != "dense" else one
        y = x + k
        expected = np.zeros((2, 3))
        expected[[0, 1], [0, 1]] = np.sin(y[1:])
        expected[[0, 1], [1, 2]] = np.cos(y[1:]) * y[:-1]
        np.testing.assert_allclose(matrix, expected, rtol=1e-12)


def test_what_differs_is_planned_apart():
    x = np.array([0.5, 1.5])
    programs: list[tuple[Callable[[Any], Any], Array]] = [
        (lambda x: x * 2.0, np.diag([2.0, 2.0])),
        (lambda x: x * 3.0, np.diag([3.0, 3.0])),
        (lambda x: x[::-1] * 2.0, np.array([[0.0, 2.0], [2.0, 0.0]])),
        (lambda x: x * x, np.diag(2 * x)),
        (lambda x: x**2 * np.array([1.0, 5.0]), np.diag(2 * x * [1.0, 5.0])),
        (lambda x: np.array([2.0, 5.0]) ** x, np.diag(np.array([2.0, 5.0]) ** x * np.log([2.0, 5.0]))),
    ]
    for function, expected in programs:
        np.testing.assert_allclose(jc.jacobian(function)(x), expected, rtol=1e-12)
    assert count() == len(programs)
    for function, expected in reversed(programs):
        np.testing.assert_allclose(jc.jacobian(function)(x), expected, rtol=1e-12)
    assert count() == len(programs)


def test_zeros_that_count_as_structure_are_part_of_it():
    def banded(D: Array) -> Callable[[Any], Any]:
        return lambda x: D @ np.sin(x)

    x = np.linspace(0.1, 0.9, 6)
    diagonal, shifted = np.diag(np.arange(1.0, 7.0)), np.diag(np.arange(1.0, 6.0), 1)
    for D in (diagonal, shifted, diagonal * 2.0):
        J = jc.jacobian(banded(D), format="csr")(x)
        np.testing.assert_allclose(J.toarray(), D * np.cos(x), rtol=1e-12)
        assert J.nnz == np.count_nonzero(D)
    assert count() == 2


def test_masks_are_part_of_it():
    def chosen(mask: Array) -> Callable[[Any], Any]:
        return lambda x: np.where(mask, np.sin(x), 2.0)

    x = np.linspace(0.1, 0.9, 4)
    for mask in (np.array([True, False, True, True]), np.array([False, True, False, False])):
        J = jc.jacobian(chosen(mask), format="csr")(x)
        np.testing.assert_allclose(J.toarray(), np.diag(np.where(mask, np.cos(x), 0.0)), rtol=1e-12)
        assert J.nnz == mask.sum()


def test_guards_belong_to_the_recording():
    def make() -> Callable[[Any], Any]:
        return lambda x: x * 2.0 if x[0] > 0 else x * 3.0

    for sign in (1.0, -1.0, 1.0):
        f = jc.jacobian(make())
        for s in (sign, -sign):
            np.testing.assert_array_equal(f(np.array([s, 1.0])), np.eye(2) * (2.0 if s > 0 else 3.0))


def test_arrays_written_into_later_are_seen():
    W = np.ones((2, 2))
    first, second = jc.jacobian(lambda x: W @ x), jc.jacobian(lambda x: W @ x)
    x = np.ones(2)
    np.testing.assert_array_equal(first(x), W)
    np.testing.assert_array_equal(second(x), W)
    W[0, 1] = 7.0
    np.testing.assert_array_equal(first(x), W)
    np.testing.assert_array_equal(second(x), W)


def test_captured_arrays_in_other_memory_orders():
    W = np.arange(6.0).reshape(2, 3)
    for matrix in (W, np.asfortranarray(W), np.repeat(W, 2, axis=1)[:, ::2]):
        np.testing.assert_array_equal(jc.jacobian(lambda x, matrix=matrix: matrix @ x)(np.ones(3)), W)


def test_products_and_hessians():
    x, v = np.array([0.3, 0.8]), np.array([1.0, -2.0])
    for k in (1.0, 2.0, 3.0):
        scale = np.array([k, k + 1.0])
        np.testing.assert_allclose(jc.vjp(lambda x, s=scale: np.sin(x) * s)(x, v)[1], np.cos(x) * scale * v)
        np.testing.assert_allclose(jc.jvp(lambda x, s=scale: np.sin(x) * s)(x, v)[1], np.cos(x) * scale * v)
        np.testing.assert_allclose(jc.grad(lambda x, s=scale: np.sum(np.sin(x) * s))(x), np.cos(x) * scale)
        hessian = jc.hessian(lambda x, s=scale: np.sum(np.sin(x) * s))(x)
        np.testing.assert_allclose(hessian, np.diag(-np.sin(x) * scale))
    assert count() == 4


def test_plans_keep_no_captured_array_and_are_bounded(monkeypatch):
    monkeypatch.setattr(plans, "KEPT", 3)
    W = np.ones((3, 3))
    gone = weakref.ref(W)
    jc.jacobian(tanh_layer(W, np.zeros(3)))(np.ones(3))
    del W
    gc.collect()
    assert gone() is None
    for n in range(2, 9):
        jc.jacobian(np.sin)(np.ones(n))
    assert count() == 3


def test_many_threads():
    rng = np.random.default_rng(0)
    cases = [(rng.normal(size=(3, 2)), rng.normal(size=3), rng.normal(size=2)) for _ in range(24)]
    wrong: list[int] = []

    def work(k: int) -> None:
        for W, b, x in cases[k::4]:
            expected = (1 - np.tanh(W @ x + b) ** 2)[:, None] * W
            if not np.allclose(jc.jacobian(tanh_layer(W, b))(x), expected, rtol=1e-10):
                wrong.append(k)

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert count() == 1


@examples(60)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_equal_keys_are_equal_programs(seed, other):
    """A program grown again has the same key; one that differs anywhere has another."""
    first, again, second = grow(seed, 6), grow(seed, 6), grow(other, 6)
    if first is None or again is None:
        return
    key = structure(first.inputs, first.outputs)
    assert key.key == structure(again.inputs, again.outputs).key
    assert hash(key.key) == hash(structure(again.inputs, again.outputs).key)
    if len(first.inputs) > 1 and structure(first.inputs[::-1], first.outputs).key == key.key:
        swapped = dict(zip(first.inputs, first.inputs[::-1], strict=True))
        assert substitute_nodes(first.outputs, dict(swapped)) == first.outputs
    if second is not None and structure(second.inputs, second.outputs).key == key.key:
        moved = interpret(second.outputs, dict(zip(second.inputs, first.values, strict=True)))
        for a, b in zip(interpret(first.outputs, first.known), moved, strict=True):
            np.testing.assert_array_equal(a, b)
    # One literal changed, one input read instead of another.
    nodes = topological(first.outputs)
    numbers = [node for node in nodes if node.op.name == "literal" and node.dtype.kind == "f"]
    if numbers:
        changed = substitute_nodes(first.outputs, {numbers[0]: literal(0.123456789, numbers[0].dtype)})
        assert structure(first.inputs, changed).key != key.key
    used = [node for node in nodes if node in first.inputs]
    if used:
        apart = substitute_nodes(first.outputs, {used[0]: new_input(used[0].shape, used[0].dtype)})
        assert structure(first.inputs, apart).key != key.key

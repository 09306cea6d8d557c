"""The shortest call: one builtin from ndarray to ndarray, and the general way for everything that is not plain."""

from __future__ import annotations

import ctypes
import gc
import sys
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import jacana as jc

pytestmark = pytest.mark.skipif(not jc.native_available(), reason="llvmlite is not installed")


@pytest.fixture(autouse=True)
def native() -> Iterator[None]:
    with jc.executor("native"):
        yield


def f(x: Any) -> Any:
    return np.sin(x[:-1]) * x[1:]


def warm(transform: Any, x: Any) -> Any:
    transform(x)
    transform(x)
    from jacana.run.native.entry import layout_is_known

    assert (transform._replay.shortest is not None) == layout_is_known()
    return transform


X = np.array([0.5, 1.5, -2.0])


def by_numpy(make: Any, *args: Any) -> Any:
    with jc.executor("numpy"):
        return make(*args)


@pytest.mark.parametrize("make", [jc.jacobian, jc.compile, lambda g: jc.grad(lambda x: g(x)[0])])
def test_what_is_not_plain_takes_the_general_way(make):
    transform = warm(make(f), X)
    gap, wide = np.zeros((3, 2)), np.zeros(6)
    gap[:, 0], wide[::2] = X, X
    unaligned = np.frombuffer(b"\0" + X.tobytes(), np.uint8)[1:].view("f8")
    tail = np.arange(4.0)[1:]
    locked = X.copy()
    locked.flags.writeable = False
    for x in (X, locked, gap[:, 0], wide[::2], X[::-1], unaligned, tail, X.astype("f4"), X.astype(">f8"), np.ones(5)):
        if x.dtype == ">f8":
            continue
        found = transform(x)
        np.testing.assert_allclose(found, by_numpy(make(f), np.array(x)), rtol=1e-6 if x.dtype == "f4" else 1e-14)
        assert type(found) is np.ndarray and found.flags.c_contiguous and found.flags.writeable and found.base is None
    for x in (np.ones(3, int), [1.0, 2.0, 3.0], "text", None):
        if make is not jc.compile:
            with pytest.raises((jc.InvalidInputError, jc.RecordingError, TypeError)):
                transform(x)
    with pytest.raises((TypeError, jc.InvalidInputError)):
        transform()
    with pytest.raises((TypeError, jc.InvalidInputError)):
        transform(X, X)
    np.testing.assert_allclose(transform(x=X) if make is jc.compile else transform(X), by_numpy(make(f), X), rtol=1e-14)


def test_other_byte_orders_are_not_taken_for_ones_own():
    transform = warm(jc.compile(lambda x: x * 2.0), X)
    swapped = X.astype(X.dtype.newbyteorder())
    builtin = transform._replay.shortest and transform._replay.shortest[1]
    if builtin is not None:
        assert builtin(swapped) is None
        assert builtin(X.reshape(3, 1)) is None and builtin() is None and builtin(X, X) is None and builtin(3) is None
        assert builtin(X.view(type("Sub", (np.ndarray,), {}))) is None


def test_several_results_tables_and_zeros():
    places = np.array([2, 0, 0, 1, 2] * 20)

    def g(x):
        return np.exp(x[places[:7]]) * x[places[-7:]]

    transform = warm(jc.value_and_jacobian(g), X)
    for x in (X, X + 1.0):
        value, jacobian = transform(x)
        expected = by_numpy(jc.value_and_jacobian(g), x)
        np.testing.assert_allclose(value, expected[0], rtol=1e-14)
        np.testing.assert_allclose(jacobian, expected[1], rtol=1e-14)
        assert type(transform(x)) is tuple


def test_results_are_fresh_and_nothing_leaks():
    transform = warm(jc.jacobian(f), X)
    first = transform(X)
    kept = first.copy()
    first[...] = 7.0
    np.testing.assert_array_equal(transform(X), kept)
    builtin = transform._replay.shortest[1] if transform._replay.shortest else transform
    counted = (X, X.dtype, None, np.ndarray)
    gc.collect()
    before = [sys.getrefcount(o) for o in counted]
    for _ in range(1000):
        builtin(X)
        if builtin is not transform:
            builtin(3)
    assert all(abs(sys.getrefcount(o) - n) < 100 for o, n in zip(counted, before, strict=True))


def test_changes_outside_and_other_executors_are_seen():
    scale = 2.0

    def g(x):
        return x * scale

    transform = warm(jc.compile(g), X)
    scale = 3.0
    np.testing.assert_array_equal(transform(X), 3.0 * X)
    warm(transform, X)
    with jc.executor("numpy"):
        np.testing.assert_array_equal(transform(X), 3.0 * X)
        assert transform._replay.shortest is None
    warm(transform, X)


def test_captured_arrays_go_along():
    matrix, scale = np.arange(6.0).reshape(2, 3), np.array(3.0)

    def g(x):
        return np.sin(matrix * x)[:, 1] * scale + np.full(2, x[1]) * np.array([0.5, 1.5])

    transform = warm(jc.jacobian(g), X)
    np.testing.assert_allclose(transform(X), by_numpy(jc.jacobian(g), X), rtol=1e-14)
    matrix *= 0.5
    np.testing.assert_allclose(transform(X), by_numpy(jc.jacobian(g), X), rtol=1e-14)


def test_a_captured_array_out_of_order_takes_the_general_way():
    turned = np.arange(6.0).reshape(3, 2).T
    transform = jc.jacobian(lambda x: np.sin(turned * x))
    for _ in range(3):
        found = transform(X)
    assert transform._replay.shortest is None
    np.testing.assert_allclose(found[1, 2], [0.0, 0.0, 5.0 * np.cos(5.0 * X[2])], rtol=1e-14)


def test_captured_arrays_are_read_as_they_are():
    weights, late = np.array([1.0, 2.0, 3.0]), np.array([5.0, 6.0])
    transform = warm(jc.jacobian(lambda x: weights * x**2 + late[0]), X)
    weights *= 2.0
    np.testing.assert_allclose(transform(X), np.diag(2.0 * weights * X), rtol=1e-14)
    weights = np.array([4.0, 5.0, 6.0])
    np.testing.assert_allclose(transform(X), np.diag(2.0 * weights * X), rtol=1e-14)
    kept = weights
    warm(transform, X)
    weights = np.arange(6.0)[::2]
    np.testing.assert_allclose(transform(X), np.diag(2.0 * weights * X), rtol=1e-14)
    kept[:] = np.nan
    np.testing.assert_allclose(transform(X), np.diag(2.0 * weights * X), rtol=1e-14)


def test_several_arguments():
    def g(x, y, n):
        return np.outer(np.sin(x), y) * n

    transform = jc.jacobian(g, argnums=(0, 1))
    y, n = np.array([2.0, -1.0]), np.array([[3, 4]])
    warmed = [transform(X, y, n) for _ in range(3)][-1]
    from jacana.run.native.entry import layout_is_known

    assert (transform._replay.shortest is not None) == layout_is_known()
    for first, second, third in ((X, y, n), (X + 1, y * 2, n), (X, y, n.astype("f8")), (X, y, 2), (X[:2], y, n)):
        expected = by_numpy(jc.jacobian(g, argnums=(0, 1)), first, second, third)
        for _ in range(2):
            found = transform(first, second, third)
            assert type(found) is tuple
            for a, b in zip(found, expected, strict=True):
                np.testing.assert_allclose(a, b, rtol=1e-14)
    np.testing.assert_allclose(warmed[0], by_numpy(jc.jacobian(g), X, y, n), rtol=1e-14)
    with pytest.raises(TypeError):
        transform(X, y)
    with pytest.raises((TypeError, jc.InvalidInputError)):
        transform(y, X, n, n)


def test_a_complex_argument_is_not_two_real_ones():
    def g(z, w=None):
        return np.abs(z) ** 2 if w is None else z - w

    transform = jc.compile(g)
    z = X + 1j * X[::-1]
    for _ in range(3):
        np.testing.assert_allclose(transform(z), np.abs(z) ** 2, rtol=1e-14)
    np.testing.assert_allclose(transform(X, X[::-1].copy()), X - X[::-1], rtol=1e-14)


def test_guards_are_checked():
    def g(x):
        return x * 2.0 if x[0] > 0 else -x

    transform = jc.compile(g)
    for x in (X, X, -X, X, -X, -X):
        np.testing.assert_array_equal(transform(x), g(x))


def test_the_builtin_outlives_its_transform():
    builtin = warm(jc.jacobian(f), X)._replay.shortest
    gc.collect()
    if builtin is not None:
        np.testing.assert_allclose(builtin[1](X), by_numpy(jc.jacobian(f), X), rtol=1e-14)


def test_eight_threads_at_once():
    transform = warm(jc.jacobian(f), X)
    expected = transform(X)
    wrong = []

    def work() -> None:
        with jc.executor("native"):
            wrong.extend(1 for _ in range(2000) if not np.array_equal(transform(X), expected))

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_a_builtin_is_defined_by_outlives_the_module(monkeypatch):
    """The interpreter reads it when it lets go of the builtin, which may be after the module at exit."""
    from jacana.run.native import engine

    made: list[Any] = []

    class Watched(engine._MethodDef):
        def __init__(self, *fields: Any) -> None:
            super().__init__(*fields)
            made.append(weakref.ref(self))

    monkeypatch.setattr(engine, "_MethodDef", Watched)
    monkeypatch.setattr(engine, "_alive", [])
    kernel = engine.builtin(ctypes.cast(ctypes.pythonapi.Py_IncRef, ctypes.c_void_p).value, "code")
    engine._alive.clear()
    gc.collect()
    assert kernel.__name__ == "kernel" and made[0]() is not None

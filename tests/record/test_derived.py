"""Derivatives of define-by-run programs: the same structure is derived once."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import jacana as jc
from jacana import derived

EXECUTORS = ["numpy", "auto", "native"] if jc.native_available() else ["numpy", "auto"]


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: Any) -> None:
    monkeypatch.setattr(derived, "_known", OrderedDict())


@pytest.mark.parametrize("name", EXECUTORS)
def test_a_loop_derives_its_program_once(name):
    rng = np.random.default_rng(1)
    with jc.executor(name):
        for _ in range(5):
            A, b = rng.normal(size=(2, 3)), rng.normal(size=2)
            x = jc.Variable(rng.normal(size=3))
            y = np.tanh(A @ x + b)
            expected = (1 - y.data**2)[:, None] * A
            np.testing.assert_allclose(y.jacobian(x), expected, rtol=1e-13)
            y.grad = rng.normal(size=2)
            y.backward()
            np.testing.assert_allclose(x.grad, y.grad @ expected, rtol=1e-13)
            x.cleargrad()
            y.backward(jacobian=True)
            np.testing.assert_allclose(x.grad, expected, rtol=1e-13)
        assert len(derived._known) == 2


def test_other_wants_and_shapes_are_other_programs():
    x, z = jc.Variable(np.array([1.0, 2.0])), jc.Variable(np.array([3.0, 5.0]))
    y = x * z
    np.testing.assert_array_equal(y.jacobian(x), np.diag([3.0, 5.0]))
    np.testing.assert_array_equal(y.jacobian(z), np.diag([1.0, 2.0]))
    square = z * z * x
    np.testing.assert_array_equal(square.jacobian(x), np.diag([9.0, 25.0]))
    long = jc.Variable(np.array([1.0, 2.0, 3.0]))
    np.testing.assert_array_equal((long * np.array([2.0, 4.0, 6.0])).jacobian(long), np.diag([2.0, 4.0, 6.0]))
    np.testing.assert_array_equal((long * np.array([1.0, 0.0, 0.0])).jacobian(long), np.diag([1.0, 0.0, 0.0]))


def test_the_least_recently_used_goes(monkeypatch):
    monkeypatch.setattr(derived, "KEPT", 3)
    for n in range(1, 8):
        x = jc.Variable(np.ones(n))
        np.testing.assert_array_equal((x * x).jacobian(x), 2 * np.eye(n))
    assert len(derived._known) == 3


def test_leaves_are_not_kept_alive():
    import gc
    import weakref

    x = jc.Variable(np.ones(4))
    node = weakref.ref(x.node)
    (x * x).backward(jacobian=True)
    del x
    gc.collect()
    assert node() is None

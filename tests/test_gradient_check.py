"""``jc.check`` and ``jc.gradient_check``: they agree with what is right and name what is wrong."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc
import jacana.functions as F
from jacana import gradient_check as gc

W = np.arange(6.0).reshape(2, 3) / 10
X = np.array([0.3, -0.2, 0.9])


def wrong_cube(at=2.0):
    return jc.custom_operation(lambda x: x**3, partials=lambda x: (at * x**2,), structure="elementwise", name="cube")


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["complex", "differences"])
@pytest.mark.parametrize("format", ["dense", "csr"])
def test_check_agrees(method, format):
    found = jc.check(lambda W, x: np.tanh(W @ x), W, X, format=format, method=method)
    assert found
    assert found.wrong == 0
    assert str(found).startswith("fine: ")


def test_complex_steps_have_all_digits():
    found = jc.check(lambda x: np.exp(x) * np.sin(x), X, tolerance=1e-13)
    assert found and found.unresolved == 0
    assert jc.check(lambda x: np.exp(x) * np.sin(x), X, tolerance=1e-13, method="differences").unresolved


@pytest.mark.parametrize("function", [np.abs, np.linalg.norm, lambda x: np.maximum(x, 0.1), lambda x: np.hypot(x, 1.0)])
def test_functions_that_are_not_analytic_are_checked_by_differences(function):
    assert jc.check(function, X)
    assert jc.check(lambda x: float(x[0] > 0) * x if type(x) is np.ndarray else x, X).wrong == 0


def test_functions_that_take_no_complex_numbers():
    table = np.array([1.0, 2.0, 4.0])
    assert jc.check(lambda x: np.interp(x, table, table**2), X + 1.3)
    assert jc.check(lambda x: np.cbrt(x), X + 1.0)


def test_the_worst_entry_is_named():
    cube = wrong_cube()
    found = jc.check(lambda p, t: {"y": [p["a"], cube(p["a"]) * t]}, {"a": np.array([1.0, 2.0])}, 3.0, argnums=0)
    assert not found
    assert found.wrong == 2
    assert found.names == ("y['y'][1][1]", "x0['a'][1]")
    assert "d y['y'][1][1] / d x0['a'][1]: Jacobian 24, differences 36" in str(found)
    assert found.worst.jacobian == 24.0


def test_a_silent_zero_is_found():
    lost = jc.custom_operation(lambda x: np.abs(x), partials=lambda x: (0.0 * x,), structure="elementwise", name="lost")
    assert not jc.check(lambda x: lost(x), X)


def test_scalars_and_float32():
    assert jc.check(lambda x: x * x, 2.0)
    assert "d y / d x:" in str(jc.check(lambda x: x * x, 2.0))
    assert jc.check(lambda x: np.sin(x), X.astype(np.float32))


def test_nothing_to_check():
    assert str(jc.check(lambda x: x[:0], X)) == "there is nothing to compare"
    with pytest.raises(jc.InvalidInputError, match="no argument of floats"):
        jc.check(lambda n: n, np.arange(3))
    with pytest.raises(jc.InvalidInputError, match="real arguments"):
        jc.check(lambda z: z, 1j)
    with pytest.raises(jc.InvalidInputError, match="method"):
        jc.check(np.sin, X, method="guess")


# --- gradient_check -------------------------------------------------------------------------------------------------


def test_numerical_grad_restores_its_inputs():
    x, w = X.copy(), W.copy()
    grads = gc.numerical_grad(lambda: (w @ x, x * 2), (x, w), (np.ones(2), None))
    np.testing.assert_allclose(grads[0], W.sum(axis=0), rtol=1e-9)
    np.testing.assert_allclose(grads[1], np.tile(X, (2, 1)), rtol=1e-9)
    np.testing.assert_array_equal(x, X)
    with pytest.raises(jc.InvalidInputError):
        gc.numerical_grad(lambda: (x,), ([1.0],), (np.ones(3),))


def test_check_backward_with_parameters():
    bias = jc.Variable(np.array([0.1, -0.4]))
    gc.check_backward(lambda w, x: F.tanh(F.matmul(w, x) + bias), (W, X), np.array([1.0, 2.0]), params=bias)
    np.testing.assert_array_equal(bias.data, [0.1, -0.4])
    gc.check_backward(lambda w, n: (w * n, w**2), (W, np.arange(3)), None)
    gc.check_backward(lambda w, x: np.abs(w) @ x, (W + 1, X), np.ones(2), no_grads=[True, False])


def test_check_backward_finds_what_is_wrong():
    cube = wrong_cube()
    with pytest.raises(AssertionError, match=r"computed: .*\n.*differences: "):
        gc.check_backward(lambda x: cube(x), X, np.ones(3))
    gc.check_backward(wrong_cube(3.0), X, np.ones(3))


def test_check_double_backward():
    gc.check_double_backward(lambda w, x: np.tanh(w @ x), (W, X), np.array([1.0, -2.0]), (W + 1, X))
    gc.check_double_backward(lambda x: (np.sin(x), np.prod(x)), X, (np.ones(3), 2.0))


def test_check_jacobian():
    gc.check_jacobian(lambda w, x: F.tanh(F.matmul(w, x)), (W, X))
    with pytest.raises(AssertionError, match=r"argument 0 .* at y\[2\], x\[2\]"):
        gc.check_jacobian(wrong_cube(), X)


def test_the_number_of_gradients_must_fit():
    with pytest.raises(jc.InvalidInputError, match="2 results"):
        gc.check_backward(lambda x: (x, x), X, (np.ones(3),))

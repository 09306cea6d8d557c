"""What a recorded program asks about its values: their class, their hash, whether two arrays share memory."""

from __future__ import annotations

import fractions
import functools
import numbers
from typing import Any

import numpy as np
import pytest
from record_helpers import check

import jacana as jc

X = np.array([0.31, 0.72, 0.13, 0.88, 0.54, 0.43])


# --- classes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [float, np.floating, np.float64, np.generic, numbers.Real, numbers.Number])
def test_an_element_is_of_the_classes_of_numpys_number(kind: type) -> None:
    def cube_of_numbers(x: Any) -> Any:
        return x[1] ** 3 if isinstance(x[1], kind) and not isinstance(x, kind) else x[1]

    assert jc.grad(cube_of_numbers)(X)[1] == pytest.approx(3 * 0.72**2)


def test_an_array_is_an_ndarray_and_an_element_is_none() -> None:
    def f(x: Any) -> Any:
        return x * 2 if isinstance(x, np.ndarray) and not isinstance(x[0], np.ndarray) else x

    check(f, X)
    check(lambda x: x * 2 if np.isscalar(x[0]) and not np.isscalar(x) else x, X)
    check(lambda x: x * 2 if isinstance(x > 0.5, np.ndarray) and isinstance(x[0] > 0, np.bool_) else x, X)
    check(lambda x: x * 2 if isinstance(np.argmax(x), np.integer) else x, X)


def test_float32_and_complex_numbers() -> None:
    def f(x: Any) -> Any:
        return x * 2 if isinstance(x[0], np.float32) and not isinstance(x[0], float) else x

    check(f, X.astype(np.float32))

    def g(z: Any) -> Any:
        return np.abs(z[0]) ** 2 if isinstance(z[0], complex) and isinstance(z, np.ndarray) else 0.0

    assert jc.grad(g)(np.array([1 + 2j, 3j])) == pytest.approx([2 + 4j, 0])


def test_a_number_among_the_arguments_is_a_number_and_an_array_of_no_axes_an_array() -> None:
    def f(x: Any) -> Any:
        return 3.0 * x if isinstance(x, float) else x**2

    slope = jc.grad(f)
    assert [slope(2.0), slope(np.array(2.0)), slope(np.float64(2.0)), slope(np.array(5.0))] == [3.0, 4.0, 3.0, 10.0]

    def g(p: Any) -> Any:
        return p["a"] * p["b"] if isinstance(p["a"], float) and isinstance(p["b"], np.ndarray) else 0.0 * p["a"]

    assert jc.grad(g)({"a": 2.0, "b": np.array(5.0)}) == {"a": 5.0, "b": 2.0}


def test_single_dispatch_takes_the_way_of_numpy() -> None:
    @functools.singledispatch
    def power(v: Any) -> Any:
        return v

    power.register(np.ndarray, lambda v: v**2)
    power.register(float, lambda v: v**3)
    check(lambda x: power(x) * power(x[0]), X)


def test_outside_a_recording_a_variable_is_a_variable() -> None:
    v = jc.Variable(X)
    assert v.__class__ is jc.Variable
    assert isinstance(v, jc.Variable)
    assert not isinstance(v, np.ndarray)
    assert jc.jacobian(lambda x: x if isinstance(x, jc.Variable) else 0.0 * x)(X)[0, 0] == 1.0


# --- keys and other code --------------------------------------------------------------------------------------------


def test_a_recorded_number_is_no_key() -> None:
    @functools.lru_cache
    def square(v: Any) -> Any:
        return v * v

    with pytest.raises(jc.errors.RecordingError, match=r"(?s)cannot be a key .*test_classes_and_keys.py:\d+"):
        jc.grad(lambda x: square(x[0]))(X)
    with pytest.raises(jc.errors.RecordingError, match="cannot be a key"):
        jc.grad(lambda x: {1j * x[0]: 1}[0])(X)
    with pytest.raises(TypeError, match=r"unhashable type: 'numpy\.ndarray'"):
        jc.jacobian(lambda x: {x: 1})(X)


def test_a_rational_number_times_an_element() -> None:
    check(lambda x: fractions.Fraction(1, 3) * x[0] * x, X)


def test_code_that_knows_only_arrays_is_refused_with_the_line() -> None:
    sparse = pytest.importorskip("scipy.sparse")
    linalg = pytest.importorskip("scipy.sparse.linalg")
    factors = linalg.splu(sparse.csc_array(np.diag(np.arange(1.0, 7.0))))

    def solved(x: Any) -> Any:
        return factors.solve(x)

    where = r"plain numbers and arrays alone.*(\n.*)*test_classes_and_keys.py:\d+ in "
    with pytest.raises(jc.errors.RecordingError, match=where + "solved"):
        jc.jacobian(solved)(X)
    with pytest.raises(jc.errors.RecordingError, match=where):
        jc.jacobian(lambda x: fractions.Fraction(1, 3) * x)(X)
    with pytest.raises(jc.errors.RecordingError, match=where):
        jc.jacobian(lambda x: np.sum([v for v in np.nditer(x)]))(X)


def test_errors_of_types_that_are_about_something_else_stay() -> None:
    def f(x: Any) -> Any:
        return x + len(3)  # type: ignore[arg-type]

    with pytest.raises(TypeError, match="has no len") as caught:
        jc.jacobian(f)(X)
    assert type(caught.value) is TypeError


def test_objects_that_turn_into_arrays() -> None:
    class Table:
        def __array__(self, dtype: Any = None, copy: Any = None) -> Any:
            return np.arange(6.0)

    check(lambda x: x * Table() + np.maximum(Table(), x) - Table() / x, X)


def test_elements_cannot_be_deleted() -> None:
    def f(x: Any) -> Any:
        del x[0]
        return x

    with pytest.raises(ValueError, match="cannot delete array elements"):
        jc.jacobian(f)(X)


# --- memory ---------------------------------------------------------------------------------------------------------


def _written(make: Any, z: Any) -> Any:
    a = z.reshape(2, 3) * 1
    b = make(a)
    b[0] = 5 * z[2]
    return np.stack([np.ravel(a), np.ravel(b)])


@pytest.mark.parametrize(
    "make",
    [
        lambda a: np.asfortranarray(a),
        lambda a: np.ascontiguousarray(a),
        lambda a: np.asarray(a),
        lambda a: np.asfortranarray(a.T),
        lambda a: np.ascontiguousarray(a.T),
        lambda a: np.asarray(a, order="F"),
        lambda a: np.asarray(a, order="C"),
        lambda a: np.require(a, requirements=["C", "W"]),
        lambda a: np.require(a, requirements="F"),
    ],
)
def test_a_change_of_the_order_of_memory_copies_where_numpy_copies(make: Any) -> None:
    def g(x: Any) -> Any:
        z = _written(make, x + 1j * x[::-1])
        return np.stack([z.real, z.imag])

    check(lambda x: _written(make, x), X)
    check(g, X, exact=False)


def test_contiguous_arrays_have_an_axis() -> None:
    check(lambda x: np.ascontiguousarray(x[0]) * x[1], X)
    check(lambda x: np.asfortranarray(x[0]) * x[1], X)


# --- numbers that the recording itself is looked at for ---------------------------------------------------------------


def test_lexsort_keeps_the_order_of_equal_constants() -> None:
    group = np.tile([0, 1], 30)
    check(lambda x: np.concatenate([x] * 10)[np.lexsort((group,))], X)
    check(lambda x: np.concatenate([x] * 10)[np.lexsort((np.concatenate([x] * 10), group))], X)


def test_the_recorded_value_of_gradient_has_the_edges_asked_for() -> None:
    at = np.array([0, 0.1, 0.4, 0.5, 0.9, 1.0])
    check(lambda x: np.gradient(x**3, at, edge_order=2), X, exact=False)
    check(lambda x: np.gradient(x.reshape(2, 3), x[0], axis=1, edge_order=2), X, exact=False)

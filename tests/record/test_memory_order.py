"""The order of an array's axes in memory, where a result depends on it: views, ``order="K"``, Fortran arguments."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import jacana as jc

A = np.arange(1.0, 7.0).reshape(2, 3)
MADE = {
    "method copy": lambda a: a.T.copy(),
    "method copy, Fortran": lambda a: a.T.copy("F"),
    "np.copy": lambda a: np.copy(a.T),
    "copy.copy": lambda a: copy.copy(a.T),
    "complex": lambda a: (a.T + 0j).copy(),
    "np.array": lambda a: np.array(a.T, order="C"),
    "contiguous": lambda a: np.ascontiguousarray(a.T),
    "Fortran": lambda a: np.asfortranarray(a),
    "sort": lambda a: np.sort(a.T, axis=0),
    "partition": lambda a: np.partition(a.T, 1, axis=0),
    "ufunc": lambda a: np.sin(a.T),
    "piecewise": lambda a: np.piecewise(a.T, [a.T > 2.5], [np.sin, np.cos]),
    "zeros_like": lambda a: np.zeros_like(a.T) + a.T,
    "astype": lambda a: a.astype(float, order="F"),
}


@pytest.mark.parametrize("name", MADE)
def test_whether_a_raveled_array_is_a_view(name):
    def function(a):
        y = MADE[name](a)
        view = y.T.ravel()
        view[0] = 9.0
        return np.real(y) * 1.0

    value, slope = jc.value_and_jacobian(function)(A)
    np.testing.assert_array_equal(value, function(A))
    differences = np.stack(
        [(function(A + 1e-6 * e) - function(A - 1e-6 * e)) / 2e-6 for e in np.eye(6).reshape(6, 2, 3)]
    )
    np.testing.assert_allclose(slope, np.moveaxis(differences, 0, -1).reshape(slope.shape), atol=1e-8)


READ = {
    "ravel K": lambda a: a.ravel(order="K"),
    "ravel A": lambda a: a.ravel(order="A"),
    "flatten K": lambda a: a.flatten("K"),
    "reshape A": lambda a: np.reshape(a, (3, 2), order="A"),
    "ravel": lambda a: a.ravel(),
    "complex ravel K": lambda a: (a * 2j).ravel(order="K").imag,
}


@pytest.mark.parametrize("name", READ)
def test_arguments_in_the_order_of_fortran(name):
    function = READ[name]
    both = jc.value_and_jacobian(function)
    cube = np.arange(24.0).reshape(2, 3, 4)
    for a in (A, np.asfortranarray(A), A, np.asfortranarray(A), A[:, ::-1], A[:, ::-1].T, A[:1], A[:1].T, A[:, :2].T):
        if name.endswith("A") and not (a.size == 6 and (a.flags.c_contiguous or a.flags.f_contiguous)):
            continue  # "A" of what is not contiguous is C, which the copy of an argument would not be
        value, slope = both(a)
        np.testing.assert_array_equal(value, function(a))
        np.testing.assert_array_equal(np.tensordot(slope, a, a.ndim), value)  # they are linear
    if not name.endswith("A"):
        for axes in ((0, 1, 2), (2, 0, 1), (1, 2, 0), (0, 2, 1)):
            np.testing.assert_array_equal(both(cube.transpose(axes))[0], function(cube.transpose(axes)))


@pytest.mark.parametrize("kind", [None, "stable", "heapsort", "mergesort"])
def test_ties_are_ordered_as_numpy_orders_them(kind):
    rng = np.random.default_rng(0)
    function = lambda x, z: z[np.argsort(x, kind=kind)] * np.sum(x)  # noqa: E731
    compiled = jc.compile(function)
    for n in (5, 40, 40, 300):
        x, z = np.round(rng.normal(size=n)), rng.normal(size=n)
        np.testing.assert_array_equal(compiled(x, z), function(x, z))


def test_sorted_values_that_are_equal_stand_as_they_stood():
    x = np.round(np.random.default_rng(0).normal(size=40))
    slope = jc.jacobian(np.sort)(x)
    np.testing.assert_array_equal(slope.argmax(1), np.argsort(x, kind="stable"))


def test_the_dtype_by_name():
    slope = jc.jacobian(lambda x: x.astype(dtype=np.float64, copy=False) ** 2)(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(slope, [[2.0, 0.0], [0.0, 4.0]])
    slope = jc.jacobian(lambda x: (x.astype(dtype=complex) * 1j).astype(dtype=np.complex64).imag)(np.array([1.0, 2.0]))
    np.testing.assert_array_equal(slope, np.eye(2))


def test_lists_within_what_is_joined():
    x = np.array([1.0, 2.0])
    for name in ("stack", "vstack", "concatenate", "hstack", "column_stack"):
        function = lambda x, name=name: getattr(np, name)(([x[0], x[1] ** 2], [3.0, x[0]]))  # noqa: E731
        value, slope = jc.value_and_jacobian(function)(x)
        np.testing.assert_array_equal(value, getattr(np, name)(([1.0, 4.0], [3.0, 1.0])))
        np.testing.assert_array_equal(slope @ x, getattr(np, name)(([1.0, 8.0], [0.0, 1.0])))

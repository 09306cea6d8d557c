"""Factors of complex matrices, complex spectra: NumPy's values, differences of NumPy's functions, closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import jacana as jc

RNG = np.random.default_rng(7)
X = RNG.uniform(0.3, 1.3, 8)  # LAPACK changes signs where a pivot of QR changes its own
Y = RNG.uniform(0.3, 1.3, 8)
EXECUTORS = ["numpy", "native"] if jc.run.native_available() else ["numpy"]
SPREAD = np.diag([0.0, 2.0])


def _square(x: Any) -> Any:
    return (x[:4] + 1j * x[4:]).reshape(2, 2)


def _tall(x: Any) -> Any:
    z = x[:6] + 1j * x[2:]
    return z.reshape(3, 2)


def _hermitian(x: Any) -> Any:
    b = _tall(x).T
    return b @ b.conj().T + SPREAD


def _turning(x: Any) -> Any:
    return x[:4].reshape(2, 2) + np.array([[0.0, 9.0], [-9.0, 0.0]])


def _mixed(x: Any) -> Any:
    return x.reshape(2, 4)[:, :3].T @ x.reshape(2, 4)[:, 1:] + np.array([[0, 9, 0], [-9, 0, 1], [0, 0, 20.0]])


def _parts(*arrays: Any) -> Any:
    return np.concatenate([np.ravel(part) for a in arrays for part in (np.real(a), np.imag(a))])


CASES: dict[str, Callable[[Any], Any]] = {
    "eigh": lambda x: _parts(*np.linalg.eigh(_hermitian(x))),
    "eigh of the upper triangle": lambda x: _parts(*np.linalg.eigh(_hermitian(x) + np.array([[0, 0], [1j, 0]]), "U")),
    "eigh of a stack": lambda x: _parts(*np.linalg.eigh(np.stack([_hermitian(x), 2.0 * _hermitian(x[::-1])]))),
    "eig of a complex matrix": lambda x: _parts(*np.linalg.eig(_square(x) + np.diag([0, 3j]))),
    "eig of a real matrix": lambda x: _parts(*np.linalg.eig(_turning(x))),
    "eig of a real matrix, mixed": lambda x: _parts(*np.linalg.eig(_mixed(x))),
    "eigvals": lambda x: _parts(np.linalg.eigvals(_square(x)), np.linalg.eigvals(_mixed(x))),
    "roots": lambda x: _parts(np.roots(np.concatenate([[1.0], x[:2] / 9, [4.0 + x[2]]]))),
    "roots of a Polynomial": lambda x: _parts(np.polynomial.Polynomial([9 + x[0], x[1], 1.0]).roots()),
    "svd of a square matrix": lambda x: _parts(*np.linalg.svd(_square(x))),
    "svd of a tall matrix": lambda x: _parts(*np.linalg.svd(_tall(x), full_matrices=False)),
    "svd of a wide matrix": lambda x: _parts(*np.linalg.svd(_tall(x).T, full_matrices=False)),
    "svd of a very wide matrix": lambda x: _parts(
        *np.linalg.svd(np.concatenate([_tall(x), _square(x) ** 2]).T, full_matrices=False)
    ),
    "qr of a tall matrix": lambda x: _parts(*np.linalg.qr(_tall(x))),
    "qr of a wide matrix": lambda x: _parts(*np.linalg.qr(_tall(x).T), np.linalg.qr(_tall(x).T, "r")),
    "cholesky": lambda x: _parts(np.linalg.cholesky(_hermitian(x))),
    "cholesky, upper": lambda x: _parts(np.linalg.cholesky(_hermitian(x) + np.array([[0, 0], [1j, 0]]), upper=True)),
}


def _differences(f: Callable[[Any], Any], x: Any, h: float = 2e-3) -> Any:
    weights = ((1, 45.0), (2, -9.0), (3, 1.0))
    columns = [sum(w * (f(x + m * e) - f(x - m * e)) for m, w in weights) / (60 * h) for e in h * np.eye(x.size)]
    return np.stack(columns, -1)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", CASES)
def test_value_and_both_orders(name: str, executor: str) -> None:
    f = CASES[name]
    with jc.executor(executor):
        value = jc.compile(f)
        jacobians = [jc.jacobian(f, order=order) for order in ("forward", "reverse")]
        for point in (X, Y):
            np.testing.assert_allclose(value(point), f(point), rtol=1e-13, atol=1e-14)
            wanted = _differences(f, point)
            for jacobian in jacobians:
                np.testing.assert_allclose(jacobian(point), wanted, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("name", CASES)
def test_second_derivatives(name: str) -> None:
    f = CASES[name]
    weights = np.cos(np.arange(f(X).size))

    def total(x: Any) -> Any:
        return f(x) @ weights

    slope = jc.grad(total)
    wanted = _differences(slope, X)
    for order in ("forward", "reverse"):
        np.testing.assert_allclose(jc.hessian(total, order=order)(X), wanted, rtol=1e-5, atol=1e-6)


def test_values_are_numpys_to_the_bit() -> None:
    for function in (np.linalg.eigh, np.linalg.eig, np.linalg.qr):
        expected = function(_tall(X)[:2] + 3 * SPREAD)
        found = jc.compile(lambda x, function=function: tuple(function(_tall(x)[:2] + 3 * SPREAD)))(X)
        for a, b in zip(found, expected, strict=True):
            np.testing.assert_array_equal(a, b)
            assert a.dtype == b.dtype
    single = X.astype(np.float32)
    w, v = jc.compile(lambda x: tuple(np.linalg.eigh(_hermitian(x).astype(np.complex64))))(single)
    assert (w.dtype, v.dtype) == (np.float32, np.complex64)


def test_functions_of_a_hermitian_matrix_do_not_depend_on_the_phases() -> None:
    linalg = pytest.importorskip("scipy.linalg")

    def exponential(x: Any) -> Any:
        w, v = np.linalg.eigh(_hermitian(x) / 9)
        return _parts((v * np.exp(w)) @ v.conj().T)

    wanted = _differences(lambda x: _parts(linalg.expm(_hermitian(x) / 9)), X)
    np.testing.assert_allclose(jc.jacobian(exponential)(X), wanted, rtol=1e-8, atol=1e-9)


def test_a_first_component_of_zero() -> None:
    # Diagonal: the second vector is (0, 1), whose first component LAPACK cannot make real.
    def exponential(x: Any) -> Any:
        z = x[0] + 1j * x[1]
        w, v = np.linalg.eigh(np.array([[1.0 + x[2], np.conj(z)], [z, 3.0]]))
        return _parts((v * np.exp(w)) @ v.conj().T)

    slope = (np.exp(3.0) - np.exp(1.0)) / 2.0
    found = jc.jacobian(exponential)(np.zeros(3))
    np.testing.assert_allclose(found[:4], [[0, 0, np.e], [slope, 0, 0], [slope, 0, 0], [0, 0, 0]], atol=1e-12)
    np.testing.assert_allclose(found[4:], [[0, 0, 0], [0, -slope, 0], [0, slope, 0], [0, 0, 0]], atol=1e-12)


def test_vectors_of_equal_eigenvalues_have_no_derivative_but_values_have() -> None:
    def f(x: Any) -> Any:
        w, v = np.linalg.eigh(np.eye(2) * x[0] + 1j * np.zeros((2, 2)))
        return np.sum(w), np.real(v[0, 0])

    total, component = jc.jacobian(f)(np.array([2.0]))
    np.testing.assert_allclose(total, [2.0])
    assert np.isnan(component).all()


def test_a_spectrum_that_becomes_complex_and_real_again() -> None:
    def f(x: Any) -> Any:
        return np.sum(np.linalg.eigvals(np.array([[0.0, 1.0], [x[0], x[1]]])) ** 3)

    # The sum of cubes is (w1 + w2)**3 - 3 w1 w2 (w1 + w2) = b**3 + 3 a b.
    jacobian = jc.jacobian(f)
    for a, b in ((2.0, 1.0), (-2.0, 1.0), (3.0, 1.0), (-5.0, 1.0)):
        np.testing.assert_allclose(jacobian(np.array([a, b])), [3 * b, 3 * b**2 + 3 * a], atol=1e-12)


def test_what_is_not_there_is_refused() -> None:
    with pytest.raises(jc.errors.UnsupportedOperationError, match="full_matrices=False"):
        jc.jacobian(lambda x: _parts(np.linalg.svd(_tall(x))[0]))(X)
    with pytest.raises(jc.errors.UnsupportedOperationError, match="mode='reduced'"):
        jc.jacobian(lambda x: _parts(np.linalg.qr(_tall(x), mode="complete")[0]))(X)
    with pytest.raises(np.linalg.LinAlgError):
        jc.jacobian(lambda x: _parts(np.linalg.cholesky(-_hermitian(x))))(X)

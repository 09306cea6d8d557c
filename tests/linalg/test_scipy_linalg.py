"""``scipy.linalg`` inside recorded functions: how it is reached, and that it is left alone otherwise."""

from __future__ import annotations

import threading
import types

import numpy as np
import pytest
import scipy.linalg
import scipy.linalg as sla
from linalg_helpers import SPD, TALL
from scipy.linalg import expm, solve
from support import close

import jacana as jc
from jacana.errors import RecordingError, UnsupportedOperationError

ORIGINALS = {name: getattr(scipy.linalg, name) for name in scipy.linalg.__all__}


def untouched():
    assert all(getattr(scipy.linalg, name) is value for name, value in ORIGINALS.items())
    assert (expm, solve) == (ORIGINALS["expm"], ORIGINALS["solve"])


def test_every_way_to_say_it():
    inner = sla.expm
    expected = jc.jacobian(lambda x: scipy.linalg.expm(x))(SPD)

    def local(x):
        from scipy.linalg import expm as mine

        return mine(x)

    def helper(x):
        return inner(x)

    for function in (lambda x: sla.expm(x), lambda x: expm(x), lambda x: inner(x), local, sla.expm, expm,
                     lambda x: helper(x), lambda x: scipy.linalg.expm(A=x)):  # fmt: skip
        for _ in range(2):
            np.testing.assert_array_equal(jc.jacobian(function)(SPD), expected)
        untouched()
    assert inner is ORIGINALS["expm"]
    with pytest.raises(ZeroDivisionError):
        jc.jacobian(lambda x: expm(x) / (1 // 0))(SPD)
    untouched()


def test_another_module_is_told_what_to_do():
    module = types.ModuleType("somewhere_else")
    exec("from scipy.linalg import expm\ndef f(x):\n    return expm(x)", vars(module))
    with pytest.raises(RecordingError):
        jc.jacobian(lambda x: module.f(x))(SPD)
    close(jc.jacobian(module.f)(SPD), jc.jacobian(expm)(SPD), 1e-15)


def test_without_variables_scipy_is_what_it_was():
    seen = []
    unit = np.eye(2)

    def function(x):
        seen.append(scipy.linalg.expm(unit))
        seen.append(scipy.linalg.null_space(np.ones((1, 2))))
        return x * seen[0][0, 0]

    jc.jacobian(function)(SPD)
    assert type(seen[0]) is np.ndarray
    np.testing.assert_array_equal(seen[0], expm(np.eye(2)))


def test_other_threads_are_left_alone():
    inside, done, found = threading.Event(), threading.Event(), []

    def other():
        inside.wait(10)
        found.append(scipy.linalg.solve(SPD, np.ones(3)))
        done.set()

    thread = threading.Thread(target=other)
    thread.start()

    def function(x):
        inside.set()
        assert done.wait(10)
        return solve(x, np.ones(3))

    jc.jacobian(function)(SPD)
    thread.join()
    assert type(found[0]) is np.ndarray
    untouched()


def test_constants_that_were_made_inside():
    def function(x):
        a = np.zeros((2, 2))
        a[0, 0] = a[1, 1] = 2.0
        return x[:2] * scipy.linalg.inv(a)[0, 0] + scipy.linalg.null_space(np.ones((1, 2)))[0, 0]

    close(jc.jacobian(function)(np.ones(2)), 0.5 * np.eye(2), 1e-15)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: scipy.linalg.null_space(x), "scipy.linalg.null_space(.|\n)*projector"),
        (lambda x: scipy.linalg.orth(x), "projector"),
        (lambda x: scipy.linalg.eig(x, left=True), "left eigenvectors"),
        (lambda x: scipy.linalg.eigvals(x, np.eye(len(x))), "two matrices"),
        (lambda x: scipy.linalg.schur(x), "scipy.linalg.schur"),
        (lambda x: scipy.linalg.eigh(x, subset_by_index=[0, 1]), "slice"),
        (lambda x: scipy.linalg.eigh(x, driver="ev"), "signs"),
        (lambda x: scipy.linalg.eigh(x, x, type=2), "type"),
        (lambda x: scipy.linalg.qr(x, mode="raw"), "economic"),
        (lambda x: scipy.linalg.logm(x - 9 * np.eye(3)), "complex"),
        (lambda x: scipy.linalg.fractional_matrix_power(x, x[0, 0]), "logm"),
        (lambda x: scipy.linalg.lu(x[:2]), "square"),
    ],
)
def test_refusals(function, words):
    with pytest.raises(UnsupportedOperationError, match=words) as caught:
        jc.jacobian(function)(SPD)
    assert "test_scipy_linalg.py:" in str(caught.value)


def test_arguments_are_not_overwritten():
    def function(x):
        y = x * 1.0
        z = scipy.linalg.solve(y, y[:, 0] * 2, overwrite_a=True, overwrite_b=True)
        return z + y[0]

    for point in (SPD, SPD + np.eye(3)):
        value, jacobian = jc.value_and_jacobian(function)(point)
        close(value, np.array([2.0, 0.0, 0.0]) + point[0], 1e-13)
        assert np.isfinite(jacobian).all()


def test_signs_of_eigenvectors_are_scipys():
    derived = jc.value_and_jacobian(lambda x: scipy.linalg.eigh(x)[1])
    for point in (SPD, SPD[::-1, ::-1] * 0.9, SPD + np.diag([0.0, 3.0, 1.0])):
        value, _ = derived(point)
        np.testing.assert_allclose(value, scipy.linalg.eigh(point)[1], rtol=1e-12)


def test_pivots_are_guarded():
    derived = jc.value_and_jacobian(lambda x: scipy.linalg.lu_factor(x)[0])
    for point in (SPD, SPD[::-1].copy(), SPD[[1, 0, 2]]):
        value, _ = derived(point)
        close(value, scipy.linalg.lu_factor(point)[0], 1e-14)
    columns = jc.value_and_jacobian(lambda x: scipy.linalg.qr(x, mode="r", pivoting=True)[0])
    for point in (TALL, TALL[:, ::-1].copy()):
        close(columns(point)[0], scipy.linalg.qr(point, mode="r", pivoting=True)[0], 1e-14)


def test_symmetry_is_a_look():
    derivative = jc.jacobian(lambda x: x * 2 if scipy.linalg.issymmetric(x) else x * 3)
    other = SPD + np.triu(SPD)
    assert derivative(SPD)[0, 0, 0, 0] == 2
    assert derivative(other)[0, 0, 0, 0] == 3
    assert derivative(SPD)[0, 0, 0, 0] == 2


def test_vmap():
    batch = np.stack([SPD, 2 * SPD])
    for function in (lambda x: expm(0.1 * x), lambda x: np.linalg.eigh(x)[1], lambda x: np.linalg.pinv(x[:, :2]),
                     lambda x: np.linalg.lstsq(x[:, :2], x[:, 2])[0]):  # fmt: skip
        found = jc.vmap(jc.jacobian(function))(batch)
        for k in range(2):
            close(found[k], jc.jacobian(function)(batch[k]), 1e-12)


@pytest.mark.parametrize("matrix", [[[0.3, 2.0], [-1.5, 0.4]], [[0.3, 2.0], [1.5, 0.4]]], ids=["complex", "real"])
def test_eigenvalues_are_complex_always(matrix):
    a = np.array(matrix)
    values, left, right = scipy.linalg.eig(a, left=True)
    slopes = np.einsum("ik,jk->kij", left.conj(), right) / np.einsum("ik,ik->k", left.conj(), right)[:, None, None]
    for function in (
        scipy.linalg.eigvals,
        lambda a: scipy.linalg.eig(a, right=False),
        lambda a: scipy.linalg.eig(a)[0],
    ):
        found, jacobian = jc.value_and_jacobian(function)(a)
        assert found.dtype == np.complex128
        np.testing.assert_allclose(found, values, rtol=1e-14)
        np.testing.assert_allclose(jacobian, slopes, rtol=1e-12)

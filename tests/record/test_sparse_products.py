"""Products with scipy.sparse matrices."""

import numpy as np
import pytest
import scipy.sparse as sp
from record_helpers import check

import jacana as jc
from jacana.errors import UnsupportedOperationError
from jacana.record import Variable, record

A = sp.csr_array(np.array([[0.0, 1.5, 0.0], [2.0, 0.0, -1.0], [0.0, 0.0, 0.0], [0.25, 0.5, 3.0]]))
X = np.array([0.5, 1.5, 2.5])


@pytest.mark.parametrize("kind", ["csr", "csc", "coo"])
@pytest.mark.parametrize("make", [sp.csr_array, sp.csr_matrix])
def test_both_sides(kind, make):
    matrix = make(A).asformat(kind)
    check(lambda x: matrix @ x, X)
    check(lambda x: matrix @ np.outer(x, x[:2]), X)
    check(lambda x: np.sin(x) @ matrix.T, X, exact=False)
    if kind != "coo":  # whose dot has a way of its own, which is refused
        check(lambda x: matrix.dot(x), X)
    check(lambda x: np.outer(x[:2], x) @ matrix.T, X, exact=False)
    check(lambda x: matrix @ np.ones(3) * x[0], X)


def test_structure_is_that_of_the_matrix():
    J = jc.jacobian(lambda x: A @ x, format="csr")(X)
    np.testing.assert_array_equal(J.toarray(), A.toarray())
    assert J.nnz == A.nnz


def test_changes_are_seen():
    matrix = A.copy()
    r = record(lambda x: matrix @ x, [X])
    assert r.watches.unchanged()
    matrix.indices[0] = (matrix.indices[0] + 1) % 3
    assert not r.watches.unchanged()
    r = record(lambda x: matrix @ x, [X])
    matrix.data = matrix.data * 2
    assert not r.watches.unchanged()
    f = jc.jacobian(lambda x: matrix @ x)
    f(X)
    matrix.data[:] = 7.0
    np.testing.assert_array_equal(f(X), matrix.toarray())


@pytest.mark.parametrize("kind", ["lil", "dok", "dia", "bsr"])
def test_other_formats(kind):
    matrix = A.asformat(kind)
    derivative = jc.jacobian(lambda x: matrix @ x, format="csr")
    np.testing.assert_array_equal(derivative(X).toarray(), A.toarray())
    if kind in ("lil", "dok"):
        matrix[1, 0] = 7.0
    else:
        matrix.data *= 2.0
    np.testing.assert_array_equal(derivative(X).toarray(), matrix.toarray())


def test_products_of_matrices_are_written_with_a_star():
    matrix = sp.csc_matrix(A)
    np.testing.assert_array_equal(jc.jacobian(lambda x: matrix * x)(X), A.toarray())


@pytest.mark.parametrize(
    "call",
    [
        lambda x: A * x[0],
        lambda x: A.multiply(x),
        lambda x: sp.csr_array((x, (np.arange(3), np.arange(3)))) @ np.ones(3),
        lambda x: sp.diags_array(x) @ x,
        lambda x: sp.linalg.spsolve(np.outer(x, x), x),
        lambda x: sp.linalg.cg(sp.csc_array(np.eye(3)), x)[0],
    ],
)
def test_recorded_entries_and_solvers_are_refused_by_name(call):
    with pytest.raises(UnsupportedOperationError, match=r"scipy\.sparse|sparse matrix of recorded numbers"):
        jc.jacobian(call)(X)


def test_questions_about_matrices_are_answered():
    def f(x):
        return x * (2.0 if sp.issparse(x) else 3.0) if sp.issparse(A) else x

    np.testing.assert_array_equal(jc.jacobian(f)(X), 3.0 * np.eye(3))


def test_define_by_run():
    x = Variable(X)
    np.testing.assert_array_equal((A @ x).jacobian(x), A.toarray())


@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_right_hand_sides_of_a_sparse_system(executor):
    matrix = sp.csr_array(np.array([[4.0, 1.0, 0.0], [0.0, 3.0, 1.0], [1.0, 0.0, 5.0]]))
    inverse = np.linalg.inv(matrix.toarray())
    with jc.executor(executor):
        one, squares = (jc.jacobian(f) for f in (lambda x: sp.linalg.spsolve(matrix, x), lambda x: _two(matrix, x)))
        for x in (X, X[::-1].copy()):
            np.testing.assert_allclose(one(x), inverse, rtol=1e-13)
            np.testing.assert_allclose(one(x.astype(np.float32)), inverse, rtol=1e-5)
            columns = np.stack([2 * np.diag(x), np.eye(3)], axis=1)  # of x**2 and of x, by x
            np.testing.assert_allclose(squares(x), np.einsum("ij,jkl->ikl", inverse, columns), rtol=1e-13)
        hessian = jc.hessian(lambda x: np.sum(sp.linalg.spsolve(matrix, x**2)))(X)
        np.testing.assert_allclose(hessian, 2 * np.diag(inverse.sum(axis=0)), rtol=1e-13)
        matrix.data *= 2.0  # seen by the next call
        np.testing.assert_allclose(one(X), inverse / 2, rtol=1e-13)


def _two(matrix, x):
    return sp.linalg.spsolve(matrix, np.stack([x**2, x], axis=1))

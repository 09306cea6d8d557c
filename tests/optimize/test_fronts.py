"""Sparse Cholesky factorisation by fronts: machine code and LAPACK against a dense solver."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from scipy import sparse

import jacana as jc
from jacana.optimize.linear.multifrontal import Multifrontal, plan_multifrontal
from jacana.optimize.linear.normal import SolveFailed

EXECUTORS = ["numpy", pytest.param("native", marks=pytest.mark.skipif(not jc.native_available(), reason="no llvmlite"))]


def blocks(pairs: np.ndarray, width: int, rows: int, n: int, seed: int = 0) -> sparse.csr_array:
    """A Jacobian with `rows` residuals for each pair of blocks of `width` columns."""
    rng = np.random.default_rng(seed)
    count = len(pairs)
    row = np.repeat(np.arange(count * rows), 2 * width)
    columns = (width * np.sort(pairs, axis=1)[:, :, None] + np.arange(width)).reshape(count, 1, 2 * width)
    column = np.broadcast_to(columns, (count, rows, 2 * width)).ravel()
    return sparse.csr_array((rng.standard_normal(row.size), (row, column)), shape=(count * rows, n))


def grid(a: int, b: int) -> np.ndarray:
    """The edges of a grid of a x b places."""
    place = np.arange(a * b).reshape(a, b)
    along, across = np.stack((place[:, :-1], place[:, 1:])), np.stack((place[:-1], place[1:]))
    return np.concatenate((along.reshape(2, -1), across.reshape(2, -1)), axis=1).T


def chain(n: int) -> np.ndarray:
    return np.stack((np.arange(n - 1), np.arange(1, n)), axis=1)


PATTERNS = {
    "grid of poses": lambda: blocks(grid(7, 9), 6, 6, 378),
    "grid of points": lambda: blocks(grid(19, 23), 1, 2, 437),
    "chain": lambda: blocks(chain(200), 3, 3, 600),
    "two graphs and lonely columns": lambda: blocks(np.concatenate((chain(30), 40 + chain(25))), 2, 3, 140),
    "everything at once": lambda: sparse.csr_array(np.random.default_rng(1).standard_normal((240, 170))),
    "random": lambda: sparse.random_array((300, 211), density=0.02, rng=np.random.default_rng(2), format="csr"),
    "one column": lambda: sparse.csr_array(np.array([[2.0], [0.0], [1.0]])),
    "wide row": lambda: sparse.csr_array(
        sparse.vstack((sparse.random_array((90, 100), density=0.02, rng=np.random.default_rng(3)), np.ones((1, 100))))
    ),
}


def planned(name: str) -> tuple[sparse.csr_array, Multifrontal]:
    jacobian = PATTERNS[name]()
    jacobian.sort_indices()
    return jacobian, plan_multifrontal(jacobian)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("name", PATTERNS)
def test_solutions_are_those_of_a_dense_solver(name: str, executor: str) -> None:
    jacobian, plan = planned(name)
    rng = np.random.default_rng(4)
    n = jacobian.shape[1]
    diagonal, right = rng.uniform(0.5, 2.0, n), rng.standard_normal((2, n))
    matrix = jacobian.toarray().T @ jacobian.toarray() + np.diag(diagonal)
    with jc.executor(executor):
        solve = plan.factorised(plan.assembled(jacobian), diagonal)
        for vector in right:
            before = vector.copy()
            np.testing.assert_allclose(solve(vector), np.linalg.solve(matrix, vector), rtol=1e-10, atol=1e-12)
            assert np.array_equal(vector, before)


@pytest.mark.parametrize("executor", EXECUTORS)
def test_units_of_columns_make_no_difference(executor: str) -> None:
    jacobian, plan = planned("grid of poses")
    n = jacobian.shape[1]
    units = 10.0 ** np.random.default_rng(5).integers(-8, 9, n)
    scaled = sparse.csr_array(jacobian * units)
    with jc.executor(executor):
        plain = plan.factorised(plan.assembled(jacobian), np.ones(n))(np.ones(n))
        other = plan.factorised(plan.assembled(scaled), units**2)(units)
    np.testing.assert_allclose(other * units, plain, rtol=1e-9)


@pytest.mark.parametrize("executor", EXECUTORS)
@pytest.mark.parametrize("bad", [-1e6, np.nan])
@pytest.mark.parametrize("column", [0, 101, 377])
def test_what_is_not_positive_definite_is_refused(executor: str, bad: float, column: int) -> None:
    jacobian, plan = planned("grid of poses")
    diagonal = np.ones(jacobian.shape[1])
    diagonal[column] = bad
    solution = None
    with jc.executor(executor):
        try:
            solution = plan.factorised(plan.assembled(jacobian), diagonal)(np.ones(diagonal.size))
        except SolveFailed:
            return
    assert np.isnan(bad)  # LAPACK hands that on
    assert not np.isfinite(solution).all()


@pytest.mark.parametrize("executor", EXECUTORS)
def test_factors_can_be_used_by_several_threads(executor: str) -> None:
    jacobian, plan = planned("grid of poses")
    n = jacobian.shape[1]
    matrix = jacobian.toarray().T @ jacobian.toarray()

    def residual(seed: int) -> float:
        diagonal, right = np.random.default_rng(seed).uniform(1.0, 2.0, (2, n))
        with jc.executor(executor):
            solve = plan.factorised(plan.assembled(jacobian), diagonal)
        return max(float(np.abs((matrix + np.diag(diagonal)) @ solve(right) - right).max()) for _ in range(5))

    with ThreadPoolExecutor(4) as pool:
        assert max(pool.map(residual, range(16))) < 1e-10

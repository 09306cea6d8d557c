"""Jacobians against differences: right ones pass at awkward points, wrong ones fail and the entry is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import sparse

import jacana as jc
from jacana.report.check import _coloured, compare

Function = Callable[[Any], Any]


def narrow(x: Any) -> Any:
    return np.exp(-(((x - 451.54) / 4.0888) ** 2))


def stencil(x: Any) -> Any:
    return x[1:-1] ** 2 * x[2:] + x[:-2]


WELL_BEHAVED = {
    "sine": (np.sin, np.array([0.0, 1.0, -2.0])),
    "narrow feature": (narrow, np.linspace(430.0, 470.0, 5)),
    "fast oscillation": (np.sin, np.array([1e8, 1e6])),
    "kink": (np.abs, np.array([0.0, 1e-9, -1.0])),
    "tie": (lambda x: np.maximum(x, 1.0), np.array([1.0, 2.0, 0.0])),
    "edge of the domain": (np.log, np.array([1e-9, 1e-3, 1.0])),
    "tiny numbers": (lambda x: 1e-17 * x * x, np.array([1e-17, 3e-17, -1e-17])),
    "huge numbers": (lambda x: 1e200 * x**2, np.array([1e50, 2.0])),
    "no numbers of its own": (lambda x: 3.0 * x + 5.0, np.zeros(3)),
    "scalars": (lambda x: np.sum(x**2), np.float64(3.0)),
    "matrices": (lambda x: x.T @ x, np.arange(1.0, 7.0).reshape(2, 3)),
    "single precision": (np.tanh, np.array([0.1, 1.0, 3.0], dtype=np.float32)),
    "variables of every size": (lambda x: np.array([x[0] * x[1], x[2] + x[1]]), np.array([1e-12, 1e12, 1e-3])),
}


@pytest.mark.parametrize("format", ["dense", "csr"])
@pytest.mark.parametrize("name", WELL_BEHAVED)
def test_right_jacobians_pass(name: str, format: Any) -> None:
    function, x = WELL_BEHAVED[name]
    found = compare(function, x, format=format)
    assert found.ok
    assert found.wrong == 0
    assert found.worst is not None
    assert found.x_shape == np.shape(x)


def scaled_entry(function: Function, row: tuple[int, ...], column: tuple[int, ...], factor: float) -> Function:
    def wrong(x: Any) -> Any:
        J = np.array(jc.jacobian(function)(x))
        J[row + column] *= factor
        return J

    return wrong


@pytest.mark.parametrize("factor", [0.0, 1.0 + 1e-4, -1.0, np.inf, np.nan])
@pytest.mark.parametrize("name", ["sine", "narrow feature", "edge of the domain", "tiny numbers", "huge numbers"])
def test_one_wrong_entry_is_found_and_named(name: str, factor: float) -> None:
    function, x = WELL_BEHAVED[name]
    x = x[x != 0.0]
    last = (len(x) - 1,)
    found = compare(function, x, jacobian_of=scaled_entry(function, last, last, factor))
    assert not found.ok
    assert found.wrong == 1
    assert found.worst is not None
    assert (found.worst.row, found.worst.column) == (last, last)
    assert found.worst.difference == pytest.approx(jc.jacobian(function)(x)[last + last], rel=1e-5)


def test_rows_and_columns_are_named_in_the_shapes_of_y_and_x() -> None:
    x = np.arange(1.0, 7.0).reshape(2, 3)
    found = compare(lambda x: x.T @ x, x, jacobian_of=scaled_entry(lambda x: x.T @ x, (2, 1), (0, 2), 2.0))
    assert found.worst is not None
    assert (found.worst.row, found.worst.column) == ((2, 1), (0, 2))
    assert (found.worst.jacobian, round(found.worst.difference, 6)) == (4.0, 2.0)


def test_a_dependence_that_does_not_exist_is_wrong() -> None:
    found = compare(lambda x: x[:1] * 1.0, np.array([1.0, 2.0]), jacobian_of=lambda x: np.array([[1.0, 1e-3]]))
    assert found.wrong == 1


@pytest.mark.parametrize("stored", [True, False])
def test_a_missing_sparse_entry_is_found_by_bisection(stored: bool) -> None:
    x = np.random.default_rng(3).normal(size=1000)

    def wrong(x: Any) -> Any:
        J = jc.jacobian(stencil, format="csr")(x).copy()
        J.data = J.data.copy()
        J[500, 501] = 0.0
        if not stored:
            J.indices, J.indptr = J.indices.copy(), J.indptr.copy()
            J.eliminate_zeros()
        return J

    found = compare(stencil, x, jacobian_of=wrong)
    assert found.directions == 3
    assert found.wrong == 1
    assert found.worst is not None
    assert (found.worst.row, found.worst.column, found.worst.jacobian) == ((500,), (501,), 0.0)
    assert found.worst.difference == pytest.approx(2.0 * x[501] * x[502], rel=1e-5)


def test_columns_of_one_colour_share_no_row() -> None:
    rng = np.random.default_rng(8)
    matrix = sparse.csr_array((rng.random((40, 300)) < 0.5).astype(float))  # more colours than bits in a word
    groups = _coloured(matrix)
    assert len(groups) > 64
    assert np.array_equal(np.sort(np.concatenate(groups)), np.arange(300))
    pattern = matrix.toarray() != 0.0
    assert all(pattern[:, group].sum(axis=1).max() <= 1 for group in groups)


def test_what_differences_cannot_tell_is_not_called_wrong() -> None:
    found = compare(np.sqrt, np.array([0.0, 1.0]))  # infinite at the edge of the domain
    assert found.ok
    assert found.unresolved == 1
    nothing = compare(lambda x: x * np.nan, np.array([1.0, 2.0]))
    assert not nothing.ok
    assert (nothing.wrong, nothing.unresolved) == (0, 4)


def test_sample_takes_directions_from_end_to_end() -> None:
    seen = []

    def spy(x: Any) -> Any:
        if isinstance(x, np.ndarray):
            seen.append(x)
        return 2.0 * x

    found = compare(spy, np.ones(9), sample=3)
    assert found.directions == 3
    moved = {int(k) for x in seen for k in np.flatnonzero(x != 1.0)}
    assert moved == {0, 4, 8}


def test_nothing_to_compare() -> None:
    assert compare(lambda x: x[:0], np.ones(3)).worst is None
    empty = compare(lambda x: np.ones(3) + np.sum(x), np.ones(0))
    assert empty.ok
    assert empty.worst is None


def test_function_that_writes_into_its_argument_does_no_harm() -> None:
    def writes(x: Any) -> Any:
        x = x * 1.0 if not isinstance(x, np.ndarray) else x
        x[0] = 0.0
        return x * x

    x = np.array([1.0, 2.0])
    assert compare(writes, x).ok
    assert x.tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("function", "x", "options", "message"),
    [
        (np.sin, np.arange(3), {}, "only floats have a derivative"),
        (np.sin, np.array([np.inf]), {}, "x must be finite"),
        (lambda x: None, np.ones(2), {}, "not None"),
        (lambda x: (x, x), np.ones(2), {}, "not something of type tuple"),
        (lambda x: np.ones(2, dtype=complex), np.ones(2), {}, "not an array of dtype complex128"),
        (lambda x: x[x > 1.0], np.array([1.0, 2.0]), {}, "shape (1,) at x and shape (2,) nearby"),
        (np.sin, np.ones(2), {"tolerance": 0.0}, "tolerance must be between 0 and 1"),
        (np.sin, np.ones(2), {"sample": 0}, "at least one direction"),
        (np.sin, np.ones(2), {"jacobian_of": lambda x: np.ones(2)}, "has shape (2, 2), not (2,)"),
        (np.sin, np.ones(2), {"jacobian_of": lambda x: sparse.csr_array(np.ones((2, 3)))}, "not (2, 3)"),
    ],
)
def test_what_cannot_be_compared_is_refused(function: Function, x: Any, options: Any, message: str) -> None:
    with pytest.raises(jc.InvalidInputError) as refused:
        compare(function, x, **options)
    assert message in str(refused.value)

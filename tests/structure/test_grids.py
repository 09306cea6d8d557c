"""Stencils on grids: the common rows of all terms as one box, sides and corners apart, and the same matrix."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc
from jacana.graph.index import Affine, identity
from jacana.graph.node import Term
from jacana.run import native_available
from jacana.structure import merging


def brusselator(u):
    a, b = u[..., 0], u[..., 1]
    return np.stack([1.0 + a * a * b - 4.4 * a + laplace(a), 3.4 * a - a * a * b + laplace(b)], axis=-1)


def laplace(v):
    return np.roll(v, 1, 0) + np.roll(v, -1, 0) + np.roll(v, 1, 1) + np.roll(v, -1, 1) - 4.0 * v


def mirrored(u):
    p = np.pad(u, ((1, 1), (1, 1), (0, 0)), mode="edge")
    return p[2:, 1:-1] * p[:-2, 1:-1] + np.sin(p[1:-1, 2:]) * p[1:-1, :-2] - 4.0 * u


def inner_points(u):
    v = u[..., 0]
    return np.sin(v[1:-1, 1:-1]) * (v[2:, 2:] - v[:-2, 1:-1]) + v[1:-1, 2:] * v[1:-1, :-2]


def two_steps(u):
    return laplace(laplace(u[..., 0] ** 2))


def cube(u):
    v = u.reshape(19, 17, -1)
    return sum(np.roll(v, s, k) for k in range(3) for s in (-1, 1)) * v[::-1]


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch):
    monkeypatch.setattr(merging, "BOX", 200)


@pytest.mark.parametrize("program", [brusselator, mirrored, inner_points, two_steps, cube])
@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_the_matrix_is_the_dense_one(program, executor):
    if executor == "native" and not native_available():
        pytest.skip("llvmlite is not installed")
    u = np.random.default_rng(1).random((19, 34, 2) if program is not cube else (19, 17, 18))
    with jc.executor(executor):
        dense = jc.jacobian(program)(u).reshape(program(u).size, u.size)
        for format in ("csr", "csc", "coo"):
            J = jc.jacobian(program, format=format)(u)
            np.testing.assert_allclose(J.toarray(), dense, rtol=1e-13, atol=1e-13)
            assert J.nnz >= np.count_nonzero(dense)


def test_terms_are_cut_to_a_box_and_its_sides():
    i, j = identity(2)
    shape = (40, 50)
    here = Term(shape, (i, j), (i, j))
    left = Term((40, 49), (i, Affine(1, ((1, 1),))), (i, j))
    above = Term((39, 50), (Affine(1, ((0, 1),)), j), (i, j))
    found = merging.share_rows([here, left, above], shape)
    boxes = [t for t in found if t.domain == (39, 49)]
    assert len(boxes) == 3
    assert all(t.row == (Affine(1, ((0, 1),)), Affine(1, ((1, 1),))) for t in boxes)
    # Row 0 has two terms, column 0 has two, their corner one.
    assert sorted(t.domain for t in found if t not in boxes) == [(), (39,), (39,), (49,), (49,)]


def test_terms_over_different_rows_stay_as_they_are():
    i, j = identity(2)
    shape = (60, 60)
    upper = Term((20, 60), (i, j), (i, j))
    lower = Term((20, 60), (Affine(40, ((0, 1),)), j), (i, j))
    assert set(merging.share_rows([upper, lower], shape)) == {upper, lower}


def test_strided_and_repeated_rows_stay_as_they_are():
    i, j = identity(2)
    even = Term((30, 60), (Affine(0, ((0, 2),)), j), (i, j))
    slanted = Term((30, 60), (Affine(0, ((0, 1), (1, 1))), j), (i, j))
    assert set(merging.share_rows([even, slanted], (100, 60))) == {even, slanted}

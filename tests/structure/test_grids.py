"""Stencils on grids: the common rows of all terms as one box, sides and corners apart, and the same matrix."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc
from jacana.graph.index import Affine, evaluate, identity
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
    v = u.reshape(9, 7, -1)
    return sum(np.roll(v, s, k) for k in range(3) for s in (-1, 1)) * v[::-1]


def flat_rows(u):
    return brusselator(u).reshape(-1)


def flat_species(u):
    return np.concatenate([mirrored(u)[..., k].ravel() for k in (1, 0)])


def flat_reversed(u):
    return laplace(u[..., 1] ** 2)[::-1, ::-1].reshape(-1) * u[..., 0].ravel()


def flat_wrapped(u):
    v = u.reshape(-1)  # the end of a row of the grid and the start of the next one are neighbours here
    return np.roll(v, 3) * v + laplace(u).ravel()


@pytest.fixture(autouse=True)
def small_boxes(monkeypatch):
    monkeypatch.setattr(merging, "BOX", 200)


@pytest.mark.parametrize(
    "program",
    [brusselator, mirrored, inner_points, two_steps, cube, flat_rows, flat_species, flat_reversed, flat_wrapped],
)
@pytest.mark.parametrize("executor", ["numpy", "native"])
def test_the_matrix_is_the_dense_one(program, executor):
    if executor == "native" and not native_available():
        pytest.skip("llvmlite is not installed")
    u = np.random.default_rng(1).random((11, 18, 2) if program is not cube else (9, 7, 8))
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


def test_rows_of_a_flattened_grid_are_cut_to_a_box():
    i, j = identity(2)
    here = Term((40, 50), (Affine(1, ((0, 100), (1, 2))),), (i, j))
    left = Term((40, 49), (Affine(3, ((0, 100), (1, 2))),), (i, j))
    above = Term((39, 50), (Affine(101, ((0, 100), (1, 2))),), (i, j))
    found = merging.share_rows([here, left, above], (4000,))
    boxes = [t for t in found if t.domain == (39, 49)]
    assert [t.row for t in boxes] == [(Affine(103, ((0, 100), (1, 2))),)] * 3
    assert sorted(t.domain for t in found if t not in boxes) == [(), (39,), (39,), (49,), (49,)]


def test_rows_that_carry_into_the_next_digit_stay_as_they_are():
    i, j = identity(2)
    here = Term((40, 50), (Affine(0, ((0, 50), (1, 1))),), (i, j))
    shifted = Term((39, 50), (Affine(7, ((0, 50), (1, 1))),), (i, j))  # its rows begin at the eighth place of each line
    uneven = Term((30, 50), (Affine(0, ((0, 60), (1, 1))),), (i, j))  # in lines of another length
    backwards = Term((40, 50), (Affine(1999, ((0, -50), (1, -1))),), (i, j))
    for other in (uneven, backwards):
        assert set(merging.share_rows([here, other], (2000,))) == {here, other}
    parts = merging.share_rows([here, shifted], (2000,))
    rows = [r for t in parts for r in np.broadcast_to(evaluate(t.row[0], t.domain), t.domain).ravel().tolist()]
    assert sorted(rows) == sorted([*range(2000), *range(7, 1957)])

"""Patterns of more entries than NumPy takes at once in its buffers."""

import numpy as np
import pytest

import jacana as jc
from jacana.datasets.posegraph import turn
from jacana.graph.index import unraveled

RNG = np.random.default_rng(3)
EDGES, POSES = 3000, 2000
FIRST, SECOND = RNG.integers(0, POSES, EDGES), RNG.integers(0, POSES, EDGES)
UNDO = RNG.standard_normal((EDGES, 4))


def chained(x):
    poses = x.reshape(POSES, 6)
    a, b = poses[FIRST], poses[SECOND]
    moved = b[:, :3] - a[:, :3]
    return turn(UNDO, moved + np.cross(a[:, 3:], np.cross(a[:, 3:], moved) + moved))


@pytest.mark.parametrize("order", ["auto", "cost", "forward", "reverse"])
def test_no_order_loses_an_entry(order):
    x, direction = RNG.standard_normal((2, POSES * 6))
    matrix = jc.jacobian(chained, format="csr", order=order)(x)
    expected = jc.jvp(chained)(x, direction)[1]
    np.testing.assert_allclose(matrix @ direction, expected.ravel(), rtol=1e-9, atol=1e-10)
    step = 1e-6 * direction
    differences = (chained(x + step) - chained(x - step)) / 2e-6
    np.testing.assert_allclose(matrix @ direction, differences.ravel(), rtol=1e-4, atol=1e-4)
    loops = int((FIRST == SECOND).sum())  # from a pose to itself: six columns instead of nine
    assert matrix.nnz == 27 * (EDGES - loops) + 18 * loops


@pytest.mark.parametrize("shape", [(9000, 1), (1, 9000), (9000,), (100, 90), (4500, 2, 1)])
def test_coordinates_of_positions(shape):
    positions = np.arange(9000)[::-1].reshape(shape)
    found = unraveled(positions, (30, 20, 15))
    again = np.ravel_multi_index([np.ravel(part) for part in found], (30, 20, 15))
    np.testing.assert_array_equal(again, positions.ravel())
    assert all(part.shape == shape for part in found)
    assert unraveled(np.zeros(3, np.int64), ()) == ()
    column = np.arange(9000)[:, None]
    np.testing.assert_array_equal(unraveled(column, (3000, 3))[0], column // 3)

"""Rotations of recorded values at the points where formulas change: no rotation, small ones, half turns."""

import numpy as np
import pytest
import scipy
from scipy.linalg import expm
from scipy.spatial.transform import Rotation

import jacana as jc

pytestmark = pytest.mark.skipif(scipy.__version__ < "1.17", reason="Rotation was compiled before SciPy 1.17")


def cross_matrix(v):
    return np.array([[0.0, -v[2], v[1]], [v[2], 0.0, -v[0]], [-v[1], v[0], 0.0]])


GENERATORS = np.stack([cross_matrix(e) for e in np.eye(3)])


def test_no_rotation():
    def f(v):
        return Rotation.from_rotvec(v).as_matrix()

    np.testing.assert_array_equal(jc.jacobian(f)(np.zeros(3)), np.moveaxis(GENERATORS, 0, -1))
    # exp(K) = 1 + K + K^2 / 2 + ...
    second = np.einsum("aij,bjk->ikab", GENERATORS, GENERATORS)
    second = (second + np.swapaxes(second, -1, -2)) / 2.0
    found = jc.jacobian(jc.jacobian(f))(np.zeros(3))
    np.testing.assert_allclose(found, second, atol=1e-15)


@pytest.mark.parametrize("size", [1e-9, 0.9e-3, 1.1e-3, 1.0, 3.0])
def test_matrix_of_a_vector_and_back(size):
    v = size * np.array([0.48, -0.6, 0.64])
    np.testing.assert_allclose(Rotation.from_rotvec(v).as_matrix(), expm(cross_matrix(v)), atol=1e-14)

    def there_and_back(v):
        return Rotation.from_matrix(Rotation.from_rotvec(v).as_matrix()).as_rotvec()

    value, jacobian = jc.value_and_jacobian(there_and_back)(v)
    np.testing.assert_allclose(value, v, rtol=1e-9)
    np.testing.assert_allclose(jacobian, np.eye(3), atol=1e-8)


def test_every_branch_of_a_matrix():
    for v in ([3.0, 0.1, 0.2], [0.1, 3.0, 0.2], [0.1, 0.2, 3.0], [0.1, 0.2, 0.3]):
        v = np.array(v)
        M = Rotation.from_rotvec(v).as_matrix()
        derivative = jc.jacobian(lambda M: Rotation.from_matrix(M).as_quat())
        steps = np.stack([(M @ (expm(1e-6 * K) - expm(-1e-6 * K))) / 2e-6 for K in GENERATORS], axis=-1)
        quats = [(Rotation.from_matrix(M @ expm(h * K)).as_quat(), h) for K in GENERATORS for h in (1e-6, -1e-6)]
        expected = np.stack([(quats[2 * k][0] - quats[2 * k + 1][0]) / 2e-6 for k in range(3)], axis=-1)
        found = np.einsum("qij,ijk->qk", derivative(M), steps)
        np.testing.assert_allclose(found, expected, atol=1e-8)


def test_what_there_is_not():
    with pytest.raises(jc.UnsupportedOperationError, match="gimbal lock"):
        jc.jacobian(lambda v: Rotation.from_rotvec(v).as_euler("xyz"))(np.array([0.0, np.pi / 2, 0.0]))
    with pytest.raises(jc.UnsupportedOperationError, match=r"Rotation\.mean"):
        jc.jacobian(lambda v: Rotation.from_rotvec(v).mean().as_quat())(np.ones((2, 3)))
    with pytest.raises(ValueError, match="determinant"):
        jc.jacobian(lambda M: Rotation.from_matrix(M).as_quat())(-np.eye(3))


def test_constant_rotations_are_scipys():
    def f(x):
        turn = Rotation.from_euler("z", 90, degrees=True)
        assert type(turn) is Rotation
        return (turn * turn).apply(x)

    np.testing.assert_allclose(jc.jacobian(f)(np.array([1.0, 2.0, 3.0])), np.diag([-1.0, -1.0, 1.0]), atol=1e-15)


def test_a_method_that_was_bound_before():
    turn = Rotation.from_rotvec([0.1, 0.2, 0.3])
    np.testing.assert_allclose(jc.jacobian(turn.apply)(np.ones(3)), turn.as_matrix(), rtol=1e-14)

"""Parameters that do not live in a flat space: rotations, poses, directions, positive numbers, shares of a whole.

Each is an array (or a stack of them) that a search moves along its manifold. The residual gets plain arrays.

    >>> import jacana as jc
    >>> fit = jc.least_squares(lambda p: p["u"] - np.array([0.6, 0.0, 0.8]), {"u": Sphere([1.0, 0.0, 0.0])})
    >>> fit.x["u"].round(12) + 0.0
    array([0.6, 0. , 0.8])

A manifold is three functions: the `frame`, a basis of its tangent space; `retract`, which follows the manifold along a
tangent vector; and a check that a start lies on it. Derivatives are taken in the frame, so a rotation has three
parameters, a direction two, and no constraint is ever added.

Source: P.-A. Absil, R. Mahony and R. Sepulchre, "Optimization Algorithms on Matrix Manifolds", 2008, sections 3.5 and
4.1.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import InvalidInputError

__all__ = ["SE3", "SO3", "Manifold", "Positive", "Simplex", "Sphere", "UnitQuaternion"]

Float64Array = NDArray[np.float64]

_ON = 1e-6  # how far a start may be off its manifold and still be put onto it


class Manifold(ABC):
    """A start on a manifold, to stand in x0 where an array would.

    Args:
        value: shape ``(*stack, *point)``; `point` is what the subclass says, `stack` is any shape.

    Raises:
        InvalidInputError: the shape does not fit, or the value is not on the manifold (to 1e-6; within that it is
            put onto it).
    """

    point_rank: int
    """Axes of one point: 1 for a vector, 2 for a matrix."""

    def __init__(self, value: ArrayLike) -> None:
        array = np.asarray(value, dtype=np.float64)
        kind = type(self).__name__
        if array.ndim < self.point_rank or not self.fits(array.shape[array.ndim - self.point_rank :]):
            raise InvalidInputError(f"{kind} takes {self.words}, not an array of shape {array.shape}")
        if not np.isfinite(array).all():
            raise InvalidInputError(f"{kind} takes finite numbers")
        self.value = self.projected(array)
        if np.abs(self.value - array).max(initial=0.0) > _ON * max(1.0, float(np.abs(array).max(initial=0.0))):
            raise InvalidInputError(f"{kind} takes {self.words}; the given array is not on that manifold")

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.value!r})"

    words: str
    """What a point is, for messages."""

    @staticmethod
    @abstractmethod
    def fits(shape: tuple[int, ...]) -> bool:
        """Whether one point may have this shape."""

    @staticmethod
    @abstractmethod
    def projected(value: Float64Array) -> Float64Array:
        """The nearest points of the manifold."""

    @staticmethod
    @abstractmethod
    def frame(value: Float64Array) -> Float64Array:
        """Bases of the tangent spaces, shape ``(*stack, *point, t)``: the derivative of `retract` at 0."""

    @staticmethod
    @abstractmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        """The points reached from `value` along tangents of shape ``(*stack, t)``."""


class SO3(Manifold):
    """Rotation matrices, shape (..., 3, 3). A step is a rotation vector (radians) applied on the right.

    >>> SO3.retract(np.eye(3), np.array([0.0, 0.0, np.pi / 2])).round(12) + 0.0
    array([[ 0., -1.,  0.],
           [ 1.,  0.,  0.],
           [ 0.,  0.,  1.]])
    """

    point_rank = 2
    words = "rotation matrices, shape (..., 3, 3)"

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        return shape == (3, 3)

    @staticmethod
    def projected(value: Float64Array) -> Float64Array:
        left, _, right = np.linalg.svd(value)
        sign = np.sign(np.linalg.det(left @ right))
        left = left * np.stack([np.ones_like(sign), np.ones_like(sign), sign], axis=-1)[..., None, :]
        return np.asarray(left @ right)

    @staticmethod
    def frame(value: Float64Array) -> Float64Array:
        return np.asarray(np.einsum("...ij,jkt->...ikt", value, _HATS))

    @staticmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        return np.asarray(value @ rotation_matrix(tangent))


class SE3(Manifold):
    """Poses as homogeneous matrices, shape (..., 4, 4). A step is a translation in the body's axes, then a rotation
    vector (radians).

    >>> SE3.retract(np.eye(4), np.array([1.0, 2.0, 3.0, 0.0, 0.0, 0.0]))[:3, 3]
    array([1., 2., 3.])
    """

    point_rank = 2
    words = "homogeneous matrices of rigid motions, shape (..., 4, 4)"

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        return shape == (4, 4)

    @staticmethod
    def projected(value: Float64Array) -> Float64Array:
        pose = value.copy()
        pose[..., :3, :3] = SO3.projected(value[..., :3, :3])
        pose[..., 3, :] = (0.0, 0.0, 0.0, 1.0)
        return pose

    @staticmethod
    def frame(value: Float64Array) -> Float64Array:
        frame = np.zeros((*value.shape, 6))
        frame[..., :3, 3, :3] = value[..., :3, :3]
        frame[..., :3, :3, 3:] = SO3.frame(value[..., :3, :3])
        return frame

    @staticmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        pose = value.copy()
        rotation = value[..., :3, :3]
        pose[..., :3, 3] += np.einsum("...ij,...j->...i", rotation, tangent[..., :3])
        pose[..., :3, :3] = rotation @ rotation_matrix(tangent[..., 3:])
        return pose


class UnitQuaternion(Manifold):
    """Unit quaternions (w, x, y, z), shape (..., 4). A step is a rotation vector (radians) applied on the right.

    >>> UnitQuaternion.retract(np.array([1.0, 0.0, 0.0, 0.0]), np.array([np.pi, 0.0, 0.0])).round(12)
    array([0., 1., 0., 0.])
    """

    point_rank = 1
    words = "unit quaternions (w, x, y, z), shape (..., 4)"

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        return shape == (4,)

    @staticmethod
    def projected(value: Float64Array) -> Float64Array:
        return _normalised(value)

    @staticmethod
    def frame(value: Float64Array) -> Float64Array:
        return np.asarray(0.5 * np.einsum("...j,jit->...it", value, _QUATERNION_UNITS[:, :, 1:]))

    @staticmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        angle = np.linalg.norm(tangent, axis=-1, keepdims=True)
        turn = np.concatenate((np.cos(0.5 * angle), 0.5 * np.sinc(angle / (2.0 * np.pi)) * tangent), axis=-1)
        return _normalised(np.einsum("...j,jit,...t->...i", value, _QUATERNION_UNITS, turn))


class Sphere(Manifold):
    """Unit vectors, shape (..., k) with k >= 2: directions with k - 1 parameters.

    >>> Sphere.retract(np.array([0.0, 0.0, 1.0]), np.array([np.pi / 2, 0.0])).round(12) + 0.0
    array([1., 0., 0.])
    """

    point_rank = 1
    words = "unit vectors, shape (..., k) with k of 2 or more"

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        return shape[0] >= 2

    @staticmethod
    def projected(value: Float64Array) -> Float64Array:
        return _normalised(value)

    @staticmethod
    def frame(value: Float64Array) -> Float64Array:
        # The reflection that takes the last axis to x (up to sign) takes the other axes to a basis of x's tangents.
        k = value.shape[-1]
        sign = np.where(value[..., -1:] >= 0.0, 1.0, -1.0)
        normal = value.copy()
        normal[..., -1:] += sign
        square = np.sum(normal * normal, axis=-1)[..., None, None]
        reflection = np.eye(k) - 2.0 / square * normal[..., :, None] * normal[..., None, :]
        return np.asarray(reflection[..., :, :-1])

    @staticmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        along = np.einsum("...it,...t->...i", Sphere.frame(value), tangent)
        angle = np.linalg.norm(tangent, axis=-1, keepdims=True)
        return _normalised(np.cos(angle) * value + np.sinc(angle / np.pi) * along)


class Positive(Manifold):
    """Numbers above 0, any shape. A step is a change of the logarithm, so 0 is never reached.

    >>> float(Positive.retract(np.array(2.0), np.array([np.log(3.0)])).round(12))
    6.0
    """

    point_rank = 0
    words = "numbers above 0"

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        return True

    @staticmethod
    def projected(value: Float64Array) -> Float64Array:
        return np.where(value > 0.0, value, math.inf)

    @staticmethod
    def frame(value: Float64Array) -> Float64Array:
        return value[..., None]

    @staticmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        return np.asarray(value * np.exp(tangent[..., 0]))


class Simplex(Manifold):
    """Positive numbers that sum to 1, shape (..., k): shares, probabilities; k - 1 parameters.

    A step is a change of the logarithms, after which the shares are made to sum to 1 again.

    >>> float(Simplex.retract(np.array([0.2, 0.3, 0.5]), np.array([1.0, -2.0])).sum().round(12))
    1.0
    """

    point_rank = 1
    words = "positive numbers that sum to 1, shape (..., k)"

    @staticmethod
    def fits(shape: tuple[int, ...]) -> bool:
        return shape[0] >= 2

    @staticmethod
    def projected(value: Float64Array) -> Float64Array:
        return np.asarray(np.where(value > 0.0, value, math.inf) / np.sum(np.abs(value), axis=-1, keepdims=True))

    @staticmethod
    def frame(value: Float64Array) -> Float64Array:
        basis = _contrasts(value.shape[-1])
        mean = np.einsum("...k,kt->...t", value, basis)
        return np.asarray(value[..., :, None] * (basis - mean[..., None, :]))

    @staticmethod
    def retract(value: Float64Array, tangent: Float64Array) -> Float64Array:
        change = tangent @ _contrasts(value.shape[-1]).T
        grown = value * np.exp(change - change.max(axis=-1, keepdims=True))
        return np.asarray(grown / grown.sum(axis=-1, keepdims=True))


def rotation_matrix(vector: Float64Array) -> Float64Array:
    """Return the matrices of rotation vectors (radians), shapes (..., 3) -> (..., 3, 3), by Rodrigues' formula."""
    angle = np.linalg.norm(vector, axis=-1)[..., None, None]
    hat = np.einsum("...t,jkt->...jk", vector, _HATS)
    half = np.sinc(angle / (2.0 * math.pi))
    return np.asarray(np.eye(3) + np.sinc(angle / math.pi) * hat + 0.5 * half * half * (hat @ hat))


def _normalised(value: Float64Array) -> Float64Array:
    return np.asarray(value / np.linalg.norm(value, axis=-1, keepdims=True))


def _contrasts(k: int) -> Float64Array:
    """An orthonormal basis of the vectors of k numbers that sum to 0, shape (k, k - 1) (Helmert's)."""
    basis = np.zeros((k, k - 1))
    for j in range(1, k):
        basis[:j, j - 1] = 1.0 / math.sqrt(j * (j + 1.0))
        basis[j, j - 1] = -j / math.sqrt(j * (j + 1.0))
    return basis


def _hats() -> Float64Array:
    """The matrices of the cross products with the three axes, the last index counting the axes."""
    hats = np.zeros((3, 3, 3))
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        hats[j, k, i], hats[k, j, i] = -1.0, 1.0
    return hats


def _quaternion_units() -> Float64Array:
    """``product[i] = a[j] * units[j, i, t] * b[t]`` for quaternions a and b."""
    units = np.zeros((4, 4, 4))
    units[0] = np.eye(4)
    for j in range(1, 4):
        units[j, j, 0], units[j, 0, j] = 1.0, -1.0
    for i, j, k in ((1, 2, 3), (2, 3, 1), (3, 1, 2)):
        units[i, k, j], units[j, k, i] = 1.0, -1.0
    return units


_HATS = _hats()
_QUATERNION_UNITS = _quaternion_units()

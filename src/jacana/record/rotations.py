"""``scipy.spatial.transform.Rotation`` of recorded values, as unit quaternions.

While something is recorded, the ways to make a Rotation give a ``RecordedRotation`` if what they are made of depends on
the arguments; its methods are those of SciPy's class, written in NumPy. Where SciPy chooses between formulas (small
angles, the largest component of a matrix) the choice is the same, and guarded. Formulas: K. Shoemake, "Animating
rotation with quaternion curves", 1985; E. Bernardes and S. Viollet, "Quaternion to Euler angles conversion", PLOS ONE
17, 2022.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .foreign import METHODS, Entry
from .indexing import plain_key
from .lift import any_tracked, plain_operand
from .location import unsupported
from .recording import current_recording
from .table import is_complex
from .variable import contains_variable, raw_deep

_CLASS = "scipy.spatial.transform.Rotation"
_REMEDY = (
    "Write the matrix in NumPy (scipy.linalg.expm of the cross-product matrix for a rotation vector; sines and cosines "
    "for angles), or let jacana.optimize move rotations: its manifolds SO3 and UnitQuaternion."
)  # fmt: skip


def _norm(v: Any) -> Any:
    return np.linalg.norm(v, axis=-1, keepdims=True)


class RecordedRotation:
    """A rotation, or a stack of them, that depends on the arguments: what ``Rotation`` gives for recorded values."""

    __array_ufunc__ = None

    def __init__(self, quat: Any) -> None:
        self._quat = quat

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def single(self) -> bool:
        return bool(np.ndim(raw_deep(self._quat)) == 1)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(np.shape(raw_deep(self._quat))[:-1])

    def __len__(self) -> int:
        if self.single:
            raise TypeError("Single rotation has no len().")
        return self.shape[0]

    def __getitem__(self, indexer: Any) -> RecordedRotation:
        if self.single:
            raise TypeError("Single rotation is not subscriptable.")
        return RecordedRotation(self._quat[indexer])

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise unsupported(f"{_CLASS}.{name} of recorded rotations", _REMEDY)

    def _parts(self) -> tuple[Any, Any]:
        return self._quat[..., :3], self._quat[..., 3:]

    # --- as numbers -----------------------------------------------------------------------------------------------

    def as_quat(self, canonical: bool = False, *, scalar_first: bool = False) -> Any:
        quat = self._quat * 1.0
        if canonical:
            first = np.where(quat[..., 2] != 0, quat[..., 2], 1.0)
            for k in (1, 0, 3):  # of the scalar and x, y, z, the first that is not zero is to be positive
                first = np.where(quat[..., k] != 0, quat[..., k], first)
            quat = np.where((first < 0)[..., None], -quat, quat)
        return np.roll(quat, 1, axis=-1) if scalar_first else quat

    def as_matrix(self) -> Any:
        x, y, z, w = (self._quat[..., k] for k in range(4))
        rows = [
            [x * x - y * y - z * z + w * w, 2.0 * (x * y - z * w), 2.0 * (x * z + y * w)],
            [2.0 * (x * y + z * w), -x * x + y * y - z * z + w * w, 2.0 * (y * z - x * w)],
            [2.0 * (x * z - y * w), 2.0 * (y * z + x * w), -x * x - y * y + z * z + w * w],
        ]
        return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)

    def as_rotvec(self, degrees: bool = False) -> Any:
        v, w = self._parts()
        turned = w < 0
        v, w = np.where(turned, -v, v), np.where(turned, -w, w)
        square = np.sum(v * v, axis=-1, keepdims=True)
        small = square <= 2.5e-7  # an angle of 1e-3
        length = np.sqrt(np.where(small, 1.0, square))
        scale = np.where(small, 2.0 + square / 3.0 + 3.0 * square * square / 20.0, 2.0 * np.arctan2(length, w) / length)
        return np.rad2deg(scale * v) if degrees else scale * v

    def as_mrp(self) -> Any:
        v, w = self._parts()
        sign = np.where(w < 0, -1.0, 1.0)
        return sign * v / (1.0 + sign * w)

    def as_euler(self, seq: str, degrees: bool = False, *, suppress_warnings: bool = False) -> Any:
        intrinsic = seq.isupper()
        i, j, k = ("xyz".index(c) for c in (seq.lower()[::-1] if intrinsic else seq.lower()))
        if len({i, j}) < 2 or len({j, k}) < 2:
            raise ValueError(f"Expected consecutive axes to be different, got {seq}")
        symmetric = i == k
        k = 3 - i - j if symmetric else k
        sign = (i - j) * (j - k) * (k - i) // 2
        q = [self._quat[..., n] for n in range(4)]
        a, b, c, d = (
            (q[3], q[i], q[j], q[k] * sign)
            if symmetric
            else (q[3] - q[j], q[i] + q[k] * sign, q[j] + q[3], q[k] * sign - q[i])
        )
        middle = 2.0 * np.arctan2(np.hypot(c, d), np.hypot(a, b))
        if bool(np.any((np.abs(middle) <= 1e-7) | (np.abs(middle - np.pi) <= 1e-7))):
            raise unsupported(f"{_CLASS}.as_euler at gimbal lock", "Two of the angles are not determined there.")
        half_sum, half_difference = np.arctan2(b, a), np.arctan2(d, c)
        first, third = half_sum - half_difference, half_sum + half_difference
        if not symmetric:
            third, middle = third * sign, middle - np.pi / 2
        angles = np.stack([third, middle, first] if intrinsic else [first, middle, third], axis=-1)
        angles = np.where(angles < -np.pi, angles + 2 * np.pi, np.where(angles > np.pi, angles - 2 * np.pi, angles))
        return np.rad2deg(angles) if degrees else angles

    def magnitude(self) -> Any:
        v, w = self._parts()
        return 2.0 * np.arctan2(_norm(v), np.abs(w))[..., 0]

    # --- with others ------------------------------------------------------------------------------------------------

    def inv(self) -> RecordedRotation:
        return RecordedRotation(self._quat * np.array([-1.0, -1.0, -1.0, 1.0]))

    def apply(self, vectors: Any, inverse: bool = False) -> Any:
        if is_complex(vectors):
            raise unsupported(f"{_CLASS}.apply to complex numbers")
        matrix = self.as_matrix()
        if inverse:
            matrix = np.swapaxes(matrix, -1, -2)
        return np.sum(matrix * plain_operand(vectors)[..., None, :], axis=-1)

    def __mul__(self, other: Any) -> RecordedRotation:
        if not _is_rotation(other):
            return NotImplemented
        return _product(self._quat, _quaternions(other))

    def __rmul__(self, other: Any) -> RecordedRotation:
        if not _is_rotation(other):
            return NotImplemented
        return _product(_quaternions(other), self._quat)

    def __pow__(self, n: Any, modulus: None = None) -> RecordedRotation:
        return from_rotvec(n * self.as_rotvec())


def _is_rotation(value: Any) -> bool:
    return isinstance(value, RecordedRotation) or type(value).__name__ == "Rotation"


def _quaternions(rotation: Any) -> Any:
    return rotation._quat if isinstance(rotation, RecordedRotation) else rotation.as_quat()


def _composed(p: Any, q: Any) -> Any:
    pv, pw, qv, qw = p[..., :3], p[..., 3:], q[..., :3], q[..., 3:]
    vector = pw * qv + qw * pv + np.cross(pv, qv)
    return np.concatenate([vector, pw * qw - np.sum(pv * qv, axis=-1, keepdims=True)], axis=-1)


def _product(p: Any, q: Any) -> RecordedRotation:
    found = _composed(p, q)
    return RecordedRotation(found / _norm(found))


# --- made of numbers --------------------------------------------------------------------------------------------------


def from_quat(quat: Any, *, scalar_first: bool = False) -> RecordedRotation:
    """Quaternions of any length but zero."""
    quat = np.roll(quat, -1, axis=-1) if scalar_first else quat
    return RecordedRotation(quat / _norm(quat))


def from_rotvec(rotvec: Any, degrees: bool = False) -> RecordedRotation:
    """Axes times angles; smooth at zero."""
    v = np.deg2rad(rotvec) if degrees else rotvec * 1.0
    square = np.sum(v * v, axis=-1, keepdims=True)
    small = square <= 1e-6
    angle = np.sqrt(np.where(small, 1.0, square))
    scale = np.where(small, 0.5 - square / 48.0 + square * square / 3840.0, np.sin(angle / 2.0) / angle)
    scalar = np.where(small, 1.0 - square / 8.0 + square * square / 384.0, np.cos(angle / 2.0))
    return RecordedRotation(np.concatenate([scale * v, scalar], axis=-1))


def from_mrp(mrp: Any) -> RecordedRotation:
    """Modified Rodrigues parameters."""
    square = np.sum(mrp * mrp, axis=-1, keepdims=True)
    return RecordedRotation(np.concatenate([2.0 * mrp, 1.0 - square], axis=-1) / (1.0 + square))


def _orthogonal(matrix: Any) -> Any:
    """The orthogonal polar factor by Newton's iteration (Higham, "Functions of Matrices", 2008, section 8.3).

    Each step doubles the order to which derivatives are right, so there are two more than the value needs.
    """
    steps = 0
    while steps < 50 and bool(np.any(np.abs(np.swapaxes(matrix, -1, -2) @ matrix - np.eye(3)) > 1e-9)):
        matrix, steps = (matrix + np.swapaxes(np.linalg.inv(matrix), -1, -2)) / 2.0, steps + 1
    for _ in range(2):
        matrix = (matrix + np.swapaxes(np.linalg.inv(matrix), -1, -2)) / 2.0
    return matrix


def from_matrix(matrix: Any, *, assume_valid: bool = False) -> RecordedRotation:
    """The rotation next to a matrix: its orthogonal polar factor. By the largest of trace and diagonal, guarded."""
    if not assume_valid:
        if bool(np.any(np.linalg.det(matrix) <= 0)):
            raise ValueError("Non-positive determinant (left-handed or null coordinate frame) in rotation matrix")
        matrix = _orthogonal(matrix)
    shape = np.shape(raw_deep(matrix))[:-2]
    stack = np.reshape(matrix, (-1, 3, 3))
    trace = stack[:, 0, 0] + stack[:, 1, 1] + stack[:, 2, 2]
    choices = np.stack([stack[:, 0, 0], stack[:, 1, 1], stack[:, 2, 2], trace], axis=-1)
    found = []
    for m, t, i in zip(stack, trace, np.asarray(plain_key(np.argmax(choices, axis=-1))), strict=True):
        if i == 3:
            parts = [m[2, 1] - m[1, 2], m[0, 2] - m[2, 0], m[1, 0] - m[0, 1], 1.0 + t]
        else:
            j, k = (i + 1) % 3, (i + 2) % 3
            parts = [0.0, 0.0, 0.0, m[k, j] - m[j, k]]
            parts[i], parts[j], parts[k] = 1.0 - t + 2.0 * m[i, i], m[j, i] + m[i, j], m[k, i] + m[i, k]
        found.append(np.stack(parts))
    quat = np.stack(found)
    return RecordedRotation(np.reshape(quat / _norm(quat), (*shape, 4)))


def from_euler(seq: str, angles: Any, degrees: bool = False) -> RecordedRotation:
    """Turns about one to three axes: of the body where they are written large, of space where small."""
    if not 1 <= len(seq) <= 3 or (set(seq) - set("xyz") and set(seq) - set("XYZ")):
        raise ValueError(f"Expected axes from `seq` to be from ['x', 'y', 'z'] or ['X', 'Y', 'Z'], got {seq}")
    angles = np.deg2rad(angles) if degrees else angles * 1.0
    if len(seq) == 1:
        shape = np.shape(raw_deep(angles))
        angles = angles if shape[-1:] == (1,) and len(shape) > 1 else angles[..., None]
    elif np.shape(raw_deep(angles))[-1:] != (len(seq),):
        raise ValueError("Expected last dimension of `angles` to match number of sequence axes specified")
    total: Any = None
    for k, axis in enumerate(seq.lower()):
        half = angles[..., k] / 2.0
        parts: list[Any] = [np.zeros(np.shape(raw_deep(half)))] * 3 + [np.cos(half)]
        parts["xyz".index(axis)] = np.sin(half)
        turn = np.stack(parts, axis=-1)
        total = turn if total is None else _composed(total, turn) if seq.isupper() else _composed(turn, total)
    return RecordedRotation(total)


def concatenate(rotations: Any) -> RecordedRotation:
    """Rotations one after another."""
    each = [_quaternions(r) for r in rotations]
    return RecordedRotation(np.concatenate([np.reshape(q, (-1, 4)) for q in each]))


_MADE_BY: dict[str, Callable[..., RecordedRotation]] = {
    "from_quat": from_quat, "from_rotvec": from_rotvec, "from_mrp": from_mrp, "from_matrix": from_matrix,
    "from_euler": from_euler,
}  # fmt: skip
_REFUSED = ("from_davenport", "align_vectors")


# --- in place of SciPy's ----------------------------------------------------------------------------------------


def _applied(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: Any, vectors: Any, inverse: bool = False) -> Any:
        if current_recording() is None or not contains_variable([vectors]):
            return original(self, vectors, inverse)
        points = plain_operand(vectors)
        if not any_tracked([points]):
            return original(self, raw_deep(points), inverse)
        return RecordedRotation(self.as_quat()).apply(points, inverse)

    return apply


def _multiplied(original: Callable[..., Any]) -> Callable[..., Any]:
    def multiply(self: Any, other: Any) -> Any:
        return NotImplemented if isinstance(other, RecordedRotation) else original(self, other)

    return multiply


def _joined(original: Callable[..., Any]) -> Callable[..., Any]:
    def join(rotations: Any) -> Any:
        items = list(rotations) if isinstance(rotations, (list, tuple)) else rotations
        if isinstance(items, list) and any(isinstance(r, RecordedRotation) for r in items):
            return concatenate(items)
        return original(rotations)

    return join


def _made(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    def make(*args: Any, **kwargs: Any) -> Any:
        if current_recording() is None or not contains_variable([*args, *kwargs.values()]):
            return original(*args, **kwargs)
        if not any_tracked([*args, *kwargs.values()]):
            return original(*raw_deep(args), **raw_deep(kwargs))
        if name in _REFUSED:
            raise unsupported(f"{_CLASS}.{name}", _REMEDY)
        if any(map(is_complex, (*args, *kwargs.values()))):
            raise unsupported(f"{_CLASS}.{name} of complex numbers")
        return _MADE_BY[name](*map(plain_operand, args), **{k: plain_operand(v) for k, v in kwargs.items()})

    return make


def rotation_methods() -> list[Entry]:
    """The methods to be replaced while something is recorded; none where SciPy's class is compiled (before 1.17)."""
    global _methods
    module = sys.modules.get("scipy.spatial.transform")
    if _methods is None and module is not None and hasattr(module, "Rotation"):
        cls = module.Rotation
        found: list[Entry] = []
        if not cls.__flags__ & (1 << 8):  # an immutable type
            own = vars(cls)
            for name in (*_MADE_BY, *_REFUSED):
                if isinstance(own.get(name), staticmethod):
                    found.append((cls, name, own[name], staticmethod(_made(name, own[name].__func__))))
            for name, wrap in (("apply", _applied), ("__mul__", _multiplied)):
                found.append((cls, name, own[name], wrap(own[name])))
            if isinstance(own.get("concatenate"), staticmethod):
                found.append(
                    (cls, "concatenate", own["concatenate"], staticmethod(_joined(own["concatenate"].__func__)))
                )
        _methods = found
    return _methods or []


_methods: list[Entry] | None = None
METHODS.append(rotation_methods)

__all__ = ["RecordedRotation"]

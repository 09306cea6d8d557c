"""``scipy.spatial.transform.Rotation``: a constant rotation of recorded vectors; recorded rotations are refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from .lift import any_tracked, plain_operand
from .location import unsupported
from .recording import current_recording
from .variable import contains_variable, raw_deep

_REMEDY = (
    "Write the matrix in NumPy (scipy.linalg.expm of the cross-product matrix for a rotation vector; sines and cosines "
    "for angles), or let jacana.optimize move rotations: its manifolds SO3 and UnitQuaternion."
)  # fmt: skip
_MADE_FROM = ("from_rotvec", "from_quat", "from_matrix", "from_euler", "from_davenport", "from_mrp", "align_vectors")
Entry = tuple[Any, str, Callable[..., Any], Callable[..., Any]]


def _applied(original: Callable[..., Any]) -> Callable[..., Any]:
    def apply(self: Any, vectors: Any, inverse: bool = False) -> Any:
        if current_recording() is None or not contains_variable([vectors]):
            return original(self, vectors, inverse)
        points = plain_operand(vectors)
        if not any_tracked([points]):
            return original(self, raw_deep(points), inverse)
        matrix = self.as_matrix()
        if inverse:
            matrix = np.swapaxes(matrix, -1, -2)
        if np.ndim(matrix) == 2:
            return points @ matrix.T
        return np.squeeze(matrix @ np.reshape(points, (*np.shape(raw_deep(points)), 1)), -1)

    return apply


def _refused(name: str, original: Any) -> Callable[..., Any]:
    def make(cls: Any, *args: Any, **kwargs: Any) -> Any:
        if current_recording() is not None and (any_tracked(args) or any_tracked(tuple(kwargs.values()))):
            raise unsupported(f"scipy.spatial.transform.Rotation.{name}", _REMEDY)
        return original.__func__(cls, *raw_deep(args), **raw_deep(kwargs))

    return classmethod(make)  # type: ignore[return-value]


def rotation_methods() -> list[Entry]:
    """The methods to be replaced while something is recorded; none where SciPy's class is compiled."""
    global _methods
    module = sys.modules.get("scipy.spatial.transform")
    if _methods is None and module is not None and hasattr(module, "Rotation"):
        own = vars(module.Rotation)
        found: list[Entry] = []
        if not module.Rotation.__flags__ & (1 << 8):  # an immutable type
            found = [
                (module.Rotation, n, own[n], _refused(n, own[n])) for n in _MADE_FROM if hasattr(own.get(n), "__func__")
            ]
            found.append((module.Rotation, "apply", own["apply"], _applied(own["apply"])))
        _methods = found
    return _methods or []


_methods: list[Entry] | None = None

__all__ = ["rotation_methods"]

"""Numbers and arrays that depend on no argument, as nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import InvalidInputError
from ..graph.build import constant
from ..graph.node import Array, Node, literal
from .capture import Captured, snapshot
from .location import recording_error
from .recording import current_recording


def check_dtype(array: Array) -> None:
    """Only real numbers, integers and booleans can take part."""
    if array.dtype.kind == "c":
        raise InvalidInputError(
            f"a real array is needed, got {array.dtype.name}; a Variable is real, and jc.Variable(z.real) + 1j * "
            "jc.Variable(z.imag) is a complex number of two"
        )
    if array.dtype.kind not in "fiub":
        raise InvalidInputError(f"an array of real numbers is needed, got dtype {array.dtype}")


def check_class(array: Array) -> None:
    """Refuse the subclasses of ndarray that compute differently."""
    if type(array) is not np.ndarray and isinstance(array, (np.ma.MaskedArray, np.matrix)):
        raise recording_error(
            f"{type(array).__name__} computes by rules of its own; pass a plain ndarray (np.asarray(a), or a.filled())."
        )


def constant_node(value: Any, structural: bool = False) -> Node:
    """The node of a number, an array or a list of numbers; ``structural``: one whose zeros are structure."""
    if not isinstance(value, np.ndarray):
        if type(value) in (bool, int, float) or isinstance(value, np.generic):
            array = np.asarray(value)
            check_dtype(array)
            return literal(value, array.dtype)
        value = np.asarray(value)
    check_class(value)
    check_dtype(value)
    recording = current_recording()
    if recording is not None:
        return recording.captures.node(value, structural)
    return constant(Captured(snapshot(value)), value.shape, value.dtype)

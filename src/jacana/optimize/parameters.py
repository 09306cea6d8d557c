"""Parameters as the user has them (an array or a structure of arrays) and as a solver wants them (one flat vector).

The way back, `Parameters.unravel`, uses slicing and reshaping only, so a recorded `jacana.Variable` goes through it as
well as an ndarray does, and the Jacobian with respect to the flat vector needs no chain rule of its own.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..errors import InvalidInputError

__all__ = ["FloatVector", "Parameters", "flatten_parameters"]

FloatVector = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Parameters:
    """The shape of a parameter structure: how to split a flat vector, and what to call its entries.

    Attributes:
        structure: optree's description of the containers.
        shapes: the shape of each leaf, in optree's order (dictionary keys sorted).
        label: what the argument is called in messages.
    """

    structure: Any
    shapes: tuple[tuple[int, ...], ...]
    label: str = "x0"

    def unravel(self, flat: Any) -> Any:
        """Return `flat`, shape (n,), as the user's structure. `flat` may be an ndarray or a recorded Variable.

        >>> parameters, flat = flatten_parameters({"rate": 2.0, "knots": np.zeros((2, 2))})
        >>> flat, parameters.unravel(flat)["knots"].shape
        (array([0., 0., 0., 0., 2.]), (2, 2))
        """
        if self.structure.is_leaf():
            return _shaped(flat, self.shapes[0])
        leaves, start = [], 0
        for shape in self.shapes:
            stop = start + math.prod(shape)
            leaves.append(_shaped(flat[start:stop], shape))
            start = stop
        return trees.unflatten(self.structure, leaves)

    def name(self, position: int, label: str | None = None) -> str:
        """Return what the user would write for entry `position` of the flat vector.

        >>> flatten_parameters({"rate": 2.0, "knots": np.zeros((2, 2))})[0].name(2)
        "x0['knots'][1, 0]"
        """
        root = label if label is not None else self.label
        for accessor, shape in zip(self.structure.accessors(), self.shapes, strict=True):
            size = math.prod(shape)
            if position < size:
                index = ", ".join(str(int(k)) for k in np.unravel_index(position, shape))
                return str(accessor.codify(root)) + (f"[{index}]" if shape else "")
            position -= size
        raise IndexError("position beyond the last parameter")

    def names(self, label: str | None = None) -> tuple[str, ...]:
        """Return the names of all entries in flat order."""
        root = label if label is not None else self.label
        names = []
        for accessor, shape in zip(self.structure.accessors(), self.shapes, strict=True):
            leaf = str(accessor.codify(root))
            if not shape:
                names.append(leaf)
                continue
            for index in np.ndindex(*shape):
                names.append(f"{leaf}[{', '.join(map(str, index))}]")
        return tuple(names)


def flatten_parameters(value: Any, label: str = "x0") -> tuple[Parameters, FloatVector]:
    """Return the structure of `value` and its numbers as a new flat vector of shape (n,).

    The vector is float32 if every leaf is, and float64 otherwise (integers are converted). A list or tuple of plain
    numbers counts as one vector, as it does for SciPy; any other list, tuple, dictionary or registered class is a
    structure (a pytree, in optree's sense).

    Args:
        value: array of any shape, number, or pytree of them.
        label: what messages call it.

    Raises:
        InvalidInputError: a leaf is not a real number or an array of them, an entry is NaN or infinite, or there is
            no entry at all.

    >>> flatten_parameters([3, 4.5])[1]
    array([3. , 4.5])
    """
    if type(value) in (list, tuple) and value and all(isinstance(item, int | float | np.number) for item in value):
        value = np.asarray(value)
    leaves, structure = trees.flatten(value)
    arrays = [_numbers(leaf, label) for leaf in leaves]
    single = bool(arrays) and all(array.dtype == np.float32 for array in arrays)
    dtype = np.dtype(np.float32 if single else np.float64)
    flat = np.concatenate([array.ravel() for array in arrays], dtype=dtype) if arrays else np.empty(0, dtype)
    parameters = Parameters(structure, tuple(array.shape for array in arrays), label)
    if flat.size == 0:
        raise InvalidInputError(f"{label} holds no numbers, so there is nothing to fit")
    bad = np.flatnonzero(~np.isfinite(flat))
    if bad.size:
        raise InvalidInputError(f"{parameters.name(int(bad[0]))} is {flat[bad[0]]}; the starting values must be finite")
    return parameters, flat


def _numbers(leaf: Any, label: str) -> NDArray[Any]:
    array = np.asarray(leaf)
    if array.dtype.kind not in "iuf":
        plain = array.dtype.kind == "O" and not isinstance(leaf, np.ndarray)
        kind = type(leaf).__name__ if plain else f"an array of dtype {array.dtype}"
        hint = ""
        if array.dtype.kind == "c":
            hint = "; fit the real and imaginary parts as two parameters"
        elif array.dtype.kind == "b" or (array.dtype.kind == "O" and not plain):
            hint = "; np.asarray(array, dtype=float) makes numbers of it, where there are some"
        raise InvalidInputError(f"{label} must be made of real numbers, but holds {kind}{hint}")
    return array


def _shaped(flat: Any, shape: tuple[int, ...]) -> Any:
    # A vector is handed on as it is: no reshape to record, none to run.
    return flat if len(shape) == 1 else flat.reshape(shape)

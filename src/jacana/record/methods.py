"""The methods of ndarray as entries of one table: most are the NumPy function of the same name."""

from __future__ import annotations

from typing import Any

import numpy as np

from .movement import flatten
from .table import FUNCTIONS
from .variable import METHODS, Variable

_SAME = (
    "all any argmax argmin argsort astype clip copy cumsum diagonal dot max mean min prod ravel repeat reshape round "
    "squeeze std sum swapaxes take trace transpose var compress nonzero searchsorted choose "
    "cumprod argpartition put"
)


def _conj(x: Any) -> Any:
    return x


def fill(x: Variable, value: Any) -> None:
    """The same number everywhere."""
    x[...] = value


def sort(x: Variable, axis: int = -1, **options: Any) -> None:
    """Sort in place."""
    x[...] = FUNCTIONS[np.sort](x, axis, **options)


def partition(x: Variable, kth: Any, axis: int = -1, **options: Any) -> None:
    """Partition in place."""
    x[...] = FUNCTIONS[np.partition](x, kth, axis, **options)


def install() -> None:
    """Enter the methods. Called when every function has its handler."""
    for name in _SAME.split():
        handler = FUNCTIONS.get(getattr(np, name))
        if handler is not None:
            METHODS[name] = handler
    METHODS.update({"flatten": flatten, "fill": fill, "sort": sort, "partition": partition})
    METHODS["conj"] = METHODS["conjugate"] = _conj

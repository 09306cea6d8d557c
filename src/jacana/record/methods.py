"""The methods of ndarray as entries of one table: most are the NumPy function of the same name."""

from __future__ import annotations

from typing import Any

import numpy as np

from .movement import flatten
from .table import FUNCTIONS
from .variable import METHODS

_SAME = (
    "all any argmax argmin argsort astype clip copy cumsum diagonal dot max mean min prod ravel repeat reshape round "
    "squeeze std sum swapaxes take trace transpose var compress"
)


def _conj(x: Any) -> Any:
    return x


def install() -> None:
    """Enter the methods. Called when every function has its handler."""
    for name in _SAME.split():
        handler = FUNCTIONS.get(getattr(np, name))
        if handler is not None:
            METHODS[name] = handler
    METHODS["flatten"] = flatten
    METHODS["conj"] = METHODS["conjugate"] = _conj

"""Methods of ndarray on a Variable: the NumPy functions of the same names."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .table import asks_complex, call_complex, is_complex

OF_NUMPY = dict(vars(np))  # as it was: some names are replaced while something is recorded
ABOUT_MEMORY = frozenset({"flags", "strides", "device"})
WRITABLE = (
    "make an array that Variables are written into inside the recorded function with np.zeros(...) or np.array(...), "
    "called as `np.` (elsewhere with np.zeros_like(x) of a Variable)"
)
ARRAY_ONLY = frozenset(name for name in dir(np.ndarray) if not name.startswith("_"))


class BoundMethod:
    """A NumPy function bound to a Variable."""

    __slots__ = ("_function", "_variable")

    def __init__(self, function: Callable[..., Any], variable: Any) -> None:
        self._function = function
        self._variable = variable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if any(map(is_complex, args)) or asks_complex(kwargs):
            function = OF_NUMPY.get(self._function.__name__.rstrip("_"))
            if function is not None:
                return call_complex(function, (self._variable, *args), kwargs)
        return self._function(self._variable, *args, **kwargs)

    def __repr__(self) -> str:
        return f"<method of Variable: {self._function.__name__}>"

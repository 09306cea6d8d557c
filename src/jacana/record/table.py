"""The one table from what NumPy offers to how jacana records it.

``UFUNCS`` maps a ufunc to a function of the operands; ``FUNCTIONS`` maps a NumPy function to a function with the same
signature. Operators, ``ndarray`` methods, ``__array_ufunc__``, ``__array_function__`` and ``jacana.functions`` all
look here, so an operation that is entered once is available everywhere.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

Handler = Callable[..., Any]
F = TypeVar("F", bound=Handler)

UFUNCS: dict[np.ufunc, Handler] = {}
FUNCTIONS: dict[Handler, Handler] = {}


def implements(*functions: Handler) -> Callable[[F], F]:
    """Enter the decorated function as the way to record each of ``functions``."""

    def enter(handler: F) -> F:
        for function in functions:
            (UFUNCS if isinstance(function, np.ufunc) else FUNCTIONS)[function] = handler  # type: ignore[index]
        return handler

    return enter

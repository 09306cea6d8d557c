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


class _Functions(dict[Handler, Handler]):
    """Functions of NumPy, also asked for by the wrapper that stands in for one while something is recorded."""

    def __missing__(self, function: Handler) -> Handler:
        return self[function.__wrapped__] if hasattr(function, "__wrapped__") else _none(function)

    def get(self, function: Handler, default: Any = None) -> Any:
        found = super().get(function, default)
        if found is default and hasattr(function, "__wrapped__"):
            return super().get(function.__wrapped__, default)
        return found


def _none(function: Handler) -> Handler:
    raise KeyError(function)


UFUNCS: dict[np.ufunc, Handler] = {}
FUNCTIONS: dict[Handler, Handler] = _Functions()


def implements(*functions: Handler) -> Callable[[F], F]:
    """Enter the decorated function as the way to record each of ``functions``."""

    def enter(handler: F) -> F:
        for function in functions:
            (UFUNCS if isinstance(function, np.ufunc) else FUNCTIONS)[function] = handler  # type: ignore[index]
        return handler

    return enter


# --- complex numbers -----------------------------------------------------------------------------------------------
# Operands are real wherever the tables above are asked. A call in which something is complex goes to these instead.

COMPLEX_UFUNCS: dict[np.ufunc, Handler] = {}
COMPLEX_FUNCTIONS: dict[Handler, Handler] = _Functions()
COMPLEX_FALLBACK: list[Handler] = []  # what is done with a function that has no entry: (function, args, kwargs)


class RecordedArray(np.ndarray):
    """The class that a recorded array says it is of: a program that asks ``isinstance(x, np.ndarray)`` hears yes.

    There are no instances. It is not ``np.ndarray`` itself, so that code which compares ``x.__class__`` with that (as
    ``scipy.sparse`` does) knows that there is no memory to be read.
    """


class ComplexBase:
    """What ``ComplexVariable`` is to the modules that come before it."""

    __slots__ = ()


def is_complex(value: Any) -> bool:
    """Whether an operand is complex, or a list in which something is."""
    if isinstance(value, (np.ndarray, np.generic)):
        return value.dtype.kind == "c"
    if isinstance(value, (list, tuple)):
        return any(map(is_complex, value))
    return isinstance(value, (ComplexBase, complex))


def call_complex(function: Any, args: Any, kwargs: Any) -> Any:
    """A NumPy function or ufunc of operands of which some are complex."""
    handler = (COMPLEX_UFUNCS if isinstance(function, np.ufunc) else COMPLEX_FUNCTIONS).get(function)
    return COMPLEX_FALLBACK[0](function, args, kwargs) if handler is None else handler(*args, **kwargs)


def call_function(function: Handler, args: Any, kwargs: Any) -> Any:
    """A NumPy function, by the table that its operands ask for; NotImplemented if it has no entry."""
    if any(map(is_complex, args)) or any(map(is_complex, kwargs.values())) or asks_complex(kwargs):
        return call_complex(function, args, kwargs)
    handler = FUNCTIONS.get(function)
    return NotImplemented if handler is None else handler(*args, **kwargs)


def asks_complex(options: Any) -> bool:
    """Whether a complex ``dtype`` is among the options of a call."""
    dtype = options.get("dtype")
    return dtype is not None and np.dtype(dtype).kind == "c"


def otherwise(ufunc: np.ufunc, *operands: Any) -> Any:
    """What the handler of real operands says to others: complex ones have a handler; of the rest it knows nothing."""
    return call_complex(ufunc, operands, {}) if any(map(is_complex, operands)) else NotImplemented

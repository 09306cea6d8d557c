"""The mathematics of NumPy as functions of Variables and arrays, for programs that are written as they are run.

Every function here *is* the NumPy function of the same name: ``F.tanh(x)`` is ``np.tanh(x)``. They are listed for
those who like to see what is supported (``dir(jacana.functions)``) and for programs written with ``F.`` names. The list
is made from the recorder's table, so a function is here exactly if it can be differentiated.

Example:
    >>> import numpy as np
    >>> import jacana.functions as F
    >>> from jacana.record import Variable
    >>> F.matmul(np.eye(2), Variable([1.0, 2.0]))
    Variable([1., 2.])
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..record.lift import plain_operand
from ..record.nests import OF_LISTS, is_nest
from ..record.table import FUNCTIONS, UFUNCS

_ALIASES: dict[str, Callable[..., Any]] = {"concat": np.concatenate, "absolute": np.absolute, "norm": np.linalg.norm}
_LINALG = ("cholesky", "det", "eigh", "eigvalsh", "inv", "lstsq", "norm", "pinv", "qr", "slogdet", "solve", "svd")


def _public(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The function under the name it has here, taking lists of Variables where it takes arrays."""

    def call(*args: Any, **kwargs: Any) -> Any:
        nests = [] if name in OF_LISTS else [k for k, a in enumerate(args) if is_nest(a)]
        if nests:
            args = tuple(plain_operand(a) if k in nests else a for k, a in enumerate(args))
            if name in _CONVERSIONS:
                return table[function](*args, **kwargs)
        return function(*args, **kwargs)

    table: dict[Any, Callable[..., Any]] = {**UFUNCS, **FUNCTIONS}
    note = table[function].__doc__
    module = "numpy.linalg" if getattr(np.linalg, name, None) is function else "numpy"
    original = getattr(function, "__name__", name)
    call.__doc__ = f"``{module}.{original}`` of Variables and arrays." + (f" {note}" if note else "")
    call.__name__ = call.__qualname__ = name
    call.__module__ = __name__
    return call


# NumPy does not ask Variables for these.
_CONVERSIONS = frozenset(
    ("array", "asarray", "asanyarray", "asarray_chkfinite", "ascontiguousarray", "asfortranarray", "require")
)


def _collect() -> dict[str, Callable[..., Any]]:
    found: dict[str, Callable[..., Any]] = {}
    functions: list[Callable[..., Any]] = [*UFUNCS, *FUNCTIONS]
    for function in functions:
        name: str = getattr(function, "__name__", "")
        if getattr(np, name, None) is function:
            found[name] = _public(function, name)
    for name in _LINALG:
        found[name] = _public(getattr(np.linalg, name), name)
    for name, function in _ALIASES.items():
        found[name] = _public(function, name)
    return found


_functions = _collect()
globals().update(_functions)
__all__ = sorted(_functions)


def __dir__() -> list[str]:
    return list(__all__)


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"jacana.functions has no {name!r}: NumPy has no such function, or it has no derivative rule here"
    )

"""What all records of ``scipy.linalg`` share: arguments by name, SciPy's own value, nodes that compute it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from ..graph.build import cast_to, movement_reshape
from .foreign import records
from .table import ComplexBase, Handler
from .variable import raw_deep, tracked, wrap_constant, wrap_node

LINALG = "scipy.linalg"
_HOW_ONLY = frozenset({"check_finite", "lwork"})  # options that change how SciPy computes, not what


def original(name: str) -> Callable[..., Any]:
    """The function of ``scipy.linalg``; its wrapper, if it has one now, steps aside for plain arrays."""
    from scipy import linalg

    function: Callable[..., Any] = getattr(linalg, name)
    return function


@functools.cache
def _signature(name: str) -> inspect.Signature:
    return inspect.signature(original(name))


def of_scipy(*names: str) -> Callable[[Handler], Handler]:
    """Enter ``handler(value, **arguments)``: SciPy's value for the plain numbers, then the arguments by name.

    Options to overwrite an argument are turned off: the number of a Variable is not to be destroyed.
    """

    def enter(handler: Handler) -> Handler:
        for name in names:

            def handle(*args: Any, _name: str = name, **kwargs: Any) -> Any:
                bound = _signature(_name).bind(*args, **kwargs)
                given = bound.arguments
                bound.arguments = {
                    k: False if k.startswith("overwrite_") else _writeable(raw_deep(v)) for k, v in given.items()
                }
                value = original(_name)(*bound.args, **bound.kwargs)
                what = {k: v for k, v in given.items() if k not in _HOW_ONLY and not k.startswith("overwrite_")}
                return handler(value, **what)

            records(LINALG, name)(handle)
        return handler

    return enter


def _writeable(value: Any) -> Any:
    """An argument as compiled functions of older SciPy take it: the numbers of Variables are read-only."""
    return value.copy() if isinstance(value, np.ndarray) and not value.flags.writeable else value


def valued(result: Any, value: Any) -> Any:
    """``result``, a Variable, with SciPy's own number, dtype and shape."""
    if isinstance(result, ComplexBase):
        return result
    node = tracked(result)
    if node is None:
        return wrap_constant(value)
    number = np.asarray(value)
    return wrap_node(movement_reshape(cast_to(node, number.dtype), number.shape), value)

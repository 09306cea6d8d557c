"""Functions of NumPy written in terms of others: the number is NumPy's own, the program is the formula.

The formula is plain NumPy code on Variables, so each operation in it is recorded by its own rule.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from .lift import any_tracked, call_on_constants, operand
from .reduction import _store
from .table import ComplexBase, Handler, implements
from .variable import raw_deep, tracked, wrap_constant, wrap_node


def composed(*functions: Handler) -> Callable[[Handler], Handler]:
    """Enter the decorated formula as the way to record each of ``functions``.

    The formula takes the arguments of the function but ``out``, and need not care for dtype and for axes kept.
    """

    def enter(formula: Handler) -> Handler:
        for function in functions:
            implements(function)(handler_of(function, formula))
        return formula

    return enter


def handler_of(function: Handler, formula: Handler) -> Handler:
    """The function recorded by its formula."""

    @functools.wraps(formula)
    def handler(*args: Any, out: Any = None, **kwargs: Any) -> Any:
        if not any_tracked(args) and not any_tracked(tuple(kwargs.values())):
            return _store(call_on_constants(function, args, kwargs), out)
        value = function(*raw_deep(args), **raw_deep(kwargs))
        return _store(as_numpy(value, formula(*args, **kwargs)), out)

    return handler


def as_numpy(value: Any, result: Any) -> Any:
    """A recorded result with the value, shape and dtype that NumPy gives."""
    if isinstance(value, (tuple, list)):
        items = [as_numpy(v, r) for v, r in zip(value, result, strict=True)]
        return items if isinstance(value, list) else tuple(items)
    if isinstance(result, ComplexBase):
        return result
    if tracked(result) is None:
        return wrap_constant(value)
    shape = np.shape(value)
    if np.shape(raw_deep(result)) != shape:
        result = np.reshape(result, shape)
    return wrap_node(operand(result, shape, np.asarray(value).dtype), value)


def missing(value: Any) -> bool:
    """Whether an option was not given at all."""
    return value is np._NoValue


__all__ = ["as_numpy", "composed", "handler_of", "missing"]

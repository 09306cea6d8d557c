"""NumPy functions of lists that hold Variables: ``np.sum([a, b])``, ``np.linalg.norm([x[0], 1.0])``.

NumPy looks for Variables among its arguments, not within lists, and would ask each one for a float. While something is
recorded, functions that take an array are replaced by wrappers that make one array of such a list first.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from .lift import any_tracked, plain_operand
from .recording import current_recording
from .table import FUNCTIONS
from .variable import Variable, contains_variable, raw_deep

# These take lists of arrays, find the Variables in them by themselves, or are replaced in ``constructors``.
OF_LISTS = frozenset(
    (
        "concatenate", "concat", "stack", "vstack", "hstack", "dstack", "column_stack", "row_stack", "block", "select",
        "choose", "lexsort", "meshgrid", "broadcast_arrays", "histogramdd", "multi_dot", "einsum_path", "piecewise",
        "apply_along_axis", "apply_over_axes", "shape", "ndim", "size", "result_type", "copyto", "put", "place",
        "putmask", "put_along_axis", "fill_diagonal",
    )
)  # fmt: skip
Entry = tuple[ModuleType, str, Callable[..., Any], Callable[..., Any]]


def is_nest(value: Any) -> bool:
    """Whether it is a list or tuple that holds a Variable."""
    return isinstance(value, (list, tuple)) and contains_variable(value)


def _of_nests(original: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if current_recording() is not None:
            if any(map(is_nest, args)):
                args = tuple(plain_operand(a) if is_nest(a) else a for a in args)
            if any(map(is_nest, kwargs.values())):
                kwargs = {k: plain_operand(v) if is_nest(v) else v for k, v in kwargs.items()}
        return original(*args, **kwargs)

    return function


_OF_PARTS = ("concatenate", "concat", "stack", "vstack", "hstack", "dstack", "column_stack")


def _of_parts(original: Callable[..., Any]) -> Callable[..., Any]:
    """Functions of several arrays, of which one may be a list that holds Variables."""

    @functools.wraps(original)
    def function(*args: Any, **kwargs: Any) -> Any:
        if (
            current_recording() is not None
            and args
            and isinstance(args[0], (list, tuple))
            and any(map(is_nest, args[0]))
        ):
            args = ([plain_operand(a) if is_nest(a) else a for a in args[0]], *args[1:])
        return original(*args, **kwargs)

    return function


def _of_points(original: Callable[..., Any]) -> Callable[..., Any]:
    """``polyval(x, c)`` with the axes of x after those of c: it asks whether x is an ndarray: no Variable is."""

    @functools.wraps(original)
    def function(x: Any, c: Any, tensor: bool = True) -> Any:
        if tensor and isinstance(x, Variable) and x.ndim and np.ndim(raw_deep(c)) > 1:
            c = plain_operand(c)
            return original(x, np.reshape(c, (*np.shape(raw_deep(c)), *(1,) * x.ndim)), False)
        return original(x, c, tensor)

    return function


_BY_THE_LEADING = ("roots", "companion")  # these divide by the leading coefficient, which must not be zero


def _untrimmed(original: Callable[..., Any]) -> Callable[..., Any]:
    """Leading coefficients that are zero now, and by which there is a derivative, are not cut off.

    What a polynomial is divided by is the exception: its degree is a decision, which is guarded.
    """

    @functools.wraps(original)
    def function(seq: Any) -> Any:
        if current_recording() is None or not any_tracked([seq]):
            return original(seq)
        frame: FrameType | None = sys._getframe(1)
        operands: Any = ()
        while frame is not None and frame.f_globals.get("__name__") == "numpy.polynomial.polyutils":
            operands = frame.f_locals.get("arrays", operands) if frame.f_code.co_name == "as_series" else operands
            if frame.f_code.co_name == "_div":
                break
            frame = frame.f_back
        if frame is None or frame.f_code.co_name.endswith(_BY_THE_LEADING):
            return original(seq)
        if frame.f_code.co_name.endswith("div"):
            return original(seq) if len(operands) == 2 and seq is operands[1] else seq
        factors = [frame.f_locals[name] for name in ("c1", "c2") if name in frame.f_locals]
        vanishes = any(not any_tracked([c]) and not np.any(raw_deep(c)) for c in factors)  # a product with zero
        return original(seq) if vanishes and frame.f_code.co_name.endswith("mul") else seq

    return function


_POLYNOMIALS = {
    "polynomial": "polyval", "chebyshev": "chebval", "legendre": "legval", "hermite": "hermval",
    "hermite_e": "hermeval", "laguerre": "lagval",
}  # fmt: skip


@functools.cache
def _polynomial_functions() -> tuple[Entry, ...]:
    modules = [(getattr(np.polynomial, module), name) for module, name in _POLYNOMIALS.items()]
    trimseq = np.polynomial.polyutils.trimseq
    return (
        *((m, name, getattr(m, name), _of_points(getattr(m, name))) for m, name in modules),
        (np.polynomial.polyutils, "trimseq", trimseq, _untrimmed(trimseq)),
    )


def nest_functions(taken: frozenset[str]) -> tuple[Entry, ...]:
    """The functions to be replaced, but for those of ``numpy`` that are ``taken``, each with its wrapper."""
    return (*_array_functions(taken), *_polynomial_functions())


@functools.cache
def _array_functions(taken: frozenset[str]) -> tuple[Entry, ...]:
    found: list[Entry] = []
    for module in (np, np.linalg, np.fft):
        for name, original in vars(module).items():  # not dir(): asked for, numpy.testing and numpy.f2py are imported
            if module is np and name in _OF_PARTS:
                found.append((module, name, original, _of_parts(original)))
            if name in OF_LISTS or (module is np and name in taken):
                continue
            if isinstance(original, type) or not callable(original):
                continue
            if not isinstance(original, np.ufunc) and original in FUNCTIONS:
                found.append((module, name, original, _of_nests(original)))
    return tuple(found)

"""Functions and arguments that differ in nothing but the numbers in their arrays: one recording serves them all.

``for y in data: least_squares(lambda p: f(p, x, y), x0)`` makes a new function in each turn. Its code is the same
object, and so is everything it captures, but for arrays of the same shapes. Such a function is taken apart into a key
that says what must be the same and the arrays that may differ, and put together again with arrays of our own, into
which those of the next turn are copied.
"""

from __future__ import annotations

import dis
import functools
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from ..graph.node import Array
from ..record.variable import Variable
from ..record.watch import MISSING, cell_value, same

__all__ = ["Captured", "bare_parts", "code_of", "copied", "taken_apart"]

MOST_NUMBERS = 50_000  # in all arrays: copying more would take longer than it saves
_MOST_DEPTH = 4  # functions captured by functions
_REAL = "biuf"

_writing: weakref.WeakKeyDictionary[types.CodeType, bool] = weakref.WeakKeyDictionary()


class _Same:
    """Equal to what is the same object, or the same number or text."""

    __slots__ = ("value",)

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return type(other) is _Same and same(self.value, other.value)

    def __hash__(self) -> int:
        return hash(type(self.value))


class _NotSeveralError(Exception):
    """Something is captured that one recording cannot serve others with."""


class Captured(NamedTuple):
    """What was taken apart: equal keys mean that arrays of one can take the place of those of the other.

    Attributes:
        key: hashable.
        arrays: in the order in which they were found.
        value: what was taken apart.
    """

    key: tuple[Any, ...]
    arrays: tuple[Array, ...]
    value: Any

    def owned(self) -> tuple[Any, tuple[Array, ...]]:
        """The same with arrays of its own, and these."""
        own = tuple([np.array(array, order="K") for array in self.arrays])
        return (_rebuilt(self.value, iter(own), 0), own) if own else (self.value, own)


def taken_apart(value: Any) -> Captured | None:
    """Take a function, or a tuple of arguments, apart.

    None where that could be noticed (it assigns to variables of enclosing functions, or captures recorded values), and
    where it holds more numbers than are worth a copy.

    >>> def decay(t):
    ...     return lambda p: p[0] * np.exp(-p[1] * t)
    >>> one, other = taken_apart(decay(np.arange(3.0))), taken_apart(decay(np.ones(3)))
    >>> one.key == other.key, one.arrays[0]
    (True, array([0., 1., 2.]))
    >>> one.key == taken_apart(decay(np.ones(4))).key
    False
    """
    if bare_parts(value) is not None:  # what has nothing but its code is told by that, in no time
        return Captured((_Same(value.__code__), _Same(value.__globals__)), (), value)
    arrays: list[Array] = []
    try:
        key = _key(value, arrays, 0)
    except _NotSeveralError:
        return None
    return Captured(key, tuple(arrays), value) if sum(array.size for array in arrays) <= MOST_NUMBERS else None


def code_of(function: Any) -> types.CodeType | None:
    """The code that a function, a method or a `functools.partial` of one runs; None for other callables."""
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    return function.__code__ if type(function) is types.FunctionType else None


def bare_parts(function: Any) -> tuple[types.CodeType, int] | None:
    """The code and the identity of the namespace of a function that has nothing else; None for others."""
    if type(function) is not types.FunctionType:
        return None
    if function.__closure__ or function.__defaults__ or function.__kwdefaults__ or function.__dict__:
        return None
    return function.__code__, id(function.__globals__)


def _key(value: Any, arrays: list[Array], depth: int) -> tuple[Any, ...]:
    kind = type(value)
    if kind is np.ndarray and value.dtype.kind in _REAL:
        arrays.append(value)
        return (np.ndarray, value.shape, value.dtype, value.flags.c_contiguous, value.flags.f_contiguous)
    if value is MISSING or isinstance(value, Variable):
        raise _NotSeveralError
    if depth < _MOST_DEPTH:
        if kind is types.FunctionType:
            return _key_of_function(value, arrays, depth)
        if kind is types.MethodType:
            return (kind, _Same(value.__func__), _Same(value.__self__))
        if kind is functools.partial and not value.__dict__:
            parts = (value.func, value.args, *value.keywords.values())
            return (kind, tuple(value.keywords), *[_key(part, arrays, depth + 1) for part in parts])
        if kind is tuple:
            return (kind, *[_key(item, arrays, depth + 1) for item in value])
    return (_Same(value),)


def _key_of_function(function: types.FunctionType, arrays: list[Array], depth: int) -> tuple[Any, ...]:
    if function.__dict__:
        return (_Same(function),)
    code = function.__code__
    if _writes_outside(code):
        raise _NotSeveralError
    keywords = function.__kwdefaults__ or {}
    cells = tuple(map(cell_value, function.__closure__ or ()))
    parts = (function.__defaults__, tuple(keywords.values()), cells)
    found = [_key(part, arrays, depth + 1) if part else None for part in parts]
    return (types.FunctionType, _Same(code), _Same(function.__globals__), tuple(keywords), *found)


def _writes_outside(code: types.CodeType) -> bool:
    """Whether code, or a function that it defines, assigns to a variable of an enclosing function."""
    known = _writing.get(code)
    if known is None:
        known = any(
            step.opname in ("STORE_DEREF", "DELETE_DEREF") and step.argval in code.co_freevars
            for step in dis.get_instructions(code)
        ) or any(_writes_outside(inner) for inner in code.co_consts if isinstance(inner, types.CodeType))
        _writing[code] = known
    return known


def _rebuilt(value: Any, own: Iterator[Array], depth: int) -> Any:
    """What `_key` walked over, in its order, with other arrays."""
    kind = type(value)
    if kind is np.ndarray and value.dtype.kind in _REAL:
        return next(own)
    if depth >= _MOST_DEPTH:
        return value

    def rebuilt(part: Any) -> Any:
        return _rebuilt(part, own, depth + 1)

    if kind is types.FunctionType and not value.__dict__:
        defaults, keywords = value.__defaults__, value.__kwdefaults__
        defaults = rebuilt(defaults) if defaults else defaults
        keywords = dict(zip(keywords, rebuilt(tuple(keywords.values())), strict=True)) if keywords else keywords
        cells = tuple([types.CellType(item) for item in rebuilt(tuple(map(cell_value, value.__closure__ or ())))])
        made = types.FunctionType(value.__code__, value.__globals__, value.__name__, defaults, cells)
        made.__kwdefaults__, made.__qualname__, made.__module__ = keywords, value.__qualname__, value.__module__
        return made
    if kind is functools.partial and not value.__dict__:
        function, arguments = rebuilt(value.func), rebuilt(value.args)
        return functools.partial(function, *arguments, **{name: rebuilt(v) for name, v in value.keywords.items()})
    return tuple(map(rebuilt, value)) if kind is tuple else value


def copied(own: tuple[Array, ...], given: tuple[Array, ...]) -> None:
    """Copy the numbers of arrays into those of our own."""
    for target, source in zip(own, given, strict=True):
        np.copyto(target, source, casting="unsafe")

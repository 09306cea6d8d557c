"""The constructors that no protocol of NumPy catches, inside recorded functions.

``out = np.zeros(n); out[k] = v`` makes a plain array before any Variable is near, and ``np.array([[a, b], [c, d]])``
would ask each Variable for a float. While at least one recording is running, these functions of the ``numpy`` module
are replaced by wrappers. A wrapper steps aside unless this thread (or task) is recording *and* its caller is the user's
code; then arrays of floats come as constant Variables, which can be written to, and nests that hold Variables are
assembled. Names imported before (``from numpy import zeros``) are not caught; writing a Variable into such an array is
an error that says so.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import numpy as np

from .bytecode import called_name
from .foreign import METHODS
from .functional import joined_by_trick, vectorized
from .iterators import arange, from_iterable
from .location import is_user
from .nests import nest_functions
from .recording import current_recording
from .table import FUNCTIONS, call_function
from .variable import Variable, contains_variable, wrap_constant

_ORIGINAL: dict[str, Callable[..., Any]] = {
    name: getattr(np, name)
    for name in (
        "zeros", "ones", "empty", "full", "zeros_like", "ones_like", "empty_like", "full_like",
        "array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require",
        "arange", "eye", "identity", "linspace", "copy", "fromiter",
    )
}  # fmt: skip
_lock = threading.Lock()
_active = 0

# Methods of NumPy's classes that would ask a Variable for its numbers; a wrapper steps aside if there is no Variable.
_TRICK: Any = type(np.r_).__mro__[1]
_METHODS: tuple[tuple[Any, str, Callable[..., Any]], ...] = (
    (_TRICK, "__getitem__", _TRICK.__getitem__),
    (np.vectorize, "__call__", np.vectorize.__call__),
    (np.ndenumerate, "__init__", np.ndenumerate.__init__),
)


def _called_by_user(name: str) -> bool:
    """Whether the user's program, being recorded, calls ``name`` on the line it is at.

    A compiled extension has no frame: ``rng.normal(size=3)`` calls ``np.empty`` beneath the user's frame and takes the
    result for an ndarray without asking. So the call instruction itself is looked at.
    """
    if current_recording() is None:
        return False
    frame: FrameType | None = sys._getframe(2)
    assert frame is not None
    if not is_user(frame):
        # ``numpy.polynomial`` is Python code in terms of the rest of NumPy: with Variables it is recorded as it is.
        while frame is not None and str(frame.f_globals.get("__name__")).startswith("numpy.polynomial"):
            if any(map(contains_variable, frame.f_locals.values())):
                return True
            frame = frame.f_back
        return False
    called = called_name(frame.f_code, frame.f_lasti)
    if called == name or called is None:
        return called is not None
    other = frame.f_locals.get(called, frame.f_globals.get(called))  # a second name for it: ``make = np.zeros``
    return other is not None and other is _WRAPPERS[name]


def _buffer(name: str) -> Callable[..., Any]:
    original = _ORIGINAL[name]

    def constructor(*args: Any, **kwargs: Any) -> Any:
        if not _called_by_user(name):
            return original(*args, **kwargs)
        if name in _OF_VARIABLES and (contains_variable(args) or contains_variable(kwargs)):
            return _OF_VARIABLES[name](original, args, kwargs)
        result = original(*args, **kwargs)
        if type(result) is Variable or name in ("arange", "linspace"):
            return result  # tables of constants more often than arrays to be filled
        if name.startswith("empty") and result.dtype.kind in "fc":
            result.fill(np.nan)
        return wrap_constant(result) if type(result) is np.ndarray and result.flags.owndata else result

    return constructor


def _conversion(name: str) -> Callable[..., Any]:
    original = _ORIGINAL[name]

    def constructor(*args: Any, **kwargs: Any) -> Any:
        if not _called_by_user(name):
            return original(*args, **kwargs)
        if args and contains_variable(args[0]):
            return FUNCTIONS[original](*args, **kwargs)  # of complex numbers too
        result = original(*args, **kwargs)
        # What shares the memory of the argument stays what it is: writing to it reaches the argument.
        if type(result) is not np.ndarray or not result.flags.owndata or (args and result is args[0]):
            return result
        return wrap_constant(result)

    return constructor


def _reader() -> Callable[..., Any]:
    original = _ORIGINAL["fromiter"]

    def constructor(*args: Any, **kwargs: Any) -> Any:
        if not _called_by_user("fromiter"):
            return original(*args, **kwargs)
        return from_iterable(original, *args, **kwargs)

    return constructor


def _table(original: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    return call_function(original, args, kwargs)


_OF_VARIABLES: dict[str, Callable[..., Any]] = {
    "full": _table,
    "full_like": _table,
    "linspace": _table,
    "copy": _table,
    "arange": lambda original, args, kwargs: arange(original, *args, **kwargs),
}
_CONVERSIONS = ("array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "asarray_chkfinite", "require")


def _wrapper_of(name: str) -> Callable[..., Any]:
    if name == "fromiter":
        return _reader()
    return (_conversion if name in _CONVERSIONS else _buffer)(name)


_WRAPPERS = {name: _wrapper_of(name) for name in _ORIGINAL}
for _name, _wrapper in _WRAPPERS.items():
    _wrapper.__name__ = _wrapper.__qualname__ = _name
    _wrapper.__doc__ = _ORIGINAL[_name].__doc__
    _wrapper.__wrapped__ = _ORIGINAL[_name]  # type: ignore[attr-defined]
del _name, _wrapper


def _index_trick(self: Any, key: Any) -> Any:
    original = _METHODS[0][2]
    if current_recording() is None:
        return original(self, key)
    parts = key if isinstance(key, tuple) else (key,)
    if not contains_variable([(p.start, p.stop, p.step) if isinstance(p, slice) else p for p in parts]):
        return original(self, key)
    return joined_by_trick(original, self, key)


def _vectorized_call(self: Any, *args: Any, **kwargs: Any) -> Any:
    if current_recording() is None or not contains_variable((*args, *kwargs.values())):
        return _METHODS[1][2](self, *args, **kwargs)
    return vectorized(self, args, kwargs)


def _enumerated(self: Any, arr: Any) -> None:
    if isinstance(arr, Variable):
        self.iter = arr.flat
    else:
        _METHODS[2][2](self, arr)


_others: list[tuple[Any, str, Callable[..., Any], Callable[..., Any]]] = []  # those replaced now
_METHOD_WRAPPERS = (_index_trick, _vectorized_call, _enumerated)


@contextmanager
def patched_constructors() -> Iterator[None]:
    """Put the wrappers in place; the last recording to end takes them away again."""
    global _active
    with _lock:
        _active += 1
        if _active == 1:
            for name, wrapper in _WRAPPERS.items():
                setattr(np, name, wrapper)
            for (owner, name, _), wrapper in zip(_METHODS, _METHOD_WRAPPERS, strict=True):
                setattr(owner, name, wrapper)
            methods = [entry for source in METHODS for entry in source()]
            _others[:] = [*methods, *nest_functions(frozenset(_ORIGINAL))]
            for owner, name, _, wrapper in _others:
                setattr(owner, name, wrapper)
    try:
        yield
    finally:
        with _lock:
            _active -= 1
            if _active == 0:
                for name, original in _ORIGINAL.items():
                    setattr(np, name, original)
                for owner, name, original in (*_METHODS, *(entry[:3] for entry in _others)):
                    setattr(owner, name, original)

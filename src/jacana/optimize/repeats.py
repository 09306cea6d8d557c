"""Fits that are made again and again, each time with new objects: what was recorded for one serves the others."""

from __future__ import annotations

import operator
import threading
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import CodeType
from typing import TYPE_CHECKING, Any

import numpy as np

from ..graph.node import Array
from ..implicit.results import RecordedResult
from ..record.recording import current_recording
from ..record.variable import contains_variable
from .captured import code_of, copied, taken_apart
from .result import LeastSquaresResult
from .small_fits import MOST_PARAMETERS

if TYPE_CHECKING:
    from .least_squares import LeastSquares

__all__ = ["OwnArguments", "Repeats"]

_SEEN = 2  # calls with the same code before anything is kept for the next ones
_KEPT = 8  # functions


class OwnArguments:
    """The further arguments of a fit: those that were given, or arrays of its own with the same numbers, once other
    objects of the same shapes have come."""

    def __init__(self) -> None:
        self._given: tuple[Any, ...] | None = None
        self._key: Any = None
        self._own: tuple[Any, ...] = ()
        self._arrays: tuple[Array, ...] = ()
        self._lock = threading.Lock()

    def as_given(self, args: Sequence[Any]) -> bool:
        """Whether these are the first arguments of all, and no others have come: to be fitted with as they are."""
        if self._key is not None:
            return False
        known = self._given
        if known is None:
            known = self._given = tuple(args)
        return len(known) == len(args) and all(map(operator.is_, known, args))

    @contextmanager
    def holding(self, args: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """The arguments to fit with; nobody else writes into them in the meantime."""
        captured = taken_apart(tuple(args))
        if captured is None or not captured.arrays or not self._lock.acquire(blocking=False):
            yield args
            return
        try:
            if captured.key == self._key:
                copied(self._arrays, captured.arrays)
            else:
                self._own, self._arrays = captured.owned()
                self._key = captured.key
            yield self._own
        finally:
            self._lock.release()


@dataclass(frozen=True, eq=False)
class _Entry:
    key: Any
    arrays: tuple[Array, ...]
    search: LeastSquares
    lock: Any = field(default_factory=threading.Lock)


class Repeats:
    """The fits of the last few functions that `least_squares` was called with more than twice.

    Functions count as the same if they have the same code, and captured the same but for arrays of the same shapes.
    """

    def __init__(self) -> None:
        self._seen: weakref.WeakKeyDictionary[CodeType, int] = weakref.WeakKeyDictionary()
        self._known: tuple[_Entry, ...] = ()

    def fitted(
        self,
        residual: Callable[..., Any],
        x0: Any,
        args: Sequence[Any],
        bounds: Any,
        others: tuple[Any, ...],
        make: Callable[[Callable[..., Any]], LeastSquares],
    ) -> LeastSquaresResult | None:
        """Return the fit by what was recorded before; None where `least_squares` has to do it alone.

        Args:
            others: the other settings that matter.
            make: makes the fit of a function, with these settings.
        """
        code = code_of(residual)
        if code is None or (isinstance(x0, np.ndarray) and x0.size > MOST_PARAMETERS):
            return None
        seen = self._seen.get(code, 0)
        if seen < _SEEN:
            self._seen[code] = seen + 1
            return None
        if current_recording() is not None or contains_variable(x0) or contains_variable(args):
            return None
        captured, limits = taken_apart(residual), _frozen(bounds)
        if captured is None or limits is None:
            return None
        key = (captured.key, limits, others)
        entry = next((known for known in self._known if known.key == key), None)
        if entry is None:
            function, arrays = captured.owned()
            entry = _Entry(key, arrays, make(function))
            entry.search.lent = arrays
            self._known = (entry, *self._known[: _KEPT - 1])
        if not entry.lock.acquire(blocking=False):
            return None
        try:
            copied(entry.arrays, captured.arrays)
            result = entry.search(x0, args=args)
        finally:
            entry.lock.release()
        if isinstance(result, RecordedResult):
            return None  # recorded values came from outside, and their derivatives need the user's own arrays
        return result.with_again(entry.search._again(args, residual))


def _frozen(bounds: Any) -> Any:
    """Bounds as a key; None for what is none."""
    if bounds is None or isinstance(bounds, float | int):
        return (bounds,)
    if isinstance(bounds, dict):
        parts = [(name, _frozen(pair)) for name, pair in bounds.items()]
        return None if any(part is None for _, part in parts) else tuple(parts)
    if hasattr(bounds, "lb"):
        bounds = (bounds.lb, bounds.ub)
    if isinstance(bounds, np.ndarray) and bounds.dtype.kind in "if":
        return (bounds.shape, bounds.dtype, bounds.tobytes())
    if isinstance(bounds, list | tuple):
        found = tuple(map(_frozen, bounds))
        return None if None in found else (type(bounds), found)
    return None

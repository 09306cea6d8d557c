"""Arrays as sets: the different values of one, of both, of one and not the other. Order and equality are guarded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .functional import unique
from .indexing import plain_key
from .lift import any_tracked, call_on_constants, plain_operand
from .table import Handler, implements
from .variable import raw, raw_deep


def _members(name: str) -> None:
    function = getattr(np, name, None)
    if function is None:
        return

    @implements(function)
    def handler(x: Any) -> Any:
        """The sorted different values, with what else was asked for."""
        found = function(raw_deep(x))
        values = unique(plain_operand(x), equal_nan=False)
        return found._replace(values=values) if hasattr(found, "_fields") else values


for _name in ("unique_all", "unique_counts", "unique_inverse", "unique_values"):
    _members(_name)


@implements(np.isin)
def isin(
    element: Any, test_elements: Any, assume_unique: bool = False, invert: bool = False, *, kind: Any = None
) -> Any:  # fmt: skip
    """Which elements equal one of others."""
    element, test = plain_operand(element), np.ravel(plain_operand(test_elements))
    found = np.any(np.equal(np.reshape(element, (*np.shape(raw(element)), 1)), test), axis=-1)
    return np.logical_not(found) if invert else found


def _flat(x: Any, assume_unique: bool) -> Any:
    x = np.ravel(plain_operand(x))
    return x if assume_unique else np.unique(x)


def _of_two(function: Handler) -> Callable[[Handler], Handler]:
    def enter(formula: Handler) -> Handler:
        def handler(ar1: Any, ar2: Any, assume_unique: bool = False, **options: Any) -> Any:
            if not any_tracked((ar1, ar2)):
                return call_on_constants(function, (ar1, ar2), {"assume_unique": assume_unique, **options})
            return formula(_flat(ar1, assume_unique), _flat(ar2, assume_unique), **options)

        handler.__doc__ = formula.__doc__
        return implements(function)(handler)

    return enter


@_of_two(np.setdiff1d)
def setdiff1d(a: Any, b: Any) -> Any:
    """The values of the first that are not in the second."""
    return a[np.asarray(plain_key(isin(a, b, invert=True)))]


@_of_two(np.setxor1d)
def setxor1d(a: Any, b: Any) -> Any:
    """The values that are in one of both only."""
    both = np.sort(np.concatenate((a, b)))
    if np.size(raw(both)) == 0:
        return both
    differs = np.asarray(plain_key(np.not_equal(both[1:], both[:-1])))
    edge = np.concatenate(([True], differs, [True]))
    return both[edge[1:] & edge[:-1]]


@implements(np.intersect1d)
def intersect1d(ar1: Any, ar2: Any, assume_unique: bool = False, return_indices: bool = False) -> Any:
    """The values that are in both; each is taken from the first."""
    options = {"assume_unique": assume_unique, "return_indices": return_indices}
    if not any_tracked((ar1, ar2)):
        return call_on_constants(np.intersect1d, (ar1, ar2), options)
    a, b = np.ravel(plain_operand(ar1)), np.ravel(plain_operand(ar2))
    values, first = unique(a, return_index=True)
    there = np.asarray(plain_key(isin(values, b)))
    if not return_indices:
        return values[there]
    _, _, second = np.intersect1d(raw(a), raw(b), assume_unique, return_indices=True)
    plain_key(np.argsort(b, kind="stable"))
    return values[there], first[there], second


__all__ = ["isin"]

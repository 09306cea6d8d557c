"""The order of complex numbers: by real parts, equal ones by imaginary parts. Which order it is is guarded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .complex import depends, part_of, plain
from .complex_functions import _MISSING, _stored, of_complex
from .functional import unique as unique_of_reals
from .indexing import plain_key
from .lift import plain_operand
from .location import unsupported
from .reduction import axes_of
from .statistics import covariance
from .table import COMPLEX_FUNCTIONS
from .variable import raw_deep, wrap_constant


def _order(a: Any, axis: int) -> Any:
    """The order along an axis, NaN last, guarded."""
    if not depends(a):
        return np.argsort(plain(a), axis=axis, kind="stable")
    if bool(np.any(np.isnan(a))):
        raise unsupported("the order of complex numbers with NaN", "Take them out first.")
    return np.asarray(plain_key(np.lexsort((part_of(a, 1), part_of(a, 0)), axis=axis)))


def _flat(a: Any, axis: Any) -> tuple[Any, int]:
    a = plain_operand(a)
    return (np.ravel(a), 0) if axis is None else (a, int(axis))


@of_complex(np.sort)
def sort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, **options: Any) -> Any:
    """A gather of both parts."""
    a, axis = _flat(a, axis)
    if not depends(a):
        return wrap_constant(np.sort(plain(a), axis))
    return np.take_along_axis(a, _order(a, axis), axis)


COMPLEX_FUNCTIONS[np.sort_complex] = lambda a: sort(a)


@of_complex(np.argsort)
def argsort(a: Any, axis: Any = -1, kind: Any = None, order: Any = None, **options: Any) -> Any:
    """Integers."""
    a, axis = _flat(a, axis)
    return _order(a, axis)


def _extremum(function: Callable[..., Any], place: int) -> None:
    def handler(
        a: Any, axis: Any = None, out: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING,
        where: Any = _MISSING,
    ) -> Any:  # fmt: skip
        """The first or the last in order; of equal ones it is the first, or the last, that counts."""
        a = plain_operand(a)
        if initial is not _MISSING or where is not _MISSING:
            raise unsupported(f"numpy.{function.__name__} of complex numbers with initial or where")
        axes = axes_of(axis, a.ndim)
        rest = [k for k in range(a.ndim) if k not in axes]
        lines = np.reshape(np.transpose(a, (*rest, *axes)), (*(a.shape[k] for k in rest), -1))
        result = sort(lines)[..., place]
        if keepdims is True:
            result = np.reshape(result, tuple(1 if k in axes else n for k, n in enumerate(a.shape)))
        return _stored(result, out)

    COMPLEX_FUNCTIONS[function] = handler


for _functions, _place in (((np.max, np.amax), -1), ((np.min, np.amin), 0)):
    for _function in _functions:
        _extremum(_function, _place)


def _place_of_extremum(function: Callable[..., Any]) -> None:
    def handler(a: Any, axis: Any = None, out: Any = None, **options: Any) -> Any:
        """Integers; the order is guarded."""
        a, along = _flat(a, axis)
        _order(a, along)
        return _stored(function(plain(a), along, **options), out)

    COMPLEX_FUNCTIONS[function] = handler


_place_of_extremum(np.argmax)
_place_of_extremum(np.argmin)


@of_complex(np.median)
def median(a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False) -> Any:
    """The mean of the one or two in the middle."""
    a = plain_operand(a)
    axes = axes_of(axis, a.ndim)
    rest = [k for k in range(a.ndim) if k not in axes]
    lines = np.reshape(np.transpose(a, (*rest, *axes)), (*(a.shape[k] for k in rest), -1))
    count = lines.shape[-1]
    result = np.mean(sort(lines)[..., (count - 1) // 2 : count // 2 + 1], axis=-1)
    if keepdims is True:
        result = np.reshape(result, tuple(1 if k in axes else n for k, n in enumerate(a.shape)))
    return _stored(result, out)


@of_complex(np.unique)
def unique(ar: Any, *args: Any, **options: Any) -> Any:
    """The sorted different values; which are equal is guarded."""
    if args or options:
        raise unsupported("numpy.unique of complex numbers with options")
    ordered = sort(np.ravel(plain_operand(ar)))
    if not depends(ordered):
        return unique_of_reals(ordered)
    differs = np.asarray(plain_key(np.not_equal(ordered[1:], ordered[:-1])))
    return ordered[np.concatenate(([True], differs))]


@of_complex(np.cov)
def cov(
    m: Any, y: Any = None, rowvar: bool = True, bias: bool = False, ddof: Any = None, fweights: Any = None,
    aweights: Any = None, *, dtype: Any = None,
) -> Any:  # fmt: skip
    """Of complex variables: the second of a pair is conjugated."""
    return covariance(m, y, rowvar, bias, ddof, fweights, aweights)


@of_complex(np.corrcoef)
def corrcoef(x: Any, y: Any = None, rowvar: bool = True, *, dtype: Any = None, **_: Any) -> Any:
    """The covariance over the standard deviations."""
    c = covariance(x, y, rowvar)
    if np.ndim(raw_deep(c)) == 0:
        return c / c
    deviation = np.sqrt(np.real(np.diagonal(c)))
    return c / deviation[:, None] / deviation[None, :]

"""Functions that leave NaN out.

What is missing takes no part in any derivative: NaN is replaced by the neutral element through ``where``, whose other
branch is structurally zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .composed import as_numpy, composed
from .reduction import _store, given, root_of_variance
from .table import implements
from .variable import raw

_MISSING: Any = np._NoValue


def _filled(a: Any, neutral: float) -> Any:
    return np.where(np.isnan(a), neutral, a)


def _chosen(a: Any, where: Any) -> Any:
    """What a ``where=`` option leaves out is missing, too."""
    return a if where is _MISSING or where is True else np.where(where, a, np.nan)


def _present(a: Any, axis: Any) -> Any:
    """How many elements are no NaN, with reduced axes kept."""
    return np.sum(np.logical_not(np.isnan(a)), axis=axis, keepdims=True)


def _unless_empty(result: Any, a: Any, axis: Any, keepdims: Any) -> Any:
    """NaN where there is no element at all."""
    count = np.sum(np.logical_not(np.isnan(a)), axis=axis, **given(keepdims=keepdims))
    return np.where(count == 0, np.nan, result)


@composed(np.nanmean)
def nanmean(
    a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = _MISSING, *, where: Any = _MISSING
) -> Any:  # fmt: skip
    """The sum over the number of elements that are there."""
    a = _chosen(a, where)
    total = np.sum(_filled(a, 0.0), axis=axis, keepdims=True) / _present(a, axis)
    return total if keepdims is True else np.reshape(total, np.shape(raw(np.sum(a, axis=axis))))


@composed(np.nanvar)
def nanvar(
    a: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: Any = _MISSING, *, where: Any = _MISSING,
    mean: Any = _MISSING, correction: Any = _MISSING,
) -> Any:  # fmt: skip
    """The mean square distance from the mean of those that are there."""
    a = _chosen(a, where)
    ddof = correction if correction is not _MISSING else ddof
    count = _present(a, axis)
    centre = np.sum(_filled(a, 0.0), axis=axis, keepdims=True) / count if mean is _MISSING else mean
    distance = np.where(np.isnan(a), 0.0, a - centre)
    freedom = count - ddof
    return np.where(freedom > 0, np.sum(distance * distance, axis=axis, keepdims=True), np.nan) / freedom


@composed(np.nanstd)
def nanstd(*args: Any, **kwargs: Any) -> Any:
    """The square root of the variance."""
    return root_of_variance(nanvar(*args, **kwargs))


@composed(np.nanmax)
def nanmax(
    a: Any, axis: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING, where: Any = _MISSING
) -> Any:  # fmt: skip
    """The largest that is there."""
    a = _chosen(a, where)
    result = np.max(_filled(a, -np.inf), axis=axis, **given(keepdims=keepdims, initial=initial))
    return result if initial is not _MISSING else _unless_empty(result, a, axis, keepdims)


@composed(np.nanmin)
def nanmin(
    a: Any, axis: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING, where: Any = _MISSING
) -> Any:  # fmt: skip
    """The smallest that is there."""
    a = _chosen(a, where)
    result = np.min(_filled(a, np.inf), axis=axis, **given(keepdims=keepdims, initial=initial))
    return result if initial is not _MISSING else _unless_empty(result, a, axis, keepdims)


@composed(np.nanprod)
def nanprod(
    a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING,
    where: Any = _MISSING,
) -> Any:  # fmt: skip
    """NaN counts as one."""
    return np.prod(_filled(_chosen(a, where), 1.0), axis=axis, **given(keepdims=keepdims, initial=initial))


@composed(np.nancumsum)
def nancumsum(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    """NaN counts as zero."""
    return np.cumsum(_filled(a, 0.0), axis=axis)


@composed(np.nancumprod)
def nancumprod(a: Any, axis: Any = None, dtype: Any = None) -> Any:
    """NaN counts as one."""
    return np.cumprod(_filled(a, 1.0), axis=axis)


@composed(np.nanargmax)
def nanargmax(a: Any, axis: Any = None, *, keepdims: Any = _MISSING) -> Any:
    """An integer, guarded when it is used as an index."""
    return np.argmax(_filled(a, -np.inf), axis=axis, **given(keepdims=keepdims))


@composed(np.nanargmin)
def nanargmin(a: Any, axis: Any = None, *, keepdims: Any = _MISSING) -> Any:
    """An integer, guarded when it is used as an index."""
    return np.argmin(_filled(a, np.inf), axis=axis, **given(keepdims=keepdims))


@implements(np.nanmedian)
def nanmedian(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False
) -> Any:  # fmt: skip
    """The quantile at one half."""
    value = np.nanmedian(raw(a), axis=axis, keepdims=keepdims is True)
    return _store(as_numpy(value, np.nanquantile(a, 0.5, axis=axis, keepdims=keepdims is True)), out)

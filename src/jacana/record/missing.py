"""Functions that leave NaN out, and order statistics.

What is missing takes no part in any derivative: NaN is replaced by the neutral element through ``where``, whose other
branch is structurally zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .composed import as_numpy, composed
from .indexing import plain_key
from .lift import any_tracked, call_on_constants
from .location import unsupported
from .reduction import _store, axes_of, given, refuse, root_of_variance
from .table import implements
from .variable import raw, raw_deep

_MISSING: Any = np._NoValue


def _filled(a: Any, neutral: float) -> Any:
    return np.where(np.isnan(a), neutral, a)


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
    refuse("nanmean", where=where)
    total = np.sum(_filled(a, 0.0), axis=axis, keepdims=True) / _present(a, axis)
    return total if keepdims is True else np.reshape(total, np.shape(raw(np.sum(a, axis=axis))))


@composed(np.nanvar)
def nanvar(
    a: Any, axis: Any = None, dtype: Any = None, ddof: Any = 0, keepdims: Any = _MISSING, *, where: Any = _MISSING,
    mean: Any = _MISSING, correction: Any = _MISSING,
) -> Any:  # fmt: skip
    """The mean square distance from the mean of those that are there."""
    refuse("nanvar", where=where, mean=mean)
    ddof = correction if correction is not _MISSING else ddof
    count = _present(a, axis)
    centre = np.sum(_filled(a, 0.0), axis=axis, keepdims=True) / count
    distance = np.where(np.isnan(a), 0.0, a - centre)
    return np.sum(distance * distance, axis=axis, keepdims=True) / (count - ddof)


@composed(np.nanstd)
def nanstd(*args: Any, **kwargs: Any) -> Any:
    """The square root of the variance."""
    return root_of_variance(nanvar(*args, **kwargs))


@composed(np.nanmax)
def nanmax(
    a: Any, axis: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING, where: Any = _MISSING
) -> Any:  # fmt: skip
    """The largest that is there."""
    refuse("nanmax", initial=initial, where=where)
    result = np.max(_filled(a, -np.inf), axis=axis, **given(keepdims=keepdims))
    return _unless_empty(result, a, axis, keepdims)


@composed(np.nanmin)
def nanmin(
    a: Any, axis: Any = None, keepdims: Any = _MISSING, initial: Any = _MISSING, where: Any = _MISSING
) -> Any:  # fmt: skip
    """The smallest that is there."""
    refuse("nanmin", initial=initial, where=where)
    result = np.min(_filled(a, np.inf), axis=axis, **given(keepdims=keepdims))
    return _unless_empty(result, a, axis, keepdims)


@composed(np.nanprod)
def nanprod(a: Any, axis: Any = None, dtype: Any = None, keepdims: Any = _MISSING, **options: Any) -> Any:
    """NaN counts as one."""
    refuse("nanprod", **options)
    return np.prod(_filled(a, 1.0), axis=axis, **given(keepdims=keepdims))


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


# --- order statistics -------------------------------------------------------------------------------------------


def _quantile(name: str, percent: bool, skip_nan: bool) -> Callable[..., Any]:
    """Quantiles of sorted values. The order is guarded; between two neighbours the value is linear in both."""
    function: Callable[..., Any] = getattr(np, name)
    plain: Callable[..., Any] = np.quantile

    def handler(
        a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
        keepdims: Any = False, *, weights: Any = None, interpolation: Any = None,
    ) -> Any:  # fmt: skip
        refuse(name, weights=weights, interpolation=interpolation)
        options = {"axis": axis, "method": method, "keepdims": keepdims is True}
        if not any_tracked((a, q)):
            return _store(call_on_constants(function, (a, q), options), out)
        if any_tracked((q,)):
            raise unsupported(f"numpy.{name} by q", "Which quantile is wanted must not depend on the arguments.")
        share = np.asarray(raw_deep(q), dtype=float) / (100.0 if percent else 1.0)
        value = function(raw(a), raw_deep(q), **options)
        axes = axes_of(axis, np.ndim(raw(a)))
        rest = tuple(k for k in range(np.ndim(raw(a))) if k not in axes)
        lead = tuple(np.shape(raw(a))[k] for k in rest)
        flat = np.reshape(np.transpose(a, (*rest, *axes)), (*lead, -1))
        ordered = np.sort(flat)  # NaN last
        counts = np.sum(~np.asarray(plain_key(np.isnan(flat))), axis=-1)
        if not skip_nan:
            counts = np.where(counts < np.shape(raw(flat))[-1], 0, counts)
        # The place of the quantile among n sorted values is the quantile of 0, 1, ..., n - 1: right for every method.
        known = {
            int(n): plain(np.arange(n, dtype=float), share, method=method) for n in np.unique(counts) if n > 0
        }  # fmt: skip
        nowhere = np.full(share.shape, np.nan)
        place = np.array([known.get(int(n), nowhere) for n in np.ravel(counts)]).reshape((*lead, *share.shape))
        wanted = place.reshape((*lead, share.size))
        low = np.floor(np.where(np.isnan(wanted), 0.0, wanted)).astype(int)
        high = np.minimum(low + 1, np.shape(raw(flat))[-1] - 1)
        part = wanted - low
        below, above = np.take_along_axis(ordered, low, -1), np.take_along_axis(ordered, high, -1)
        between = np.where(part == 0, below, below * (1.0 - part) + above * part)
        result = np.where(np.isnan(part), np.nan, between)
        result = np.moveaxis(np.reshape(result, (*lead, share.size)), -1, 0)
        return _store(as_numpy(value, result), out)

    return handler


for _name in ("quantile", "percentile", "nanquantile", "nanpercentile"):
    implements(getattr(np, _name))(_quantile(_name, "percentile" in _name, _name.startswith("nan")))


@implements(np.nanmedian)
def nanmedian(
    a: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, keepdims: Any = False
) -> Any:  # fmt: skip
    """The quantile at one half."""
    value = np.nanmedian(raw(a), axis=axis, keepdims=keepdims is True)
    return _store(as_numpy(value, np.nanquantile(a, 0.5, axis=axis, keepdims=keepdims is True)), out)

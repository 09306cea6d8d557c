"""Quantiles of sorted values. The order is guarded; between two neighbours the value is linear in both, and in q."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .composed import as_numpy
from .indexing import plain_key
from .lift import any_tracked, call_on_constants, plain_operand
from .reduction import _store, axes_of, refuse
from .table import implements
from .variable import raw, raw_deep, wrap_constant

# The place among n sorted values is n q + a + q (1 - a - b) - 1 (Hyndman and Fan, "Sample Quantiles in Statistical
# Packages", 1996, types 4 to 9); the other methods choose a value, and have no slope by q.
_PLACES = {
    "linear": (1.0, 1.0),
    "interpolated_inverted_cdf": (0.0, 1.0),
    "hazen": (0.5, 0.5),
    "weibull": (0.0, 0.0),
    "median_unbiased": (1 / 3, 1 / 3),
    "normal_unbiased": (3 / 8, 3 / 8),
}


def _lanes(a: Any, axes: tuple[int, ...]) -> Any:
    """The elements that one quantile is of, along the last axis."""
    rest = tuple(k for k in range(np.ndim(raw(a))) if k not in axes)
    lead = tuple(np.shape(raw(a))[k] for k in rest)
    return np.reshape(np.transpose(a, (*rest, *axes)), (*lead, -1))


def _looked_at(value: Any) -> Any:
    """The numbers, guarded."""
    return np.asarray(value.data if any_tracked((value,)) else raw_deep(value), dtype=float)


def _weighted(flat: Any, share: Any, weights: Any, method: str, function: Callable[..., Any]) -> Any:
    """Which of the sorted values it is: the quantile of their numbers. The axis of quantiles is the last."""
    order = np.asarray(plain_key(np.argsort(flat, axis=-1, kind="stable")))
    numbers = np.empty(order.shape)
    np.put_along_axis(numbers, order, np.broadcast_to(np.arange(float(order.shape[-1])), order.shape), -1)
    missing = np.asarray(plain_key(np.isnan(flat)))
    numbers[missing] = np.nan
    chosen = np.moveaxis(np.asarray(function(numbers, share, axis=-1, weights=weights, method=method)), 0, -1)
    nowhere = np.isnan(chosen)
    found = np.take_along_axis(np.sort(flat), np.where(nowhere, 0, chosen).astype(int), -1)
    return np.where(nowhere, np.nan, found)


def _aligned_weights(weights: Any, shape: tuple[int, ...], axes: tuple[int, ...]) -> Any:
    """Weights of the axes alone, or of all elements, as those of all elements."""
    if np.shape(weights) != shape:
        weights = np.reshape(weights, tuple(n if k in axes else 1 for k, n in enumerate(shape)))
    return np.broadcast_to(weights, shape)


def _places(counts: Any, share: Any, plain: Callable[..., Any], method: str) -> Any:
    """The places of the quantiles among so many sorted values, NaN among none: right for every method."""
    known = {int(n): plain(np.arange(n, dtype=float), share, method=method) for n in np.unique(counts) if n > 0}
    nowhere = np.full(share.shape, np.nan)
    found = np.array([known.get(int(n), nowhere) for n in np.ravel(counts)])
    return found.reshape((*np.shape(counts), share.size))


def _quantile(name: str, percent: bool, skip_nan: bool) -> Callable[..., Any]:
    function: Any = getattr(np, name)

    def handler(
        a: Any, q: Any, axis: Any = None, out: Any = None, overwrite_input: bool = False, method: str = "linear",
        keepdims: Any = False, *, weights: Any = None, interpolation: Any = None,
    ) -> Any:  # fmt: skip
        refuse(name, interpolation=interpolation)
        options = {"axis": axis, "method": method, "keepdims": keepdims is True}
        a, q, weights = plain_operand(a), plain_operand(q), plain_operand(weights)
        if not any_tracked((a, q, weights)):
            given = options if weights is None else {**options, "weights": weights}
            return _store(call_on_constants(function, (a, q), given), out)
        if weights is not None:
            options["weights"] = raw(weights)
        value = function(raw(a), raw(q), **options)
        if not np.size(raw(a)):
            return _store(wrap_constant(value), out)
        moving = any_tracked((q,)) and weights is None and method in _PLACES
        top = 100.0 if percent else 1.0
        if moving and (np.any(q < 0.0) or np.any(q > top)):  # guarded; here NumPy has refused it
            raise ValueError(f"the share q is not between 0 and {top:g}")
        share = raw(q) if moving else _looked_at(q)
        share = np.asarray(share, dtype=float) / (100.0 if percent else 1.0)
        axes = axes_of(axis, np.ndim(raw(a)))
        flat = _lanes(a, axes)
        lead = np.shape(raw(flat))[:-1]
        if weights is not None:
            spread = _lanes(_aligned_weights(_looked_at(weights), np.shape(raw(a)), axes), axes)
            chooser: Any = np.nanquantile if skip_nan else np.quantile
            result = _weighted(flat, share.reshape(-1), spread, method, chooser)
        else:
            result = _interpolated(flat, share, (q if percent is False else q / 100.0) if moving else None, method)
        if not skip_nan:
            result = np.where(np.isnan(flat).any(axis=-1, keepdims=True), np.nan, result)
        result = np.moveaxis(np.reshape(result, (*lead, share.size)), -1, 0)
        return _store(as_numpy(value, result), out)

    return handler


def _interpolated(flat: Any, share: Any, moving: Any, method: str) -> Any:
    """Between neighbours; ``moving``: the share as a Variable, if there is a derivative by it."""
    ordered = np.sort(flat)  # NaN last
    count = np.shape(raw(flat))[-1]
    counts = np.sum(~np.asarray(plain_key(np.isnan(flat))), axis=-1)
    wanted: Any = _places(counts, share, np.quantile, method)
    there = ~np.isnan(wanted)
    if moving is not None:
        alpha, beta = _PLACES[method]
        last = np.maximum(counts - 1, 0)[..., None]
        place = np.ravel(moving) * (counts[..., None] + 1.0 - alpha - beta) + alpha - 1.0
        place = np.where(place < 0, 0.0, np.where(place > last, last * 1.0, place))
        low = np.asarray(plain_key(np.minimum(np.floor(place), np.maximum(last - 1, 0)).astype(int)))
        wanted = np.where(there, place, np.nan)
    else:
        low = np.floor(np.where(there, wanted, 0.0)).astype(int)
    high = np.minimum(low + 1, count - 1)
    part = wanted - low
    below, above = np.take_along_axis(ordered, low, -1), np.take_along_axis(ordered, high, -1)
    between = below * (1.0 - part) + above * part
    if moving is None:
        between = np.where(part == 0, below, between)
    return np.where(there, between, np.nan)


for _name in ("quantile", "percentile", "nanquantile", "nanpercentile"):
    implements(getattr(np, _name))(_quantile(_name, "percentile" in _name, _name.startswith("nan")))

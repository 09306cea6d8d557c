"""Histograms: sums of weights by bin. Which bin it is is guarded; edges that follow the data are recorded."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .composed import composed
from .indexing import plain_key
from .lift import plain_operand
from .location import unsupported
from .variable import raw, raw_deep


def _edges(a: Any, bins: Any, limits: Any) -> Any:
    """The edges that were given, or evenly spaced ones between the limits, or between the extremes of the data."""
    if isinstance(bins, str):
        raise unsupported("a histogram with bins='name'", "Give the number of bins or their edges.")
    if np.ndim(raw_deep(bins)):
        return plain_operand(bins)
    if limits is not None:
        low, high = limits
    elif np.size(raw(a)) == 0:
        low, high = 0.0, 1.0
    else:
        low, high = np.min(a), np.max(a)
        if not np.isfinite(low) or not np.isfinite(high):
            raise ValueError(f"autodetected range of [{raw(low)}, {raw(high)}] is not finite")
    if low == high:
        low, high = low - 0.5, high + 0.5
    return np.linspace(low, high, int(bins) + 1)


def _bins(a: Any, edges: Any) -> tuple[Any, Any]:
    """The number of the bin of each element, and which elements are in one."""
    last = np.shape(raw_deep(edges))[0] - 1
    place = np.searchsorted(edges, a, side="right") - 1
    place = np.asarray(plain_key(np.where(a == edges[last], last - 1, place)))
    return place, (place >= 0) & (place < last)


@composed(np.histogram_bin_edges)
def histogram_bin_edges(a: Any, bins: Any = 10, range: Any = None, weights: Any = None) -> Any:
    """The edges alone."""
    return _edges(np.ravel(plain_operand(a)), bins, range) + 0.0


@composed(np.histogram)
def histogram(a: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """Sums of weights by bin, and the edges."""
    a = np.ravel(plain_operand(a))
    weights = None if weights is None else np.ravel(plain_operand(weights))
    counts, (edges,) = _count([a], [_edges(a, bins, range)], density, weights)
    return counts, edges


def _count(columns: Sequence[Any], edges: list[Any], density: Any, weights: Any) -> tuple[Any, list[Any]]:
    shape = tuple(np.shape(raw_deep(e))[0] - 1 for e in edges)
    places, inside = zip(*(_bins(c, e) for c, e in zip(columns, edges, strict=True)), strict=True)
    (there,) = np.nonzero(np.logical_and.reduce(inside))
    flat = np.ravel_multi_index([p[there] for p in places], shape)
    amount = np.ones(len(there)) if weights is None else weights[there]
    counts: Any = np.reshape(np.bincount(flat, weights=amount, minlength=math.prod(shape)), shape)
    if density:
        total = np.sum(counts)
        for k, e in enumerate(edges):
            counts = counts / np.reshape(np.diff(e), [-1 if j == k else 1 for j in range(len(shape))])
        counts = counts / total
    return counts, edges


@composed(np.histogramdd)
def histogramdd(sample: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None) -> Any:
    """Sums of weights by bins of several variables."""
    array = plain_operand(sample)
    if not isinstance(sample, (list, tuple)) and np.ndim(raw(array)) == 2:
        columns = [array[:, k] for k in np.arange(np.shape(raw(array))[1])]
    else:
        columns = list(np.atleast_2d(array))
    count = len(columns)
    each = list(bins) if np.ndim(raw_deep(bins)) or isinstance(bins, (list, tuple)) else [bins] * count
    if len(each) != count:
        raise ValueError("The dimension of bins must be equal to the dimension of the sample x.")
    limits = [None] * count if range is None else range
    edges = [_edges(*given) for given in zip(columns, each, limits, strict=True)]
    counts, edges = _count(columns, edges, density, None if weights is None else plain_operand(weights))
    return counts, tuple(edges)


@composed(np.histogram2d)
def histogram2d(
    x: Any, y: Any, bins: Any = 10, range: Any = None, density: Any = None, weights: Any = None
) -> Any:  # fmt: skip
    """Sums of weights by bins of two variables."""
    count = len(bins) if isinstance(bins, (list, tuple)) else np.size(raw(bins)) if np.ndim(raw(bins)) else 1
    if count not in (1, 2):
        bins = [bins, bins]
    elif count == 1 and np.ndim(raw_deep(bins)):
        bins = bins[0]
    counts, edges = histogramdd([x, y], bins, range, density, weights)
    return counts, edges[0], edges[1]

"""``scipy.spatial.distance``: distances of points, one by one, of all pairs, and as a matrix.

Each metric is one formula of differences or of products along the last axis. The length of a vector of zeros has the
derivative zero, as ``np.linalg.norm`` has.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from .composed import as_numpy
from .foreign import REAL_ONLY, records, refuses
from .lift import plain_operand
from .location import unsupported
from .table import Handler
from .variable import raw, raw_deep

DISTANCE = "scipy.spatial.distance"
_OTHERS = "Write it with np.sum, np.abs and np.linalg.norm along the last axis."


def _length(u: Any, v: Any) -> Any:
    return np.linalg.norm(u - v, axis=-1)


def _square(u: Any, v: Any) -> Any:
    return np.sum((u - v) ** 2, axis=-1)


def _blocks(u: Any, v: Any) -> Any:
    return np.sum(np.abs(u - v), axis=-1)


def _largest(u: Any, v: Any) -> Any:
    return np.max(np.abs(u - v), axis=-1)


def _power(u: Any, v: Any, p: Any = 2) -> Any:
    return np.linalg.norm(u - v, ord=float(raw(p)), axis=-1)


def _cosine(u: Any, v: Any) -> Any:
    return 1.0 - np.sum(u * v, axis=-1) / (np.linalg.norm(u, axis=-1) * np.linalg.norm(v, axis=-1))


def _correlation(u: Any, v: Any) -> Any:
    return _cosine(u - np.mean(u, axis=-1, keepdims=True), v - np.mean(v, axis=-1, keepdims=True))


def _scaled(u: Any, v: Any, V: Any) -> Any:
    return _length(u / np.sqrt(V), v / np.sqrt(V))


def _mahalanobis(u: Any, v: Any, VI: Any) -> Any:
    gap = u - v
    return np.sqrt(np.sum((gap @ VI) * gap, axis=-1))


def _canberra(u: Any, v: Any) -> Any:
    size = np.abs(u) + np.abs(v)
    nothing = size == 0
    return np.sum(np.where(nothing, 0.0, np.abs(u - v) / np.where(nothing, 1.0, size)), axis=-1)


def _bray_curtis(u: Any, v: Any) -> Any:
    return np.sum(np.abs(u - v), axis=-1) / np.sum(np.abs(u + v), axis=-1)


METRICS: dict[str, Callable[..., Any]] = {
    "euclidean": _length, "sqeuclidean": _square, "cityblock": _blocks, "chebyshev": _largest, "minkowski": _power,
    "cosine": _cosine, "correlation": _correlation, "seuclidean": _scaled, "mahalanobis": _mahalanobis,
    "canberra": _canberra, "braycurtis": _bray_curtis,
}  # fmt: skip
_SHORT = {"cityblock": ("manhattan", "taxicab"), "minkowski": ("p",)}


def _valued(name: str) -> Callable[[Handler], Handler]:
    """Enter a formula; the value, and what it says of wrong arguments, is SciPy's own."""

    def enter(formula: Handler) -> Handler:
        def handler(*args: Any, **kwargs: Any) -> Any:
            if kwargs.get("w") is not None or kwargs.get("out") is not None:
                raise unsupported(f"{DISTANCE}.{name} with w= or out=", _OTHERS)
            value = getattr(importlib.import_module(DISTANCE), name)(*raw_deep(args), **raw_deep(kwargs))
            return as_numpy(value, formula(*args, **kwargs))

        handler.__doc__ = formula.__doc__
        REAL_ONLY.add((DISTANCE, name))
        return records(DISTANCE, name)(handler)

    return enter


def _of_two(name: str, metric: Callable[..., Any]) -> None:
    @_valued(name)
    def distance(u: Any, v: Any, *parameters: Any, **options: Any) -> Any:
        options = {k: plain_operand(p) for k, p in options.items() if k not in ("w", "centered")}
        return metric(plain_operand(u) * 1.0, plain_operand(v) * 1.0, *map(plain_operand, parameters), **options)


for _name, _metric in METRICS.items():
    _of_two(_name, _metric)


def _metric_of(metric: Any, what: str, options: dict[str, Any]) -> Callable[..., Any]:
    name = metric if isinstance(metric, str) else getattr(metric, "__name__", "")
    name = next((long for long, short in _SHORT.items() if name in short), name).lower()
    found = METRICS.get(name)
    needed = {"seuclidean": "V", "mahalanobis": "VI"}.get(name)
    if found is None or (needed is not None and options.get(needed) is None):
        raise unsupported(f"{DISTANCE}.{what} with metric={name!r} like this", _OTHERS)
    known = {k: plain_operand(v) for k, v in options.items() if k in ("p", "V", "VI")}
    return lambda u, v: found(u, v, **known)


@_valued("cdist")
def cdist(XA: Any, XB: Any, metric: Any = "euclidean", *, out: Any = None, **options: Any) -> Any:
    """Of all pairs of rows of two matrices."""
    distance = _metric_of(metric, "cdist", options)
    return distance(plain_operand(XA)[:, None, :] * 1.0, plain_operand(XB)[None, :, :] * 1.0)


@_valued("pdist")
def pdist(X: Any, metric: Any = "euclidean", *, out: Any = None, **options: Any) -> Any:
    """Of all pairs of different rows of a matrix, row by row of its upper triangle."""
    distance = _metric_of(metric, "pdist", options)
    X = plain_operand(X)
    first, second = np.triu_indices(np.shape(raw(X))[0], 1)
    return distance(X[first] * 1.0, X[second] * 1.0)


@_valued("squareform")
def squareform(X: Any, force: str = "no", checks: bool = True) -> Any:
    """Distances of pairs as a symmetric matrix, and back."""
    X = plain_operand(X)
    if np.ndim(raw(X)) == 2:
        return X[np.triu_indices(np.shape(raw(X))[0], 1)]
    n = round((1 + np.sqrt(1 + 8 * np.shape(raw(X))[0])) / 2)
    places = np.zeros((n, n), dtype=int)
    places[np.triu_indices(n, 1)] = np.arange(n * (n - 1) // 2)
    places = places + places.T
    if n == 1:
        return np.zeros((1, 1))
    return np.where(np.eye(n, dtype=bool), 0.0, X[places])


refuses(DISTANCE, _OTHERS, "jensenshannon", "directed_hausdorff")

__all__ = ["METRICS", "cdist", "pdist", "squareform"]

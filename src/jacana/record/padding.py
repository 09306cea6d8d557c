"""The modes of ``np.pad`` that compute what they add: axis after axis, each on what the one before has made."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .lift import any_tracked, plain_operand
from .location import unsupported
from .variable import raw

_STATISTICS: dict[str, Callable[..., Any]] = {
    "maximum": np.max,
    "minimum": np.min,
    "mean": np.mean,
    "median": np.median,
}


def frame(array: Any, widths: Sequence[Sequence[int]], mode: Any, options: dict[str, Any]) -> Any:
    """``np.pad`` of a Variable in the modes ``linear_ramp``, ``maximum``, ``mean``, ``median``, ``minimum`` and the odd
    reflections.
    """
    rank = np.ndim(raw(array))
    for k, (before, after) in enumerate(widths):
        if not before and not after:
            continue
        match mode:
            case "maximum" | "minimum" | "mean" | "median":
                ends = _statistics(array, k, mode, _pairs(options.get("stat_length"), rank)[k])
                low, high = (np.repeat(e, n, axis=k) for e, n in zip(ends, (before, after), strict=True))
            case "linear_ramp":
                low, high = _ramps(array, k, (before, after), _pairs(options.get("end_values", 0), rank)[k])
            case "reflect" | "symmetric":
                low, high = _odd(array, k, (before, after), mode)
            case _:
                raise unsupported(f"numpy.pad with mode={mode!r}")
        array = np.concatenate([low, array, high], axis=k)
    return array


def constant_frame(array: Any, widths: Sequence[Sequence[int]], fills: Any) -> Any:
    """``np.pad`` with constants that are Variables: corners have those of the last axis."""
    rank = np.ndim(raw(array))
    for k, (counts, ends) in enumerate(zip(widths, _pairs(fills, rank), strict=True)):
        shape = np.shape(raw(array))
        low, high = (
            np.broadcast_to(end, (*shape[:k], n, *shape[k + 1 :])) for n, end in zip(counts, ends, strict=True)
        )
        array = np.concatenate([low, array, high], axis=k)
    return array


def _pairs(value: Any, rank: int) -> list[Any]:
    """An option as one pair for each axis."""
    if isinstance(value, dict):
        raise unsupported("numpy.pad with a dictionary of options")
    value = plain_operand(value)
    if any_tracked((value,)):
        spread = np.broadcast_to(value, (rank, 2))
        return [[spread[k, 0], spread[k, 1]] for k in range(rank)]
    pairs = np.empty((rank, 2), dtype=object)
    pairs[...] = np.asarray(value, dtype=object)
    return pairs.tolist()


def _cut(array: Any, along: int, start: int | None, stop: int | None, step: int | None = None) -> Any:
    return array[(slice(None),) * along + (slice(start, stop, step),)]


def _statistics(array: Any, along: int, mode: str, lengths: Sequence[Any]) -> tuple[Any, Any]:
    """The statistic of so many elements at each end, or of all."""
    n = np.shape(raw(array))[along]
    counts = [n if length is None else min(int(length), n) for length in lengths]
    parts = (_cut(array, along, 0, counts[0]), _cut(array, along, n - counts[1], n))
    low, high = (_STATISTICS[mode](part, axis=along, keepdims=True) for part in parts)
    return low, high


def _ramps(array: Any, along: int, widths: tuple[int, int], targets: Sequence[Any]) -> tuple[Any, Any]:
    """Straight lines from the target, which is a constant, to the edge, which is left out."""
    n = np.shape(raw(array))[along]
    edges = (_cut(array, along, 0, 1), _cut(array, along, n - 1, n))
    ramps = []
    for edge, width, target, side in zip(edges, widths, targets, (1, -1), strict=True):
        shape = [-1 if j == along else 1 for j in range(np.ndim(raw(array)))]
        way = (np.arange(1, width) / max(width, 1)).reshape(shape)
        ends = np.broadcast_to(target * 1.0, np.shape(raw(edge)))[(slice(None),) * along + (slice(width),)]
        ramp = np.concatenate([ends, target + (edge - target) * way], axis=along)
        ramps.append(ramp if side > 0 else np.flip(ramp, along))
    return ramps[0], ramps[1]


def _odd(array: Any, along: int, widths: tuple[int, int], mode: str) -> tuple[Any, Any]:
    """Mirrored through the edge in value as well: twice the edge less the mirror image."""
    n = np.shape(raw(array))[along]
    skip = 1 if mode == "reflect" else 0
    if max(widths) > n - skip:
        raise unsupported(
            f"numpy.pad with mode={mode!r}, reflect_type='odd' and more than the array has to mirror",
            "Pad in several steps.",
        )
    before, after = widths
    low, high = _cut(array, along, skip, skip + before), _cut(array, along, n - skip - after, n - skip)
    edges = (_cut(array, along, 0, 1), _cut(array, along, n - 1, n))
    return 2.0 * edges[0] - np.flip(low, along), 2.0 * edges[1] - np.flip(high, along)


__all__ = ["constant_frame", "frame"]

"""Arrays made of iterables and of ranges whose ends are Variables."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from .composed import as_numpy
from .creation import array
from .location import unsupported
from .variable import contains_variable, raw_deep


def arange(original: Callable[..., Any], *args: Any, dtype: Any = None, **options: Any) -> Any:
    """``np.arange`` of Variables; how many numbers there are is guarded."""
    given = dict(zip(("start", "stop", "step"), args, strict=False)) | options
    if "stop" not in given or given["stop"] is None:
        given = {"start": 0, "stop": given["start"], "step": given.get("step")}
    start, stop = given.get("start", 0), given["stop"]
    step = 1 if given.get("step") is None else given["step"]
    value = original(*raw_deep(args), dtype=dtype, **raw_deep(options))
    count = max(math.ceil((stop - start) / step), 0)
    if count != len(value):  # NumPy's own rounding of a length between two integers
        raise unsupported("numpy.arange with a length that rounding decides", "Use np.linspace.")
    return as_numpy(value, start + np.arange(count) * step)


def from_iterable(original: Callable[..., Any], iterable: Any, dtype: Any, count: int = -1, **options: Any) -> Any:
    """``np.fromiter``: the elements are looked at one after another."""
    items: list[Any] = []
    for item in iterable:
        if len(items) == count:
            break
        items.append(item)
    if not contains_variable(items):
        return original(iter(items), dtype, count, **options)
    if len(items) < count:
        raise ValueError(f"iterator too short: Expected {count} but iterator had only {len(items)} items.")
    return array(items, dtype)

"""How many threads a kernel may use: ``JACANA_NUM_THREADS``, ``set_num_threads``, or as many as there are cores."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..errors import InvalidInputError

_number: int | None = None
_listeners: list[Callable[[int], None]] = []


def num_threads() -> int:
    """How many threads large kernels use.

    >>> import jacana as jc
    >>> jc.num_threads() >= 1
    True
    """
    global _number
    if _number is None:
        text = os.environ.get("JACANA_NUM_THREADS", "").strip()
        _number = _checked(text, "JACANA_NUM_THREADS") if text else _cores()
    return _number


def set_num_threads(number: int) -> None:
    """Choose how many threads large kernels of the native executor use, in this process.

    Results do not depend on it, to the last bit. Small kernels always run on the thread that calls.

    Args:
        number: at least 1. The default is the environment variable ``JACANA_NUM_THREADS``, or the number of cores that
            this process may use.

    Raises:
        InvalidInputError: not a whole number of at least 1.

    >>> import jacana as jc
    >>> before = jc.num_threads()
    >>> jc.set_num_threads(1)
    >>> jc.num_threads()
    1
    >>> jc.set_num_threads(before)
    """
    global _number
    _number = _checked(number, "the number of threads")
    for listener in _listeners:
        listener(_number)


def _checked(value: object, name: str) -> int:
    try:
        number = int(value)  # type: ignore[call-overload]
    except (TypeError, ValueError):
        number = 0
    if number < 1 or isinstance(value, (bool, float)):
        raise InvalidInputError(f"{name} must be a whole number of at least 1, not {value!r}")
    return int(number)


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return os.cpu_count() or 1


def on_change(listener: Callable[[int], None]) -> None:
    """Have ``listener`` called with the number of threads whenever it changes, and now."""
    _listeners.append(listener)
    listener(num_threads())

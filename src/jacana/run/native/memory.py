"""Arrays that are used again once nobody holds them.

Fresh memory is dear: the first touch of each page is an interrupt, and filling a new array of 8 MB takes many times as
long as filling an old one. A program makes the same arrays at every call, results and temporaries alike, so each keeps
hold of what it made last, and hands it out again if nobody else does.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from functools import partial

import numpy as np

from ...graph.node import Array, DType, Shape

SMALL = 2**18  # bytes up to which an array comes from NumPy's own heap, which is quick
LARGE = 2**24  # bytes from which an array is not kept back: somebody may need the memory
KEPT = 2  # arrays kept of each kind: a caller may hold the last result while it asks for the next


def _count(kept: list[Array]) -> int:
    array = kept.pop()
    return sys.getrefcount(array)


ALONE = _count([np.empty(1)])  # references to an array that only a local variable holds


class Recycled:
    """Makes arrays of one shape and dtype, old ones where it can. Threads may call it at the same time."""

    def __init__(self, shape: Shape, dtype: DType, zeroed: bool) -> None:
        self.shape, self.dtype, self.zeroed = shape, dtype, zeroed
        self.kept: list[Array] = []

    def __call__(self) -> Array:
        kept = self.kept
        held = []
        result = None
        while result is None:
            try:
                array = kept.pop()  # what is popped belongs to this thread
            except IndexError:
                break
            if sys.getrefcount(array) == ALONE and self._intact(array):
                result = array
            else:
                held.append(array)
        if result is None:
            result = (np.zeros if self.zeroed else np.empty)(self.shape, self.dtype)
            del held[KEPT - 1 :]
        elif self.zeroed:
            result.fill(0)
        kept.extend(held)
        kept.append(result)
        return result

    def _intact(self, array: Array) -> bool:
        """Whether nobody has changed more of it than its elements."""
        flags = array.flags
        return (
            array.shape == self.shape
            and array.dtype == self.dtype
            and flags.c_contiguous
            and flags.writeable
            and array.base is None
        )


def maker(shape: Shape, dtype: DType, zeroed: bool) -> Callable[[], Array]:
    """A function that gives an array whenever it is called: of zeros, or of anything."""
    if SMALL < math.prod(shape) * dtype.itemsize <= LARGE and sys.implementation.name == "cpython":
        return Recycled(shape, dtype, zeroed)
    return partial(np.zeros if zeroed else np.empty, shape, dtype)

"""Convolutions of one axis: ``np.convolve``, ``np.correlate``, and what ``scipy.signal`` has of them.

A short kernel is a sum of shifted copies, which executors fuse with what comes before and after. Two long arrays are
one operation (``graph/ops/convolution.py``).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..graph.build import assembled, index_node
from ..graph.index import Affine
from ..graph.ops.convolution import ConvolutionParams
from ..graph.ops.convolution import convolve as convolution
from ..graph.ops.convolution import correlate as correlation
from .lift import any_tracked, operand, plain_operand, with_zeros
from .table import implements
from .variable import raw, tracked, wrap_constant, wrap_node

SHIFTED = 16  # elements of a kernel up to which each has its own copy of the array


def long_pair(a: Any, v: Any) -> bool:
    """Whether two arrays are vectors long enough to be convolved as one operation of the program."""
    shapes = np.shape(raw(a)), np.shape(raw(v))
    return all(len(s) == 1 and s[0] > SHIFTED for s in shapes) and any_tracked((a, v))


def convolved(a: Any, v: Any, value: Any, mode: str, first: int | None = None, transforms: bool = False) -> Any:
    """The convolution of two vectors, whose number is known, as one operation.

    Args:
        a: vector of n elements.
        v: vector of m elements; in mode "valid" the shorter one.
        value: the number.
        mode: "full", "same" or "valid".
        first: where the result begins in the full one.
        transforms: by Fourier transforms.
    """
    value = np.asarray(value)
    params = ConvolutionParams(transforms)
    # A kernel of zeros and others has no entry where it is zero.
    one, other = (operand(x, np.shape(raw(x)), value.dtype) for x in (a, with_zeros(v)))
    if mode == "valid":
        last = other.size - 1
        turned = index_node(other, other.shape, (Affine(last, ((0, -1),)),))
        return wrap_node(correlation(turned, one, params=params), value)
    whole = convolution(one, other, params=params)
    return wrap_node(index_node(whole, value.shape, (Affine(first or 0, ((0, 1),)),)), value)


@implements(np.convolve)
def convolve(a: Any, v: Any, mode: str = "full") -> Any:
    """One operation for two long arrays; else the sum over shifted copies."""
    a, v = np.atleast_1d(plain_operand(a)), np.atleast_1d(plain_operand(v))
    if np.size(raw(v)) > np.size(raw(a)):
        a, v = v, a
    n, m = np.size(raw(a)), np.size(raw(v))
    value = np.convolve(raw(a), raw(v), mode)  # type: ignore[call-overload]
    if not any_tracked((a, v)):
        return wrap_constant(value)
    if value.dtype.kind == "f" and long_pair(a, v):
        return convolved(a, v, value, mode, (m - 1) // 2 if mode == "same" else 0)
    if tracked(v) is not None and mode != "valid":
        # Products at the sum of their places: no entry for what a frame of zeros would multiply.
        products = np.multiply.outer(a, v)
        node = operand(products, (n, m), value.dtype)
        places = (Affine(0, ((0, 1), (1, 1))),)
        total = assembled([(node, places)], (n + m - 1,), value.dtype, disjoint=False)
        whole = wrap_node(total, np.convolve(raw(a), raw(v)))
        first = (m - 1) // 2 if mode == "same" else 0
        return wrap_node(whole[first : first + value.size].node, value)
    padded = np.pad(a, (m - 1, m - 1))
    v = with_zeros(v)  # a central difference has no entry in the middle
    full = sum(padded[m - 1 - k : n + 2 * m - 2 - k] * v[k] for k in range(m))
    start = {"full": 0, "same": (m - 1) // 2, "valid": m - 1}[mode]
    return wrap_node(full[start : start + value.size].node, value)


@implements(np.correlate)
def correlate(a: Any, v: Any, mode: str = "valid") -> Any:
    """Convolution with the second array reversed."""
    if np.size(raw(v)) > np.size(raw(a)):
        return np.flip(convolve(v, np.flip(np.atleast_1d(plain_operand(a))), mode))
    return convolve(a, np.flip(np.atleast_1d(plain_operand(v))), mode)


__all__ = ["convolve", "convolved", "correlate", "long_pair"]

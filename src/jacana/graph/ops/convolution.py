"""Convolution of two arrays along their last axis, and the correlation that is its transpose.

With ``a`` of length n, ``b`` of length m and ``c`` of length n + m - 1, the sum of ``a[i] b[j] c[i + j]`` over all i
and j is linear in each of the three. Its derivative by c is the convolution of a and b; by b it is the correlation of
a with c; and so on in a circle, so that these two operations are all that derivatives of any order are made of.

As an edge each is the matrix of a linear map (``Matrix`` in ``graph/node.py``): ``a[k - j]``, constant along its
diagonals (Toeplitz), or ``c[i + j]``, constant along the others (Hankel). A product with one is a convolution or a
correlation again, and the matrix is formed only where its entries are asked for. See Golub and Van Loan, "Matrix
Computations", 4th edition, section 4.7.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ..index import Affine, identity
from ..node import Array, DType, Edges, Factor, Matrix, Node, Operation, Shape, Term, register
from .peel import peel

PIECE = 4096  # products that are summed at once


class ConvolutionParams(NamedTuple):
    """Whether it is computed by Fourier transforms: faster for long arrays, with errors relative to the largest."""

    transforms: bool

    def batched(self) -> ConvolutionParams:
        """The same of each sample, with a batch axis in front."""
        return self


class BandedParams(NamedTuple):
    """The number of columns of a matrix, and how products with it are computed."""

    columns: int
    transforms: bool

    def batched(self) -> BandedParams:
        """The same of each sample, with a batch axis in front."""
        return self


# --- values ---------------------------------------------------------------------------------------------------------


def _convolve_evaluate(params: ConvolutionParams, a: Array, b: Array) -> Array:
    n, m = a.shape[-1], b.shape[-1]
    if params.transforms and a.size:
        from scipy.signal import fftconvolve  # only by who uses it

        return np.asarray(fftconvolve(a, b, axes=-1))
    if n < m:
        a, b, n, m = b, a, m, n
    batch = a.shape[:-1]
    if not batch:
        return np.convolve(a, b)
    result = np.zeros((*batch, n + m - 1), a.dtype)
    if math.prod(batch) <= m:
        for where in np.ndindex(batch):
            result[where] = np.convolve(a[where], b[where])
    else:
        for j in range(m):
            result[..., j : j + n] += a * b[..., j : j + 1]
    return result


def _correlate_evaluate(params: ConvolutionParams, a: Array, c: Array) -> Array:
    n, m = a.shape[-1], c.shape[-1] - a.shape[-1] + 1
    if params.transforms and a.size:
        from scipy.signal import fftconvolve

        return np.asarray(fftconvolve(c, a[..., ::-1], mode="valid", axes=-1))
    batch = a.shape[:-1]
    if not batch:
        return _correlated(a, c)
    result = np.zeros((*batch, m), a.dtype)
    if math.prod(batch) <= min(n, m):
        for where in np.ndindex(batch):
            result[where] = _correlated(a[where], c[where])
    elif n < m:
        for i in range(n):
            result += a[..., i : i + 1] * c[..., i : i + m]
    else:
        for j in range(m):
            result[..., j] = np.add.reduce(a * c[..., j : j + n], axis=-1, dtype=a.dtype)
    return result


def _correlated(a: Array, c: Array) -> Array:
    """``np.correlate`` piece by piece: of longer ones BLAS shares each sum among threads, which takes longer."""
    if a.size <= PIECE:
        return np.correlate(c, a)
    length = c.size - a.size
    pieces = [slice(k, min(k + PIECE, a.size)) for k in range(0, a.size, PIECE)]
    parts = [np.correlate(c[p.start : p.stop + length], a[p]) for p in pieces]
    return np.asarray(np.add.reduce(parts, dtype=a.dtype))


def _toeplitz_evaluate(params: BandedParams, a: Array) -> Array:
    n, m = a.shape[-1], params.columns
    result = np.zeros((*a.shape[:-1], n + m - 1, m), a.dtype)
    for j in range(m):
        result[..., j : j + n, j] = a
    return result


def _hankel_evaluate(params: BandedParams, c: Array) -> Array:
    return np.ascontiguousarray(np.lib.stride_tricks.sliding_window_view(c, params.columns, axis=-1))


# --- shapes ---------------------------------------------------------------------------------------------------------


def _same_batch(a: Node, b: Node) -> None:
    assert a.shape[:-1] == b.shape[:-1] and a.dtype == b.dtype and a.shape[-1] and b.shape[-1], (a, b)


def _convolve_infer(params: ConvolutionParams, a: Node, b: Node) -> tuple[Shape, DType]:
    _same_batch(a, b)
    return (*a.shape[:-1], a.shape[-1] + b.shape[-1] - 1), a.dtype


def _correlate_infer(params: ConvolutionParams, a: Node, c: Node) -> tuple[Shape, DType]:
    _same_batch(a, c)
    assert a.shape[-1] <= c.shape[-1], (a, c)
    return (*a.shape[:-1], c.shape[-1] - a.shape[-1] + 1), a.dtype


def _toeplitz_infer(params: BandedParams, a: Node) -> tuple[Shape, DType]:
    return (*a.shape[:-1], a.shape[-1] + params.columns - 1, params.columns), a.dtype


def _hankel_infer(params: BandedParams, c: Node) -> tuple[Shape, DType]:
    return (*c.shape[:-1], c.shape[-1] - params.columns + 1, params.columns), c.dtype


# --- products with the matrices -------------------------------------------------------------------------------------


def _product(operation: Operation, matrix: Node, array: Node) -> Node:
    """The operation of what a matrix is made of, and of every column of an array."""
    from ..build import broadcast_axes, transpose

    source = matrix.inputs[0]
    lead, rank = source.ndim - 1, array.ndim
    columns = transpose(array, (*range(lead), *range(lead + 1, rank), lead))
    wide = broadcast_axes(source, (*columns.shape[:-1], source.shape[-1]), (*range(lead), rank - 1))
    params = ConvolutionParams(matrix.params.transforms)
    pair = (columns, wide) if matrix.op is hankel else (wide, columns)
    return transpose(operation(*pair, params=params), (*range(lead), rank - 1, *range(lead, rank - 1)))


def _toeplitz_product(matrix: Node, array: Node, transposed: bool) -> Node:
    return _product(correlate if transposed else convolve, matrix, array)


def _hankel_product(matrix: Node, array: Node, transposed: bool) -> Node:
    return _product(correlate, matrix, array)  # the transpose is the same matrix with other lengths


def _toeplitz_copies(matrix: Node) -> Term:
    (a,) = matrix.inputs
    lead, every = a.ndim - 1, identity(a.ndim + 1)
    row = Affine(0, ((lead, 1), (lead + 1, 1)))
    return Term((*a.shape, matrix.params.columns), (*every[:lead], row, every[lead + 1]), every[: lead + 1])


def _hankel_copies(matrix: Node) -> Term:
    lead, every = matrix.ndim - 2, identity(matrix.ndim)
    return Term(matrix.shape, every, (*every[:lead], Affine(0, ((lead, 1), (lead + 1, 1)))))


# --- derivatives ----------------------------------------------------------------------------------------------------


def _matrix_factor(operation: Operation, source: Node, columns: int, transforms: bool, turned: bool) -> Factor:
    """The matrix made of an array, without the batch axes along which that is only replicated.

    Its rows are the axis after the batch and its columns the one after that, or (``turned``) the other way round.
    """
    from ..build import broadcast_axes

    lead = source.ndim - 1
    node, axes = peel(source, tuple(range(source.ndim)))
    batch = tuple(sorted({*axes} - {lead}))
    order = (*batch, lead)
    node = broadcast_axes(node, tuple(source.shape[a] for a in order), [order.index(a) for a in axes])
    ends = (lead + 1, lead) if turned else (lead, lead + 1)
    return operation(node, params=BandedParams(columns, transforms)), (*batch, *ends)


def _edge(node: Node, source: Node, factor: Factor) -> tuple[Term, ...]:
    lead, every = node.ndim - 1, identity(node.ndim + 1)
    col = (*every[:lead], every[lead + 1])
    return (Term((*node.shape, source.shape[-1]), every[: lead + 1], col, (factor,)),)


def _convolve_edges(node: Node) -> Edges:
    a, b = node.inputs
    transforms = node.params.transforms
    by_a = _matrix_factor(toeplitz, b, a.shape[-1], transforms, False)
    by_b = _matrix_factor(toeplitz, a, b.shape[-1], transforms, False)
    return _edge(node, a, by_a), _edge(node, b, by_b)


def _correlate_edges(node: Node) -> Edges:
    a, c = node.inputs
    transforms = node.params.transforms
    by_a = _matrix_factor(hankel, c, a.shape[-1], transforms, False)
    by_c = _matrix_factor(toeplitz, a, node.shape[-1], transforms, True)
    return _edge(node, a, by_a), _edge(node, c, by_c)


def _operation(name: str, evaluate: Callable[..., Array], infer: Any, edges: Callable[[Node], Edges]) -> Operation:
    return register(Operation(name=name, family="convolution", evaluate=evaluate, infer=infer, edges=edges, cost=40.0))


convolve = _operation("convolve", _convolve_evaluate, _convolve_infer, _convolve_edges)
correlate = _operation("correlate", _correlate_evaluate, _correlate_infer, _correlate_edges)

toeplitz = register(
    Operation(
        name="toeplitz",
        family="matrix",
        evaluate=_toeplitz_evaluate,
        infer=_toeplitz_infer,
        edges=lambda node: ((_toeplitz_copies(node),),),
        matrix=Matrix(
            lambda matrix: 1,
            _toeplitz_product,
            batch=lambda matrix: matrix.ndim - 2,
            copies=_toeplitz_copies,
            band=lambda matrix: (0, matrix.inputs[0].shape[-1] - 1),
        ),
    )
)
hankel = register(
    Operation(
        name="hankel",
        family="matrix",
        evaluate=_hankel_evaluate,
        infer=_hankel_infer,
        edges=lambda node: ((_hankel_copies(node),),),
        matrix=Matrix(lambda matrix: 1, _hankel_product, batch=lambda matrix: matrix.ndim - 2, copies=_hankel_copies),
    )
)

__all__ = ["BandedParams", "ConvolutionParams", "convolve", "correlate", "hankel", "toeplitz"]

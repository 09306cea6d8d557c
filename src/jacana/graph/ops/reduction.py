"""Reductions that are not sums: products, extrema, norms, running sums, and the ones without a derivative."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from ..index import Affine, Lookup, Table, identity
from ..node import Array, DType, Edges, Matrix, Node, Operation, Shape, Term, register
from .peel import peel


class AxesParams(NamedTuple):
    """The axes (sorted, not negative) that are reduced; they do not remain in the result."""

    axes: tuple[int, ...]

    def batched(self) -> AxesParams:
        """The same of each sample, with a batch axis in front."""
        return AxesParams(tuple(k + 1 for k in self.axes))


class AxisParams(NamedTuple):
    """The one axis along which the operation works."""

    axis: int

    def batched(self) -> AxisParams:
        """The same of each sample, with a batch axis in front."""
        return AxisParams(self.axis + 1)


def _reduced(params: AxesParams, x: Node) -> tuple[Shape, DType]:
    return tuple(n for k, n in enumerate(x.shape) if k not in params.axes), x.dtype


def _reduced_to(dtype: type) -> Callable[[AxesParams, Node], tuple[Shape, DType]]:
    return lambda params, x: (_reduced(params, x)[0], np.dtype(dtype))


def kept_axes(rank: int, axes: tuple[int, ...]) -> tuple[int, ...]:
    """The axes that a reduction keeps."""
    return tuple(k for k in range(rank) if k not in axes)


def _spread(y: Node, shape: Shape, axes: tuple[int, ...]) -> Node:
    """The result of a reduction, replicated over the reduced axes again."""
    from ..build import broadcast_axes

    return broadcast_axes(y, shape, kept_axes(len(shape), axes))


def _term(x: Node, axes: tuple[int, ...], coefficient: Node | None, mask: Node | None = None) -> Edges:
    every = identity(x.ndim)
    labels = tuple(range(x.ndim))
    row = tuple(every[k] for k in kept_axes(x.ndim, axes))
    factors = () if coefficient is None else (peel(coefficient, labels),)
    masks = () if mask is None else (peel(mask, labels),)
    return ((Term(x.shape, row, every, factors, masks),),)


def _extremum_edges(node: Node) -> Edges:
    # Ties share the derivative in equal parts; everything else is structurally zero, so it is a mask.
    from ..build import cast_to, sum_axes
    from .elementwise import equal

    (x,) = node.inputs
    mask = equal(x, _spread(node, x.shape, node.params.axes))
    count = sum_axes(cast_to(mask, x.dtype), node.params.axes)
    return _term(x, node.params.axes, _spread(1.0 / count, x.shape, node.params.axes), mask)


def _prod_edges(node: Node) -> Edges:
    # The product of all the others, element by element, so that zeros are right: prod over j of (1 if j == i else x_j).
    from ..build import broadcast_axes, constant_array, full, movement_reshape, transpose
    from .elementwise import select

    (x,) = node.inputs
    axes = node.params.axes
    kept = kept_axes(x.ndim, axes)
    count = int(np.prod([x.shape[k] for k in axes], dtype=np.int64))
    lead = tuple(x.shape[k] for k in kept)
    rows = movement_reshape(transpose(x, (*kept, *axes)), (*lead, count))
    pairs = (*lead, count, count)
    rank = len(lead)
    others = broadcast_axes(rows, pairs, (*range(rank), rank + 1))
    own = broadcast_axes(constant_array(np.eye(count, dtype=bool)), pairs, (rank, rank + 1))
    exclusive = prod(select(own, full(1.0, pairs, x.dtype), others), params=AxesParams((rank + 1,)))
    shaped = movement_reshape(exclusive, (*lead, *(x.shape[k] for k in axes)))
    back = [(*kept, *axes).index(k) for k in range(x.ndim)]
    return _term(x, axes, transpose(shaped, tuple(back)))


def _norm_edges(node: Node) -> Edges:
    # x / |x|, and zero (the subgradient of least length) where the norm is zero.
    from ..build import full
    from .elementwise import equal, select

    (x,) = node.inputs
    spread = _spread(node, x.shape, node.params.axes)
    zero = full(0.0, x.shape, x.dtype)
    return _term(x, node.params.axes, select(equal(spread, zero), zero, x / spread))


class TriangleParams(NamedTuple):
    """The size and dtype of a lower triangle of ones."""

    size: int
    dtype: DType


def _triangle_product(matrix: Node, array: Node, transposed: bool) -> Node:
    # Below the diagonal: sums of what came before; above it: of what follows, which is the same read backwards.
    total = cumsum(_backwards(array) if transposed else array, params=AxisParams(0))
    return _backwards(total) if transposed else total


def _backwards(array: Node) -> Node:
    from ..build import index_node

    first = Affine(array.shape[0] - 1, ((0, -1),))
    return index_node(array, array.shape, (first, *identity(array.ndim)[1:]))


def _triangle_support(matrix: Node) -> tuple[Term, ...]:
    # Row i takes columns j <= i: the pairs are enumerated once, as two tables over one axis.
    rows, cols = np.tril_indices(matrix.params.size)
    return (Term((len(rows),), (Lookup(Table(rows), (0,)), Lookup(Table(cols), (0,))), ()),)


triangle = register(
    Operation(
        name="triangle",
        family="matrix",
        evaluate=lambda params: np.tri(params.size, dtype=params.dtype),
        infer=lambda params: ((params.size, params.size), params.dtype),
        edges=lambda node: (),
        matrix=Matrix(
            lambda matrix: 1, _triangle_product, _triangle_support, band=lambda matrix: (0, matrix.params.size - 1)
        ),
    )
)


def _cumsum_edges(node: Node) -> Edges:
    # A triangle of ones along the axis; products with it are running sums again.
    (x,) = node.inputs
    axis, rank = node.params.axis, x.ndim
    every = identity(rank + 1)
    size = x.shape[axis]
    col = tuple(every[rank] if k == axis else every[k] for k in range(rank))
    ones = triangle(params=TriangleParams(size, x.dtype))
    return ((Term((*x.shape, size), every[:rank], col, ((ones, (axis, rank)),)),),)


def _cumprod_edges(node: Node) -> Edges:
    # dy[i]/dx[j] for j <= i is the product of the others: of those before j, and of those from j + 1 to i. Nothing is
    # divided, so zeros are right. The triangle says where the entries are.
    from ..build import broadcast_axes, constant_array, full
    from .elementwise import select

    (x,) = node.inputs
    axis, rank = node.params.axis, x.ndim
    n = x.shape[axis]
    if n == 0:
        return (None,)
    every = identity(rank + 1)
    # Axes of the coefficient: those of x with j in the place of the axis, then i.
    pairs = (*x.shape, n)
    later = broadcast_axes(x, pairs, [rank if k == axis else k for k in range(rank)])
    mask = broadcast_axes(constant_array(np.triu(np.ones((n, n), bool), 1)), pairs, (axis, rank))
    after = cumprod(select(mask, later, full(1.0, pairs, x.dtype)), params=AxisParams(rank))
    coefficient = after * broadcast_axes(_product_before(node, axis), pairs, tuple(range(rank)))
    labels = (*(rank if k == axis else k for k in range(rank)), axis)
    col = tuple(every[rank] if k == axis else every[k] for k in range(rank))
    ones = triangle(params=TriangleParams(n, x.dtype))
    return ((Term((*x.shape, n), every[:rank], col, ((coefficient, labels), (ones, (axis, rank)))),),)


def _product_before(running: Node, axis: int) -> Node:
    """Running products one place later: one at the start."""
    from ..build import assembled, full, index_node

    every = identity(running.ndim)
    start = tuple(1 if k == axis else n for k, n in enumerate(running.shape))
    rest = tuple(n - 1 if k == axis else n for k, n in enumerate(running.shape))
    later = tuple(Affine(1, ((k, 1),)) if k == axis else every[k] for k in range(running.ndim))
    first = tuple(Affine(0) if k == axis else every[k] for k in range(running.ndim))
    parts = [(full(1.0, start, running.dtype), first), (index_node(running, rest, every), later)]
    return assembled(parts, running.shape, running.dtype, disjoint=True)


def _no_edges(node: Node) -> Edges:
    return (None,)


def _reduction(
    name: str,
    evaluate: Callable[[Array, tuple[int, ...]], Any],
    edges: Callable[[Node], Edges],
    infer: Callable[[AxesParams, Node], tuple[Shape, DType]] = _reduced,
    smooth: bool = True,
    emit: Callable[..., Any] | None = None,
) -> Operation:
    return register(
        Operation(
            name=name,
            family="reduction",
            evaluate=lambda params, x: np.asarray(evaluate(x, params.axes)),
            infer=infer,
            edges=edges,
            emit=emit,
            smooth=smooth,
        )
    )


prod = _reduction(
    "prod",
    lambda x, axes: np.multiply.reduce(x, axis=axes, dtype=x.dtype),
    _prod_edges,
    emit=lambda e, *xs: reduce(e.mul, xs),
)
reduce_max = _reduction(
    "max", lambda x, axes: np.maximum.reduce(x, axis=axes), _extremum_edges, smooth=False,
    emit=lambda e, *xs: reduce(e.maximum, xs),
)  # fmt: skip
reduce_min = _reduction(
    "min", lambda x, axes: np.minimum.reduce(x, axis=axes), _extremum_edges, smooth=False,
    emit=lambda e, *xs: reduce(e.minimum, xs),
)  # fmt: skip
norm = _reduction(
    "norm", lambda x, axes: np.sqrt(np.add.reduce(x * x, axis=axes)), _norm_edges,
    emit=lambda e, *xs: e.sqrt(reduce(e.add, [e.mul(x, x) for x in xs])),
)  # fmt: skip
reduce_any = _reduction(
    "any", lambda x, axes: np.any(x, axis=axes), _no_edges, _reduced_to(bool), smooth=False,
    emit=lambda e, *xs: reduce(e.either, xs),
)  # fmt: skip
reduce_all = _reduction(
    "all", lambda x, axes: np.all(x, axis=axes), _no_edges, _reduced_to(bool), smooth=False,
    emit=lambda e, *xs: reduce(e.both, xs),
)  # fmt: skip


def _along(
    name: str, evaluate: Callable[[Array, int], Any], edges: Callable[[Node], Edges], infer: Callable[..., Any]
) -> Operation:
    return register(
        Operation(
            name=name,
            family="reduction",
            evaluate=lambda params, x: np.asarray(evaluate(x, params.axis)),
            infer=infer,
            edges=edges,
            smooth=edges is not _no_edges,
        )
    )


def _picked(params: AxisParams, x: Node) -> tuple[Shape, DType]:
    return tuple(n for k, n in enumerate(x.shape) if k != params.axis), np.dtype(np.intp)


cumsum = _along(
    "cumsum", lambda x, k: np.cumsum(x, axis=k, dtype=x.dtype), _cumsum_edges, lambda params, x: (x.shape, x.dtype)
)
cumprod = _along(
    "cumprod", lambda x, k: np.cumprod(x, axis=k, dtype=x.dtype), _cumprod_edges, lambda params, x: (x.shape, x.dtype)
)
argmax = _along("argmax", lambda x, k: np.argmax(x, axis=k), _no_edges, _picked)
argmin = _along("argmin", lambda x, k: np.argmin(x, axis=k), _no_edges, _picked)


def _order(name: str, how: Any) -> Operation:
    return _along(
        name, lambda x, k: np.argsort(x, axis=k, kind=how), _no_edges, lambda params, x: (x.shape, np.dtype(np.intp))
    )  # fmt: skip


# They differ where values are equal.
argsort = _order("argsort", "stable")
argsort_quick = _order("argsort_quick", "quicksort")
argsort_heap = _order("argsort_heap", "heapsort")

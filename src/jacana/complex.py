"""Derivatives of functions with complex arguments or results, and what they mean (docs/complex.md).

A complex array is two real ones, so the derivative of ``w = u + i v`` by ``z = x + i y`` is four real blocks ``u_x,
u_y, v_x, v_y``. Where ``u_x = v_y`` and ``v_x = -u_y`` (the equations of Cauchy and Riemann) they are multiplication by
one complex matrix ``u_x + i v_x``: that is the Jacobian, and where they do not hold it does not exist and is refused.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import trees
from .differentiate import Order, eliminate
from .differentiate.derivatives import jacobian_dtype
from .differentiate.eliminate import DENSE_LIMIT
from .errors import DifferentiationError, InvalidInputError
from .graph.build import apply, full
from .graph.node import REGISTRY, Array, DType, Node, topological
from .graph.ops.reduction import AxesParams
from .record import ComplexVariable, Variable, is_complex
from .replay import Built, Traced, whole
from .results import AUTO_DENSE_SIZE, AUTO_OPERATOR, LinearizedProducts, Stacked, stack
from .structure import Terms, blocks_node, dense_node, sparse_plan

__all__ = ["deliver_complex", "leaves_of", "matched_vector", "real_form"]

# How far the blocks may be from the equations of Cauchy and Riemann, relative to the largest entry: rounding is less.
TOLERANCE = {np.dtype("f8"): 1e-9, np.dtype("f4"): 1e-3}

Leaf = tuple[Node, Node | None]


def leaves_of(nodes: Sequence[Node], are_complex: Sequence[bool]) -> list[Leaf]:
    """The nodes of each leaf: its real part, and its imaginary part or None."""
    rest = iter(nodes)
    return [(next(rest), next(rest) if flag else None) for flag in are_complex]


def deliver_complex(traced: Traced, format: str, order: Order, with_value: bool) -> Built:
    """The Jacobian of a function of which an argument or a result is complex."""
    results = leaves_of(traced.outputs, traced.complex_outputs)
    arguments = leaves_of(traced.by, traced.complex_wanted)
    if format == "auto":
        size = sum(y.size for y, _ in results) * sum(x.size for x, _ in arguments)
        format = "dense" if size <= AUTO_DENSE_SIZE else "operator" if size > AUTO_OPERATOR else "csr"
    if format == "operator":
        _refuse_real_results(traced, results, arguments)
        return _after_value(traced, _operator(traced, results, arguments), with_value)
    limit = DENSE_LIMIT if format in ("dense", "blocks") else 0
    maps = format in ("dense", "blocks")
    flat = eliminate(list(traced.outputs), traced.by, order, unrestricted=limit, whole_maps=maps).terms
    first, second = _positions(traced.complex_outputs), _positions(traced.complex_wanted)

    def terms(i: int, a: int, j: int, b: int) -> Terms:
        return flat[first[i] + a][second[j] + b] if results[i][a] and arguments[j][b] else ()

    blocks = [
        [_Block(y, x, [[terms(i, a, j, b) for b in (0, 1)] for a in (0, 1)]) for j, x in enumerate(arguments)]
        for i, y in enumerate(results)
    ]
    for i, row in enumerate(blocks):
        for j, block in enumerate(row):
            if block.y[1] is None and block.x[1] is not None and (block.terms[0][0] or block.terms[0][1]):
                raise _real_result(traced, i, j)
    if format in ("dense", "blocks"):
        return _dense(traced, blocks, dense_node if format == "dense" else blocks_node, with_value)
    return _after_value(traced, _matrix(traced, results, arguments, blocks, format), with_value)


def _after_value(traced: Traced, built: Built, with_value: bool) -> Built:
    if not with_value:
        return built
    count = len(traced.outputs)

    def finish(arrays: list[Any]) -> Any:
        return traced.value(arrays[:count]), built.finish(arrays[count:])

    return Built([*traced.outputs, *built.nodes], finish, inline=False)


def _refuse_real_results(traced: Traced, results: list[Leaf], arguments: list[Leaf]) -> None:
    """A real result that depends on a complex argument, before anything is derived."""
    for i, (y, im) in enumerate(results):
        if im is None and y.dtype.kind == "f":
            needed = set(topological([y]))
            for j, (x, other) in enumerate(arguments):
                if other is not None and (x in needed or other in needed):
                    raise _real_result(traced, i, j)


def _real_result(traced: Traced, i: int, j: int) -> DifferentiationError:
    """A real result of a complex argument has no complex derivative, unless it does not depend on it."""
    output, argument = trees.leaf_name(traced.output_tree, i), trees.leaf_name(traced.wanted_tree, j)
    return DifferentiationError(
        f"jacobian: {traced.name} returns real numbers{f' ({output})' * bool(output)} of a complex argument"
        f"{f' ({argument})' * bool(argument)}, which has no complex derivative. Use grad (of a real scalar), jvp or "
        "vjp, or the Jacobian of jacana.real_form(f), by real and imaginary part (docs/complex.md)"
    )


def _positions(are_complex: Sequence[bool]) -> list[int]:
    """Where the nodes of each leaf begin."""
    return [0, *np.cumsum([2 if flag else 1 for flag in are_complex]).tolist()]


class _Block:
    """The derivative of one leaf of the result by one leaf of the arguments: up to four real blocks."""

    def __init__(self, y: Leaf, x: Leaf, terms: list[list[Terms]]) -> None:
        self.y, self.x, self.terms = y, x, terms
        self.dtype: DType = jacobian_dtype(y[0], x[0])

    def nodes(self, store: Callable[..., Node]) -> list[Node]:
        """The real part of the Jacobian, the imaginary part if it is complex, and whether it exists."""
        (y, v), (x, im) = self.y, self.x

        def block(a: int, b: int) -> Node:
            return store(self.terms[a][b], y.shape, x.shape, self.dtype)

        if v is None:
            return [block(0, 0)]
        if im is None:
            return [block(0, 0), block(1, 0)]
        u_x, u_y, v_x, v_y = block(0, 0), block(0, 1), block(1, 0), block(1, 1)
        return [u_x, v_x, _holds(u_x, u_y, v_x, v_y)]


def _holds(u_x: Node, u_y: Node, v_x: Node, v_y: Node) -> Node:
    """Whether the equations of Cauchy and Riemann hold, up to rounding. What is no number decides nothing."""
    every = tuple(range(u_x.ndim))

    def largest(*nodes: Node) -> Node:
        return functools.reduce(
            lambda a, b: apply("maximum", a, b),
            (REGISTRY["max"](apply("absolute", n), params=AxesParams(every)) if every else apply("absolute", n)
             for n in nodes),
        )  # fmt: skip

    if u_x.size == 0:
        return full(True, (), np.dtype(bool))
    off = largest(u_x - v_y, v_x + u_y)
    bound = largest(u_x, u_y, v_x, v_y) * TOLERANCE[u_x.dtype]
    return apply("logical_not", apply("greater", off, bound))


def _not_holomorphic(name: str) -> DifferentiationError:
    return DifferentiationError(
        f"jacobian: {name} is not holomorphic at this point (a conjugate, absolute value or real part takes part), "
        "so it has no complex Jacobian. Use jvp or vjp, which hold for every function, or the Jacobian of "
        "jacana.real_form(f), by real and imaginary part (docs/complex.md)"
    )


def _dense(traced: Traced, blocks: list[list[_Block]], store: Callable[..., Node], with_value: bool) -> Built:
    stored = [[block.nodes(store) for block in row] for row in blocks]
    values = list(traced.outputs) if with_value else []
    nodes = [*values, *(node for row in stored for found in row for node in found)]

    def finish(arrays: list[Any]) -> Any:
        rest = iter(arrays[len(values) :])
        rows = []
        for row in stored:
            items = []
            for found in row:
                got = [next(rest) for _ in found]
                if len(got) == 3 and not bool(got[2]):
                    raise _not_holomorphic(traced.name)
                items.append(got[0] if len(got) == 1 else whole(got[0], got[1]))
            rows.append(trees.unflatten(traced.wanted_tree, items))
        jacobians = trees.unflatten(traced.output_tree, rows)
        return (traced.value(arrays[: len(values)]), jacobians) if with_value else jacobians

    return Built(nodes, finish)


def _matrix(
    traced: Traced, results: list[Leaf], arguments: list[Leaf], blocks: list[list[_Block]], format: str
) -> Built:
    """All results by all arguments as one complex matrix."""
    outputs, inputs = [y for y, _ in results], [x for x, _ in arguments]
    quarters = [
        [stack(outputs, inputs, [[block.terms[a][b] for block in row] for row in blocks]) for b in (0, 1)]
        for a in (0, 1)
    ]
    # A real argument has no derivative by an imaginary part that could be compared with the one by its real part.
    checked = [x is not None for _, x in arguments]
    columns = np.repeat(checked, [x.size for x in inputs])
    return _sparse(traced, quarters, columns, format)


def _sparse(traced: Traced, quarters: list[list[Stacked]], checked: Array, format: str) -> Built:
    plans = [sparse_plan(s.terms, s.rows, s.cols, s.dtype, "csr") for row in quarters for s in row]
    shape = plans[0].shape
    keys = [plan.rows.astype(np.int64) * shape[1] + plan.cols for plan in plans]
    every = np.unique(np.concatenate(keys))
    places = [np.searchsorted(every, k) for k in keys]
    row, column = np.divmod(every, shape[1]) if shape[1] else (every, every)
    indptr = np.searchsorted(row, np.arange(shape[0] + 1)).astype(np.int32 if every.size < 2**31 else np.int64)
    indices = column.astype(indptr.dtype)
    for array in (indptr, indices):
        array.flags.writeable = False
    compared = checked[column]
    dtype = quarters[0][0].dtype

    def finish(arrays: list[Any]) -> Any:
        from scipy import sparse

        u_x, u_y, v_x, v_y = (np.zeros(every.size, dtype) for _ in range(4))
        for data, place, values in zip((u_x, u_y, v_x, v_y), places, arrays, strict=True):
            data[place] = values
        _check(traced, (u_x, u_y, v_x, v_y), compared)
        return sparse.csr_array((whole(u_x, v_x), indices, indptr), shape=shape).asformat(format)

    return Built([plan.data for plan in plans], finish, inline=False)


def _check(traced: Traced, quarters: Sequence[Array], compared: Array) -> None:
    u_x, u_y, v_x, v_y = (q[compared] for q in quarters)
    if not u_x.size:
        return
    with np.errstate(all="ignore"):
        off = max(np.max(np.abs(u_x - v_y)), np.max(np.abs(v_x + u_y)))
        if off > TOLERANCE[u_x.dtype] * max(np.max(np.abs(q)) for q in (u_x, u_y, v_x, v_y)):
            raise _not_holomorphic(traced.name)


def _operator(traced: Traced, results: list[Leaf], arguments: list[Leaf]) -> Built:
    """By products of the real program: C-linear where the function is holomorphic, which a vector is asked for."""
    products = LinearizedProducts(traced.outputs, traced.by, _common_dtype(results, arguments))
    rows, cols = _part_places(results), _part_places(arguments)
    checked = cols[1] >= 0
    probe = np.cos(np.arange(1.0, cols.shape[1] + 1)) * checked

    def finish(arrays: list[Any]) -> Any:
        from .operators import ComplexOperator

        operator = ComplexOperator(products.operator(arrays), rows, cols)
        if checked.any():
            # Comparing all entries would form the matrix: no pattern in this vector could hide a difference.
            one, turned = operator @ probe.astype(complex), operator @ (1j * probe)
            with np.errstate(all="ignore"):
                largest = np.max(np.abs([one, turned]), initial=0.0)
                if np.max(np.abs(turned - 1j * one), initial=0.0) > TOLERANCE[products.dtype] * largest:
                    raise _not_holomorphic(traced.name)
        return operator

    return Built(products.factors, finish, inline=False)


def _common_dtype(results: list[Leaf], arguments: list[Leaf]) -> DType:
    return np.result_type(*(jacobian_dtype(y, x) for y, _ in results for x, _ in arguments))


def _part_places(leaves: list[Leaf]) -> Array:
    """Where the real and the imaginary part of each element are in the stack of all parts (-1: nowhere)."""
    places, start = [], 0
    for re, im in leaves:
        here = start + np.arange(re.size)
        start += re.size
        places.append(np.stack([here, np.full(re.size, -1) if im is None else here + re.size]))
        start += 0 if im is None else re.size
    return np.concatenate(places, axis=1) if places else np.zeros((2, 0), dtype=np.int64)


# --- products -------------------------------------------------------------------------------------------------------


def matched_vector(
    vector: Sequence[Node], are_complex: Sequence[bool], wanted: Sequence[Leaf], what: str
) -> list[Node]:
    """The parts of a vector as the leaves that it goes with have them; a real one may go with a complex leaf."""
    found: list[Node] = []
    for (re, im), (x, imaginary) in zip(leaves_of(vector, are_complex), wanted, strict=True):
        if im is not None and imaginary is None:
            raise InvalidInputError(f"{what} is complex where what it goes with is real")
        found.append(re)
        if imaginary is not None:
            found.append(full(0.0, x.shape, x.dtype) if im is None else im)
    return found


# --- the real form --------------------------------------------------------------------------------------------------


def real_form(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function of real numbers: complex arrays have their parts in a last axis of length two.

    Args:
        function: plain NumPy code with complex arguments and results (arrays or trees of arrays).

    Returns:
        A function that takes, for each complex array z, the real array ``np.stack([z.real, z.imag], axis=-1)`` and
        gives its complex results in the same way. Every argument that is a real array whose last axis has length two
        is taken for a complex one; others are passed on as they are. Every transform and every format works on it: the
        Jacobian has shape ``(*w.shape, 2, *z.shape, 2)``, the real 2 x 2 block for each pair of elements.

    >>> import numpy as np
    >>> import jacana as jc
    >>> f = jc.real_form(lambda z: z * np.abs(z))
    >>> z = np.array([3.0 + 4.0j])
    >>> jc.jacobian(f)(np.stack([z.real, z.imag], axis=-1))[0, :, 0, :]
    array([[6.8, 2.4],
           [2.4, 8.2]])
    """

    @functools.wraps(function)
    def real(*args: Any, **kwargs: Any) -> Any:
        leaves, tree = trees.flatten((args, kwargs))
        args, kwargs = trees.unflatten(tree, list(map(_as_complex, leaves)))
        results, shape = trees.flatten(function(*args, **kwargs))
        return trees.unflatten(shape, [np.stack([np.real(w), np.imag(w)], axis=-1) if is_complex(w) else w
                                       for w in results])  # fmt: skip

    return real


def _as_complex(leaf: Any) -> Any:
    shape = np.shape(leaf) if isinstance(leaf, (Variable, np.ndarray)) else ()
    if not shape or shape[-1] != 2 or leaf.dtype.kind != "f":
        return leaf
    if isinstance(leaf, Variable):
        return ComplexVariable(leaf[..., 0], leaf[..., 1])
    return whole(leaf[..., 0], leaf[..., 1])

"""Builders: small functions that make nodes, with the simplifications that are exact for every input.

What is never done here: ``0 * x -> 0``, ``x / x -> 1``, ``x + 0 -> x`` (wrong for NaN, infinity or -0.0).
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .index import Affine, Index, Lookup, axes_of, bounds, flatten, identity, plain_axis, rename, substitute
from .node import (
    CONSTANT,
    LITERAL,
    REGISTRY,
    Array,
    ConstantParams,
    DType,
    Factor,
    Node,
    Shape,
    literal,
    literal_value,
)
from .ops.contraction import ContractParams, contract
from .ops.convolution import hankel, toeplitz
from .ops.elementwise import CastParams, cast, multiply, number
from .ops.movement import AssembleParams, IndexParams, assemble, index, injective
from .ops.spectral import in_use

SMALL = 64  # rows and columns up to which a matrix is an operator rather than a table


def has_structure(array: Array) -> bool:
    """Whether the zeros of a captured array count as structure: in a mask always, else where few elements are others.

    Data with a zero here and there (a time that starts at 0) is no structure, and neither is a large table of numbers
    that happen to be zero; a banded, block-diagonal or selection matrix is, and so is a small one with a few zeros (the
    second difference of three points has two, the stoichiometry of two reactions of three substances as well).
    """
    if array.dtype == np.bool_:
        return array.ndim > 0
    if array.ndim == 0 or array.size == 0:
        return False
    count = np.count_nonzero(array)
    if array.ndim == 2 and max(array.shape) <= SMALL and min(array.shape) > 1:
        return bool(count <= 0.8 * array.size)
    return bool(count <= min(array.size // 2, 8 * max(array.shape)))


class FrozenArray:
    """A read-only array that equals another by content: constants that rules make, such as identity matrices."""

    __slots__ = ("_key", "array", "structural")

    live = False  # nobody can write into it

    def __init__(self, array: Array, structural: bool | None = None) -> None:
        self.array = np.array(array, order="C")
        self.array.flags.writeable = False
        self.structural = has_structure(self.array) if structural is None else structural
        self._key = (self.array.shape, self.array.dtype.str, self.array.tobytes(), self.structural)

    def value(self) -> Array:
        return self.array

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, FrozenArray) and self._key == other._key)


def constant(owner: Any, shape: Shape, dtype: DType) -> Node:
    """A captured array; ``owner.value()`` gives it when the program runs."""
    return CONSTANT(params=ConstantParams(owner, shape, dtype))


def constant_array(array: Array) -> Node:
    """An array known now and for ever; a number becomes a literal."""
    if array.ndim == 0:
        return literal(array, array.dtype)
    return constant(FrozenArray(array), array.shape, array.dtype)


def full(value: Any, shape: Shape, dtype: DType) -> Node:
    """A number replicated over ``shape``."""
    return index_node(literal(value, dtype), shape, ())


def zeros(shape: Shape, dtype: DType) -> Node:
    """An array of structural zeros."""
    return assemble(params=AssembleParams(shape, dtype, (), True, math.prod(shape) == 0))


def is_one(node: Node) -> bool:
    """Whether every element is the number one."""
    return bool(literal_value(node) == 1)


def remade(node: Node, inputs: Sequence[Node]) -> Node:
    """The node on other inputs; a read of what is now assembled, or read from elsewhere, is simplified."""
    if inputs == node.inputs:
        return node
    if node.op is index:
        return index_node(inputs[0], node.shape, node.params.indices)
    return node.op(*inputs, params=node.params)


def index_node(source: Node, shape: Shape, indices: Sequence[Index]) -> Node:
    """``result[d] = source[indices(d)]``, with an index of an index made one."""
    indices = tuple(indices)
    if shape == source.shape and indices == identity(len(shape)):
        return source
    if source.op is index:
        combined = tuple(substitute(e, indices, shape) for e in source.params.indices)
        known = [e.table for e in (*indices, *source.params.indices) if isinstance(e, Lookup)]
        if all(isinstance(e, Affine) or e.table in known for e in combined):
            return index_node(source.inputs[0], shape, combined)
    if source.op is assemble:
        found = _read_part(source, shape, indices)
        if found is not None:
            return found
    if source.op is toeplitz or source.op is hankel:
        found = _read_copy(source, shape, indices)
        if found is not None:
            return found
    return index(source, params=IndexParams(shape, indices))


_scalar_parts: weakref.WeakKeyDictionary[Node, dict[tuple[Index, ...], Node]] = weakref.WeakKeyDictionary()


def _read_part(source: Node, shape: Shape, indices: tuple[Index, ...]) -> Node | None:
    """What an index reads, if it falls wholly into one part of an assembled array."""
    if not source.params.disjoint or math.prod(shape) == 0:
        return None
    if all(isinstance(e, Affine) and not e.strides for e in indices):
        scalars = _scalar_parts.get(source)
        if scalars is None:
            scalars = {r: p for r, p in zip(source.params.rows, source.inputs, strict=True) if p.ndim == 0}
            _scalar_parts[source] = scalars
        if indices in scalars:
            return index_node(scalars[indices], shape, ())
    if len(source.inputs) > 64:
        return None
    for part, rows in zip(source.inputs, source.params.rows, strict=True):
        if len(source.inputs) == 1 and part.shape == shape and rows == indices:
            return part
        inner: list[Index | None] = [None] * part.ndim
        for row, wanted in zip(rows, indices, strict=True):
            if not isinstance(row, Affine) or not isinstance(wanted, Affine):
                break
            low, high = bounds(wanted, shape)
            if not row.strides:
                if (low, high) != (row.offset, row.offset):
                    break
            elif len(row.strides) == 1 and row.strides[0][1] == 1 and inner[row.strides[0][0]] is None:
                a = row.strides[0][0]
                if low < row.offset or high >= row.offset + part.shape[a]:
                    break
                inner[a] = Affine(wanted.offset - row.offset, wanted.strides)
            else:
                break
        else:
            chosen = [Affine(0) if e is None and n == 1 else e for e, n in zip(inner, part.shape, strict=True)]
            if None not in chosen:
                return index_node(part, shape, [e for e in chosen if e is not None])
    return None


def _read_copy(source: Node, shape: Shape, indices: tuple[Index, ...]) -> Node | None:
    """What an index reads of a matrix that is constant along diagonals, if it is no part of one to multiply by."""
    *batch, row, col = indices
    if math.prod(shape) == 0 or set(axes_of(row)).isdisjoint(axes_of(col)):
        return None
    (copied,) = source.inputs
    place = substitute(Affine(0, ((0, 1), (1, -1 if source.op is toeplitz else 1))), (row, col), shape)
    low, high = bounds(place, shape)
    return index_node(copied, shape, (*batch, place)) if low >= 0 and high < copied.shape[-1] else None


def broadcast_axes(node: Node, shape: Shape, axes: Sequence[int]) -> Node:
    """``node`` replicated into ``shape``, its array axes standing for ``axes`` of the result."""
    return index_node(node, shape, [Affine(0) if node.shape[k] == 1 else _axis(a) for k, a in enumerate(axes)])


def _axis(a: int) -> Index:
    return Affine(0, ((a, 1),))


def broadcast_to(node: Node, shape: Shape) -> Node:
    """NumPy's broadcasting to ``shape`` (which must be possible)."""
    lead = len(shape) - node.ndim
    indices = [Affine(0) if n == 1 else _axis(lead + k) for k, n in enumerate(node.shape)]
    return node if shape == node.shape else index_node(node, shape, indices)


def transpose(node: Node, order: Sequence[int]) -> Node:
    """Axis ``k`` of the result is axis ``order[k]`` of ``node``."""
    place = {a: k for k, a in enumerate(order)}
    return index_node(node, tuple(node.shape[a] for a in order), [_axis(place[a]) for a in range(node.ndim)])


def cast_to(node: Node, dtype: DType) -> Node:
    """``node`` as ``dtype``."""
    if node.dtype == dtype:
        return node
    if node.op is LITERAL:
        return literal(literal_value(node), dtype)
    if node.op is index:
        return index_node(cast_to(node.inputs[0], dtype), node.shape, node.params.indices)
    return cast(node, params=CastParams(dtype))


def product(a: Node, b: Node) -> Node:
    """The elementwise product of equal shapes, in the common dtype; a factor of one is left out."""
    if a.dtype != b.dtype:
        dtype = np.result_type(a.dtype, b.dtype)
        a, b = cast_to(a, dtype), cast_to(b, dtype)
    if is_one(a):
        return b
    if is_one(b):
        return a
    return multiply(a, b)


def sum_axes(node: Node, axes: Sequence[int]) -> Node:
    """The sum over ``axes``, which do not remain."""
    if not axes:
        return node
    labels = tuple(range(node.ndim))
    out = tuple(k for k in labels if k not in axes)
    return contract(node, params=ContractParams(node.shape, (labels,), out))


def contract_labels(factors: Sequence[Factor], sizes: Sequence[int], out: tuple[int, ...]) -> Node:
    """``sum of the product of factors`` over the labels not in ``out``, pair by pair in opt_einsum's order."""
    dtype = np.result_type(*(node.dtype for node, _ in factors))
    if in_use():
        from .ops.spectral_functions import spectral_product  # an operation of its own, whose rule contracts

        found = spectral_product(factors, sizes, out)
        if found is not None:
            factors, sizes = found
    operands = [(cast_to(node, dtype), labels) for node, labels in factors]
    while len(operands) > 2:
        first, second = _first_pair(operands, sizes, out)
        rest = [operands[k] for k in range(len(operands)) if k not in (first, second)]
        pair = [operands[first], operands[second]]
        needed = {*out, *(x for _, labels in rest for x in labels)}
        kept = tuple(sorted({x for _, labels in pair for x in labels if x in needed}))
        operands = [*rest, (_contract(pair, sizes, kept), kept)]
    return _contract(operands, sizes, out)


def _first_pair(operands: Sequence[Factor], sizes: Sequence[int], out: tuple[int, ...]) -> tuple[int, int]:
    """Which two of three or more factors are multiplied first."""
    if len(operands) == 3:
        return min(((0, 1), (0, 2), (1, 2)), key=lambda pair: _operations(pair, operands, sizes, out))
    import opt_einsum  # only here, and not needed by most programs

    order = opt_einsum.contract_path(
        *(x for node, labels in operands for x in (_Shaped(node.shape), labels)),
        out,
        optimize="optimal" if len(operands) <= 5 else "greedy",
    )[0]
    first, second = sorted(order[0])[:2]
    return first, second


def _operations(pair: tuple[int, int], operands: Sequence[Factor], sizes: Sequence[int], out: tuple[int, ...]) -> int:
    """Multiplications and additions of three factors, if these two are multiplied first; as opt_einsum counts them."""
    (third,) = {0, 1, 2}.difference(pair)
    a, b, c = (set(operands[k][1]) for k in (*pair, third))
    kept = (a | b).intersection((*out, *c))
    total = 0
    for one, other, remaining in ((a, b, kept), (kept, c, set(out))):
        products = math.prod(sizes[x] for x in one | other)
        total += products if one & other <= remaining else 2 * products
    return total


class _Shaped:
    """All that opt_einsum's planner asks of an operand."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def _alone(factor: Factor, sizes: Sequence[int], others: set[int]) -> Factor:
    """The factor summed over the labels that nothing else has."""
    labels = factor[1]
    kept = tuple(x for x in dict.fromkeys(labels) if x in others)
    return factor if len(kept) == len(set(labels)) else (_contract([factor], sizes, kept), kept)


def _contract(factors: Sequence[Factor], sizes: Sequence[int], out: tuple[int, ...]) -> Node:
    """One or two factors, multiplied and summed."""
    unformed = _matrix_product(factors, sizes, out)
    if unformed is not None:
        return unformed
    if len(factors) == 2:
        # What only one of them has is summed first: the rest may then be a product that nothing is summed in.
        first, second = factors
        factors = [_alone(first, sizes, {*second[1], *out}), _alone(second, sizes, {*first[1], *out})]
    used = sorted({x for _, labels in factors for x in labels})
    compact = {x: k for k, x in enumerate(used)}
    small = tuple(sizes[x] for x in used)
    named = [tuple(compact[x] for x in labels) for _, labels in factors]
    target = tuple(compact[x] for x in out)
    nodes = [node for node, _ in factors]
    if set(target) == set(range(len(used))):
        # Nothing is summed: an elementwise product of replicated factors, which executors can fuse.
        shape = tuple(small[x] for x in target)
        place = {x: k for k, x in enumerate(target)}
        spread = [index_node(n, shape, [_axis(place[x]) for x in ls]) for n, ls in zip(nodes, named, strict=True)]
        result = spread[0]
        for other in spread[1:]:
            result = product(result, other)
        return result
    return contract(*nodes, params=ContractParams(small, tuple(named), target))


class LinearMap(NamedTuple):
    """Some rows and columns of the matrix of a linear map: ``matrix[rows(d), cols(d)]``, no axis of d in both.

    Before them come ``batch`` axes, taken whole: a matrix for each of their places.
    """

    matrix: Node
    rows: tuple[Index, ...]
    cols: tuple[Index, ...]
    batch: int = 0


def linear_map(node: Node) -> LinearMap | None:
    """``node`` as a part of the matrix of a linear map, by which one can multiply without forming it; else None."""
    reads: list[Node] = []
    while node.op is cast or node.op is index:
        if node.op is index:
            reads.append(node)
        node = node.inputs[0]
    if node.op.matrix is None:
        return None
    indices, shape = identity(node.ndim), node.shape
    for read in reversed(reads):
        indices, shape = tuple(substitute(e, read.params.indices, read.shape) for e in indices), read.shape
    first = node.op.matrix.batch(node)
    split = first + node.op.matrix.rows(node)
    lead, rows, cols = indices[:first], indices[first:split], indices[split:]
    if lead != identity(first) or shape[:first] != node.shape[:first]:
        return None
    over_rows, over_cols = ({a for e in part for a in axes_of(e)} for part in (rows, cols))
    own = over_rows | over_cols
    if over_rows & over_cols or own != set(range(first, len(shape))):
        return None
    return LinearMap(node, rows, cols, first)


def _matrix_product(factors: Sequence[Factor], sizes: Sequence[int], out: tuple[int, ...]) -> Node | None:
    """The contraction by the product of a linear map, where one factor is the matrix of one; None where that fails.

    All its column axes (or all its row axes) must be summed, and the other factor must have none of its row axes. By a
    part of a matrix one multiplies by scattering to the columns that it has and reading the rows that it has.
    """
    for k, (node, labels) in enumerate(factors):
        part = linear_map(node)
        if part is None:
            continue
        array, have = factors[1 - k] if len(factors) == 2 else (full(1.0, (), node.dtype), ())
        lead = labels[: part.batch]
        for transposed in (False, True):
            kept_at, summed_at = (part.cols, part.rows) if transposed else (part.rows, part.cols)
            kept, summed = (tuple(sorted({labels[a] for e in at for a in axes_of(e)})) for at in (kept_at, summed_at))
            if not set(summed).isdisjoint(out) or not set(kept).isdisjoint(have) or (have and set(have) <= set(kept)):
                continue
            rest = tuple(x for x in have if x in out and x not in (*lead, *summed))
            wanted = (*lead, *summed, *rest)
            present = tuple(x for x in wanted if x in have)
            if have != present:
                array = _contract([(array, have)], sizes, present)
            array = broadcast_axes(array, tuple(sizes[x] for x in wanted), [wanted.index(x) for x in present])
            moved = cast_to(array, part.matrix.dtype)
            product = _product_of_part(part, moved, labels, lead, summed, kept, transposed, sizes)
            result = cast_to(product, node.dtype), (*lead, *kept, *rest)
            return result[0] if result[1] == out else _contract([result], sizes, out)
    return None


def _product_of_part(
    part: LinearMap, array: Node, labels: tuple[int, ...], lead: tuple[int, ...], summed: tuple[int, ...],
    kept: tuple[int, ...], transposed: bool, sizes: Sequence[int],
) -> Node:  # fmt: skip
    """The part of a matrix times an array with the axes of the batch, then the summed ones first.

    The result has the axes of the batch, then the kept ones first.
    """
    matrix = part.matrix
    assert matrix.op.matrix is not None
    first = len(lead)
    split = first + matrix.op.matrix.rows(matrix)
    rest = array.shape[first + len(summed) :]
    ends = (part.cols, matrix.shape[split:]), (part.rows, matrix.shape[first:split])
    (read_at, _), (write_at, whole) = ends if transposed else ends[::-1]

    def at(indices: tuple[Index, ...], axes: tuple[int, ...]) -> tuple[Index, ...]:
        place = {a: first + axes.index(x) for a, x in enumerate(labels) if x in axes}
        after = first + len(axes)
        return (*identity(first), *(rename(e, place) for e in indices), *(_axis(after + k) for k in range(len(rest))))

    batch = tuple(sizes[x] for x in lead)
    scattered = assembled([(array, at(write_at, summed))], (*batch, *whole, *rest), array.dtype, disjoint=False)
    moved = matrix.op.matrix.product(matrix, scattered, transposed)
    return index_node(moved, (*batch, *(sizes[x] for x in kept), *rest), at(read_at, kept))


def reshape_plan(old: Shape, new: Shape) -> list[tuple[list[int], list[int]]]:
    """Groups of old and new axes of equal size, as small as possible; axes of length one belong to no group."""
    groups: list[tuple[list[int], list[int]]] = []
    i = j = 0
    while True:
        while i < len(old) and old[i] == 1:
            i += 1
        while j < len(new) and new[j] == 1:
            j += 1
        if i == len(old) and j == len(new):
            return groups
        left, right = [i], [j]
        a, b = old[i], new[j]
        i, j = i + 1, j + 1
        while a != b:
            if a < b:
                left.append(i)
                a, i = a * old[i], i + 1
            else:
                right.append(j)
                b, j = b * new[j], j + 1
        groups.append(([k for k in left if old[k] > 1], [k for k in right if new[k] > 1]))


def movement_reshape(node: Node, shape: Shape) -> Node:
    """NumPy's C-order reshape. Axes that merge are assembled, axes that split are indexed: both are affine."""
    if shape == node.shape:
        return node
    if node.size == 0:
        return zeros(shape, node.dtype)
    groups = reshape_plan(node.shape, shape)
    rows = []
    indices: list[Index] = [Affine(0)] * len(groups)
    merged_shape = []
    for g, (left, right) in enumerate(groups):
        merged_shape.append(math.prod(node.shape[k] for k in left))
        rows.append(flatten([_axis(k) for k in left], [node.shape[k] for k in left], node.shape))
        indices[g] = flatten([_axis(k) for k in right], [shape[k] for k in right], shape)
    if all(len(left) == 1 for left, _ in groups):
        source: list[Index] = [Affine(0)] * node.ndim
        for (left, _), e in zip(groups, indices, strict=True):
            source[left[0]] = e
        return index_node(node, shape, source)
    if all(len(right) == 1 for _, right in groups):
        target: list[Index] = [Affine(0)] * len(shape)
        for (_, right), e in zip(groups, rows, strict=True):
            target[right[0]] = e
        return assemble(node, params=AssembleParams(shape, node.dtype, (tuple(target),), True, True))
    params = AssembleParams(tuple(merged_shape), node.dtype, (tuple(rows),), True, True)
    return index_node(assemble(node, params=params), shape, indices)


def assembled(parts: Sequence[tuple[Node, tuple[Index, ...]]], shape: Shape, dtype: DType, *, disjoint: bool) -> Node:
    """``zeros(shape)`` with every ``(part, rows)`` added at its rows; ``disjoint``: no element is written twice."""
    parts = [(cast_to(part, dtype), rows) for part, rows in parts if part.size]
    if len(parts) == 1 and parts[0][0].shape == shape and parts[0][1] == identity(len(shape)):
        return parts[0][0]
    if len(parts) == 1:
        disjoint = disjoint or injective(parts[0][1], parts[0][0].shape)
    whole = disjoint and sum(part.size for part, _ in parts) == math.prod(shape)
    params = AssembleParams(shape, dtype, tuple(rows for _, rows in parts), disjoint, whole)
    if whole and len(parts) == 1:
        # A permutation by plain axes is a transpose, which stays a view.
        part, rows = parts[0]
        plain = [plain_axis(e) for e in rows]
        if all(p is not None or e == Affine(0) for p, e in zip(plain, rows, strict=True)):
            source: list[Index] = [Affine(0)] * part.ndim
            for k, p in enumerate(plain):
                if p is not None:
                    source[p] = _axis(k)
            return index_node(part, shape, source)
    return assemble(*(part for part, _ in parts), params=params)


def apply(name: str, *inputs: Node) -> Node:
    """An elementwise operation by name, on nodes of equal shape and dtype."""
    return REGISTRY[name](*inputs)


__all__ = [
    "FrozenArray",
    "apply",
    "assembled",
    "broadcast_axes",
    "broadcast_to",
    "cast_to",
    "constant",
    "constant_array",
    "contract_labels",
    "full",
    "has_structure",
    "index_node",
    "is_one",
    "linear_map",
    "movement_reshape",
    "number",
    "product",
    "sum_axes",
    "transpose",
    "zeros",
]

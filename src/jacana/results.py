"""From terms to what the user gets: arrays in trees, SciPy's sparse matrices, blocks, operators.

``deliver`` is the last step of planning a Jacobian or a Hessian: it says which nodes to compute and how their arrays
become the result.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

import numpy as np

from . import trees
from .differentiate import Order, eliminate, jvp_nodes, vjp_nodes
from .differentiate.derivatives import jacobian_dtype
from .differentiate.eliminate import DENSE_LIMIT
from .errors import InvalidInputError
from .graph.batching import batched
from .graph.build import assembled, cast_to, index_node, movement_reshape
from .graph.index import Affine, axis, flatten, substitute
from .graph.node import (
    LITERAL,
    Array,
    DType,
    Node,
    Shape,
    Term,
    new_input,
    substitute_nodes,
    topological,
)
from .recurrences import rolled_steps
from .replay import Built, Traced
from .run import Compiled, Program, expects_machine_code
from .structure import SPARSE_FORMATS, Terms, blocks_node, dense_node, gram_terms, sparse_plan, transposed
from .structure.operator import entry_count, factor_nodes, product_node, stored_nodes, unmasked

Format: TypeAlias = Literal["dense", "csr", "csc", "coo", "bsr", "dia", "blocks", "operator", "auto"]

AUTO_DENSE_SIZE = 4096  # entries up to which "auto" is dense whatever the structure
AUTO_DENSITY = 0.2  # share of structural entries from which "auto" is dense
AUTO_OPERATOR = 10_000_000  # entries from which "auto" keeps factors apart rather than multiply them out


def deliver(traced: Traced, outputs: Sequence[Node], format: str, order: Order, with_value: bool) -> Built:
    """The Jacobian of ``outputs`` by the wanted arguments in a format, after the value if it is wanted."""
    if format in ("dense", "blocks"):
        return _trees(traced, outputs, format, order, with_value)
    entries = sum(y.size for y in outputs) * sum(x.size for x in traced.by)
    if format == "auto" and entries <= AUTO_DENSE_SIZE:
        # Whatever the structure: nothing is multiplied out to find it, and loops are planned as for a dense result.
        return _trees(traced, outputs, "dense", order, with_value)
    rolled = list(outputs)
    if format in ("auto", "operator"):
        rolled = rolled_steps(outputs, along=format == "operator")
    if rolled != list(outputs) and (format == "operator" or _mostly_full(rolled, traced, order)):
        if format == "auto" and entries <= AUTO_OPERATOR:
            return _trees(traced, outputs, "dense", order, with_value, rolled=rolled)
        dtype = np.result_type(*(jacobian_dtype(y, x) for y in outputs for x in traced.by))
        built = linearized(rolled, traced.by, dtype)
        return _after_value(traced, rolled, built) if with_value else built
    whole = format in ("operator", "auto")
    elimination = eliminate(list(outputs), traced.by, order, whole_maps=whole)
    stacked = stack(outputs, traced.by, elimination.terms)
    chosen = _automatic(stacked) if format == "auto" else format
    if elimination.unformed and format == "auto" and entry_count(stacked.terms) > AUTO_OPERATOR:
        chosen = "operator"  # whatever the factors say: they are matrices that need not exist
    if elimination.unformed and chosen == "operator":
        built = linearized(outputs, traced.by, stacked.dtype)
        return _after_value(traced, outputs, built) if with_value else built
    if elimination.unformed:
        # Only with the zeros of the linear maps it meets is the structure exact.
        elimination = eliminate(list(outputs), traced.by, order)
        stacked = stack(outputs, traced.by, elimination.terms)
        chosen = _automatic(stacked)
    found = elimination.terms
    if chosen == "dense":
        return _trees(traced, outputs, "dense", order, with_value, found)
    built = deliver_stacked(stacked, chosen)
    return _after_value(traced, outputs, built) if with_value else built


def _after_value(traced: Traced, outputs: Sequence[Node], built: Built) -> Built:
    """A matrix after the value of the function."""
    count, tree = len(outputs), traced.output_tree

    def finish(arrays: list[Any]) -> Any:
        return trees.unflatten(tree, arrays[:count]), built.finish(arrays[count:])

    return Built([*outputs, *built.nodes], finish, inline=False)


def deliver_gram(traced: Traced, order: Order, format: str) -> Built:
    """``J.T @ J`` in a format: a tree of trees of the arguments, or one matrix, as a Hessian is."""
    found, places = gram(traced.outputs, traced.by, eliminate(list(traced.outputs), traced.by, order).terms)
    stacked = stack(places, traced.by, found)
    chosen = _automatic(stacked) if format == "auto" else format
    if chosen in ("dense", "blocks"):
        return _trees(replace(traced, output_tree=traced.wanted_tree), places, chosen, order, False, found)
    return deliver_stacked(stacked, chosen)


def gram(
    outputs: Sequence[Node], inputs: Sequence[Node], found: Sequence[Sequence[Terms]]
) -> tuple[Sequence[Sequence[Terms]], list[Node]]:
    """The terms of ``J.T @ J`` from those of J, and nodes of the shapes and the dtype that its rows have."""
    return gram_terms(found), [cast_to(x, np.result_type(x.dtype, *(y.dtype for y in outputs))) for x in inputs]


def deliver_stacked(stacked: Stacked, format: str) -> Built:
    """One matrix of terms in a format."""
    terms, rows, cols, dtype = stacked.terms, stacked.rows, stacked.cols, stacked.dtype
    chosen = _automatic(stacked) if format == "auto" else format
    if chosen in SPARSE_FORMATS:
        plan = sparse_plan(terms, rows, cols, dtype, chosen)
        return Built([plan.data], lambda arrays: plan.make(arrays[0]), inline=False)
    if chosen == "operator":
        products = Products(stacked)
        return Built(products.factors, products.operator, inline=False)
    store = dense_node if chosen == "dense" else blocks_node
    return Built([store(terms, rows, cols, dtype)], _only)


def _mostly_full(outputs: Sequence[Node], traced: Traced, order: Order) -> bool:
    """Whether a matrix would not be stored sparse, for all the zeros that its loops are known to have."""
    found = eliminate(list(outputs), traced.by, order, unrestricted=DENSE_LIMIT, whole_maps=True)
    return _automatic(stack(outputs, traced.by, found.terms)) != "csr"


def _trees(
    traced: Traced,
    outputs: Sequence[Node],
    format: str,
    order: Order,
    with_value: bool,
    terms: Sequence[Sequence[Terms]] | None = None,
    rolled: Sequence[Node] | None = None,
) -> Built:
    """The tree of the results of trees of the arguments, one array for each pair of leaves.

    ``rolled``: the outputs with their loops over steps, where these have been looked for already.
    """

    def derive() -> list[Node]:
        found, values = terms, outputs
        if found is None:
            if format == "dense":
                one = sum(y.size for y in outputs) == 1  # then it is a gradient
                values = rolled_steps(outputs, along=one) if rolled is None else rolled
            found = eliminate(list(values), traced.by, order, unrestricted=DENSE_LIMIT, whole_maps=True).terms
        store = dense_node if format == "dense" else blocks_node
        blocks = [
            store(found[i][j], y.shape, x.shape, jacobian_dtype(y, x))
            for i, y in enumerate(outputs)
            for j, x in enumerate(traced.by)
        ]
        return [*values, *blocks] if with_value else blocks

    how = f"jacobian {format} {order} {with_value}" if outputs is traced.outputs and terms is None else None
    if traced.output_tree.is_leaf() and traced.wanted_tree.is_leaf():
        return Built(derive, _pair if with_value else _only, how=how, plain=True)
    count = len(traced.by)

    def finish(arrays: list[Any]) -> Any:
        rest = arrays[len(outputs) :] if with_value else arrays
        rows = [trees.unflatten(traced.wanted_tree, rest[i * count : (i + 1) * count]) for i in range(len(outputs))]
        jacobians = trees.unflatten(traced.output_tree, rows)
        if not with_value:
            return jacobians
        return trees.unflatten(traced.output_tree, arrays[: len(outputs)]), jacobians

    first, second = traced.output_tree, traced.wanted_tree
    one_tuple = trees.is_tuple_of_leaves(second) if first.is_leaf() else trees.is_tuple_of_leaves(first)
    plain = not with_value and one_tuple and (first.is_leaf() or second.is_leaf())
    return Built(derive, finish, how=how, plain=plain)


def _only(arrays: list[Any]) -> Any:
    return arrays[0]


def _pair(arrays: list[Any]) -> Any:
    return arrays[0], arrays[1]


@dataclass(frozen=True)
class Stacked:
    """All results by all arguments as one matrix: leaves one after another, C order within a leaf."""

    terms: Terms
    rows: Shape
    cols: Shape
    dtype: DType
    row_starts: tuple[int, ...] = field(default=(0,))
    col_starts: tuple[int, ...] = field(default=(0,))


def stack(outputs: Sequence[Node], inputs: Sequence[Node], found: Sequence[Sequence[Terms]]) -> Stacked:
    """One list of terms for the whole matrix."""
    dtype = np.result_type(*(jacobian_dtype(y, x) for y in outputs for x in inputs)) if outputs and inputs else None
    if len(outputs) == 1 and len(inputs) == 1 and dtype is not None:
        return Stacked(found[0][0], outputs[0].shape, inputs[0].shape, dtype)
    row_starts = [0, *np.cumsum([y.size for y in outputs]).tolist()]
    col_starts = [0, *np.cumsum([x.size for x in inputs]).tolist()]
    terms = [
        _moved(term, y.shape, x.shape, row_starts[i], col_starts[j])
        for i, y in enumerate(outputs)
        for j, x in enumerate(inputs)
        for term in found[i][j]
    ]
    return Stacked(
        tuple(terms),
        (row_starts[-1],),
        (col_starts[-1],),
        np.dtype("f8") if dtype is None else dtype,
        tuple(row_starts[:-1]),
        tuple(col_starts[:-1]),
    )


def _moved(term: Term, rows: Shape, cols: Shape, row_start: int, col_start: int) -> Term:
    row = flatten(term.row, rows, term.domain) if rows else Affine(0)
    col = flatten(term.col, cols, term.domain) if cols else Affine(0)
    return term._replace(
        row=(substitute(Affine(row_start, ((0, 1),)), [row], term.domain),),
        col=(substitute(Affine(col_start, ((0, 1),)), [col], term.domain),),
    )


def _automatic(stacked: Stacked) -> str:
    """Dense where it is small or mostly full, an operator where storing would undo a cheap product, else CSR."""
    size = math.prod(stacked.rows) * math.prod(stacked.cols)
    entries = entry_count(stacked.terms)
    factors = sum(node.size for node in factor_nodes(stacked.terms))
    if entries > AUTO_OPERATOR and entries > 8 * factors:
        return "operator"
    if size <= AUTO_DENSE_SIZE or entries >= AUTO_DENSITY * size:
        return "dense"
    return "csr"


# --- operators --------------------------------------------------------------------------------------------------


class Products:
    """Everything that operators of one Jacobian share: the factors to compute, and the programs of the products."""

    def __init__(self, stacked: Stacked) -> None:
        self.dtype = stacked.dtype
        self.shape = (math.prod(stacked.rows), math.prod(stacked.cols))
        self.stacked = stacked
        self.factors = factor_nodes(stacked.terms)
        if expects_machine_code():
            self.factors = stored_nodes(
                self.factors
            )  # one loop multiplies again; NumPy would pass over memory for each
        self._given = [new_input(node.shape, node.dtype) for node in self.factors]
        given = dict(zip(self.factors, self._given, strict=True))
        terms = list(map(unmasked, stacked.terms))
        whole = list(dict.fromkeys(node for t in terms for node, _ in t.factors))
        meaning = dict(zip(whole, substitute_nodes(whole, given), strict=True))
        self._terms = tuple(t._replace(factors=tuple((meaning[node], axes) for node, axes in t.factors)) for t in terms)
        self._programs: dict[tuple[bool, int, DType], Compiled] = {}
        self._lock = threading.Lock()

    def operator(self, arrays: list[Array]) -> Any:
        """The operator at the point where the factors have these values."""
        from .operators import JacobianOperator

        return JacobianOperator(self, list(arrays))

    def apply(self, arrays: list[Array], vectors: Array, transpose: bool) -> Array:
        """``J @ vectors`` or ``J.T @ vectors`` for vectors of shape (n, count)."""
        key = (transpose, vectors.shape[1], vectors.dtype)
        program = self._programs.get(key)
        if program is None:
            with self._lock:
                program = self._programs.setdefault(key, self._compile(*key))
        (result,) = program([*arrays, np.ascontiguousarray(vectors)])
        return result.reshape(self.shape[1] if transpose else self.shape[0], vectors.shape[1])

    def _compile(self, transpose: bool, count: int, dtype: DType) -> Compiled:
        terms, rows, cols = self._terms, self.stacked.rows, self.stacked.cols
        if transpose:
            terms, rows, cols = transposed(terms), cols, rows
        flat = new_input((math.prod(cols), count), dtype)
        out = np.result_type(dtype, self.stacked.dtype)
        node = product_node(terms, movement_reshape(flat, (*cols, count)), rows, out)
        return Compiled(Program((*self._given, flat), (node,)))


class LinearizedProducts:
    """Products by the program of a Jacobian-vector product: of linear maps one after another no matrix is ever made.

    What does not depend on the vector is computed once at a point; ``factors`` are those nodes.
    """

    def __init__(self, outputs: Sequence[Node], inputs: Sequence[Node], dtype: DType) -> None:
        self.shape = (sum(y.size for y in outputs), sum(x.size for x in inputs))
        self.dtype = dtype
        self._inputs = list(inputs)
        tangents = [new_input(x.shape, x.dtype) for x in inputs]
        cotangents = [new_input(y.shape, y.dtype) for y in outputs]
        pushed = [cast_to(n, dtype) for n in jvp_nodes(outputs, inputs, tangents)]
        pulled = [cast_to(n, dtype) for n in vjp_nodes(outputs, cotangents, inputs)]
        self._sweeps = {False: (tangents, pushed), True: (cotangents, pulled)}
        self.factors = list(dict.fromkeys(n for vector, nodes in self._sweeps.values() for n in _fixed(vector, nodes)))
        self._programs: dict[tuple[bool, int, DType], Compiled] = {}
        self._lock = threading.Lock()

    def operator(self, arrays: list[Array]) -> Any:
        """The operator at the point where the factors have these values."""
        from .operators import JacobianOperator

        return JacobianOperator(self, list(arrays))

    def apply(self, arrays: list[Array], vectors: Array, transpose: bool) -> Array:
        """``J @ vectors`` or ``J.T @ vectors`` for vectors of shape (n, count)."""
        key = (transpose, vectors.shape[1], vectors.dtype)
        program = self._programs.get(key)
        if program is None:
            with self._lock:
                program = self._programs.setdefault(key, self._compile(*key))
        (result,) = program([*arrays, np.ascontiguousarray(vectors.T)])
        return result.T

    def _compile(self, transpose: bool, count: int, dtype: DType) -> Compiled:
        vector, nodes = self._sweeps[transpose]
        given = [new_input(node.shape, node.dtype) for node in self.factors]
        stacked = new_input((count, sum(t.size for t in vector)), dtype)
        mapping = dict(zip(self.factors, given, strict=True))
        start = 0
        for t in vector:
            place = (axis(0), Affine(start, ((1, 1),)))
            flat = index_node(stacked, (count, t.size), place)
            mapping[t] = movement_reshape(cast_to(flat, t.dtype), (count, *t.shape))
            start += t.size
        wide = batched(nodes, mapping, count)
        parts, start = [], 0
        for node in wide:
            flat = movement_reshape(node, (count, node.size // max(count, 1)))
            parts.append((flat, (axis(0), Affine(start, ((1, 1),)))))
            start += flat.shape[1]
        whole = assembled(parts, (count, start), np.result_type(dtype, self.dtype), disjoint=True)
        return Compiled(Program((*given, stacked), (whole,)))


def _fixed(vector: Sequence[Node], nodes: Sequence[Node]) -> list[Node]:
    """The nodes that do not depend on the vector and are read by those that do (or are themselves a result)."""
    moving = set(vector)
    found: list[Node] = []
    for node in topological(nodes):
        if any(i in moving for i in node.inputs):
            moving.add(node)
            found += [i for i in node.inputs if i not in moving]
    found += [node for node in nodes if node not in moving]
    return [node for node in dict.fromkeys(found) if node.op is not LITERAL]


def linearized(outputs: Sequence[Node], inputs: Sequence[Node], dtype: DType) -> Built:
    """The Jacobian as an operator by :class:`LinearizedProducts`."""
    products = LinearizedProducts(outputs, inputs, dtype)
    return Built(products.factors, products.operator, inline=False)


def checked_places(places: Any, size: int, what: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Chosen rows or columns as C-order positions, negative ones counted from the end.

    Raises:
        InvalidInputError: not integers, or out of range.
    """
    array = np.asarray(places)
    if array.dtype == np.bool_ and array.ndim == 1 and array.size == size:
        return np.flatnonzero(array)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu" or array.ndim != 1:
        raise InvalidInputError(
            f"{what} must be a 1-D array of integers (C-order positions) or a mask of length {size}"
        )
    if array.size and (array.min() < -size or array.max() >= size):
        raise InvalidInputError(f"{what} must lie in [{-size}, {size}), but {array.min()}..{array.max()} was given")
    return np.where(array < 0, array + size, array).astype(np.int64)


__all__ = [
    "Format",
    "LinearizedProducts",
    "Products",
    "Stacked",
    "checked_places",
    "deliver",
    "deliver_gram",
    "deliver_stacked",
    "gram",
    "linearized",
    "stack",
]

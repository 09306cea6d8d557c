"""A value that equations define: x where ``F(x, theta) = 0``, and the linear systems of its derivatives.

By the implicit function theorem ``dx = -F_x^-1 F_theta dtheta``. The edge to each theta is an opaque map that
multiplies so, one linear system for each sweep, and what it is made of are nodes of x and theta: to differentiate again
needs no rule of its own. The systems are nodes too (``implicit_solve``), of the entries of the matrix, dense or sparse,
and of the right-hand side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ...errors import DifferentiationError
from ..index import axis, from_table, identity
from ..node import Array, DType, Edges, Matrix, Node, Operation, Shape, Term, register
from .control import formed, never_formed


class Solves(Protocol):
    """What finds x; compared by identity."""

    name: str  # of the solver, for messages
    line: str  # where the user called it

    def run(self, start: Array, arguments: Sequence[Array]) -> Array:
        """Return x, shape (n,), or raise."""
        ...


class ImplicitParams(NamedTuple):
    """``equations``, shape (n,), is a node over the leaves ``unknown``, shape (n,), and ``arguments``."""

    unknown: Node
    arguments: tuple[Node, ...]
    equations: Node
    solver: Any

    def on_batch(self, node: Node, inputs: Sequence[Node]) -> Node:
        """A problem for each sample."""
        from .implicit_batch import implicit_batch

        return implicit_batch(*inputs, params=node.params)


def _implicit_edges(node: Node) -> Edges:
    params: ImplicitParams = node.params
    edges: list[tuple[Term, ...] | None] = [None]  # where the search begins has no influence on an isolated solution
    (row, *_) = identity(1)
    for place, argument in enumerate(node.inputs[1:]):
        if argument.dtype.kind != "f" or 0 in (argument.size, node.size) or not _depends(params, place):
            edges.append(None)
            continue
        found = _local_terms(params, place, node, node.inputs[1:])
        if found is not None:
            edges.append(found)
            continue
        matrix = implicit_matrix(node, *node.inputs[1:], params=PartParams(params, place))
        axes = identity(matrix.ndim)
        edges.append((Term(matrix.shape, (row,), axes[1:], ((matrix, tuple(range(matrix.ndim))),)),))
    return tuple(edges)


def _depends(params: ImplicitParams, place: int) -> bool:
    from ...differentiate.implicit import depends

    return bool(depends(params, place))


def _local_terms(params: ImplicitParams, place: int, x: Node, arguments: tuple[Node, ...]) -> tuple[Term, ...] | None:
    from ...differentiate.implicit import local_terms

    return local_terms(params, place, x, arguments)


implicit = register(
    Operation(
        name="implicit",
        family="control",
        evaluate=lambda params, start, *arguments: params.solver.run(start, arguments),
        infer=lambda params, start, *arguments: (params.unknown.shape, params.unknown.dtype),
        edges=_implicit_edges,
        cost=1000.0,
    )
)


class PartParams(NamedTuple):
    """The derivative of an implicit value by one of its arguments."""

    call: ImplicitParams
    place: int


def _matrix_infer(params: PartParams, x: Node, *arguments: Node) -> tuple[Shape, DType]:
    return (x.size, *arguments[params.place].shape), x.dtype


def _matrix_product(matrix: Node, array: Node, transposed: bool) -> Node:
    # Deriving the parts takes the machinery of the room to the right, as for loops.
    from ...differentiate.implicit import pull, push

    return pull(matrix, array) if transposed else push(matrix, array)


def _form(operation: Any) -> Any:
    def evaluate(params: Any, *arrays: Array) -> Array:
        from ..node import new_input

        leaves = [new_input(a.shape, a.dtype) for a in arrays]
        return formed(REGISTERED[operation](*leaves, params=params), leaves, arrays)

    return evaluate


implicit_matrix = register(
    Operation(
        name="implicit_matrix",
        family="matrix",
        evaluate=_form("implicit_matrix"),
        infer=_matrix_infer,
        edges=never_formed,
        matrix=Matrix(lambda matrix: 1, _matrix_product, slots=lambda matrix, transposed: ()),
    )
)


# --- linear systems -----------------------------------------------------------------------------------------------


_SMALL = 1000  # numbers in a right-hand side up to which its columns are solved for one by one


class Pattern:
    """Where the stored entries of a sparse matrix of shape (n, n) are, in the order of CSR. Compared by identity."""

    def __init__(self, indptr: Array, indices: Array) -> None:
        self.indptr, self.cols = indptr, indices
        self.rows = np.repeat(np.arange(len(indptr) - 1), np.diff(indptr))


class SystemParams(NamedTuple):
    """``A X = B`` or ``A^T X = B``. ``pattern``: of the entries of A that are given; None: all, as a square array.

    ``name``, ``line``: the solver that this belongs to and where it was called, for messages.
    """

    pattern: Pattern | None
    transposed: bool
    name: str
    line: str

    def on_batch(self, node: Node, inputs: Sequence[Node]) -> Node:
        """A system for each sample."""
        from .implicit_batch import batch_of_systems

        if node.op is reciprocal:
            return reciprocal(*inputs, params=self)
        return batch_of_systems(self, *inputs)


def _system_evaluate(params: SystemParams, values: Array, right: Array) -> Array:
    from scipy import sparse

    from ...optimize.linear.square import SingularMatrix, square_factors

    n = right.shape[0]
    values, wide = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=np.float64)
    if not np.isfinite(values).all():
        # A derivative of something that is not finite is not finite; a factorisation would not say so.
        return np.full(right.shape, np.nan, dtype=right.dtype)
    # Rows and columns are brought to about the same size, so that units do not make a matrix look singular.
    if params.pattern is None:
        rows = balance(np.abs(values).max(axis=1, initial=0.0))
        scaled = values * rows[:, None]
        cols = balance(np.abs(scaled).max(axis=0, initial=0.0))
        matrix: Any = scaled * cols
    else:
        place = params.pattern
        rows = balance(_largest(place.rows, np.abs(values), n))
        scaled = values * rows[place.rows]
        cols = balance(_largest(place.cols, np.abs(scaled), n))
        matrix = sparse.csr_array((scaled * cols[place.cols], place.cols, place.indptr), shape=(n, n))
    before, after = (cols, rows) if params.transposed else (rows, cols)
    scaled_right = np.asfortranarray(wide * before[:, None])
    try:
        factors = square_factors(matrix)
        if scaled_right.size <= _SMALL:
            # One after another: LAPACK hands several right-hand sides to threads, which costs milliseconds.
            columns = [factors.solve(c, transposed=params.transposed) for c in scaled_right.T]
            found = np.stack(columns, axis=1) if columns else scaled_right
        else:
            found = factors.solve(scaled_right, transposed=params.transposed)
    except SingularMatrix:
        raise singular(params.name, params.line) from None
    # A sparse factorisation does not tell a matrix that is singular but for rounding; the size of the answer does.
    known = np.isfinite(scaled_right).all(axis=0)
    largest = np.abs(found[:, known]).max(initial=0.0) * np.finfo(np.float64).eps
    if not largest <= n * np.abs(scaled_right[:, known]).max(initial=0.0):
        raise singular(params.name, params.line)
    return np.asarray(found * after[:, None], dtype=right.dtype)


def balance(sizes: Array) -> Array:
    """Powers of two that bring sizes to about one."""
    return np.ldexp(1.0, -np.frexp(np.where(sizes > 0.0, sizes, 1.0))[1])


def _largest(places: Array, sizes: Array, n: int) -> Array:
    result = np.zeros(n)
    np.maximum.at(result, places, sizes)
    return result


def singular(name: str, line: str) -> DifferentiationError:
    """The error of a solution that is not isolated."""
    return DifferentiationError(
        f"the solution of {name} has no derivative here: the Jacobian of its equations by the unknowns is "
        f"singular there, so the solution is not isolated, or a multiple one. Add an equation (or a term of "
        f"regularisation) that singles one out, or leave out unknowns that are not determined.{line}"
    )


def _system_edges(node: Node) -> Edges:
    if 0 in (node.size, node.inputs[0].size):
        return None, None
    values, right = node.inputs
    terms = []
    for source, by_right in ((values, False), (right, True)):
        matrix = system_map(values, node, params=MapParams(node.params, by_right))
        axes = identity(matrix.ndim)
        assert matrix.shape == (*node.shape, *source.shape)
        terms.append((Term(matrix.shape, axes[:2], axes[2:], ((matrix, tuple(range(matrix.ndim))),)),))
    return tuple(terms)


implicit_solve = register(
    Operation(
        name="implicit_solve",
        family="control",
        evaluate=_system_evaluate,
        infer=lambda params, values, right: (right.shape, right.dtype),
        edges=_system_edges,
        cost=100.0,
    )
)


def _reciprocal_evaluate(params: SystemParams, diagonal: Array) -> Array:
    if (diagonal == 0.0).any():
        raise singular(params.name, params.line)
    return np.asarray(1.0 / diagonal, dtype=diagonal.dtype)


def _reciprocal_edges(node: Node) -> Edges:
    every = identity(node.ndim)
    return ((Term(node.shape, every, every, ((-(node * node), tuple(range(node.ndim))),)),),)


reciprocal = register(
    Operation(
        name="implicit_reciprocal",
        family="control",
        evaluate=_reciprocal_evaluate,
        infer=lambda params, diagonal: (diagonal.shape, diagonal.dtype),
        edges=_reciprocal_edges,
    )
)


class MapParams(NamedTuple):
    """The derivative of the solution of a system, by its right-hand side or by the entries of its matrix."""

    system: SystemParams
    by_right: bool


def _map_infer(params: MapParams, values: Node, x: Node) -> tuple[Shape, DType]:
    return (*x.shape, *(x.shape if params.by_right else values.shape)), x.dtype


def solved(values: Node, right: Node, params: SystemParams) -> Node:
    """The solution for a right-hand side with any number of axes after the first."""
    from ..build import cast_to, movement_reshape

    flat = movement_reshape(right, (right.shape[0], right.size // max(right.shape[0], 1)))
    found = implicit_solve(values, cast_to(flat, values.dtype), params=params)
    return movement_reshape(found, right.shape)


def _map_product(matrix: Node, array: Node, transposed: bool) -> Node:
    params: MapParams = matrix.params
    values, x = matrix.inputs
    system = params.system
    if transposed:
        # X = A^-1 B: the cotangent of B is V = A^-T (cotangent of X), that of A is -V X^T.
        v = solved(values, array, system._replace(transposed=not system.transposed))
        return v if params.by_right else -_outer(v, x, system)
    if not params.by_right:
        array = -_times(array, x, system)
    return solved(values, array, system)


def _places(system: SystemParams) -> tuple[Any, Any]:
    assert system.pattern is not None
    rows, cols = system.pattern.rows, system.pattern.cols
    return (cols, rows) if system.transposed else (rows, cols)


def _times(array: Node, x: Node, system: SystemParams) -> Node:
    """``dA X``, shape (n, m, ...), for entries ``array`` of dA with further axes."""
    from ..build import assembled, contract_labels, index_node

    n, m = x.shape
    lead = 2 if system.pattern is None else 1
    rest = tuple(range(4, 4 + array.ndim - lead))
    sizes = (n, n, m, array.shape[0], *array.shape[lead:])
    if system.pattern is None:
        labels = (1, 0) if system.transposed else (0, 1)
        return contract_labels([(array, (*labels, *rest)), (x, (1, 2))], sizes, (0, 2, *rest))
    rows, cols = _places(system)
    gathered = index_node(x, (len(cols), m), (from_table(cols, (0,)), axis(1)))
    each = contract_labels([(array, (3, *rest)), (gathered, (3, 2))], sizes, (3, 2, *rest))
    into = (from_table(rows, (0,)), *(axis(k) for k in range(1, each.ndim)))
    return assembled([(each, into)], (n, *each.shape[1:]), each.dtype, disjoint=False)


def _outer(v: Node, x: Node, system: SystemParams) -> Node:
    """The entries of ``V X^T``, for V of shape (n, m, ...): the shape of the entries of A, and the further axes."""
    from ..build import contract_labels, index_node

    n, m = x.shape
    rest = tuple(range(4, 2 + v.ndim))
    if system.pattern is None:
        sizes = (n, n, m, 1, *v.shape[2:])
        out = (1, 0) if system.transposed else (0, 1)
        return contract_labels([(v, (0, 2, *rest)), (x, (1, 2))], sizes, (*out, *rest))
    rows, cols = _places(system)
    count = len(rows)
    left = index_node(v, (count, *v.shape[1:]), (from_table(rows, (0,)), *(axis(k) for k in range(1, v.ndim))))
    right = index_node(x, (count, m), (from_table(cols, (0,)), axis(1)))
    return contract_labels([(left, (3, 2, *rest)), (right, (3, 2))], (n, n, m, count, *v.shape[2:]), (3, *rest))


system_map = register(
    Operation(
        name="system_map",
        family="matrix",
        evaluate=_form("system_map"),
        infer=_map_infer,
        edges=never_formed,
        matrix=Matrix(lambda matrix: 2, _map_product, slots=lambda matrix, transposed: ()),
    )
)

REGISTERED = {"implicit_matrix": implicit_matrix, "system_map": system_map}

__all__ = [
    "ImplicitParams",
    "PartParams",
    "Pattern",
    "Solves",
    "SystemParams",
    "balance",
    "implicit",
    "implicit_matrix",
    "implicit_solve",
    "reciprocal",
    "singular",
    "solved",
    "system_map",
]

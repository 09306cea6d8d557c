"""Products with the derivative of a value that equations define.

With F(x, theta) = 0: ``dx = -F_x^-1 F_theta dtheta``. A tangent goes through F_theta and then through one linear
system, a cotangent through the transposed system and then back through F. Both are derived over the leaves of the
equations, and moved to x and theta afterwards, so that they depend on these alone and can be differentiated again.

Source: A. Griewank and A. Walther, "Evaluating Derivatives", 2nd edition, 2008, chapter 15; second derivatives need no
formula of their own, as x is a node in the first ones.
"""

from __future__ import annotations

from functools import lru_cache

from ..graph.build import cast_to, contract_labels, transpose
from ..graph.node import DType, Node, Shape, new_input, substitute_nodes
from ..graph.ops.implicit import ImplicitParams, PartParams, Pattern, SystemParams, solved
from ..structure.formats import dense_node
from .derivatives import dense_jacobians, sparse_jacobian
from .eliminate import DENSE_LIMIT, eliminate

_SPARSE_FROM = 64  # unknowns from which a matrix may be stored sparse
_SPARSE_SHARE = 0.15  # of the entries that may be other than zero


@lru_cache(maxsize=512)
def depends(call: ImplicitParams, place: int) -> bool:
    """Whether the equations have a derivative by an argument."""
    return bool(eliminate([call.equations], [call.arguments[place]], "reverse", whole_maps=True).terms[0][0])


@lru_cache(maxsize=256)
def _system(call: ImplicitParams) -> tuple[Node, Pattern | None]:
    """The entries of F_x over the leaves of the equations, and where they are."""
    n = call.unknown.size
    if n >= _SPARSE_FROM:
        plan = sparse_jacobian(call.equations, call.unknown)
        if plan.nnz <= _SPARSE_SHARE * n * n:
            return plan.data, Pattern(plan.indptr, plan.indices)
    return dense_jacobians([call.equations], [call.unknown])[0][0], None


def _here(call: ImplicitParams, matrix: Node) -> dict[Node, Node]:
    """Where the leaves of the equations are in the program around them."""
    return dict(zip((call.unknown, *call.arguments), matrix.inputs, strict=True))


def _solved(call: ImplicitParams, matrix: Node, right: Node, transposed: bool) -> Node:
    values, pattern = _system(call)
    (moved,) = substitute_nodes([values], _here(call, matrix))
    params = SystemParams(pattern, transposed, call.solver.name, call.solver.line)
    return -cast_to(solved(moved, right, params), matrix.dtype)


def push(matrix: Node, array: Node) -> Node:
    """``dx/dtheta @ array``: an array of the shape of theta, with further axes, becomes one of shape (n, ...)."""
    params: PartParams = matrix.params
    given, along = _along(params, array.shape, array.dtype)
    (moved,) = substitute_nodes([along], {**_here(params.call, matrix), given: array})
    return _solved(params.call, matrix, moved, False)


@lru_cache(maxsize=512)
def _along(params: PartParams, shape: Shape, dtype: DType) -> tuple[Node, Node]:
    """A leaf, and F_theta @ it: the derivative at zero by t of F at theta + leaf @ t."""
    argument = params.call.arguments[params.place]
    equations = params.call.equations
    leaf = new_input(shape, dtype)
    rest = shape[argument.ndim :]
    step = new_input(rest, argument.dtype)
    own, more = tuple(range(argument.ndim)), tuple(range(argument.ndim, len(shape)))
    moved = argument + contract_labels([(cast_to(leaf, argument.dtype), (*own, *more)), (step, more)], shape, own)
    (shifted,) = substitute_nodes([equations], {argument: moved})
    terms = eliminate([shifted], [step], unrestricted=DENSE_LIMIT, whole_maps=True).terms[0][0]
    found = dense_node(terms, equations.shape, rest, equations.dtype)
    return leaf, substitute_nodes([found], {moved: argument})[0]


def pull(matrix: Node, array: Node) -> Node:
    """``array @ dx/dtheta``: an array of shape (n, ...) becomes one of the shape of theta, with the further axes."""
    params: PartParams = matrix.params
    answer = _solved(params.call, matrix, array, True)
    given, back = _back(params, answer.shape, answer.dtype)
    (moved,) = substitute_nodes([back], {**_here(params.call, matrix), given: answer})
    return cast_to(moved, matrix.dtype)


@lru_cache(maxsize=512)
def _back(params: PartParams, shape: Shape, dtype: DType) -> tuple[Node, Node]:
    """A leaf, and F_theta^T @ it."""
    argument = params.call.arguments[params.place]
    equations = params.call.equations
    leaf = new_input(shape, dtype)
    labels = tuple(range(len(shape)))
    seeded = contract_labels([(equations, (0,)), (cast_to(leaf, equations.dtype), labels)], shape, labels[1:])
    (found,) = dense_jacobians([seeded], [argument])[0]
    rest = len(shape) - 1
    return leaf, transpose(found, (*range(rest, found.ndim), *range(rest)))


__all__ = ["depends", "pull", "push"]

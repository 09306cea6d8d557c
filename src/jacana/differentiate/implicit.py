"""Products with the derivative of a value that equations define.

With F(x, theta) = 0: ``dx = -F_x^-1 F_theta dtheta``. A tangent goes through F_theta and then through one linear
system, a cotangent through the transposed system and then back through F. Both are derived over the leaves of the
equations, and moved to x and theta afterwards, so that they depend on these alone and can be differentiated again.

Source: A. Griewank and A. Walther, "Evaluating Derivatives", 2nd edition, 2008, chapter 15; second derivatives need no
formula of their own, as x is a node in the first ones.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from ..graph.build import cast_to, contract_labels, transpose
from ..graph.index import identity
from ..graph.node import DType, Node, Shape, Term, new_input, substitute_nodes
from ..graph.ops.implicit import ImplicitParams, PartParams, Pattern, SystemParams, reciprocal, solved
from ..structure.formats import dense_node, diagonal_terms
from ..structure.terms import Terms, add_terms, compose_terms
from .derivatives import dense_jacobians, sparse_jacobian
from .eliminate import DENSE_LIMIT, eliminate
from .maps import opaque_map

_SPARSE_FROM = 64  # unknowns from which a matrix may be stored sparse
_SPARSE_SHARE = 0.15  # of the entries that may be other than zero


_LOCAL_SIZE = 4  # entries for each unknown and each number of theta up to which the whole derivative is made


def _kept(function: Callable[..., Any]) -> Callable[..., Any]:
    """Remember what is derived for as long as the solver lives that it belongs to."""

    @functools.wraps(function)
    def call(params: Any, *rest: Any) -> Any:
        solver = (params.call if isinstance(params, PartParams) else params).solver
        known = vars(solver).setdefault("derived", {})
        key = (function.__name__, params, *rest)
        if key not in known:
            known[key] = function(params, *rest)
        return known[key]

    return call


@_kept
def depends(call: ImplicitParams, place: int) -> bool:
    """Whether the equations have a derivative by an argument."""
    return bool(eliminate([call.equations], [call.arguments[place]], "reverse", whole_maps=True).terms[0][0])


def local_terms(call: ImplicitParams, place: int, x: Node, arguments: tuple[Node, ...]) -> Terms | None:
    """The derivative as terms, where each equation has an unknown of its own: ``-F_theta / F_x``, with its structure.

    None where it is no such problem, or where a product costs less than the whole derivative.
    """
    terms: Terms | None = _local(call, place)
    if terms is None:
        return None
    nodes = [node for t in terms for node, _ in (*t.factors, *t.masks)]
    leaves = (call.unknown, *call.arguments)
    moved = iter(substitute_nodes(nodes, dict(zip(leaves, (x, *arguments), strict=True))))
    return tuple(
        t._replace(
            factors=tuple((next(moved), axes) for _, axes in t.factors),
            masks=tuple((next(moved), axes) for _, axes in t.masks),
        )
        for t in terms
    )


@_kept
def _local(call: ImplicitParams, place: int) -> Terms | None:
    own = eliminate([call.equations], [call.unknown], whole_maps=True).terms[0][0]
    if not own or any(t.row != t.col or opaque_map(t) is not None for t in own):
        return None
    argument = call.arguments[place]
    found = eliminate([call.equations], [argument], whole_maps=True).terms[0][0]
    n = call.unknown.size
    entries = sum(math.prod(t.domain) for t in found)
    if entries > _LOCAL_SIZE * (n + argument.size) or any(opaque_map(t) is not None for t in found):
        return None
    diagonal = dense_node(diagonal_terms(own, (n,)), (), (n,), call.equations.dtype)
    params = SystemParams(None, False, call.solver.name, call.solver.line)
    scale = Term((n,), identity(1), identity(1), ((-reciprocal(diagonal, params=params), (0,)),))
    return add_terms(compose_terms((scale,), found))


@_kept
def whole_derivative(call: ImplicitParams, place: int) -> Node:
    """``dx/dtheta``, shape (n, *theta.shape), over the leaves of the equations."""
    argument = call.arguments[place]
    values, pattern = _system(call)
    (by_theta,) = dense_jacobians([call.equations], [argument])[0]
    params = SystemParams(pattern, False, call.solver.name, call.solver.line)
    return -cast_to(solved(values, by_theta, params), call.unknown.dtype)


@_kept
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


@_kept
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


@_kept
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


__all__ = ["depends", "local_terms", "pull", "push", "whole_derivative"]

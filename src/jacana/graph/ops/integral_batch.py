"""Integrals, and solutions of differential equations, for many samples at once: what `vmap` makes of them.

SciPy chooses its points and its steps for one sample, so each is computed for itself. The derivatives are those of
``integrals.py``, with the samples as axes of row and column.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..index import Affine, axis, identity
from ..node import Array, Edges, Node, Operation, Term, register
from .integrals import IntegralParams, OdeParams, edges_by, first_sensitivities, integral, ode, variational, widened


def _each(operation: Operation, params: Any, arrays: tuple[Array, ...], ranks: tuple[int, ...]) -> Array:
    """The values of all samples, whose axes are in front of what one of them takes (arrays of ``ranks``)."""
    lead = arrays[0].shape[: arrays[0].ndim - ranks[0]]
    found = [
        np.asarray(operation.evaluate(params, *(np.asarray(a[place]) for a in arrays))) for place in np.ndindex(*lead)
    ]
    return np.stack(found).reshape(*lead, *found[0].shape)


def _for_each(node: Node, leaves: tuple[Node, ...], values: tuple[Node, ...], lead: tuple[int, ...]) -> Node:
    """A node over leaves of one sample, for all samples."""
    from ..batching import batched
    from ..build import movement_reshape

    count = math.prod(lead)
    flat = {
        leaf: movement_reshape(value, (count, *leaf.shape)) for leaf, value in zip(leaves, values, strict=True)
    }  # fmt: skip
    (found,) = batched([node], flat, count)
    return movement_reshape(found, (*lead, *node.shape))


def _block_term(coefficient: Node, lead: int, rows: int) -> tuple[Term, ...]:
    """Axes of the coefficient: the samples, ``rows`` of the result, those of the argument."""
    axes = identity(coefficient.ndim)
    row, col = axes[: lead + rows], (*axes[:lead], *axes[lead + rows :])
    return (Term(coefficient.shape, row, col, ((coefficient, tuple(range(coefficient.ndim))),)),)


# --- integrals ----------------------------------------------------------------------------------------------------


def _integral_evaluate(params: IntegralParams, *arrays: Array) -> Array:
    return _each(integral, params, arrays, (0, 0, *(n.ndim for n in params.arguments)))


def _integral_edges(node: Node) -> Edges:
    from ...differentiate import dense_jacobians

    params: IntegralParams = node.params
    if params.error:
        return tuple(None for _ in node.inputs)
    a, b, *given = node.inputs
    lead, rows = a.shape, params.integrand.ndim
    leaves = (params.variable, *params.arguments)
    edges: list[tuple[Term, ...] | None] = []
    for limit, sign in ((a, -1), (b, 1)):
        at = _for_each(params.integrand, leaves, (limit, *given), lead)
        edges.append(_block_term(at if sign > 0 else -at, len(lead), rows))
    for argument, values in zip(params.arguments, given, strict=True):
        if values.dtype.kind != "f" or not values.size:
            edges.append(None)
            continue
        (partial,) = dense_jacobians([params.integrand], [argument])[0]
        if partial.op.name == "assemble" and not partial.inputs:
            edges.append(None)
            continue
        found = integral_batch(*node.inputs, params=params._replace(integrand=partial))
        edges.append(_block_term(found, len(lead), rows))
    return tuple(edges)


integral_batch = register(
    Operation(
        name="integral_batch",
        family="control",
        evaluate=_integral_evaluate,
        infer=lambda params, a, *rest: ((*a.shape, *params.integrand.shape), params.integrand.dtype),
        edges=_integral_edges,
        cost=1000.0,
    )
)


# --- differential equations ---------------------------------------------------------------------------------------


def _ode_evaluate(params: OdeParams, *arrays: Array) -> Array:
    return _each(ode, params, arrays, (1, *(n.ndim for n in params.arguments)))


def _ode_edges(node: Node) -> Edges:
    return edges_by(_sensitivities, node)


def _sensitivities(params: OdeParams, node: Node, places: tuple[int, ...]) -> list[tuple[Term, ...]]:
    """The derivatives by the start (place 0) and by arguments: more unknowns of the equations of each sample."""
    from ..build import assembled, broadcast_axes, constant_array, index_node, movement_reshape

    start, *rest = node.inputs
    lead, n = start.shape[:-1], params.state.size
    columns, state, slope = variational(params, places)
    first = first_sensitivities(params, places, columns)
    units = broadcast_axes(constant_array(first.ravel()), (*lead, first.size), (len(lead),))
    front, last = identity(len(lead)), len(lead)
    after = Affine(n, ((last, 1),))
    parts = [(start, (*front, axis(last))), (units, (*front, after))]
    begin = assembled(parts, (*lead, n + first.size), state.dtype, disjoint=True)
    more = params._replace(state=state, slope=slope, settings=widened(params.settings, n, first.shape[1]))
    whole = ode_batch(begin, *rest, params=more)
    times = whole.shape[-1]
    flat = index_node(whole, (*lead, first.size, times), (*front, after, axis(last + 1)))
    table = movement_reshape(flat, (*lead, *first.shape, times))
    terms = []
    for place, column in zip(places, columns, strict=True):
        shape = node.inputs[place].shape[len(lead) :]
        read = (*front, axis(last), Affine(column, ((last + 2, 1),)), axis(last + 1))
        ordered = index_node(table, (*lead, n, times, math.prod(shape)), read)
        terms.append(_block_term(movement_reshape(ordered, (*lead, n, times, *shape)), len(lead), 2))
    return terms


ode_batch = register(
    Operation(
        name="ode_batch",
        family="control",
        evaluate=_ode_evaluate,
        infer=lambda params, start, *rest: (
            (*start.shape[:-1], params.state.size, len(params.times)),
            params.slope.dtype,
        ),
        edges=_ode_edges,
        cost=1000.0,
    )
)

__all__ = ["integral_batch", "ode_batch"]

"""Integrals, and solutions of ordinary differential equations, as values: what SciPy computes from a recorded program.

Their derivatives are of the same kind. That of an integral is the integrand at the limits, and the integral of the
derivative of the integrand; that of a solution is the solution of the variational equations, which are solved together
with the equations themselves (forward sensitivities). So there are derivatives to any order.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from ...errors import ConvergenceError
from ..index import Affine, axis, identity
from ..node import (
    CONSTANT,
    LITERAL,
    Array,
    DType,
    Edges,
    Node,
    Operation,
    Shape,
    Term,
    new_input,
    register,
    substitute_nodes,
    topological,
)

_FEW = 16  # numbers of an input up to which sensitivities by it are found together with those by others


@lru_cache(maxsize=256)
def _function(leaves: tuple[Node, ...], output: Node) -> Callable[[Sequence[Array]], list[Array]]:
    from ...run import Compiled, Program

    return Compiled(Program(leaves, (output,)))  # a solver calls it hundreds of times


def _term(coefficient: Node, rows: int) -> tuple[Term, ...]:
    axes = identity(coefficient.ndim)
    return (Term(coefficient.shape, axes[:rows], axes[rows:], ((coefficient, tuple(range(coefficient.ndim))),)),)


# --- integrals ----------------------------------------------------------------------------------------------------


class IntegralParams(NamedTuple):
    """``integrand`` is a node over the leaves ``variable``, a number, and ``arguments``.

    ``settings``: options of ``scipy.integrate.quad``. ``error``: its estimate of the error is meant, not the integral.
    """

    variable: Node
    arguments: tuple[Node, ...]
    integrand: Node
    settings: tuple[tuple[str, Any], ...]
    error: bool = False

    def on_batch(self, node: Node, inputs: Sequence[Node]) -> Node:
        """An integral for each sample."""
        from .integral_batch import integral_batch

        return integral_batch(*inputs, params=self)


def _integral_evaluate(params: IntegralParams, a: Array, b: Array, *arguments: Array) -> Array:
    from scipy.integrate import quad, quad_vec

    run = _function((params.variable, *params.arguments), params.integrand)
    arguments = tuple([np.asarray(argument, order="C") for argument in arguments])
    settings = dict(params.settings)
    dtype = params.variable.dtype
    shape = params.integrand.shape
    if not shape:
        found = quad(lambda t: float(run([np.array(t, dtype=dtype), *arguments])[0]), float(a), float(b), **settings)
        return np.asarray(found[1] if params.error else found[0])
    known = {k: v for k, v in settings.items() if k in ("epsabs", "epsrel", "limit", "points")}
    if not math.prod(shape):
        return np.zeros(shape)
    found = quad_vec(lambda t: run([np.array(t, dtype=dtype), *arguments])[0].ravel(), float(a), float(b), **known)
    return np.asarray(found[0]).reshape(shape)


def _integral_edges(node: Node) -> Edges:
    from ...differentiate import dense_jacobians

    params: IntegralParams = node.params
    if params.error:
        return tuple(None for _ in node.inputs)
    rows = node.ndim
    leaves = (params.variable, *params.arguments)
    edges: list[tuple[Term, ...] | None] = []
    for limit, sign in ((node.inputs[0], -1), (node.inputs[1], 1)):
        (at,) = substitute_nodes([params.integrand], dict(zip(leaves, (limit, *node.inputs[2:]), strict=True)))
        edges.append(_term(at if sign > 0 else -at, rows))
    for argument, given in zip(params.arguments, node.inputs[2:], strict=True):
        if given.dtype.kind != "f" or not given.size:
            edges.append(None)
            continue
        (partial,) = dense_jacobians([params.integrand], [argument])[0]
        if partial.op.name == "assemble" and not partial.inputs:
            edges.append(None)
            continue
        edges.append(_term(integral(*node.inputs, params=params._replace(integrand=partial)), rows))
    return tuple(edges)


integral = register(
    Operation(
        name="integral",
        family="control",
        evaluate=_integral_evaluate,
        infer=lambda params, a, b, *arguments: (params.integrand.shape, params.integrand.dtype),
        edges=_integral_edges,
        cost=1000.0,
    )
)


# --- differential equations ---------------------------------------------------------------------------------------


class OdeParams(NamedTuple):
    """``slope``, shape (n,), is a node over the leaves ``time``, a number, ``state``, shape (n,), and ``arguments``.

    ``times``: where the state is asked for; it is given at ``begin``. ``solver``: "odeint", or a method of
    ``solve_ivp``. ``line``: where the user called it.
    """

    time: Node
    state: Node
    arguments: tuple[Node, ...]
    slope: Node
    begin: float
    end: float
    times: tuple[float, ...]
    solver: str
    settings: tuple[tuple[str, Any], ...]
    line: str

    def on_batch(self, node: Node, inputs: Sequence[Node]) -> Node:
        """Equations for each sample."""
        from .integral_batch import ode_batch

        return ode_batch(*inputs, params=self)


def _ode_evaluate(params: OdeParams, start: Array, *arguments: Array) -> Array:
    from scipy.integrate import odeint, solve_ivp

    run = _function((params.time, params.state, *params.arguments), params.slope)
    arguments = tuple([np.asarray(argument, order="C") for argument in arguments])

    def slope(t: float, y: Array) -> Array:
        return run([np.array(float(t)), np.ascontiguousarray(y, dtype=params.state.dtype), *arguments])[0]

    settings = dict(params.settings)
    if params.solver == "odeint":
        times = np.array(params.times)
        values, report = odeint(slope, start, times, tfirst=True, full_output=True, **settings)
        success, message = report["message"] == "Integration successful.", report["message"]
        result = np.asarray(values).T
    else:
        span = (params.begin, params.end)
        end = solve_ivp(slope, span, start, params.solver, np.array(params.times), **settings)
        success, message, result = end.success, end.message, end.y
    if not success:
        raise ConvergenceError(f"the differential equations were not solved to the end: {message}{params.line}")
    return np.ascontiguousarray(result, dtype=params.slope.dtype)


def edges_by(sensitivities: Callable[[OdeParams, Node, tuple[int, ...]], list[tuple[Term, ...]]], node: Node) -> Edges:
    """Edges from what ``sensitivities`` gives for groups of places.

    Inputs of a few numbers that depend on anything are taken together: one integration costs less than several.
    """
    edges: list[tuple[Term, ...] | None] = [None] * len(node.inputs)
    small: list[int] = []
    for place, given in enumerate(node.inputs):
        if given.dtype.kind != "f" or 0 in (given.size, node.size):
            continue
        if math.prod(_of_one(node.params, place).shape) <= _FEW and not _is_fixed(given):
            small.append(place)
        else:
            (edges[place],) = sensitivities(node.params, node, (place,))
    for begin in range(0, len(small), _FEW):
        group = tuple(small[begin : begin + _FEW])
        for place, terms in zip(group, sensitivities(node.params, node, group), strict=True):
            edges[place] = terms
    return tuple(edges)


def _of_one(params: OdeParams, place: int) -> Node:
    return params.state if place == 0 else params.arguments[place - 1]


def _is_fixed(node: Node) -> bool:
    return all(n.inputs or n.op in (CONSTANT, LITERAL) for n in topological([node]))


def _ode_edges(node: Node) -> Edges:
    return edges_by(_sensitivities, node)


def _sensitivities(params: OdeParams, node: Node, places: tuple[int, ...]) -> list[tuple[Term, ...]]:
    """The derivatives by the start (place 0) and by arguments: more unknowns of the same equations."""
    from ..build import assembled, constant_array, index_node, movement_reshape

    n, times = node.shape
    columns, state, slope = variational(params, places)
    start, *rest = node.inputs
    first = first_sensitivities(params, places, columns)
    parts = [(start, (axis(0),)), (constant_array(first.ravel()), (_after(n),))]
    begin = assembled(parts, (n + first.size,), state.dtype, disjoint=True)
    more = params._replace(state=state, slope=slope, settings=widened(params.settings, n, first.shape[1]))
    whole = ode(begin, *rest, params=more)
    table = movement_reshape(index_node(whole, (first.size, times), (_after(n), axis(1))), (n, first.shape[1], times))
    terms = []
    for place, column in zip(places, columns, strict=True):
        shape = node.inputs[place].shape
        read = (axis(0), Affine(column, ((2, 1),)), axis(1))
        ordered = index_node(table, (n, times, math.prod(shape)), read)
        terms.append(_term(movement_reshape(ordered, (n, times, *shape)), 2))
    return terms


def first_sensitivities(params: OdeParams, places: tuple[int, ...], columns: tuple[int, ...]) -> Array:
    """Sensitivities at the start, shape (n, all columns): one by the start itself, zero by arguments."""
    first = np.zeros((params.state.size, sum(_of_one(params, place).size for place in places)), params.state.dtype)
    for place, column in zip(places, columns, strict=True):
        if place == 0:
            first[:, column : column + len(first)] = np.eye(len(first))
    return first


def _after(n: int) -> Affine:
    return Affine(n, ((0, 1),))


def widened(settings: tuple[tuple[str, Any], ...], n: int, size: int) -> tuple[tuple[str, Any], ...]:
    """Tolerances for each unknown, repeated for its sensitivities."""
    result = []
    for name, value in settings:
        if name in ("atol", "rtol") and isinstance(value, tuple):
            value = value + tuple(v for v in value for _ in range(size))
        result.append((name, value))
    return tuple(result)


@lru_cache(maxsize=128)
def variational(params: OdeParams, places: tuple[int, ...]) -> tuple[tuple[int, ...], Node, Node]:
    """The equations of the state and of its sensitivities S by several inputs side by side: ``S' = F_y S + F_theta``.

    Returns:
        At which column of S each input begins, the wider state and its slope.
    """
    from ...differentiate import dense_jacobians
    from ..build import assembled, contract_labels, index_node, movement_reshape

    n = params.state.size
    by = [_of_one(params, place) for place in places]
    columns = tuple(sum(node.size for node in by[:k]) for k in range(len(by)))
    size = sum(node.size for node in by)
    state = new_input((n + n * size,), params.state.dtype)
    own = index_node(state, (n,), (axis(0),))
    s = movement_reshape(index_node(state, (n * size,), (_after(n),)), (n, size))
    arguments = [node for node in by if node is not params.state]
    found, *direct = dense_jacobians([params.slope], [params.state, *arguments])[0]
    change = contract_labels([(found, (0, 1)), (s, (1, 2))], (n, n, size), (0, 2))
    if direct:
        places_of = [column for node, column in zip(by, columns, strict=True) if node is not params.state]
        parts = [
            (movement_reshape(part, (n, node.size)), (axis(0), Affine(column, ((1, 1),))))
            for part, node, column in zip(direct, arguments, places_of, strict=True)
        ]
        change = change + assembled(parts, (n, size), params.slope.dtype, disjoint=True)
    flat = movement_reshape(change, (n * size,))
    slope = assembled(
        [(params.slope, (axis(0),)), (flat, (_after(n),))], (n + n * size,), params.slope.dtype, disjoint=True
    )
    return columns, state, substitute_nodes([slope], {params.state: own})[0]


def _ode_infer(params: OdeParams, start: Node, *arguments: Node) -> tuple[Shape, DType]:
    return (params.state.size, len(params.times)), params.slope.dtype


ode = register(
    Operation(name="ode", family="control", evaluate=_ode_evaluate, infer=_ode_infer, edges=_ode_edges, cost=1000.0)
)

__all__ = ["IntegralParams", "OdeParams", "first_sensitivities", "integral", "ode", "variational", "widened"]

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
from ..node import Array, DType, Edges, Node, Operation, Shape, Term, new_input, register, substitute_nodes


@lru_cache(maxsize=256)
def _function(leaves: tuple[Node, ...], output: Node) -> Callable[..., Array]:
    """The function from contiguous arrays that a node is."""
    from ...run import Compiled, Program

    # SciPy calls it hundreds of times for one solution: it becomes machine code as every program that is hot does.
    run = Compiled(Program(leaves, (output,)))
    return lambda *arrays: run(arrays)[0]


def _contiguous(arrays: Sequence[Array]) -> list[Array]:
    return [np.array(a, order="C") for a in arrays]  # of no axes too, which np.ascontiguousarray gives one


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
    given = _contiguous(arguments)
    settings = dict(params.settings)
    dtype = params.variable.dtype
    shape = params.integrand.shape
    if not shape:
        found = quad(lambda t: float(run(np.array(t, dtype=dtype), *given)), float(a), float(b), **settings)
        return np.asarray(found[1] if params.error else found[0])
    known = {k: v for k, v in settings.items() if k in ("epsabs", "epsrel", "limit", "points")}
    if not math.prod(shape):
        return np.zeros(shape)
    found = quad_vec(lambda t: run(np.array(t, dtype=dtype), *given).ravel(), float(a), float(b), **known)
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
    given = _contiguous(arguments)

    def slope(t: float, y: Array) -> Array:
        return run(np.array(float(t)), np.ascontiguousarray(y, dtype=params.state.dtype), *given)

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


_TOGETHER = 16  # elements up to which the sensitivities by an input are solved together with those by others


def sensitivities(
    node: Node, sizes: Sequence[int], solved: Callable[[OdeParams, tuple[int, ...]], list[tuple[Term, ...]]]
) -> Edges:
    """The edges of a solution, by what ``solved`` gives for the places of inputs whose sensitivities go together.

    Inputs of few elements (``sizes``) share one solution, for the state is solved anew in each.
    """
    edges: list[tuple[Term, ...] | None] = [None] * len(node.inputs)
    places = [k for k, given in enumerate(node.inputs) if given.dtype.kind == "f" and given.size and node.size]
    few = tuple(k for k in places if sizes[k] <= _TOGETHER)
    for group in [*([few] if few else []), *((k,) for k in places if k not in few)]:
        for place, terms in zip(group, solved(node.params, group), strict=True):
            edges[place] = terms
    return tuple(edges)


def _ode_edges(node: Node) -> Edges:
    """The derivatives by the start (place 0) and by the arguments: more unknowns of the same equations."""
    from ..build import assembled, constant_array, index_node, movement_reshape

    n, times = node.shape
    start, *rest = node.inputs

    def solved(params: OdeParams, places: tuple[int, ...]) -> list[tuple[Term, ...]]:
        wide = variational(params, places)
        total = wide.first.shape[1]
        parts = [(start, (axis(0),)), (constant_array(wide.first.ravel()), (_after(n),))]
        begin = assembled(parts, (n + n * total,), wide.state.dtype, disjoint=True)
        settings = widened(params.settings, n, total)
        whole = ode(begin, *rest, params=params._replace(state=wide.state, slope=wide.slope, settings=settings))
        columns = index_node(whole, (n * total, times), (_after(n), axis(1)))
        table = movement_reshape(columns, (n, total, times))
        found = []
        for place, offset in zip(places, wide.offsets, strict=True):
            shape = node.inputs[place].shape
            column = Affine(offset, ((2, 1),))
            part = index_node(table, (n, times, math.prod(shape)), (axis(0), column, axis(1)))
            found.append(_term(movement_reshape(part, (n, times, *shape)), 2))
        return found

    return sensitivities(node, [given.size for given in node.inputs], solved)


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


class Variational(NamedTuple):
    """The equations ``slope`` of a wider ``state``: that of the problem, and its sensitivities S, (n, columns).

    ``first``: S at the start. ``offsets``: the first column by each of the places.
    """

    state: Node
    slope: Node
    first: Array
    offsets: tuple[int, ...]


@lru_cache(maxsize=128)
def variational(params: OdeParams, places: tuple[int, ...]) -> Variational:
    """The equations of the state and of its sensitivities S: ``S' = F_y S + F_theta``, theta being the inputs there."""
    from ...differentiate import dense_jacobians
    from ..build import assembled, contract_labels, index_node, movement_reshape

    n, dtype = params.state.size, params.state.dtype
    by = [params.arguments[place - 1] for place in places if place]
    sizes = [params.arguments[place - 1].size if place else n for place in places]
    total = sum(sizes)
    offsets = tuple(sum(sizes[:k]) for k in range(len(sizes)))
    state = new_input((n + n * total,), dtype)
    own = index_node(state, (n,), (axis(0),))
    s = movement_reshape(index_node(state, (n * total,), (_after(n),)), (n, total))
    found = dense_jacobians([params.slope], [params.state, *by])[0]
    change = contract_labels([(found[0], (0, 1)), (s, (1, 2))], (n, n, total), (0, 2))
    first, direct = np.zeros((n, total), dtype), iter(found[1:])
    columns = []
    for place, offset, size in zip(places, offsets, sizes, strict=True):
        if place == 0:
            first[:, offset : offset + n] = np.eye(n)
        else:
            columns.append((movement_reshape(next(direct), (n, size)), (axis(0), Affine(offset, ((1, 1),)))))
    if columns:
        change = change + assembled(columns, (n, total), dtype, disjoint=True)
    flat = movement_reshape(change, (n * total,))
    slope = assembled(
        [(params.slope, (axis(0),)), (flat, (_after(n),))], (n + n * total,), params.slope.dtype, disjoint=True
    )
    return Variational(state, substitute_nodes([slope], {params.state: own})[0], first, offsets)


def _ode_infer(params: OdeParams, start: Node, *arguments: Node) -> tuple[Shape, DType]:
    return (params.state.size, len(params.times)), params.slope.dtype


ode = register(
    Operation(name="ode", family="control", evaluate=_ode_evaluate, infer=_ode_infer, edges=_ode_edges, cost=1000.0)
)

__all__ = ["IntegralParams", "OdeParams", "integral", "ode", "sensitivities", "variational", "widened"]

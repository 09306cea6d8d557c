"""The solvers called with recorded values: their solutions with derivatives, by the implicit function theorem.

`root`, `fixed_point`, `least_squares` and `minimize` come here when what they solve depends on Variables.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import trees
from ..differentiate import dense_jacobians
from ..errors import InvalidInputError, RecordingError
from ..graph.build import apply, constant_array, full
from ..graph.node import REGISTRY, Array, Node, substitute_nodes
from ..implicit.recorded import Flat, Run, solution
from ..implicit.results import RecordedResult
from ..record import as_node, record
from ..record.lift import any_tracked
from ..record.location import user_line
from ..record.variable import contains_variable, raw_deep, tracked
from .checks import raveled
from .root_batches import newton_batches
from .search import Budget

__all__ = [
    "check_free",
    "cost",
    "cost_node",
    "plain_settings",
    "plain_start",
    "pressed",
    "recorded_fixed_point",
    "recorded_least_squares",
    "recorded_minimum",
    "recorded_root",
    "refuse",
    "stationary",
]


def plain_start(x0: Any) -> tuple[Any, Node | None]:
    """A start without Variables, and how its numbers, raveled, are computed if they depend on something."""
    if not contains_variable(x0):
        return x0, None
    leaves, tree = trees.flatten(x0)
    plain = trees.unflatten(tree, [raw_deep(leaf) for leaf in leaves])
    if all(tracked(leaf) is None for leaf in leaves):
        return plain, None
    return plain, as_node(np.concatenate([np.ravel(leaf) for leaf in leaves]))


def plain_settings(name: str, settings: Any, *options: str) -> None:
    """Refuse settings of a search that depend on recorded values: they are no part of the equations."""
    for option in options:
        value = getattr(settings, option)
        if any_tracked([value.lb, value.ub] if hasattr(value, "lb") else [value]):
            raise RecordingError(
                f"jacana.{name} got {option} that depend on recorded values, and has no derivatives by them. Write "
                f"them into the function: weights and noise as factors of its residuals, a bound by a change of "
                f"variables{user_line()}"
            )


def refuse(name: str, **options: Any) -> None:
    """Refuse what a search inside a recorded function cannot do."""
    for option, value in options.items():
        if value is not None and value is not False:
            raise InvalidInputError(
                f"{name} depends on recorded values here, so its search is part of a program that is run again without "
                f"Python: {option} cannot be used{user_line()}"
            )


def _ended(result: Any) -> Run:
    return Run(np.asarray(result.flat), bool(result.success), str(result.message))


def recorded_root(solver: Any, space: Any, args: tuple[Any, ...], start: Node | None) -> Any:
    """`Root.__call__`, where the equations depend on recorded values."""

    def flat(x: Any) -> Any:
        return raveled(solver.function(space.unravel(x), *args))

    together = newton_batches(solver.method) if solver.budget == Budget() else None
    return _solved("jacana.root", flat, solver.function, solver.searching, space, start, together)


def recorded_fixed_point(
    function: Any, space: Any, args: tuple[Any, ...], start: Node | None, searching: Callable[[Flat], Any]
) -> Any:
    """`fixed_point`, where the function depends on recorded values; ``searching`` makes a search for a root."""

    def flat(x: Any) -> Any:
        return raveled(function(space.unravel(x), *args)) - x

    return _solved("jacana.fixed_point", flat, function, searching, space, start)


def _solved(
    name: str, flat: Any, watched: Any, searching: Any, space: Any, start: Node | None, together: Any = None
) -> Any:
    def make(function: Flat) -> Callable[[Array], Run]:
        search = searching(function)
        return lambda x: _ended(search(x))

    found = solution(flat, space.first, watched=watched, name=name, make=make, start_node=start, together=together)
    return RecordedResult(space.unravel(found.x), found.x, found.output)


def recorded_least_squares(
    solver: Any, space: Any, whiten: Callable[[Any], Any], args: tuple[Any, ...], start: Node | None
) -> Any:
    """`LeastSquares.__call__`, where the residual depends on recorded values.

    The equations are those of the gradient of the cost; a parameter that presses against a bound stays there.
    """
    if space.curved:
        raise InvalidInputError(
            f"derivatives through a fit are for plain parameters, not for those on manifolds; write the manifold in "
            f"coordinates{user_line()}"
        )
    check_free(space, start)

    def flat(x: Any) -> Any:
        return whiten(raveled(solver.residual(space.unravel(x), *args)))

    def make(function: Flat) -> Callable[[Array], Run]:
        search = solver.searching(function, space)
        return lambda x: _ended(search(x))

    def equations(residual: Node, x: Node) -> Node:
        return stationary(cost_node(solver.loss, residual), x, space)

    found = solution(
        flat,
        space.first,
        watched=solver.residual,
        name="jacana.least_squares",
        make=make,
        equations=equations,
        start_node=start,
    )
    return RecordedResult(space.unravel(found.x), found.x, found.output, cost(solver.loss, found.output))


def recorded_minimum(solver: Any, space: Any, args: tuple[Any, ...], start: Node | None) -> Any:
    """`Minimizer.__call__`, where the function depends on recorded values: the equations are those of its gradient."""
    check_free(space, start)
    if solver.constraints:
        from .constrained_solutions import recorded_constrained

        return recorded_constrained(solver, space, args, start)
    if space.lower is not None and solver.method == "trust-constr":
        raise InvalidInputError(
            f"the method 'trust-constr' ends near a bound, not on it, so which bounds hold cannot be told; use "
            f"'newton' (the default){user_line()}"
        )

    def flat(x: Any) -> Any:
        return np.reshape(solver.function(space.unravel(x), *args), ())

    def make(function: Flat) -> Callable[[Array], Run]:
        search = solver.searching(function, space)
        return lambda x: _ended(search(x))

    found = solution(
        flat,
        space.first,
        watched=solver.function,
        name="jacana.minimize",
        make=make,
        equations=lambda value, x: stationary(value, x, space),
        start_node=start,
    )
    return RecordedResult(space.unravel(found.x), found.x, found.output)


def check_free(space: Any, start: Node | None) -> None:
    if start is not None and not space.plain:
        raise InvalidInputError(
            f"where x0 depends on recorded values, none of it can be fixed or tied; let the function read what is "
            f"known from the program around it{user_line()}"
        )


def cost(loss: Any, residual: Any) -> Any:
    """The cost of residuals, by functions that a recording can follow."""
    if loss is None:
        return 0.5 * np.sum(residual * residual)
    return np.sum(loss.costs(residual))


def cost_node(loss: Any, residual: Node) -> Node:
    recording = record(lambda r: cost(loss, r), [np.ones(residual.shape, residual.dtype)])
    if recording.guards:
        raise InvalidInputError(
            f"the loss branches on the residuals, so a fit with it has no derivatives; write it with np.where"
            f"{user_line()}"
        )
    return substitute_nodes([as_node(recording.result)], {recording.inputs[0]: residual})[0]


def stationary(value: Node, x: Node, space: Any) -> Node:
    """The gradient; and ``x - bound`` where it presses x against one."""
    (gradient,) = dense_jacobians([value], [x])[0]
    return pressed(gradient, x, space)


def pressed(gradient: Node, x: Node, space: Any) -> Node:
    """A gradient; and ``x - bound`` where it presses x against one."""
    if space.lower is None:
        return gradient
    result, zero = gradient, full(0.0, x.shape, x.dtype)
    for bound, reached, outwards in ((space.lower, "less_equal", "greater"), (space.upper, "greater_equal", "less")):
        limit = constant_array(np.asarray(bound, dtype=x.dtype))
        presses = apply("logical_and", apply(reached, x, limit), apply(outwards, gradient, zero))
        result = REGISTRY["select"](presses, x - limit, result)
    return result

"""Minima within constraints, called with recorded values: derivatives by the conditions of Karush, Kuhn and Tucker.

The unknowns are x and the multipliers v. Where the search ended, the signs of v say which sides hold, so that the
equations are

    gradient of f + v @ c by x = 0, or x = bound where it presses x against one
    c = its lower side where v < 0, its upper side where v > 0 and for equations; v = 0 elsewhere

and the implicit function theorem applies where the gradients of the constraints that hold are independent, and none of
them holds with a multiplier of zero.

Source: A. V. Fiacco, "Introduction to Sensitivity and Stability Analysis in Nonlinear Programming", 1983, theorem
3.2.2.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable
from typing import Any

import numpy as np

from .. import trees
from ..differentiate import dense_jacobians
from ..graph.build import apply, assembled, constant_array, contract_labels, full, index_node
from ..graph.index import Affine, axis
from ..graph.node import REGISTRY, Array, Node
from ..implicit.recorded import Flat, Run, solution
from ..implicit.results import RecordedResult
from ..record.variable import raw_deep
from .checks import raveled
from .constraints import Constraint
from .problem import Outcome
from .solutions import pressed

__all__ = ["recorded_constrained"]


def recorded_constrained(solver: Any, space: Any, args: tuple[Any, ...], start: Node | None) -> Any:
    """`Minimizer.__call__` with constraints, where the function or a constraint depends on recorded values.

    Args:
        solver: the `Minimizer`.
        space: of what is searched for, n numbers.
        args: further arguments of its function.
        start: how the start is computed, if it depends on recorded values.

    Returns:
        A `RecordedResult` with ``multipliers``.

    Raises:
        ConvergenceError: the search fails, or its end is not known to working precision, so that which constraints
            hold there cannot be told.
    """
    n = space.size
    with np.errstate(all="ignore"):
        values = [trees.flatten(raw_deep(one.at(space)))[0] for one in solver.constraints]
    sizes = [sum(np.size(leaf) for leaf in leaves) for leaves in values]
    sides = [one.sides(size) for one, size in zip(solver.constraints, sizes, strict=True)]
    ends = np.cumsum([0, *sizes])
    m = int(ends[-1])

    def both(z: Any) -> Any:
        """f and, below it, all constraints; the multipliers have no influence."""
        x = z[:n]
        value = np.reshape(solver.function(space.unravel(x), *args), (1,))
        return np.concatenate([value, *(np.ravel(raveled(one.at(space, x))) for one in solver.constraints)])

    def make(function: Flat) -> Callable[[Array], Run]:
        rest = np.zeros(m, function.unknown.dtype)

        def part(first: int, last: int) -> Callable[[Any], Any]:
            return lambda x: function(np.concatenate([x, rest]))[first:last]

        whole = part(0, 1)
        search = solver.searching(lambda x: whole(x)[0], space)
        search.constraints = tuple(
            Constraint(part(1 + a, 1 + b), *side) for (a, b), side in zip(itertools.pairwise(ends), sides, strict=True)
        )

        def run(z: Array) -> Run:
            found = search(z[:n])
            message = str(found.message)
            if found.success and found.status != Outcome.WORKING_PRECISION:
                message = "it ended so far from the constraints that which of them hold cannot be told"
            v = np.concatenate(found.multipliers)
            return Run(np.concatenate([found.flat, v]), found.status == Outcome.WORKING_PRECISION, message)

        return run

    found = solution(
        both,
        np.concatenate([space.first, np.zeros(m, space.first.dtype)]),
        watched=functools.partial(solver.function, *(one.function for one in solver.constraints)),
        name="jacana.minimize",
        make=make,
        equations=lambda output, z: _conditions(output, z, space, np.concatenate([np.stack(s) for s in sides], axis=1)),
        start_node=None if start is None else assembled([(start, (axis(0),))], (n + m,), start.dtype, disjoint=True),
    )
    multipliers = tuple(found.x[n + a : n + b] for a, b in itertools.pairwise(ends))
    x = found.x[:n]
    return RecordedResult(space.unravel(x), x, found.output[0], multipliers=multipliers)


def _conditions(output: Node, z: Node, space: Any, sides: Array) -> Node:
    """F(z), shape (n + m,), for the nodes of f and c, shape (1 + m,), and of x and v."""
    n, m = space.size, sides.shape[1]
    x, v = _piece(z, 0, n), _piece(z, n, m)
    f = index_node(output, (), (Affine(0),))
    lagrangian = f + contract_labels([(_piece(output, 1, m), (0,)), (v, (0,))], (m,), ())
    (slopes,) = dense_jacobians([lagrangian], [z])[0]  # by v they are c
    gradient, c = _piece(slopes, 0, n), _piece(slopes, n, m)
    conditions, zero = v, full(0.0, v.shape, v.dtype)
    lower, upper = (np.where(np.isfinite(side), side, 0.0).astype(v.dtype) for side in sides)
    for side, holds in (
        (lower, apply("less", v, zero)),
        (upper, apply("greater", v, zero)),
        (lower, constant_array(np.asarray(sides[0] == sides[1]))),
    ):
        conditions = REGISTRY["select"](holds, c - constant_array(side), conditions)
    parts = [(pressed(gradient, x, space), (axis(0),)), (conditions, (Affine(n, ((0, 1),)),))]
    return assembled(parts, (n + m,), z.dtype, disjoint=True)


def _piece(vector: Node, first: int, count: int) -> Node:
    return index_node(vector, (count,), (Affine(first, ((0, 1),)),))

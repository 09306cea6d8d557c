"""Values that equations define, for many samples at once: what `vmap` makes of ``implicit`` and ``implicit_solve``.

Each sample has a problem of its own, which its solver solves as if it were alone (``together``: or, as far as it can,
side by side with the others, by the same steps). The derivative is made of terms with
the samples as an axis of both row and column, so that it is block-diagonal as that of everything else in a batch.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from ..index import axis, from_table, identity
from ..node import Array, DType, Edges, Node, Operation, Shape, Term, register
from .implicit import ImplicitParams, SystemParams, balance, singular
from .labelled import labelled, turned


def _evaluate(params: ImplicitParams, start: Array, *arguments: Array) -> Array:
    lead = start.shape[:-1]
    count = math.prod(lead)
    starts = np.ascontiguousarray(start).reshape(count, -1)
    each = [
        np.ascontiguousarray(argument).reshape(count, *own.shape)
        for argument, own in zip(arguments, params.arguments, strict=True)
    ]
    together = getattr(params.solver, "together", None)
    found = together(params, starts, each) if together is not None and count > 1 else None
    nothing = np.empty((count, *params.unknown.shape)), np.zeros(count, dtype=bool)
    result, solved = nothing if found is None else found
    for k in np.flatnonzero(~solved):
        result[k] = params.solver.run(starts[k], [argument[k] for argument in each])
    return np.asarray(result.reshape(*lead, *params.unknown.shape), dtype=params.unknown.dtype)


def _edges(node: Node) -> Edges:
    params: ImplicitParams = node.params
    from ...differentiate.implicit import depends, whole_derivative

    edges: list[tuple[Term, ...] | None] = [None]
    batch = node.ndim - 1
    for place, argument in enumerate(node.inputs[1:]):
        if argument.dtype.kind != "f" or 0 in (argument.size, node.size) or not depends(params, place):
            edges.append(None)
            continue
        factor = _for_each(whole_derivative(params, place), node)
        axes = identity(factor.ndim)
        col = (*axes[:batch], *axes[batch + 1 :])
        edges.append((Term(factor.shape, axes[: batch + 1], col, ((factor, tuple(range(factor.ndim))),)),))
    return tuple(edges)


def _for_each(one: Node, node: Node) -> Node:
    """A node over the leaves of the equations of one sample, for all samples of ``node``."""
    from ..batching import batched
    from ..build import movement_reshape

    params: ImplicitParams = node.params
    lead = node.shape[:-1]
    count = math.prod(lead)
    leaves = (params.unknown, *params.arguments)
    values = (node, *node.inputs[1:])
    flat = {leaf: movement_reshape(value, (count, *leaf.shape)) for leaf, value in zip(leaves, values, strict=True)}
    (found,) = batched([one], flat, count)
    return movement_reshape(found, (*lead, *one.shape))


implicit_batch = register(
    Operation(
        name="implicit_batch",
        family="control",
        evaluate=_evaluate,
        infer=lambda params, start, *arguments: ((*start.shape[:-1], *params.unknown.shape), params.unknown.dtype),
        edges=_edges,
        cost=1000.0,
    )
)


# --- linear systems -----------------------------------------------------------------------------------------------


def batch_of_systems(params: SystemParams, values: Node, right: Node) -> Node:
    """``implicit_solve`` for entries and right-hand sides with an axis of samples in front."""
    from ..build import assembled

    if params.pattern is not None:
        count, n = right.shape[:2]
        rows, cols = (from_table(table, (1,)) for table in (params.pattern.rows, params.pattern.cols))
        values = assembled([(values, (axis(0), rows, cols))], (count, n, n), values.dtype, disjoint=True)
    if params.transposed:
        values = turned(values)
    return systems(values, right, params=SystemsParams(params.name, params.line))


class SystemsParams(NamedTuple):
    """The solver that the systems belong to, and where it was called, for messages."""

    name: str
    line: str

    def batched(self) -> SystemsParams:
        """The same for one more leading axis."""
        return self


def _systems_evaluate(params: SystemsParams, values: Array, right: Array) -> Array:
    if not right.size:
        return np.zeros(right.shape, right.dtype)
    n = right.shape[-2]
    a, b = np.asarray(values, dtype=np.float64), np.asarray(right, dtype=np.float64)
    # What is not finite has a derivative that is not; it is kept away from LAPACK, which would spread or refuse it.
    known = np.asarray(np.isfinite(a).all(axis=(-2, -1)))
    a = np.where(known[..., None, None], a, np.eye(n))
    rows = balance(np.abs(a).max(axis=-1))[..., :, None]
    a = a * rows
    cols = balance(np.abs(a).max(axis=-2))[..., :, None]
    a = a * np.swapaxes(cols, -1, -2)
    scaled = b * rows
    try:
        found = np.linalg.solve(a, scaled)
    except np.linalg.LinAlgError:
        raise singular(params.name, params.line) from None
    finite = known[..., None] & np.asarray(np.isfinite(scaled).all(axis=-2))
    size = np.where(finite, np.abs(found).max(axis=-2), 0.0).max(axis=-1) * np.finfo(np.float64).eps
    if not (size <= n * np.where(finite, np.abs(scaled).max(axis=-2), 0.0).max(axis=-1)).all():
        raise singular(params.name, params.line)
    return np.where(known[..., None, None], found * cols, np.nan).astype(right.dtype)


def _systems_infer(params: SystemsParams, values: Node, right: Node) -> tuple[Shape, DType]:
    return right.shape, right.dtype


def _systems_edges(node: Node) -> Edges:
    # X = A^-1 B, dX = A^-1 (dB - dA X).
    from ..build import broadcast_axes, constant_array

    values, right = node.inputs
    lead, (n, m) = right.shape[:-2], right.shape[-2:]
    if 0 in right.shape:
        return None, None
    units = constant_array(np.eye(n, dtype=right.dtype))
    inverse = systems(values, broadcast_axes(units, values.shape, (len(lead), len(lead) + 1)), params=node.params)
    sizes = {"i": n, "j": m, "k": n}
    return (
        (labelled(lead, {**sizes, "l": n}, "ij", "kl", (-inverse, "ik"), (node, "lj")),),
        (labelled(lead, sizes, "ij", "kj", (inverse, "ik")),),
    )


systems = register(
    Operation(
        name="implicit_systems",
        family="control",
        evaluate=_systems_evaluate,
        infer=_systems_infer,
        edges=_systems_edges,
        cost=100.0,
    )
)

__all__ = ["batch_of_systems", "implicit_batch", "systems"]

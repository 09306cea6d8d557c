"""Smooth functions of one variable that an object of a library evaluates, with their derivatives: splines."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from ..index import axis
from ..node import Array, DType, Edges, Node, Operation, Shape, Term, register


class SplineParams(NamedTuple):
    """``owner(x, nu, **options)`` gives the nu-th derivative at a vector x, of shape ``(*lead, x.size, *rest)``.

    The owner belongs to the user and is compared by identity. ``batch`` counts axes of x before its last one.
    """

    owner: Any
    nu: int
    options: tuple[tuple[str, Any], ...]
    lead: Shape
    rest: Shape
    batch: int = 0

    def batched(self) -> SplineParams:
        """One more axis of points."""
        return self._replace(batch=self.batch + 1)


def _evaluate(params: SplineParams, x: Array) -> Array:
    result = np.asarray(params.owner(x, params.nu, **dict(params.options)), dtype=x.dtype)
    first = len(params.lead)
    return np.moveaxis(result, range(first, first + params.batch), range(params.batch))


def _infer(params: SplineParams, x: Node) -> tuple[Shape, DType]:
    assert x.ndim == params.batch + 1, x
    return (*x.shape[:-1], *params.lead, x.shape[-1], *params.rest), x.dtype


def _edges(node: Node) -> Edges:
    (x,) = node.inputs
    slope = spline(x, params=node.params._replace(nu=node.params.nu + 1))
    every = tuple(axis(k) for k in range(node.ndim))
    points = (*range(node.params.batch), node.params.batch + len(node.params.lead))
    return ((Term(node.shape, every, tuple(axis(k) for k in points), ((slope, tuple(range(node.ndim))),)),),)


spline = register(Operation(name="spline", family="special", evaluate=_evaluate, infer=_infer, edges=_edges, cost=30.0))

__all__ = ["SplineParams", "spline"]

"""Derivatives of what was computed as it was written: ``y.backward()`` and ``y.jacobian(x)``."""

from __future__ import annotations

import numpy as np

from ..errors import DifferentiationError
from ..graph.node import INPUT, Array, Node, new_input, substitute_nodes, topological
from .leaves import is_leaf, leaf_of, leaf_value
from .location import recording_error
from .variable import Variable


def _leaf_values(nodes: list[Node]) -> dict[Node, Array]:
    """The present numbers of all leaves among ``nodes``."""
    values = {}
    for node in nodes:
        if node.op is INPUT:
            if not is_leaf(node):
                raise recording_error(
                    "backward() and jacobian(x) of a Variable need numbers, and this one depends on the argument of a "
                    "function that is being recorded. Use jacana.grad or jacana.jacobian of a function there."
                )
            values[node] = leaf_value(node)
    return values


def _check_output(y: Variable) -> Node | None:
    if y.dtype.kind != "f":
        raise DifferentiationError(f"a Variable of dtype {y.dtype.name} has no derivative; convert before computing")
    return y._tracked()


def backward(y: Variable, whole: bool) -> None:
    """See ``Variable.backward``."""
    from ..derived import node_jacobians, node_vjp

    node = _check_output(y)
    if not whole:
        seed = _seed(y)
    if node is None:
        return
    values = _leaf_values(topological([node]))
    inputs = [i for i in values if i.dtype.kind == "f" and i is not node]
    leaves = {i: leaf for i in inputs if (leaf := leaf_of(i)) is not None}
    if not leaves:
        return
    if whole:
        for leaf, found in zip(leaves.values(), node_jacobians([node], list(leaves), values)[0], strict=True):
            leaf.grad = found
        return
    for leaf, found in zip(leaves.values(), node_vjp([node], [seed], list(leaves), values), strict=True):
        leaf.grad = found if leaf.grad is None else leaf.grad + found


def _seed(y: Variable) -> Array:
    if y.grad is None:
        if y.size != 1:
            raise DifferentiationError(
                f"backward() of an array of shape {y.shape} needs to know what to multiply its Jacobian with: set "
                f"y.grad (an array of shape {y.shape}) for the vector-Jacobian product, or call "
                "y.backward(jacobian=True) to give every leaf the whole Jacobian."
            )
        return np.ones(y.shape, dtype=y.dtype)
    seed = np.asarray(y.grad.data if isinstance(y.grad, Variable) else y.grad, dtype=y.dtype)
    if seed.shape != y.shape:
        raise DifferentiationError(f"y.grad has shape {seed.shape}, but y has shape {y.shape}")
    return seed


def jacobian(y: Variable, x: Variable) -> Array:
    """See ``Variable.jacobian``."""
    from ..derived import node_jacobians

    if not isinstance(x, Variable):
        raise DifferentiationError(f"y.jacobian(x) needs the Variable that y was computed from, got {type(x).__name__}")
    node = _check_output(y)
    wanted = x._tracked()
    if wanted is None or wanted.dtype.kind != "f":
        what = "depends on no leaf" if wanted is None else f"has dtype {wanted.dtype.name}"
        raise DifferentiationError(f"y.jacobian(x): x {what}, so there is nothing to differentiate with respect to")
    zeros = np.zeros(y.shape + x.shape, dtype=np.result_type(y.dtype, x.dtype))
    if node is None:
        return zeros
    order = topological([node])
    if wanted not in order:
        return zeros
    values = _leaf_values(order)
    if wanted.op is not INPUT:
        # An intermediate result becomes an argument of what was computed from it.
        argument = new_input(wanted.shape, wanted.dtype)
        (node,) = substitute_nodes([node], {wanted: argument})
        values[argument] = np.asarray(x._value)
        wanted = argument
    (row,) = node_jacobians([node], [wanted], values)
    return row[0]

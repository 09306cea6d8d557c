"""Graph-to-graph passes: dense and sparse Jacobians, Jacobian-vector and vector-Jacobian products.

The products are Jacobians of a scalar program: a cotangent c gives the gradient of ``sum(c * y)``, and a tangent t
the derivative by ``s`` of the program at ``x + s * t``, which elimination in reverse or forward order turns into
exactly the sweeps of reverse and forward mode.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..graph.build import broadcast_to, cast_to, contract_labels, sum_axes, zeros
from ..graph.node import DType, Node, new_input, substitute_nodes
from ..structure.formats import dense_node
from ..structure.sparse import SparsePlan, sparse_plan
from .eliminate import DENSE_LIMIT, Order, eliminate


def jacobian_dtype(output: Node, source: Node) -> DType:
    """The dtype of a Jacobian: the common one of result and argument."""
    return np.result_type(output.dtype if output.dtype.kind == "f" else source.dtype, source.dtype)


def dense_jacobians(outputs: Sequence[Node], inputs: Sequence[Node], order: Order = "auto") -> list[list[Node]]:
    """``result[i][j]`` of shape ``outputs[i].shape + inputs[j].shape``."""
    found = eliminate(outputs, inputs, order, unrestricted=DENSE_LIMIT, whole_maps=True)
    return [
        [
            dense_node(found.terms[i][j], y.shape, x.shape, jacobian_dtype(y, x))
            for j, x in enumerate(inputs)
        ]
        for i, y in enumerate(outputs)
    ]  # fmt: skip


def sparse_jacobian(output: Node, source: Node, order: Order = "auto") -> SparsePlan:
    """The Jacobian of one array by one array as a CSR pattern and the node of its values."""
    found = eliminate([output], [source], order)
    return sparse_plan(found.terms[0][0], output.shape, source.shape, jacobian_dtype(output, source))


def vjp_nodes(
    outputs: Sequence[Node], cotangents: Sequence[Node], inputs: Sequence[Node], order: Order = "reverse"
) -> list[Node]:
    """``sum_i cotangents[i] . d outputs[i] / d inputs[j]`` for every j."""
    pieces = []
    for y, c in zip(outputs, cotangents, strict=True):
        if y.dtype.kind == "f":
            labels = tuple(range(y.ndim))
            pieces.append(contract_labels([(y, labels), (cast_to(c, y.dtype), labels)], y.shape, ()))
    if not pieces:
        return [zeros(x.shape, x.dtype) for x in inputs]
    dtype = np.result_type(*(p.dtype for p in pieces))
    total = cast_to(pieces[0], dtype)
    for p in pieces[1:]:
        total = total + cast_to(p, dtype)
    found = eliminate([total], list(inputs), order, unrestricted=DENSE_LIMIT, whole_maps=True)
    return [dense_node(found.terms[0][j], (), x.shape, jacobian_dtype(total, x)) for j, x in enumerate(inputs)]


def jvp_nodes(
    outputs: Sequence[Node], inputs: Sequence[Node], tangents: Sequence[Node], order: Order = "forward"
) -> list[Node]:
    """``sum_j d outputs[i] / d inputs[j] . tangents[j]`` for every i."""
    step = new_input((), np.dtype("f8"))
    moved = {
        x: x + broadcast_to(cast_to(step, x.dtype), x.shape) * cast_to(t, x.dtype)
        for x, t in zip(inputs, tangents, strict=True)
        if x.dtype.kind == "f"
    }
    shifted = substitute_nodes(list(outputs), dict(moved))
    found = eliminate(shifted, [step], order, unrestricted=DENSE_LIMIT, whole_maps=True)
    back = {m: x for x, m in moved.items()}
    tangent_nodes = [
        dense_node(found.terms[i][0], y.shape, (), y.dtype if y.dtype.kind == "f" else np.dtype("f8"))
        for i, y in enumerate(outputs)
    ]
    return substitute_nodes(tangent_nodes, dict(back))


__all__ = ["dense_jacobians", "jacobian_dtype", "jvp_nodes", "sparse_jacobian", "sum_axes", "vjp_nodes"]

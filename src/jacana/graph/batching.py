"""The same program for many samples at once: every node that a sample changes gets one more axis, the first.

An axis more is nothing special to index expressions, contractions and elementwise operations, so the program of the
batch is an ordinary program, and structure, derivatives and executors see its batch axis like any other. (Known as
vectorising map; here it is a pass over finished graphs, so control flow has been settled before.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UnsupportedOperationError
from .build import contract_labels, index_node
from .index import axis, shift_axes
from .node import REGISTRY, Node, topological
from .ops.contraction import contract
from .ops.movement import AssembleParams, assemble, index


def batched(outputs: Sequence[Node], mapping: Mapping[Node, Node], count: int) -> list[Node]:
    """The program for ``count`` samples.

    Args:
        outputs: nodes of the program of one sample.
        mapping: what stands for some of its nodes. A node of the same shape is the same for every sample; a node with
            one more axis in front, of length ``count``, holds the value of each.

    Returns:
        One node for each output, all with the batch axis in front.

    Raises:
        UnsupportedOperationError: an operation that cannot be carried out on a batch.
    """
    new: dict[Node, Node] = dict(mapping)
    many = {old for old, node in mapping.items() if node.ndim == old.ndim + 1}
    for node in topological(outputs):
        if node in new:
            continue
        inputs = [new[i] for i in node.inputs]
        flags = [i in many for i in node.inputs]
        if any(flags):
            new[node] = _batched_node(node, inputs, flags, count)
            many.add(node)
        else:
            new[node] = node if inputs == list(node.inputs) else node.op(*inputs, params=node.params)
    return [_spread(new[node], node in many, count) for node in outputs]


def _spread(node: Node, has_batch: bool, count: int) -> Node:
    """``node`` with the batch axis, replicated along it if every sample has the same."""
    return node if has_batch else index_node(node, (count, *node.shape), [axis(k + 1) for k in range(node.ndim)])


def _batched_node(node: Node, inputs: list[Node], flags: list[bool], count: int) -> Node:
    shape = (count, *node.shape)
    if node.op is index:
        return index_node(inputs[0], shape, (axis(0), *(shift_axes(e, 1) for e in node.params.indices)))
    if node.op is contract:
        last = len(node.params.sizes)
        factors = [
            (i, (last, *labels) if flag else labels)
            for i, labels, flag in zip(inputs, node.params.labels, flags, strict=True)
        ]
        return contract_labels(factors, (*node.params.sizes, count), (last, *node.params.out))
    inputs = [_spread(i, flag, count) for i, flag in zip(inputs, flags, strict=True)]
    params = node.params
    if node.op is assemble:
        rows = tuple((axis(0), *(shift_axes(e, 1) for e in row)) for row in params.rows)
        params = AssembleParams(shape, params.dtype, rows, params.disjoint, params.full)
    elif hasattr(params, "on_batch"):
        other: Node = params.on_batch(node, inputs)
        assert other.shape == shape, (node, other)
        return other
    elif hasattr(params, "batched"):
        params = params.batched()
    elif params is not None and node.op.family != "elementwise":
        raise UnsupportedOperationError(
            f"vmap: {node.op.name} cannot be carried out on a batch; write it for the batch"
        )
    result = REGISTRY[node.op.name](*inputs, params=params)
    assert result.shape == shape, (node, result)
    return result


__all__ = ["batched"]

"""The same program for many samples at once: every node that a sample changes gets one more axis, the first.

An axis more is nothing special to index expressions, contractions and elementwise operations, so the program of the
batch is an ordinary program, and structure, derivatives and executors see its batch axis like any other. (Known as
vectorising map; here it is a pass over finished graphs, so control flow has been settled before.)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..errors import UnsupportedOperationError
from .build import broadcast_axes, contract_labels, index_node
from .index import axis, shift_axes
from .node import REGISTRY, Node, Shape, new_input, substitute_nodes, topological
from .ops.contraction import contract
from .ops.control import LoopParams, loop, packed_sources, source_groups, unpack
from .ops.movement import AssembleParams, assemble, index
from .ops.position import read_at, write_at
from .positions import at_each


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
    return [_spread(*found, count) for found in _Widened(mapping, count).of(outputs)]


def batched_along(outputs: Sequence[Node], mapping: Mapping[Node, Node], lead: Shape) -> list[tuple[Node, bool]]:
    """The same for a batch of any number of axes, with nothing spread: what each output is, and whether it has them."""
    every = [node for node in mapping if node.op.family == "leaf"]
    many = {node for node in every if mapping[node].ndim > node.ndim}
    if not many or not lead:
        return [(node, False) for node in substitute_nodes(outputs, dict(mapping))]
    # One axis at a time, from the last to the first, over inputs of their own; then these become what they stand for.
    own = {node: node for node in every}
    flags = [False] * len(outputs)
    for k in reversed(range(len(lead))):
        wide = {node: new_input((*lead[k:], *node.shape), node.dtype) if node in many else node for node in every}
        found = _Widened({own[node]: wide[node] for node in every}, lead[k]).of(outputs)
        outputs, flags, own = [node for node, _ in found], [flag for _, flag in found], wide
    moved = substitute_nodes(outputs, {own[node]: mapping[node] for node in every})
    return list(zip(moved, flags, strict=True))


class NotBatchedError(UnsupportedOperationError):
    """An operation has no batch axis.

    Attributes:
        node: the operation, in the program of one sample.
    """

    def __init__(self, node: Node) -> None:
        super().__init__(
            f"vmap: {node.op.name} cannot be carried out on a batch; compute it outside of vmap, call the function "
            "sample by sample, or write it with operations of the whole batch"
        )
        self.node = node


class _Widened:
    """A program for many samples as far as it has been made: what each node became, and whether it has the axis."""

    def __init__(self, mapping: Mapping[Node, Node], count: int) -> None:
        self.count = count
        self.new: dict[Node, Node] = dict(mapping)
        self.many = {old for old, node in mapping.items() if node.ndim == old.ndim + 1}

    def of(self, outputs: Sequence[Node]) -> list[tuple[Node, bool]]:
        """Each node for the batch, and whether it has the batch axis."""
        new, many = self.new, self.many
        for node in topological(outputs):
            if node in new:
                continue
            inputs = [new[i] for i in node.inputs]
            flags = [i in many for i in node.inputs]
            if any(flags):
                new[node] = self._loop(node) if node.op is loop else batched_node(node, inputs, flags, self.count)
                many.add(node)
            else:
                new[node] = node if inputs == list(node.inputs) else node.op(*inputs, params=node.params)
        return [(new[node], node in many) for node in outputs]

    def _loop(self, node: Node) -> Node:
        """Loops side by side, of which each slot that a sample changes has one for each.

        The layout of the results stays what it was, so that whatever reads them is a node like any other.
        """
        params: LoopParams = node.params
        instances = (self.count, *params.instances)
        given: dict[tuple[str, int], Node] = {}
        shared: dict[str, list[int]] = {"stack": [], "const": []}
        for group, source in zip(source_groups(params), node.inputs, strict=True):
            pieces = [unpack(source, s, len(group.lead)) for s in group.slots]
            for slot, (piece, has_batch) in zip(group.slots, self.of(pieces), strict=True):
                if not has_batch and slot.kind != "carry" and not group.lead:
                    shared[slot.kind].append(slot.place)
                else:
                    own = (*instances, *slot.shape)
                    lead = [0] if has_batch else []
                    lead += range(1, len(instances)) if group.lead else []
                    axes = [*lead, *range(len(instances), len(own))]
                    piece = broadcast_axes(piece, own, axes) if piece.shape != own else piece
                given[slot.kind, slot.place] = piece
        wide = params._replace(
            instances=instances, shared=(tuple(sorted(shared["stack"])), tuple(sorted(shared["const"])))
        )
        return loop(*packed_sources(wide, given), params=wide)


def _spread(node: Node, has_batch: bool, count: int) -> Node:
    """``node`` with the batch axis, replicated along it if every sample has the same."""
    return node if has_batch else index_node(node, (count, *node.shape), [axis(k + 1) for k in range(node.ndim)])


def batched_node(node: Node, inputs: list[Node], flags: list[bool], count: int) -> Node:
    """One node for the batch, on inputs of which some (``flags``) have the batch axis."""
    shape = (count, *node.shape)
    if node.op is index:
        return index_node(inputs[0], shape, (axis(0), *(shift_axes(e, 1) for e in node.params.indices)))
    if node.op is read_at or node.op is write_at:
        params = node.params.batched(count)
        return at_each(node.op, params, _spread(inputs[0], flags[0], count), inputs[1:], flags[1:])
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
        raise NotBatchedError(node)
    result = REGISTRY[node.op.name](*inputs, params=params)
    assert result.shape == shape, (node, result)
    return result


__all__ = ["NotBatchedError", "batched", "batched_along", "batched_node"]

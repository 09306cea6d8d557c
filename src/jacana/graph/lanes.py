"""Copies of one program as lanes: isomorphic subgraphs over arrays become one subgraph with an axis more in front.

What a hand-written loop over elements records for each of them (gather the nodes, multiply by a small matrix, a vector
to be added somewhere) differs in the places that are read and in numbers alone. So the first copy stands for all of
them: its reads become reads of all the places, its numbers a constant with an axis more, and the rest is what a batch
of that program is (`graph/batching.py`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..errors import UnsupportedOperationError
from .batching import batched_node
from .build import FrozenArray, broadcast_axes, constant, index_node
from .index import evaluate, from_table
from .node import CONSTANT, INPUT, LITERAL, Array, Node
from .ops.movement import index

FEWEST = 16  # copies from which lanes pay
MORE_WORK = 2  # how many times the elements of the copies may be computed (what some of them share is repeated)


class Copies:
    """Numbers for subgraphs: equal if they differ in places of reads and in numbers alone.

    ``fewest``: reads of one array in one shape from which they count as the same read at different places.
    """

    def __init__(self, order: Sequence[Node], fewest: int) -> None:
        reads = Counter((node.inputs[0], node.shape) for node in order if node.op is index)
        self._read = {key for key, count in reads.items() if count >= fewest}
        self._numbers: dict[Any, int] = {}
        self._of: dict[Node, int] = {}

    def of(self, node: Node) -> int:
        """The number of a subgraph. No recursion: it may be as deep as a loop is long."""
        stack = [node]
        while stack:
            current = stack[-1]
            if current in self._of:
                stack.pop()
                continue
            key: Any
            if self.is_read(current):
                key = ("read", current.inputs[0], current.shape)
            elif current.op is LITERAL:
                key = ("number", current.dtype)
            elif current.op is CONSTANT:
                key = ("numbers", current.shape, current.dtype)
            elif current.op is INPUT:
                key = ("the same", current)
            else:
                missing = [i for i in current.inputs if i not in self._of]
                if missing:
                    stack.extend(missing)
                    continue
                key = (current.op.name, current.params, *(self._of[i] for i in current.inputs))
            self._of[current] = self._numbers.setdefault(key, len(self._numbers))
            stack.pop()
        return self._of[node]

    def is_read(self, node: Node) -> bool:
        """Whether a node reads an array that is read at many places."""
        return node.op is index and (node.inputs[0], node.shape) in self._read

    def together(self, roots: Sequence[Node]) -> Node | None:
        """Subgraphs of one number as one node, with an axis for them in front.

        None if an operation has no batches, or too much of what they share would be repeated.
        """
        try:
            return _Lanes(self, len(roots)).of(tuple(roots))
        except UnsupportedOperationError:
            return None


class Stacked:
    """The owner of captured arrays of one shape, one after another; those that somebody may write into are followed."""

    __slots__ = ("_array", "_owners", "live", "structural")

    def __init__(self, owners: Sequence[Any]) -> None:
        self._owners = owners
        self.live = any([getattr(owner, "live", True) for owner in owners])
        self.structural = all([getattr(owner, "structural", False) for owner in owners])
        arrays = [owner.value() for owner in owners]
        self._array = _one_view(arrays) if self.live else np.stack(arrays)

    def value(self) -> Array:
        """The arrays as they are now."""
        return np.stack([owner.value() for owner in self._owners]) if self._array is None else self._array


def _one_view(arrays: Sequence[Array]) -> Array | None:
    """Arrays that lie in one array, each as far from the last, as a view of it; None if they do not."""
    first = arrays[0]
    starts = np.array([a.__array_interface__["data"][0] for a in arrays])
    steps = np.diff(starts)
    alike = all([a.base is not None and a.base is first.base and a.strides == first.strides for a in arrays])
    if not alike or np.any(steps != steps[0]):
        return None
    return np.lib.stride_tricks.as_strided(
        first, (len(arrays), *first.shape), (int(steps[0]), *first.strides), writeable=False
    )


class _Lanes:
    def __init__(self, copies: Copies, count: int) -> None:
        self.copies, self.count = copies, count

    def of(self, roots: tuple[Node, ...]) -> Node | None:
        made: dict[tuple[Node, ...], tuple[Node, bool]] = {}  # and whether it has the axis
        stack = [roots]
        once: set[Node] = set()
        work = total = 0
        while stack:
            key = stack[-1]
            if key in made:
                stack.pop()
                continue
            first = key[0]
            leaf = self._leaf(key)
            if leaf is not None:
                made[key] = leaf, leaf is not first
                stack.pop()
                continue
            inputs = list(zip(*(node.inputs for node in key), strict=True))
            missing = [i for i in inputs if i not in made]
            if missing:
                stack.extend(missing)
                continue
            total += sum(node.size for node in set(key) - once)
            once.update(key)
            work += self.count * first.size
            if work > MORE_WORK * (total + self.count * first.size):
                return None
            nodes, flags = [made[i][0] for i in inputs], [made[i][1] for i in inputs]
            made[key] = batched_node(first, nodes, flags, self.count), True
            stack.pop()
        node, spread = made[roots]
        return node if spread else broadcast_axes(node, (self.count, *node.shape), range(1, node.ndim + 1))

    def _leaf(self, key: tuple[Node, ...]) -> Node | None:
        first = key[0]
        if all([node is first for node in key]):
            return first
        if first.op is LITERAL:
            data = np.frombuffer(b"".join([node.params.data for node in key]), first.dtype)
            # As numbers of the program they were not looked at for zeros, and they are not now.
            return constant(FrozenArray(data, structural=False), data.shape, first.dtype)
        if first.op is CONSTANT:
            owners = [node.params.owner for node in key]
            owner: Any = Stacked(owners)
            if all([isinstance(o, FrozenArray) for o in owners]):
                owner = FrozenArray(owner.value(), structural=any([o.structural for o in owners]))
            return constant(owner, (self.count, *first.shape), first.dtype)
        if not self.copies.is_read(first):
            return None
        shape = (self.count, *first.shape)
        indices = []
        for a in range(first.inputs[0].ndim):
            places = [np.broadcast_to(evaluate(n.params.indices[a], n.shape), n.shape) for n in key]
            indices.append(from_table(np.stack(places), range(len(shape))))
        return index_node(first.inputs[0], shape, indices)


__all__ = ["Copies"]

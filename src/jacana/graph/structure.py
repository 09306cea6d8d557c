"""The structure of a program: everything about it but the identity of its leaves and the numbers in captured arrays.

Recording the same code again, at other arguments, makes nodes that differ in their leaves alone. Two programs have the
same key exactly if one becomes the other by exchanging leaves, so whatever was planned for one serves the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .build import FrozenArray
from .node import CONSTANT, INPUT, Node, topological


class Structure(NamedTuple):
    """A hashable ``key``, and the leaves that it leaves open, in order of first occurrence.

    ``free``: inputs of the program that are not among the given ones. ``constants``: captured arrays.
    """

    key: tuple[Any, ...]
    free: tuple[Node, ...]
    constants: tuple[Node, ...]


def structure(inputs: Sequence[Node], outputs: Sequence[Node]) -> Structure:
    """The structure of the program that computes ``outputs`` from ``inputs``.

    The key is made of the operations, parameters, shapes and dtypes themselves, not of a digest of them: equal keys are
    equal programs. Of a captured array whose zeros count as structure it holds where the zeros are.
    """
    place: dict[Node, int] = {}
    given = {node: k for k, node in enumerate(inputs)}
    free: list[Node] = []
    constants: list[Node] = []
    tokens: list[Any] = [(node.shape, node.dtype) for node in inputs]
    for node in topological(outputs):
        if node.op is INPUT:
            number = given.get(node)
            if number is None:
                free.append(node)
            tokens.append((number, node.shape, node.dtype))
        elif node.op is CONSTANT and not isinstance(node.params.owner, FrozenArray):
            constants.append(node)
            tokens.append((node.shape, node.dtype, zeros_of(node)))
        else:
            tokens.append((node.op.name, node.params, *[place[i] for i in node.inputs]))
        place[node] = len(place)
    return Structure((tuple(tokens), tuple([place[node] for node in outputs])), tuple(free), tuple(constants))


def zeros_of(constant: Node) -> bytes | None:
    """Where a captured array is zero, if that counts as structure."""
    owner = constant.params.owner
    return np.packbits(owner.value() != 0).tobytes() if getattr(owner, "structural", False) else None


__all__ = ["Structure", "structure", "zeros_of"]

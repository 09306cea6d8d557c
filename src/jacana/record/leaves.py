"""The leaves that were made by ``Variable(...)``: which number an input node stands for, and whose it is."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING

from ..graph.node import Array, Node
from .location import recording_error
from .recording import argument_value

if TYPE_CHECKING:
    from .variable import Variable

# The number of a leaf lives as long as its node does; the Variable itself may be gone (or be kept by the user).
_leaves: weakref.WeakKeyDictionary[Node, tuple[Array, weakref.ref[Variable]]] = weakref.WeakKeyDictionary()


def remember_leaf(node: Node, value: Array, leaf: Variable) -> None:
    """Note the number of a leaf, in the place of the one before."""
    _leaves[node] = (value, weakref.ref(leaf))


def leaf_value(node: Node) -> Array:
    """The present number of a leaf, given its input node."""
    leaf = _leaves.get(node)
    if leaf is None:
        argument = argument_value(node)
        if argument is not None:
            return argument
        raise recording_error(
            "A Variable from another recording was used here after that recording had ended. "
            "Return it from the recorded function instead of keeping it."
        )
    return leaf[0]


def is_leaf(node: Node) -> bool:
    """Whether an input node was made by ``Variable(...)``, not by a recording."""
    return node in _leaves


def leaf_of(node: Node) -> Variable | None:
    """The leaf Variable that an input node belongs to, if it is one and somebody still has it."""
    leaf = _leaves.get(node)
    return None if leaf is None else leaf[1]()

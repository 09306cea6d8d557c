"""Pytrees: nested dicts, lists, tuples, named tuples and dataclasses of arrays, through optree.

optree knows the containers of the standard library; a dataclass becomes known when the first instance is met, its
fields being its children (those with ``init=False`` are left to ``__post_init__``).
"""

from __future__ import annotations

import dataclasses
import importlib
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import optree
else:

    class _Later:
        """optree, imported when it is first used: importing jacana is to be quick."""

        def __getattr__(self, name: str) -> Any:
            global optree
            optree = importlib.import_module("optree")
            return getattr(optree, name)

    optree = _Later()

NAMESPACE = "jacana"
_known: set[type] = set()
_lock = threading.Lock()


def flatten(tree: Any) -> tuple[list[Any], Any]:
    """The leaves of a tree and its structure."""
    leaves, structure = optree.tree_flatten(tree, namespace=NAMESPACE)
    new = {type(leaf) for leaf in leaves if dataclasses.is_dataclass(leaf)} - _known
    if not new:
        return leaves, structure
    for kind in new:
        _register(kind)
    return flatten(tree)


def unflatten(structure: Any, leaves: Sequence[Any]) -> Any:
    """The tree of a structure and its leaves."""
    return optree.tree_unflatten(structure, leaves)


def tuple_of(structures: Sequence[Any]) -> Any:
    """The structure of a tuple of trees."""
    return optree.treespec_tuple(structures, namespace=NAMESPACE)


def is_tuple_of_leaves(tree: Any) -> bool:
    """Whether this is the structure of a tuple of two or more leaves and of nothing else."""
    return tree.type is tuple and tree.num_children > 1 and tree.num_nodes == tree.num_children + 1


def leaves_and_nones(tree: Any) -> list[Any]:
    """The leaves of a tree in which None is a leaf too."""
    leaves: list[Any] = optree.tree_leaves(tree, none_is_leaf=True, namespace=NAMESPACE)
    return leaves


def has_none(tree: Any) -> bool:
    """Whether something in the tree is None (which is no leaf)."""
    return any(leaf is None for leaf in leaves_and_nones(tree))


def leaf_name(structure: Any, k: int) -> str:
    """How the k-th leaf is written after the name of the whole tree: ``['weights'][0]``."""
    return "".join(f"[{part!r}]" for part in structure.paths()[k])


def _register(kind: type) -> None:
    names = tuple(f.name for f in dataclasses.fields(kind) if f.init)

    def children(instance: Any) -> tuple[tuple[Any, ...], None, tuple[str, ...]]:
        return tuple(getattr(instance, name) for name in names), None, names

    def build(_: Any, values: Any) -> Any:
        return kind(**dict(zip(names, values, strict=True)))

    with _lock:
        if kind not in _known:
            optree.register_pytree_node(kind, children, build, namespace=NAMESPACE)
            _known.add(kind)

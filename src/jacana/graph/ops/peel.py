"""Labelling a coefficient with the axes it really depends on."""

from __future__ import annotations

from ..index import plain_axis
from ..node import Node


def peel(node: Node, axes: tuple[int, ...]) -> tuple[Node, tuple[int, ...]]:
    """``node``, whose array axes stand for ``axes``, without the broadcasts that only replicate it.

    Returns the smaller node and the axes that its array axes stand for; a broadcast number ends with no axes.
    """
    while node.op.name == "index":
        source = node.inputs[0]
        plain = [plain_axis(e) for e in node.params.indices]
        kept = [p for p in plain if p is not None]
        if len(kept) != len(plain) or len(set(kept)) != len(kept):
            break
        if any(source.shape[k] != node.shape[p] for k, p in enumerate(kept)):
            break
        node, axes = source, tuple(axes[p] for p in kept)
    return node, axes

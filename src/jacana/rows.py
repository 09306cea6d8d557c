"""A function recorded for one row of its arguments, and run by machine code for each row of arrays."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import trees
from .errors import JacanaError
from .graph.node import Array, new_input, substitute_nodes
from .graph.simplify import simplify
from .graph.structure import structure
from .record.recording import record
from .record.variable import as_node
from .record.watch import Watches
from .run import native_available

__all__ = ["Rows", "each_row"]

KEPT = 32  # programs; the least recently used goes first

_known: OrderedDict[Any, Callable[..., list[Array]] | None] = OrderedDict()
_lock = threading.Lock()


class Rows(NamedTuple):
    """A function of one row for every row of C-contiguous arrays.

    Calling it with arrays that have one axis more than the example, in front, gives the leaves of the results with
    that axis. ``watches``: what the function read from outside while it was recorded.
    """

    run: Callable[..., list[Array]]
    owners: tuple[Any, ...]
    watches: Watches

    def __call__(self, *arrays: Array) -> list[Array]:
        return self.run(*arrays, *(np.ascontiguousarray(owner.value()) for owner in self.owners))


def each_row(function: Callable[..., Any], example: Sequence[Any]) -> Rows | None:
    """Return a function of one row as one of arrays of rows, which are shared out among all threads.

    Args:
        function: takes one array for each of `example` and returns arrays, in any structure.
        example: one row of each argument: the shapes and dtypes that all rows have.

    Returns:
        The function, or None where there is no machine code for what it does, or it looks at values.
    """
    if not native_available():
        return None
    from .run.native.rows import native_rows

    try:
        recording = record(function, [np.asarray(row) for row in example])
    except JacanaError:
        return None
    outputs = [as_node(leaf) for leaf in trees.flatten(recording.result)[0]]
    found = structure(recording.inputs, outputs)
    if recording.guards or found.free:
        return None
    with _lock:
        known = found.key in _known
        run = _known.get(found.key)
        if known:
            _known.move_to_end(found.key)
    if not known:
        # Leaves of its own: what is kept must not keep the arrays of the recording.
        leaves = {node: new_input(node.shape, node.dtype) for node in (*recording.inputs, *found.constants)}
        moved = simplify(substitute_nodes(outputs, leaves))
        own = list(leaves.values())
        count = len(recording.inputs)
        run = native_rows(own[:count], own[count:], moved)
        with _lock:
            _known[found.key] = run
            while len(_known) > KEPT:
                _known.popitem(last=False)
    owners = tuple(node.params.owner for node in found.constants)
    return None if run is None else Rows(run, owners, recording.watches)

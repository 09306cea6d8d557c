"""The structure of a program as a digest: equal for programs that are the same but for the identity of their leaves.

Interning makes equal nodes the same object within one process. Between two processes, or between two recordings with
arguments of their own, something else has to say that two programs are the same: a hash over every node in
topological order, with its operation, its parameters (integer tables by content) and the positions of its inputs.
Captured arrays are told apart by order of appearance; their content is no part of it, as compiled programs get them as
arguments, but where their zeros count as structure, the places of the zeros are. Arrays that nobody can change are
part of it as they are, since programs are simplified by what is in them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from .build import FrozenArray
from .index import Affine, Lookup, Table
from .node import CONSTANT, INPUT, Node, topological


class Fingerprint(NamedTuple):
    """``digest`` of the structure, with what it numbers: every node, and every table in order of appearance."""

    digest: bytes
    nodes: list[Node]
    tables: list[Table]


class _UnknownError(Exception):
    """A parameter of a kind that has no canonical text."""


def fingerprint(inputs: Sequence[Node], outputs: Sequence[Node], content: bool = True) -> Fingerprint | None:
    """The structure of the program that computes ``outputs`` from ``inputs``.

    ``content``: whether the numbers in arrays that nobody can change are part of it.
    None if it cannot be told: a leaf that is no input, or a parameter that is neither numbers, names, dtypes, index
    expressions nor tuples of them.
    """
    nodes = topological((*inputs, *outputs))
    place = {node: k for k, node in enumerate(nodes)}
    arguments = {node: k for k, node in enumerate(inputs)}
    text = _Text()
    lines: list[str] = []
    try:
        for node in nodes:
            if node.op is INPUT:
                if node not in arguments:
                    return None
                lines.append(f"input {arguments[node]} {node.dtype.str} {node.shape}")
                if node.params.zeros is not None:
                    lines.append(np.packbits(np.asarray(node.params.zeros.value()) != 0).tobytes().hex())
            elif node.op is CONSTANT:
                owner = node.params.owner
                lines.append(f"constant {node.dtype.str} {node.shape} {getattr(owner, 'live', True)}")
                if content and isinstance(owner, FrozenArray):
                    lines.append(hashlib.blake2b(owner.array.tobytes(), digest_size=16).hexdigest())
                if getattr(owner, "structural", False):
                    lines.append(np.packbits(np.asarray(owner.value()) != 0).tobytes().hex())
            else:
                here = " ".join([str(place[i]) for i in node.inputs])
                lines.append(f"{node.op.name} {here} {text.of(node.params)}")
    except _UnknownError:
        return None
    lines.append(" ".join([str(place[node]) for node in outputs]))
    return Fingerprint(hashlib.blake2b("\n".join(lines).encode(), digest_size=24).digest(), nodes, list(text.tables))


class _Text:
    """Canonical text of parameters; remembers the tables it met."""

    def __init__(self) -> None:
        self.tables: dict[Table, int] = {}
        self._known: dict[Any, str] = {}

    def of(self, value: Any) -> str:
        kind = type(value)
        if kind is int or kind is bool or value is None or kind is bytes or kind is str or kind is float:
            return repr(value)
        if kind is Affine or kind is Lookup:
            found = self._known.get(value)
            if found is None:
                found = self._known[value] = repr(value) if kind is Affine else self._lookup(value)
            return found
        if isinstance(value, tuple):
            return f"{kind.__name__}({','.join([self.of(part) for part in value])})"
        if isinstance(value, np.dtype):
            return value.str
        if kind is Table:
            self.tables.setdefault(value, len(self.tables))
            return f"table {value.values.shape} {value.digest.hex()}"
        raise _UnknownError

    def _lookup(self, value: Lookup) -> str:
        return f"{self.of(value.table)}{value.axes}"

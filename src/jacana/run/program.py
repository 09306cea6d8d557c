"""What an executor gets and what it gives: the one interface of this room."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from ..graph.fingerprint import Fingerprint, fingerprint
from ..graph.node import CONSTANT, INPUT, Array, Node, topological

LONG = 300  # operations from which a program is long


@dataclass(frozen=True)
class Program:
    """Arrays in, arrays out. ``inputs`` are the leaves that the caller gives, in order."""

    inputs: tuple[Node, ...]
    outputs: tuple[Node, ...]

    def nodes(self) -> tuple[Node, ...]:
        """Every node, inputs before users."""
        return self._nodes

    @functools.cached_property
    def _nodes(self) -> tuple[Node, ...]:
        return tuple(topological((*self.inputs, *self.outputs)))

    def constants(self) -> list[Node]:
        """The captured arrays; each is fetched at every run, so that what the user wrote into it is seen."""
        return [node for node in self.nodes() if node.op is CONSTANT]

    def free_inputs(self) -> list[Node]:
        """Leaves that the program needs and the caller does not give."""
        return [node for node in self.nodes() if node.op is INPUT and node not in self.inputs]


@dataclass(frozen=True)
class Origin:
    """What a program is derived from, when deriving it takes longer than telling that it was derived before.

    ``nodes``, of the same inputs, and ``how`` together determine the program.
    """

    inputs: tuple[Node, ...]
    nodes: tuple[Node, ...]
    how: str

    @property
    def long(self) -> bool:
        """Whether deriving takes much longer than the fingerprint."""
        return len(topological(self.nodes)) > LONG

    def fingerprint(self, content: bool = True) -> Fingerprint | None:
        """The structure of the program, told by that of its origin."""
        known = fingerprint(self.inputs, self.nodes, content)
        if known is None:
            return None
        digest = hashlib.blake2b(known.digest + self.how.encode(), digest_size=len(known.digest)).digest()
        return known._replace(digest=digest)


Runnable: TypeAlias = Callable[[Sequence[Array]], list[Array]]
"""A compiled program: C-contiguous arrays of the inputs' dtypes and shapes in, fresh arrays out. Thread-safe."""

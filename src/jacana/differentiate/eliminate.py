"""Jacobians by vertex elimination: the chain rule on a graph whose edges are lists of terms.

Every node between inputs and outputs is a vertex. Eliminating it composes each edge that enters with each that
leaves; when none is left, the edges from inputs to outputs are the Jacobian (Griewank and Walther, "Evaluating
Derivatives", 2nd edition, chapter 9). Forward and reverse mode are two orders of the same loop; the third takes the
vertex that costs least at the moment (Markowitz), with sizes of domains as cost.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..graph.index import identity
from ..graph.node import Node, Term, topological
from ..structure.support import restrict_to_factors
from ..structure.terms import Terms, add_terms, compose_terms, normalise

Order: TypeAlias = Literal["forward", "reverse", "cost", "auto"]
Key: TypeAlias = "Node | int"  # an output vertex is its position, so that an output may also be a node on the way

DENSE_LIMIT = 256  # ``unrestricted`` of dense results
AUTO_LIMIT = 60  # vertices up to which "auto" also tries pure forward and pure reverse


@dataclass(frozen=True)
class Elimination:
    """What an elimination found: ``terms[i][j]`` of output i by input j, and the multiplications it estimates."""

    terms: tuple[tuple[Terms, ...], ...]
    order: str
    cost: float
    vertices: int


def eliminate(
    outputs: Sequence[Node], inputs: Sequence[Node], order: Order = "auto", *, unrestricted: int = 0
) -> Elimination:
    """The Jacobian of every output by every input, as terms.

    ``unrestricted``: points of a domain up to which the zeros of constant matrices are not taken for structure. A
    dense result does not need to know them, and following each of them through small matrices takes long.
    """
    if order != "auto":
        return _Graph(outputs, inputs, unrestricted).run(order)
    best = _Graph(outputs, inputs, unrestricted).run("cost")
    if 1 < best.vertices <= AUTO_LIMIT:
        for other in ("forward", "reverse"):
            trial = _Graph(outputs, inputs, unrestricted).run(other)
            if trial.cost < best.cost:
                best = trial
    return best


@dataclass(frozen=True)
class Estimate:
    """What an order would cost: its multiplications, or (``complete`` is false) the cost at which it was given up."""

    order: str
    cost: float
    complete: bool


def estimate(
    outputs: Sequence[Node], inputs: Sequence[Node], order: Order, limit: float = math.inf, pairs: float = math.inf
) -> Estimate:
    """Run an elimination for its cost alone; given up beyond ``limit`` multiplications or ``pairs`` of terms."""
    graph = _Graph(outputs, inputs, 0)
    graph.limit, graph.pairs = limit, pairs
    try:
        graph.run(order)
    except _TooDearError:
        return Estimate(order, graph.cost, False)
    return Estimate(order, graph.cost, True)


class _TooDearError(Exception):
    """An order costs more than an estimate is worth."""


def _size(terms: Terms) -> int:
    total = 0
    for term in terms:
        total += math.prod(term.domain) if term.domain else 1
    return total


class _Graph:
    def __init__(self, outputs: Sequence[Node], inputs: Sequence[Node], unrestricted: int) -> None:
        self.unrestricted = unrestricted
        self.outputs, self.inputs = outputs, inputs
        self.before: dict[Key, dict[Node, Terms]] = {}  # vertex -> edges that enter it, by where they come from
        self.after: dict[Node, dict[Key, Terms]] = {}
        self.cost = 0.0
        self.limit = self.pairs = math.inf
        ordered = topological(outputs)
        wanted = set(inputs)
        active: set[Node] = set()
        for node in ordered:
            if node in wanted or (node.dtype.kind == "f" and any(i in active for i in node.inputs)):
                active.add(node)
        self.order = [node for node in ordered if node in active and node not in wanted]
        self.rank = {node: k for k, node in enumerate(self.order)}
        for node in self.order:
            self._connect(node, active)
        for k, node in enumerate(outputs):
            if node in active:
                unit = Term(node.shape, identity(node.ndim), identity(node.ndim))
                self._add(k, node, normalise(unit))

    def _connect(self, node: Node, active: set[Node]) -> None:
        for source, terms in zip(node.inputs, node.op.edges(node), strict=True):
            if terms is not None and source in active:
                for term in terms:
                    large = math.prod(term.domain) > self.unrestricted
                    for part in restrict_to_factors(term) if large else (term,):
                        self._add(node, source, normalise(part))

    def _add(self, to: Key, source: Node, term: Term | None) -> None:
        if term is not None:
            self._store(to, source, [term])

    def _store(self, to: Key, source: Node, terms: list[Term]) -> None:
        edges = self.before.setdefault(to, {})
        total = add_terms((*edges[source], *terms)) if source in edges else add_terms(terms)
        edges[source] = total
        self.after.setdefault(source, {})[to] = total

    def _price(self, node: Node) -> float:
        """The multiplications of eliminating ``node``: each pair of terms meets once for every point they share."""
        entering = sum([_size(t) for t in self.before.get(node, {}).values()])
        leaving = sum([_size(t) for t in self.after.get(node, {}).values()])
        return entering * leaving / max(node.size, 1)

    def _eliminate(self, node: Node) -> None:
        self.cost += self._price(node)
        entering = self.before.pop(node, {})
        leaving = self.after.pop(node, {})
        if self.limit < math.inf or self.pairs < math.inf:
            self.pairs -= sum(map(len, entering.values())) * sum(map(len, leaving.values()))
            if self.cost > self.limit or self.pairs < 0:
                raise _TooDearError
        for source in entering:
            del self.after[source][node]
        for to, outer in leaving.items():
            del self.before[to][node]
            for source, inner in entering.items():
                terms = compose_terms(outer, inner)
                if terms:
                    self._store(to, source, terms)

    def run(self, order: str) -> Elimination:
        if order == "forward":
            for node in self.order:
                self._eliminate(node)
        elif order == "reverse":
            for node in reversed(self.order):
                self._eliminate(node)
        elif order == "cost":
            self._cheapest_first()
        else:
            raise ValueError(f"order must be 'forward', 'reverse', 'cost' or 'auto', not {order!r}")
        terms = tuple(tuple(self.before.get(k, {}).get(i, ()) for i in self.inputs) for k in range(len(self.outputs)))
        return Elimination(terms, order, self.cost, len(self.order))

    def _cheapest_first(self) -> None:
        # Ties go to the vertex nearest the outputs: for a scalar result that is reverse mode.
        current = {node: self._price(node) for node in self.order}
        heap = [(price, -self.rank[node], node) for node, price in current.items()]
        heapq.heapify(heap)
        while heap:
            price, _, node = heapq.heappop(heap)
            if current.get(node) != price:
                continue
            del current[node]
            neighbours = [v for v in (*self.before.get(node, {}), *self.after.get(node, {})) if v in current]
            self._eliminate(node)
            for v in neighbours:
                assert isinstance(v, Node)
                renewed = self._price(v)
                if renewed != current[v]:
                    current[v] = renewed
                    heapq.heappush(heap, (renewed, -self.rank[v], v))

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
from ..structure.formats import dense_node
from ..structure.support import restrict_to_factors
from ..structure.terms import Terms, add_terms, compose_terms, normalise
from .maps import opaque_map, through_maps
from .unrolling import unrolled

Order: TypeAlias = Literal["forward", "reverse", "cost", "auto"]
Key: TypeAlias = "Node | int"  # an output vertex is its position, so that an output may also be a node on the way

DENSE_LIMIT = 256  # ``unrestricted`` of dense results
AUTO_LIMIT = 60  # vertices up to which "auto" also tries pure forward and pure reverse


@dataclass(frozen=True)
class Elimination:
    """What an elimination found: ``terms[i][j]`` of output i by input j, and the multiplications it estimates.

    ``unformed``: whether the matrix of a linear map was met and left whole.
    """

    terms: tuple[tuple[Terms, ...], ...]
    order: str
    cost: float
    vertices: int
    unformed: bool = False


def eliminate(
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    order: Order = "auto",
    *,
    unrestricted: int = 0,
    whole_maps: bool = False,
    join_rows: bool = False,
) -> Elimination:
    """The Jacobian of every output by every input, as terms.

    ``unrestricted``: points of a domain up to which the zeros of constant matrices are not taken for structure. A
    dense result does not need to know them, and following each of them through small matrices takes long.
    ``whole_maps``: never take the zeros of a linear map's matrix (a running sum) for structure, so that it need not be
    formed: what a gradient, a dense result and an operator want.
    ``join_rows``: pieces that together make a whole row of a product's cotangent are joined before they go through it.
    """
    if order != "auto":
        return _Graph(outputs, inputs, unrestricted, whole_maps, join_rows).run(order)
    graph = _Graph(outputs, inputs, unrestricted, whole_maps, join_rows)
    if graph.ends:
        # Each order would derive the bodies of loops anew, so that the orders are compared by their estimates first.
        orders: tuple[Order, ...] = ("cost", "forward", "reverse") if 1 < len(graph.order) <= AUTO_LIMIT else ("cost",)
        if len(orders) == 1:
            return graph.run("cost")
        estimates = [estimate(outputs, inputs, o, unrestricted=unrestricted, whole_maps=whole_maps) for o in orders]
        return graph.run(min(estimates, key=lambda e: e.cost).order)
    best = graph.run("cost")
    if 1 < best.vertices <= AUTO_LIMIT:
        for other in ("forward", "reverse"):
            trial = _Graph(outputs, inputs, unrestricted, whole_maps, join_rows).run(other)
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
    outputs: Sequence[Node],
    inputs: Sequence[Node],
    order: Order,
    limit: float = math.inf,
    pairs: float = math.inf,
    *,
    unrestricted: int = 0,
    whole_maps: bool = False,
) -> Estimate:
    """Run an elimination for its cost alone; given up beyond ``limit`` multiplications or ``pairs`` of terms."""
    graph = _Graph(outputs, inputs, unrestricted, whole_maps)
    graph.limit, graph.pairs, graph.dry = limit, pairs, True
    try:
        graph.run(order)
    except _TooDearError:
        return Estimate(order, graph.cost, False)
    return Estimate(order, graph.cost, True)


class _TooDearError(Exception):
    """An order costs more than an estimate is worth."""


def _size(terms: Terms) -> float:
    return float(sum(math.prod(t.domain) for t in terms))


class _Graph:
    def __init__(
        self,
        outputs: Sequence[Node],
        inputs: Sequence[Node],
        unrestricted: int,
        whole_maps: bool,
        join_rows: bool = False,
    ) -> None:
        self.join_rows = join_rows
        self.unrestricted, self.whole_maps, self.unformed = unrestricted, whole_maps, False
        self.outputs, self.inputs = outputs, inputs
        self.before: dict[Key, dict[Node, Terms]] = {}  # vertex -> edges that enter it, by where they come from
        self.after: dict[Node, dict[Key, Terms]] = {}
        self.cost = 0.0
        self.limit = self.pairs = math.inf
        self.ends: set[Node] = set()  # the vertices at either end of an opaque linear map
        self.dry = False  # only the cost is wanted: products with opaque maps are not derived
        if not whole_maps:
            outputs = self.outputs = unrolled(outputs, inputs)
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
                    if opaque_map(term) is not None:
                        self.ends.update((node, source))
                        self._add(node, source, term)
                        continue
                    large = math.prod(term.domain) > self.unrestricted
                    if self.whole_maps and any(factor.op.matrix for factor, _ in term.factors):
                        large, self.unformed = False, True
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
        if node in self.ends:
            return self._price_of_maps(node)
        entering = sum(_size(t) for t in self.before.get(node, {}).values())
        leaving = sum(_size(t) for t in self.after.get(node, {}).values())
        return entering * leaving / max(node.size, 1)

    def _price_of_maps(self, node: Node) -> float:
        """An opaque map works on all of its elements for each row that is pulled or each column that is pushed."""
        price = 0.0
        for to, outer in self.after.get(node, {}).items():
            for source, inner in self.before.get(node, {}).items():
                if maps := [m for t in inner if (m := opaque_map(t)) is not None]:
                    price += sum(sum(m.shape) for m in maps) * max(self._shape(to)[1], 1)
                elif maps := [m for t in outer if (m := opaque_map(t)) is not None]:
                    price += sum(sum(m.shape) for m in maps) * max(source.size, 1)
                else:
                    price += _size(outer) * _size(inner) / max(node.size, 1)
        return price

    def _shape(self, to: Key) -> tuple[tuple[int, ...], int]:
        node = self.outputs[to] if isinstance(to, int) else to
        return node.shape, node.size

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
            if self.join_rows and len(outer) > 1:
                outer = self._joined(to, node, outer, entering)
            for source, inner in entering.items():
                if node in self.ends:
                    terms = through_maps(outer, inner, self._shape(to)[0], node, source, self.dry)
                else:
                    terms = compose_terms(outer, inner)
                if terms:
                    self._store(to, source, terms)

    def _joined(self, to: Key, node: Node, outer: Terms, entering: dict[Node, Terms]) -> Terms:
        """Terms that together fill all rows over a product, as one: the slices of a matrix-vector product."""
        rows, count = self._shape(to)
        whole = _size(outer) == count * node.size and not any(t.masks for t in outer)
        product = any(math.prod(t.domain) > node.size for terms in entering.values() for t in terms)
        if not (whole and product) or self.dry:
            return outer
        stored = dense_node(outer, rows, node.shape, node.dtype)
        if stored.op.name == "assemble" and not stored.params.full:
            return outer
        axes = identity(stored.ndim)
        unit = Term(stored.shape, axes[: len(rows)], axes[len(rows) :], ((stored, tuple(range(stored.ndim))),))
        found = normalise(unit)
        return outer if found is None else (found,)

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
        return Elimination(terms, order, self.cost, len(self.order), self.unformed)

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

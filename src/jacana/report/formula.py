"""Terms in index notation, as one would write them: ``{i: 998}  J[i + 1, i] += 2*x[i]``.

Short coefficients are spelled out down to arguments and captured arrays. What would be long stands as ``%5[i]``, the
number of its node in the program of all coefficients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..graph.index import Affine, Index, Lookup, Table, axis, substitute
from ..graph.node import CONSTANT, INPUT, Factor, Node, Shape, Term, literal_value, topological
from ..graph.printing import axis_name, index_text, program_leaves, program_text

__all__ = ["Formulas", "LabelledTerm"]

DEPTH = 4  # operations inside one another that are spelled out
WIDTH = 44  # characters up to which a factor is spelled out
TABULATED = 100_000  # points up to which a table of a table is worked out for a formula

_COMPARISON, _SUM, _PRODUCT, _SIGN, _POWER, _ATOM = range(6)
_INFIX = {
    "add": (" + ", _SUM),
    "subtract": (" - ", _SUM),
    "divide": ("/", _PRODUCT),
    "power": ("**", _POWER),
    "less": (" < ", _COMPARISON),
    "less_equal": (" <= ", _COMPARISON),
    "greater": (" > ", _COMPARISON),
    "greater_equal": (" >= ", _COMPARISON),
    "equal": (" == ", _COMPARISON),
    "not_equal": (" != ", _COMPARISON),
    "logical_and": (" and ", _COMPARISON),
    "logical_or": (" or ", _COMPARISON),
}


class _TooLongError(Exception):
    """A formula that is better given as the number of its node."""


class Formulas:
    """The names that the formulas of one Jacobian share: arguments, captured arrays, tables, numbered nodes."""

    def __init__(self, nodes: Sequence[Node], names: Mapping[Node, str]) -> None:
        self.nodes = tuple(dict.fromkeys(nodes))
        self._names = dict(names)
        self._numbers: dict[Node, int] | None = None
        self._tables: dict[Table, str] = {}
        self._texts: dict[tuple[Factor, Shape], tuple[str, int]] = {}

    def table(self, table: Table) -> str:
        """The short name of a table: ``t0``; a small one stands for itself."""
        if 0 < table.values.size <= 6 and table.values.ndim:
            return str(table.values.tolist())
        return self._tables.setdefault(table, f"t{len(self._tables)}")

    def tables(self) -> dict[str, Table]:
        """The tables that have been named so far."""
        return {name: table for table, name in self._tables.items()}

    def index(self, e: Index) -> str:
        """One index expression."""
        if isinstance(e, Lookup):
            return f"{self.table(e.table)}[{', '.join(map(axis_name, e.axes))}]"
        return index_text(e)

    def place(self, indices: Sequence[Index]) -> str:
        """A place in an array: ``i + 1`` where it has one axis, else ``(i, j)``."""
        inside = ", ".join(map(self.index, indices))
        return inside if len(indices) == 1 else f"({inside})"

    def number(self, node: Node) -> int:
        """The number of a node in the program of all coefficients."""
        if self._numbers is None:
            self._numbers = {n: k for k, n in enumerate(topological(reversed(self.nodes)))}
        return self._numbers[node]

    def leaves(self) -> list[tuple[str, Any]]:
        """What the names in the program of all coefficients stand for."""
        return list(program_leaves(self.nodes).items())

    def program(self) -> str:
        """The program of all coefficients, after what the arguments in it are called."""
        known = [f"  # {name} is {self._names[leaf]}" for name, leaf in self.leaves() if leaf in self._names]
        return "\n".join([*(line for line in known if not line.startswith("  # c")), program_text(self.nodes)])

    def product(self, factors: Sequence[Factor], domain: Shape) -> str:
        """The product of factors over a domain; ``1`` if there is none."""
        parts = [self._factor(factor, domain) for factor in factors]
        if len(parts) == 1:
            return parts[0][0]
        return "*".join(text if strength >= _PRODUCT else f"({text})" for text, strength in parts) or "1"

    def condition(self, masks: Sequence[Factor], domain: Shape) -> str:
        """Where a term holds, or nothing."""
        return " and ".join(self._factor(mask, domain)[0] for mask in masks)

    def _factor(self, factor: Factor, domain: Shape) -> tuple[str, int]:
        key = (factor, domain)
        if key not in self._texts:
            node, axes = factor
            indices = tuple(axis(a) for a in axes)
            try:
                text, strength = self._spell(node, indices, domain, DEPTH)
                if len(text) > WIDTH:
                    raise _TooLongError
            except _TooLongError:
                text, strength = self._item(f"%{self.number(node)}", indices), _ATOM
            self._texts[key] = text, strength
        return self._texts[key]

    def _item(self, name: str, indices: Sequence[Index]) -> str:
        return f"{name}[{', '.join(map(self.index, indices))}]" if indices else name

    def _spell(self, node: Node, indices: tuple[Index, ...], domain: Shape, depth: int) -> tuple[str, int]:
        value = literal_value(node)
        if value is not None:
            text = _number_text(value)
            return text, _SIGN if text.startswith("-") else _ATOM
        if node.op in (INPUT, CONSTANT):
            if node not in self._names:
                self._names = {leaf: name for name, leaf in self.leaves() if isinstance(leaf, Node)} | self._names
            return self._item(self._names[node], indices), _ATOM
        if node.op.name == "index":
            return self._spell(node.inputs[0], self._inner(node, indices, domain), domain, depth)
        if node.op.name == "cast":
            return self._spell(node.inputs[0], indices, domain, depth)
        if node.op.family != "elementwise" or depth == 0:
            raise _TooLongError
        if node.op.name in ("multiply", "negative"):
            return _product_text(*self._multiplied(node, indices, domain, depth))
        parts = [self._spell(i, indices, domain, depth - 1) for i in node.inputs]
        if sum(len(text) for text, _ in parts) > WIDTH:
            raise _TooLongError
        name = node.op.name
        if name in _INFIX:
            symbol, strength = _INFIX[name]
            (a, strong), (b, stronger) = parts
            # The right side of - and / needs brackets where the left does not, that of ** the other way round.
            a = a if strong > strength or (strong == strength and name != "power" and strength) else f"({a})"
            b = b if stronger > strength or (stronger == strength and name == "add") else f"({b})"
            return f"{a}{symbol}{b}".replace(" + -", " - "), strength
        if name == "logical_not":
            return f"not({parts[0][0]})", _ATOM
        if name == "square":
            text, strong = parts[0]
            return (text if strong > _POWER else f"({text})") + "**2", _POWER
        called = "where" if name == "select" else name
        return f"{called}({', '.join(text for text, _ in parts)})", _ATOM

    def _multiplied(
        self, node: Node, indices: tuple[Index, ...], domain: Shape, depth: int
    ) -> tuple[float, list[tuple[str, int]]]:
        """A product taken apart: the number in it, and its other factors."""
        while node.op.name in ("index", "cast") and literal_value(node) is None:
            if node.op.name == "index":
                indices = self._inner(node, indices, domain)
            (node,) = node.inputs
        value = literal_value(node)
        if isinstance(value, float) and math.isfinite(value):
            return value, []
        if node.op.name == "negative" and depth:
            number, factors = self._multiplied(node.inputs[0], indices, domain, depth - 1)
            return -number, factors
        if node.op.name == "multiply" and depth:
            (a, left), (b, right) = (self._multiplied(i, indices, domain, depth - 1) for i in node.inputs)
            return a * b, left + right
        return 1.0, [self._spell(node, indices, domain, depth)]

    def _inner(self, node: Node, indices: tuple[Index, ...], domain: Shape) -> tuple[Index, ...]:
        result: list[Index] = []
        for e in node.params.indices:
            lookups = [x for x in (e, *indices) if isinstance(x, Lookup)]
            if lookups and math.prod(domain) > TABULATED and not all(isinstance(x, Affine) for x in indices):
                raise _TooLongError
            result.append(substitute(e, indices, domain))
        return tuple(result)


def _product_text(number: float, factors: Sequence[tuple[str, int]]) -> tuple[str, int]:
    if not factors:
        text = _number_text(number)
        return text, _SIGN if text.startswith("-") else _ATOM
    if number == 1 and len(factors) == 1:
        return factors[0]
    spelled = [text if strength > _SIGN else f"({text})" for text, strength in factors]
    if abs(number) != 1:
        return "*".join([_number_text(number), *spelled]), _PRODUCT
    return ("-" if number < 0 else "") + "*".join(spelled), _PRODUCT


def _number_text(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


class LabelledTerm:
    """One term of a structure, written out when it is looked at.

    Attributes:
        term: the term itself; nodes and index expressions.
        row_leaf, column_leaf: the names of the array of results and of arguments that it belongs to.
    """

    __slots__ = ("_formulas", "_plain", "column_leaf", "row_leaf", "term")

    def __init__(self, term: Term, formulas: Formulas, row_leaf: str, column_leaf: str, plain: bool) -> None:
        self.term, self.row_leaf, self.column_leaf = term, row_leaf, column_leaf
        self._formulas, self._plain = formulas, plain

    @property
    def domain(self) -> dict[str, int]:
        """The named axes and their sizes."""
        return {axis_name(a): n for a, n in enumerate(self.term.domain)}

    @property
    def row(self) -> str:
        """The row: an index expression for each axis of the result."""
        return self._side(self.row_leaf, self.term.row)

    @property
    def column(self) -> str:
        """The column: an index expression for each axis of the argument."""
        return self._side(self.column_leaf, self.term.col)

    def _side(self, leaf: str, indices: Sequence[Index]) -> str:
        if self._plain:
            return self._formulas.place(indices)
        return self._formulas._item(leaf, indices)

    @property
    def coefficient(self) -> str:
        """The product of the factors; ``1`` where there is none."""
        return self._formulas.product(self.term.factors, self.term.domain)

    @property
    def condition(self) -> str:
        """Where the entry is there at all; empty if everywhere."""
        return self._formulas.condition(self.term.masks, self.term.domain)

    @property
    def size(self) -> int:
        """The number of points of the domain: the entries that the term writes."""
        return math.prod(self.term.domain)

    def __str__(self) -> str:
        domain = ", ".join(f"{name}: {n}" for name, n in self.domain.items())
        where = f"  where {self.condition}" if self.condition else ""
        return f"{{{domain}}}  J[{self.row}, {self.column}] += {self.coefficient}{where}"

    __repr__ = __str__

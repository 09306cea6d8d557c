"""Programs as text, one line a node, in a form that parses back to the very same nodes.

    %0 = input(x0) float64[6]
    %1 = index(%0, (i + 1)) float64[4]
    %2 = exp(%1) float64[4]
    return %2

Numbers, index expressions and small tables stand in the text. What a text cannot hold (arguments, captured arrays,
large tables) it names, and ``program_leaves`` gives what the names stand for: ``x0`` an argument, ``c0`` a captured
array, ``table:0123456789abcdef:40x3`` a table by its digest and shape, ``p0`` the parameters of an operation that this
page does not know.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import InvalidInputError
from .index import Affine, Index, Lookup, Table
from .node import (
    CONSTANT,
    INPUT,
    LITERAL,
    REGISTRY,
    DType,
    LiteralParams,
    Node,
    Shape,
    literal_value,
    new_input,
    topological,
)
from .ops.contraction import ContractParams, contract
from .ops.elementwise import CastParams, cast
from .ops.movement import AssembleParams, IndexParams, assemble, index
from .ops.reduction import AxesParams, AxisParams

__all__ = ["axis_name", "dtype_text", "index_text", "parse_program", "program_leaves", "program_text"]

_NAMES = "ijklmnopqrstuvwxyzabcdefgh"
INLINE_TABLE = 8  # elements up to which a table stands in the text

# --- writing ----------------------------------------------------------------------------------------------------


def axis_name(a: int) -> str:
    """The letter of a domain axis: i, j, k, ..."""
    return _NAMES[a] if a < len(_NAMES) else f"i{a}"


def dtype_text(dtype: DType) -> str:
    """``float64``; with the byte order where it is not the machine's own."""
    return dtype.name if np.dtype(dtype.name) == dtype else dtype.str


def _table_text(table: Table) -> str:
    if table.values.ndim and 0 < table.values.size <= INLINE_TABLE:
        return str(table.values.tolist())
    return f"table:{table.digest.hex()[:16]}:{'x'.join(map(str, table.values.shape))}"


def index_text(index: Index) -> str:
    """An index expression as one would write it.

    >>> index_text(Affine(3, ((0, 2),)))
    '2*i + 3'
    >>> index_text(Lookup(Table(np.array([2, 0, 1])), (1,)))
    '[2, 0, 1][j]'
    """
    if isinstance(index, Lookup):
        return f"{_table_text(index.table)}[{', '.join(axis_name(a) for a in index.axes)}]"
    parts = [axis_name(a) if s == 1 else f"{s}*{axis_name(a)}" for a, s in index.strides]
    if index.offset or not parts:
        parts.append(str(index.offset))
    return " + ".join(parts).replace("+ -", "- ")


def _indices_text(indices: Iterable[Index]) -> str:
    return "(" + ", ".join(index_text(e) for e in indices) + ")"


def _literal_text(node: Node) -> str:
    text, dtype = repr(literal_value(node)), node.dtype
    try:
        if _literal_params(text, dtype) == node.params:
            return text
    except InvalidInputError:
        pass
    return f"bytes:{node.params.data.hex()}"  # a NaN with a message of its own, a long double


def _labels_text(params: ContractParams) -> str:
    sides = ",".join("".join(map(axis_name, labels)) for labels in params.labels)
    text = f"{sides}->{''.join(map(axis_name, params.out))}"
    told = {a for labels in params.labels for a in labels}
    return text if len(told) == len(params.sizes) else f"{text}; {'x'.join(map(str, params.sizes))}"


def _spelled(node: Node) -> bool:
    """Whether the parameters of the node can be told from its line."""
    params = node.params
    return params is None or node.op in (LITERAL, index, assemble, contract, cast) or _is_reduction(params)


def _is_reduction(params: Any) -> bool:
    return isinstance(params, (AxesParams, AxisParams))


def _tables(node: Node) -> list[Table]:
    if node.op is index:
        expressions = node.params.indices
    elif node.op is assemble:
        expressions = [e for rows in node.params.rows for e in rows]
    else:
        return []
    return [e.table for e in expressions if isinstance(e, Lookup)]


def program_leaves(outputs: Sequence[Node]) -> dict[str, Any]:
    """What the names in the text of a program stand for: input and constant nodes, tables, unknown parameters.

    Inputs are numbered in the order in which they were made, everything else as it is met.

    >>> x = new_input((2,), np.dtype("f8"))
    >>> program_leaves([x * 2.0]) == {"x0": x}
    True
    """
    order = topological(reversed(outputs))  # the first output comes first
    inputs = sorted((node for node in order if node.op is INPUT), key=lambda node: int(node.params.number))
    leaves: dict[str, Any] = {f"x{k}": node for k, node in enumerate(inputs)}
    constants = [node for node in order if node.op is CONSTANT]
    leaves.update({f"c{k}": node for k, node in enumerate(constants)})
    for node in order:
        for table in _tables(node):
            text = _table_text(table)
            if not text.startswith("["):
                assert leaves.setdefault(text, table) == table, "two tables with the same digest"
    unknown = [n.params for n in order if n.op not in (INPUT, CONSTANT) and not _spelled(n)]
    leaves.update({f"p{k}": params for k, params in enumerate(dict.fromkeys(unknown))})
    return leaves


def program_text(outputs: Sequence[Node]) -> str:
    """The program that computes ``outputs``, one line a node; ``parse_program`` reads it.

    >>> x = new_input((3,), np.dtype("f8"))
    >>> print(program_text([x * x + 1.0]))
    %0 = input(x0) float64[3]
    %1 = multiply(%0, %0) float64[3]
    %2 = literal(1.0) float64[]
    %3 = index(%2, ()) float64[3]
    %4 = add(%1, %3) float64[3]
    return %4
    """
    order = topological(reversed(outputs))  # the first output comes first
    names = {leaf: name for name, leaf in program_leaves(outputs).items() if not isinstance(leaf, Table)}
    number = {node: k for k, node in enumerate(order)}
    lines = []
    for node in order:
        line = node_text(node, number, names)
        lines.append(f"%{number[node]} = {line}")
    lines.append("return " + ", ".join(f"%{number[node]}" for node in outputs))
    return "\n".join(lines)


def node_text(node: Node, number: Mapping[Node, int], names: Mapping[Any, str]) -> str:
    """The line of one node without its number: ``multiply(%1, %2) float64[3]``."""
    arguments = [f"%{number[i]}" for i in node.inputs]
    params, comment = node.params, ""
    if node.op is LITERAL:
        arguments = [_literal_text(node)]
    elif node.op in (INPUT, CONSTANT):
        arguments = [names[node]]
    elif node.op is index:
        arguments.append(_indices_text(params.indices))
    elif node.op is assemble:
        arguments = [f"{a} at {_indices_text(r)}" for a, r in zip(arguments, params.rows, strict=True)]
        arguments += [word for word in ("disjoint", "full") if getattr(params, word)]
    elif node.op is contract:
        arguments.append(_labels_text(params))
    elif _is_reduction(params):
        arguments.append(repr(params[0]))
    elif not _spelled(node):
        arguments.append(names[params])
        comment = f"  # {names[params]} = {' '.join(repr(params).split())}"
    dims = ",".join(map(str, node.shape))
    return f"{node.op.name}({', '.join(arguments)}) {dtype_text(node.dtype)}[{dims}]{comment}"


# --- reading ----------------------------------------------------------------------------------------------------

_LINE = re.compile(r"%(\d+) = (\w+)\((.*)\) (\S+)\[([\d,]*)\]")
_PART = re.compile(r"(?:(-?\d+)\*)?([a-z]\d*)|(-?\d+)")
_LABEL = re.compile(r"[a-z]\d*")


def parse_program(text: str, leaves: Mapping[str, Any] | None = None) -> list[Node]:
    """The outputs of a program that ``program_text`` wrote: the same nodes, not equal ones.

    Arguments:
        text: one line a node, then ``return``. Empty lines and what follows ``  #`` are passed over.
        leaves: what the names stand for, from ``program_leaves``. Another input or constant of the same shape and
            dtype may take the place of the first. Without it every input is a new one.

    Raises:
        InvalidInputError: a line cannot be read, a name is not in ``leaves``, or a node does not have the shape and
            dtype that its line says.

    >>> x = new_input((3,), np.dtype("f8"))
    >>> y = x * 2.0
    >>> parse_program(program_text([y]), program_leaves([y]))[0] is y
    True
    """
    reader = _Reader(leaves)
    for count, line in enumerate(text.splitlines(), 1):
        line = line.partition("  #")[0].strip()
        if not line:
            continue
        try:
            if line.startswith("return"):
                numbers = line.removeprefix("return").split(",")
                return [reader.node(word.strip()) for word in numbers if word.strip()]
            reader.read(line)
        except InvalidInputError as problem:
            raise InvalidInputError(f"line {count} of the program, {line!r}: {problem}") from None
    raise InvalidInputError("the program does not end with return")


class _Reader:
    def __init__(self, leaves: Mapping[str, Any] | None) -> None:
        self.leaves: dict[str, Any] = dict(leaves or {})
        self.fresh = leaves is None
        self.nodes: dict[str, Node] = {}

    def node(self, word: str) -> Node:
        if word not in self.nodes:
            raise InvalidInputError(f"{word} has not been computed")
        return self.nodes[word]

    def leaf(self, name: str, kind: type) -> Any:
        found = self.leaves.get(name)
        if found is None:
            raise InvalidInputError(f"leaves has nothing called {name!r}")
        if not isinstance(found, kind):
            raise InvalidInputError(f"{name!r} in leaves is a {type(found).__name__}, not a {kind.__name__}")
        return found

    def read(self, line: str) -> None:
        match = _LINE.fullmatch(line)
        if match is None:
            raise InvalidInputError("this is not of the form %number = operation(...) dtype[shape]")
        number, name, inside, kind, dims = match.groups()
        try:
            dtype: DType = np.dtype(kind)
        except TypeError:
            raise InvalidInputError(f"{kind!r} is not a dtype") from None
        shape = tuple(int(n) for n in dims.split(",") if n)
        try:
            made = self._make(name, inside, shape, dtype)
        except (AssertionError, ValueError, LookupError, TypeError, SyntaxError) as problem:
            if isinstance(problem, InvalidInputError):
                raise
            raise InvalidInputError(f"these arguments do not fit {name}") from None
        if made.shape != shape or made.dtype != dtype:
            raise InvalidInputError(f"this would be {dtype_text(made.dtype)} of shape {made.shape}")
        self.nodes[f"%{number}"] = made

    def _make(self, name: str, inside: str, shape: Shape, dtype: DType) -> Node:
        operation = REGISTRY.get(name)
        if operation is None:
            raise InvalidInputError(f"there is no operation {name!r}")
        words = _split(inside)
        if operation is LITERAL:
            return LITERAL(params=_literal_params(inside, dtype))
        if operation is INPUT and self.fresh and inside not in self.leaves:
            self.leaves[inside] = new_input(shape, dtype)
        if operation in (INPUT, CONSTANT):
            found: Node = self.leaf(inside, Node)
            return found
        if operation is assemble:
            flags = [word for word in words if word in ("disjoint", "full")]
            pairs = [word.split(" at ") for word in words if word not in flags]
            rows = tuple(self.indices(place) for _, place in pairs)
            params: Any = AssembleParams(shape, dtype, rows, "disjoint" in flags, "full" in flags)
            return assemble(*(self.node(part) for part, _ in pairs), params=params)
        count = next((k for k, word in enumerate(words) if not word.startswith("%")), len(words))
        inputs, rest = [self.node(word) for word in words[:count]], words[count:]
        if operation is index:
            return index(*inputs, params=IndexParams(shape, self.indices(*rest)))
        if operation is contract:
            return contract(*inputs, params=_contraction(",".join(rest), inputs))
        if operation is cast:
            return cast(*inputs, params=CastParams(dtype))
        if not rest:
            if operation.ufunc is not None and operation.ufunc.nin != count:
                raise InvalidInputError(f"{name} takes {operation.ufunc.nin} arrays, not {count}")
            return operation(*inputs)
        (word,) = rest
        if word.startswith("p"):
            return operation(*inputs, params=self.leaf(word, object))
        value = ast.literal_eval(word)
        return operation(*inputs, params=AxesParams(value) if isinstance(value, tuple) else AxisParams(value))

    def indices(self, text: str) -> tuple[Index, ...]:
        if not (text.startswith("(") and text.endswith(")")):
            raise InvalidInputError(f"{text!r} are not indices in parentheses")
        return tuple(self.expression(word) for word in _split(text[1:-1]))

    def expression(self, text: str) -> Index:
        if text.endswith("]"):
            table, _, axes = text[:-1].rpartition("[")
            named = tuple(_axis(a) for a in axes.split(", ")) if axes else ()
            if table.startswith("table:"):
                return Lookup(self.leaf(table, Table), named)
            return Lookup(Table(np.array(ast.literal_eval(table), dtype=np.int64)), named)
        offset, strides = 0, []
        for part in text.replace(" - ", " + -").split(" + "):
            match = _PART.fullmatch(part)
            if match is None:
                raise InvalidInputError(f"{text!r} is not an index expression")
            stride, name, number = match.groups()
            if name:
                strides.append((_axis(name), int(stride or 1)))
            else:
                offset += int(number)
        return Affine(offset, tuple(strides))


def _axis(name: str) -> int:
    return _NAMES.index(name) if len(name) == 1 else int(name[1:])


def _split(text: str) -> list[str]:
    """The words between commas that stand in no bracket."""
    words, depth, start = [], 0, 0
    for k, c in enumerate(text):
        depth += (c in "([") - (c in ")]")
        if c == "," and depth == 0:
            words.append(text[start:k].strip())
            start = k + 1
    last = text[start:].strip()
    return [*words, last] if last or words else []


def _literal_params(text: str, dtype: DType) -> LiteralParams:
    if text.startswith("bytes:"):
        return LiteralParams(dtype, bytes.fromhex(text.removeprefix("bytes:")))
    try:
        value = ast.literal_eval(text) if dtype.kind in "biu" else float(text)
        return LiteralParams(dtype, np.asarray(value, dtype=dtype).tobytes())
    except (ValueError, SyntaxError, OverflowError):
        raise InvalidInputError(f"{text!r} is not a number of dtype {dtype_text(dtype)}") from None


def _contraction(text: str, inputs: Sequence[Node]) -> ContractParams:
    labels, _, extra = text.partition(";")
    sides, _, out = labels.partition("->")
    named = tuple(tuple(_axis(a) for a in _LABEL.findall(side)) for side in sides.split(","))
    told = {a: n for ls, node in zip(named, inputs, strict=True) for a, n in zip(ls, node.shape, strict=True)}
    sizes = tuple(int(n) for n in extra.split("x")) if extra else tuple(told[a] for a in range(len(told)))
    return ContractParams(sizes, named, tuple(_axis(a) for a in _LABEL.findall(out)))

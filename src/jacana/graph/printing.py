"""Programs as text, one line a node."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .index import Index, Lookup
from .node import LITERAL, Node, literal_value, topological

_NAMES = "ijklmnopqrstuvwxyzabcdefgh"


def axis_name(a: int) -> str:
    """The letter of a domain axis: i, j, k, ..."""
    return _NAMES[a] if a < len(_NAMES) else f"i{a}"


def index_text(index: Index) -> str:
    """An index expression as one would write it: ``2*i + 3``, ``table[i]``."""
    if isinstance(index, Lookup):
        return f"{index.table!r}[{', '.join(axis_name(a) for a in index.axes)}]"
    parts = [axis_name(a) if s == 1 else f"{s}*{axis_name(a)}" for a, s in index.strides]
    if index.offset or not parts:
        parts.append(str(index.offset))
    return " + ".join(parts).replace("+ -", "- ")


def _indices(indices: Iterable[Index]) -> str:
    return "(" + ", ".join(index_text(e) for e in indices) + ")"


def program_text(outputs: Sequence[Node]) -> str:
    """The program that computes ``outputs``: ``%3 = multiply(%1, %2) float64[3]`` a line."""
    order = topological(outputs)
    number = {node: k for k, node in enumerate(order)}
    lines = []
    for node in order:
        arguments = [f"%{number[i]}" for i in node.inputs]
        if node.op is LITERAL:
            arguments = [repr(literal_value(node))]
        elif node.op.name == "index":
            arguments.append(_indices(node.params.indices))
        elif node.op.name == "assemble":
            arguments = [f"{a} at {_indices(r)}" for a, r in zip(arguments, node.params.rows, strict=True)]
            arguments += [word for word in ("disjoint", "full") if getattr(node.params, word)]
        elif node.op.name == "contract":
            sides = ",".join("".join(map(axis_name, ls)) for ls in node.params.labels)
            arguments.append(f"{sides}->{''.join(map(axis_name, node.params.out))}")
        elif node.op.family == "reduction":
            arguments.append(repr(node.params[0]))
        dims = ",".join(map(str, node.shape))
        lines.append(f"%{number[node]} = {node.op.name}({', '.join(arguments)}) {node.dtype.name}[{dims}]")
    lines.append("return " + ", ".join(f"%{number[node]}" for node in outputs))
    return "\n".join(lines)

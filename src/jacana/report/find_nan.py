"""Where a NaN or an infinity came into a value or into its derivative: the line of the user's code.

The function is recorded once, and each node of its program remembers the line that was being run when it was made. From
a result that is not finite one goes back along operands that are not finite, past branches that were not taken, to the
node whose operands all are: there it came in. For the derivative the same is done in the program of the Jacobian, whose
local partial derivatives belong to the line of the operation that they are of.
"""

from __future__ import annotations

import linecache
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import trees
from ..differentiate import sparse_jacobian
from ..errors import InvalidInputError
from ..graph.node import CONSTANT, INPUT, LITERAL, Array, Node, next_serial, topological
from ..record import Variable, as_node, leaf_value, record
from ..record.location import Lines, Place
from ..record.table import is_complex
from ..replay import parts
from ..run import Program, compile_numpy

__all__ = ["NonFinite", "find_nan"]


@dataclass(frozen=True)
class NonFinite:
    """Where a number that is not finite came from.

    Attributes:
        part: ``"value"`` or ``"derivative"``.
        kind: ``"nan"`` or ``"inf"`` (of either sign).
        operation: what made it, as printed programs call it (``sqrt``), ``"argument"`` or ``"captured array"``.
        element: its index in the result of that operation.
        operands: the numbers that an elementwise operation was given for that element.
        file, line, function, source: where in the user's code.
    """

    part: str
    kind: str
    operation: str
    element: tuple[int, ...]
    operands: tuple[float, ...]
    file: str
    line: int
    function: str
    source: str

    def __str__(self) -> str:
        given = ", ".join(f"{v:g}" for v in self.operands)
        if self.operation in ("argument", "captured array"):
            what = f"The {self.part} is not finite because the {self.operation} is {self.kind}"
        elif self.part == "derivative":
            what = f"The derivative first becomes {self.kind} in that of {self.operation}" + (given and f" at {given}")
        else:
            what = f"The value first becomes {self.kind} in {self.operation}" + (given and f" of {given}")
        place = f", element {self.element}" if self.element else ""
        where = f"\n  at {self.file}:{self.line} in {self.function}\n    {self.source}" if self.file else ""
        return what + place + where


def find_nan(function: Callable[..., Any], *args: Any) -> NonFinite | None:
    """Name the line where a NaN or an infinity first came into the value of a function, or into its derivative.

    The value is looked at first; if it is finite, the Jacobian by all arguments is. What is in a branch that was not
    taken (``np.where``) and leaves no trace is nobody's fault and is not reported.

    Args:
        function: plain NumPy code of real arguments.
        *args: arrays, numbers or pytrees of them.

    Returns:
        The origin, which prints as a sentence with file and line; None if value and derivative are finite.

    Raises:
        InvalidInputError: complex arguments. Whatever ``function`` raises passes through.

    >>> import numpy as np
    >>> def f(x):
    ...     shifted = x - 1.0
    ...     return np.sum(np.sqrt(shifted) * 2.0)
    >>> found = find_nan(f, np.array([3.0, 1.0]))
    >>> found.part, found.kind, found.operation, found.element, found.operands
    ('derivative', 'inf', 'sqrt', (1,), (0.0,))
    >>> found.source
    'return np.sum(np.sqrt(shifted) * 2.0)'
    >>> find_nan(f, np.array([3.0, 2.0])) is None
    True
    """
    leaves, tree = trees.flatten(args)
    arrays = [np.asarray(leaf.data if isinstance(leaf, Variable) else leaf) for leaf in leaves]
    if any(a.dtype.kind == "c" for a in arrays):
        raise InvalidInputError("find_nan takes real arguments; take apart z.real and z.imag")
    lines = Lines()

    def traced(called: Callable[..., Any], *variables: Any) -> Any:
        with lines.watching():
            return called(*trees.unflatten(tree, list(variables)))

    with np.errstate(all="ignore"):
        recording = record(function, arrays, wrap=traced)
        outputs = _real_nodes(recording.result)
        given = dict(zip(recording.inputs, arrays, strict=True))
        found = _origin("value", outputs, given, lines, {})
        return found or _in_derivative(outputs, given, lines)


def _real_nodes(result: Any) -> list[Node]:
    leaves = [part for leaf in trees.flatten(result)[0] for part in (parts(leaf) if is_complex(leaf) else (leaf,))]
    return [node for node in map(as_node, leaves) if node.dtype.kind == "f"]


def _in_derivative(outputs: list[Node], given: dict[Node, Array], lines: Lines) -> NonFinite | None:
    """Local partials are made first, operation by operation, so that each is known to be of that operation."""
    owners: dict[Node, Node] = {}
    alive = []
    for node in topological(outputs):
        start = next_serial()
        edges = node.op.edges(node)
        alive.append(edges)
        roots = [factor for terms in edges for term in terms or () for factor, _ in (*term.factors, *term.masks)]
        owners.update((n, node) for n in topological(roots) if n.serial > start)
    wanted = [x for x in given if x.dtype.kind == "f"]
    entries = [sparse_jacobian(y, x).data for y in outputs for x in wanted]
    del alive
    return _origin("derivative", entries, given, lines, owners)


def _origin(
    part: str, outputs: Sequence[Node], given: Mapping[Node, Array], lines: Lines, owners: Mapping[Node, Node]
) -> NonFinite | None:
    order = topological([*given, *outputs])
    program = Program(tuple(given), tuple(order))
    free = program.free_inputs()
    run = compile_numpy(Program((*given, *free), tuple(order)))
    arrays = [np.asarray(a, order="C") for a in (*given.values(), *(leaf_value(node) for node in free))]
    values = dict(zip(order, run(arrays), strict=True))
    roots = _roots(order, outputs, values)
    if not roots:
        return None
    # What came in by a user's operation is more to the point than a product that overflowed later.
    root = min(roots, key=lambda n: (n not in owners and n.serial > _latest(owners), n.serial))
    owner = owners.get(root, root)
    value = values[root]
    element = tuple(int(k) for k in np.argwhere(~np.isfinite(value))[0]) if value.ndim else ()
    name = {INPUT: "argument", CONSTANT: "captured array"}.get(root.op, owner.op.name)
    place = lines.of(next((n for n in order if root in n.inputs), root) if root.op is CONSTANT else owner)
    if root.op is INPUT:
        place = None
    operands: tuple[float, ...] = ()
    if owner.op.family in ("elementwise", "special"):
        shown = [values[i] for i in owner.inputs if i.shape == owner.shape and i in values]
        at = element if len(element) == owner.ndim and value.shape == owner.shape else ()
        operands = tuple(float(v[at]) for v in shown) if at or not owner.ndim else ()
    kind = "nan" if np.isnan(value).any() and not np.isinf(value[element]) else "inf"
    file, line, function = place or Place("", 0, "")
    return NonFinite(
        part, kind, name, element, operands, file, line, function, linecache.getline(file, line).strip() if file else ""
    )


def _latest(owners: Mapping[Node, Node]) -> int:
    return max((node.serial for node in owners.values()), default=0)


def _roots(order: Sequence[Node], outputs: Sequence[Node], values: Mapping[Node, Array]) -> list[Node]:
    """The nodes from which what is not finite in the outputs comes, and whose own operands are finite."""
    bad = {node for node in order if values[node].dtype.kind == "f" and not np.isfinite(values[node]).all()}
    blamed = {node for node in outputs if node in bad}
    roots = []
    for node in reversed(order):
        if node not in blamed:
            continue
        guilty = [i for i in node.inputs if i in bad]
        if node.op.name == "select":
            mask, *branches = node.inputs
            taken = (values[mask], ~values[mask])
            guilty = [
                b for b, t in zip(branches, taken, strict=True) if b in bad and not np.isfinite(values[b][t]).all()
            ]  # fmt: skip
        # A number like np.inf that the program itself writes is no origin: what is made of it is.
        guilty = [i for i in guilty if i.op is not LITERAL and not _spread_literal(i)]
        if guilty:
            blamed.update(guilty)
        else:
            roots.append(node)
    return roots


def _spread_literal(node: Node) -> bool:
    while node.op.name == "index":
        node = node.inputs[0]
    return node.op is LITERAL

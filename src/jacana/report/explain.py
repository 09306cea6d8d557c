"""What was done with a function, and why, in plain words."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from ..differentiate.eliminate import DENSE_LIMIT, eliminate
from ..errors import InvalidInputError
from ..graph.node import Array, Node, topological
from ..plan import Call, Group, plan_native
from ..recurrences import rolled_steps
from ..replay import guard_node
from ..results import AUTO_OPERATOR, Products, Stacked, deliver_stacked, stack
from ..run import native_available
from ..structure import dense_node
from ..transforms import Transformed, _gradient_nodes, jacobian
from .structure import Derived, Structure, assess, derive

__all__ = ["Explanation", "explain"]

MAX_PLANNED = 4_000  # nodes up to which the native program is planned for a description
WIDTH = 100


@dataclass(frozen=True, eq=False, repr=False)
class Explanation:
    """What was recorded, found and chosen for one function at one point; printed, it is a page of text.

    Attributes:
        text: the page.
        structure: the structure that it tells about.
    """

    text: str
    structure: Structure

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__


def explain(
    function: Callable[..., Any],
    *args: Any,
    argnums: int | Sequence[int] = 0,
    level: Literal["structure", "kernels"] = "structure",
    **kwargs: Any,
) -> Explanation | str:
    """What jacana makes of ``function`` at these arguments: the recording, the structure, the order, the format, code.

    Args:
        function: plain NumPy code, whose Jacobian is explained; or a transform that makes a matrix, such as
            ``jc.hessian(loss)``.
        args, kwargs: the arguments to record it at.
        argnums: the positional argument (or arguments) to differentiate by (not for a transform, which knows).
        level: ``"structure"``: that page. ``"kernels"``: the steps of the native program instead, for every transform:
            loops, what they store, operations, bytes moved, vector width, and how long the bytes alone take at this
            machine's memory bandwidth (a large copy, measured once).

    Returns:
        An object that prints as text; for kernels, text.

    Raises:
        InvalidInputError: there is no such level, the transform does not make a matrix, or an argument cannot be
            differentiated by.

    >>> import numpy as np
    >>> import jacana as jc
    >>> print(str(jc.explain(lambda x: x[1:] * x[:-1], np.ones(4))).splitlines()[0])
    jacobian of <lambda>: 3 x 4
    """
    if level == "kernels":
        from .kernels import kernels_text

        return kernels_text(function, argnums, args, kwargs)
    if level != "structure":
        raise InvalidInputError(f"level must be structure or kernels, not {level!r}")
    transform = function if isinstance(function, Transformed) else jacobian(function, argnums)
    derived = derive(transform._replay, args, kwargs)
    structure = assess(derived)
    lines = [f"{structure.name}: {structure.shape[0]:,} x {structure.shape[1]:,}"]
    for heading, sentences in (
        ("recorded", _recorded(derived)),
        ("found", _found(structure)),
        ("order", _ordered(structure)),
        ("format", [f'format="auto" stores it as {structure.format}: {structure.reason}.']),
        ("code", _code(derived, structure)),
    ):
        lines.append("")
        lines += textwrap.wrap(
            " ".join(sentences), WIDTH, initial_indent=f"{heading:<10}", subsequent_indent=" " * 10,
            break_long_words=False, break_on_hyphens=False,
        )  # fmt: skip
    return Explanation("\n".join(lines), structure)


def _count(n: int, noun: str, many: str | None = None) -> str:
    return f"{n:,} {noun if n == 1 else many or noun + 's'}"


def _listed(parts: Sequence[str]) -> str:
    return ", ".join(parts[:-1]) + (" and " if len(parts) > 1 else "") + parts[-1] if parts else "nothing"


def _recorded(derived: Derived) -> list[str]:
    nodes = topological(derived.traced.outputs)
    families = Counter(node.op.family for node in nodes if node.op.family != "leaf")
    leaves = Counter(node.op.name for node in nodes if node.op.family == "leaf")
    work = [f"{n:,} {family}" for family, n in families.most_common()]
    nouns = {"input": "argument", "constant": "captured array", "literal": "number"}
    known = [_count(leaves[name], noun) for name, noun in nouns.items() if leaves[name]]
    total = sum(families.values())
    sentences = [
        f"Running {derived.traced.name} once on arrays that remember gave a program of "
        f"{_count(total, 'operation')}{f' ({_listed(work)})' if work else ''} on {_listed(known)}."
    ]
    guards = derived.recording.guards
    if not guards:
        sentences.append("It looked at no value, so the recording holds for every argument of these shapes and dtypes.")
        return sentences
    seen = [f"{_looked_at(node)} was {_value_text(value)}" for node, value in guards[:3]]
    more = f", and {len(guards) - 3:,} more" if len(guards) > 3 else ""
    sentences.append(
        f"It looked at {_count(len(guards), 'value')} ({'; '.join(seen)}{more}): each is a guard, checked at "
        f"every call, and where one differs the function is recorded again."
    )
    return sentences


def _looked_at(node: Node) -> str:
    return f"the result of {node.op.name}" if node.op.family != "leaf" else f"an {node.op.name}"


def _value_text(value: Array) -> str:
    array = np.asarray(value)
    return str(array.item()) if array.ndim == 0 else f"an array of shape {array.shape}"


def _found(structure: Structure) -> list[str]:
    size = structure.shape[0] * structure.shape[1]
    sentences = [f"The matrix is a sum of {_count(len(structure.terms), 'term')}"]
    most = "" if structure.exact else "at most "
    sentences[0] += f" with {most}{structure.nnz:,} of {_count(size, 'entry', 'entries')}."
    if structure.terms:
        largest = max(structure.terms, key=lambda term: term.size)
        sentences.append(f"{'It' if len(structure.terms) == 1 else 'The largest'} is {largest}.")
    masked = sum(bool(term.term.masks) for term in structure.terms)
    if masked:
        sentences.append(
            f"{_count(masked, 'term holds', 'terms hold')} only where a mask is true: elsewhere the entry is "
            f"structurally zero."
        )
    lower, upper = structure.bandwidth
    if structure.blocks is not None:
        sentences.append(f"It is block-diagonal: {structure._block_text()}.")
    elif structure.nnz and structure.exact and lower + upper + 1 < max(structure.shape) // 2:
        sentences.append(f"It is banded: {lower:,} below and {upper:,} above the diagonal.")
    return sentences


def _ordered(structure: Structure) -> list[str]:
    chosen, *others = structure.orders
    words = {
        "forward": "from the arguments on (forward mode)",
        "reverse": "from the results back (reverse mode)",
        "cost": "cheapest vertex first (Markowitz)",
    }
    if not structure.vertices:
        return ["There was nothing between arguments and results to eliminate."]
    sentences = [
        f"{_count(structure.vertices, 'vertex', 'vertices')} between arguments and results "
        f"{'was' if structure.vertices == 1 else 'were'} eliminated {words[chosen.order]}, for about "
        f"{chosen.cost:,.0f} multiplications."
    ]
    if structure.note:
        sentences.append(f"{structure.note[0].upper()}{structure.note[1:]}.")
    for other in others:
        name = {"forward": "Forward mode", "reverse": "Reverse mode", "cost": "Cheapest first"}[other.order]
        more = "" if other.complete else "more than "
        times = other.cost / chosen.cost if chosen.cost else 1.0
        comparison = (
            "the same" if other.complete and times == 1 else f"{more}{other.cost:,.0f} ({times:.3g} times that)"
        )
        sentences.append(f"{name} would take {comparison}.")
    return sentences


def _found_again(derived: Derived) -> Stacked | None:
    """The matrix with the repeated steps of the program as loops, which a dense result is made with; None if none."""
    by = derived.traced.by
    own = derived.outputs == derived.traced.outputs
    outputs = rolled_steps(derived.traced.outputs, along=own and math.prod(derived.stacked.rows) == 1)
    if derived.gram or outputs == list(derived.traced.outputs):
        return None
    if not own:
        outputs = _gradient_nodes(outputs[0], by, "auto")
    terms = eliminate(outputs, by, derived.order, unrestricted=DENSE_LIMIT, whole_maps=True).terms
    return stack(outputs, by, terms)


def _delivered(derived: Derived, structure: Structure, rolled: Stacked | None) -> list[Node]:
    """The nodes that a call with ``format="auto"`` computes."""
    stacked = derived.stacked if rolled is None else rolled
    if structure.format == "dense" or rolled is not None:
        nodes = [dense_node(stacked.terms, stacked.rows, stacked.cols, stacked.dtype)]
    elif structure.format == "operator":
        nodes = Products(stacked).factors
    else:
        nodes = deliver_stacked(stacked, structure.format).nodes
    check = guard_node(derived.recording.guards)
    return nodes if check is None else [*nodes, check]


def _code(derived: Derived, structure: Structure) -> list[str]:
    size = structure.shape[0] * structure.shape[1]
    rolled = _found_again(derived) if structure.format == "dense" and size <= AUTO_OPERATOR else None
    nodes = _delivered(derived, structure, rolled)
    order = [node for node in topological(nodes) if node.op.family != "leaf"]
    what = "the factors" if structure.format == "operator" else "the values of the matrix"
    sentences = [f"The program of {what} has {_count(len(order), 'operation')}; NumPy runs them one call each."]
    if rolled is not None:
        steps = max(node.params.length for node in order if node.op.name == "loop")
        sentences.insert(0, f"{steps:,} steps that repeat were found, and run as a loop.")
    if not native_available():
        return [*sentences, "The native executor would fuse them: pip install 'jacana[native]'."]
    if len(order) > MAX_PLANNED:
        return [*sentences, "It is too long to plan machine code for a description."]
    plan = plan_native(nodes)
    kernels = [kernel for step in plan.steps if isinstance(step, Group) for kernel in step.kernels]
    calls = [step.node.op.name for step in plan.steps if isinstance(step, Call)]
    loops = [
        f"{' x '.join(f'{n:,}' for n in kernel.sizes) or 'straight'} ({_count(len(kernel.jobs), 'job')})"
        for kernel in kernels[:6]
    ]
    text = f"The native executor makes {_count(len(kernels), 'kernel')} of them"
    if kernels:
        more = f" and {len(kernels) - 6} more" if len(kernels) > 6 else ""
        text += f", with loops {_listed(loops)}{more}"
    names = [f"{n} {name}" for name, n in Counter(calls).most_common()]
    text += (
        f", and leaves {_count(len(calls), 'step')} to NumPy ({_listed(names)})." if calls else ", and no NumPy call."
    )
    return [*sentences, text]

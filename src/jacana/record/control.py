"""``scan``, ``fori_loop``, ``while_loop``, ``cond``: control flow that is recorded once, whatever the number of steps.

The body is recorded on its own, with the arguments of the first step as its numbers. What it uses from outside is found
in its graph: the largest parts that do not depend on the step become constants of the loop, with derivatives.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np

from .. import trees
from ..errors import InvalidInputError
from ..graph.build import apply, broadcast_to, cast_to, full, index_node
from ..graph.index import Affine, identity
from ..graph.node import Array, Node, literal
from ..graph.ops.control import INT
from .bodies import BodyRecording, ClosedBody, body_recording, evaluate, known_values, wrapped_values
from .constants import check_dtype
from .location import user_line
from .recording import current_recording, least_room
from .variable import Variable, as_node, raw, wrap_constant, wrap_node

UNBOUNDED = 2**40
LEAST_CAPACITY = 16


# --- scan -------------------------------------------------------------------------------------------------------


def scan(
    function: Callable[[Any, Any], tuple[Any, Any]],
    init: Any,
    xs: Any = None,
    length: int | None = None,
    reverse: bool = False,
) -> tuple[Any, Any]:
    """Carry a value through a loop and stack what each step gives: ``carry, y = function(carry, x)``.

    Recorded once: recording and planning do not grow with the number of steps. Derivatives of any order are loops
    again; those by arrays that ``function`` takes from outside are included. Called on plain arrays, outside any
    recorded function, it is the Python loop that it stands for.

    Args:
        function: the body, ``(carry, x) -> (carry, y)``. The carry keeps its tree, shapes and dtypes.
        init: the first carry, an array or a pytree of arrays.
        xs: an array or pytree of arrays of the same length along their first axis; ``function`` gets one slice a
            step. None: ``length`` steps without.
        length: the number of steps; needed only without ``xs``.
        reverse: from the last slice to the first. ``ys[k]`` belongs to ``xs[k]`` all the same.

    Returns:
        The last carry, and the tree of ``y``, its leaves stacked along a new first axis, in the order of ``xs``.

    Raises:
        InvalidInputError: the carry changes its tree, a shape or a dtype; the lengths of ``xs`` differ or are missing.
        RecordingError: the body looks at a value that differs from step to step (use ``jc.cond``, ``np.where``).

    >>> import numpy as np
    >>> import jacana as jc
    >>> def running(x):
    ...     return jc.scan(lambda total, v: (total + v, total + v), 0.0, x)[1]
    >>> jc.jacobian(running)(np.array([1.0, 2.0, 3.0]))
    array([[1., 0., 0.],
           [1., 1., 0.],
           [1., 1., 1.]])
    """
    leaves, tree = trees.flatten(xs)
    steps = _length(leaves, length)
    if not _is_recorded(init, xs):
        return _python_scan(function, init, leaves, tree, steps, reverse)

    def body(step: Variable, carry: Any, x: Any) -> tuple[Any, Any]:
        result = function(carry, x)
        if not isinstance(result, tuple) or len(result) != 2:
            raise InvalidInputError(
                f"scan: the body must return a pair (carry, y), not {type(result).__name__}{_where(function)}"
            )
        return result

    return _loop(_Loop("scan", body, (function,), init, leaves, tree, steps, reverse))


def fori_loop(lower: Any, upper: Any, body: Callable[[Any, Any], Any], init: Any) -> Any:
    """``for i in range(lower, upper): carry = body(i, carry)``, recorded once; see :func:`scan`.

    Args:
        lower, upper: integers. Inside a recorded function their values are guarded.
        body: ``(i, carry) -> carry``; the carry keeps its tree, shapes and dtypes. Arrays may be read and written at
            ``i``.
        init: the first carry.

    Raises:
        InvalidInputError: the carry changes its tree, a shape or a dtype.

    >>> import numpy as np
    >>> import jacana as jc
    >>> def horner(coefficients):
    ...     return jc.fori_loop(0, 3, lambda i, y: 2.0 * y + coefficients[i], 0.0)
    >>> jc.grad(horner)(np.array([1.0, 5.0, 7.0]))
    array([4., 2., 1.])
    """
    first, last = operator.index(lower), operator.index(upper)
    steps = max(last - first, 0)
    if not _is_recorded(init, None):
        carry = init
        checked = _Carry("fori_loop", init, body)
        for i in range(first, last):
            carry = checked(body(i, carry))
        return carry

    def wrapped(step: Variable, carry: Any, x: Any) -> tuple[Any, Any]:
        return body(step + first if first else step, carry), None

    return _loop(_Loop("fori_loop", wrapped, (body,), init, [], trees.flatten(None)[1], steps, False))[0]


def while_loop(
    condition: Callable[[Any], Any], body: Callable[[Any], Any], init: Any, max_steps: int | None = None
) -> Any:
    """``while condition(carry): carry = body(carry)``, recorded once; see :func:`scan`.

    The number of steps is found when the program runs. For derivatives the carries are stored; a recording has room
    for as many steps as the first call took, rounded up to a power of two, and a call that takes more is recorded
    anew with more room.

    Args:
        condition: ``carry -> bool``.
        body: ``carry -> carry``; the carry keeps its tree, shapes and dtypes.
        init: the first carry.
        max_steps: stop after so many steps even if the condition still holds. Needed inside the body of another loop.

    Raises:
        InvalidInputError: the carry changes its tree, a shape or a dtype; the condition is not one boolean;
            no ``max_steps`` inside another loop.

    >>> import numpy as np
    >>> import jacana as jc
    >>> def root(a):  # Newton's method
    ...     return jc.while_loop(lambda x: abs(x * x - a) > 1e-12, lambda x: 0.5 * (x + a / x), a)
    >>> round(float(jc.grad(root)(4.0)), 6)
    0.25
    """
    if max_steps is not None:
        max_steps = operator.index(max_steps)
    if not _is_recorded(init, None):
        carry = init
        checked = _Carry("while_loop", init, body)
        count = 0
        while (max_steps is None or count < max_steps) and bool(condition(carry)):
            carry = checked(body(carry))
            count += 1
        return carry
    recording = current_recording()
    if max_steps is None and isinstance(recording, BodyRecording):
        raise InvalidInputError(
            "while_loop inside the body of another loop needs max_steps, the room for what its derivative stores"
            + user_line()
        )

    def wrapped(step: Variable, carry: Any, x: Any) -> tuple[Any, Any]:
        return body(carry), None

    loop = _Loop("while_loop", wrapped, (condition, body), init, [], trees.flatten(None)[1], max_steps, False)
    loop.condition = condition
    return _loop(loop)[0]


def cond(predicate: Any, on_true: Callable[..., Any], on_false: Callable[..., Any], *operands: Any) -> Any:
    """``on_true(*operands) if predicate else on_false(*operands)``; both are recorded, the one that is taken runs.

    Args:
        predicate: one boolean.
        on_true, on_false: functions of the operands that return the same tree and shapes.
        operands: arrays or pytrees of arrays.

    Returns:
        The result of the function that is taken; where dtypes differ, in their common dtype.

    Raises:
        InvalidInputError: the predicate is not one boolean, or the functions differ in trees or shapes.

    >>> import numpy as np
    >>> import jacana as jc
    >>> def f(x):
    ...     return jc.cond(x > 0, np.sqrt, lambda v: 0.0 * v, x)
    >>> jc.grad(f)(4.0), jc.grad(f)(-1.0)
    (array(0.25), array(0.))
    """
    if np.ndim(raw(predicate)) != 0:
        raise InvalidInputError(f"cond: the predicate has shape {np.shape(raw(predicate))}; reduce it{user_line()}")
    node = predicate._tracked() if isinstance(predicate, Variable) else None
    if node is None:
        return (on_true if bool(raw(predicate)) else on_false)(*operands)
    true = node if node.dtype == np.bool_ else apply("not_equal", node, full(0, (), node.dtype))
    chosen = bool(raw(predicate))
    results = []
    for taken, function in ((True, on_true), (False, on_false)):
        run = true if taken else apply("logical_not", true)
        with _quiet(chosen is not taken):
            results.append(_branch(function, operands, cast_to(run, INT), chosen is taken))
    (yes, tree), (no, other) = results
    if tree != other or [n.shape for n, _ in yes] != [n.shape for n, _ in no]:
        raise InvalidInputError(
            f"cond: on_true returns {_described(tree, [n for n, _ in yes])}, on_false "
            f"{_described(other, [n for n, _ in no])}{user_line()}"
        )
    leaves = []
    for (a, value), (b, other_value) in zip(yes, no, strict=True):
        dtype = np.result_type(a.dtype, b.dtype)
        mask = broadcast_to(true, a.shape)
        result = apply("select", mask, cast_to(a, dtype), cast_to(b, dtype))
        leaves.append(wrap_node(result, np.asarray(value if chosen else other_value).astype(dtype)))
    return trees.unflatten(tree, leaves)


# --- on plain arrays --------------------------------------------------------------------------------------------


def _quiet(unreached: bool) -> Any:
    """No warnings from code that is recorded with numbers at which it would not run."""
    return np.errstate(all="ignore") if unreached else nullcontext()


def _is_recorded(*values: Any) -> bool:
    if current_recording() is not None:
        return True
    return any(isinstance(leaf, Variable) for value in values for leaf in trees.flatten(value)[0])


def _length(leaves: Sequence[Any], length: int | None) -> int:
    lengths = set()
    for leaf in leaves:
        if np.ndim(raw(leaf)) == 0:
            raise InvalidInputError(f"scan: xs has a leaf without axes, so there is nothing to go along{user_line()}")
        lengths.add(np.shape(raw(leaf))[0])
    if length is not None:
        lengths.add(operator.index(length))
    if len(lengths) != 1:
        found = f"lengths {sorted(lengths)}" if lengths else "neither xs nor length"
        raise InvalidInputError(f"scan needs one number of steps, but got {found}{user_line()}")
    steps = int(lengths.pop())
    if steps < 0:
        raise InvalidInputError(f"scan: length must not be negative, not {steps}{user_line()}")
    return steps


def _python_scan(
    function: Callable[..., Any], init: Any, leaves: list[Any], tree: Any, steps: int, reverse: bool
) -> tuple[Any, Any]:
    checked = _Carry("scan", init, function)
    arrays = [np.asarray(leaf) for leaf in leaves]
    carry, rows, structure = init, [], None
    for t in range(steps)[:: -1 if reverse else 1]:
        result = function(carry, trees.unflatten(tree, [a[t] for a in arrays]))
        if not isinstance(result, tuple) or len(result) != 2:
            raise InvalidInputError(
                f"scan: the body must return a pair (carry, y), not {type(result).__name__}{_where(function)}"
            )
        carry = checked(result[0])
        row, structure = trees.flatten(result[1])
        rows.append(row)
    if structure is None:
        # No step has shown what a step gives: the body is asked with zeros.
        with np.errstate(all="ignore"):
            zero = trees.unflatten(tree, [np.zeros(a.shape[1:], a.dtype) for a in arrays])
            row, structure = trees.flatten(function(init, zero)[1])
        return init, trees.unflatten(structure, [np.zeros((0, *np.shape(v)), np.asarray(v).dtype) for v in row])
    if reverse:
        rows.reverse()
    return carry, trees.unflatten(structure, [np.stack(column) for column in zip(*rows, strict=True)])


class _Carry:
    """Checks that a carry stays what it was."""

    def __init__(self, verb: str, init: Any, function: Callable[..., Any]) -> None:
        leaves, self.tree = trees.flatten(init)
        self.verb, self.function = verb, function
        self.kinds = [_kind(leaf) for leaf in leaves]
        for k, leaf in enumerate(leaves):
            if not isinstance(leaf, Variable):
                if not isinstance(leaf, (bool, int, float, np.ndarray, np.generic)):
                    name = trees.leaf_name(self.tree, k)
                    raise InvalidInputError(
                        f"{verb}: init{name} is a {type(leaf).__name__}; a carry is made of arrays{user_line()}"
                    )
                check_dtype(np.asarray(leaf))

    def __call__(self, carry: Any) -> Any:
        leaves, tree = trees.flatten(carry)
        if tree != self.tree:
            raise InvalidInputError(
                f"{self.verb}: the body returns a carry with another tree than init: {tree}, not {self.tree}"
                f"{_where(self.function)}"
            )
        for k, (leaf, (shape, dtype)) in enumerate(zip(leaves, self.kinds, strict=True)):
            found = _kind(leaf)
            if found != (shape, dtype):
                name = f"carry{trees.leaf_name(tree, k)}"
                what, have, want = ("shape", found[0], shape) if found[0] != shape else ("dtype", found[1], dtype)
                remedy = (
                    f"give init that {what} (it would change from step to step)"
                    if what == "shape"
                    else f"give init that dtype, or convert the result with .astype(np.{want})"
                )
                raise InvalidInputError(
                    f"{self.verb}: the body turns {name} of {what} {want} into {what} {have}; {remedy}"
                    f"{_where(self.function)}"
                )
        return carry


def _kind(leaf: Any) -> tuple[tuple[int, ...], Any]:
    value = np.asarray(raw(leaf))
    return value.shape, value.dtype


def _where(function: Callable[..., Any]) -> str:
    code = getattr(function, "__code__", None)
    body = f"\n  body defined at {code.co_filename}:{code.co_firstlineno}" if code is not None else ""
    return f"{body}{user_line()}"


def _described(tree: Any, nodes: Sequence[Node]) -> str:
    return f"{tree} of shapes {', '.join(str(n.shape) for n in nodes) or 'nothing'}"


# --- recorded ---------------------------------------------------------------------------------------------------


class _Loop:
    """A loop that is being recorded: what the user gave."""

    condition: Callable[[Any], Any] | None = None

    def __init__(
        self,
        verb: str,
        body: Callable[..., tuple[Any, Any]],
        functions: tuple[Callable[..., Any], ...],
        init: Any,
        leaves: list[Any],
        tree: Any,
        steps: int | None,
        reverse: bool,
    ) -> None:
        self.verb, self.body, self.functions, self.steps, self.reverse = verb, body, functions, steps, reverse
        self.checked = _Carry(verb, init, functions[-1])
        self.inits, self.tree = trees.flatten(init)
        self.xs, self.xs_tree = [leaf if isinstance(leaf, Variable) else np.asarray(leaf) for leaf in leaves], tree


def _loop(loop: _Loop) -> tuple[Any, Any]:
    carries = [np.array(raw(leaf)) for leaf in loop.inits]
    numbers = [np.asarray(raw(leaf)) for leaf in loop.xs]
    first = -1 if loop.reverse else 0
    samples = [a[first] if a.shape[0] else np.zeros(a.shape[1:], a.dtype) for a in numbers]
    count = len(carries)
    go = None
    runs = loop.steps is None or loop.steps > 0
    with (
        body_recording([np.array(0), *carries, *samples], loop.functions) as variables,
        _quiet(not runs),
    ):
        inputs = [v.node for v in variables]
        carry = trees.unflatten(loop.tree, variables[1 : 1 + count])
        if loop.condition is not None:
            go = loop.condition(carry)
            runs = bool(raw(go))
            go = _boolean(go)
        with _quiet(not runs):
            step = wrap_node(inputs[0], np.int64(_first(loop)))
            new, y = loop.body(step, carry, trees.unflatten(loop.xs_tree, variables[1 + count :]))
        loop.checked(new)
        carried = [as_node(leaf) for leaf in trees.flatten(new)[0]]
        rows, y_tree = trees.flatten(y)
        outputs = [as_node(leaf) for leaf in rows]
    closed = ClosedBody(inputs, count, carried, outputs, go)
    inits = [as_node(leaf) for leaf in loop.inits]
    stacks = [as_node(leaf) for leaf in loop.xs]
    known = known_values([*loop.inits, *loop.xs], loop.functions)
    if go is not None:
        return _while_nodes(loop, closed, inits, known), trees.unflatten(y_tree, [])
    assert loop.steps is not None
    finals, ys = closed.nodes(loop.steps, loop.reverse, inits, stacks)
    leaves = wrapped_values([*finals, *ys], closed.tracked([*loop.inits, *loop.xs]), known)
    return trees.unflatten(loop.tree, leaves[:count]), trees.unflatten(y_tree, leaves[count:])


def _first(loop: _Loop) -> int:
    return max((loop.steps or 1) - 1, 0) if loop.reverse else 0


def _boolean(go: Any) -> Node:
    node = as_node(go)
    if node.shape != ():
        raise InvalidInputError(f"while_loop: the condition has shape {node.shape}; reduce it{user_line()}")
    return node if node.dtype == np.bool_ else apply("not_equal", node, full(0, (), node.dtype))


def _while_nodes(loop: _Loop, closed: ClosedBody, inits: list[Node], known: dict[Node, Array]) -> Any:
    tracked = closed.tracked(loop.inits)
    bound = UNBOUNDED if loop.steps is None else loop.steps
    finals, _ = closed.nodes(bound, False, inits, [])
    assert closed.steps_run is not None
    numbers = evaluate([*finals, closed.steps_run], known)
    taken = int(numbers[-1])
    capacity = loop.steps
    recording = current_recording()
    if capacity is None:
        capacity = max(taken, 1)
        if recording is not None:
            capacity = max(LEAST_CAPACITY, 1 << max(taken, least_room()).bit_length())
        if capacity >= 2 ** (np.finfo(closed.dtype).nmant + 1):
            raise InvalidInputError(
                f"while_loop: {taken} steps are more than a {closed.dtype} carry can count; use float64{user_line()}"
            )
    if not tracked:
        return trees.unflatten(loop.tree, [wrap_constant(v) for v in numbers[:-1]])
    unlimited = closed.steps_run
    finals, _ = closed.nodes(capacity, False, inits, [])
    if loop.steps is None and recording is not None:
        recording.counts.append(unlimited)
        enough = apply("less", closed.steps_run, literal(capacity, closed.steps_run.dtype))
        recording.guard(enough, np.True_)
    return trees.unflatten(loop.tree, [wrap_node(node, value) for node, value in zip(finals, numbers, strict=False)])


def _branch(
    function: Callable[..., Any], operands: tuple[Any, ...], run: Node, taken: bool
) -> tuple[list[tuple[Node, Any]], Any]:
    """A function as a loop of one step or none: its results as nodes with their values, and their tree."""
    arguments, tree = trees.flatten(operands)
    values = [np.asarray(raw(leaf)) for leaf in arguments]
    with body_recording([np.array(0), *values], (function,)) as variables:
        result = function(*trees.unflatten(tree, variables[1:]))
        leaves, result_tree = trees.flatten(result)
        outputs = [as_node(leaf) for leaf in leaves]
        numbers = [raw(leaf) for leaf in leaves]
    inputs = [v.node for v in variables]
    # The operands come in as constants of the one step.
    closed = ClosedBody(
        inputs[:1], 0, [], outputs, None, dict(zip(inputs[1:], map(as_node, arguments), strict=True)), run
    )
    _, ys = closed.nodes(1, False, [], [])
    first = [index_node(y, y.shape[1:], (Affine(0), *identity(y.ndim - 1))) for y in ys]
    return list(zip(first, numbers, strict=True)), result_tree

"""Plans of derivatives, found again by the structure of the program that they were made for.

A recording ends with its function object: a lambda made again, data in new arrays, a new transform of the same code
all record the same program with other leaves. Its derivative, its format and its compiled program are the same as
well, so they are kept here, by the structure of the program (`graph.structure`) and what was asked of it. A plan has
leaves of its own; the captured arrays of a recording are handed to it at every run, beside the arguments.
"""

from __future__ import annotations

import functools
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from .graph.garbage import seldom_collected
from .graph.node import Array, Node, new_input, substitute_nodes
from .graph.simplify import simplify
from .graph.structure import structure
from .run import Compiled, ExecutorName, Origin, Program

if TYPE_CHECKING:
    from .replay import Build, Traced

Direct: TypeAlias = Callable[[], tuple[ExecutorName, Callable[..., Any]] | None]

KEPT = 128  # plans; the least recently used goes first

_plans: OrderedDict[Any, Plan] = OrderedDict()
_lock = threading.Lock()


@dataclass(frozen=True)
class Plan:
    """A compiled program of arguments, free leaves and captured arrays, and what makes the result of its arrays."""

    compiled: Compiled
    finish: Callable[[list[Any]], Any]
    plain: bool  # whether ``finish`` takes one array, or a tuple of them, out of the list and nothing else


@dataclass(frozen=True)
class Planned:
    """A plan for one recording: what to call with the arrays of its inputs and of its ``free`` leaves.

    ``direct``, if it is there, asks for one builtin that does all of it (``Compiled.direct``).
    """

    run: Callable[[Sequence[Array]], list[Array]]
    finish: Callable[[list[Any]], Any]
    free: tuple[Node, ...]
    direct: Direct | None


def planned(build: Build, traced: Traced, check: Node | None, native: bool = False) -> Planned:
    """The plan of ``build`` for a recording; ``check`` is one more result, a boolean that says whether it holds.

    ``native``: it is compiled at the first call.
    """
    roots = (*traced.outputs, *(() if check is None else (check,)))
    found = structure(traced.inputs, roots)
    what = _build_key(build)
    parts = (traced.complex_wanted, traced.complex_outputs, traced.name) if traced.is_complex else ()
    key = (found.key, traced.wanted, traced.wanted_tree, traced.output_tree, check is None, what, parts, native)
    plan = None
    if what is not None:
        with _lock:
            plan = _plans.get(key)
            if plan is not None:
                _plans.move_to_end(key)
    if plan is None:
        with seldom_collected():
            plan = _made(build, traced, roots, found.free, found.constants, native)
        if what is not None:
            with _lock:
                plan = _plans.setdefault(key, plan)
                while len(_plans) > KEPT:
                    _plans.popitem(last=False)
    owners = [node.params.owner for node in found.constants]
    if owners:
        direct = _bound_directly(plan.compiled, owners) if plan.plain else None
        return Planned(_bound(plan.compiled, owners), plan.finish, found.free, direct)
    return Planned(plan.compiled, plan.finish, found.free, plan.compiled.direct if plan.plain else None)


def forget() -> None:
    """Plan everything anew."""
    with _lock:
        _plans.clear()


def _build_key(build: Build) -> Any:
    """What a build step does, if that can be told: a function of a module with its arguments, or a name it gives."""
    named = getattr(build, "plan_key", None)
    if named is not None:
        return named
    function: Any = build
    arguments: tuple[Any, ...] = ()
    if isinstance(build, functools.partial) and not build.keywords:
        function, arguments = build.func, build.args
    if getattr(function, "__closure__", ()) is not None or not all(isinstance(a, (str, bool)) for a in arguments):
        return None
    return (function, *arguments)


class _Zeros:
    """Stands for a captured array while a plan is made: nothing of it is known but where it is zero."""

    def __init__(self, array: Array) -> None:
        self._array = np.asarray(array != 0, dtype=array.dtype)

    def value(self) -> Array:
        """An array that is zero where the captured array is."""
        return self._array


def _made(
    build: Build,
    traced: Traced,
    roots: Sequence[Node],
    free: Sequence[Node],
    constants: Sequence[Node],
    native: bool,
) -> Plan:
    # Leaves of its own: a plan must not keep the arrays of the recording that it was made for.
    inputs = {node: new_input(node.shape, node.dtype) for node in (*traced.inputs, *free)}
    captured = {}
    for node in constants:
        owner = node.params.owner
        zeros = _Zeros(owner.value()) if getattr(owner, "structural", False) else None
        captured[node] = new_input(node.shape, node.dtype, zeros)
    own = substitute_nodes(list(roots), {**inputs, **captured})
    count = len(traced.outputs)
    mine = tuple(inputs[node] for node in traced.inputs)
    built = build(replace(traced, inputs=mine, outputs=tuple(own[:count])))
    leaves = (*captured.values(), *inputs.values())  # captured arrays first: they can be bound

    def derive() -> Program:
        return Program(leaves, tuple(simplify([*built.nodes, *own[count:]])))

    if built.how is None:
        return Plan(Compiled(derive(), native), built.finish, built.plain)
    # Machine code that another process has left is found without deriving anything.
    origin = Origin(leaves, tuple(own), f"{built.how} {traced.wanted} {count}")
    return Plan(Compiled(derive, native, origin), built.finish, built.plain)


def _bound(compiled: Compiled, owners: Sequence[Any]) -> Callable[[Sequence[Array]], list[Array]]:
    fetch = [owner.value for owner in owners]

    def run(values: Sequence[Array]) -> list[Array]:
        arrays = [f() for f in fetch]
        for k, array in enumerate(arrays):
            if not array.flags.c_contiguous:
                arrays[k] = np.array(array, order="C")
        return compiled([*arrays, *values])

    return run


def _bound_directly(compiled: Compiled, owners: Sequence[Any]) -> Direct | None:
    """``Compiled.direct`` with the captured arrays as its first arguments.

    An array that somebody else may write into is handed over as it is, at every call; only where its elements are not
    in order is there no array to hand over.
    """
    arrays = [owner.value() for owner in owners]
    for k, (owner, array) in enumerate(zip(owners, arrays, strict=True)):
        if not array.flags.c_contiguous:
            if getattr(owner, "live", True):
                return None
            arrays[k] = np.array(array, order="C")

    def direct() -> tuple[ExecutorName, Callable[..., Any]] | None:
        found = compiled.direct()
        return None if found is None else (found[0], functools.partial(found[1], *arrays))

    return direct

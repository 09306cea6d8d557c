"""One run of a function on Variables: what it computed, what it looked at, what it must not have changed since."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import RecordingError
from ..graph.node import Array, Node, new_input
from .capture import Captures
from .location import foreign_error
from .reach import state_before, watch_function
from .watch import Watches


@dataclass(eq=False)
class Recording:
    """What is known after a function was run once on Variables.

    Attributes:
        inputs: one fresh input node for each array that the function was given.
        result: what the function returned, Variables and all.
        guards: ``(node, value)``: the recording holds for arguments for which every node has its value.
        watches: the plain Python state the function read; the recording holds while it is unchanged.
        counts: the steps of ``while_loop``s, for which the recording has room up to what is guarded.
    """

    inputs: tuple[Node, ...] = ()
    result: Any = None
    guards: list[tuple[Node, Array]] = field(default_factory=list)
    watches: Watches = field(default_factory=Watches)
    captures: Captures = field(default_factory=Captures, repr=False)
    outer: Recording | None = field(default=None, repr=False)
    values: dict[Node, Array] = field(default_factory=dict, repr=False)
    counts: list[Node] = field(default_factory=list, repr=False)
    _seen: dict[Node, list[Array]] = field(default_factory=dict, repr=False)

    bodies = False  # whether this is the body of a loop

    def varies(self, node: Node) -> bool:
        """Whether a node differs from step to step of the loops whose bodies are being recorded."""
        return False

    def guard(self, node: Node, value: Any) -> None:
        """The program looked at ``node`` and saw ``value``; whatever follows holds only when it sees that again."""
        value = np.array(value)
        value.flags.writeable = False
        known = self._seen.setdefault(node, [])
        if not any(np.array_equal(value, other, equal_nan=value.dtype.kind == "f") for other in known):
            known.append(value)
            self.guards.append((node, value))


_current: ContextVar[Recording | None] = ContextVar("jacana_recording", default=None)
_room: ContextVar[int] = ContextVar("jacana_room", default=0)


def least_room() -> int:
    """Steps for which each ``while_loop`` is to have room at least, because some sample of a batch takes so many."""
    return _room.get()


@contextmanager
def with_room(steps: int) -> Iterator[None]:
    """Recordings made within have room for so many steps of every ``while_loop``."""
    token = _room.set(max(steps, _room.get()))
    try:
        yield
    finally:
        _room.reset(token)


def current_recording() -> Recording | None:
    """The innermost recording that is running in this thread or task, if any."""
    return _current.get()


@contextmanager
def not_recording() -> Iterator[None]:
    """Whatever runs within is no part of the recordings around it: work on plain numbers, such as a search."""
    token = _current.set(None)
    try:
        yield
    finally:
        _current.reset(token)


def argument_value(node: Node) -> Array | None:
    """The array given for an input of a recording that is still running, this one or one around it."""
    recording = _current.get()
    while recording is not None:
        if node in recording.values:
            return recording.values[node]
        recording = recording.outer
    return None


def guard(node: Node, value: Any) -> None:
    """Note a look at a value in the innermost recording; nothing to note outside any."""
    recording = _current.get()
    if recording is not None:
        recording.guard(node, value)


def record(function: Callable[..., Any], values: Sequence[Array], wrap: Callable[..., Any] | None = None) -> Recording:
    """Run ``function`` once on Variables and keep what it did.

    Arguments:
        function: called with one Variable for each of ``values``.
        values: arrays of real numbers, integers or booleans. They are copied: what the function writes into its
            arguments stays inside the recording.
        wrap: if given, called with ``function`` and the Variables instead (to unpack trees of arguments).

    Returns:
        The recording. ``recording.result`` is what the function returned.

    Raises:
        RecordingError: the function did something with a Variable that a recording cannot follow.
        InvalidInputError: a complex array.
    """
    from .foreign import libraries

    known = libraries()
    try:
        return _record(function, values, wrap)
    except Exception:
        if libraries() == known:
            raise
    return _record(function, values, wrap)  # a library that the program imports by itself is known from now on


def _record(function: Callable[..., Any], values: Sequence[Array], wrap: Callable[..., Any] | None) -> Recording:
    from .constants import check_dtype
    from .constructors import patched_constructors
    from .foreign import patched_libraries
    from .fourier import register_backend
    from .variable import wrap_node

    register_backend()
    recording = Recording(outer=_current.get())
    variables = []
    for value in values:
        value = np.array(value, order="K", copy=True, subok=False)
        check_dtype(value)
        variables.append(wrap_node(new_input(value.shape, value.dtype), value))
    recording.inputs = tuple(v.node for v in variables)
    # The caller's arrays: the Variables' own numbers change if the function writes into its arguments.
    recording.values = dict(zip(recording.inputs, (np.asarray(v) for v in values), strict=True))
    before = state_before(function)
    token = _current.set(recording)
    try:
        with patched_constructors(), patched_libraries(function):
            recording.result = function(*variables) if wrap is None else wrap(function, *variables)
    except ValueError as error:
        # NumPy hides what __float__ raised behind "setting an array element with a sequence".
        if isinstance(error.__cause__, RecordingError):
            raise error.__cause__ from None
        raise
    except TypeError as error:
        clear = foreign_error(error)
        if clear is None:
            raise
        raise clear from error
    finally:
        _current.reset(token)
    changed = not before.unchanged()
    watch_function(recording.watches, function, recording.captures)
    recording.watches.restless = recording.watches.restless or changed
    return recording

"""Where in the user's program something happened, for messages that name the file, the line and the source."""

from __future__ import annotations

import bisect
import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from ..errors import RecordingError, UnsupportedOperationError
from ..graph.node import Node, next_serial

# Code that acts for the user. The standard library is in between when it calls back (functools, contextlib, threading).
_LIBRARIES = {"jacana", "numpy", "scipy", "opt_einsum", "optree", "pandas", "xarray", "astropy", "pint"}
_MACHINERY = frozenset(_LIBRARIES | (sys.stdlib_module_names - {"__main__"}))


def is_user_code(module: str | None, file: str) -> bool:
    """Whether code is the user's: neither jacana, nor a library beneath it, nor the standard library."""
    # An example in a docstring runs under the name of the module it documents.
    return (module or "").partition(".")[0] not in _MACHINERY or file.startswith("<doctest")


def is_user(frame: FrameType) -> bool:
    """Whether a frame runs the user's code."""
    return is_user_code(frame.f_globals.get("__name__"), frame.f_code.co_filename)


def user_frame() -> FrameType | None:
    """The innermost frame that runs the user's code."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not is_user(frame):
        frame = frame.f_back
    return frame


def calling_scipy() -> FrameType | None:
    """The frame of SciPy's that the user's code has called, if that is where we are called from."""
    frame, found = sys._getframe(1), None
    while frame is not None and not is_user(frame):
        if str(frame.f_globals.get("__name__")).startswith("scipy."):
            found = frame
        frame = frame.f_back  # type: ignore[assignment]
    return found


def called_by(owner: str) -> bool:
    """Whether a method of this class of NumPy's has called jacana."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == "jacana":
        frame = frame.f_back
    return frame is not None and frame.f_code.co_qualname.startswith(f"{owner}.")


def user_line() -> str:
    """``'\\n  at file:line in function\\n    source'`` of the innermost user frame, or nothing."""
    frame = user_frame()
    return "" if frame is None else _line(frame, frame.f_lineno)


def _line(frame: FrameType, number: int) -> str:
    code = frame.f_code
    source = linecache.getline(code.co_filename, number, frame.f_globals).strip()
    where = f"\n  at {code.co_filename}:{number} in {code.co_name}"
    return f"{where}\n    {source}" if source else where


def foreign_error(error: TypeError) -> RecordingError | None:
    """A clear error for one of other code to which a Variable was given; None if it is about something else."""
    if isinstance(error, RecordingError) or not re.search(r"\b(Complex)?Variable\b|WRITEBACKIFCOPY", str(error)):
        return None
    place, trace = "", error.__traceback__
    while trace is not None:
        if is_user(trace.tb_frame):
            place = _line(trace.tb_frame, trace.tb_lineno)
        trace = trace.tb_next
    return RecordingError(
        f"A recorded value was given to code that takes plain numbers and arrays alone: {error}. Write this step with "
        "functions of NumPy, or make it an operation of your own (jacana.custom_operation); for the plain numbers, "
        f"without derivative, write y.data.{place}"
    )


def recording_error(message: str) -> RecordingError:
    """A ``RecordingError`` that ends with the user's line."""
    return RecordingError(message + user_line())


def unhashable(value: Any) -> Exception:
    """The error of ``hash(value)``: NumPy's own for an array; a number is no key, because it will be another one."""
    if value.shape:
        return TypeError("unhashable type: 'numpy.ndarray'")
    return recording_error(
        "A recorded number cannot be a key (of a dict, a set, functools.lru_cache): numbers that are equal now differ "
        "at the next call, and their derivatives differ already. Take a position or a name as the key; for the plain "
        "number, without derivative, write x.data.item()."
    )


def unsupported(what: str, remedy: str = "") -> UnsupportedOperationError:
    """An ``UnsupportedOperationError`` that names the function and ends with the user's line."""
    advice = remedy or "Write this step with supported functions (see dir(jacana.functions))."
    return UnsupportedOperationError(f"jacana has no derivative rule for {what}. {advice}{user_line()}")


class Place(NamedTuple):
    """A line of the user's code."""

    file: str
    line: int
    function: str


class Lines:
    """Which line of the user was being run when a node was made."""

    def __init__(self) -> None:
        self.serials: list[int] = []
        self.places: list[Place] = []

    def note(self, frame: FrameType | None) -> None:
        while frame is not None and not is_user(frame):
            frame = frame.f_back
        if frame is not None:
            self.serials.append(next_serial())
            self.places.append(Place(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name))

    def of(self, node: Node) -> Place | None:
        k = bisect.bisect(self.serials, node.serial) - 1
        return self.places[k] if k >= 0 else None

    def told(self, node: Node) -> str:
        """The line of a node for a message, as ``user_line`` writes it, or nothing."""
        place = self.of(node)
        if place is None:
            return ""
        source = linecache.getline(place.file, place.line).strip()
        return f"\n  at {place.file}:{place.line} in {place.function}" + (f"\n    {source}" if source else "")

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Follow this thread line by line; a debugger that does so too gets its turn again afterwards."""

        def inside(frame: FrameType, event: str, argument: Any) -> Any:
            if event == "line":
                self.note(frame)
            elif event == "return":
                self.note(frame.f_back)
            return inside

        def calls(frame: FrameType, event: str, argument: Any) -> Any:
            return inside if is_user(frame) else None

        before = sys.gettrace()
        sys.settrace(calls)
        try:
            yield
        finally:
            sys.settrace(before)

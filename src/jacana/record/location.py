"""Where in the user's program something happened, for messages that name the file, the line and the source."""

from __future__ import annotations

import linecache
import sys
from types import FrameType

from ..errors import RecordingError, UnsupportedOperationError

# Code that acts for the user. The standard library is in between when it calls back (functools, contextlib, threading).
_MACHINERY = frozenset({"jacana", "numpy", "scipy", "opt_einsum", "optree"}) | (sys.stdlib_module_names - {"__main__"})


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


def user_line() -> str:
    """``'\\n  at file:line in function\\n    source'`` of the innermost user frame, or nothing."""
    frame = user_frame()
    if frame is None:
        return ""
    code = frame.f_code
    source = linecache.getline(code.co_filename, frame.f_lineno, frame.f_globals).strip()
    where = f"\n  at {code.co_filename}:{frame.f_lineno} in {code.co_name}"
    return f"{where}\n    {source}" if source else where


def recording_error(message: str) -> RecordingError:
    """A ``RecordingError`` that ends with the user's line."""
    return RecordingError(message + user_line())


def unsupported(what: str, remedy: str = "") -> UnsupportedOperationError:
    """An ``UnsupportedOperationError`` that names the function and ends with the user's line."""
    advice = remedy or "Write this step with supported functions (see dir(jacana.functions))."
    return UnsupportedOperationError(f"jacana has no derivative rule for {what}. {advice}{user_line()}")

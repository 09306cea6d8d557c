"""Where in the user's program something happened, for messages that name the file, the line and the source."""

from __future__ import annotations

import linecache
import sys
from types import FrameType

from ..errors import RecordingError, UnsupportedOperationError

_MACHINERY = frozenset({"jacana", "numpy", "scipy", "opt_einsum", "optree", "importlib", "contextlib", "functools"})


def module_of(frame: FrameType) -> str:
    """The top-level package of the code that a frame runs."""
    name = frame.f_globals.get("__name__")
    return name.partition(".")[0] if isinstance(name, str) else ""


def user_frame() -> FrameType | None:
    """The innermost frame that is neither jacana's nor a library's beneath it."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and module_of(frame) in _MACHINERY:
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

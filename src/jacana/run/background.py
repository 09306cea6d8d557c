"""One daemon thread that compiles while the NumPy executor answers, and what keeps it from doing harm.

LLVM works for one thread at a time, so there is one thread and one lock. Three moments need care:

* *exit*: a thread inside LLVM while the process tears LLVM down would crash, so leaving waits for the step that is
  running; nothing new is begun;
* *fork*: a child that inherits a lock held by a thread that it does not have would wait for ever, so a fork waits until
  nobody compiles, and the child starts with an empty queue;
* *user threads*: whoever submits never waits; whoever needs machine code now takes the same lock.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Callable

compiling = threading.RLock()
"""Held by whoever uses LLVM."""

_guard = threading.RLock()  # of the three below
_queue: deque[Callable[[], None]] = deque()
_thread: threading.Thread | None = None
_stopping = False


class AbandonedError(Exception):
    """The process is leaving: what is being compiled in the background is not wanted any more."""


def submit(task: Callable[[], None]) -> bool:
    """Run ``task`` on the thread soon; False if the process is leaving or no thread can be had.

    The task has to deal with its own exceptions.
    """
    global _thread
    with _guard:
        if _stopping:
            return False
        _queue.append(task)
        if _thread is None:
            thread = threading.Thread(target=_work, name="jacana-compile", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the interpreter is shutting down, or there are too many threads
                _queue.clear()
                return False
            _thread = thread
    return True


def _work() -> None:
    global _thread
    while True:
        with compiling:
            with _guard:
                if _stopping or not _queue:
                    _thread = None
                    return
                task = _queue.popleft()
            task()
            del task  # it may be all that keeps a program alive


def drain() -> None:
    """Wait until everything submitted is done."""
    while (thread := _thread) is not None:
        thread.join()


def checkpoint() -> None:
    """Called between the steps of compiling.

    Raises:
        AbandonedError: the process is leaving, and this is the background thread.
    """
    if _stopping and threading.current_thread() is _thread:
        raise AbandonedError


def _stop() -> None:
    global _stopping
    with _guard:
        _stopping = True
        _queue.clear()
    drain()


def _before_fork() -> None:
    compiling.acquire()
    _guard.acquire()


def _after_fork_in_parent() -> None:
    _guard.release()
    compiling.release()


def _after_fork_in_child() -> None:
    global _thread
    _queue.clear()
    _thread = None
    _after_fork_in_parent()


atexit.register(_stop)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)

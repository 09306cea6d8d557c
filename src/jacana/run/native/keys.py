"""What compiled code depends on besides the program: versions, the machine, and jacana's own sources and limits."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import os
import platform
import re
import sys
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from ..._version import __version__
from . import engine

SIZE = 16
_DERIVING = ("graph", "structure", "differentiate", "plan", "run")
_ROOMS = tuple(
    f"{__name__.removesuffix('run.native.keys')}{room}."
    for room in ("graph", "structure", "differentiate", "plan", "run.native")
)


def environment() -> bytes:
    """A digest of everything that decides what code is made for a program."""
    machine = engine.machine()
    limits = [
        f"{where}.{name}={value}"
        for where, module in sorted(sys.modules.items())
        if where.startswith(_ROOMS)
        for name, value in vars(module).items()
        if name.isupper() and isinstance(value, (int, float)) and _written(where).get(name) != value
    ]
    parts = [_process(), str(machine.lanes), str(machine.libmvec is not None), str(engine.fast_calls()), *limits]
    return hashlib.blake2b("\n".join(parts).encode(), digest_size=SIZE).digest()


@functools.cache
def _written(where: str) -> dict[str, int | float]:
    """The limits of a module as its source has them, which is in the key already; imported ones as they are now.

    Only what somebody changes is added: which modules happen to be imported yet must make no difference.
    """
    module = sys.modules[where]
    found = {name: value for name, value in vars(module).items() if name.isupper() and isinstance(value, (int, float))}
    with contextlib.suppress(OSError):
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        for name, value in re.findall(r"^(\w+) *= *([-+*/. \w]+?) *(?:#.*)?$", text, re.MULTILINE):
            with contextlib.suppress(NameError, SyntaxError, TypeError, AttributeError):
                found[name] = eval(value, dict(vars(module)))
    return found


@functools.cache
def _process() -> str:
    """What does not change while the process runs."""
    parts = [
        __version__,
        _sources(),
        llvmlite.__version__,
        str(llvm.llvm_version_info),
        llvm.get_process_triple(),
        llvm.get_host_cpu_name(),
        llvm.get_host_cpu_features().flatten(),
        str(sys.implementation.cache_tag),
        sys.abiflags if hasattr(sys, "abiflags") else "",
        np.__version__,
        " ".join(platform.libc_ver()) if not hasattr(os, "confstr") else _libc(),
    ]
    return "\n".join(parts)


def _libc() -> str:
    """The C library, whose vector functions the code calls by name."""
    try:
        return os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):
        return ""


def _sources() -> str:
    """A digest of what derives programs and makes code: the version stays the same while it is worked on."""
    total = hashlib.blake2b(digest_size=SIZE)
    package = Path(__file__).parents[2]
    files = [file for room in _DERIVING for file in (package / room).rglob("*.py")]
    for file in sorted((*files, *package.glob("*.py"))):
        total.update(file.relative_to(package).as_posix().encode())
        total.update(file.read_bytes())
    return total.hexdigest()

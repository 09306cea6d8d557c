"""Compiled programs on disk, for the next process: small files that nobody has to trust.

A file is a header (magic, digest of all that follows, the full key), a description in JSON, and an object image. It
is read only if it is a plain file of this user that nobody else can write, in a directory of this user that nobody
else can write, and only used if digest and key are right; anything else is as good as absent. It is written under a
temporary name and renamed, so that readers and writers in other processes see all of it or nothing. The least
recently used files go when together they are too large. No failure of the cache is ever an error of the program.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path  # imported where it is used, as it takes a tenth of the time to import jacana

MAGIC = b"jacana\x00\x01"
SUFFIX = ".code"
DIGEST = 32
LIMIT = 256 * 2**20  # bytes; ``JACANA_CACHE_MEGABYTES`` sets another limit
PRUNE_EVERY = 32  # files written by a process between two looks at the total size
OLD_SECONDS = 3600.0  # age at which a temporary file has been abandoned

_written = 0


def default_directory() -> Path | None:
    """Where the caches of this user's programs are by the conventions of the platform."""
    from pathlib import Path

    try:
        home = Path.home()
    except RuntimeError:
        return None
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or home / "AppData" / "Local") / "jacana" / "Cache"
    if sys.platform == "darwin":
        return home / "Library" / "Caches" / "jacana"
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if os.path.isabs(base) else home / ".cache") / "jacana"


def directory() -> Path | None:
    """Where compiled programs are kept; None if the cache is off (``JACANA_CACHE_DIR`` is empty or ``0``)."""
    from pathlib import Path

    chosen = os.environ.get("JACANA_CACHE_DIR")
    if chosen is None:
        return default_directory()
    return None if chosen in ("", "0") else Path(chosen).expanduser()


def limit() -> int:
    """The bytes that all files together may have."""
    try:
        return int(float(os.environ["JACANA_CACHE_MEGABYTES"]) * 2**20)
    except (KeyError, ValueError, OverflowError):
        return LIMIT


def objection(path: Path) -> str | None:
    """Why a directory cannot be trusted with machine code; None if it can, or does not exist yet."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    except OSError as problem:
        return f"it cannot be looked at: {problem.strerror}"
    if not stat.S_ISDIR(found.st_mode):
        return "it is not a directory"
    return _foreign(found)


def _foreign(found: os.stat_result) -> str | None:
    if not hasattr(os, "getuid"):
        return None  # the profile directory of Windows is the user's own
    if found.st_uid != os.getuid():
        return "it belongs to another user"
    if found.st_mode & 0o022:
        return "other users can write to it (chmod 700 makes it yours)"
    return None


def _usable() -> Path | None:
    path = directory()
    return None if path is None or objection(path) is not None else path


def _name(program: bytes, environment: bytes) -> str:
    return f"{program.hex()}-{environment.hex()}{SUFFIX}"


def may_have(program: bytes) -> bool:
    """Whether there is a file for the program, perhaps of another machine or version."""
    path = _usable()
    prefix = f"{program.hex()}-"
    return path is not None and any(entry.name.startswith(prefix) for entry in _scan(path))


def fetch(program: bytes, environment: bytes) -> tuple[Any, bytes] | None:
    """The description and the object image kept for a key, if there are any and they are whole."""
    path = _usable()
    if path is None:
        return None
    file = path / _name(program, environment)
    content = _read(file)
    if content is None:
        return None
    found = _unpack(content, program + environment)
    if found is None:
        _remove(file)  # truncated or damaged: the next one to compile writes it anew
        return None
    with contextlib.suppress(OSError):
        os.utime(file)  # the least recently used goes first
    return found


def _read(file: Path) -> bytes | None:
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(file, flags | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return None
    try:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or _foreign(found) is not None:
            return None
        with os.fdopen(os.dup(descriptor), "rb") as stream:
            return stream.read()
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _pack(key: bytes, description: Any, image: bytes) -> bytes:
    import json

    text = json.dumps(description, separators=(",", ":")).encode()
    body = key + len(text).to_bytes(8, "little") + text + image
    return MAGIC + hashlib.blake2b(body, digest_size=DIGEST).digest() + body


def _unpack(content: bytes, key: bytes) -> tuple[Any, bytes] | None:
    import json

    start = len(MAGIC) + DIGEST
    body = content[start:]
    if not content.startswith(MAGIC) or hashlib.blake2b(body, digest_size=DIGEST).digest() != content[8:start]:
        return None
    if not body.startswith(key):
        return None
    body = body[len(key) :]
    size = int.from_bytes(body[:8], "little")
    try:
        return json.loads(body[8 : 8 + size]), body[8 + size :]
    except ValueError:
        return None


def keep(program: bytes, environment: bytes, description: Any, image: bytes) -> None:
    """Write a compiled program, if that is possible."""
    global _written
    path = directory()
    if path is None:
        return
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        if objection(path) is not None:
            return
        temporary = path / f".{os.getpid()}-{os.urandom(8).hex()}.tmp"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
        try:
            with os.fdopen(os.open(temporary, flags, 0o600), "wb") as stream:
                stream.write(_pack(program + environment, description, image))
            os.replace(temporary, path / _name(program, environment))
        except BaseException:
            _remove(temporary)
            raise
    except OSError:
        return
    if _written % PRUNE_EVERY == 0:
        prune(path, limit())
    _written += 1


@dataclass(frozen=True)
class Entry:
    """One file of the cache."""

    name: str
    path: Path
    size: int
    used: float  # seconds since the epoch


def _scan(path: Path) -> Iterator[Entry]:
    """The files of the cache; nothing else that may be in the directory."""
    from pathlib import Path

    try:
        with os.scandir(path) as found:
            for entry in found:
                ours = entry.name.endswith(SUFFIX) or (entry.name.startswith(".") and entry.name.endswith(".tmp"))
                if ours and entry.is_file(follow_symlinks=False):
                    about = entry.stat(follow_symlinks=False)
                    yield Entry(entry.name, Path(entry.path), about.st_size, about.st_mtime)
    except OSError:
        return


def entries() -> list[Entry]:
    """Every compiled program in the cache, the most recently used first."""
    path = directory()
    found = [] if path is None else [entry for entry in _scan(path) if entry.name.endswith(SUFFIX)]
    return sorted(found, key=lambda entry: -entry.used)


def prune(path: Path, most: int) -> int:
    """Remove the least recently used files until a fifth of the space is free, if they are too large; how many."""
    now = time.time()
    files = sorted(_scan(path), key=lambda entry: entry.used)
    total = sum(entry.size for entry in files)
    removed = 0
    target = most if total <= most else most * 4 // 5
    for entry in files:
        abandoned = entry.name.endswith(".tmp") and now - entry.used > OLD_SECONDS
        if abandoned or (total > target and entry.name.endswith(SUFFIX)):
            total -= entry.size
            removed += _remove(entry.path)
    return removed


def clear() -> int:
    """Remove every compiled program; how many there were."""
    path = _usable()
    if path is None:
        return 0
    return sum(_remove(entry.path) for entry in list(_scan(path)))


def _remove(path: Path) -> bool:
    try:
        path.unlink()
    except OSError:  # somebody else was faster, or is reading it
        return False
    return True

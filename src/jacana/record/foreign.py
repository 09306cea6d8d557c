"""Functions of libraries that know none of NumPy's protocols, inside recorded functions.

``scipy.linalg`` turns its arguments into arrays itself, so a Variable never gets a say. While at least one recording is
running, the public functions of such a module (if the program has imported it) are replaced by wrappers, in the module
and where ``from scipy.linalg import expm`` has put them: the globals and the closure of the recorded function and of
the functions that it names. A wrapper steps aside unless this thread (or task) is recording *and* an argument holds a
Variable; without Variables SciPy is what it always was. What has no rule is refused by name.
"""

from __future__ import annotations

import inspect
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from types import CellType, FunctionType, MethodType, ModuleType
from typing import Any, TypeAlias, TypeGuard

from .lift import any_tracked, call_on_constants
from .location import is_user_code, unsupported
from .reach import names_in
from .recording import current_recording
from .table import Handler, is_complex
from .variable import contains_variable

Namespace: TypeAlias = MutableMapping[str, Any]
Before: TypeAlias = "list[tuple[str, Callable[..., Any], Callable[..., Any]]]"  # name, original, wrapper

# A method of a class that is replaced while something is recorded: class, name, original, wrapper.
Entry: TypeAlias = tuple[Any, str, Callable[..., Any], Callable[..., Any]]
Methods: TypeAlias = dict[tuple[Any, str], Callable[..., Any]]
METHODS: list[Callable[[], list[Entry]]] = []  # each gives those of one library, none before that is imported
HANDLERS: dict[str, dict[str, Handler]] = {}
REMEDIES: dict[tuple[str, str], str] = {}
REAL_ONLY: set[tuple[str, str]] = set()  # functions whose handlers know no complex numbers
# Functions that call the program back: what they depend on may be in a closure, which their handlers find out.
CALLING_BACK: set[tuple[str, str]] = set()
# Of these only what has an entry is wrapped: the rest calls NumPy, which knows Variables by itself.
MADE_OF_UFUNCS = frozenset(
    ("scipy.special", "scipy.interpolate", "scipy.spatial.transform", "scipy.integrate", "scipy.sparse",
     "scipy.sparse.linalg", "scipy.stats")
)  # fmt: skip
# Here classes are replaced, too.
_OF_CLASSES = frozenset({"scipy.interpolate"})
_wrappers: dict[str, dict[str, Callable[..., Any]]] = {}
_originals: dict[int, tuple[Callable[..., Any], Callable[..., Any]]] = {}  # by id: the function and its wrapper
_lock = threading.RLock()
# By the id of a namespace: how many recordings need the wrappers in it, and what it had before.
_changed: dict[int, tuple[int, Namespace, Before]] = {}


def records(module: str, *names: str, calls_back: bool = False) -> Callable[[Handler], Handler]:
    """Enter the decorated function as the way to record ``module.name`` for each of ``names``.

    ``calls_back``: it is called for plain arguments, too, with the original function before them.
    """

    def enter(handler: Handler) -> Handler:
        for name in names:
            HANDLERS.setdefault(module, {})[name] = handler
            if calls_back:
                CALLING_BACK.add((module, name))
        return handler

    return enter


def refuses(module: str, remedy: str, *names: str) -> None:
    """Say what to do instead of functions that are refused."""
    for name in names:
        HANDLERS.setdefault(module, {})
        REMEDIES[module, name] = remedy


def _wrapper(module: str, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
    handler = HANDLERS[module].get(name)
    calls_back = (module, name) in CALLING_BACK

    def call(*args: Any, **kwargs: Any) -> Any:
        if calls_back and handler is not None and current_recording() is not None:
            return handler(original, *args, **kwargs)
        if current_recording() is None or not (contains_variable(args) or contains_variable(kwargs)):
            return original(*args, **kwargs)
        if not (any_tracked(args) or any_tracked(tuple(kwargs.values()))):
            return call_on_constants(original, args, kwargs)
        if (module, name) in REAL_ONLY and any(map(is_complex, (*args, *kwargs.values()))):
            raise unsupported(f"{module}.{name} of complex numbers", "Work on z.real and z.imag.")
        if handler is None:
            raise unsupported(f"{module}.{name}", REMEDIES.get((module, name), ""))
        return handler(*args, **kwargs)

    if inspect.isclass(original):
        return _class_wrapper(name, original, call)
    call.__name__ = call.__qualname__ = name
    call.__module__ = original.__module__
    call.__doc__ = original.__doc__
    call.__wrapped__ = original  # type: ignore[attr-defined]
    return call


def _class_wrapper(name: str, original: type, call: Callable[..., Any]) -> type:
    """A class that stands for another: calling it is ``call``, everything else is the original's."""
    kind: Any = type(original)
    meta = type(
        f"{name}Wrapper",
        (kind,),
        {
            "__call__": lambda cls, *args, **kwargs: call(*args, **kwargs),
            "__instancecheck__": lambda cls, instance: isinstance(instance, original),
            "__subclasscheck__": lambda cls, other: issubclass(other, original),
        },
    )
    wrapper: type = meta(name, (original,), {"__module__": original.__module__, "__doc__": original.__doc__})
    return wrapper


def _is_function(value: Any) -> TypeGuard[Callable[..., Any]]:
    # Some functions of SciPy are compiled (which ones depends on its version), and no builtins to ``inspect``.
    return inspect.isfunction(value) or type(value).__name__ == "cython_function_or_method"


def _prepare(module: str, namespace: ModuleType) -> dict[str, Callable[..., Any]]:
    found = _wrappers.get(module)
    if found is None:
        found = {}
        for name in getattr(namespace, "__all__", ()):
            if module in MADE_OF_UFUNCS and name not in HANDLERS[module] and (module, name) not in REMEDIES:
                continue  # not even looked at: scipy.sparse imports what it has when that is asked for
            original = getattr(namespace, name, None)
            if _is_function(original) or (inspect.isclass(original) and module in _OF_CLASSES):
                found[name] = _wrapper(module, name, original)
                _originals[id(original)] = (original, found[name])
        _wrappers[module] = found
    return found


def _filled(cell: CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018 (an empty cell says so by an error)
    except ValueError:
        return False
    return True


class _Cells(MutableMapping[str, Any]):
    """The closure of a function as a namespace."""

    def __init__(self, function: FunctionType) -> None:
        cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
        self.cells = {name: cell for name, cell in cells if _filled(cell)}

    def __getitem__(self, name: str) -> Any:
        cell = self.cells[name]
        return cell.cell_contents if _filled(cell) else None

    def __setitem__(self, name: str, value: Any) -> None:
        self.cells[name].cell_contents = value

    def __delitem__(self, name: str) -> None:
        raise TypeError("a closure keeps its cells")

    def __iter__(self) -> Iterator[str]:
        return iter(self.cells)

    def __len__(self) -> int:
        return len(self.cells)


def _replace(namespace: Namespace, names: Iterable[str], methods: Methods) -> Before:
    """Wrappers for what the namespace has of other libraries; what it had before."""
    before = []
    for name in names:
        value: Any = namespace.get(name)
        wrapper = _counterpart(value, methods)
        if wrapper is not None:
            before.append((name, value, wrapper))
            namespace[name] = wrapper
    return before


def _replaced_methods() -> Methods:
    """The methods that are replaced, by class and name."""
    return {(owner, name): wrapper for source in METHODS for owner, name, _, wrapper in source()}


def _counterpart(value: Any, methods: Methods) -> Callable[..., Any] | None:
    """The wrapper of a function of another library; of a method that was bound before the class was changed, too."""
    pair = _originals.get(id(value))
    if pair is not None and pair[0] is value:
        return pair[1]
    if not isinstance(value, MethodType):
        return None
    name = getattr(value, "__name__", "")
    wrapper = methods.get((next((c for c in type(value.__self__).__mro__ if name in vars(c)), None), name))
    return None if wrapper is None else MethodType(wrapper, value.__self__)


def _enter(key: int, namespace: Namespace, names: Iterable[str], methods: Methods) -> None:
    users, _, before = _changed.get(key, (0, namespace, None))
    _changed[key] = users + 1, namespace, _replace(namespace, names, methods) if before is None else before


def _leave(key: int) -> None:
    users, namespace, before = _changed.pop(key)
    if users > 1:
        _changed[key] = users - 1, namespace, before
        return
    for name, original, wrapper in before:
        if namespace.get(name) is wrapper:
            namespace[name] = original


def _named_functions(function: FunctionType) -> Iterator[FunctionType]:
    """Functions that a function names, of its own module and of modules that it names: they may be in others."""
    names = names_in(function.__code__)
    space = function.__globals__
    for name in names:
        value = space.get(name)
        if inspect.isfunction(value):
            yield value
        elif inspect.ismodule(value) and is_user_code(value.__name__, getattr(value, "__file__", None) or ""):
            members = (vars(value).get(other) for other in names)
            yield from (m for m in members if inspect.isfunction(m))


def _own_namespaces(function: Any) -> Iterator[tuple[int, Namespace]]:
    """The globals and the closure of a function, of the functions in its closure and of those that it names."""
    pending, seen = [function], set()
    while pending:
        found = pending.pop()
        found = inspect.unwrap(getattr(found, "func", found))
        found = getattr(found, "__func__", found)
        if not inspect.isfunction(found):
            found = getattr(type(found), "__call__", None)  # noqa: B004 (its globals are wanted)
        if not inspect.isfunction(found) or id(found) in seen:
            continue
        seen.add(id(found))
        if not is_user_code(found.__module__, found.__code__.co_filename):
            if (found.__module__ or "").startswith("jacana."):  # one of ours around one of the user's
                pending.extend(v for v in _Cells(found).values() if inspect.isfunction(v))
            continue
        yield id(found.__globals__), found.__globals__
        pending.extend(_named_functions(found))
        if found.__closure__:
            cells = _Cells(found)
            yield id(found.__closure__), cells
            pending.extend(v for v in cells.values() if inspect.isfunction(v) and id(v) not in _originals)


def stand_in(function: Any) -> Any:
    """What a recording calls: the wrapper of ``scipy.linalg.expm`` if that itself is what is to be recorded."""
    for name in HANDLERS:
        if name in sys.modules:
            _prepare(name, sys.modules[name])
    return _counterpart(function, _replaced_methods()) or function


def libraries() -> frozenset[str]:
    """Which of the libraries that would be wrapped are imported."""
    return frozenset(name for name in HANDLERS if name in sys.modules)


@contextmanager
def patched_libraries(function: Any) -> Iterator[None]:
    """Put the wrappers in place; the last recording to end takes them away again."""
    modules = [(name, sys.modules[name]) for name in HANDLERS if name in sys.modules]
    spaces: dict[int, tuple[Namespace, Iterable[str]]] = {}
    with _lock:
        if modules:
            spaces.update((key, (space, list(space))) for key, space in _own_namespaces(function))
        for name, module in modules:
            spaces[id(vars(module))] = vars(module), _prepare(name, module)
        methods = _replaced_methods()
        for key, (space, names) in spaces.items():
            _enter(key, space, names, methods)
    try:
        yield
    finally:
        with _lock:
            for key in spaces:
                _leave(key)

"""Record once, replay after: the cache between the public verbs and the executors.

A recording is good for one signature (tree, shapes, dtypes, static arguments), for one path through the function
(its guards) and for the outside state that the function read (its watches). A call looks for a recording whose watches
and guards hold; if there is none it makes one, so that value-dependent control flow is right and still replayed.
"""

from __future__ import annotations

import functools
import inspect
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import trees
from .errors import InvalidInputError
from .graph.build import apply, constant_array
from .graph.garbage import seldom_collected
from .graph.node import Array, Node, literal, substitute_nodes
from .graph.ops.reduction import AxesParams, reduce_all
from .graph.rolling import roll
from .graph.simplify import simplify
from .plans import planned
from .record import (
    ComplexVariable,
    Recording,
    Variable,
    as_node,
    current_recording,
    is_complex,
    leaf_value,
    raw,
    record,
    stand_in,
    wrap_node,
)
from .run import Program, check_compilable, compile_numpy

MAX_PATHS = 32  # recordings kept for one signature; the least recently used goes first
MAX_SIGNATURES = 256


@dataclass(frozen=True)
class Traced:
    """What a build step gets: the argument leaves to differentiate by, all argument leaves, and the results.

    A complex leaf has two nodes, its real part and its imaginary part, in ``inputs``, ``wanted`` and ``outputs``;
    ``complex_wanted`` and ``complex_outputs`` say for each leaf of the trees whether it is complex.
    """

    inputs: tuple[Node, ...]
    wanted: tuple[int, ...]
    wanted_tree: Any
    outputs: tuple[Node, ...]
    output_tree: Any
    name: str
    complex_wanted: tuple[bool, ...] = ()
    complex_outputs: tuple[bool, ...] = ()

    @property
    def is_complex(self) -> bool:
        """Whether a leaf to differentiate by, or a result, is complex: it is two nodes then, its parts."""
        return any(self.complex_wanted) or any(self.complex_outputs)

    def value(self, arrays: Sequence[Any]) -> Any:
        """What the function returned, from the arrays of ``outputs``."""
        return trees.unflatten(self.output_tree, whole_leaves(arrays, self.complex_outputs))

    @property
    def by(self) -> list[Node]:
        """The leaves to differentiate by."""
        return [self.inputs[k] for k in self.wanted]


@dataclass(frozen=True)
class Built:
    """The nodes to compute and how their arrays become what the user gets.

    Attributes:
        derived: the nodes, or a function that derives them when they are needed.
        finish: from their arrays to the result.
        inline: whether ``finish`` also takes Variables, inside another recorded function.
        how: with the traced program, all that the nodes depend on: two functions that derive from equal programs with
            equal ``how`` derive equal nodes, also in another process. None: no such promise is made.
        plain: whether the result is the one array, or the tuple of the arrays, and nothing else.
    """

    derived: list[Node] | Callable[[], list[Node]]
    finish: Callable[[list[Any]], Any]
    inline: bool = True
    how: str | None = None
    plain: bool = False

    @functools.cached_property
    def nodes(self) -> list[Node]:
        """The nodes to compute."""
        return self.derived if isinstance(self.derived, list) else self.derived()


Build = Callable[[Traced], Built]


def whole_leaves(arrays: Sequence[Any], are_complex: Sequence[bool]) -> list[Any]:
    """One array for each leaf: of two parts where it is complex."""
    rest = iter(arrays)
    return [whole(next(rest), next(rest)) if flag else next(rest) for flag in are_complex]


def whole(re: Any, im: Any) -> Any:
    """The complex array, or complex Variable, with these parts."""
    if isinstance(re, Variable) or isinstance(im, Variable):
        return ComplexVariable(re, im)
    z = np.empty(np.shape(re), np.result_type(re, im, np.complex64))
    z.real, z.imag = re, im
    return z


class _Path:
    """One recording, ready to be replayed."""

    __slots__ = ("compiled", "direct", "finish", "free", "guarded", "plain", "watches")

    def __init__(self, recording: Recording, traced: Traced, build: Build, native: bool) -> None:
        self.watches = recording.watches
        check = guard_node(recording.guards)
        found = planned(build, traced, check, native)
        self.finish, self.free, self.compiled = found.finish, found.free, found.run
        self.guarded = check is not None
        self.plain = not self.free and not self.guarded
        self.direct = found.direct if self.plain else None  # where nothing remains to be done by Python

    def run(self, values: Sequence[Array]) -> list[Array] | None:
        """The arrays of the built nodes, or None where a guard says that this is another path."""
        if self.free:
            values = [*values, *(np.asarray(leaf_value(node), order="C") for node in self.free)]
        if not self.guarded:
            return self.compiled(values)
        try:
            results = self.compiled(values)
        except InvalidInputError:
            raise  # not of the program: the executor cannot be had
        except Exception:
            return None  # an error on a path that may not be the right one: record again and let it speak there
        return results if results.pop() else None


def _equal(found: Sequence[Array] | None, expected: Sequence[Array]) -> bool:
    """Whether two recordings gave the same numbers: what changed between them (a counter) is then no part of them."""
    if found is None or len(found) != len(expected):
        return False
    return all(np.array_equal(a, b, equal_nan=True) for a, b in zip(found, expected, strict=True))


def guard_node(guards: Sequence[tuple[Node, Array]]) -> Node | None:
    """One boolean: whether everything that the program looked at still says the same."""
    total = None
    for node, value in guards:
        value = np.asarray(value)
        if node.dtype == np.bool_ and value.ndim == 0:
            same = node if bool(value) else apply("logical_not", node)
        elif value.ndim == 0:
            same = apply("equal", node, literal(value, node.dtype))
        else:
            expected = constant_array(value.astype(node.dtype))
            if node.dtype == np.bool_:
                same = apply("logical_not", apply("logical_xor", node, expected))
            else:
                same = apply("equal", node, expected)
            same = reduce_all(same, params=AxesParams(tuple(range(value.ndim))))
        total = same if total is None else apply("logical_and", total, same)
    return total


class Replay:
    """A user's function, a build step, and every recording made so far. Safe to call from many threads."""

    def __init__(
        self,
        function: Callable[..., Any],
        build: Build,
        argnums: int | Sequence[int],
        verb: str,
        native: bool = False,
        takes_complex: bool = False,
    ) -> None:
        """``native``: compile at the first call. ``takes_complex``: whether ``build`` knows leaves of two parts."""
        if not callable(function):
            raise InvalidInputError(f"{verb} takes a function, not {type(function).__name__}")
        if native:
            check_compilable("jacana.compile" if verb == "compile" else f"{verb}(..., compile=True)")
        self.native, self.takes_complex = native, takes_complex
        self.function, self.build, self.verb = function, build, verb
        self.watched = function  # the code whose outside state a recording depends on
        self.single = isinstance(argnums, (int, np.integer))
        self.argnums = (int(argnums),) if isinstance(argnums, (int, np.integer)) else tuple(argnums)
        if not all(isinstance(k, (int, np.integer)) for k in self.argnums):
            raise InvalidInputError(f"argnums must be an integer or a sequence of integers, not {argnums!r}")
        self._paths: OrderedDict[Any, list[_Path]] = OrderedDict()
        self._lock = threading.RLock()
        # The last path, if it is one builtin: for which executor, the builtin, and whether the path still holds.
        self.shortest: tuple[str, Callable[..., Any], Callable[[], bool]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_paths", "_lock", "shortest")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._paths, self._lock, self.shortest = OrderedDict(), threading.RLock(), None

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) == 1 and not kwargs and type(args[0]) is np.ndarray and current_recording() is None:
            # The common call, without a tree to flatten: microseconds count here.
            x = args[0]
            known = self._paths.get((x.shape, x.dtype))
            contiguous = x.flags.c_contiguous
            if known and (contiguous or x.ndim == 1):
                path = known[-1]
                if path.watches.unchanged():
                    self._shorten(path)
                    values = (x if contiguous else np.ascontiguousarray(x),)
                    try:
                        results = path.compiled(values) if path.plain else path.run(values)
                    except np.linalg.LinAlgError:
                        results = None  # recorded again, the error comes from the user's line
                    if results is not None:
                        return path.finish(results)
        return self._general(args, kwargs)

    def _shorten(self, path: _Path) -> None:
        """Remember the builtin of a path whose program has an input for each argument."""
        if path.direct is not None:
            builtin = path.direct()
            self.shortest = None if builtin is None else (*builtin, path.watches.unchanged)

    def _general(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments = _Arguments(self, args, kwargs)
        values = arguments.values()
        if any(isinstance(leaf, (Variable, ComplexVariable)) for leaf in arguments.leaves):
            return self._inline(arguments, *self._record(arguments))
        outer = current_recording()
        with self._lock:
            paths = self._paths.get(arguments.key)
            candidates = list(reversed(paths)) if paths else []
        before = None  # the recording before this one, of a function that changes what it reads
        for path in candidates:
            if not path.watches.unchanged():
                before = path if path.watches.restless and before is None else before
                with self._lock:
                    if path in self._paths.get(arguments.key, ()):
                        self._paths[arguments.key].remove(path)
                continue
            if outer is not None and path.free:
                return self._inline(arguments, *self._record(arguments))
            try:
                results = path.run(values)
            except np.linalg.LinAlgError:
                continue
            if results is not None:
                if outer is not None:
                    outer.watches.include(path.watches)
                elif (
                    not kwargs
                    and not arguments.turned
                    and all(type(a) is np.ndarray and a.dtype.kind != "c" for a in args)
                ):
                    self._shorten(path)
                with self._lock:
                    paths = self._paths.setdefault(arguments.key, [])
                    if path in paths and paths[-1] is not path:
                        paths.remove(path)
                        paths.append(path)
                return path.finish(results)
        with seldom_collected():
            recording, traced = self._record(arguments)
        path = _Path(recording, traced, self.build, self.native)
        if outer is not None:
            if path.free:
                return self._inline(arguments, recording, traced)
            outer.watches.include(recording.watches)
        results = path.run(values)
        if results is None:
            # The recording's own guards do not hold on its own input: the function is not a function of its arguments
            # (random numbers, a clock) or compares NaNs. The answer of this call is right; it is not kept.
            free = [np.asarray(leaf_value(node), order="C") for node in path.free]
            return path.finish(path.compiled([*values, *free])[:-1])
        if before is not None and path.watches.settles and outer is None:
            path.watches.restless = path.watches.restless and not _equal(before.run(values), results)
        with self._lock:
            paths = self._paths.setdefault(arguments.key, [])
            self._paths.move_to_end(arguments.key)
            paths.append(path)
            del paths[:-MAX_PATHS]
            while len(self._paths) > MAX_SIGNATURES:
                self._paths.popitem(last=False)
        return path.finish(results)

    def trace(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Recording, Traced]:
        """Record the function at these arguments, without running a derivative."""
        arguments = _Arguments(self, args, kwargs)
        return self._record(arguments)

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The program that a call with these arguments runs, guards included."""
        recording, traced = self.trace(args, kwargs)
        check = guard_node(recording.guards)
        outputs = tuple(simplify([*self.build(traced).nodes, *(() if check is None else (check,))]))
        return Program((*recording.inputs, *Program(recording.inputs, outputs).free_inputs()), outputs)

    def _record(self, arguments: _Arguments) -> tuple[Recording, Traced]:
        def unpacked(_: Any, *variables: Variable) -> Any:
            positional, keywords = arguments.rebuild(variables)
            return stand_in(self.function)(*positional, **keywords)

        recording = record(self.watched, arguments.given(), wrap=unpacked)
        outputs, tree = trees.flatten(recording.result)
        if trees.has_none(recording.result):
            raise InvalidInputError(
                f"{self.name} returned None where an array was expected; does it end with a return statement?"
            )
        flags = tuple(map(is_complex, outputs))
        if any(flags) and not self.takes_complex:
            raise InvalidInputError(_refusal(f"{self.verb} of {self.name}: the result is complex", self.verb))
        nodes = tuple(roll([self._output_node(part) for leaf, flag in zip(outputs, flags, strict=True)
                            for part in (parts(leaf) if flag else (leaf,))]))  # fmt: skip
        traced = Traced(
            recording.inputs, arguments.wanted, arguments.wanted_tree, nodes, tree, self.name,
            arguments.complex_wanted, flags,
        )  # fmt: skip
        return recording, traced

    @property
    def name(self) -> str:
        """The user's name for the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def _output_node(self, leaf: Any) -> Node:
        if isinstance(leaf, (str, bytes)):
            raise InvalidInputError(f"{self.name} returned {type(leaf).__name__} where an array was expected")
        return as_node(leaf)

    def _inline(self, arguments: _Arguments, recording: Recording, traced: Traced) -> Any:
        """On Variables, or on what an outer recording knows: the derivative becomes part of the outer program."""
        values = arguments.values()
        built = self.build(traced)
        if not built.inline:
            raise InvalidInputError(
                f"{self.verb}: inside a recorded function, or on Variables, only the dense format can be used"
            )
        mapping = {node: as_node(leaf) for node, leaf in zip(recording.inputs, arguments.arrays(), strict=True)}
        guard_nodes = [node for node, _ in recording.guards]
        program = Program(recording.inputs, tuple(built.nodes))
        free = program.free_inputs()
        run = compile_numpy(Program((*recording.inputs, *free), tuple(built.nodes)))
        results = run([*values, *(np.asarray(leaf_value(node), order="C") for node in free)])
        moved = substitute_nodes([*built.nodes, *guard_nodes, *recording.counts], dict(mapping))
        outer = current_recording()
        if outer is not None:
            outer.watches.include(recording.watches)
            outer.counts.extend(moved[len(built.nodes) + len(guard_nodes) :])
            for node, (_, value) in zip(moved[len(built.nodes) :], recording.guards, strict=False):
                outer.guard(node, value)
        variables = [wrap_node(node, value) for node, value in zip(moved, results, strict=False)]
        return built.finish(variables)


REAL = frozenset(map(np.dtype, ("f8", "f4")))


class _Arguments:
    """The leaves of a call: arrays that become inputs, the ones to differentiate by, and static values."""

    def __init__(self, replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        chosen: dict[int, list[int]] = {}  # the arguments to differentiate by, each with its leaves among the inputs
        complex_chosen: dict[int, list[bool]] = {}
        inputs = 0
        for k in replay.argnums:
            position = k + len(args) if k < 0 else k
            if not 0 <= position < len(args):
                raise InvalidInputError(
                    f"{replay.verb} of {replay.name} is by argument {k}, but the call has {len(args)} positional "
                    f"argument{'s' * (len(args) != 1)}"
                )
            chosen[position], complex_chosen[position] = [], []
        self.leaves: list[Any] = []
        self.input_at: list[int] = []  # which leaves are arrays
        self.turned = False  # whether some array has its axes in memory in another order than C's
        key: list[Any] = []
        structures: list[Any] = []
        for position, argument in enumerate((*args, kwargs)):
            leaves, tree = trees.flatten(argument)
            structures.append(tree)
            if all([type(leaf) is np.ndarray and leaf.dtype in REAL for leaf in leaves]):
                # Trees of real arrays, which parameters are, without a look at each leaf for all that it might be.
                if position in chosen:
                    complex_chosen[position] += [False] * len(leaves)
                    chosen[position] += range(inputs, inputs + len(leaves))
                self.input_at += range(len(self.leaves), len(self.leaves) + len(leaves))
                inputs += len(leaves)
                key += [
                    (leaf.shape, leaf.dtype) if leaf.flags.c_contiguous else self._signature(leaf) for leaf in leaves
                ]
                self.leaves += leaves
                continue
            for place, leaf in enumerate(leaves):
                if position in chosen:
                    leaf = _differentiable(leaf, replay, position, tree, place)
                    complex_chosen[position].append(is_complex(leaf))
                    chosen[position] += [inputs, inputs + 1] if is_complex(leaf) else [inputs]
                if is_array(leaf):
                    self.input_at.append(len(self.leaves))
                    inputs += 2 if is_complex(leaf) else 1
                    signature = self._signature(leaf)
                    kind = "number" if _is_number(leaf) else "complex" if is_complex(leaf) else None
                    key.append(signature if kind is None else (kind, *signature))
                else:
                    key.append(_static_key(leaf))
                self.leaves.append(leaf)
        self.structures = structures
        self.counts = [tree.num_leaves for tree in structures]
        self.wanted = tuple(leaf for k in replay.argnums for leaf in chosen[k % len(args)])
        self.complex_wanted = tuple(flag for k in replay.argnums for flag in complex_chosen[k % len(args)])
        each = [structures[k % len(args)] for k in replay.argnums]
        self.wanted_tree = each[0] if replay.single else trees.tuple_of(each)
        first = structures[0] if structures else None
        if len(args) == 1 and not kwargs and first is not None and first.is_leaf() and is_array(self.leaves[0]):
            self.key: Any = key[0]
        else:
            self.key = (tuple(structures), tuple(key))

    def arrays(self) -> list[Any]:
        """One array for each input: two, the parts, for a complex leaf."""
        leaves = [self.leaves[k] for k in self.input_at]
        if all([type(leaf) is np.ndarray and leaf.dtype in REAL for leaf in leaves]):
            return leaves
        return [part for leaf in leaves for part in (parts(leaf) if is_complex(leaf) else (leaf,))]

    def _signature(self, leaf: Any) -> tuple[Any, ...]:
        """Shape and dtype, and the order of the axes in memory where it is not C's: ``ravel(order="K")`` reads it."""
        shape, dtype = np.shape(leaf), _dtype(leaf)
        if isinstance(leaf, np.ndarray) and leaf.ndim > 1 and not leaf.flags.c_contiguous:
            strides = [abs(s) for s, n in zip(leaf.strides, shape, strict=True) if n > 1]
            if strides != sorted(strides, reverse=True):
                self.turned = True
                return shape, dtype, tuple(np.argsort([-s for s in strides], kind="stable").tolist())
        return shape, dtype

    def given(self) -> list[Array]:
        """The concrete arrays as they are in memory, for a recording."""
        # Not ``.value``: that would be a look, guarded.
        return [leaf if type(leaf) is np.ndarray else np.asarray(raw(leaf)) for leaf in self.arrays()]

    def values(self) -> list[Array]:
        """The concrete arrays, C-contiguous."""
        return [value if value.flags.c_contiguous else np.ascontiguousarray(value) for value in self.given()]

    def rebuild(self, variables: Sequence[Variable]) -> tuple[list[Any], dict[str, Any]]:
        leaves = list(self.leaves)
        rest = iter(variables)
        for k in self.input_at:
            parts = [next(rest), next(rest)] if is_complex(leaves[k]) else [next(rest)]
            if _is_number(leaves[k]):
                for part in parts:  # what is no array in the program is none when it is recorded
                    part._value = part._value[()]
            leaves[k] = ComplexVariable(*parts) if len(parts) == 2 else parts[0]
        groups: list[Any] = []
        start = 0
        for tree, count in zip(self.structures, self.counts, strict=True):
            groups.append(trees.unflatten(tree, leaves[start : start + count]))
            start += count
        keywords: dict[str, Any] = groups[-1]
        return list(groups[:-1]), keywords


def parts(leaf: Any) -> tuple[Any, Any]:
    """The real and the imaginary part of a complex leaf, as Variables or arrays."""
    if isinstance(leaf, ComplexVariable):
        return leaf.real, leaf.imag
    array = np.asarray(leaf)
    return np.array(array.real, order="K"), np.array(array.imag, order="K")


def is_array(leaf: Any) -> bool:
    """Whether a leaf of the arguments becomes an input (the others are static)."""
    if isinstance(leaf, (bool, int, str, bytes)):
        return False
    if isinstance(leaf, (Variable, ComplexVariable)):
        return True
    if isinstance(leaf, (float, complex, np.ndarray, np.generic)):
        return np.asarray(leaf).dtype.kind in "fbiuc"
    return False


def _is_number(leaf: Any) -> bool:
    """Whether a leaf that becomes an input is a number, such as 2.0 or ``x[0]``, and no array of no axes."""
    number = raw(leaf._re if type(leaf) is ComplexVariable else leaf)
    return not issubclass(type(number), np.ndarray)


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.asarray(leaf).dtype


def _static_key(leaf: Any) -> Any:
    try:
        hash(leaf)
    except TypeError:
        return ("object", _Held(leaf))
    return (type(leaf), leaf)


class _Held:
    """An unhashable static argument, equal to itself alone."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and other.value is self.value


_DIFFERENTIABLE = tuple(map(np.dtype, ("f8", "f4", "c16", "c8")))


def _refusal(what: str, verb: str) -> str:
    return (
        f"{what}, which {verb} does not take; jacana.real_form(f) is the same function of real numbers "
        "(docs/complex.md)"
    )


def _argument_name(function: Callable[..., Any], position: int) -> str:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return f"argument {position}" + (f" ({names[position]!r})" if position < len(names) else "")


def _differentiable(leaf: Any, replay: Replay, position: int, tree: Any, place: int) -> Any:
    name = _argument_name(replay.function, position) + trees.leaf_name(tree, place)
    where = f"{replay.verb} of {replay.name}: {name}"
    if isinstance(leaf, (Variable, ComplexVariable)):
        dtype = leaf.dtype
    elif isinstance(leaf, np.ma.MaskedArray) or (isinstance(leaf, np.ndarray) and type(leaf) is not np.ndarray):
        raise InvalidInputError(f"{where} is a {type(leaf).__name__}; give a plain array, np.asarray(...)")
    elif isinstance(leaf, (bool, int, float, complex, np.ndarray, np.generic)):
        dtype = np.asarray(leaf).dtype
    else:
        raise InvalidInputError(f"{where} contains a {type(leaf).__name__}; only arrays and floats have a derivative")
    if dtype.kind in "iub":
        raise InvalidInputError(
            f"{where} has dtype {dtype.name}, and there is no derivative by integers; convert it with .astype(float)"
        )
    if dtype.kind == "c" and not replay.takes_complex:
        raise InvalidInputError(_refusal(f"{where} is complex", replay.verb))
    if dtype not in _DIFFERENTIABLE:
        raise InvalidInputError(f"{where} has dtype {dtype}; float64, float32, complex128 and complex64 are supported")
    if isinstance(leaf, complex) and not isinstance(leaf, np.generic):
        return np.complex128(leaf)
    return np.float64(leaf) if isinstance(leaf, float) and not isinstance(leaf, np.generic) else leaf

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
from .graph.node import Array, Node, literal, substitute_nodes
from .graph.ops.reduction import AxesParams, reduce_all
from .graph.rolling import roll
from .record import Recording, Variable, as_node, current_recording, leaf_value, record, wrap_node
from .run import Compiled, Origin, Program, check_compilable, compile_numpy

MAX_PATHS = 32  # recordings kept for one signature; the least recently used goes first
MAX_SIGNATURES = 256


@dataclass(frozen=True)
class Traced:
    """What a build step gets: the argument leaves to differentiate by, all argument leaves, and the results."""

    inputs: tuple[Node, ...]
    wanted: tuple[int, ...]
    wanted_tree: Any
    outputs: tuple[Node, ...]
    output_tree: Any
    name: str

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


class _Path:
    """One recording, ready to be replayed."""

    __slots__ = ("compiled", "direct", "finish", "free", "guarded", "plain", "watches")

    def __init__(self, recording: Recording, traced: Traced, built: Built, native: bool) -> None:
        self.watches = recording.watches
        self.finish = built.finish
        check = guard_node(recording.guards)
        self.guarded = check is not None
        checks = () if check is None else (check,)
        roots = (*(built.nodes if built.how is None else traced.outputs), *checks)
        self.free = free = Program(recording.inputs, roots).free_inputs()
        self.plain = not free and not self.guarded
        self.direct = self.plain and built.plain  # whether nothing remains to be done when the program has run
        inputs = (*recording.inputs, *free)
        origin = None if built.how is None else Origin(inputs, roots, f"{built.how} {traced.wanted} {self.guarded}")
        self.compiled = Compiled(lambda: Program(inputs, (*built.nodes, *checks)), native, origin)

    def run(self, values: Sequence[Array]) -> list[Array] | None:
        """The arrays of the built nodes, or None where a guard says that this is another path."""
        if self.free:
            values = [*values, *(np.ascontiguousarray(leaf_value(node)) for node in self.free)]
        if not self.guarded:
            return self.compiled(values)
        try:
            results = self.compiled(values)
        except InvalidInputError:
            raise  # not of the program: the executor cannot be had
        except Exception:
            return None  # an error on a path that may not be the right one: record again and let it speak there
        return results if results.pop() else None


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
        argnums: int | Sequence[int] | None,
        verb: str,
        native: bool = False,
    ) -> None:
        """``argnums``: None if nothing is differentiated. ``native``: compile at the first call."""
        if not callable(function):
            raise InvalidInputError(f"{verb} takes a function, not {type(function).__name__}")
        if native:
            check_compilable("jacana.compile" if verb == "compile" else f"{verb}(..., compile=True)")
        self.native = native
        self.function, self.build, self.verb = function, build, verb
        self.watched = function  # the code whose outside state a recording depends on
        self.single = isinstance(argnums, (int, np.integer))
        chosen = () if argnums is None else argnums
        self.argnums = (int(chosen),) if isinstance(chosen, (int, np.integer)) else tuple(chosen)
        if (argnums is not None and not self.argnums) or not all(
            isinstance(k, (int, np.integer)) for k in self.argnums
        ):
            raise InvalidInputError(f"argnums must be an integer or a sequence of integers, not {argnums!r}")
        self._paths: OrderedDict[Any, list[_Path]] = OrderedDict()
        self._lock = threading.RLock()
        # The last path, if it is one builtin: for which executor, the builtin, and whether the path still holds.
        self.shortest: tuple[str, Callable[[Any], Any], Callable[[], bool]] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_paths", "_lock", "shortest")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._paths, self._lock, self.shortest = OrderedDict(), threading.RLock(), None

    def __call__(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if len(args) == 1 and not kwargs and type(args[0]) is np.ndarray:
            # The common call, without a tree to flatten: microseconds count here.
            x = args[0]
            known = self._paths.get((x.shape, x.dtype))
            if known:
                path = known[-1]
                if path.watches.unchanged():
                    if path.direct:
                        builtin = path.compiled.direct()
                        self.shortest = None if builtin is None else (*builtin, path.watches.unchanged)
                    values = (x if x.flags.c_contiguous else np.ascontiguousarray(x),)
                    results = path.compiled(values) if path.plain else path.run(values)
                    if results is not None:
                        return path.finish(results)
        return self._general(args, kwargs)

    def _general(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        arguments = _Arguments(self, args, kwargs)
        if any(isinstance(leaf, Variable) for leaf in arguments.leaves):
            return self._inline(arguments)
        values = arguments.values()
        with self._lock:
            paths = self._paths.get(arguments.key)
            candidates = list(reversed(paths)) if paths else []
        for path in candidates:
            if not path.watches.unchanged():
                with self._lock:
                    if path in self._paths.get(arguments.key, ()):
                        self._paths[arguments.key].remove(path)
                continue
            results = path.run(values)
            if results is not None:
                with self._lock:
                    paths = self._paths.setdefault(arguments.key, [])
                    if path in paths and paths[-1] is not path:
                        paths.remove(path)
                        paths.append(path)
                return path.finish(results)
        recording, traced = self._record(arguments, values)
        built = self.build(traced)
        path = _Path(recording, traced, built, self.native)
        results = path.run(values)
        if results is None:
            # The recording's own guards do not hold on its own input: the function is not a function of its arguments
            # (random numbers, a clock) or compares NaNs. The answer of this call is right; it is not kept.
            program = Program((*recording.inputs, *path.free), tuple(built.nodes))
            free = [np.ascontiguousarray(leaf_value(node)) for node in path.free]
            return built.finish(compile_numpy(program)([*values, *free]))
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
        return self._record(arguments, arguments.values())

    def program(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Program:
        """The program that a call with these arguments runs, guards included."""
        recording, traced = self.trace(args, kwargs)
        check = guard_node(recording.guards)
        outputs = (*self.build(traced).nodes, *(() if check is None else (check,)))
        return Program((*recording.inputs, *Program(recording.inputs, outputs).free_inputs()), outputs)

    def _record(self, arguments: _Arguments, values: Sequence[Array]) -> tuple[Recording, Traced]:
        def unpacked(_: Any, *variables: Variable) -> Any:
            positional, keywords = arguments.rebuild(variables)
            return self.function(*positional, **keywords)

        recording = record(self.watched, values, wrap=unpacked)
        outputs, tree = trees.flatten(recording.result)
        if trees.has_none(recording.result):
            raise InvalidInputError(
                f"{self.name} returned None where an array was expected; does it end with a return statement?"
            )
        nodes = tuple(roll([self._output_node(leaf) for leaf in outputs]))
        traced = Traced(recording.inputs, arguments.wanted, arguments.wanted_tree, nodes, tree, self.name)
        return recording, traced

    @property
    def name(self) -> str:
        """The user's name for the function."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    def _output_node(self, leaf: Any) -> Node:
        if isinstance(leaf, (str, bytes)):
            raise InvalidInputError(f"{self.name} returned {type(leaf).__name__} where an array was expected")
        return as_node(leaf)

    def _inline(self, arguments: _Arguments) -> Any:
        """Inside another recorded function, or on Variables: the derivative becomes part of the outer program."""
        values = arguments.values()
        recording, traced = self._record(arguments, values)
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
        results = run([*values, *(np.ascontiguousarray(leaf_value(node)) for node in free)])
        moved = substitute_nodes([*built.nodes, *guard_nodes], dict(mapping))
        outer = current_recording()
        if outer is not None:
            outer.watches.include(recording.watches)
            for node, (_, value) in zip(moved[len(built.nodes) :], recording.guards, strict=True):
                outer.guard(node, value)
        variables = [wrap_node(node, value) for node, value in zip(moved, results, strict=False)]
        return built.finish(variables)


class _Arguments:
    """The leaves of a call: arrays that become inputs, the ones to differentiate by, and static values."""

    def __init__(self, replay: Replay, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        chosen: dict[int, list[int]] = {}  # the arguments to differentiate by, each with its leaves among the inputs
        for k in replay.argnums:
            position = k + len(args) if k < 0 else k
            if not 0 <= position < len(args):
                raise InvalidInputError(
                    f"{replay.verb} of {replay.name} is by argument {k}, but the call has {len(args)} positional "
                    f"argument{'s' * (len(args) != 1)}"
                )
            chosen[position] = []
        self.leaves: list[Any] = []
        self.input_at: list[int] = []  # which leaves are arrays
        key: list[Any] = []
        structures: list[Any] = []
        for position, argument in enumerate((*args, kwargs)):
            leaves, tree = trees.flatten(argument)
            structures.append(tree)
            for place, leaf in enumerate(leaves):
                if position in chosen:
                    leaf = _differentiable(leaf, replay, position, tree, place)
                    chosen[position].append(len(self.input_at))
                if _is_array(leaf):
                    self.input_at.append(len(self.leaves))
                    key.append((np.shape(leaf), _dtype(leaf)))
                else:
                    key.append(_static_key(leaf))
                self.leaves.append(leaf)
        self.structures = structures
        self.counts = [tree.num_leaves for tree in structures]
        self.wanted = tuple(leaf for k in replay.argnums for leaf in chosen[k % len(args)])
        each = [structures[k % len(args)] for k in replay.argnums]
        self.wanted_tree = each[0] if replay.single else trees.tuple_of(each)
        first = structures[0] if structures else None
        if len(args) == 1 and not kwargs and first is not None and first.is_leaf() and _is_array(self.leaves[0]):
            self.key: Any = key[0]
        else:
            self.key = (tuple(structures), tuple(key))

    def arrays(self) -> list[Any]:
        return [self.leaves[k] for k in self.input_at]

    def values(self) -> list[Array]:
        """The concrete arrays, C-contiguous."""
        result = []
        for leaf in self.arrays():
            value = leaf.value if isinstance(leaf, Variable) else np.asarray(leaf)
            result.append(value if value.flags.c_contiguous else np.ascontiguousarray(value))
        return result

    def rebuild(self, variables: Sequence[Variable]) -> tuple[list[Any], dict[str, Any]]:
        leaves = list(self.leaves)
        for k, variable in zip(self.input_at, variables, strict=True):
            leaves[k] = variable
        parts: list[Any] = []
        start = 0
        for tree, count in zip(self.structures, self.counts, strict=True):
            parts.append(trees.unflatten(tree, leaves[start : start + count]))
            start += count
        keywords: dict[str, Any] = parts[-1]
        return list(parts[:-1]), keywords


def _is_array(leaf: Any) -> bool:
    if isinstance(leaf, (bool, int, str, bytes)):
        return False
    if isinstance(leaf, Variable):
        return True
    if isinstance(leaf, (float, np.ndarray, np.generic)):
        return np.asarray(leaf).dtype.kind in "fbiu"
    return False


def _dtype(leaf: Any) -> Any:
    return leaf.dtype if hasattr(leaf, "dtype") else np.dtype("f8")


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


def _argument_name(function: Callable[..., Any], position: int) -> str:
    try:
        names = list(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        names = []
    return f"argument {position}" + (f" ({names[position]!r})" if position < len(names) else "")


def _differentiable(leaf: Any, replay: Replay, position: int, tree: Any, place: int) -> Any:
    name = _argument_name(replay.function, position) + trees.leaf_name(tree, place)
    where = f"{replay.verb} of {replay.name}: {name}"
    if isinstance(leaf, Variable):
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
    if dtype.kind == "c":
        raise InvalidInputError(f"{where} is complex, which is not supported yet; pass real and imaginary part apart")
    if dtype.kind != "f" or dtype.itemsize not in (4, 8):
        raise InvalidInputError(f"{where} has dtype {dtype}; float64 and float32 are supported")
    return np.float64(leaf) if isinstance(leaf, float) and not isinstance(leaf, np.generic) else leaf

"""``vmap``: a function of one sample, called with many."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import trees
from .errors import InvalidInputError, UnsupportedOperationError
from .graph.batching import NotBatchedError, batched
from .graph.node import Array, Node, new_input, substitute_nodes
from .record import ComplexVariable, Variable, as_node, current_recording, is_complex, leaf_value, wrap_node
from .record.complex import plain
from .record.location import Lines
from .record.recording import Recording, with_room
from .replay import Built, Replay, Traced, guard_node, is_array, parts, whole_leaves
from .run import Program, compile_numpy
from .transforms import Transformed

__all__ = ["vmap"]

MAX_PATHS = 64  # ways through the function that the samples of one call may take


class _PathsDifferError(Exception):
    """Some samples take another way through the function than the first one."""

    def __init__(self, same: Array) -> None:
        super().__init__("samples take different ways")
        self.same = same


def _values(traced: Traced) -> Built:
    return Built(list(traced.outputs), traced.value)


def vmap(function: Callable[..., Any], in_axes: Any = 0, out_axes: int = 0, *, compile: bool = False) -> Transformed:
    """``function`` of one sample made a function of a batch of samples, computed at once rather than one by one.

    Args:
        function: plain NumPy code for one sample; arrays or pytrees of arrays in and out. It may be a transform, such
            as ``jacobian(f)``.
        in_axes: the batch axis of each positional argument: one integer for all, or a sequence with an integer or None
            (the same for every sample) for each argument; instead of an integer also a pytree of them that matches the
            argument. Keyword arguments are the same for every sample.
        out_axes: the batch axis of every result.
        compile: make machine code at the first call; see :func:`jacana.compile`.

    Returns:
        A function of the same arguments, each with its batch axis. It can be transformed in turn:
        ``jacobian(vmap(f), format="blocks")`` has the Jacobian of each sample.

    Raises:
        InvalidInputError: batch axes that are missing or differ in length; an empty batch; inside another recorded
            function, samples that take different branches (use ``np.where`` there).
        UnsupportedOperationError: an operation that cannot be carried out on a batch; the message names its line.

    Loops and branches (:func:`scan`, :func:`while_loop`, :func:`cond`) run for all samples together, each for as long,
    and on the branch, that it takes. Where the function looks at values (``if x[0] > 0``), the samples of a call are
    sorted by the way they take.

    >>> import numpy as np
    >>> import jacana as jc
    >>> def area(triangle):
    ...     a, b, c = triangle
    ...     return 0.5 * abs((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))
    >>> triangles = np.array([[[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]], [[0.0, 0.0], [4.0, 0.0], [0.0, 2.0]]])
    >>> jc.vmap(area)(triangles)
    array([0.5, 4. ])
    >>> jc.vmap(jc.grad(area))(triangles).shape
    (2, 3, 2)
    """
    sample = Replay(function, _values, (), "vmap", takes_complex=True)
    return _Mapped(_Batch(sample, in_axes, out_axes), compile)


class _Mapped(Transformed):
    """The batched function with its recordings; samples that take different ways are computed apart."""

    def __init__(self, batch: _Batch, compile: bool) -> None:
        super().__init__(batch, _values, (), "vmap", compile, takes_complex=True)
        self._batch = batch
        functools.update_wrapper(self, batch.sample.function, updated=())
        self._replay.watched = batch.sample.function

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return self._replay(args, kwargs)
        except _PathsDifferError:
            leaves = trees.flatten((args, kwargs))[0]
            if any(isinstance(leaf, (Variable, ComplexVariable)) for leaf in leaves):
                raise InvalidInputError(
                    f"vmap of {self._replay.name}: the samples take different branches, which cannot become one "
                    "recorded program; write the choice with np.where"
                ) from None
            return self._sorted(args, kwargs)

    def _sorted(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Each group of samples by its own way, put together again in the order of the samples."""
        waiting = [np.arange(self._batch.count(args))]
        done: list[Array] = []
        parts: list[list[Any]] = []
        tree: Any = None
        while waiting:
            places = waiting.pop()
            try:
                leaves, tree = trees.flatten(self._replay(self._batch.taken(args, places), kwargs))
            except _PathsDifferError as differ:
                if len(waiting) + len(done) > MAX_PATHS:
                    raise InvalidInputError(
                        f"vmap of {self._replay.name}: the samples take more than {MAX_PATHS} ways through the "
                        "function; write the choice with np.where, or call it sample by sample"
                    ) from None
                waiting += [places[~differ.same], places[differ.same]]
            else:
                done.append(places)
                parts.append(leaves)
        order = np.argsort(np.concatenate(done))
        axis = self._batch.out_axes
        joined = [np.take(np.concatenate(pieces, axis=axis), order, axis=axis) for pieces in zip(*parts, strict=True)]
        return trees.unflatten(tree, joined)


class _Batch:
    """The function of a batch, to be run on Variables: one sample is recorded, and its program widened."""

    def __init__(self, sample: Replay, in_axes: Any, out_axes: int) -> None:
        self.sample, self.in_axes, self.out_axes = sample, in_axes, out_axes
        self.__name__ = sample.name

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        axes = self._axes(args)
        count = self._count(args, axes)
        leaves, tree = trees.flatten(args)
        moved = [leaf if k is None else np.moveaxis(leaf, k, 0) for leaf, k in zip(leaves, axes, strict=True)]
        first = [m if k is None else np.array(_number(m)[0]) for m, k in zip(moved, axes, strict=True)]
        sample = trees.unflatten(tree, first)
        given = [m for m, k in zip(moved, axes, strict=True) if k is not None or is_array(m)]
        given += [leaf for leaf in trees.flatten(kwargs)[0] if is_array(leaf)]
        given = [part for m in given for part in (parts(m) if is_complex(m) else (m,))]
        numbers = [np.asarray(_number(m), order="C") for m in given]
        inputs = [new_input(value.shape, value.dtype) for value in numbers]
        room = 0
        while True:
            with with_room(room):
                recording, traced = self.sample.trace(sample, kwargs)
            guard = guard_node(recording.guards)
            looks = [] if guard is None else [guard]
            sources = [*traced.outputs, *looks, *recording.counts]
            nodes = self._widened(recording, sources, inputs, count, sample, kwargs)
            values = _evaluated(nodes, inputs, numbers)
            last = len(traced.outputs) + len(looks)
            if not looks or values[last - 1].all():
                break
            steps = max((int(v.max()) for v in values[last:]), default=0)
            if steps <= room:
                raise _PathsDifferError(values[last - 1])
            room = steps  # a loop takes more of them in some sample than in the first
        nodes = substitute_nodes(nodes, {i: as_node(m) for i, m in zip(inputs, given, strict=True)})
        outer = current_recording()
        if outer is not None:
            outer.watches.include(recording.watches)
            outer.counts.extend(nodes[last:])
            if guard is not None:
                outer.guard(nodes[last - 1], values[last - 1])
        results: list[Any] = [wrap_node(node, value) for node, value in zip(nodes, values, strict=True)]
        moved = [
            np.moveaxis(v, 0, self.out_axes)
            for v in whole_leaves(results[: len(traced.outputs)], traced.complex_outputs)
        ]
        return trees.unflatten(traced.output_tree, moved)

    def _widened(
        self, recording: Recording, sources: Sequence[Node], inputs: list[Node], count: int, sample: Any, kwargs: Any
    ) -> list[Node]:
        """The program of a sample for all of them; an operation that has no batch is named with its line."""
        try:
            return batched(sources, dict(zip(recording.inputs, inputs, strict=True)), count)
        except NotBatchedError as error:
            lines = Lines()
            with lines.watching():
                again, traced = self.sample.trace(sample, kwargs)
            try:
                batched(traced.outputs, dict(zip(again.inputs, inputs, strict=True)), count)
            except NotBatchedError as found:
                raise UnsupportedOperationError(f"{error}{lines.told(found.node)}") from None
            raise

    def _axes(self, args: tuple[Any, ...]) -> list[int | None]:
        """The batch axis of every leaf of the positional arguments."""
        each = self.in_axes
        if each is None or isinstance(each, (int, np.integer)):
            each = [each] * len(args)
        if not isinstance(each, (tuple, list)) or len(each) != len(args):
            raise InvalidInputError(
                f"vmap of {self.sample.name}: in_axes must be an integer or have one entry for each of the {len(args)} "
                f"positional arguments, not {self.in_axes!r}"
            )
        found: list[int | None] = []
        for argument, wanted in zip(args, each, strict=True):
            leaves = trees.flatten(argument)[0]
            if wanted is None or isinstance(wanted, (int, np.integer)):
                found += [None if wanted is None else int(wanted)] * len(leaves)
                continue
            chosen = trees.leaves_and_nones(wanted)
            if len(chosen) != len(leaves):
                raise InvalidInputError(
                    f"vmap of {self.sample.name}: in_axes {wanted!r} does not match an argument of {len(leaves)} arrays"
                )
            found += chosen
        return found

    def _count(self, args: tuple[Any, ...], axes: Sequence[int | None]) -> int:
        lengths: dict[int, str] = {}
        for leaf, k in zip(trees.flatten(args)[0], axes, strict=True):
            if k is None:
                continue
            shape = np.shape(leaf)
            if not -len(shape) <= k < len(shape):
                raise InvalidInputError(
                    f"vmap of {self.sample.name}: an argument of shape {shape} has no batch axis {k}; say with in_axes "
                    "which arguments are the same for every sample"
                )
            lengths.setdefault(shape[k], f"{shape}")
        if not lengths:
            raise InvalidInputError(f"vmap of {self.sample.name}: no argument has a batch axis; call it without vmap")
        if len(lengths) > 1:
            told = " and ".join(f"{n} (shape {shape})" for n, shape in lengths.items())
            raise InvalidInputError(f"vmap of {self.sample.name}: the batch axes differ in length: {told}")
        (count,) = lengths
        if count == 0:
            raise InvalidInputError(f"vmap of {self.sample.name}: the batch is empty, so there is no sample to record")
        return count

    def count(self, args: tuple[Any, ...]) -> int:
        """The number of samples."""
        return self._count(args, self._axes(args))

    def taken(self, args: tuple[Any, ...], places: Array) -> tuple[Any, ...]:
        """The arguments with some of the samples only."""
        leaves, tree = trees.flatten(args)
        axes = self._axes(args)
        chosen = [x if k is None else np.take(x, places, axis=k) for x, k in zip(leaves, axes, strict=True)]
        return tuple(trees.unflatten(tree, chosen))


def _number(leaf: Any) -> Array:
    return np.asarray(plain(leaf))


def _evaluated(nodes: Sequence[Node], inputs: Sequence[Node], numbers: Sequence[Array]) -> list[Array]:
    free = Program(tuple(inputs), tuple(nodes)).free_inputs()
    run = compile_numpy(Program((*inputs, *free), tuple(nodes)))
    return run([*numbers, *(np.asarray(leaf_value(node), order="C") for node in free)])

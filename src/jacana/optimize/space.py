"""The space that a search moves in: which parameters are free, within which bounds, tied to which others, on what.

The residual sees all parameters; a search sees a vector x and steps. Without manifolds, x holds the free parameters
and a step is added to it. With manifolds x holds everything, and a step moves each manifold along its tangents.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..errors import InvalidInputError
from .manifolds import Manifold
from .parameters import FloatVector, Parameters, flatten_parameters

__all__ = ["Space", "make_space", "sides_of"]

Float64Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Space:
    """See the module.

    Attributes:
        parameters: structure, shapes and names of all parameters.
        start: all parameters, flat, shape (N,).
        free: positions in `start` of the parameters that a step moves directly, in rising order.
        tied: positions and function of each tie: the parameters there are what the function says of the others.
        manifolds: position of the first number, shape and manifold of each leaf that is on one.
        lower, upper: bounds of the free parameters, None where there is none at all.
    """

    parameters: Parameters
    start: FloatVector
    free: NDArray[np.int_]
    tied: tuple[tuple[NDArray[np.int_], Callable[[Any], Any]], ...] = ()
    manifolds: tuple[tuple[int, tuple[int, ...], type[Manifold]], ...] = ()
    lower: FloatVector | None = None
    upper: FloatVector | None = None
    names: tuple[str, ...] = field(default=())

    @property
    def plain(self) -> bool:
        """Whether x is simply all parameters."""
        return self.free.size == self.start.size and not self.curved

    @property
    def curved(self) -> bool:
        """Whether there are manifolds."""
        return bool(self.manifolds)

    @property
    def first(self) -> FloatVector:
        """x at the start."""
        return self.start.copy() if self.curved else self.start[self.free]

    @property
    def size(self) -> int:
        """Numbers in a step, n."""
        return self.free.size + sum(self._tangents(k) for k in range(len(self.manifolds)))

    def full(self, x: Any) -> Any:
        """Return all parameters, flat, for x; both may be recorded Variables."""
        if self.curved or self.plain:
            return x
        # One gather from what is free and what is not: a recording follows it, and sees which derivatives are zero.
        held = np.ones(self.start.size, dtype=bool)
        held[self.free] = False
        source = np.empty(self.start.size, dtype=np.intp)
        source[self.free] = np.arange(self.free.size)
        source[held] = self.free.size + np.arange(int(held.sum()))
        return self._with_ties(np.concatenate((x, self.start[held]))[source])

    def unravel(self, x: Any) -> Any:
        """Return the user's structure for x."""
        return self.parameters.unravel(self.full(x))

    def _with_ties(self, whole: Any) -> Any:
        for positions, function in self.tied:
            value = function(self.parameters.unravel(whole))
            whole[positions] = np.ravel(value) if np.ndim(value) else value
        return whole

    # ---- manifolds ----

    def frames(self, x: NDArray[Any]) -> list[Float64Array]:
        """Return the tangent bases of the manifolds at x, each of shape (points, numbers, t)."""
        result = []
        for offset, shape, kind in self.manifolds:
            frame = kind.frame(x[offset : offset + math.prod(shape)].reshape(shape))
            points = math.prod(shape[: len(shape) - kind.point_rank])
            result.append(frame.reshape(points, -1, frame.shape[-1]))
        return result

    def along(self, step: Any, x: Any, *frames: Any) -> Any:
        """Return all parameters for a small step from x, right to first order; recordable."""
        whole = x + 0.0
        whole[self.free] += step[: self.free.size]
        start = self.free.size
        for k, (offset, _, _) in enumerate(self.manifolds):
            stop = start + self._tangents(k)
            points, numbers, t = frames[k].shape
            moved = np.einsum("pit,pt->pi", frames[k], step[start:stop].reshape(points, t))
            whole[offset : offset + points * numbers] += np.ravel(moved)
            start = stop
        return self._with_ties(whole)

    def moved(self, x: NDArray[Any], step: NDArray[Any]) -> FloatVector:
        """Return x after a step along the manifolds."""
        whole = x.copy()
        whole[self.free] += step[: self.free.size]
        start = self.free.size
        for k, (offset, shape, kind) in enumerate(self.manifolds):
            stop = start + self._tangents(k)
            stack = shape[: len(shape) - kind.point_rank]
            tangent = step[start:stop].reshape(*stack, -1)
            size = math.prod(shape)
            whole[offset : offset + size] = kind.retract(whole[offset : offset + size].reshape(shape), tangent).ravel()
            start = stop
        return np.asarray(self._with_ties(whole))

    def magnitude(self, x: FloatVector) -> FloatVector:
        """Return the sizes of the parameters in units of steps: a tangent counts as 1."""
        return np.concatenate((np.abs(x[self.free]), np.ones(self.size - self.free.size)))

    def _tangents(self, k: int) -> int:
        _, shape, kind = self.manifolds[k]
        point = shape[len(shape) - kind.point_rank :]
        frame = kind.frame(kind.projected(_any_point(kind, point)))
        return math.prod(shape[: len(shape) - kind.point_rank]) * int(frame.shape[-1])


def _any_point(kind: type[Manifold], shape: tuple[int, ...]) -> Float64Array:
    return np.eye(shape[0]) if kind.point_rank == 2 else np.ones(shape)


def make_space(
    x0: Any,
    *,
    fixed: Any = None,
    bounds: Any = None,
    ties: Mapping[Any, Callable[[Any], Any]] | None = None,
    label: str = "x0",
) -> Space:
    """Return the space for the arguments of `least_squares`, checked.

    Raises:
        InvalidInputError: see `jacana.least_squares`.
    """
    value, kinds = _without_manifolds(x0)
    parameters, start = flatten_parameters(value, label)
    if fixed is None and bounds is None and not ties and not kinds:
        return Space(parameters, start, np.arange(start.size))
    sizes = [math.prod(shape) for shape in parameters.shapes]
    offsets = np.concatenate(([0], np.cumsum(sizes)))
    manifolds = tuple((int(offsets[k]), parameters.shapes[k], kind) for k, kind in sorted(kinds.items()))
    free = np.ones(start.size, dtype=bool)
    for offset, shape, _ in manifolds:
        free[offset : offset + math.prod(shape)] = False
    euclidean = free.copy()
    held = _fixed_mask(fixed, parameters, start.size)
    kept = []
    for offset, shape, kind in manifolds:
        part = held[offset : offset + math.prod(shape)]
        if part.any() and not part.all():
            raise InvalidInputError(f"{parameters.name(offset)} is on a manifold and can only be fixed as a whole")
        if not part.any():
            kept.append((offset, shape, kind))
    free &= ~held
    tied = []
    for key, function in (ties or {}).items():
        positions = entries(parameters, key)
        if not free[positions].all():
            raise InvalidInputError(f"the parameter {key!r} cannot be tied: it is fixed, tied already or on a manifold")
        free[positions] = False
        tied.append((positions, function))
    lower = upper = None
    if bounds is not None:
        if manifolds:
            raise InvalidInputError(
                "bounds cannot be combined with parameters on manifolds; use Positive for numbers above 0"
            )
        low, high = _bounds(bounds, parameters, start.size)
        for positions, _ in tied:
            for k in positions[np.isfinite(low[positions]) | np.isfinite(high[positions])]:
                raise InvalidInputError(
                    f"{parameters.name(int(k))} is tied, so bounds cannot hold it; give bounds by name, to what it is "
                    f"tied to"
                )
        _check_bounds(low, high, start, free & euclidean, parameters)
        equal = (low == high) & free
        start[equal] = low[equal]
        free &= ~equal
        positions = np.flatnonzero(free)
        if np.isfinite(low[free]).any() or np.isfinite(high[free]).any():
            lower, upper = low[positions], high[positions]
    positions = np.flatnonzero(free)
    space = Space(parameters, start, positions, tuple(tied), tuple(kept), lower, upper)
    if space.size == 0:
        raise InvalidInputError(f"every parameter of {label} is fixed, so there is nothing to fit")
    if tied:
        # The start has to agree with its ties, and their values with the places that they are for.
        whole = space._with_ties(start.copy())
        if not np.isfinite(whole).all():
            bad = int(np.flatnonzero(~np.isfinite(whole))[0])
            raise InvalidInputError(f"the tie of {parameters.name(bad)} gives {whole[bad]} at the start")
        start[:] = whole
    return space


def names_of(space: Space) -> tuple[str, ...]:
    """Return what the user would call each number of a step."""
    if space.names:
        return space.names
    every = space.parameters.names("x")
    names = [every[k] for k in space.free]
    for k, (offset, _, _) in enumerate(space.manifolds):
        leaf = _leaf_name(space.parameters, offset)
        names.extend(f"{leaf} tangent {t}" for t in range(space._tangents(k)))
    return tuple(names)


def _leaf_name(parameters: Parameters, offset: int) -> str:
    start = 0
    for accessor, shape in zip(parameters.structure.accessors(), parameters.shapes, strict=True):
        if start == offset:
            return str(accessor.codify("x"))
        start += math.prod(shape)
    raise IndexError("no leaf begins there")


def _without_manifolds(x0: Any) -> tuple[Any, dict[int, type[Manifold]]]:
    if isinstance(x0, Manifold):
        return x0.value, {0: type(x0)}
    if isinstance(x0, np.ndarray | float | int):
        return x0, {}
    leaves, structure = trees.flatten(x0)
    kinds = {k: type(leaf) for k, leaf in enumerate(leaves) if isinstance(leaf, Manifold)}
    if not kinds:
        return x0, {}
    plain = [leaf.value if isinstance(leaf, Manifold) else leaf for leaf in leaves]
    return trees.unflatten(structure, plain), kinds


# ---- names -----------------------------------------------------------------------------------------------------------


def entries(parameters: Parameters, key: Any) -> NDArray[np.int_]:
    """Return the flat positions of what `key` names: a key of the outermost container, a path of keys, an index.

    Raises:
        InvalidInputError: there is no such parameter.

    >>> parameters, _ = flatten_parameters({"line": np.zeros((2, 2)), "rate": 1.0})
    >>> entries(parameters, "rate"), entries(parameters, ("line", 1))
    (array([4]), array([2, 3]))
    """
    path = key if isinstance(key, tuple) else (key,)
    found = []
    start = 0
    for leaf, shape in zip(parameters.structure.paths(), parameters.shapes, strict=True):
        size = math.prod(shape)
        positions = np.arange(start, start + size).reshape(shape)
        shared = min(len(leaf), len(path))
        if tuple(leaf[:shared]) == tuple(path[:shared]):
            try:
                found.append(np.ravel(positions[path[shared:]]))
            except (IndexError, TypeError) as error:
                raise _unknown(parameters, key) from error
        start += size
    if not found:
        raise _unknown(parameters, key)
    return np.concatenate(found)


def _unknown(parameters: Parameters, key: Any) -> InvalidInputError:
    names = parameters.names()
    shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
    return InvalidInputError(f"there is no parameter {key!r}; the parameters are {shown}")


def _fixed_mask(fixed: Any, parameters: Parameters, size: int) -> NDArray[np.bool_]:
    mask = np.zeros(size, dtype=bool)
    if fixed is None:
        return mask
    if isinstance(fixed, np.ndarray) and fixed.dtype == np.bool_:
        if fixed.size != size:
            raise InvalidInputError(f"fixed has {fixed.size} entries for {size} parameters")
        return fixed.ravel().copy()
    if isinstance(fixed, str | int) or not isinstance(fixed, Iterable):
        fixed = [fixed]
    for key in fixed:
        mask[entries(parameters, key)] = True
    return mask


def _bounds(bounds: Any, parameters: Parameters, size: int) -> tuple[Float64Array, Float64Array]:
    if isinstance(bounds, Mapping):
        low, high = np.full(size, -math.inf), np.full(size, math.inf)
        for key, (least, most) in bounds.items():
            positions = entries(parameters, key)
            shape = positions.shape
            low[positions] = -math.inf if least is None else np.broadcast_to(np.ravel(least), shape)
            high[positions] = math.inf if most is None else np.broadcast_to(np.ravel(most), shape)
        return low, high
    if hasattr(bounds, "lb"):
        bounds = (bounds.lb, bounds.ub)
    try:
        least, most = bounds
    except (TypeError, ValueError):
        raise InvalidInputError("bounds must be a pair (lower, upper) or a dictionary of pairs by name") from None
    return _side(least, -math.inf, "lower", parameters, size), _side(most, math.inf, "upper", parameters, size)


def sides_of(bounds: Any) -> Any:
    """Return bounds as (lower, upper) where they are a list of tuples (lower, upper), one for each parameter, as
    SciPy's functions for minima take them; else as they are."""
    if isinstance(bounds, list) and bounds and all(isinstance(pair, tuple) and len(pair) == 2 for pair in bounds):
        return [low for low, _ in bounds], [high for _, high in bounds]
    return bounds


def _side(value: Any, default: float, what: str, parameters: Parameters, size: int) -> Float64Array:
    if value is None:
        return np.full(size, default)
    leaves, structure = trees.flatten(value)
    if structure == parameters.structure and not structure.is_leaf():
        parts = [np.broadcast_to(np.asarray(v, dtype=float), s) for v, s in zip(leaves, parameters.shapes, strict=True)]
        return np.concatenate([part.ravel() for part in parts])
    if isinstance(value, list | tuple):
        value = [default if side is None else side for side in value]
    array = np.asarray(value, dtype=np.float64)
    if array.size not in (1, size):
        raise InvalidInputError(f"the {what} bounds have shape {array.shape}, but there are {size} parameters")
    return np.broadcast_to(array.ravel(), (size,)).copy()


def _check_bounds(
    low: Float64Array, high: Float64Array, start: FloatVector, free: NDArray[np.bool_], parameters: Parameters
) -> None:
    for k in np.flatnonzero(~(low <= high)):
        wrong = "not numbers" if np.isnan(low[k]) or np.isnan(high[k]) else "crossed"
        raise InvalidInputError(f"the bounds of {parameters.name(int(k))} are {wrong}: {low[k]} and {high[k]}")
    outside = free & ((start < low) | (start > high)) & (low < high)
    for k in np.flatnonzero(outside):
        raise InvalidInputError(
            f"{parameters.name(int(k))} is {start[k]}, outside its bounds [{low[k]}, {high[k]}]; start inside them"
        )

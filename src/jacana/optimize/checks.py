"""What is refused before a search begins, and what searches do first: say it in the user's names."""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from .. import trees
from ..errors import InvalidInputError
from ..run import current_executor, executor, expecting_runs, native_available
from .norms import dot
from .search import Budget
from .space import Space, names_of

__all__ = [
    "agrees",
    "as_args",
    "check_jacobian",
    "check_limits",
    "check_residual",
    "listed",
    "quick_executor",
    "raveled",
    "refuse_others",
    "watching",
]

_MAX_NAMED = 6  # parameters that a message lists
_ROUNDING = 1e-11  # relative difference of two ways to compute a residual
_SMALL, _GREAT = 1e-200, 1e200  # between these sums of squares have lost nothing to underflow or overflow
_EVALUATIONS = 12  # of a residual and its Jacobian in a search, about
_LARGE = 100_000  # results and parameters from which a search is worth machine code from the start


def watching(transform: Any, *functions: Any) -> Any:
    """Let a transform of a wrapper watch what the user's functions within it read: attributes, globals, closures.

    A transform that is kept for many calls would not notice their changes otherwise.
    """
    first, *others = (function for function in functions if function is not None)
    transform._replay.watched = functools.partial(first, *others) if others else first
    return transform


@contextmanager
def quick_executor(size: int) -> Iterator[None]:
    """Silence NumPy's floating-point warnings, for wild trial points are part of a search; and where residuals and
    parameters are many, compile at once: a search of this size will be worth it, no need to find out."""
    with np.errstate(all="ignore"), expecting_runs(_EVALUATIONS):
        if size > _LARGE and current_executor() == "auto" and native_available():
            with executor("native"):
                yield
        else:
            yield


def same_call(space: Space, args: Sequence[Any], other: Space, others: Sequence[Any]) -> bool:
    """Whether two calls have the same arguments, as objects, and parameters of the same names, shapes and dtype."""
    same = len(args) == len(others) and all(a is b for a, b in zip(args, others, strict=True))
    return same and space.parameters == other.parameters and space.start.dtype == other.start.dtype


def agrees(values: Any, recorded: Any, jacobian: Any, x: Any) -> bool:
    """Whether residuals that the user's function gives at x, and those of its recording, differ by rounding only.

    What a function does to its arguments in plain NumPy (``y.max()``, ``y > 0``) is a number in the recording, which
    does not follow when the arguments change; nothing else says that it is out of date.
    """
    differences = values - recorded
    if differences.ndim == 1 and differences.dtype == values.dtype == np.float64:
        # The largest entry is at most the length of a vector, and at least the length over the root of their number:
        # where this settles it, as it mostly does, inner products take a third of the time.
        square = dot(values, values)
        if _SMALL < square < _GREAT and differences.size * dot(differences, differences) <= _ROUNDING**2 * square:
            return True
    differences = np.abs(differences)
    size = np.abs(values).max(initial=0.0)
    if differences.max(initial=0.0) <= _ROUNDING * size:
        return True
    stored = isinstance(jacobian, np.ndarray) or hasattr(jacobian, "indptr")
    if stored and jacobian.shape[1] == np.size(x):  # small differences of large numbers
        size = max(size, float((abs(jacobian) @ np.abs(x)).max()))
    return bool(differences.max() <= _ROUNDING * size)


_ELSEWHERE = {
    "jac": "derivatives are derived from the function itself, so leave it out",
    "hess": "derivatives are derived from the function itself, so leave it out",
    "hessp": "derivatives are derived from the function itself, so leave it out",
    "jac_sparsity": "the structure of the Jacobian is found, so leave it out",
    "diff_step": "nothing is differenced, so leave it out",
    "workers": "nothing is differenced, so leave it out",
    "tr_solver": "linear_solver names what solves the linear problems",
    "tr_options": "linear_solver takes a solver with its settings",
    "x_scale": "parameters are scaled by the Jacobian; other scales are typical sizes, in scale",
    "f_scale": "write loss_scale",
    "max_nfev": "write max_evaluations",
    "maxfev": "write max_evaluations",
    "verbose": "write progress=True",
    "kwargs": "put them into the function, by functools.partial or a lambda",
    "options": "write them as keywords: max_iterations, max_evaluations and others",
    "tol": "write gtol or xtol",
}
"""What to do about keywords of SciPy's functions."""


def refuse_others(verb: str, others: Mapping[str, Any]) -> None:
    """Refuse keywords that a function does not have, and say what to do about those that SciPy's has.

    Raises:
        TypeError: there is one.
    """
    for name in others:
        hint = f": {_ELSEWHERE[name]}" if name in _ELSEWHERE else ""
        raise TypeError(f"{verb}() got an unexpected keyword argument {name!r}{hint}")


_WITHOUT_DERIVATIVES = "it does without derivatives, which are at hand here: leave method out"
_NEWTON = "Powell's hybrid method on the exact Jacobian is 'newton'"
_QUASI_NEWTON = ("broyden1", "broyden2", "anderson", "linearmixing", "diagbroyden", "excitingmixing", "df-sane")
_METHODS_ELSEWHERE = {
    "least_squares": {"dogbox": "with bounds 'trf', without them 'dogleg'", "leastsq": "that is 'lm'"},
    "root": {
        "hybr": _NEWTON,
        "lm": "where there may be no root, jacana.least_squares finds what is nearest to one",
        **dict.fromkeys(_QUASI_NEWTON, "for systems too large to factorise there is 'krylov', on exact products"),
    },
    "fixed_point": {"del2": "'newton' converges as fast, and 'anderson' does without derivatives"},
    "minimize": dict.fromkeys(("nelder-mead", "powell", "cobyla", "cobyqa"), _WITHOUT_DERIVATIVES),
}  # fmt: skip
"""What to take for the methods of SciPy's functions that there are not."""


def unknown_method(verb: str, method: Any, known: Iterable[str]) -> InvalidInputError:
    """The error for a method that `verb` does not have, with what to take instead."""
    known, name = tuple(known), str(method).lower()
    hint = _METHODS_ELSEWHERE[verb].get(name, f"write {name!r}" if name in known else None)
    return InvalidInputError(
        f"there is no method {method!r}; there is {', '.join(known)}" + ("" if hint is None else f" ({hint})")
    )


def as_args(args: Any) -> tuple[Any, ...]:
    """Return further arguments as a tuple; what is neither tuple nor list is the only one."""
    return tuple(args) if isinstance(args, tuple | list) else (args,)


def check_limits(tolerances: Mapping[str, float | None], max_iterations: int, budget: Budget) -> None:
    """Refuse tolerances and limits that make no sense."""
    for name, value in tolerances.items():
        if value is not None and not (math.isfinite(value) and value >= 0.0):
            raise InvalidInputError(f"{name} must be a finite number, 0 or more; got {value!r}")
    limits = {"max_iterations": max_iterations, "max_evaluations": budget.evaluations, "max_seconds": budget.seconds}
    for name, limit in limits.items():
        if limit is not None and not limit >= 0:
            raise InvalidInputError(f"{name} must be 0 or more; got {limit!r}")


def check_residual(values: Any, space: Space, noun: str = "residual") -> int:
    """Return the number of residuals, which must be finite real numbers."""
    if values is None:
        raise InvalidInputError(f"the {noun} returned None; does its function lack a return?")
    leaves, structure = trees.flatten(values)
    arrays = [np.asarray(leaf) for leaf in leaves]
    if not arrays or all(array.size == 0 for array in arrays):
        raise InvalidInputError(f"the {noun} is empty: it must return at least one number")
    for k, (leaf, array) in enumerate(zip(leaves, arrays, strict=True)):
        if array.dtype.kind == "c":
            raise InvalidInputError(f"the {noun} is complex; return its real and imaginary parts, two numbers for each")
        if array.dtype.kind not in "biuf":
            kind = type(leaf).__name__
            raise InvalidInputError(f"the {noun} must return real numbers or arrays of them, not {kind}")
        if np.isfinite(array).all():
            continue
        bad = np.argwhere(~np.isfinite(array))
        where = ", ".join(map(str, bad[0].tolist()))
        entry = structure.accessors()[k].codify(noun) + (f"[{where}]" if where else "")
        more = f" (and {len(bad) - 1} more entries are not finite)" if len(bad) > 1 else ""
        raise InvalidInputError(
            f"{entry} is {array[tuple(bad[0])]} at the start{more}, with {listed(space)}; "
            f"start where the {noun} is finite"
        )
    return sum(array.size for array in arrays)


def check_jacobian(jacobian: Any, space: Space, noun: str = "residual") -> None:
    """Refuse a Jacobian with stored entries that are not finite."""
    stored = jacobian.data if hasattr(jacobian, "indptr") else jacobian
    if not isinstance(stored, np.ndarray) or np.isfinite(stored).all():
        return
    bad = np.argwhere(~np.isfinite(stored))
    first = tuple(bad[0].tolist())
    if stored is jacobian:
        row, column = first
    else:
        row = int(np.searchsorted(jacobian.indptr, first[0], side="right")) - 1
        column = int(jacobian.indices[first[0]])
    raise InvalidInputError(
        f"the derivative of {noun} entry {row} (raveled) with respect to {_step_name(space, column)} is "
        f"{stored[first]} at the start ({len(bad)} of {stored.size} entries of the Jacobian are not "
        f"finite), with {listed(space)}; start where the {noun} is differentiable"
    )


def _step_name(space: Space, column: int) -> str:
    if column < space.free.size:
        return space.parameters.name(int(space.free[column]))
    return names_of(space)[column]


def listed(space: Space) -> str:
    """Return the first starting values with their names."""
    start = space.start
    shown = [f"{space.parameters.name(k)} = {start[k]:.6g}" for k in range(min(_MAX_NAMED, start.size))]
    return ", ".join(shown) + (", ..." if start.size > _MAX_NAMED else "")


def raveled(values: Any) -> Any:
    """Return whatever a residual returned as one vector, by functions that a recording can follow."""
    if isinstance(values, list | tuple | dict):
        leaves = trees.flatten(values)[0]
        return np.concatenate([np.ravel(leaf) for leaf in leaves])
    return np.ravel(values)

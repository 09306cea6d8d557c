"""One step of a small fit by normal equations, in code that serves one fit and many side by side.

Every quantity may have one more axis, the last one, that counts fits. `jacana.fit_batch` runs this on arrays of
fits with NumPy, or records it for one fit and runs the machine code of the whole search fit after fit.

Source: the damping follows H. B. Nielsen, "Damping parameter in Marquardt's method", IMM-REP-1999-05, 1999.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

__all__ = [
    "CAUTIOUS_DAMPING",
    "FIRST_DAMPING",
    "BatchSearch",
    "Normal",
    "advanced",
    "damped_step",
    "started",
    "within_bounds",
]

_ROUNDING = 1e-14  # a relative change of the cost below this cannot be told from rounding
_STILL = 1e-14  # a step this short relative to the parameters changes nothing
_STUCK = 1e16  # damping at which no step is left to try
# Of 20,000 peaks fitted from one start 27 end far off with 1e-3, 25 with 1e-2, none with 0.1, which is as quick as any.
FIRST_DAMPING = 0.1
CAUTIOUS_DAMPING = 10.0  # the first one where steps that were hardly damped led nowhere
_SUSPECT = 1e-26  # relative squared size of a column that may be nothing but rounding errors
_FURTHER = 1e-8  # relative distance to a point where it would be another then
_STARTS, _PROBES = -1.0, -0.5  # what `steps` is before the start has been evaluated, and before a point further on has
GOES_ON = 99

# (x, gram, gradient, damping) -> (step, decrement, slope), see `damped_step`
Proposes = Callable[[Any, Any, Any, Any], tuple[Any, Any, Any]]


class Normal(NamedTuple):
    """Sum of squares, J^T r of shape (n,) and J^T J of shape (n, n)."""

    square: Any
    gradient: Any
    gram: Any

    def finite(self) -> Any:
        n = len(self.gradient)
        result = np.isfinite(self.square)
        for i in range(n):
            result = result & np.isfinite(self.gradient[i]) & np.isfinite(self.gram[i, i])
        return result


class BatchSearch(NamedTuple):
    """Where a fit stands: best point and what is known there, the trial, and how far the model is trusted.

    ``steps`` counts trials; it is negative before there is one. ``status`` is `GOES_ON` or why it ended.
    """

    x: Any
    trial: Any
    square: Any
    gradient: Any
    gram: Any
    damping: Any
    growth: Any
    steps: Any
    predicted: Any
    status: Any


def started(x: Any, damping: float = FIRST_DAMPING) -> BatchSearch:
    """A search at its start x, shape (n,) or (n, fits)."""
    n, fits = len(x), x.shape[1:]
    unknown = np.full(fits, np.inf)
    return BatchSearch(
        x=x,
        trial=x,
        square=unknown,
        gradient=np.zeros((n, *fits)),
        gram=np.zeros((n, n, *fits)),
        damping=np.full(fits, damping),
        growth=np.full(fits, 2.0),
        steps=np.full(fits, _STARTS),
        predicted=unknown,
        status=np.full(fits, float(GOES_ON)),
    )


def advanced(
    search: BatchSearch, new: Normal, propose: Proposes, limits: tuple[Any, Any] | None, ftol: float, most: int
) -> BatchSearch:
    """Accept or refuse the trial, at which `new` was evaluated, and propose another, within the limits.

    ``most``: trial steps of a fit.
    """
    fresh, probes = search.steps == _STARTS, search.steps == _PROBES
    finite = new.finite()
    gain = np.where(fresh, 1.0, (search.square - new.square) / search.predicted)
    # Below the rounding of the cost, a step is trusted if the model trusts it.
    unmeasurable = ~fresh & (search.predicted <= _ROUNDING * search.square) & (search.predicted >= 0.0)
    unmeasurable = unmeasurable & (new.square <= search.square * (1.0 + 10.0 * _ROUNDING))
    # A step that is cut at its bounds may promise nothing: then it must not pass for doing what was promised.
    accepted = finite & (((gain > 1e-4) & (fresh | (search.predicted > 0.0))) | unmeasurable) & ~probes
    refused = ~accepted & ~fresh & ~probes
    gain = np.where(unmeasurable, 1.0, gain)

    x = np.where(accepted, search.trial, search.x)
    square = np.where(accepted, new.square, search.square)
    gradient = np.where(accepted, new.gradient, search.gradient)
    gram = np.where(accepted, new.gram, search.gram)
    cut = np.maximum(1.0 / 30.0, 1.0 - (2.0 * np.minimum(np.maximum(gain, 0.0), 1.0) - 1.0) ** 3)
    damping = np.where(accepted & ~fresh, np.maximum(search.damping * cut, 1e-12), search.damping)
    damping = np.where(refused, damping * search.growth, damping)
    growth = np.where(accepted, 2.0, np.where(refused, 2.0 * search.growth, search.growth))
    steps = np.where(probes, 0.0, search.steps + 1.0)
    suspect = _suspect(x, square, gram)
    looks = fresh & finite & functools.reduce(np.logical_or, suspect)
    void = np.stack([probes & finite & one & other for one, other in zip(suspect, _other(gram, new.gram), strict=True)])
    gradient = np.where(void, 0.0, gradient)
    gram = np.where(void[:, None] | void[None], 0.0, gram)

    step, decrement, slope = propose(x, gram, gradient, damping)
    small = np.abs(step[0]) <= _STILL * np.abs(x[0])
    for i in range(1, len(x)):
        small = small & (np.abs(step[i]) <= _STILL * np.abs(x[i]))
    # The first reason that holds counts, so the last is written first.
    status = np.where(fresh & ~finite, -5.0, np.where(damping > _STUCK, -1.0, float(GOES_ON)))
    status = np.where((steps >= most) & (status != -5.0), 0.0, status)
    status = np.where(accepted & (decrement <= ftol * square), 2.0, status)
    status = np.where(accepted & ((square == 0.0) | (small & (damping < 1.0))), 5.0, status)
    status = np.where(looks & (square != 0.0), float(GOES_ON), status)
    steps = np.where(looks, _PROBES, steps)
    trial = np.where(looks, x + _FURTHER * np.where(x != 0.0, np.abs(x), 1.0), x + step)
    if limits is not None:  # what the step was cut to may miss the bound by a rounding
        trial = np.minimum(np.maximum(trial, limits[0]), limits[1])
    return BatchSearch(x, trial, square, gradient, gram, damping, growth, steps, slope, status)


def _suspect(x: Any, square: Any, gram: Any) -> list[Any]:
    """Which columns are so small that they may be nothing but rounding errors.

    Where an angle turns about a point that is at 0, its column should be 0 and is 1e-17, and a step that makes
    something of that is 1e17 long. Units may make a column as small as that; but then it is about the same further on.
    """
    sizes = [gram[i, i] for i in range(len(x))]
    largest = functools.reduce(np.maximum, sizes)
    return [
        (size > 0.0) & (size < _SUSPECT * largest) & (size * x[i] * x[i] <= _SUSPECT * square)
        for i, size in enumerate(sizes)
    ]


def _other(gram: Any, there: Any) -> list[Any]:
    """Which columns are of another size at another point."""
    sizes = [(np.sqrt(gram[i, i]), np.sqrt(there[i, i])) for i in range(len(gram))]
    return [np.abs(other - size) > 0.5 * size for size, other in sizes]


def damped_step(x: Any, gram: Any, gradient: Any, damping: Any) -> tuple[Any, Any, Any]:
    """Solve ``(G + damping diag(G)) p = -g`` by Cholesky, written out.

    Returns:
        The step, shape (n,); the squared length of L^-1 g, which is what the model promises to take from the sum
        of squares, for the damped system; and the reduction predicted for the step itself.
    """
    n = len(gradient)
    diagonal = [gram[i, i] for i in range(n)]
    scale = [1.0 / np.sqrt(np.where(d > 0.0, d, 1.0)) for d in diagonal]
    factor: list[list[Any]] = []
    half: list[Any] = []
    for i in range(n):
        row: list[Any] = []
        for j in range(i):
            entry = gram[i, j] * scale[i] * scale[j]
            for k in range(j):
                entry = entry - row[k] * factor[j][k]
            row.append(entry / factor[j][j])
        pivot = np.where(diagonal[i] > 0.0, 1.0, 0.0) + damping
        for k in range(i):
            pivot = pivot - row[k] * row[k]
        # A pivot lost to rounding is one of a direction that the residual does not tell: no step along it.
        row.append(np.sqrt(np.where(pivot > 1e-15, pivot, np.inf)))
        factor.append(row)
        entry = gradient[i] * scale[i]
        for k in range(i):
            entry = entry - row[k] * half[k]
        half.append(entry / row[i])
    decrement = sum(h * h for h in half)
    step: list[Any] = [None] * n
    for i in reversed(range(n)):
        entry = half[i]
        for k in range(i + 1, n):
            entry = entry - factor[k][i] * step[k]
        step[i] = entry / factor[i][i]
    length = sum(s * s for s in step)
    moved = np.stack([-s * scale[i] for i, s in enumerate(step)])
    # |r|^2 - |r + J p|^2 = decrement + damping |D p|^2 for a damped step.
    return moved, decrement, decrement + damping * length


def within_bounds(lower: Any, upper: Any) -> Proposes:
    """Steps of the parameters that are not pressed against a bound, cut off at the bounds."""

    def propose(x: Any, gram: Any, gradient: Any, damping: Any) -> tuple[Any, Any, Any]:
        n = len(x)
        pressed = ((x <= lower) & (gradient > 0.0)) | ((x >= upper) & (gradient < 0.0)) | (lower == upper)
        free_gradient = np.where(pressed, 0.0, gradient)
        free_gram = np.where(pressed[:, None] | pressed[None], 0.0, gram)
        step, decrement, slope = damped_step(x, free_gram, free_gradient, damping)
        inside = np.minimum(np.maximum(x + step, lower), upper) - x
        # What the model says of the step as it is cut.
        curved = sum(inside[i] * free_gram[i, j] * inside[j] for i in range(n) for j in range(n))
        promised = -2.0 * sum(free_gradient[i] * inside[i] for i in range(n)) - curved
        cut = inside[0] != step[0]
        for i in range(1, n):
            cut = cut | (inside[i] != step[i])
        return np.where(cut, inside, step), decrement, np.where(cut, promised, slope)

    return propose

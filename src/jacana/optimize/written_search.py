"""Levenberg-Marquardt as one recorded program, for small dense problems that are solved again and again.

It takes the steps that `LevenbergMarquardt` with its `Radius` and `DenseQR` takes, with the same constants, but finds
them from ``J^T J`` by Cholesky, written out, so that residual, Jacobian and search become one piece of machine code. It
answers for well-conditioned problems that converge without ado; of all others it says so (`UNCLEAR`), and they are
solved the ordinary way from the start. With bounds the steps are those of `Reflective`.

Source: J. J. Moré, LNM 630, 1978; see `trust_region`, `controls` and `linear.dense`, which this follows line by line.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from .. import trees
from ..record.control import while_loop
from .bounded import _HELD, _NEARBY
from .controls import _GOOD, _POOR, Radius
from .linear.dense import _RADIUS_TOLERANCE, _SECULAR_ITERATIONS
from .problem import Outcome
from .trust_region import _ACCEPT, _FLAT, _HARDLY, _LITTLE, _NEAR_ROUNDING, _NEARLY_FLAT, _UNMEASURABLE, _ZERO, SUSPECT

__all__ = ["MOST_STEPS", "UNCLEAR", "Found", "parts_of", "searched_small"]

MOST_STEPS = 48  # trial steps that are recorded
UNCLEAR = -100.0  # the status of a search that the ordinary way has to do
_GOES_ON = 99
_LEAST_PIVOT = 1e-12  # squared: a Jacobian this near to a singular one needs an orthogonal factorisation
_EPS = float(np.finfo(np.float64).eps)


class _Factors(NamedTuple):
    """Of the model at a point: ``J^T J`` and what bounds add to it, D, L of the former scaled by the latter, the scaled
    gradient, and what a full step promises; which parameters rest on their bounds, None without any."""

    gram: Any
    scale: Any
    active: Any
    rows: Any
    gradient: Any
    full: Any
    decrement: Any
    length: Any
    pivot: Any


class _Trial(NamedTuple):
    scaled: Any
    slope: Any
    length: Any
    linear_norm: Any
    full: Any
    damping: Any


class _Search(NamedTuple):
    """As `State`; all floats. ``steps``: -1 before the start has been evaluated."""

    x: Any
    values: Any
    jacobian: Any
    trial_x: Any
    gram: Any
    gradient: Any
    norm: Any
    scale: Any
    trust: Any
    rounding: Any
    optimality: Any
    factors: _Factors
    trial: _Trial
    steps: Any
    slow: Any
    status: Any
    costs: Any
    lengths: Any
    trusts: Any
    accepted: Any


def searched_small(
    linearise: Callable[[Any], Any], x0: Any, size: int, patience: int, max_iterations: int, bounds: Any = None
) -> tuple[Any, Any, Any, Any]:
    """Search from x0, shape (n,); everything is recorded.

    Args:
        linearise: x -> (r, J), recorded.
        size: m, the length of r.
        bounds: (lower, upper), shape (n,) each, or None.

    Returns:
        r and J at the end, the inverse of ``J^T J`` there, shape (n, n), and one vector of everything else; see
        `parts_of`.
    """
    n = len(x0)
    unknown = _Trial(np.zeros(n), 0.0, 0.0, 0.0, 1.0, 0.0)
    factors = _factorised(x0, np.eye(n), np.ones(n), np.ones(n), bounds)
    numbers = np.zeros(MOST_STEPS + 1)
    start = _Search(
        x0, np.zeros(size), np.zeros((size, n)), x0, np.eye(n), np.zeros(n), np.inf, np.ones(n), 0.0, 0.0, 1.0, factors,
        unknown, -1.0, 0.0, float(_GOES_ON), numbers, numbers, numbers, numbers,
    )  # fmt: skip
    most = min(max_iterations, MOST_STEPS)

    def step(search: _Search) -> _Search:
        values, jacobian = linearise(search.trial_x)
        return _step(search, values, jacobian, patience, most, bounds)

    last = while_loop(lambda search: search.status == _GOES_ON, step, start, max_steps=MOST_STEPS + 2)
    inverse, pivot = _inverse(last.gram, np.stack([np.sqrt(last.gram[i, i]) for i in range(n)]))
    pivot = last.factors.pivot if bounds is None else pivot
    numbers = np.stack([last.norm, last.optimality, last.steps, last.status, pivot])
    rest = (last.x, last.gradient, numbers, last.costs, last.lengths, last.trusts, last.accepted)
    return last.values, last.jacobian, inverse, np.concatenate(rest)


class Found(NamedTuple):
    """What `searched_small` found: arrays are views of one that nobody else has.

    Attributes:
        pivot: the smallest of the Cholesky factorisation of J^T J, columns scaled by the largest norms seen, or own.
        vector: where all this comes from.
    """

    norm: float
    optimality: float
    steps: int
    status: int
    pivot: float
    vector: NDArray[np.float64]
    n: int

    @property
    def x(self) -> NDArray[np.float64]:
        return self.vector[: self.n]

    @property
    def gradient(self) -> NDArray[np.float64]:
        return self.vector[self.n : 2 * self.n]

    @property
    def history(self) -> tuple[NDArray[np.float64], ...]:
        """Costs, lengths of steps, trusts, acceptance."""
        rows = self.vector[2 * self.n + 5 :].reshape(4, MOST_STEPS + 1)
        return tuple(rows[:, : self.steps + 1])


def parts_of(vector: NDArray[np.float64], n: int) -> Found:
    """Take apart the last result of `searched_small`, shape (2 n + 5 + 4 (`MOST_STEPS` + 1),)."""
    norm, optimality, steps, status, pivot = vector[2 * n : 2 * n + 5].tolist()
    return Found(norm, optimality, int(steps), int(status), pivot, vector, n)


def _step(search: _Search, values: Any, jacobian: Any, patience: int, most: int, bounds: Any) -> _Search:
    n = len(search.x)
    square, gradient, gram = values @ values, values @ jacobian, jacobian.T @ jacobian
    fresh = search.steps < 0.0
    norm = np.sqrt(square)
    norms = np.stack([np.sqrt(gram[i, i]) for i in range(n)])
    finite = np.isfinite(square)
    for i in range(n):
        finite = finite & np.isfinite(gradient[i]) & np.isfinite(gram[i, i])

    # Whether the trial is accepted: `TrustRegion.step`.
    trial = search.trial
    moved = trial.linear_norm / search.norm
    predicted = 2.0 * trial.slope - moved * moved
    measurable = (predicted > _UNMEASURABLE * _EPS) & (trial.linear_norm > _NEAR_ROUNDING * search.rounding)
    measurable = measurable | ((trial.full == 0.0) & (search.optimality > _NEARLY_FLAT))
    actual = 1.0 - (norm / search.norm) * (norm / search.norm)
    gain = np.where(measurable, actual / predicted, 1.0)
    bent = np.minimum(0.5, np.maximum(0.1, 0.5 * trial.slope / (trial.slope - 0.5 * actual)))
    shrinkage = np.where(actual >= 0.0, 0.5, bent)
    nearest = np.minimum(search.trust, 10.0 * trial.length)
    poor, good = gain <= _POOR, (gain >= _GOOD) | (trial.full == 1.0)
    trusted = np.where(poor, shrinkage * nearest, np.where(good, Radius.growth * trial.length, search.trust))

    scale = np.where(fresh, np.where(norms > 0.0, norms, 1.0), np.maximum(search.scale, norms))
    there = _factorised(search.trial_x, gram, gradient, scale, bounds)
    downhill, before = _length(there.gradient), search.factors
    nearer = np.where(trial.full == 1.0, there.decrement < before.decrement, downhill < _length(before.gradient))
    passes = finite & ~(gain < _ACCEPT)
    useless = passes & ~measurable & ~nearer & ~fresh  # the cost is too coarse to tell, and the gradient says no
    accepted = fresh | (passes & ~useless)
    overlong = useless & (trial.length > 2.0 * search.trust)
    held = np.sqrt(trial.damping) * trial.length
    unrestrained = (trial.full == 1.0) | (held * held <= 0.1 * trial.linear_norm * trial.linear_norm)
    stuck = (useless & ~overlong & unrestrained) | (_same(search.trial_x, search.x) & ~fresh)
    factor = np.where(overlong, 1.0, np.where(useless | ~finite, 0.1, shrinkage))
    trust = np.where(accepted, trusted, factor * nearest)

    slow = (actual < _LITTLE) & (there.decrement > _HARDLY * before.decrement) & ~fresh
    slow = np.where(accepted, np.where(slow, search.slow + 1.0, 0.0), search.slow)
    x = np.where(accepted, search.trial_x, search.x)
    norm = np.where(accepted, norm, search.norm)
    scale = np.where(accepted, scale, search.scale)
    gram = np.where(accepted, gram, search.gram)
    gradient = np.where(accepted, gradient, search.gradient)
    here = _chosen(accepted, there, search.factors)
    size = sum(np.sqrt(gram[i, i]) * np.abs(x[i]) for i in range(n))
    rounding = _EPS * (size + norm)
    optimality = _cosine(gram, gradient, norm, here.active)
    extent = _length(scale * np.abs(x))
    extent = np.where(extent > 0.0, extent, np.where(fresh & (norm > 0.0), norm, np.where(fresh, 1.0, 0.0)))
    first = np.minimum(extent, np.where(here.length > 0.0, here.length, extent))
    trust = np.where(fresh, first, trust)
    steps = search.steps + 1.0

    # Why it ends: `TrustRegion.terminate`; the first reason that holds counts, so the last is written first.
    near = (here.decrement <= np.maximum(_FLAT * norm, 1e3 * rounding)) | (optimality <= _FLAT)
    status = np.where((steps >= most) | ((patience > 0) & (slow >= patience)), UNCLEAR, float(_GOES_ON))
    ended = stuck | (trust <= _EPS * extent)
    status = np.where(ended, np.where(near, float(Outcome.WORKING_PRECISION), UNCLEAR), status)
    status = np.where(accepted & (here.decrement <= rounding), float(Outcome.WORKING_PRECISION), status)
    status = np.where(accepted & (norm <= _ZERO), float(Outcome.GRADIENT), status)
    # A matrix that is hardly positive definite, or a start where nothing is known, or that has columns of rounding
    # errors, is for others.
    status = np.where(~(here.pivot > _LEAST_PIVOT) | (fresh & (~finite | _suspect(norms, x, norm))), UNCLEAR, status)

    # Where even a full step would change the cost by too little to measure, it is tried first.
    relative = here.decrement / norm
    large = (relative * relative > _UNMEASURABLE * _EPS) & (here.decrement > _NEAR_ROUNDING * rounding)
    radius = np.where(accepted & ~large, np.inf, trust)
    following = _within(here, norm, radius)
    trial_x = x + following.scaled / here.scale
    if bounds is not None:
        following, trial_x = _reflected(here, following, x, norm, radius, bounds)
    at = np.arange(MOST_STEPS + 1.0) == steps
    return _Search(
        x, np.where(accepted, values, search.values), np.where(accepted, jacobian, search.jacobian),
        trial_x, gram, gradient, norm, scale, trust, rounding, optimality, here, following, steps, slow, status,
        np.where(at, 0.5 * norm * norm, search.costs), np.where(at, trial.length, search.lengths),
        np.where(at, trust, search.trusts), np.where(at & accepted, 1.0, search.accepted),
    )  # fmt: skip


def _within(factors: _Factors, norm: Any, radius: Any) -> _Trial:
    """The minimiser of the model within the radius: `DenseFactors.within`."""
    gram, scale = factors.gram, factors.scale
    full = factors.length <= radius
    direction = _length(_forward(factors.rows, factors.full))
    upper = _length(factors.gradient) / radius
    lower = (factors.length - radius) / radius * (factors.length / direction) * (factors.length / direction)
    lower = np.where(lower < upper, lower, 0.0)

    def far(state: Any) -> Any:
        return state[5] == 0.0

    def narrower(state: Any) -> Any:
        damping, low, high, _, _, _, count = state
        guess = np.maximum(1e-3 * high, np.sqrt(low * high))
        damping = np.where((low <= damping) & (damping <= high) & (damping != 0.0), damping, guess)
        rows, _ = _cholesky(gram, scale, damping)
        scaled = _backward(rows, [-h for h in _forward(rows, factors.gradient)])
        length = _length(scaled)
        excess = length - radius
        found = np.abs(excess) <= _RADIUS_TOLERANCE * radius
        low = np.where(excess > 0.0, np.maximum(low, damping), low)
        high = np.where(excess > 0.0, high, np.minimum(high, damping))
        bend = _length(_forward(rows, scaled)) / length
        better = damping + (excess / length) / (bend * bend) * (length / radius)
        done = found | (count >= _SECULAR_ITERATIONS - 1.0)
        return np.where(done, damping, better), low, high, scaled, length, np.where(done, 1.0, 0.0), count + 1.0

    begin = (lower, lower, upper, factors.full, factors.length, np.where(full, 1.0, 0.0), 0.0)
    damping, _, _, scaled, length, _, _ = while_loop(far, narrower, begin, max_steps=_SECULAR_ITERATIONS)
    damping = np.where(full, 0.0, damping)
    square, slope = _form(factors, scaled, scaled), _slope(factors, scaled, norm)
    return _Trial(scaled, slope, length, np.sqrt(np.maximum(square, 0.0)), np.where(full, 1.0, 0.0), damping)


# ---- bounds: `Reflective` -------------------------------------------------------------------------------------------


def _narrowed(x: Any, gram: Any, gradient: Any, scale: Any, bounds: Any) -> tuple[Any, Any, Any]:
    """`Reflective.model`: the matrix with what bounds add to it, D narrowed near them, and what rests on its bound."""
    lower, upper = bounds
    bound = np.where(gradient > 0.0, lower, upper)
    distance = np.where(gradient == 0.0, np.inf, np.abs(x - bound))
    reference = np.maximum(np.abs(x), np.where(np.isfinite(bound), np.abs(bound), 0.0))
    share = np.minimum(1.0, distance / (_NEARBY * np.where(reference > 0.0, reference, 1.0)))
    active = share == 0.0
    pull = np.where(share < 1.0, np.abs(gradient) / np.where(active, 1.0, distance), 0.0)
    extra = np.where(active, _HELD * scale * scale, pull)
    return gram + np.diag(extra), scale / np.sqrt(np.where(active, 1.0 / _HELD, share)), active


def _reflected(factors: _Factors, trial: _Trial, x: Any, norm: Any, radius: Any, bounds: Any) -> tuple[_Trial, Any]:
    """`Reflective.propose` and `Reflective.moved`: a trial that stays inside, and where it leads."""
    lower, upper = bounds
    scale, active = factors.scale, factors.active

    def reaches(start: Any, step: Any) -> Any:
        ahead = np.where(step > 0.0, upper - start, lower - start)
        moving = (step != 0.0) & ~active
        return np.where(moving, ahead / np.where(moving, step, 1.0), np.inf)

    def evaluated(scaled: Any) -> _Trial:
        image = np.sqrt(np.maximum(_form(factors, scaled, scaled), 0.0))
        return _Trial(scaled, _slope(factors, scaled, norm), _length(scaled), image, 0.0, np.inf)

    def limited(trial: _Trial) -> _Trial:
        return _times(trial, np.where(trial.length > radius, radius / trial.length, 1.0))

    step = trial.scaled / scale
    first = reaches(x, step)
    reach = _least(first)
    stopped = _times(trial, reach)
    inside = np.where(active, 0.0, np.minimum(np.maximum(x + step, lower), upper) - x)
    clipped = limited(evaluated(scale * inside))

    ray = evaluated(np.where(first <= reach, -trial.scaled, trial.scaled))
    there = np.minimum(np.maximum(x + stopped.scaled / scale, lower), upper)
    limit = _least(reaches(there, ray.scaled / scale))
    curved = (ray.linear_norm / norm) * (ray.linear_norm / norm)
    best = (ray.slope - _form(factors, stopped.scaled, ray.scaled) / norm / norm) / curved
    bent = (curved > 0.0) & (best > 0.0) & (limit > 0.0)
    further = np.where(bent, np.minimum(best, limit), 0.0)
    reflected = limited(evaluated(stopped.scaled + further * ray.scaled))

    downhill = evaluated(-factors.gradient)
    curved = (downhill.linear_norm / norm) * (downhill.linear_norm / norm)
    cauchy = _times(downhill, np.where(curved > 0.0, downhill.slope / curved, 0.0))
    shortest = np.minimum(1.0, _least(reaches(x, cauchy.scaled / scale)))
    longest = np.where(cauchy.length > radius, radius / cauchy.length, 1.0)
    cauchy = _times(cauchy, np.minimum(shortest, longest))

    chosen, most = stopped, _promised(stopped, norm)
    for candidate, there_is in ((clipped, True), (reflected, bent), (cauchy, True)):
        promise = _promised(candidate, norm)
        better = (promise > most) & there_is
        chosen = _Trial(*[np.where(better, one, other) for one, other in zip(candidate, chosen, strict=True)])
        most = np.where(better, promise, most)
    free = reach >= 1.0
    chosen = _Trial(*[np.where(free, one, other) for one, other in zip(trial, chosen, strict=True)])

    step = chosen.scaled / scale
    touched = reaches(x, step) <= 1.0 + 1e-12
    after = np.where(touched, np.where(step > 0.0, upper, lower), np.where(active, x, x + step))
    return chosen, np.minimum(np.maximum(after, lower), upper)


def _times(trial: _Trial, factor: Any) -> _Trial:
    """`Step.times`, for factors from 0."""
    size = (factor * trial.scaled, factor * trial.slope, factor * trial.length, factor * trial.linear_norm)
    same = factor == 1.0
    return _Trial(*size, np.where(same, trial.full, 0.0), np.where(same, trial.damping, np.inf))


def _promised(trial: _Trial, norm: Any) -> Any:
    moved = trial.linear_norm / norm
    return 2.0 * trial.slope - moved * moved


def _least(numbers: Any) -> Any:
    least = numbers[0]
    for i in range(1, len(numbers)):
        least = np.minimum(least, numbers[i])
    return least


# ---- small linear algebra, written out -------------------------------------------------------------------------------


def _factorised(x: Any, gram: Any, gradient: Any, scale: Any, bounds: Any) -> _Factors:
    active = None
    if bounds is not None:
        gram, scale, active = _narrowed(x, gram, gradient, scale, bounds)
    rows, pivot = _cholesky(gram, scale, 0.0)
    scaled = gradient / scale
    half = _forward(rows, scaled)
    full = _backward(rows, [-h for h in half])
    return _Factors(gram, scale, active, rows, scaled, full, _length(half), _length(full), pivot)


def _chosen(first: Any, one: _Factors, other: _Factors) -> _Factors:
    """One of two, number by number: cheaper than to factorise again."""
    (those, structure), (others, _) = trees.flatten(one), trees.flatten(other)
    chosen = [np.where(first, a, b) for a, b in zip(those, others, strict=True)]
    factors: _Factors = trees.unflatten(structure, chosen)
    return factors


def _cholesky(gram: Any, scale: Any, damping: Any) -> tuple[list[list[Any]], Any]:
    """L of ``D^-1 G D^-1 + damping``, and the smallest pivot."""
    rows: list[list[Any]] = []
    least: Any = np.inf
    for i in range(len(scale)):
        row: list[Any] = []
        for j in range(i + 1):
            entry = gram[i, j] / (scale[i] * scale[j])
            for k in range(j):
                entry = entry - row[k] * (rows[j][k] if j < i else row[k])
            if j < i:
                row.append(entry / rows[j][j])
            else:
                pivot = entry + damping
                least = np.minimum(least, pivot)
                row.append(np.sqrt(pivot))
        rows.append(row)
    return rows, least


def _forward(rows: list[list[Any]], right: Any) -> list[Any]:
    """Solve ``L y = right``."""
    found: list[Any] = []
    for i, row in enumerate(rows):
        entry = right[i]
        for k in range(i):
            entry = entry - row[k] * found[k]
        found.append(entry / row[i])
    return found


def _backward(rows: list[list[Any]], right: Any) -> Any:
    """Solve ``L^T x = right``."""
    n = len(rows)
    found: list[Any] = [None] * n
    for i in reversed(range(n)):
        entry = right[i]
        for k in range(i + 1, n):
            entry = entry - rows[k][i] * found[k]
        found[i] = entry / rows[i][i]
    return np.stack(found)


def _inverse(gram: Any, scale: Any) -> tuple[Any, Any]:
    """The inverse of a small symmetric positive definite matrix, whose columns are scaled by D, and the least pivot."""
    n = len(scale)
    rows, pivot = _cholesky(gram, scale, 0.0)
    columns = []
    for j in range(n):
        unit = [1.0 if i == j else 0.0 for i in range(n)]
        columns.append(_backward(rows, _forward(rows, unit)) / (scale * scale[j]))
    return np.stack(columns), pivot


def _form(factors: _Factors, one: Any, other: Any) -> Any:
    """The product of the images of two scaled steps."""
    gram, scale = factors.gram, factors.scale
    total: Any = 0.0
    for i in range(len(one)):
        for j in range(len(one)):
            total = total + one[i] * (gram[i, j] / (scale[i] * scale[j])) * other[j]
    return total


def _slope(factors: _Factors, scaled: Any, norm: Any) -> Any:
    return -sum((factors.gradient[i] / norm) * (scaled[i] / norm) for i in range(len(scaled)))


def _length(vector: Any) -> Any:
    return np.sqrt(sum(vector[i] * vector[i] for i in range(len(vector))))


def _cosine(gram: Any, gradient: Any, norm: Any, active: Any) -> Any:
    """`State.optimality`."""
    largest: Any = 0.0
    for i in range(len(gradient)):
        column = np.sqrt(gram[i, i])
        cosine = np.abs(gradient[i] / norm) / np.where(column > 0.0, column, 1.0)
        largest = np.maximum(largest, cosine if active is None else np.where(active[i], 0.0, cosine))
    return np.where(norm > 0.0, largest, 0.0)


def _suspect(norms: Any, x: Any, norm: Any) -> Any:
    """Whether a column may be nothing but rounding errors: `trust_region._empty_columns`."""
    largest: Any = 0.0
    for i in range(len(x)):
        largest = np.maximum(largest, norms[i])
    found: Any = np.bool_(False)
    for i in range(len(x)):
        small = (norms[i] < SUSPECT * largest) & (norms[i] * np.abs(x[i]) <= SUSPECT * norm)
        found = found | ((norms[i] > 0.0) & small)
    return found


def _same(one: Any, other: Any) -> Any:
    result = one[0] == other[0]
    for i in range(1, len(one)):
        result = result & (one[i] == other[i])
    return result

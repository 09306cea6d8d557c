"""A search from start to end: the loop around a method's steps, with budgets, a callback, a display, checkpoints."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from ..errors import InvalidInputError
from .problem import FloatVector, Outcome, Problem
from .space import Space
from .trust_region import State, TrustRegion

__all__ = ["Budget", "History", "Progress", "counted", "searched"]

_SHOWN_AFTER = 1.0  # seconds of search before the display appears
_SAVED_EVERY = 10.0  # seconds between checkpoints


@dataclass(frozen=True)
class Progress:
    """What a callback gets after each trial step.

    Attributes:
        iteration: trial steps so far.
        cost: at the best point so far.
        step_length: length of the last trial step, in the scaled norm of the trust region.
        radius: of the trust region for the next step, or one over its damping.
        accepted: whether the last trial step became the best point.
        nfev, njev: points at which the residual and its Jacobian were evaluated so far.
        seconds: since the search began.
        flat: all parameters at the best point so far as one vector, read-only.
        space: how `flat` maps to the structure of x0.
    """

    iteration: int
    cost: float
    step_length: float
    radius: float
    accepted: bool
    nfev: int
    njev: int
    seconds: float
    flat: FloatVector
    space: Space

    @property
    def x(self) -> Any:
        """The best parameters so far in the structure of x0."""
        return self.space.parameters.unravel(self.flat)


@dataclass(frozen=True)
class History:
    """One line for each trial step, and one for the start.

    Attributes:
        cost: after the step, shape (nit + 1,).
        step_length: of the trial, in the scaled norm.
        trust: radius of the trust region, or one over the damping, after it.
        accepted: whether the trial was.
    """

    cost: FloatVector
    step_length: FloatVector
    trust: FloatVector
    accepted: np.ndarray[Any, np.dtype[np.bool_]]

    def followed_by(self, other: History) -> History:
        """Return this with the steps of a search that went on from its end."""
        pairs = ((getattr(self, f.name), getattr(other, f.name)[1:]) for f in fields(self))
        return History(*(np.concatenate(pair) for pair in pairs))


@dataclass(frozen=True)
class Budget:
    """What a search may use besides its iterations.

    Attributes:
        evaluations: points at which the residual may be evaluated, None for any number.
        seconds: wall-clock time after which no further step is begun, None for any.
    """

    evaluations: int | None = None
    seconds: float | None = None

    def spent(self, state: SearchState, seconds: float) -> Outcome | None:
        """Return which limit has been reached, if one has."""
        if self.evaluations is not None and state.residual_evaluations >= self.evaluations:
            return Outcome.EVALUATION_LIMIT
        if self.seconds is not None and seconds >= self.seconds:
            return Outcome.TIME_LIMIT
        return None


class SearchState(Protocol):
    """What the loop reads of the state of any search."""

    @property
    def x(self) -> FloatVector: ...
    @property
    def scale(self) -> Any: ...
    @property
    def trust(self) -> float: ...
    @property
    def cost(self) -> float: ...
    @property
    def step_length(self) -> float: ...
    @property
    def accepted(self) -> bool: ...
    @property
    def iteration(self) -> int: ...
    @property
    def residual_evaluations(self) -> int: ...
    @property
    def jacobian_evaluations(self) -> int: ...
    @property
    def refused_values(self) -> int: ...


S = TypeVar("S", bound=SearchState)
P = TypeVar("P", contravariant=True)


class SearchMethod(Protocol[P, S]):
    """What the loop calls of any method."""

    def step(self, problem: P, state: S) -> S: ...
    def terminate(self, state: S) -> Outcome | None: ...


def searched(
    method: SearchMethod[P, S],
    problem: P,
    state: S,
    space: Space,
    *,
    budget: Budget = Budget(),
    callback: Callable[[Progress], object] | None = None,
    display: bool = False,
    checkpoint: str | os.PathLike[str] | None = None,
    begin: float | None = None,
) -> tuple[S, Outcome, History]:
    """Step until the method ends, a limit is reached or the callback stops; return the last state, why, the path.

    Time is counted from `begin` (of ``time.perf_counter``), where the search goes on from another.
    """
    begin = time.perf_counter() if begin is None else begin
    lines = [(state.cost, 0.0, state.trust, True)]
    saved = begin
    shown = _Display() if display else None
    try:
        outcome = method.terminate(state)
        while outcome is None:
            seconds = time.perf_counter() - begin
            outcome = budget.spent(state, seconds)
            if outcome is not None:
                break
            state = method.step(problem, state)
            outcome = method.terminate(state)
            lines.append((state.cost, state.step_length, state.trust, state.accepted))
            if callback is None and shown is None and checkpoint is None:
                continue
            seconds = time.perf_counter() - begin
            if callback is not None and _asks_to_stop(callback, state, space, seconds):
                outcome = Outcome.STOPPED if outcome is None else outcome
            if shown is not None:
                shown.update(state, seconds)
            if checkpoint is not None and (outcome is not None or begin + seconds - saved > _SAVED_EVERY):
                save_checkpoint(checkpoint, state)
                saved = begin + seconds
    finally:
        if shown is not None:
            shown.close()
    cost, length, trust, accepted = (np.array(column) for column in zip(*lines, strict=True))
    return state, outcome, History(cost, length, trust, accepted)


def _asks_to_stop(callback: Callable[[Progress], object], state: SearchState, space: Space, seconds: float) -> bool:
    flat = space.full(state.x).view()
    flat.setflags(write=False)
    progress = Progress(
        iteration=state.iteration,
        cost=state.cost,
        step_length=state.step_length,
        radius=state.trust,
        accepted=state.accepted,
        nfev=state.residual_evaluations,
        njev=state.jacobian_evaluations,
        seconds=seconds,
        flat=flat,
        space=space,
    )
    try:
        return callback(progress) is True
    except StopIteration:
        return True


class _Display:
    """One line in the terminal that follows a long search; nothing where there is no terminal."""

    def __init__(self) -> None:
        self._status: Any = None

    def update(self, state: SearchState, seconds: float) -> None:
        if seconds < _SHOWN_AFTER:
            return
        text = (
            f"iteration {state.iteration}, cost {state.cost:.8g}, step {state.step_length:.2e}, "
            f"{state.residual_evaluations} evaluations, {seconds:.0f} s"
        )
        if self._status is None:
            from rich.console import Console

            self._status = Console(stderr=True).status(text)
            self._status.start()
        self._status.update(text)

    def close(self) -> None:
        if self._status is not None:
            self._status.stop()


# ---- checkpoints -----------------------------------------------------------------------------------------------------


def save_checkpoint(path: str | os.PathLike[str], state: SearchState) -> None:
    """Write where a search stands, so that a broken-off write leaves the file before it."""
    target = Path(path)
    with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".npz", delete=False) as file:
        np.savez(
            file,
            x=state.x,
            scale=state.scale,
            trust=state.trust,
            counts=[state.iteration, state.residual_evaluations, state.jacobian_evaluations, state.refused_values],
        )
    os.replace(file.name, target)


def load_checkpoint(path: str | os.PathLike[str], state: SearchState) -> tuple[Any, Any, float, Any]:
    """Return x, scale, trust and the four counts of a checkpoint; `state` is one of the same problem.

    Raises:
        InvalidInputError: the file belongs to a problem of another size.
    """
    with np.load(path) as saved:
        x, scale, trust, counts = saved["x"], saved["scale"], float(saved["trust"]), saved["counts"]
    if x.shape != state.x.shape or scale.shape != state.scale.shape:
        raise InvalidInputError(
            f"the checkpoint {os.fspath(path)} holds {x.size} parameters, but this problem has {state.x.size}"
        )
    return x, scale, trust, counts


def resumed(path: str | os.PathLike[str], method: TrustRegion, problem: Problem, state: State) -> State:
    """Return the state that a checkpoint describes; `state` is one of the same problem.

    Raises:
        InvalidInputError: the file belongs to a problem of another size.
    """
    x, scale, trust, counts = load_checkpoint(path, state)
    begun = method.init(problem, x.astype(state.x.dtype))
    scale = np.maximum(scale, begun.scale) if problem.scale is None else begun.scale
    factors, active = method.model(problem, begun.point, begun.x, scale)
    begun = replace(begun, scale=scale, trust=trust, factors=factors, active=active)
    resumed_state: State = with_saved_counts(begun, counts)
    return resumed_state


def with_saved_counts(state: Any, counts: Any) -> Any:
    """A state just begun with the counts of a checkpoint before it."""
    return replace(
        state,
        iteration=int(counts[0]),
        residual_evaluations=int(counts[1]) + 1,
        jacobian_evaluations=int(counts[2]) + 1,
        refused_values=int(counts[3]),
    )


def counted(state: Any, before: Any, more: int = 0) -> Any:
    """A state of one method with the counts of another before it, and `more` points."""
    return replace(
        state,
        iteration=before.iteration,
        residual_evaluations=before.residual_evaluations + more,
        jacobian_evaluations=before.jacobian_evaluations + more,
        refused_values=before.refused_values,
    )

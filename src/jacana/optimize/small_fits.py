"""Small dense fits that are made again and again: the whole search as machine code, once it is known to pay."""

from __future__ import annotations

import operator
import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..record.recording import current_recording
from ..record.variable import contains_variable
from ..rows import Recorded, Rows, recorded_rows
from ..run import background, current_executor
from ..run.executors import compiles_in_background
from .bounded import Reflective, pressed
from .checks import agrees, raveled
from .linearization import Linearization
from .methods import LevenbergMarquardt
from .parameters import FloatVector, flatten_parameters
from .problem import MESSAGES
from .result import LeastSquaresResult
from .search import Budget, History
from .space import Space
from .written_search import Found, parts_of, searched_small

if TYPE_CHECKING:
    from .least_squares import LeastSquares

__all__ = ["SmallFits"]

Float64Array = NDArray[np.float64]
Kind = TypeVar("Kind")

MOST_PARAMETERS = 8  # the linear algebra of a step is written out
MOST_ENTRIES = 50_000  # of the Jacobian: from there on the search itself costs nothing
WELL_CONDITIONED = 1e-4  # pivot from which the inverse of J^T J by Cholesky has eleven digits
_MOST_STALE = 3  # recordings that were found to be out of date before no other is made
_MESSAGES = {int(outcome): message for outcome, message in MESSAGES.items()}
HOT = 24  # searches in the ordinary way before machine code is made


class _Answer(NamedTuple):
    """What machine code found, with r, J and the inverse of ``J^T J`` there.

    Attributes:
        precise: whether the inverse has ten digits.
    """

    found: Found
    fun: Float64Array
    jac: Float64Array
    inverse: Float64Array
    start: Float64Array

    @property
    def precise(self) -> bool:
        return self.found.pivot > WELL_CONDITIONED


class SmallFits:
    """The searches of one recorded residual, for plain settings: see `serves`.

    The steps are those of the ordinary search. What does not converge at once, or is badly conditioned, is left to it.
    """

    def __init__(
        self,
        settings: LeastSquares,
        space: Space,
        args: Sequence[Any],
        size: int,
        linearise: Callable[[Any], Any],
        residual: Callable[..., Any],
    ) -> None:
        self.settings, self.space, self.args, self.size = settings, space, tuple(args), size
        self.linearise, self.residual = linearise, residual
        self.bounds = None if space.lower is None or space.upper is None else (space.lower, space.upper)
        self._shape = space.parameters.shapes[0] if space.parameters.structure.is_leaf() else None
        self._direct = settings.weights is None and settings.noise is None
        self.searches = 0
        self.patience = 0
        self._recorded: Recorded | Literal[False] | None = None  # False: it cannot be
        self._rows: Rows | None = None
        self._checked = False  # whether what is found is compared with the user's function
        self._stale = 0
        self._failure: Exception | None = None
        self._lock = threading.Lock()

    @staticmethod
    def serves(settings: LeastSquares, space: Space, entries: int) -> bool:
        """Whether a search with these settings is the default one, and small."""
        given = (settings.fixed, settings.ties, settings.linear, settings.loss)
        # What is left of bounds without an infinite end decides which method is the default one.
        method = settings.method is None or (settings.method == "trf" and space.lower is not None)
        return (
            method
            and all(setting is None for setting in (*given, settings.linear_solver, settings.scale))
            and not (settings.ftol or settings.xtol or settings.gtol)
            and settings.budget == Budget()
            and space.plain
            and not space.tied
            and space.start.dtype == np.float64
            and 0 < space.start.size <= MOST_PARAMETERS
            and entries <= MOST_ENTRIES
        )

    def noted(self, patience: int) -> None:
        """Count a search made in the ordinary way; after some of them machine code is asked for.

        Raises:
            Exception: what went wrong with the machine code in the background, once.
        """
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure
        self.patience = patience
        self.searches += 1
        executor = current_executor()
        if self._recorded is not None or executor == "numpy" or self.searches < (HOT if executor == "auto" else 2):
            return
        if not self._lock.acquire(blocking=False):
            return  # another thread is at it
        try:
            # The user's function is run here, in the thread that owns it, and the search around it is written later.
            recorded = recorded_rows(self.linearise, [self.space.start])
            if recorded is not None:
                # Arrays that are filled for each search may change; what the recording has made of them is checked.
                watches = recorded.watches.without(self.settings.lent)
                self._checked = bool(self.args) or len(watches) < len(recorded.watches)
                recorded = replace(recorded, watches=watches)
            self._recorded = recorded or False
        finally:
            self._lock.release()
        later = executor == "auto" and compiles_in_background()
        if recorded and not (later and background.submit(lambda: self._compile_later(recorded))):
            self._compile(recorded)

    def _compile_later(self, recorded: Recorded) -> None:
        try:
            self._compile(recorded)
        except background.AbandonedError:
            pass  # the process is leaving
        except Exception as failure:
            self._failure = failure

    def _compile(self, recorded: Recorded) -> None:
        linearise = recorded.replayed()

        def search(x0: Any) -> Any:
            return searched_small(linearise, x0, self.size, self.patience, self.settings.max_iterations, self.bounds)

        with np.errstate(all="ignore"):
            written = recorded_rows(search, [self.space.start])
        rows = None if written is None else written.compiled()
        if self._recorded is recorded:
            self._rows = rows

    def __call__(self, x0: Any, args: Sequence[Any], given: Sequence[Any]) -> LeastSquaresResult | None:
        """The result of a search from x0; None where the ordinary way has to be taken.

        Args:
            args: arguments that the residual was recorded with.
            given: the same as the user has them.
        """
        answer = self.search(x0, args)
        return None if answer is None else self._result(answer, given)

    def search(self, x0: Any, args: Sequence[Any]) -> _Answer | None:
        """What is found from x0; None where the ordinary way has to be taken."""
        rows, recorded = self._rows, self._recorded
        if (
            rows is None
            or not recorded
            or not (len(args) == len(self.args) and all(map(operator.is_, args, self.args)))
            or current_recording() is not None
            or current_executor() == "numpy"
        ):
            return None
        start = self._flat(x0)
        if start is None or not (self.bounds is None or self._inside(start, *self.bounds)):
            return None
        if not recorded.watches.unchanged():
            self._rows, self._recorded, self.searches = None, None, 0
            return None
        fun, jac, inverse, rest = rows(start.reshape(1, -1))
        found = parts_of(rest[0], start.size)
        if found.status <= 0:
            return None
        if self._checked and not self._holds(found.x, fun[0], jac[0]):
            self._rows, self.searches, self._stale = None, 0, self._stale + 1
            self._recorded = False if self._stale >= _MOST_STALE else None
            return None
        return _Answer(found, fun[0], jac[0], inverse[0], start)

    def _holds(self, x: Float64Array, fun: Float64Array, jac: Float64Array) -> bool:
        """Whether the residual at x is what the user's function says it is."""
        with np.errstate(all="ignore"):
            if self._direct:  # what `residual` comes to then, without its way around fixed parameters and weights
                values = self.settings.residual(self.space.parameters.unravel(x.copy()), *self.args)
                values = values.ravel() if type(values) is np.ndarray else np.asarray(raveled(values))
            else:
                values = np.asarray(self.residual(x.copy()))
            return agrees(values, fun, jac, x)

    def _flat(self, x0: Any) -> Float64Array | None:
        """A start as a new vector; None if it is none of the structure that was recorded."""
        if type(x0) is np.ndarray and x0.dtype == np.float64 and self._shape is not None:
            return x0.flatten() if x0.shape == self._shape else None
        if contains_variable(x0):
            return None
        parameters, flat = flatten_parameters(x0)
        fits = parameters == self.space.parameters and flat.dtype == np.float64
        return np.asarray(flat, dtype=np.float64) if fits else None

    @staticmethod
    def _inside(start: Float64Array, lower: FloatVector, upper: FloatVector) -> bool:
        return bool((lower <= start).all() and (start <= upper).all())

    def _result(self, answer: _Answer, given: Sequence[Any]) -> LeastSquaresResult:
        found, fun, jac = answer.found, answer.fun, answer.jac
        cost, length, trust, accepted = found.history
        settings, space = self.settings, self.space
        active = np.zeros(found.x.size, dtype=np.int_)
        if self.bounds is not None:
            active = pressed(found.x, found.gradient, *self.bounds)
        return _made(
            LeastSquaresResult,
            x=self.space.parameters.unravel(found.x),
            fun=fun,
            jac=jac,
            cost=0.5 * found.norm * found.norm,
            grad=found.gradient,
            optimality=found.optimality,
            success=True,
            status=found.status,
            message=_MESSAGES[found.status],
            nfev=found.steps + 1,
            njev=found.steps + 1,
            nit=found.steps,
            nrefused=0,
            active_mask=active,
            flat=found.x,
            history=History(cost, length, trust, accepted != 0.0),
            space=_made(Space, **{**space.__dict__, "start": answer.start}),
            model=Linearization(fun, jac, found.norm),
            method=LevenbergMarquardt.__name__ if self.bounds is None else Reflective.__name__,
            absolute_noise=settings.absolute_noise,
            again=settings._again(given),
            inverse=answer.inverse if answer.precise else None,
        )


def _made(kind: type[Kind], **values: Any) -> Kind:
    """An instance of a frozen dataclass, whose own `__init__` takes microseconds to set value after value."""
    made = object.__new__(kind)
    made.__dict__.update(values)
    return made

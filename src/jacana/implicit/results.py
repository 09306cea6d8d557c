"""What solvers return inside a recorded function: only what a replay can renew."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import Any

from ..errors import RecordingError
from ..graph.node import Array
from ..record.location import user_line

__all__ = ["RecordedOde", "RecordedResult", "RecordedRoot"]


class _Recorded:
    """Attributes that are items, too; any other attribute is refused by name."""

    def keys(self) -> tuple[str, ...]:
        """Return the names of the attributes."""
        return tuple(f.name for f in fields(self))  # type: ignore[arg-type]

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, name: str) -> Any:
        if name not in self.keys():
            raise KeyError(name)
        return getattr(self, name)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        raise RecordingError(
            f"inside a recorded function a solver's result has {', '.join(self.keys())}, but not {name!r}: it would be "
            f"a number that is not renewed when the function is called again. Compute it from what there is, or call "
            f"the solver outside.{user_line()}"
        )


@dataclass(frozen=True, eq=False)
class RecordedResult(_Recorded):
    """The result of a search for a root, a fit or a minimum whose problem depends on recorded values.

    Attributes:
        x: the solution in the structure of x0, made of Variables.
        flat: what was searched for as one Variable, shape (n,).
        fun: what the function returns there, a Variable: raveled equations or residuals, or the value of a minimum.
        cost: of a fit: half the sum of squares of `fun`, or of the loss; None otherwise.
        multipliers: of a minimum within constraints: Lagrange's multipliers, a Variable for each constraint.
        success: true; a search that ends elsewhere raises `jacana.ConvergenceError`.
        message: in words.
    """

    x: Any
    flat: Any
    fun: Any
    cost: Any = None
    multipliers: Any = None
    success: bool = True
    message: str = "Solved inside a recorded function."


@dataclass(frozen=True, eq=False)
class RecordedRoot(_Recorded):
    """What ``scipy.optimize.root_scalar`` returns inside a recorded function: ``root``, a Variable.

    A search that fails raises `jacana.ConvergenceError`.
    """

    root: Any
    converged: bool = True
    flag: str = "converged"


@dataclass(frozen=True, eq=False)
class RecordedOde(_Recorded):
    """What ``scipy.integrate.solve_ivp`` returns inside a recorded function.

    Attributes:
        t: the times of ``t_eval``.
        y: the states there, a Variable of shape (n, len(t)).
        success: true; an integration that breaks off raises `jacana.ConvergenceError`.
        status, message: 0, and the same in words.
    """

    t: Array
    y: Any
    success: bool = True
    status: int = 0
    message: str = "Solved inside a recorded function."

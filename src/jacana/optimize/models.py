"""`Model`: a curve with named parameters, its fit to data, and what the fit predicts."""

from __future__ import annotations

import inspect
import math
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import InvalidInputError
from ..transforms import jacobian
from .curves import CurveData, Searches, parameter_names
from .result import LeastSquaresResult

__all__ = ["Model", "ModelFit"]

Float64Array = NDArray[np.float64]

_CALL_OPTIONS = ("callback", "progress", "checkpoint", "resume")
_KEPT = 4  # searches of one model
_VOID = 1e-12  # squared share of a derivative in the null space above which a prediction is undetermined


def _with_names(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda p, *x: function(*x, **p)


class Model:
    """A curve ``function(x, ...)`` whose further arguments are parameters, known by their names.

    Args:
        function: plain NumPy code. Defaults of its parameters are starting values.
        independent: how many of its arguments, from the first, are independent variables.
        bounds: ``{name: (lower, upper)}``, either of which may be None.
        fixed: names of parameters that keep their starting values, or ``{name: value}``.

    `fit` takes bounds and fixed too, for one fit.

    Raises:
        InvalidInputError: the function names no parameters, or one is not a parameter of the function.

    >>> def decay(t, height, rate, floor=0.0):
    ...     return height * np.exp(-rate * t) + floor
    >>> model = Model(decay, bounds={"rate": (0.0, None)})
    >>> model.names
    ('height', 'rate', 'floor')
    >>> t = np.linspace(0.0, 3.0, 13)
    >>> y = 3.0 * np.exp(-0.7 * t) + 0.5 + 0.05 * np.sin(17.0 * np.arange(13))
    >>> fit = model.fit(t, y, start={"height": 1.0, "rate": 1.0})
    >>> round(fit.values["rate"], 4), round(fit.errors["rate"], 4)
    (0.6876, 0.0357)
    >>> fit.predict(np.array([0.0, 10.0])).round(3)
    array([3.487, 0.482])
    >>> low, high = fit.confidence_band(np.array([0.0, 10.0]))
    >>> low.round(3), high.round(3)
    (array([3.416, 0.337]), array([3.557, 0.627]))
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *,
        independent: int = 1,
        bounds: Mapping[str, Any] | None = None,
        fixed: Any = None,
    ) -> None:
        if independent < 1:
            raise InvalidInputError("a model has one independent variable or more")
        self.function, self.independent = function, independent
        self.names = parameter_names(function, independent)
        described = inspect.signature(function).parameters
        self.defaults = {
            name: described[name].default
            for name in self.names
            if described[name].default is not inspect.Parameter.empty
        }
        self.bounds = self._known(dict(bounds or {}), "bounds")
        self.fixed = self._fixed(fixed)
        self._searches = Searches(_KEPT)

    def __call__(self, *args: Any, **parameters: Any) -> Any:
        """Return the function's value; parameters by name or position."""
        return self.function(*args, **parameters)

    def __repr__(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"<Model {name} with parameters {', '.join(self.names)}>"

    def fit(
        self,
        x: Any,
        y: Any,
        *,
        start: Mapping[str, Any] | None = None,
        sigma: Any = None,
        absolute_sigma: bool = False,
        nan_policy: str | None = None,
        bounds: Mapping[str, Any] | None = None,
        fixed: Any = None,
        ties: Mapping[str, Callable[[Any], Any]] | None = None,
        **options: Any,
    ) -> ModelFit:
        """Fit the parameters to data.

        Args:
            x: the independent variable, or a tuple of them if the model has several.
            y: the data, in the shape of what the model returns.
            start: starting values by name: numbers, or arrays for parameters that are arrays. Parameters whose
                default in the signature serves may be left out.
            sigma: standard deviations of the data, a number or in the shape of y; or their covariance, shape (M, M).
            absolute_sigma: sigma is the true size of the errors, not only their ratios.
            nan_policy: "omit" leaves out points with NaN (with one independent variable); by default they are errors.
            bounds, fixed: as for the model, for this fit.
            ties: ``{name: function}``: the parameter is what the function says of the dictionary of all.
            options: loss, loss_scale, method, linear_solver, scale, max_iterations, max_evaluations, max_seconds,
                ftol, xtol, gtol, callback, progress, checkpoint, resume; see `jacana.least_squares`.

        Raises:
            InvalidInputError: a parameter has no starting value or is unknown; data are empty, not finite, or not in
                the shape of what the model returns; and what `jacana.least_squares` refuses.
        """
        held = {**self.fixed, **self._fixed(fixed)}
        limits = {**self.bounds, **self._known(dict(bounds or {}), "bounds")}
        values = {**self.defaults, **self._known(dict(start or {}), "start")}
        values.update({name: value for name, value in held.items() if value is not None})
        missing = [name for name in self.names if name not in values and name not in (ties or {})]
        if missing:
            raise InvalidInputError(f"there is no starting value for {', '.join(missing)}; give start={{name: value}}")
        variables, data = self._data(x, y, sigma, nan_policy)
        x0 = OrderedDict((name, values.get(name, 0.0)) for name in self.names)
        settings = {
            "bounds": limits or None,
            "fixed": tuple(held) or None,
            "ties": self._known(dict(ties or {}), "ties") or None,
            "absolute_noise": absolute_sigma,
            **{name: value for name, value in options.items() if name not in _CALL_OPTIONS},
        }
        if not ties:
            data.check(self.function(*variables, **x0))
        at_call = {name: value for name, value in options.items() if name in _CALL_OPTIONS}
        result = self._searches.fitted((), variables, data, settings, _with_names, self.function, x0, **at_call)
        return ModelFit(self, variables, data.y, data.sigma, result)

    def _data(self, x: Any, y: Any, sigma: Any, nan_policy: str | None) -> tuple[tuple[Any, ...], CurveData]:
        if self.independent == 1:
            data = CurveData.of(x, y, sigma, None, nan_policy)
            return (data.x,), data
        if nan_policy == "omit":
            raise InvalidInputError("nan_policy='omit' is for models of one independent variable")
        if not isinstance(x, tuple) or len(x) != self.independent:
            raise InvalidInputError(f"x must be a tuple of the model's {self.independent} independent variables")
        variables = tuple(CurveData.of(part, y, None, None, nan_policy).x for part in x)
        return variables, CurveData.of(None, y, sigma, None, nan_policy)

    def _known(self, given: dict[str, Any], what: str) -> dict[str, Any]:
        for name in given:
            if name not in self.names:
                raise InvalidInputError(f"{what} names {name!r}, but the parameters are {', '.join(self.names)}")
        return given

    def _fixed(self, fixed: Any) -> dict[str, Any]:
        if fixed is None:
            return {}
        if isinstance(fixed, str):
            fixed = (fixed,)
        if not isinstance(fixed, Mapping):
            if not isinstance(fixed, Iterable):
                raise InvalidInputError("fixed must be a name, names, or a dictionary of values by name")
            fixed = dict.fromkeys(fixed)
        return self._known(dict(fixed), "fixed")


@dataclass(frozen=True, eq=False, repr=False)
class ModelFit:
    """A model fitted to data.

    Attributes:
        model: what was fitted.
        x: the independent variables, a tuple.
        y: the data.
        sigma: as it was given.
        result: the `LeastSquaresResult`, for everything that is not here: ``rank``, ``condition``, ``history``, ....
    """

    model: Model
    x: tuple[Any, ...]
    y: Float64Array
    sigma: Float64Array | None
    result: LeastSquaresResult

    @property
    def success(self) -> bool:
        """The search arrived at a stationary point."""
        return self.result.success

    @property
    def message(self) -> str:
        """Why the search ended, in words."""
        return self.result.message

    @property
    def warnings(self) -> tuple[str, ...]:
        """What should make one doubt the parameters or their errors."""
        return self.result.warnings

    @cached_property
    def values(self) -> dict[str, Any]:
        """The parameters by name: floats, and arrays where the start was one."""
        return _by_name(self.result.x)

    @cached_property
    def errors(self) -> dict[str, Any]:
        """Standard errors by name; 0 for what is fixed."""
        return _by_name(self.result.standard_errors)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of what was searched for, the order of `covariance`: entries of arrays are ``name[k]``."""
        return tuple(_plain_name(name) for name in self.result.names)

    @property
    def covariance(self) -> Float64Array:
        """Covariance of what was searched for, shape (n, n)."""
        return self.result.covariance

    @property
    def correlation(self) -> Float64Array:
        """Its correlation matrix, shape (n, n)."""
        return self.result.correlation

    def confidence_intervals(self, level: float = 0.95, *, kind: str = "wald") -> dict[str, tuple[float, float]]:
        """Return an interval for each searched parameter; see `LeastSquaresResult.confidence_intervals`."""
        found = self.result.confidence_intervals(level, kind=kind)
        return {_plain_name(name): interval for name, interval in found.items()}

    # ---- predictions ----

    def predict(self, x: Any = None) -> Any:
        """Return the model at x (by default where the data are) with the fitted parameters."""
        return self.model.function(*self._variables(x), **self.values)

    def standard_error(self, x: Any = None) -> Float64Array:
        """Return the standard error of `predict`, in its shape, by linear propagation with the exact Jacobian.

        It is inf where the data do not determine the prediction. A prediction may well be determined where single
        parameters are not.
        """
        variables = self._variables(x)
        space, factors = self.result.space, self.result._factors
        if space.curved:
            raise InvalidInputError("bands are for parameters that are not on manifolds")

        def curve(z: Any) -> Any:
            return np.ravel(self.model.function(*variables, **space.unravel(z)))

        with np.errstate(all="ignore"):
            derivative = jacobian(curve)(np.asarray(self.result.flat, dtype=np.float64)[space.free]) / factors.scale
        inside = derivative @ factors.rows.T
        error = np.sqrt(self.result.variance_unit * np.sum((inside / factors.singular_values) ** 2, axis=1))
        if factors.rank < space.size:
            square = np.sum(derivative**2, axis=1)
            error = np.where(square - np.sum(inside**2, axis=1) > _VOID * square, np.inf, error)
        return np.asarray(error.reshape(np.shape(self.predict(x))))

    def confidence_band(
        self, x: Any = None, level: float = 0.95, *, simultaneous: bool = False
    ) -> tuple[Float64Array, Float64Array]:
        """Return the lower and upper ends of the region in which the true curve is expected, each like `predict`.

        Args:
            x: where; by default where the data are.
            level: probability of covering the true curve at one x, or, `simultaneous`, at all x.

        Raises:
            InvalidInputError: the level is not in (0, 1), or there are no degrees of freedom and no `absolute_sigma`.

        Source: D. M. Bates and D. G. Watts, "Nonlinear Regression Analysis and its Applications", 1988, section 2.3.
        """
        half = self._quantile(level, simultaneous) * self.standard_error(x)
        centre = self.predict(x)
        return centre - half, centre + half

    def prediction_band(self, x: Any = None, level: float = 0.95, *, sigma: Any = None) -> tuple[Any, Any]:
        """Return the lower and upper ends of where a new measurement at x is expected: the curve's uncertainty and the
        noise of one measurement together.

        Args:
            x, level: as for `confidence_band`.
            sigma: standard deviation of the new measurements, in the terms in which sigma was given to the fit. By
                default that of the data where x is left out, and the same number where it was one number.

        Raises:
            InvalidInputError: as for `confidence_band`; or the fit had a sigma for each of its points, which says
                nothing of new ones.
        """
        if sigma is None:
            sigma = self._own_sigma(x)
        noise = self.result.variance_unit * np.square(np.asarray(sigma, dtype=np.float64))
        half = self._quantile(level, False) * np.sqrt(np.square(self.standard_error(x)) + noise)
        centre = self.predict(x)
        return centre - half, centre + half

    def _own_sigma(self, x: Any) -> Any:
        if self.sigma is None or self.sigma.size == 1:
            return 1.0 if self.sigma is None else float(self.sigma.item())
        if x is not None:
            raise InvalidInputError("the data had a sigma for each point; say what it is at the new points: sigma=...")
        if self.sigma.shape == self.y.shape:
            return self.sigma
        return np.sqrt(self.sigma.diagonal()).reshape(self.y.shape)

    def _quantile(self, level: float, simultaneous: bool) -> float:
        from scipy.special import chdtri, fdtri, ndtri, stdtrit

        if not 0.0 < level < 1.0:
            raise InvalidInputError(f"the level must lie between 0 and 1; got {level!r}")
        degrees, searched = self.result.degrees_of_freedom, self.result.rank
        if self.result.absolute_noise:
            return math.sqrt(chdtri(searched, 1.0 - level)) if simultaneous else float(ndtri(0.5 + 0.5 * level))
        if degrees <= 0:
            raise InvalidInputError("there are no degrees of freedom, so there are no bands")
        if simultaneous:
            return math.sqrt(searched * fdtri(searched, degrees, level))
        return float(stdtrit(degrees, 0.5 + 0.5 * level))

    def _variables(self, x: Any) -> tuple[Any, ...]:
        if x is None:
            return self.x
        parts = x if self.model.independent > 1 else (x,)
        if not isinstance(parts, tuple) or len(parts) != self.model.independent:
            raise InvalidInputError(f"x must be a tuple of the model's {self.model.independent} independent variables")
        return tuple(np.asarray(part, dtype=np.float64) if isinstance(part, list) else part for part in parts)

    # ---- for people ----

    def __repr__(self) -> str:
        outcome = "converged" if self.success else "not converged"
        return f"<ModelFit {outcome}: {self.y.size} data, {self.result.grad.size} parameters, {self.model!r}>"

    def __str__(self) -> str:
        return str(self.result)

    def __rich__(self) -> Any:
        return self.result.__rich__()

    def _repr_html_(self) -> str:
        return self.result._repr_html_()

    def plot(self, level: float = 0.95, points: int = 200) -> Any:
        """Draw data, curve and both bands with matplotlib and return the figure.

        Raises:
            InvalidInputError: the model is not a function of one variable, or has no bands at this level.
            ImportError: matplotlib is not installed.
        """
        x = self.x[0]
        if self.model.independent > 1 or np.shape(x) != self.y.shape or np.ndim(x) != 1:
            raise InvalidInputError("plot is for models of one variable, with data of shape (M,)")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7.0, 4.5), layout="constrained")
        axes = figure.subplots()
        fine = np.linspace(np.min(x), np.max(x), points)
        if self.sigma is None or self.sigma.size == 1:
            axes.fill_between(
                fine, *self.prediction_band(fine, level), color="tab:blue", alpha=0.12, label="prediction"
            )
        axes.fill_between(fine, *self.confidence_band(fine, level), color="tab:blue", alpha=0.35, label="confidence")
        axes.plot(fine, self.predict(fine), color="tab:blue")
        axes.plot(x, self.y, ".", color="black", markersize=4)
        axes.legend(title=f"{level:.0%}")
        return figure


def _by_name(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(value) if np.ndim(value) == 0 else np.asarray(value) for name, value in tree.items()}


def _plain_name(name: str) -> str:
    """``x['rate']`` -> ``rate``, ``x['knots'][2]`` -> ``knots[2]``."""
    key, _, rest = name.removeprefix("x['").partition("']")
    return key + rest

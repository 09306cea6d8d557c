"""A fit for people: plain text, a table in the terminal, HTML in a notebook, plots."""

from __future__ import annotations

import html
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import InvalidInputError

if TYPE_CHECKING:
    from .result import LeastSquaresResult

__all__ = ["as_html", "as_table", "as_text", "plot"]

_MAX_LISTED = 50  # parameters that a printed result lists


def value_lines(values: Any, names: Callable[[int], Sequence[str]]) -> list[str]:
    """A line for each of the first values; ``names(count)`` gives the names of as many."""
    count = min(values.size, _MAX_LISTED)
    shown = names(count)
    width = max(map(len, shown))
    lines = [f"  {name:<{width}} = {value: .10e}" for name, value in zip(shown, values, strict=False)]
    return lines if values.size == count else [*lines, f"  ... and {values.size - count} more"]


def as_text(result: LeastSquaresResult) -> str:
    """Return the report that ``print(result)`` shows."""
    lines = [result.message, *(f"  {line}" for line in _facts(result))]
    rows = _rows(result)
    width = max((len(row[0]) for row in rows), default=0)
    lines += [f"  {name:<{width}} = {value: .10e} {error}" for name, value, error in rows]
    if result.flat.size > _MAX_LISTED:
        lines.append(f"  ... and {result.flat.size - _MAX_LISTED} more")
    return "\n".join(lines)


def as_table(result: LeastSquaresResult) -> Any:
    """Return the fit as a rich table."""
    from rich import box
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE, pad_edge=False)
    table.add_column("parameter", no_wrap=True)
    for heading in ("estimate", "standard error", "relative"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, value, error, relative in _cells(result):
        table.add_row(Text(name), value, error, relative)
    colour = "green" if result.success else "red"
    parts: list[Any] = [Text(result.message, style=colour), *map(Text, _facts(result)), table]
    return Group(*parts, *(Text(warning, style="yellow") for warning in result.warnings[0 if result.success else 1 :]))


def as_html(result: LeastSquaresResult) -> str:
    """Return the fit as HTML."""
    rows = "".join(
        "<tr><td><code>{}</code></td><td>{}</td><td>{}</td><td>{}</td></tr>".format(*map(html.escape, cells))
        for cells in _cells(result)
    )
    facts = "<br>".join(map(html.escape, (result.message, *_facts(result))))
    warnings = "".join(f"<p>&#9888; {html.escape(w)}</p>" for w in result.warnings[0 if result.success else 1 :])
    head = "<tr><th>parameter</th><th>estimate</th><th>standard error</th><th>relative</th></tr>"
    return f"<p>{facts}</p><table>{head}{rows}</table>{warnings}"


def _facts(result: LeastSquaresResult) -> list[str]:
    facts = [
        f"cost {result.cost:.10g} from {result.fun.size} residuals, {result.degrees_of_freedom} degrees of freedom",
        f"{result.nit} iterations, {result.nfev} residual and {result.njev} Jacobian evaluations",
    ]
    if result._small:
        facts.append(f"rank {result.rank} of {result.grad.size}, condition {result.condition:.3g} (columns scaled)")
    return facts


def _rows(result: LeastSquaresResult) -> list[tuple[str, float, str]]:
    count = min(_MAX_LISTED, result.flat.size)
    errors = result.flat_errors if result._small else None
    rows = []
    for k in range(count):
        error = "" if errors is None else ("(fixed)" if _held(result, k) else f"+- {errors[k]:.3e}")
        rows.append((result.parameters.name(k, "x"), float(result.flat[k]), error))
    return rows


def _held(result: LeastSquaresResult, k: int) -> bool:
    space = result.space
    if space.plain or k in space.free or any(k in positions for positions, _ in space.tied):
        return False
    return not any(offset <= k < offset + math.prod(shape) for offset, shape, _ in space.manifolds)


def _cells(result: LeastSquaresResult) -> list[tuple[str, str, str, str]]:
    cells = []
    for name, value, error in _rows(result):
        number = error.removeprefix("+- ")
        relative = ""
        if error.startswith("+-") and value != 0.0:
            share = abs(float(number) / value)
            relative = f"{share:.1%}" if share < 1e4 else f"{share:.0e}"
        cells.append((name, f"{value:.10g}", number, relative))
    return cells


def plot(result: LeastSquaresResult, kind: str) -> Any:
    """Return a matplotlib figure; see `LeastSquaresResult.plot`."""
    if kind not in _PLOTS:
        raise InvalidInputError(f"there is no plot {kind!r}; there is {', '.join(_PLOTS)}")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.0, 4.5), layout="constrained")
    _PLOTS[kind](result, figure)
    return figure


def _plot_residuals(result: LeastSquaresResult, figure: Any) -> None:
    left, right = figure.subplots(1, 2, width_ratios=(3, 1), sharey=True)
    left.plot(result.fun, ".", markersize=4)
    left.axhline(0.0, color="black", linewidth=0.8)
    left.set(xlabel="residual number", ylabel="residual", title="residuals")
    right.hist(result.fun, bins="auto", orientation="horizontal")
    right.set(xlabel="count")


def _plot_convergence(result: LeastSquaresResult, figure: Any) -> None:
    history = result.history
    excess = history.cost - history.cost.min()
    steps = np.arange(history.cost.size)
    axes = figure.subplots()
    shown = excess > 0.0
    axes.semilogy(steps[shown], excess[shown], ".-")
    refused = ~history.accepted & shown
    axes.semilogy(steps[refused], excess[refused], "x", color="tab:red", label="refused")
    axes.set(xlabel="trial step", ylabel="cost above the last", title="convergence")
    if refused.any():
        axes.legend()


def _plot_correlation(result: LeastSquaresResult, figure: Any) -> None:
    axes = figure.subplots()
    image = axes.imshow(result.correlation, vmin=-1.0, vmax=1.0, cmap="RdBu_r")
    axes.set_xticks(range(len(result.names)), result.names, rotation=90)
    axes.set_yticks(range(len(result.names)), result.names)
    axes.set(title="correlation")
    figure.colorbar(image)


def _plot_profiles(result: LeastSquaresResult, figure: Any) -> None:
    from .intervals import profile

    count = result.space.free.size
    columns = math.ceil(math.sqrt(count))
    all_axes = figure.subplots(math.ceil(count / columns), columns, squeeze=False).ravel()
    for k, axes in enumerate(all_axes):
        if k >= count:
            axes.set_axis_off()
            continue
        values, signed = profile(result, k)
        axes.plot(values, signed, ".-")
        error = result.flat_errors[result.space.free[k]]
        axes.plot(values, (values - result.flat[result.space.free[k]]) / error, "--", linewidth=0.8)
        axes.set(xlabel=result.names[k], ylabel="signed root")


_PLOTS = {
    "residuals": _plot_residuals,
    "convergence": _plot_convergence,
    "correlation": _plot_correlation,
    "profiles": _plot_profiles,
}

"""The optimisers on certified and real problems; writes its tables into a page of the documentation.

    python benchmarks/optimisers.py                                  print everything
    python benchmarks/optimisers.py --write docs/optimisation.md     renew the tables there

SciPy runs the small fit in the same process. Times are CPU seconds; run with OMP_NUM_THREADS=1 to compare them.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import scipy.optimize
from scipy import sparse

import jacana as jc
from jacana.datasets import bal
from jacana.datasets.more_garbow_hillstrom import MoreGarbowHillstromProblem, bounded, problems
from jacana.errors import InvalidInputError
from jacana.optimize import Root
from jacana.report.nist import NistRun, run_all
from jacana.run import background


def nist_table(runs: list[NistRun]) -> str:
    """Markdown: one line for each problem, both starts beside each other, and a summary."""
    lines = [
        "| problem | level | digits, start 1 | start 2 | of standard errors | steps |",
        "|---|---|---|---|---|---|",
    ]
    for first, second in zip(runs[::2], runs[1::2], strict=True):
        errors = min(first.standard_error_digits, second.standard_error_digits)
        lines.append(
            f"| {first.problem} | {first.level} | {first.digits:.1f} | {second.digits:.1f} | {errors:.1f} | "
            f"{first.iterations}, {second.iterations} |"
        )
    digits = np.array([run.digits for run in runs])
    errors = np.array([run.standard_error_digits for run in runs])
    counts = ", ".join(f"{int((digits >= limit).sum())} with at least {limit}" for limit in (4, 6, 9))
    lines += [
        "",
        f"{digits.size} runs: {counts} digits; mean {digits.mean():.2f}. Standard errors: "
        f"{int((errors >= 6).sum())} runs with at least 6 digits; mean {errors.mean():.2f}. "
        f"{sum(run.residual_evaluations for run in runs)} residual evaluations.",
    ]
    return "\n".join(lines)


def garbow_hillstrom_table() -> str:
    """Markdown: one line for each function, with what its three starts and its bounds lead to, and a summary."""
    lines = ["| function | minimum | start | 10 times | 100 times | with bounds |", "|---|---|---|---|---|---|"]
    free, within = problems(), {problem.name: problem for problem in bounded()}
    solved, evaluations = {False: 0, True: 0}, 0

    def reached(problem: MoreGarbowHillstromProblem) -> str:
        nonlocal evaluations
        try:
            fit = jc.least_squares(problem.residual, problem.start, bounds=problem.bounds)
        except InvalidInputError:
            return "not finite"
        evaluations += fit.nfev
        done = problem.solved(2.0 * fit.cost)
        solved[problem.bounds is not None] += done
        return f"yes, {fit.nfev}" if done else f"{2.0 * fit.cost:.6g}"

    for first, *others in zip(free[::3], free[1::3], free[2::3], strict=True):
        cells = [reached(problem) for problem in (first, *others)]
        cells.append(reached(within[first.name]) if first.name in within else "")
        lines.append(f"| {first.name} | {first.minimum:.6g} | {' | '.join(cells)} |")
    lines += [
        "",
        f"{len(free)} runs without bounds: {solved[False]} with four digits of the published minimum; {len(within)} "
        f"with bounds: {solved[True]}. {evaluations} residual evaluations.",
    ]
    return "\n".join(lines)


def seconds(call: Callable[[], object], repeats: int = 5) -> float:
    """CPU seconds of the fastest of some calls, after one that does not count."""
    call()
    best = np.inf
    for _ in range(repeats):
        begin = time.process_time()
        call()
        best = min(best, time.process_time() - begin)
    return best


T = np.linspace(-3.0, 3.0, 100)


def peak(p, t):
    return p[0] * np.exp(-0.5 * ((t - p[1]) / p[2]) ** 2) + p[3]


def small_fit() -> None:
    y = peak([2.0, 0.3, 0.8, 0.5], T) + 0.02 * np.sin(37.0 * T)
    start = np.array([1.0, 0.0, 1.0, 0.0])

    def residual(p):
        return peak(p, T) - y

    print("one fit, 100 points, 4 parameters, microseconds:")

    def curve(t, *p):
        return peak(p, t)

    fit = jc.LeastSquares(residual)
    for _ in range(100):
        fit(start)
        jc.curve_fit(curve, T, y, start)
    background.drain()
    ours = seconds(lambda: [jc.curve_fit(curve, T, y, start) for _ in range(500)]) / 500
    print(f"  jacana curve_fit             {1e6 * ours:8.1f}")
    print(f"  jacana LeastSquares          {1e6 * seconds(lambda: [fit(start) for _ in range(500)]) / 500:8.1f}")
    peers: dict[str, Callable[[], object]] = {
        "scipy curve_fit": lambda: scipy.optimize.curve_fit(lambda t, *p: peak(p, t), T, y, start),
        "scipy least_squares lm": lambda: scipy.optimize.least_squares(residual, start, method="lm"),
        "scipy least_squares trf": lambda: scipy.optimize.least_squares(residual, start),
    }
    for name, call in peers.items():
        used = seconds(lambda call=call: [call() for _ in range(20)]) / 20
        print(f"  {name:28} {1e6 * used:8.0f}   {used / ours:5.1f} times")


def batch(count: int = 100_000) -> None:
    rng = np.random.default_rng(0)
    true = np.stack(
        [rng.uniform(1, 3, count), rng.uniform(-1, 1, count), rng.uniform(0.5, 1.2, count), rng.uniform(0, 1, count)]
    )
    data = peak(true[:, :, None], T) + 0.02 * rng.standard_normal((count, 100))
    starts = np.tile([1.0, 0.0, 1.0, 0.0], (count, 1))
    for when in ("compilation included", "again"):
        begin, wall = time.process_time(), time.perf_counter()
        fits = jc.fit_batch(lambda p, y, t: peak(p, t) - y, starts, args=(data,), shared=(T,))
        used, waited = time.process_time() - begin, time.perf_counter() - wall
        print(
            f"batch of {count}, {when}: {1e6 * waited / count:.1f} microseconds a fit, "
            f"{1e6 * used / count:.1f} of CPU; {fits}"
        )


def broyden(x):
    padded = np.concatenate(([0.0], x, [0.0]))
    return (3.0 - 2.0 * x) * x - padded[:-2] - 2.0 * padded[2:] + 1.0


def roots(n: int = 100_000) -> None:
    """Broyden's tridiagonal function, every solver with its defaults."""
    start = np.full(n, -1.0)
    solve, krylov = Root(broyden), Root(broyden, method="krylov")
    pattern = sparse.diags_array([np.ones(n - 1), np.ones(n), np.ones(n - 1)], offsets=[-1, 0, 1])
    exact = jc.jacobian(broyden, format="csr")
    calls: dict[str, Callable[[], object]] = {
        "jacana root": lambda: solve(start),
        "jacana root krylov": lambda: krylov(start),
        "scipy root krylov": lambda: scipy.optimize.root(broyden, start, method="krylov"),
        "scipy least_squares, pattern": lambda: scipy.optimize.least_squares(broyden, start, jac_sparsity=pattern),
        "scipy least_squares, jacana J": lambda: scipy.optimize.least_squares(broyden, start, jac=exact),
    }
    print(f"root of Broyden's tridiagonal function, n = {n}, milliseconds of CPU after recording:")
    ours = 0.0
    for name, call in calls.items():
        try:
            worst = float(np.abs(call().fun).max())
        except ValueError as error:
            print(f"  {name:30} fails: {error}")
            continue
        used = seconds(call)
        ours = ours or used
        print(f"  {name:30} {1e3 * used:8.0f}   {used / ours:5.1f} times, largest residual {worst:.0e}")


def bundle() -> None:
    begin = time.process_time()
    problem = bal.load()
    loaded = time.process_time()
    fit = jc.least_squares(problem.residual, problem.x0)
    used = time.process_time() - loaded
    print(f"bundle adjustment: cost {fit.history.cost[0]:.6g} -> {fit.cost:.8g} in {fit.nit} steps")
    print(f"  {loaded - begin:.2f} s reading, {used:.2f} s fit with recording and compilation; {fit.message}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", type=Path, help="a page with the marks of the tables")
    page = parser.parse_args().write
    tables = {"nist": nist_table(run_all()), "mgh": garbow_hillstrom_table()}
    if page is not None:
        text = page.read_text(encoding="utf-8")
        for name, table in tables.items():
            begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
            body = f"{begin}\n\n{table}\n\n{end}"
            text = re.sub(f"{begin}.*?{end}", lambda _, body=body: body, text, flags=re.S)
        page.write_text(text, encoding="utf-8")
        print(f"written: {page}")
        return
    print(*tables.values(), sep="\n\n")
    small_fit()
    batch()
    roots()
    bundle()


if __name__ == "__main__":
    main()

"""The first fit of a model in a fresh process, jacana's and SciPy's: what somebody waits for who fits once.

    python benchmarks/fresh_fits.py                  # every fit, three processes each
    python benchmarks/fresh_fits.py ode logistic     # those whose name contains a word
    python benchmarks/fresh_fits.py --profile ode    # where jacana's time goes

Each line is the median of some processes, with an empty cache: the first call, with everything that it takes to record,
derive, plan and search, and a second one from another start or on other data, as a user would write it (nothing is
kept by hand from the first). SciPy gets the same function and start, no Jacobian, its default method (with
bounds: its own default with bounds). Imports are not counted; a line says what they take.
"""

from __future__ import annotations

import cProfile
import json
import os
import pstats
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

SEED = 1


@dataclass(frozen=True)
class Fit:
    """A fit by jacana and by SciPy.

    Attributes:
        ours, theirs: from the number of the data set (0 or 1) to the cost and the answer.
    """

    title: str
    ours: Callable[[int], tuple[float, Any]]
    theirs: Callable[[int], tuple[float, Any]]


def noise(number: int, size: int) -> np.ndarray:
    return np.random.default_rng(SEED + number).standard_normal(size)


# ---- curves ----------------------------------------------------------------------------------------------------------


def enzyme() -> Fit:
    """Michaelis and Menten with competitive inhibition, 40 points, 3 parameters."""
    s, i = np.tile(np.geomspace(0.1, 20.0, 10), 4), np.repeat([0.0, 0.5, 1.0, 3.0], 10)

    def rate(x, top, half, inhibition):
        substrate, inhibitor = x
        return top * substrate / (half * (1.0 + inhibitor / inhibition) + substrate)

    return curve("enzyme kinetics, inhibited", rate, np.stack([s, i]), [5.0, 1.2, 0.7], [1.0, 1.0, 1.0], 0.05)


def peaks() -> Fit:
    """Three Gaussian peaks on a sloping ground, 400 points, 11 parameters."""
    x = np.linspace(0.0, 10.0, 400)

    def spectrum(x, *p):
        total = p[0] + p[1] * x
        for k in range(2, 11, 3):
            total = total + p[k] * np.exp(-0.5 * ((x - p[k + 1]) / p[k + 2]) ** 2)
        return total

    truth = [0.5, 0.1, 3.0, 2.0, 0.4, 2.0, 5.0, 0.7, 4.0, 7.5, 0.5]
    return curve("three Gaussian peaks", spectrum, x, truth, [0, 0, 2, 1.8, 0.5, 2, 5.2, 0.5, 2, 7.2, 0.5], 0.05)


def curve(title: str, model: Any, x: np.ndarray, truth: list[float], start: list[float], size: float) -> Fit:
    import scipy.optimize

    clean = model(x, *truth)

    def fitted(fit: Callable[..., Any], number: int) -> tuple[float, Any]:
        y = clean + size * noise(number, clean.size)
        p, _ = fit(model, x, y, p0=start)
        return 0.5 * float(np.sum((model(x, *p) - y) ** 2)), p

    def ours(number: int) -> tuple[float, Any]:
        import jacana

        return fitted(jacana.curve_fit, number)

    return Fit(title, ours, lambda number: fitted(scipy.optimize.curve_fit, number))


# ---- residuals -------------------------------------------------------------------------------------------------------


def residuals(title: str, residual_of: Callable[[int], Any], start: Any, bounds: Any = None) -> Fit:
    """`residual_of` makes the residual of a data set."""
    import scipy.optimize

    def ours(number: int) -> tuple[float, Any]:
        import jacana

        fit = jacana.least_squares(residual_of(number), np.asarray(start, dtype=float), bounds=bounds)
        return fit.cost, fit.x

    def theirs(number: int) -> tuple[float, Any]:
        given = {} if bounds is None else {"bounds": bounds}
        fit = scipy.optimize.least_squares(residual_of(number), np.asarray(start, dtype=float), **given)
        return float(fit.cost), fit.x

    return Fit(title, ours, theirs)


def predators_and_prey(state, p):
    prey, predators = state
    return np.stack([p[0] * prey - p[1] * prey * predators, p[2] * prey * predators - p[3] * predators])


ODE_TRUTH = np.array([1.1, 0.4, 0.1, 0.4])


def runge_kutta() -> Fit:
    """Lotka and Volterra by Runge and Kutta's method in a plain loop, 150 steps, 4 parameters."""
    h, steps = 0.1, 150

    def path(p):
        state = np.array([10.0, 5.0])
        out = []
        for _ in range(steps):
            k1 = predators_and_prey(state, p)
            k2 = predators_and_prey(state + 0.5 * h * k1, p)
            k3 = predators_and_prey(state + 0.5 * h * k2, p)
            k4 = predators_and_prey(state + h * k3, p)
            state = state + h / 6.0 * (k1 + 2.0 * k2 + 2.0 * k3 + k4)
            out.append(state)
        return np.stack(out)

    clean = path(ODE_TRUTH)

    def residual_of(number):
        data = clean + 0.1 * noise(number, clean.size).reshape(clean.shape)
        return lambda p: (path(p) - data).ravel()

    return residuals("ODE, Runge-Kutta in a loop", residual_of, [1.0, 0.3, 0.12, 0.5])


def runge_kutta_numbers() -> Fit:
    """The same, written number by number as many do, with an `append` for each quantity."""
    h, steps = 0.1, 150

    def rates(x, y, a, b, c, d):
        return a * x - b * x * y, c * x * y - d * y

    def path(p):
        a, b, c, d = p
        x, y, out = 10.0, 5.0, []
        for _ in range(steps):
            x1, y1 = rates(x, y, a, b, c, d)
            x2, y2 = rates(x + 0.5 * h * x1, y + 0.5 * h * y1, a, b, c, d)
            x3, y3 = rates(x + 0.5 * h * x2, y + 0.5 * h * y2, a, b, c, d)
            x4, y4 = rates(x + h * x3, y + h * y3, a, b, c, d)
            x = x + h / 6.0 * (x1 + 2.0 * x2 + 2.0 * x3 + x4)
            y = y + h / 6.0 * (y1 + 2.0 * y2 + 2.0 * y3 + y4)
            out.append(x)
            out.append(y)
        return np.array(out)

    clean = path(ODE_TRUTH)

    def residual_of(number):
        data = clean + 0.1 * noise(number, clean.size)
        return lambda p: path(p) - data

    return residuals("the same, number by number", residual_of, [1.0, 0.3, 0.12, 0.5])


def integrated() -> Fit:
    """Lotka and Volterra by SciPy's solve_ivp, 60 times, 4 parameters."""
    import scipy.integrate

    times = np.linspace(0.0, 15.0, 61)[1:]

    def path(p):
        def rates(t, state):
            return predators_and_prey(state, p)

        return scipy.integrate.solve_ivp(
            rates, (0.0, 15.0), np.array([10.0, 5.0]), t_eval=times, rtol=1e-8, atol=1e-8
        ).y

    clean = path(ODE_TRUTH)

    def residual_of(number):
        data = clean + 0.1 * noise(number, clean.size).reshape(clean.shape)
        return lambda p: (path(p) - data).ravel()

    return residuals("ODE, solve_ivp", residual_of, [1.0, 0.3, 0.12, 0.5])


def calibration() -> Fit:
    """One camera, 8 pictures of a board of 9 x 6 points: 5 numbers of the camera, 6 of each pose, 864 residuals."""
    board = np.stack([*np.meshgrid(np.arange(9.0), np.arange(6.0)), np.zeros((6, 9))], -1).reshape(-1, 3) * 0.03
    rng = np.random.default_rng(3)
    poses = np.concatenate(
        [0.3 * rng.standard_normal((8, 3)), rng.uniform(-0.1, 0.1, (8, 3)) + np.array([-0.1, -0.1, 0.8])], 1
    )
    truth = np.concatenate([[800.0, 320.0, 240.0, -0.2, 0.05], poses.ravel()])

    def pictures(x):
        focal, cx, cy, k1, k2 = x[0], x[1], x[2], x[3], x[4]
        pose = x[5:].reshape(8, 6)
        w, t = pose[:, None, :3], pose[:, None, 3:]
        angle = np.sqrt(np.sum(w**2, axis=-1, keepdims=True) + 1e-30)
        axis = w / angle
        crossed = np.cross(axis, board)
        along = np.sum(axis * board, axis=-1, keepdims=True)
        turned = np.cos(angle) * board + np.sin(angle) * crossed + (1.0 - np.cos(angle)) * along * axis + t
        u = turned[..., :2] / turned[..., 2:]
        square = np.sum(u**2, axis=-1, keepdims=True)
        bent = u * (1.0 + k1 * square + k2 * square**2)
        return focal * bent + np.stack([cx, cy])

    clean = pictures(truth)
    start = truth * (1.0 + 0.05 * np.sin(np.arange(truth.size)))

    def residual_of(number):
        data = clean + 0.2 * noise(number, clean.size).reshape(clean.shape)
        return lambda x: (pictures(x) - data).ravel()

    return residuals("camera calibration", residual_of, start)


def circle() -> Fit:
    """A circle through 50 points, distances as residuals, 3 parameters."""
    angle = np.linspace(0.0, 4.0, 50)

    def residual_of(number):
        points = np.stack([2.0 + 3.0 * np.cos(angle), 1.0 + 3.0 * np.sin(angle)], 1)
        points = points + 0.05 * noise(number, 100).reshape(50, 2)
        return lambda p: np.hypot(points[:, 0] - p[0], points[:, 1] - p[1]) - p[2]

    return residuals("circle", residual_of, [0.0, 0.0, 1.0])


def ellipsoid() -> Fit:
    """An ellipsoid with free axes through 300 points in space (a magnetometer's calibration), 9 parameters."""
    rng = np.random.default_rng(4)
    points = rng.standard_normal((300, 3))
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    shape = np.array([[1.2, 0.1, -0.05], [0.0, 0.9, 0.07], [0.0, 0.0, 1.1]])

    def residual_of(number):
        seen = np.linalg.solve(shape, points.T).T + [0.2, -0.1, 0.3] + 0.01 * noise(number, 900).reshape(300, 3)

        def residual(p):
            matrix = np.array([[p[0], p[1], p[2]], [0.0, p[3], p[4]], [0.0, 0.0, p[5]]])
            return np.linalg.norm((seen - p[6:]) @ matrix.T, axis=1) - 1.0

        return residual

    return residuals("ellipsoid", residual_of, [1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0, 0.0])


def bounded_decay() -> Fit:
    """Two exponentials within bounds, 80 points, 5 parameters."""
    t = np.linspace(0.0, 8.0, 80)
    clean = 2.0 * np.exp(-0.5 * t) + 1.0 * np.exp(-3.0 * t) + 0.2

    def residual_of(number):
        data = clean + 0.01 * noise(number, 80)
        return lambda p: p[0] * np.exp(-p[1] * t) + p[2] * np.exp(-p[3] * t) + p[4] - data

    limits = (np.zeros(5), np.array([10.0, 1.0, 10.0, 20.0, 1.0]))
    return residuals("two exponentials, bounds", residual_of, [1.0, 0.3, 0.5, 2.0, 0.1], limits)


# ---- minima ----------------------------------------------------------------------------------------------------------


def minima(title: str, cost_of: Callable[[int], Any], start: Any) -> Fit:
    import scipy.optimize

    def ours(number: int) -> tuple[float, Any]:
        import jacana

        found = jacana.minimize(cost_of(number), np.asarray(start, dtype=float))
        return float(found.fun), found.x

    def theirs(number: int) -> tuple[float, Any]:
        found = scipy.optimize.minimize(cost_of(number), np.asarray(start, dtype=float))
        return float(found.fun), found.x

    return Fit(title, ours, theirs)


def gaussian_process() -> Fit:
    """Length, height and noise of a Gaussian process on 30 points."""
    x = np.sort(np.random.default_rng(2).uniform(0.0, 10.0, 30))

    def cost_of(number):
        y = np.sin(x) + 0.1 * noise(number, 30)

        def cost(p):
            length, height, jitter = np.exp(p[0]), np.exp(p[1]), np.exp(p[2])
            kernel = height**2 * np.exp(-0.5 * ((x[:, None] - x[None, :]) / length) ** 2) + jitter**2 * np.eye(30)
            factor = np.linalg.cholesky(kernel)
            white = np.linalg.solve(factor, y)
            return 0.5 * white @ white + np.sum(np.log(np.diag(factor)))

        return cost

    return minima("Gaussian process", cost_of, [0.0, 0.0, -1.0])


def logistic() -> Fit:
    """Logistic regression, 500 cases of 8 numbers, with a ridge."""
    rng = np.random.default_rng(5)
    cases = np.concatenate([np.ones((500, 1)), rng.standard_normal((500, 8))], 1)
    truth = rng.standard_normal(9)

    def cost_of(number):
        label = (cases @ truth + noise(number, 500) > 0.0).astype(float)

        def cost(w):
            z = cases @ w
            return np.sum(np.logaddexp(0.0, z) - label * z) + 0.5 * np.sum(w[1:] ** 2)

        return cost

    return minima("logistic regression", cost_of, np.zeros(9))


FITS: dict[str, Callable[[], Fit]] = {
    "enzyme": enzyme,
    "peaks": peaks,
    "bounds": bounded_decay,
    "circle": circle,
    "ellipsoid": ellipsoid,
    "calibration": calibration,
    "ode_loop": runge_kutta,
    "ode_numbers": runge_kutta_numbers,
    "ode_ivp": integrated,
    "gaussian_process": gaussian_process,
    "logistic": logistic,
}


def measured(name: str, who: str) -> dict[str, Any]:
    """In a fresh process: seconds of both calls, and what came out."""
    begin = time.perf_counter()
    import scipy.optimize

    if who == "ours":
        import jacana  # noqa: F401  # fmt: skip
    imported = time.perf_counter() - begin
    fit = FITS[name]()
    call = getattr(fit, who)
    seconds, costs = [], []
    for number in (0, 1):
        begin = time.perf_counter()
        cost, _ = call(number)
        seconds.append(time.perf_counter() - begin)
        costs.append(float(cost))
    assert scipy.optimize is not None
    return {"seconds": seconds, "costs": costs, "import": imported}


def in_a_process(name: str, who: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as cache:
        environment = {**os.environ, "JACANA_CACHE_DIR": cache}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)  # an installed package has its byte code
        done = subprocess.run(
            [sys.executable, __file__, "--measure", name, who],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{name}, {who}: {done.stderr.strip()}")
    return json.loads(done.stdout.splitlines()[-1])


def table(names: list[str], rounds: int = 3) -> str:
    lines = [
        "| first fit of a model | jacana | again | SciPy | again | cost, over SciPy's |",
        "|---|---|---|---|---|---|",
    ]
    imports: dict[str, list[float]] = {"ours": [], "theirs": []}
    for name in names:
        found = {who: [in_a_process(name, who) for _ in range(rounds)] for who in ("ours", "theirs")}
        cells = []
        for who in ("ours", "theirs"):
            cells += [f"{1e3 * median(run['seconds'][k] for run in found[who]):.0f} ms" for k in (0, 1)]
            imports[who] += [run["import"] for run in found[who]]
        ours, theirs = found["ours"][0]["costs"][0], found["theirs"][0]["costs"][0]
        lines.append(f"| {FITS[name]().title} | {' | '.join(cells)} | {ours - theirs:+.1e} |")
        print(lines[-1], file=sys.stderr, flush=True)
    lines += [
        "",
        f"Importing takes {median(imports['ours']):.2f} s with jacana, {median(imports['theirs']):.2f} s without.",
    ]
    return "\n".join(lines)


def main(words: list[str]) -> None:
    if words[:1] == ["--measure"]:
        print(json.dumps(measured(words[1], words[2])))
        return
    profile = "--profile" in words
    words = [word for word in words if word != "--profile"]
    names = [name for name in FITS if not words or any(word in name for word in words)]
    if not profile:
        print(table(names))
        return
    import jacana  # noqa: F401

    for name in names:
        fit, profiler = FITS[name](), cProfile.Profile()
        profiler.runcall(fit.ours, 0)
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)


if __name__ == "__main__":
    main(sys.argv[1:])

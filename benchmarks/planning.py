"""How long planning takes: milliseconds for 20 recorded nodes, without recording and without machine code.

    python benchmarks/planning.py                 # every program
    python benchmarks/planning.py arm nist        # those whose name contains a word
    python benchmarks/planning.py --profile arm   # and where the time goes

Planning is everything between the recording of a program and its first number: elimination, the plan of the format,
simplification and the steps of the numpy executor; each round solves every join of terms anew. "Found again" is what a
second recording of the same program costs: its structure, and a look for the plan.
"""

from __future__ import annotations

import cProfile
import gc
import pstats
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from problems import arm, bundle, elements, mlp, pose_graph, reaction_diffusion
from rich.console import Console
from rich.table import Table

import jacana as jc
from jacana.datasets import nist
from jacana.graph.garbage import seldom_collected
from jacana.graph.node import topological
from jacana.graph.simplify import simplify
from jacana.plans import planned
from jacana.run import Program, compile_numpy
from jacana.structure import joining

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))


@dataclass(frozen=True)
class Case:
    """A transform of a program, and where it is recorded."""

    name: str
    transform: Any
    arguments: tuple[Any, ...]


def brusselator(state: Any) -> Any:
    """Rates of the two concentrations of a Brusselator on a square with periodic edges; state: (2, n, n)."""
    u, v = state

    def laplacian(c: Any) -> Any:
        return np.roll(c, 1, 0) + np.roll(c, -1, 0) + np.roll(c, 1, 1) + np.roll(c, -1, 1) - 4.0 * c

    reaction = u * u * v
    return np.stack([1.0 + reaction - 4.4 * u + 0.1 * laplacian(u), 3.4 * u - reaction + 0.1 * laplacian(v)])


def scalar_loop(p: Any) -> Any:
    """800 explicit steps of a damped oscillator, scalar by scalar."""
    x, v = p[0], p[1]
    for _ in range(800):
        x, v = x + 0.01 * v, v - 0.01 * (p[2] * x + 0.1 * v * v)
    return np.stack([x, v])


def rosenbrock(x: Any) -> Any:
    return np.sum(100.0 * (x[1:] - x[:-1] ** 2) ** 2 + (1.0 - x[:-1]) ** 2)


def rolled(x: Any, steps: int = 100) -> Any:
    """Steps whose Jacobian gains a diagonal each."""
    for _ in range(steps):
        x = x + 0.1 * np.sin(x) * np.roll(x, 1)
    return x


def padded_heat(u: Any, steps: int = 200) -> Any:
    """Explicit steps of the heat equation on a line, a ghost cell at each end."""
    for _ in range(steps):
        ghost = np.pad(u, 1, mode="edge")
        u = u + 0.2 * (ghost[2:] - 2.0 * u + ghost[:-2])
    return u


def burgers(u: Any, steps: int = 60) -> Any:
    """Explicit steps of the viscous Burgers equation; the ends are held."""
    for _ in range(steps):
        inner = u[1:-1] - 0.1 * u[1:-1] * (u[2:] - u[:-2]) + 0.1 * (u[2:] - 2.0 * u[1:-1] + u[:-2])
        u = np.concatenate([u[:1], inner, u[-1:]])
    return u


def cases() -> Iterator[Case]:
    """Programs that people write."""
    rng = np.random.default_rng(0)
    yield Case("arm, dense", jc.jacobian(arm.forward), (rng.uniform(size=6),))
    for name, problem in (
        ("bundle adjustment, csr", bundle.problem()),
        ("reaction-diffusion 20k, csr", reaction_diffusion.problem(20_000, "")),
        ("mlp, dense", mlp.problem()),
        ("pose graph of 9 poses in space, csr", pose_graph.problem("tinyGrid3D", "")),
        ("finite elements, csr", elements.problem(21, "")),
    ):
        yield Case(name, jc.jacobian(problem.function, format=problem.format), (problem.inputs[0],))
    for size in (12, 32):
        yield Case(
            f"brusselator 2-D {size}x{size}, csr",
            jc.jacobian(brusselator, format="csr"),
            (rng.uniform(size=(2, size, size)),),
        )
    for name in nist.names():
        problem = nist.load(name)
        yield Case(f"nist {name}, dense", jc.jacobian(problem.residual), (problem.starts[0],))
    yield Case("scalar loop of 800 steps, dense", jc.jacobian(scalar_loop), (rng.uniform(size=3),))
    yield Case("scalar loop of 800 steps, gradient", jc.grad(lambda p: np.sum(scalar_loop(p))), (rng.uniform(size=3),))
    yield Case("rosenbrock 1000, csr hessian", jc.hessian(rosenbrock, format="csr"), (rng.uniform(size=1000),))
    yield Case("rosenbrock 1000, gradient", jc.grad(rosenbrock), (rng.uniform(size=1000),))
    for name, function in (("rolled", rolled), ("padded heat", padded_heat), ("burgers", burgers)):
        start = (rng.uniform(size=300),)
        yield Case(f"loop {name} 300, dense", jc.jacobian(function), start)
        yield Case(f"loop {name} 300, csr", jc.jacobian(function, format="csr"), start)
        yield Case(f"loop {name} 300, gradient", jc.grad(lambda u, f=function: np.sum(f(u) ** 2)), start)


def random_plans(count: int) -> Iterator[tuple[int, Callable[[], Any]]]:
    """The random graphs of the tests."""
    from support import grow

    from jacana.differentiate import dense_jacobians

    for seed in range(count):
        program = grow(seed, 12)
        if program is not None:

            def plan(program: Any = program) -> Any:
                nodes = [j for row in dense_jacobians(program.outputs, program.inputs) for j in row]
                return compile_numpy(Program(tuple(program.inputs), tuple(simplify(nodes))))

            yield len(topological(program.outputs)), plan


def plan(case: Case) -> tuple[int, Callable[[], Any], Callable[[], Any]]:
    """The number of recorded nodes, what plans them, and what finds the plan again."""
    replay = case.transform._replay
    recording, traced = replay.trace(case.arguments, {})

    def work() -> Any:
        with seldom_collected():
            built = replay.build(traced)
            return compile_numpy(Program(tuple(recording.inputs), tuple(simplify(built.nodes))))

    def again() -> Any:
        return planned(replay.build, traced, None)

    return len(topological(traced.outputs)), work, again


def fastest(work: Callable[[], Any], rounds: int) -> float:
    """Seconds of the processor in the fastest round, each on nodes made anew: others may use the machine as well."""
    best = np.inf
    begun = time.perf_counter()
    for _ in range(rounds):
        gc.collect()
        joining.forget()
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
        if time.perf_counter() - begun > 5.0:
            break
    return best


def main(
    words: Annotated[list[str] | None, typer.Argument(help="programs whose name contains one of these")] = None,
    rounds: Annotated[int, typer.Option(help="rounds, of which the fastest counts")] = 7,
    profile: Annotated[bool, typer.Option(help="print where the time goes")] = False,
) -> None:
    """Print a table of planning times."""
    table = Table("program", "nodes", "ms", "ms for 20 nodes", "ms found again")
    wanted = words or [""]
    profiler = cProfile.Profile()
    nist_total = [0.0, 0.0]
    for case in cases():
        if not any(word in case.name for word in wanted):
            continue
        nodes, work, again = plan(case)
        seconds = fastest(work, rounds)
        again()
        found = fastest(again, rounds)
        if profile:
            profiler.runcall(work)
        if case.name.startswith("nist"):
            nist_total = [nist_total[0] + nodes, nist_total[1] + seconds]
            continue
        table.add_row(
            case.name, str(nodes), f"{seconds * 1e3:.2f}", f"{seconds * 2e4 / nodes:.2f}", f"{found * 1e3:.2f}"
        )
    if nist_total[0]:
        nodes, seconds = nist_total
        table.add_row("nist, all models, dense", f"{nodes:.0f}", f"{seconds * 1e3:.2f}", f"{seconds * 2e4 / nodes:.2f}")
    if any(word in "random graphs, dense" for word in wanted):
        plans = list(random_plans(60))
        nodes = sum(n for n, _ in plans)
        seconds = sum(fastest(partial(work), min(rounds, 3)) for _, work in plans)
        if profile:
            for _, work in plans:
                profiler.runcall(work)
        table.add_row("random graphs, dense", str(nodes), f"{seconds * 1e3:.2f}", f"{seconds * 2e4 / nodes:.2f}")
    Console(width=100).print(table)
    if profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(35)


if __name__ == "__main__":
    typer.run(main)

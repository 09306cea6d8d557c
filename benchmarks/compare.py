"""jacana and its peers on the same problems, in the same run.

    python benchmarks/compare.py                            # everything
    python benchmarks/compare.py --problem arm --rounds 40  # one problem
    python benchmarks/compare.py --write docs/benchmarks.md # and keep the tables

See README.md beside this file for what is measured and how.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
from measure import first_answer, measure
from problems import (
    Problem,
    arm,
    brusselator,
    bundle,
    burgers,
    elements,
    fits,
    mlp,
    per_sample,
    pose_graph,
    rank_one,
    reaction_diffusion,
    rosenbrock,
    steps,
)
from rich.console import Console
from tables import keep, machine, page, section, show

PROBLEMS: dict[str, Callable[[str], Problem]] = {
    "arm": lambda name: arm.problem(),
    "many_arms": fits.arms_problem,
    "small_fit": fits.small_problem,
    "logistic": fits.loss_problem,
    "loop": steps.loop_problem,
    "scan": steps.scan_problem,
    "bundle": lambda name: bundle.problem(),
    "reaction_diffusion_20k": partial(reaction_diffusion.problem, 20_000),
    "reaction_diffusion_1m": partial(reaction_diffusion.problem, 1_000_000),
    "mlp": lambda name: mlp.problem(),
    "brusselator_32": partial(brusselator.problem, 32),
    "brusselator_256": partial(brusselator.problem, 256),
    "burgers": partial(burgers.problem, 100_000),
    "pose_graph_grid": partial(pose_graph.problem, "tinyGrid3D"),
    "pose_graph_intel": partial(pose_graph.problem, "intel"),
    "pose_graph_sphere": partial(pose_graph.problem, "sphere"),
    "elements_101": partial(elements.problem, 101),
    "elements_401": partial(elements.problem, 401),
    "per_sample_small": partial(per_sample.inputs_problem, 256, (8, 16, 4)),
    "per_sample": partial(per_sample.inputs_problem, 4096, (64, 128, 16)),
    "by_weights_small": partial(per_sample.weights_problem, 32, (8, 16, 4)),
    "by_weights": partial(per_sample.weights_problem, 64, (64, 128, 16)),
    "rosenbrock_10k": partial(rosenbrock.problem, 10_000),
    "rosenbrock_1m": partial(rosenbrock.problem, 1_000_000),
    "rank_one_dense": partial(rank_one.problem, 1000, "dense"),
    "rank_one_csr": partial(rank_one.problem, 1000, "csr"),
    "rank_one_operator": partial(rank_one.operator_problem, 1_000_000),
}


def main(
    problem: Annotated[list[str] | None, typer.Option(help=f"one of {', '.join(PROBLEMS)}; may be repeated")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 25,
    first_answers: Annotated[int, typer.Option(min=0, help="fresh processes for each first answer; 0 for none")] = 3,
    write: Annotated[
        Path | None, typer.Option(help="write the tables to this markdown file, with the last of what was not run")
    ] = None,
    first_answer_of: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Compare jacana with its peers."""
    names = problem or list(PROBLEMS)
    unknown = [name for name in names if name not in PROBLEMS]
    if unknown:
        raise typer.BadParameter(f"no problem is called {unknown[0]!r}; there are: {', '.join(PROBLEMS)}")
    if first_answer_of:
        print(json.dumps(first_answer(PROBLEMS[names[0]](names[0]), first_answer_of)))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for line in machine():
        console.print(line, style="dim")
    for name in names:
        chosen = PROBLEMS[name](name)
        with console.status(name) as status:
            results = measure(chosen, rounds, first_answers, status.update)
        measured = section(chosen, results, rounds)
        show(console, measured)
        if write:
            kept = keep([measured])
            write.write_text(page([kept[name] for name in PROBLEMS if name in kept]), encoding="utf-8")
    if write:
        console.print(f"written: {write}")


if __name__ == "__main__":
    typer.run(main)

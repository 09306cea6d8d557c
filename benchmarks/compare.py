"""jacana and its peers on the same problems, in the same run.

    python benchmarks/compare.py                            # everything
    python benchmarks/compare.py --problem arm --rounds 40  # one problem
    python benchmarks/compare.py --write docs/benchmarks.md # and keep the tables

See README.md beside this file for what is measured and how.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib import metadata
from math import isnan
from os import cpu_count
from pathlib import Path
from typing import Annotated

import typer
from measure import TOLERANCE, Result, first_answer, measure, rival
from problems import Problem, arm, bundle, mlp, reaction_diffusion
from rich.console import Console
from rich.table import Table

PROBLEMS: dict[str, Callable[[], Problem]] = {
    "arm": arm.problem,
    "bundle": bundle.problem,
    "reaction_diffusion_20k": partial(reaction_diffusion.problem, 20_000, "reaction_diffusion_20k"),
    "reaction_diffusion_1m": partial(reaction_diffusion.problem, 1_000_000, "reaction_diffusion_1m"),
    "mlp": mlp.problem,
}
PACKAGES = ("jacana", "numpy", "scipy", "llvmlite", "jax", "jaxlib", "casadi", "asdex")
COLUMNS = ("who", "median", "fastest", "who / jacana", "preparation", "first answer", "disagreement")
JUDGED = "jacana, auto"
"""The contender the targets are checked on: what a user gets who chooses no executor."""


@dataclass(frozen=True)
class Verdict:
    """One target and what came of it."""

    promise: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        return f"target {self.promise}: {self.measured}, {word}"


def duration(seconds: float) -> str:
    """Seconds with a unit that suits them."""
    if isnan(seconds):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def row(result: Result, ours: Result | None) -> tuple[str, ...]:
    """The cells of one contender, in the order of COLUMNS."""
    name = result.contender.name
    if result.skipped:
        return (name, "skipped", *[""] * (len(COLUMNS) - 2))
    ratio = f"{result.median / ours.median:.2f}" if ours and ours.agrees and result.agrees else "-"
    return (
        name,
        duration(result.median),
        duration(result.minimum),
        ratio,
        duration(result.preparation),
        duration(result.first_answer),
        f"{result.error:.1e}" + ("" if result.agrees else " (does not count)"),
    )


def verdicts(problem: Problem, results: Sequence[Result]) -> list[Verdict]:
    """What the targets of a problem say about the results."""
    ours = next((r for r in results if r.contender.name == JUDGED and r.agrees), None)
    target, other = problem.target, rival(results)
    found = []
    if target.ratio is not None:
        promise = f"at least {target.ratio:g} times as fast as the best rival"
        if ours and other:
            ratio = other.median / ours.median
            found.append(Verdict(promise, f"{ratio:.2f} times ({other.contender.name})", ratio >= target.ratio))
        else:
            found.append(Verdict(promise, "no rival" if ours else "no agreeing answer from jacana", None))
    limits = (
        ("a call", target.microseconds, 1e6, "µs", ours.median if ours else float("nan")),
        ("the first answer", target.first_answer_milliseconds, 1e3, "ms", ours.first_answer if ours else float("nan")),
    )
    for what, limit, scale, unit, seconds in limits:
        if limit is not None:
            met = None if isnan(seconds) else seconds * scale <= limit
            found.append(Verdict(f"{what} in at most {limit:g} {unit}", duration(seconds), met))
    return found


def notes(results: Sequence[Result]) -> list[str]:
    """What a reader should know about the contenders, and why some were skipped."""
    found = []
    for result in results:
        texts = [f"skipped, {result.skipped}"] if result.skipped else [result.contender.note, result.remark]
        found += [f"{result.contender.name}: {text}" for text in texts if text]
    return found


def machine() -> list[str]:
    """The machine and the versions, without names or paths."""
    model = platform.processor() or platform.machine()
    flags: set[str] = set()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                model = value.strip()
            elif key.strip() == "flags":
                flags = set(value.split())
    vectors = next((name for flag, name in (("avx512f", "AVX-512"), ("avx2", "AVX2")) if flag in flags), "")
    versions = []
    for package in PACKAGES:
        try:
            versions.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            versions.append(f"{package} {'(from source)' if package == 'jacana' else 'not installed'}")
    return [
        f"Processor: {model}, {cpu_count()} cores" + (f", {vectors}" if vectors else "") + f"; {platform.system()}",
        f"Python {platform.python_version()}; " + ", ".join(versions),
    ]


def show(console: Console, problem: Problem, results: Sequence[Result]) -> None:
    ours = next((r for r in results if r.contender.name == JUDGED), None)
    table = Table(title=problem.title, title_justify="left")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for result in results:
        table.add_row(*row(result, ours))
    console.print(table)
    for verdict in verdicts(problem, results):
        console.print(str(verdict), style={True: "green", False: "bold red", None: "yellow"}[verdict.met])
    for note in notes(results):
        console.print(f"  {note}", style="dim")
    console.print()


def markdown(problem: Problem, results: Sequence[Result]) -> str:
    ours = next((r for r in results if r.contender.name == JUDGED), None)
    lines = [f"## {problem.title}", "", "| " + " | ".join(COLUMNS) + " |", "|---" + "|---:" * (len(COLUMNS) - 1) + "|"]
    lines += ["| " + " | ".join(row(result, ours)) + " |" for result in results]
    lines += ["", *(f"* {verdict}" for verdict in verdicts(problem, results))]
    lines += [f"* {note}" for note in notes(results)]
    return "\n".join(lines) + "\n"


def page(sections: Sequence[str], rounds: int) -> str:
    """The page that `--write` keeps."""
    head = [
        "# Benchmarks",
        "",
        "Written by `python benchmarks/compare.py --write docs/benchmarks.md`; `benchmarks/README.md` says what is",
        "measured and how. Times depend on the machine; the ratios are what counts.",
        "",
        *(f"* {line}" for line in machine()),
        f"* {rounds} interleaved rounds; the median of the rounds counts. An answer counts if it agrees with the first",
        f"  peer's to {TOLERANCE:g} of the largest entry.",
        '* "who / jacana" is the median time over that of jacana with the executor it chooses itself ("auto").',
        '* "First answer" includes the preparation (tracing, colouring, compiling), in a process of its own in which',
        "  the library is imported and has differentiated something else.",
        "",
    ]
    return "\n".join(head) + "\n" + "\n".join(sections)


def main(
    problem: Annotated[list[str] | None, typer.Option(help=f"one of {', '.join(PROBLEMS)}; may be repeated")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="interleaved rounds")] = 25,
    first_answers: Annotated[int, typer.Option(min=0, help="fresh processes for each first answer; 0 for none")] = 3,
    write: Annotated[Path | None, typer.Option(help="write the tables to this markdown file")] = None,
    first_answer_of: Annotated[str, typer.Option(hidden=True)] = "",
) -> None:
    """Compare jacana with its peers."""
    names = problem or list(PROBLEMS)
    unknown = [name for name in names if name not in PROBLEMS]
    if unknown:
        raise typer.BadParameter(f"no problem is called {unknown[0]!r}; there are: {', '.join(PROBLEMS)}")
    if first_answer_of:
        print(json.dumps(first_answer(PROBLEMS[names[0]](), first_answer_of)))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=140)
    for line in machine():
        console.print(line, style="dim")
    sections = []
    for name in names:
        chosen = PROBLEMS[name]()
        with console.status(name) as status:
            results = measure(chosen, rounds, first_answers, status.update)
        show(console, chosen, results)
        sections.append(markdown(chosen, results))
    if write:
        write.write_text(page(sections, rounds), encoding="utf-8")
        console.print(f"written: {write}")


if __name__ == "__main__":
    typer.run(main)

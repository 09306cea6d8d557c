"""Tables of what was measured: on the terminal, as a page, and kept between runs."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import metadata
from math import isnan
from os import cpu_count
from pathlib import Path

from measure import TOLERANCE, Result, rival
from problems import Problem
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).with_name("results.json")
"""What was measured last for each problem; `--write` adds to it and makes the page from all of it."""

PACKAGES = ("jacana", "numpy", "scipy", "llvmlite", "jax", "jaxlib", "casadi", "asdex", "sparsejac", "torch")
COLUMNS = ("who", "median", "fastest", "who / jacana", "preparation", "first answer", "disagreement")
PREPARATIONS = ("problem", "jacana", "asdex", "asdex / jacana", "sparsejac", "CasADi", "first answer: jacana", "JAX")
JUDGED = "jacana, auto"
"""The contender the targets are checked on: what a user gets who chooses no executor."""
PREPARATION_TARGET = 10.0
"""How many times faster than asdex's detection and colouring jacana's preparation is to be."""

NAN = float("nan")


@dataclass(frozen=True)
class Row:
    """What is kept of one contender; times in seconds, NaN where nothing was measured."""

    name: str
    module: str
    skipped: str = ""
    median: float = NAN
    fastest: float = NAN
    preparation: float = NAN
    first_answer: float = NAN
    error: float = NAN
    notes: tuple[str, ...] = ()

    @property
    def agrees(self) -> bool:
        return not self.skipped and self.error <= TOLERANCE


@dataclass(frozen=True)
class Verdict:
    """One target and what came of it."""

    promise: str
    measured: str
    met: bool | None

    def __str__(self) -> str:
        word = {True: "met", False: "MISSED", None: "not measured"}[self.met]
        return f"target {self.promise}: {self.measured}, {word}"


@dataclass(frozen=True)
class Section:
    """What is kept of one problem."""

    name: str
    title: str
    machine: tuple[str, ...]
    rounds: int
    rows: tuple[Row, ...]
    verdicts: tuple[Verdict, ...]

    def row(self, name: str) -> Row | None:
        return next((row for row in self.rows if row.name == name), None)

    def of(self, module: str) -> Row | None:
        """The contender of a library that prepared fastest."""
        found = [row for row in self.rows if row.module == module and row.agrees and not isnan(row.preparation)]
        return min(found, key=lambda row: row.preparation, default=None)


def section(problem: Problem, results: Sequence[Result], rounds: int) -> Section:
    rows = tuple(
        Row(
            result.contender.name,
            result.contender.module,
            result.skipped,
            result.median,
            result.minimum,
            result.preparation,
            result.first_answer,
            result.error,
            tuple(text for text in (result.contender.note, result.remark) if text),
        )
        for result in results
    )
    return Section(problem.name, problem.title, tuple(machine()), rounds, rows, tuple(verdicts(problem, results)))


def keep(sections: Sequence[Section]) -> dict[str, Section]:
    """Add to the results that are kept, and return them all."""
    kept: dict[str, Section] = {}
    if RESULTS.exists():
        for entry in json.loads(RESULTS.read_text(encoding="utf-8")):
            rows = tuple(
                Row(**{k: NAN if v is None else tuple(v) if k == "notes" else v for k, v in row.items()})
                for row in entry.pop("rows")
            )
            found = tuple(Verdict(**verdict) for verdict in entry.pop("verdicts"))
            kept[entry["name"]] = Section(**entry | {"machine": tuple(entry["machine"])}, rows=rows, verdicts=found)
    kept |= {s.name: s for s in sections}
    entries = [asdict(s) for s in kept.values()]
    for entry in entries:
        entry["rows"] = [{k: None if v != v else v for k, v in row.items()} for row in entry["rows"]]
    RESULTS.write_text(json.dumps(entries, indent=1, ensure_ascii=False, allow_nan=False) + "\n", encoding="utf-8")
    return kept


# --- cells -----------------------------------------------------------------------------------------------------------


def duration(seconds: float) -> str:
    """Seconds with a unit that suits them."""
    if isnan(seconds):
        return "-"
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-6:.3g} µs"


def cells(row: Row, ours: Row | None) -> tuple[str, ...]:
    """The cells of one contender, in the order of COLUMNS."""
    if row.skipped:
        return (row.name, "skipped", *[""] * (len(COLUMNS) - 2))
    ratio = f"{row.median / ours.median:.2f}" if ours and ours.agrees and row.agrees else "-"
    return (
        row.name,
        duration(row.median),
        duration(row.fastest),
        ratio,
        duration(row.preparation),
        duration(row.first_answer),
        f"{row.error:.1e}" + ("" if row.agrees else " (does not count)"),
    )


def verdicts(problem: Problem, results: Sequence[Result]) -> list[Verdict]:
    """What the targets of a problem say about the results."""
    ours = next((r for r in results if r.contender.name == JUDGED and r.agrees), None)
    target, other = problem.target, rival(results)
    found = []
    if target.ratio is not None:
        promise = f"at least {target.ratio:g} times as fast as the best rival"
        if target.ratio == 1.0:
            promise = "at least as fast as the best rival"
        if ours and other:
            ratio = other.median / ours.median
            found.append(Verdict(promise, f"{ratio:.2f} times ({other.contender.name})", ratio >= target.ratio))
        else:
            found.append(Verdict(promise, "no rival" if ours else "no agreeing answer from jacana", None))
    limits = (
        ("a call", target.microseconds, 1e6, "µs", ours.median if ours else NAN),
        ("the first answer", target.first_answer_milliseconds, 1e3, "ms", ours.first_answer if ours else NAN),
    )
    for what, limit, scale, unit, seconds in limits:
        if limit is not None:
            met = None if isnan(seconds) else seconds * scale <= limit
            found.append(Verdict(f"{what} in at most {limit:g} {unit}", duration(seconds), met))
    return found


def notes(rows: Sequence[Row]) -> list[str]:
    """What a reader should know about the contenders, and why some were skipped."""
    found = []
    for row in rows:
        found += [f"{row.name}: {text}" for text in ([f"skipped, {row.skipped}"] if row.skipped else row.notes)]
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


# --- on the terminal -------------------------------------------------------------------------------------------------


def show(console: Console, section: Section) -> None:
    ours = section.row(JUDGED)
    table = Table(title=section.title, title_justify="left")
    for i, column in enumerate(COLUMNS):
        table.add_column(column, justify="right" if i else "left", no_wrap=True)
    for row in section.rows:
        table.add_row(*cells(row, ours))
    console.print(table)
    for verdict in section.verdicts:
        console.print(str(verdict), style={True: "green", False: "bold red", None: "yellow"}[verdict.met])
    for note in notes(section.rows):
        console.print(f"  {note}", style="dim")
    console.print()


# --- as a page -------------------------------------------------------------------------------------------------------


def lined(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in markdown, numbers to the right."""
    head = ["| " + " | ".join(columns) + " |", "|---" + "|---:" * (len(columns) - 1) + "|"]
    return head + ["| " + " | ".join(row) + " |" for row in rows]


def page(kept: Sequence[Section]) -> str:
    """The page that `--write` keeps, made of everything that was measured."""
    first = kept[0]
    head = [
        "# Benchmarks",
        "",
        "Written by `python benchmarks/compare.py --write docs/benchmarks.md`; `benchmarks/README.md` says what is",
        "measured and how. Times depend on the machine; the ratios are what counts.",
        "",
        *(f"* {line}" for line in first.machine),
        f"* {first.rounds} interleaved rounds; the median of the rounds counts. An answer counts if it agrees with the",
        f"  first peer's to {TOLERANCE:g} of the largest entry.",
        '* "who / jacana" is the median time over that of jacana with the executor it chooses itself ("auto").',
        '* "First answer" is everything up to the first result (tracing, colouring, planning, compiling), in a process',
        "  of its own in which the library is imported and has differentiated something else.",
        '* "Preparation" is the part of it before the first evaluation: colouring, or building a function. jacana',
        "  prepares in its first call; its preparation is the first call less a later one.",
        "",
    ]
    body = [summary(kept), preparations(kept), *(markdown(section, first) for section in kept)]
    return "\n".join(head) + "\n" + "\n".join(body)


def summary(kept: Sequence[Section]) -> str:
    """Every problem in one line: how many times slower the fastest contender of each library is."""
    modules = ("jax", "asdex", "sparsejac", "casadi", "torch")
    rows = []
    for s in kept:
        ours = s.row(JUDGED)
        line = [s.title, duration(ours.median) if ours and ours.agrees else "-"]
        for module in modules:
            times = [row.median for row in s.rows if row.module == module and row.agrees and not isnan(row.median)]
            line.append(f"{min(times) / ours.median:.2f}" if times and ours and ours.agrees else "-")
        rows.append(line)
    columns = ("problem", "jacana, a call", "JAX", "asdex", "sparsejac", "CasADi", "PyTorch")
    text = [
        "## Summary",
        "",
        "A call of jacana, and how many times as long the fastest way of each library takes. A dash: not measured, for",
        "a reason that stands with the problem, or not asked of that library.",
        "",
        *lined(columns, rows),
    ]
    return "\n".join(text) + "\n"


def preparations(kept: Sequence[Section]) -> str:
    """jacana's recording and planning beside what the others do before they can evaluate."""
    rows, missed, judged = [], [], 0
    for s in kept:
        ours = s.row(JUDGED)
        if ours is None or isnan(ours.preparation):
            continue
        asdex, sparsejac, casadi = (s.of(module) for module in ("asdex", "sparsejac", "casadi"))
        ratio = asdex.preparation / ours.preparation if asdex else NAN
        if asdex:
            judged += 1
            if ratio < PREPARATION_TARGET:
                missed.append(f"{s.title} ({ratio:.1f})")
        jax = min((row.first_answer for row in s.rows if row.module == "jax" and row.agrees), default=NAN)
        rows.append(
            (
                s.title,
                duration(ours.preparation),
                *(duration(row.preparation) if row else "-" for row in (asdex,)),
                "-" if isnan(ratio) else f"{ratio:.1f}",
                *(duration(row.preparation) if row else "-" for row in (sparsejac, casadi)),
                duration(ours.first_answer),
                duration(jax),
            )
        )
    verdict = (
        f"target at least {PREPARATION_TARGET:g} times as fast as asdex: met in {judged - len(missed)} of {judged}"
        + ("; MISSED: " + "; ".join(missed) if missed else "")
    )
    text = [
        "## Preparation",
        "",
        "What happens once, before the first evaluation. jacana: recording, deriving, planning, laying out the pattern",
        "(the executor it chooses itself). asdex: detecting and colouring the pattern, without JAX's compilation that",
        "follows. sparsejac: colouring a pattern that was given to it. CasADi: building the function. JAX alone has no",
        "such step; its first answer (tracing and compiling, colours and places by hand) stands beside jacana's.",
        "",
        *lined(PREPARATIONS, rows),
        "",
        f"* {verdict}",
    ]
    return "\n".join(text) + "\n"


def markdown(section: Section, first: Section) -> str:
    ours = section.row(JUDGED)
    lines = [f"## {section.title}", "", *lined(COLUMNS, [cells(row, ours) for row in section.rows]), ""]
    lines += [f"* {verdict}" for verdict in section.verdicts]
    lines += [f"* {note}" for note in notes(section.rows)]
    if section.rounds != first.rounds:
        lines.append(f"* {section.rounds} rounds")
    if section.machine != first.machine:
        lines += [f"* {line}" for line in section.machine]
    return "\n".join(lines) + "\n"

"""Measuring: preparation, agreement, steady calls in interleaved rounds, and first answers in fresh processes."""

from __future__ import annotations

import gc
import importlib.util
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import environ
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from problems import Call, Contender, Problem, disagreement

TOLERANCE = 1e-10
"""Largest disagreement with the first peer, relative to the largest entry, for a timing to count."""

EXECUTORS = ("numpy", "native", "auto")


@dataclass
class Result:
    """What was measured for one contender on one problem; times in seconds."""

    contender: Contender
    skipped: str = ""
    remark: str = ""
    preparation: float = float("nan")
    preparations: list[float] = field(default_factory=list)
    first_answers: list[float] = field(default_factory=list)
    steady: list[float] = field(default_factory=list)
    error: float = float("nan")

    @property
    def is_jacana(self) -> bool:
        return self.contender.module == "jacana"

    @property
    def agrees(self) -> bool:
        return not self.skipped and self.error <= TOLERANCE

    @property
    def median(self) -> float:
        return median(self.steady) if self.steady else float("nan")

    @property
    def minimum(self) -> float:
        return min(self.steady, default=float("nan"))

    @property
    def first_answer(self) -> float:
        return median(self.first_answers) if self.first_answers else float("nan")


def jacana_contender(problem: Problem, executor: str) -> Contender:
    """jacana on one executor; "auto" is what a user gets who chooses none."""

    def choose() -> None:
        import jacana as jc

        jc.set_executor(executor)

    def build() -> Call:
        import jacana as jc

        choose()
        if problem.ours is not None:
            return problem.ours()
        return getattr(jc, problem.derivative)(problem.function, format=problem.format)

    return Contender(f"jacana, {executor}", "jacana", build, problem.canonical, enter=choose)


def contenders(problem: Problem) -> tuple[Contender, ...]:
    return problem.peers + tuple(jacana_contender(problem, executor) for executor in EXECUTORS)


def measure(problem: Problem, rounds: int, first_answers: int, say: Callable[[str], None]) -> list[Result]:
    """Every contender of a problem in one process: prepare, compare with the first peer, time in interleaved rounds."""
    results = [Result(contender) for contender in contenders(problem)]
    calls: dict[str, Call] = {}
    reference: list[Any] = []
    for result in results:
        contender = result.contender
        say(f"{problem.name}: preparing {contender.name}")
        if importlib.util.find_spec(contender.module) is None:
            result.skipped = f"{contender.module} is not installed"
            continue
        try:
            start = time.perf_counter()
            call = contender.build()
            if not result.is_jacana:  # which prepares when it is called
                result.preparation = time.perf_counter() - start
            answers = [contender.canonical(call(x)) for x in problem.inputs]
        except Exception as error:
            result.skipped = f"{type(error).__name__}: {error}".splitlines()[0]
            continue
        reference = reference or answers
        result.error = max(disagreement(a, b) for a, b in zip(answers, reference, strict=True))
        calls[contender.name] = call
    running = [result for result in results if not result.skipped]
    for result in running:
        warm_up(result.contender, calls[result.contender.name], problem.inputs)
    counts = {r.contender.name: calibrate(r.contender, calls[r.contender.name], problem.inputs) for r in running}
    for i in range(rounds):
        say(f"{problem.name}: round {i + 1} of {rounds}")
        shift = i % len(running)
        for result in running[shift:] + running[:shift]:
            name = result.contender.name
            result.steady.append(batch(result.contender, calls[name], problem.inputs, counts[name]))
    for result in running:
        # Once more, as some contenders compute in another way once they are warm.
        result.contender.enter()
        answers = [result.contender.canonical(calls[result.contender.name](x)) for x in problem.inputs]
        result.error = max(result.error, *(disagreement(a, b) for a, b in zip(answers, reference, strict=True)))
    for i in range(first_answers):
        for result in running:
            if result.remark or (i and result.contender.slow):
                continue
            say(f"{problem.name}: first answer of {result.contender.name}")
            try:
                preparation, total = first_answer_elsewhere(problem.name, result.contender.name)
            except RuntimeError as error:
                result.remark = str(error)
                continue
            result.preparations.append(preparation)
            result.first_answers.append(total)
    for result in running:
        if result.preparations:
            result.preparation = median(result.preparations)
    return results


def warm_up(contender: Contender, call: Call, inputs: Sequence[Any]) -> None:
    """Call until everything that is made on the way (compiled code, caches, pools) is made."""
    contender.enter()
    seconds = 2.0 if contender.module == "jacana" else 0.3
    start, n = time.perf_counter(), 0
    while n < 3 or time.perf_counter() - start < seconds:
        call(inputs[n % len(inputs)])
        n += 1


def calibrate(contender: Contender, call: Call, inputs: Sequence[Any], seconds: float = 0.03) -> int:
    """How many calls take about `seconds`."""
    n = 1
    while (elapsed := batch(contender, call, inputs, n) * n) < seconds / 2 and n < 100_000:
        n = max(2 * n, min(int(n * seconds / max(elapsed, 1e-9)), 10 * n))
    return n


def batch(contender: Contender, call: Call, inputs: Sequence[Any], n: int) -> float:
    """Mean time of n calls on changing inputs, after one call that is not timed."""
    contender.enter()
    cycle = [inputs[i % len(inputs)] for i in range(n)]
    call(inputs[-1])
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        for x in cycle:
            call(x)
        return (time.perf_counter() - start) / n
    finally:
        gc.enable()


def first_answer(problem: Problem, name: str) -> tuple[float, float]:
    """Preparation and time to the first answer of a contender in this process; its library is warm, the problem new.

    jacana prepares (records, derives, plans, lays out the pattern) in its first call, so that its preparation is the
    first call less the faster of the two that follow.
    """
    contender = next(c for c in contenders(problem) if c.name == name)
    warm_library(contender)
    x = fresh(problem.inputs[0])
    start = time.perf_counter()
    call = contender.build()
    prepared = time.perf_counter() - start
    call(x)
    total = time.perf_counter() - start
    if contender.module == "jacana":
        prepared = max(0.0, total - min(timed(call, x), timed(call, x)))
    return prepared, total


def fresh(x: Any) -> Any:
    """A copy of an input."""
    return tuple(map(np.copy, x)) if isinstance(x, tuple) else np.copy(x)


def timed(call: Call, x: Any) -> float:
    start = time.perf_counter()
    call(x)
    return time.perf_counter() - start


def warm_library(contender: Contender) -> None:
    """Import the library and take the derivative of something small and unrelated, so that imports are not counted."""
    x = np.ones(2)
    match contender.module:
        case "jacana":
            import jacana as jc

            contender.enter()
            jc.jacobian(lambda v: np.exp(v) * v)(x)
        case "jax" | "asdex" | "sparsejac":
            from problems import jax_double, ways

            jax = jax_double()
            jax.jit(jax.jacfwd(lambda v: jax.numpy.exp(v) * v))(x).block_until_ready()
            if contender.module == "asdex":  # whose colouring is compiled when it is first used
                ways.asdex_jacobian(lambda v: jax.numpy.exp(v) * v, 2)(x)
                ways.asdex_jacobian(lambda v: jax.numpy.exp(v[:1]) * v[1:], 2)(x)
                ways.asdex_hessian(lambda v: jax.numpy.sum(jax.numpy.exp(v) * v), 2)(x)
            elif contender.module == "sparsejac":
                ways.sparsejac_forward(lambda v: jax.numpy.exp(v) * v, ways.tridiagonal(2))(x)
        case "torch":
            from problems import torch_double

            torch = torch_double()
            torch.func.vmap(torch.func.jacrev(lambda v: torch.exp(v) * v))(torch.from_numpy(np.ones((3, 2))))
            torch.func.vmap(torch.func.jacfwd(lambda v: torch.exp(v) * v))(torch.from_numpy(np.ones((3, 2))))
        case "casadi":
            import casadi as ca

            v = ca.SX.sym("v", 2)
            ca.Function("warm", [v], [ca.jacobian(ca.exp(v) * v, v)])(x)


def first_answer_elsewhere(problem: str, contender: str) -> tuple[float, float]:
    """`first_answer` in a fresh process, so that neither this one's caches nor a cache on disk can help."""
    script = Path(__file__).with_name("compare.py")
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.run(
            [sys.executable, str(script), "--problem", problem, "--first-answer-of", contender],
            capture_output=True,
            text=True,
            env={**environ, "JACANA_CACHE_DIR": folder, "XDG_CACHE_HOME": folder},
            check=False,
        )
    if process.returncode:
        reason = process.stderr.strip().splitlines()[-1:] or [f"exit status {process.returncode}"]
        raise RuntimeError(f"no first answer in a process of its own: {reason[0]}")
    preparation, total = json.loads(process.stdout.splitlines()[-1])
    return preparation, total


def rival(results: Sequence[Result]) -> Result | None:
    """The fastest peer that the target is set against."""
    peers = [r for r in results if not r.is_jacana and r.contender.counts and r.agrees and r.steady]
    return min(peers, key=lambda r: r.median, default=None)

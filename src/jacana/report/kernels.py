"""The machine code of a program in numbers: loops, operations, bytes, and how long the bytes alone would take."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..graph.index import Lookup
from ..graph.node import LITERAL, Node
from ..plan import Group, Job, Kernel, plan_native
from ..plan.native_plan import requests
from ..run import native_available
from ..transforms import Transformed, jacobian

__all__ = ["kernels_text", "memory_bandwidth"]

PROBE_BYTES = 2**26  # beyond the caches of most machines


def kernels_text(function: Callable[..., Any], argnums: int | Sequence[int], args: Any, kwargs: Any) -> str:
    """One paragraph for each step of the native program of a call."""
    transform = function if isinstance(function, Transformed) else jacobian(function, argnums, format="auto")
    program = transform._replay.program(args, kwargs)
    plan = plan_native(program.outputs)
    lanes = _lanes()
    lines = [f"{transform._replay.verb} of {transform._replay.name}: {len(plan.steps):,} steps"]
    total_bytes = total_operations = 0.0
    for number, step in enumerate(plan.steps, 1):
        if not isinstance(step, Group):
            node = step.node
            lines.append(f"{number}. NumPy: {node.op.name} -> {node.dtype.name}{list(node.shape)}")
            continue
        if len(step.kernels) > 1:
            lines.append(f"{number}. {len(step.kernels):,} kernels, run together in each of {step.tiles:,} tiles")
        for kernel in step.kernels:
            operations, moved, body = _cost(kernel, plan.buffers)
            total_bytes += moved
            total_operations += operations
            vector = bool(kernel.sizes) and kernel.sizes[kernel.lane] >= lanes and not kernel.scalar
            width = f"{lanes} lanes" if vector else "scalar"
            loops = " ".join(f"for {name} in {size:,}:" for name, size in zip("ijklmn", kernel.sizes, strict=False))
            first = f"{number}." if len(step.kernels) == 1 else "  "
            lines.append(f"{first} kernel, {width}: {loops or 'straight-line code'}")
            if kernel.tiles > 1 and len(step.kernels) == 1:
                lines[-1] += f" in {kernel.tiles:,} tiles"
            lines += [f"     {line}" for line in _stores(kernel)]
            lines.append(f"     {body:,} values a point, {operations:,.0f} operations, {_bytes(moved)} moved")
    bandwidth = memory_bandwidth()
    lines.append(
        f"in all {total_operations:,.0f} operations and {_bytes(total_bytes)}; this machine copies "
        f"{bandwidth / 1e9:.1f} GB/s, so memory alone takes {_time(total_bytes / bandwidth)}"
    )
    if total_bytes < PROBE_BYTES / 16:
        lines.append("(arrays as small as these stay in the caches, which are several times faster)")
    if total_bytes:
        lines.append(f"{total_operations / total_bytes:.2g} operations for each byte")
    return "\n".join(lines)


def _lanes() -> int:
    if not native_available():
        return 4
    from ..run.native.engine import machine

    return machine().lanes


def _stores(kernel: Kernel) -> Iterator[str]:
    shown = kernel.jobs[:6]
    for job in shown:
        buffer = job.buffer
        sign = "+=" if job.accumulate else "="
        name = "partial sums" if job.tiled else buffer.op.name
        value = " * ".join(node.op.name for node, _ in job.factors) or "1"
        if job.summed:
            value = f"{job.combine} of {value}"
        points = " x ".join(f"{n:,}" for n in job.domain) or "one point"
        yield f"{name} {buffer.dtype.name}{list(buffer.shape)} {sign} {value} over {points}"
    if len(kernel.jobs) > len(shown):
        yield f"and {len(kernel.jobs) - len(shown):,} more"


def _cost(kernel: Kernel, buffers: set[Node]) -> tuple[float, float, int]:
    """Operations, bytes read and written once, and values computed for each point of the loops."""
    seen: set[tuple[Node, Any]] = set()
    read: set[Node] = set()
    tables: dict[Any, int] = {}
    moved = each = 0.0
    for job in kernel.jobs:
        moved += _stored(job) * job.buffer.dtype.itemsize * (1 + job.accumulate)
        stack = [read for point in job.points() for read in job.reads(point)]
        each += len(job.factors) * len(job.points()) if job.summed else 0  # multiplications and one addition
        while stack:
            node, point = stack.pop()
            if (node, point) in seen:
                continue
            seen.add((node, point))
            if node.op is LITERAL:
                continue
            if node.op.family == "leaf" or (node in buffers and node is not job.buffer and node not in kernel.computed):
                read.add(node)
                continue
            if node.op.name == "index":
                tables.update({e.table: e.table.values.size for e in node.params.indices if isinstance(e, Lookup)})
            needs = requests(node, point)
            each += max(len(needs) - 1, 0) if node.op.name == "contract" else node.op.cost
            stack.extend(needs)
    moved += sum(node.size * node.dtype.itemsize for node in read) + 4 * sum(tables.values())
    return each * float(np.prod(kernel.sizes, dtype=np.float64)), moved, len(seen)


def _stored(job: Job) -> float:
    """How many elements a job writes."""
    kept = [n for axis, n in enumerate(job.domain) if axis not in job.summed]
    return float(job.buffer.size if job.tiled else np.prod(kept, dtype=np.float64))


def _bytes(n: float) -> str:
    for unit in ("B", "kB", "MB"):
        if n < 1000:
            return f"{n:.3g} {unit}"
        n /= 1000
    return f"{n:.3g} GB"


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns"


@functools.cache
def memory_bandwidth() -> float:
    """Bytes a second of a large copy on one thread (read and written), measured once in a process."""
    source, target = np.ones(PROBE_BYTES // 8), np.zeros(PROBE_BYTES // 8)
    best = float("inf")
    for _ in range(4):
        begin = time.perf_counter()
        np.copyto(target, source)
        best = min(best, time.perf_counter() - begin)
    return 2 * PROBE_BYTES / max(best, 1e-9)

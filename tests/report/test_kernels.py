"""What explain says about kernels, and the code itself."""

from __future__ import annotations

import numpy as np
import pytest

import jacana as jc
from jacana.report import kernels

needs_native = pytest.mark.skipif(not jc.native_available(), reason="llvmlite is not installed")


def stencil(u):
    return np.exp(u[1:-1]) * u[2:]


def test_loops_bytes_and_operations(monkeypatch):
    monkeypatch.setattr(kernels, "memory_bandwidth", lambda: 1e10)
    monkeypatch.setattr(kernels, "_lanes", lambda: 8)
    text = jc.explain(jc.compile(stencil), np.ones(1002), level="kernels")
    lines = text.splitlines()
    assert lines[0] == "compile of stencil: 1 steps"
    assert lines[1] == "1. kernel, 8 lanes: for i in 1,000:"
    assert "multiply float64[1000] = multiply over 1,000" in lines[2]
    # 1,000 results are written and 1,002 elements are read: 16,016 bytes
    assert lines[3].endswith("operations, 16 kB moved")
    assert "this machine copies 10.0 GB/s, so memory alone takes 1.6 us" in text


def test_straight_lines_scatters_and_numpy(monkeypatch):
    monkeypatch.setattr(kernels, "memory_bandwidth", lambda: 1e10)
    A = np.random.default_rng(0).normal(size=(90, 80))
    text = jc.explain(jc.compile(lambda x: np.sin(A @ x)), np.ones((80, 70)), level="kernels")
    assert "NumPy: contract" in text
    places = np.arange(120) // 2 * 3

    def scattered(x):
        out = np.zeros(200)
        np.add.at(out, places, x)
        return out

    assert "+=" in jc.explain(jc.compile(scattered), np.ones(120), level="kernels")
    assert "straight-line code" in jc.explain(lambda x: x[0] * x[1:3], np.ones(3), level="kernels")


def test_bandwidth_is_measured_once():
    assert kernels.memory_bandwidth() == kernels.memory_bandwidth() > 0


def test_other_levels_are_refused():
    with pytest.raises(jc.InvalidInputError, match="level must be structure or kernels, not 'atoms'"):
        jc.explain(stencil, np.ones(5), level="atoms")


@needs_native
@pytest.mark.parametrize("transform", [jc.compile(stencil), jc.jacobian(stencil, format="csr")])
def test_llvm_and_assembly(transform):
    assert "define" in transform.llvm(np.ones(100)) and "@kernel0" in transform.llvm(np.ones(100))
    assert "kernel0" in transform.assembly(np.ones(100))


def test_no_llvm_without_llvmlite(monkeypatch):
    from jacana import transforms

    monkeypatch.setattr(transforms, "native_available", lambda: False)
    with pytest.raises(jc.InvalidInputError, match=r"pip install 'jacana\[native\]'"):
        jc.compile(stencil).llvm(np.ones(5))

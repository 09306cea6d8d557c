"""When programs are compiled: on demand, or in the background once they are hot; and threads, forks, the end."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import jacana as jc
from jacana import plans
from jacana.run import background, executors
from jacana.run.executors import Compiled

needs_native = pytest.mark.skipif(not jc.native_available(), reason="llvmlite is not installed")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")

X = np.array([0.5, -1.25, 2.0])


def residual(x: Any) -> Any:
    return np.exp(x[1:]) * x[:-1]


def loss(x: Any) -> Any:
    return np.sum(residual(x) ** 2)


@pytest.fixture
def automatic() -> Iterator[None]:
    with jc.executor("auto"):
        yield


@pytest.fixture
def hot(monkeypatch: Any, automatic: None) -> None:
    """Every program is worth compiling as soon as it has run once, and none has been compiled yet."""
    if jc.native_available():
        from jacana.run.native import executor

        monkeypatch.setattr(executor, "_loaded", OrderedDict())
    monkeypatch.setattr(executors, "COMPILE_SECONDS", 0.0)
    monkeypatch.setattr(executors, "INSTRUCTION_SECONDS", 0.0)
    monkeypatch.setattr(executors, "_in_background", True)


def programs_of(transform: Any) -> list[Compiled]:
    return [path.compiled for paths in transform._replay._paths.values() for path in paths]


# --- on demand


@needs_native
def test_a_compiled_function_gives_what_the_function_gives(automatic):
    def f(x, scale, *, flip=False):
        y = np.cumsum(x) * scale["by"]
        return {"sum": y[::-1] if flip else y, "first": x[0]}

    compiled = jc.compile(f)
    for flip in (False, True, False, True):
        found = compiled(X, {"by": np.array(2.5)}, flip=flip)
        expected = f(X, {"by": np.array(2.5)}, flip=flip)
        assert list(found) == list(expected)
        np.testing.assert_array_equal(found["sum"], expected["sum"])
        np.testing.assert_array_equal(found["first"], expected["first"])
    assert len(programs_of(compiled)) == 2
    assert all(p._native is not None and p._numpy is None for p in programs_of(compiled))
    assert f.__name__ == compiled.__name__


@needs_native
def test_guards_of_a_compiled_function(automatic):
    @jc.compile
    def f(x):
        return np.sqrt(x) if x[0] > 0 else -x

    for start in (1.0, -1.0, 4.0, -4.0):
        x = np.array([start, 9.0])
        np.testing.assert_array_equal(f(x), np.sqrt(x) if start > 0 else -x)
    assert len(programs_of(f)) == 2


@needs_native
def test_a_compiled_function_can_be_differentiated_and_take_integers(automatic):
    compiled = jc.compile(residual)
    np.testing.assert_array_equal(jc.jacobian(compiled)(X), jc.jacobian(residual)(X))
    counts = jc.compile(lambda n, x: x[n] + n.sum())
    np.testing.assert_array_equal(counts(np.array([2, 0]), X), X[[2, 0]] + 2)


TRANSFORMS = {
    "jacobian": lambda **k: jc.jacobian(residual, **k),
    "csr": lambda **k: jc.jacobian(residual, format="csr", **k),
    "value_and_jacobian": lambda **k: jc.value_and_jacobian(residual, **k),
    "grad": lambda **k: jc.grad(loss, **k),
    "value_and_grad": lambda **k: jc.value_and_grad(loss, **k),
    "hessian": lambda **k: jc.hessian(loss, **k),
    "diagonal": lambda **k: jc.diagonal(np.sin, **k),
    "trace": lambda **k: jc.trace(np.sin, **k),
    "jacobian_rows": lambda **k: jc.jacobian_rows(residual, [1], **k),
    "jacobian_columns": lambda **k: jc.jacobian_columns(residual, [0, 2], **k),
    "gauss_newton": lambda **k: jc.gauss_newton(residual, **k),
}


def flattened(result: Any) -> list[Any]:
    if isinstance(result, tuple):
        return [leaf for part in result for leaf in flattened(part)]
    return [result.toarray() if hasattr(result, "toarray") else result]


@needs_native
@pytest.mark.parametrize("name", TRANSFORMS)
def test_compile_is_a_keyword_of_every_transform(name, automatic):
    transform = TRANSFORMS[name](compile=True)
    found = transform(X)
    assert all(p._native is not None and p._numpy is None for p in programs_of(transform))
    with jc.executor("numpy"):
        expected = TRANSFORMS[name]()(X)
    for one, other in zip(flattened(found), flattened(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


@needs_native
@pytest.mark.parametrize("verb", [jc.jvp, jc.vjp])
def test_compiled_products(verb, automatic):
    vector = np.ones(3 if verb is jc.jvp else 2)
    for one, other in zip(verb(residual, compile=True)(X, vector), verb(residual)(X, vector), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


@pytest.mark.parametrize("make", [lambda: jc.compile(residual), lambda: jc.jacobian(residual, compile=True)])
def test_an_explicit_choice_of_numpy_wins(make):
    with jc.executor("numpy"):
        transform = make()
        transform(X)
        assert all(p._native is None for p in programs_of(transform))


def test_without_llvmlite(monkeypatch, automatic):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(jc.InvalidInputError, match=r"jacana.compile needs llvmlite.*pip install 'jacana\[native\]'"):
        jc.compile(residual)
    with pytest.raises(jc.InvalidInputError, match=r"grad\(..., compile=True\) needs llvmlite"):
        jc.grad(loss, compile=True)
    with jc.executor("numpy"):
        np.testing.assert_array_equal(jc.compile(residual)(X), residual(X))


def test_llvmlite_that_does_not_work(monkeypatch, automatic):
    monkeypatch.setattr(executors, "native_available", lambda: False)
    for make in (jc.compile, lambda f: jc.jacobian(f, compile=True)):
        with pytest.raises(jc.InvalidInputError, match="the native executor needs llvmlite"):
            make(lambda x: x if x[0] > 0 else -x)(X)


# --- in the background


@needs_native
def test_hot_programs_are_compiled_in_the_background(hot):
    transform = jc.jacobian(residual)
    expected = transform(X)
    (program,) = programs_of(transform)
    assert program._native is None
    transform(X)
    background.drain()
    assert program._native is not None and program._fastest is None
    np.testing.assert_allclose(transform(X), expected, rtol=1e-14)
    assert program._fastest in (program._native, program._numpy)
    np.testing.assert_allclose(transform(X), expected, rtol=1e-14)


@needs_native
def test_without_the_background_the_hot_call_compiles(hot, monkeypatch):
    monkeypatch.setattr(executors, "_in_background", False)
    monkeypatch.setattr(background, "submit", lambda task: pytest.fail("nothing may go to the background"))
    transform = jc.jacobian(residual)
    transform(X)
    transform(X)
    assert programs_of(transform)[0]._fastest is not None


@needs_native
def test_no_call_waits_for_the_compiler(hot, monkeypatch):
    from jacana.run import native

    begun, finish = threading.Event(), threading.Event()
    compile_native = native.compile_native

    def slow(*given):
        begun.set()
        assert finish.wait(60)
        return compile_native(*given)

    monkeypatch.setattr(native, "compile_native", slow)
    transform = jc.jacobian(residual)
    expected = [transform(X) for _ in range(2)]
    assert begun.wait(60)
    for _ in range(5):
        np.testing.assert_array_equal(transform(X), expected[0])
    assert programs_of(transform)[0]._native is None
    finish.set()
    background.drain()
    np.testing.assert_allclose(transform(X), expected[0], rtol=1e-14)
    assert programs_of(transform)[0]._native is not None


@needs_native
def test_a_program_that_cannot_be_compiled_stays_with_numpy_and_says_so_once(hot, monkeypatch):
    from jacana.run import native

    def broken(*given):
        raise ArithmeticError("no such instruction")

    monkeypatch.setattr(native, "compile_native", broken)
    transform = jc.jacobian(residual)
    expected = transform(X)
    transform(X)
    background.drain()
    with pytest.warns(RuntimeWarning, match="stays with NumPy: ArithmeticError: no such instruction"):
        np.testing.assert_array_equal(transform(X), expected)
    np.testing.assert_array_equal(transform(X), expected)


@needs_native
def test_a_program_that_is_gone_is_not_compiled(hot, monkeypatch):
    from jacana.run import native

    monkeypatch.setattr(native, "compile_native", lambda *given: pytest.fail("nobody wants this any more"))
    with background.compiling:
        transform = jc.jacobian(residual)
        transform(X)
        transform(X)
        del transform
        plans.forget()
    background.drain()


@needs_native
def test_many_threads_while_the_background_compiles(hot):
    transform = jc.jacobian(residual, format="csr")
    points = [np.random.default_rng(k).normal(size=(40,)) for k in range(8)]
    with jc.executor("numpy"):
        expected = [jc.jacobian(residual)(x) for x in points]

    def work(k: int) -> None:
        with jc.executor("auto"):
            for _ in range(50):
                np.testing.assert_allclose(transform(points[k]).toarray(), expected[k], rtol=1e-13)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    background.drain()
    work(0)


def run_script(text: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", text],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, **environment},
        check=False,
    )


HOT = """
import os, sys
import numpy as np
import jacana as jc
from jacana import plans
from jacana.run import background, executors
executors.COMPILE_SECONDS = executors.INSTRUCTION_SECONDS = 0.0
def f(x):
    for _ in range(40):
        x = np.sin(x) * x[::-1] + np.exp(-x)
    return x
x = np.linspace(0.0, 1.0, 6)
J = jc.jacobian(f)
expected = J(x)
J(x)
"""


@needs_native
def test_leaving_while_the_background_compiles():
    done = run_script(HOT + "assert background._thread is not None", JACANA_EXECUTOR="auto", JACANA_BACKGROUND="1")
    assert (done.returncode, done.stderr) == (0, "")


@needs_native
@needs_fork
def test_a_fork_while_the_background_compiles():
    script = HOT + (
        "import warnings; warnings.simplefilter('ignore', DeprecationWarning)\n"  # newer Pythons: fork beside threads
        "child = os.fork()\n"
        "assert np.allclose(J(x), expected)\n"
        "with jc.executor('native'):\n"
        "    assert np.allclose(jc.jacobian(f)(x), expected, rtol=1e-10)\n"
        "for _ in range(3): J(x)\n"
        "background.drain()\n"
        "assert np.allclose(J(x), expected, rtol=1e-10)\n"
        "assert J._replay._paths and [p for ps in J._replay._paths.values() for p in ps][0].compiled._native\n"
        "if child == 0: os._exit(0)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    done = run_script(script, JACANA_EXECUTOR="auto", JACANA_BACKGROUND="1")
    assert (done.returncode, done.stderr) == (0, "")


@needs_native
def test_the_environment_chooses():
    for name, compiled in (("numpy", "False"), ("native", "True"), ("auto", "False")):
        script = (
            "import numpy as np, jacana as jc\n"
            "J = jc.jacobian(lambda x: x[1:] * x[:-1])\n"
            "J(np.ones(3))\n"
            "p = next(iter(J._replay._paths.values()))[0].compiled\n"
            "print(p._native is not None)\n"
        )
        done = run_script(script, JACANA_EXECUTOR=name)
        assert done.stdout.strip() == compiled, done.stderr
    done = run_script("import numpy as np, jacana as jc\njc.jacobian(np.sin)(np.ones(2))", JACANA_EXECUTOR="fast")
    assert "the executor must be one of auto, numpy, native, not 'fast'" in done.stderr


# --- with the other verbs and with recordings around


@needs_native
def test_a_compiled_batch():
    batch = np.arange(12.0).reshape(4, 3) / 10
    transform = jc.vmap(jc.jacobian(residual), compile=True)
    np.testing.assert_allclose(transform(batch), [jc.jacobian(residual)(x) for x in batch], rtol=1e-14)


@needs_native
def test_complex_results_of_compiled_functions():
    z = np.array([1.0 + 2.0j, -0.5j])
    np.testing.assert_allclose(jc.compile(lambda z: z * z)(z), z * z, rtol=1e-14)
    np.testing.assert_allclose(jc.jacobian(lambda z: z * z, compile=True)(z), np.diag(2 * z), rtol=1e-14)


@needs_native
def test_what_a_builtin_depends_on_is_watched_by_the_recording_around_it():
    scale = {"by": 2.0}
    compiled = jc.compile(lambda x: x * scale["by"])
    point = np.array([1.0, 2.0])
    for _ in range(3):
        compiled(point)  # the third call is the builtin's
    outer = jc.jacobian(lambda x: x * compiled(point))
    np.testing.assert_array_equal(outer(np.ones(2)), np.diag([2.0, 4.0]))
    scale["by"] = 3.0
    np.testing.assert_array_equal(outer(np.ones(2)), np.diag([3.0, 6.0]))

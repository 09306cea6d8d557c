"""Copies, pickles, processes, interrupts, deep programs, and memory over many calls."""

from __future__ import annotations

import copy
import gc
import multiprocessing
import os
import pickle
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import jacana as jc

X = np.array([0.1, 0.2, 0.3])


def wave(x):
    return np.sin(x) * x


def loss(x):
    return np.sum(wave(x))


TRANSFORMS = {
    "jacobian": lambda: jc.jacobian(wave),
    "csr": lambda: jc.jacobian(wave, format="csr"),
    "grad": lambda: jc.grad(loss),
    "value_and_grad": lambda: jc.value_and_grad(loss),
    "hessian": lambda: jc.hessian(loss),
    "jvp": lambda: jc.jvp(wave),
    "vjp": lambda: jc.vjp(wave),
    "vmap": lambda: jc.vmap(jc.grad(loss)),
    "compile": lambda: jc.compile(wave),
    "trace": lambda: jc.trace(wave),
}


def flat(value):
    parts = value if isinstance(value, tuple) else (value,)
    return np.concatenate([np.ravel(p.toarray() if hasattr(p, "toarray") else p) for p in parts])


@pytest.mark.parametrize("how", [copy.copy, copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
@pytest.mark.parametrize("name", TRANSFORMS)
def test_transformed_functions_are_copied_and_pickled(name, how):
    made = TRANSFORMS[name]()
    args = (np.stack([X, X]),) if name == "vmap" else (X, np.ones(3)) if name in ("jvp", "vjp") else (X,)
    expected = flat(made(*args))
    np.testing.assert_array_equal(flat(how(made)(*args)), expected)
    np.testing.assert_array_equal(flat(how(TRANSFORMS[name]())(*args)), expected)


def test_leaves_are_pickled_and_results_are_not():
    x = jc.Variable(X)
    again = pickle.loads(pickle.dumps(x))
    np.testing.assert_array_equal(again.data, X)
    y = np.sum(again * again)
    y.backward()
    np.testing.assert_array_equal(again.grad, 2 * X)
    with pytest.raises(jc.RecordingError, match=r"pickle y\.data"):
        pickle.dumps(y)


def _send(queue, derivative):
    queue.put(derivative(X))


@pytest.mark.parametrize("method", sorted({"fork", "spawn"} & set(multiprocessing.get_all_start_methods())))
@pytest.mark.filterwarnings("ignore:This process.*multi-threaded:DeprecationWarning")
def test_other_processes(method):
    context = multiprocessing.get_context(method)
    derivative = jc.jacobian(wave)
    expected = derivative(X)
    queue = context.Queue()
    process = context.Process(target=_send, args=(queue, derivative))
    process.start()
    np.testing.assert_array_equal(queue.get(timeout=120), expected)
    process.join()
    assert process.exitcode == 0


def test_threads_that_record_replay_and_raise_at_once():
    def task(k):
        if k % 5 == 0:
            with pytest.raises(IndexError):
                jc.jacobian(lambda x: x[7])(X)
            return None
        shift = float(k)
        return jc.jacobian(lambda x: np.array([x[0] * shift, np.sum(x) + shift, np.zeros(2)[0] + x[1]]))(X)

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(task, range(120)))
    for k, found in enumerate(results):
        if k % 5:
            np.testing.assert_array_equal(found, [[k, 0, 0], [1, 1, 1], [0, 1, 0]])
    assert type(np.zeros(3)) is np.ndarray


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_an_interrupt_leaves_everything_as_it_was():
    def endless(x):
        while True:
            x = x * 1.0000001

    own = os.path.dirname(jc.__file__)

    def interrupt(_signal, frame):
        # What is raised within a callback of the garbage collector (hypothesis has one) or of a weak reference is lost:
        # there, and where the function has been left, the next signal is waited for.
        while frame is not None and frame.f_code.co_filename.startswith(own) and frame.f_code.co_name != "_forget":
            frame = frame.f_back
        if frame is not None and frame.f_code is endless.__code__:
            raise KeyboardInterrupt

    original = np.zeros
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.3, 0.05)
    try:
        with pytest.raises(KeyboardInterrupt):
            jc.grad(endless)(0.3)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert np.zeros is original
    np.testing.assert_allclose(jc.jacobian(wave)(X).diagonal(), np.cos(X) * X + np.sin(X), rtol=1e-14)


def test_a_program_of_a_hundred_thousand_steps():
    def chain(x):
        y = x
        for k in range(50_000):
            y = np.sin(y) + x if k % 2 else y * 1.0001
        return y

    def slope(x):
        y, d = x, 1.0
        for k in range(50_000):
            y, d = (np.sin(y) + x, np.cos(y) * d + 1.0) if k % 2 else (y * 1.0001, d * 1.0001)
        return d

    np.testing.assert_allclose(jc.grad(chain)(0.3), slope(0.3), rtol=1e-9)


def _objects():
    gc.collect()
    return len(gc.get_objects())


def test_nothing_is_kept_of_many_calls():
    derivative = jc.jacobian(wave)

    def define_by_run():
        v = jc.Variable(X)
        np.sum(np.sin(v) * v).backward()

    for action, count in (
        (lambda: derivative(X), 20_000), (lambda: jc.jacobian(lambda x: np.sin(x) * x)(X), 100), (define_by_run, 200),
    ):  # fmt: skip
        grown = []
        for _ in range(3):  # what is made once (a tier, a look at the kernels on disk) is made in one of these
            before = _objects()
            for _ in range(count):
                action()
            grown.append(_objects() - before)
        assert min(grown) < 50, grown


def test_results_are_repeated_to_the_last_bit():
    code = (
        "import numpy as np, jacana as jc, hashlib\n"
        "x = np.random.default_rng(0).uniform(0.2, 0.9, 40)\n"
        "f = lambda x: np.cumprod(np.sin(x)) @ np.outer(x, x) / np.linalg.norm(x)\n"
        "print(hashlib.sha256(jc.jacobian(f)(x).tobytes()).hexdigest())"
    )
    found = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("0", "1", "2")
    }  # fmt: skip
    assert len(found) == 1


def test_importing_jacana_imports_no_library_that_takes_long():
    code = "import sys, numpy; before = set(sys.modules); import jacana; print(*sorted(set(sys.modules) - before))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    new = {name.partition(".")[0] for name in run.stdout.split()}
    assert not new & {"scipy", "optree", "llvmlite", "opt_einsum", "rich", "typer", "matplotlib", "multiprocessing"}

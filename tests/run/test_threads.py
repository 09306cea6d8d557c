"""Threads: the same bits whatever their number, calls from several threads at once, forks, the setting itself."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import numpy as np
import pytest

import jacana as jc
from jacana.errors import InvalidInputError
from jacana.run import native_available, threads

needs_native = pytest.mark.skipif(not native_available(), reason="llvmlite is not installed")


@pytest.fixture(autouse=True)
def same_number_afterwards():
    before = jc.num_threads()
    yield
    jc.set_num_threads(before)


def loss(w, X, y):
    z = X @ w
    return np.mean(np.logaddexp(0.0, z) - y * z) + np.sum(np.tanh(X) ** 2) + np.max(z)


def rows(X):
    e = np.exp(X - np.max(X, axis=1, keepdims=True))
    return e / np.sum(e, axis=1, keepdims=True)


def data(seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal(50) * 0.1, rng.standard_normal((20_011, 50)), rng.random(20_011)


@needs_native
def test_the_number_of_threads_does_not_change_a_bit():
    w, X, y = data()
    u = np.linspace(0.0, 1.0, 200_000)
    with jc.executor("native"):
        gradient = jc.value_and_grad(loss, argnums=(0, 1))
        stencil = jc.jacobian(lambda u: np.sin(u[2:]) * u[:-2] - u[1:-1] ** 2, format="csr")
        answers = []
        for number in (1, 2, 3, 8):
            jc.set_num_threads(number)
            for _ in range(3):
                value, (by_w, by_X) = gradient(w, X, y)
                answers.append((value.tobytes(), by_w.tobytes(), by_X.tobytes(), stencil(u).data.tobytes()))
    assert len(set(answers)) == 1


@needs_native
def test_calls_from_several_threads_at_once():
    jc.set_num_threads(3)
    w, X, y = data()
    points = [w + k for k in range(6)]
    with jc.executor("native"):
        gradient = jc.grad(loss)
        expected = [gradient(p, X, y) for p in points]
    wrong: list[int] = []

    def work(k: int) -> None:
        with jc.executor("native"):
            for _ in range(15):
                if gradient(points[k], X, y).tobytes() != expected[k].tobytes():
                    wrong.append(k)

    workers = [threading.Thread(target=work, args=(k,)) for k in range(len(points))]
    for worker in workers:
        worker.start()
    for number in (1, 4, 2, 3):  # the pool changes under their feet
        jc.set_num_threads(number)
    for worker in workers:
        worker.join(timeout=120)
        assert not worker.is_alive()
    assert not wrong


@needs_native
@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_forked_child_computes_the_same():
    script = """
import os, sys
import numpy as np
import jacana as jc
jc.set_executor("native")
jc.set_num_threads(3)
x = np.linspace(0.0, 1.0, 300_000)
f = jc.grad(lambda x: np.sum(np.tanh(x) ** 2))
before = f(x).tobytes()
for _ in range(3):
    child = os.fork()
    if child == 0:
        os._exit(0 if f(x).tobytes() == before and f(x).tobytes() == before else 1)
    assert os.waitpid(child, 0)[1] == 0
assert f(x).tobytes() == before
print("done")
"""
    answer = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert answer.stdout.strip() == "done", answer.stderr


def test_the_environment_sets_the_number(monkeypatch):
    monkeypatch.setattr(threads, "_number", None)
    monkeypatch.setenv("JACANA_NUM_THREADS", "5")
    assert jc.num_threads() == 5
    monkeypatch.setattr(threads, "_number", None)
    monkeypatch.setenv("JACANA_NUM_THREADS", "many")
    with pytest.raises(InvalidInputError, match="JACANA_NUM_THREADS must be a whole number of at least 1, not 'many'"):
        jc.num_threads()
    monkeypatch.setattr(threads, "_number", 1)


@pytest.mark.parametrize("number", [0, -2, 1.5, "two", True])
def test_the_number_is_checked(number):
    with pytest.raises(InvalidInputError, match="whole number of at least 1"):
        jc.set_num_threads(number)


@needs_native
def test_results_that_are_held_are_never_written_again():
    x = np.linspace(0.0, 1.0, 100_000)
    with jc.executor("native"):
        f = jc.grad(lambda x: np.sum(np.exp(x) * x))
        first = f(x)
        kept, view = first.copy(), f(x)[10:20]
        for k in range(5):
            f(x + k)
        assert first.tobytes() == kept.tobytes()
        assert view.tobytes() == kept[10:20].tobytes()
        first.flags.writeable = False
        del first, view
        again = f(x)
        assert again.flags.writeable and again.tobytes() == kept.tobytes()

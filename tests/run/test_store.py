"""Compiled programs on disk: found again by structure, in other processes; never trusted, never in the way."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections import OrderedDict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from support import F8, examples, programs

import jacana as jc
from jacana.graph.fingerprint import fingerprint
from jacana.graph.node import new_input
from jacana.run import Program, background, compile_numpy, executors, store

PROGRAM, ENVIRONMENT = b"p" * 24, b"e" * 16
needs_native = pytest.mark.skipif(not jc.native_available(), reason="llvmlite is not installed")
posix = pytest.mark.skipif(not hasattr(os, "getuid"), reason="owners and modes are POSIX")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: Any) -> Path:
    path = tmp_path / "cache"
    monkeypatch.setenv("JACANA_CACHE_DIR", str(path))
    monkeypatch.delenv("JACANA_CACHE_MEGABYTES", raising=False)
    return path


def file_of(folder: Path) -> Path:
    (file,) = folder.glob("*.code")
    return file


# --- files


def test_what_is_kept_is_fetched(folder):
    assert store.fetch(PROGRAM, ENVIRONMENT) is None and not store.may_have(PROGRAM)
    description = {"sources": [None, ["table", 3]], "text": "é"}
    store.keep(PROGRAM, ENVIRONMENT, description, b"\x00code\xff")
    assert store.fetch(PROGRAM, ENVIRONMENT) == (description, b"\x00code\xff")
    assert store.may_have(PROGRAM) and not store.may_have(b"q" * 24)
    assert store.fetch(PROGRAM, b"f" * 16) is None
    (entry,) = store.entries()
    assert entry.path == file_of(folder) and entry.size == entry.path.stat().st_size
    assert store.clear() == 1 and store.entries() == []


@posix
def test_only_the_user_can_read_it(folder):
    store.keep(PROGRAM, ENVIRONMENT, {}, b"code")
    assert folder.stat().st_mode & 0o777 == 0o700
    assert file_of(folder).stat().st_mode & 0o777 == 0o600


def damage(content: bytes) -> list[bytes]:
    flipped = [content[:k] + bytes([content[k] ^ 1]) + content[k + 1 :] for k in range(len(content))]
    return [b"", content[:-1], content + b"x", content[: len(content) // 2], b"ELF" + content, *flipped]


def test_damaged_files_are_ignored_and_removed(folder):
    store.keep(PROGRAM, ENVIRONMENT, {"a": 1}, b"image")
    file = file_of(folder)
    whole = file.read_bytes()
    for broken in damage(whole):
        file.write_bytes(broken)
        assert store.fetch(PROGRAM, ENVIRONMENT) is None
        assert not file.exists()
        store.keep(PROGRAM, ENVIRONMENT, {"a": 1}, b"image")
        assert file.read_bytes() == whole


def test_a_whole_file_under_another_name_is_ignored(folder):
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    file_of(folder).rename(folder / store._name(b"q" * 24, ENVIRONMENT))
    assert store.fetch(b"q" * 24, ENVIRONMENT) is None


@posix
@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602])
def test_files_that_others_can_write_are_ignored(folder, mode):
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    file_of(folder).chmod(mode)
    assert store.fetch(PROGRAM, ENVIRONMENT) is None


@posix
def test_links_and_pipes_are_ignored(folder, tmp_path):
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    file = file_of(folder)
    file.rename(tmp_path / "elsewhere")
    file.symlink_to(tmp_path / "elsewhere")
    assert store.fetch(PROGRAM, ENVIRONMENT) is None
    file.unlink()
    os.mkfifo(file)
    assert store.fetch(PROGRAM, ENVIRONMENT) is None
    assert store.entries() == []


@posix
@pytest.mark.parametrize("mode", [0o777, 0o770, 0o707, 0o1777])
def test_directories_that_others_can_write_are_refused(folder, mode):
    folder.mkdir()
    folder.chmod(mode)
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    assert list(folder.iterdir()) == []
    assert "chmod 700" in str(store.objection(folder))
    folder.chmod(0o700)
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    folder.chmod(mode)
    assert store.fetch(PROGRAM, ENVIRONMENT) is None and not store.may_have(PROGRAM) and store.clear() == 0


@posix
def test_another_users_files_and_directories_are_refused(folder, monkeypatch):
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    monkeypatch.setattr(os, "getuid", lambda: 12345)
    assert store.fetch(PROGRAM, ENVIRONMENT) is None
    assert store.objection(folder) == "it belongs to another user"
    assert store._read(file_of(folder)) is None


def test_a_directory_that_cannot_be_used_is_no_error(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a directory")
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        monkeypatch.setenv("JACANA_CACHE_DIR", str(place))
        store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
        assert store.fetch(PROGRAM, ENVIRONMENT) is None and store.entries() == [] and store.clear() == 0


@pytest.mark.parametrize("off", ["", "0"])
def test_switched_off(off, monkeypatch):
    monkeypatch.setenv("JACANA_CACHE_DIR", off)
    assert store.directory() is None
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    assert store.fetch(PROGRAM, ENVIRONMENT) is None and store.entries() == [] and store.clear() == 0


def test_the_directory_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("JACANA_CACHE_DIR", raising=False)
    monkeypatch.setattr(Path, "home", classmethod(lambda cls: tmp_path))
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    for platform, parts in (
        ("linux", (".cache", "jacana")),
        ("darwin", ("Library", "Caches", "jacana")),
        ("win32", ("AppData", "Local", "jacana", "Cache")),
    ):
        monkeypatch.setattr(sys, "platform", platform)
        assert store.directory() == tmp_path.joinpath(*parts)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert store.directory() == tmp_path / "xdg" / "jacana"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert store.directory() == tmp_path / ".cache" / "jacana"


def test_the_least_recently_used_files_go(folder):
    for k in range(10):
        store.keep(bytes([k]) * 24, ENVIRONMENT, {}, b"x" * 1000)
        os.utime(folder / store._name(bytes([k]) * 24, ENVIRONMENT), (k, k))
    (folder / "notes.txt").write_text("somebody else's")
    assert store.fetch(bytes([2]) * 24, ENVIRONMENT) is not None  # used just now
    total = sum(entry.size for entry in store.entries())
    assert store.prune(folder, total) == 0
    assert store.prune(folder, total // 2) == 6
    assert {entry.name[:2] for entry in store.entries()} == {"02", "07", "08", "09"}
    assert (folder / "notes.txt").exists()


def test_the_limit_is_kept_while_writing(folder, monkeypatch):
    monkeypatch.setattr(store, "PRUNE_EVERY", 1)
    monkeypatch.setenv("JACANA_CACHE_MEGABYTES", "0.01")
    for k in range(30):
        store.keep(bytes([k]) * 24, ENVIRONMENT, {}, b"x" * 1000)
    assert sum(entry.size for entry in store.entries()) <= 0.01 * 2**20
    assert store.fetch(bytes([29]) * 24, ENVIRONMENT) is not None
    monkeypatch.setenv("JACANA_CACHE_MEGABYTES", "many")
    assert store.limit() == store.LIMIT


def test_temporary_files_of_the_dead_are_removed(folder):
    store.keep(PROGRAM, ENVIRONMENT, {}, b"image")
    old, young = folder / ".1-abc.tmp", folder / ".2-abc.tmp"
    for file in (old, young):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    store.prune(folder, 2**20)
    assert not old.exists() and young.exists() and store.fetch(PROGRAM, ENVIRONMENT) is not None


def test_many_writers_and_readers(folder):
    def work(k: int) -> None:
        for n in range(40):
            key = bytes([n % 3]) * 24
            store.keep(key, ENVIRONMENT, {"n": n % 3}, bytes([n % 3]) * 5000)
            found = store.fetch(key, ENVIRONMENT)
            assert found is None or found == ({"n": n % 3}, bytes([n % 3]) * 5000)
            if n % 10 == k:
                store.clear()

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(6)))
    assert all(entry.name.endswith(".code") for entry in store._scan(folder))


# --- programs


@pytest.fixture
def native(folder: Path, monkeypatch: Any) -> Any:
    """The native executor with nothing in memory; calling it forgets what is there, as a new process would."""
    from jacana.run.native import executor

    def forget() -> Any:
        monkeypatch.setattr(executor, "_loaded", OrderedDict())
        return executor

    return forget


@contextlib.contextmanager
def only_recalled(executor: Any, monkeypatch: Any) -> Any:
    with monkeypatch.context() as patch:
        patch.setattr(executor, "_compile", lambda *given: pytest.fail("it should have been found"))
        yield


@needs_native
@given(programs())
@examples(25)
def test_random_programs_come_back(program):
    from jacana.run.native import executor

    inputs, outputs = tuple(program.inputs), tuple(program.outputs)
    values = [np.random.default_rng(k).uniform(0.5, 1.5, x.shape) for k, x in enumerate(inputs)]
    kept: dict[Any, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "keep", lambda *entry: kept.update({entry[:2]: entry[2:]}))
        patch.setattr(store, "fetch", lambda *key: kept.get(key))
        patch.setattr(executor, "_loaded", OrderedDict())
        first = executor.compile_native(Program(inputs, outputs))
        patch.setattr(executor, "_loaded", OrderedDict())
        known = fingerprint(inputs, outputs)
        assert known is not None
        second = executor.recall_native(known, inputs)
    if not kept:
        assert second is None  # no kernel: there is nothing to keep
        return
    assert second is not None
    for one, other in zip(first(values), second(values), strict=True):
        assert one.tobytes() == other.tobytes() and one.shape == other.shape and one.dtype == other.dtype


@needs_native
def test_transforms_come_back_without_being_derived(native, monkeypatch):
    from jacana import results

    W = np.arange(6.0).reshape(2, 3) + 0.5

    def f(x):
        y = np.tanh(W @ x)
        return y * (2.0 if x[0] > 0 else 3.0), x[::-1]

    x = np.array([0.25, -1.0, 2.0])
    with jc.executor("native"):
        native()
        first = jc.value_and_jacobian(f)(x)
        executor = native()
        with only_recalled(executor, monkeypatch), monkeypatch.context() as patch:
            patch.setattr(results, "eliminate", lambda *given, **k: pytest.fail("nothing should be derived"))
            second = jc.value_and_jacobian(f)(x)
        W += 1.0  # an argument of the program: not part of what is kept
        third = jc.value_and_jacobian(f)(-x)
    for one, other in zip([*first[0], *first[1]], [*second[0], *second[1]], strict=True):
        np.testing.assert_array_equal(one, other)
    with jc.executor("numpy"):
        expected = jc.value_and_jacobian(f)(-x)
    for one, other in zip([*third[0], *third[1]], [*expected[0], *expected[1]], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-14)


@needs_native
def test_sparse_results_and_large_tables_come_back(native, monkeypatch):
    rng = np.random.default_rng(3)
    rows = rng.integers(0, 50, 400)

    def f(x):
        return np.sin(x[rows]) * x[:400]

    x = rng.normal(size=500)
    with jc.executor("native"):
        native()
        first = jc.jacobian(f, format="csr")(x)
        with only_recalled(native(), monkeypatch):
            second = jc.jacobian(f, format="csr")(x)
    np.testing.assert_array_equal(first.toarray(), second.toarray())


@needs_native
def test_steps_of_numpy_come_back(native, monkeypatch):
    A = np.random.default_rng(5).normal(size=(90, 80))

    def f(x):
        return np.cumsum(np.exp(A @ x) @ A) * x

    x = np.linspace(-0.1, 0.1, 80)
    with jc.executor("native"):
        native()
        first = jc.compile(f)(x)
        with only_recalled(native(), monkeypatch):
            second = jc.compile(f)(x)
    np.testing.assert_array_equal(first, second)
    np.testing.assert_allclose(first, f(x), rtol=1e-12)


@needs_native
def test_what_else_counts(native, folder, monkeypatch):
    from jacana.plan import native_plan
    from jacana.run.native import keys
    from jacana.run.native.engine import machine

    here = keys.environment()
    assert keys.environment() == here
    with monkeypatch.context() as patch:
        patch.setattr(native_plan, "UNROLL", native_plan.UNROLL + 1)
        assert keys.environment() != here
    with monkeypatch.context() as patch:
        patch.setattr(machine(), "lanes", 2)
        assert keys.environment() != here
    with monkeypatch.context() as patch:
        patch.setattr(keys, "_sources", lambda: "other sources")
        keys._process.cache_clear()
        assert keys.environment() != here
    keys._process.cache_clear()
    assert keys.environment() == here


@needs_native
def test_a_right_digest_over_a_wrong_program_is_ignored(native):
    x = new_input((20,), F8)
    program = Program((x,), (x * x + 1.0,))
    values = [np.linspace(0, 1, 20)]
    expected = compile_numpy(program)(values)
    executor = native()
    known = fingerprint(program.inputs, program.outputs)
    for description, image in (({}, b""), ({"sources": [], "steps": [], "results": [5], "symbols": []}, b"")):
        store.keep(known.digest, executor.environment(), description, image)
        executor = native()
        found = executor.compile_native(program)
        np.testing.assert_array_equal(found(values)[0], expected[0])
    good = store.fetch(known.digest, executor.environment())
    assert good is not None
    for description, image in (
        (good[0], b"not an object"),
        ({**good[0], "symbols": ["no_such_function_anywhere"]}, good[1]),
        ({**good[0], "steps": [["call_kernel7", [0, 1]]]}, good[1]),
    ):
        store.keep(known.digest, executor.environment(), description, image)
        executor = native()
        np.testing.assert_array_equal(executor.compile_native(program)(values)[0], expected[0])


SCRIPT = """
import sys, numpy as np, jacana as jc
from jacana.run.native import executor
compiled = []
compile = executor._compile
executor._compile = lambda *given: compiled.append(1) or compile(*given)
def f(x):
    return np.exp(x[1:]) * x[:-1] if x[0] > 0 else x[1:]
J = jc.jacobian(f, compile=True)
print(repr(J(np.array([0.5, 1.0, 2.0])).tolist()), len(compiled))
"""


def run_script(text: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", text]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)


@needs_native
def test_another_process_finds_it(folder, monkeypatch):
    monkeypatch.setenv("JACANA_EXECUTOR", "auto")
    first = run_script(SCRIPT).stdout
    assert first.endswith(" 1\n")
    assert run_script(SCRIPT).stdout == first[:-2] + "0\n"
    file = file_of(folder)
    content = file.read_bytes()
    file.write_bytes(content[:-100])
    assert run_script(SCRIPT).stdout == first
    assert file.read_bytes()[:200] == content[:200]


@needs_native
def test_several_processes_at_once(folder, monkeypatch):
    monkeypatch.setenv("JACANA_EXECUTOR", "auto")
    command = [sys.executable, "-c", SCRIPT]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    answers = {process.communicate(timeout=120)[0].split(" ")[0] for process in running}
    assert len(answers) == 1 and all(process.returncode == 0 for process in running)
    assert [entry.name for entry in store._scan(folder)] == [file_of(folder).name]


LOOP = """
import sys, numpy as np, jacana as jc
from jacana import plans
derived = []
simplify = plans.simplify
plans.simplify = lambda *given: derived.append(1) or simplify(*given)
def rates(y, p):
    return np.array([p[0] * y[0] - y[0] * y[1], y[0] * y[1] - p[1] * y[1]])
def path(p):
    y = np.zeros((81, 2))
    y[0] = 1.0, 0.5
    for k in range(80):
        half = y[k] + 0.01 * rates(y[k], p)
        y[k + 1] = y[k] + 0.02 * rates(half, p)
    return y[:, 1]
def solved(p):
    x = np.ones(2)
    for k in range(80):
        x = np.linalg.solve(np.array([[2.0, 0.1], [0.3, 1.5]]) + p[0] * np.eye(2), x + p[1] * np.sin(0.1 * k))
    return x
x = np.array([0.4, 0.7])
for f in (path, solved):
    J = jc.jacobian(f)
    slopes = [(f(x + h) - f(x - h)) / 2e-6 for h in 1e-6 * np.eye(2)]
    for _ in range(2):
        assert np.allclose(J(x), np.stack(slopes, axis=-1), rtol=1e-6, atol=1e-8)
print(len(derived))
"""


@needs_native
def test_another_process_derives_no_loop_again(folder, monkeypatch):
    """The loops are found in what was recorded and derived once; then machine code is there for the recording."""
    monkeypatch.setenv("JACANA_EXECUTOR", "auto")
    monkeypatch.setenv("JACANA_BACKGROUND", "0")
    prices = "executors.COMPILE_SECONDS = executors.BODY_SECONDS = executors.PRODUCT_SECONDS = 1e-9"
    executor_price = f"from jacana.run import executors\n{prices}\n"
    assert run_script(executor_price + LOOP).stdout == "2\n"
    assert run_script(executor_price + LOOP).stdout == "0\n"


@needs_native
def test_the_key_does_not_depend_on_what_is_imported(monkeypatch):
    from jacana.plan import native_plan
    from jacana.run.native import executor

    text = "from jacana.run.native import executor\n{}\nprint(executor.environment().hex())"
    few = run_script(text.format("")).stdout
    assert few == run_script(text.format("import jacana.differentiate.loops, jacana.graph.ops.special")).stdout
    before = executor.environment()
    monkeypatch.setattr(native_plan, "STRAIGHT", native_plan.STRAIGHT + 1)
    assert executor.environment() != before


@needs_native
def test_automatic_mode_takes_what_another_process_left(native, monkeypatch):
    monkeypatch.setattr(executors, "RECALL_SECONDS", 0.0)
    monkeypatch.setattr(executors, "_in_background", True)
    x = np.linspace(0.5, 1.0, 7)

    def f(x):
        return np.exp(x[1:]) * x[:-1]

    with jc.executor("native"):
        expected = jc.jacobian(f)(x)
    executor = native()
    transform = jc.jacobian(f)
    with jc.executor("auto"), only_recalled(executor, monkeypatch):
        for _ in range(3):
            np.testing.assert_allclose(transform(x), expected, rtol=1e-14)
            background.drain()
        (program,) = [path.compiled for paths in transform._replay._paths.values() for path in paths]
        assert program._native is not None and program._fastest is not None

"""The command line: what it prints, its exit codes, and one sentence for everything that a user can get wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import jacana
from jacana import cli
from jacana.report import bundle, question

Run = Callable[..., tuple[int, str, str]]

MODULE = '''
import math
import numpy as np

W = np.arange(6.0).reshape(2, 3)
number = 3

def product(x):
    return W @ x

def matrix(x):
    return x.T @ x

def scalar(x):
    return np.sum(x**2)

def stencil(x):
    return x[2:] - 2.0 * x[1:-1] + x[:-2]

def disguised(x):
    """Lies to the recorder: for an ndarray, the last result depends on x[1] in another way."""
    return W @ x + np.array([0.0, 0.5 * x[1]]) if type(x) is np.ndarray else W @ x

def raises(x):
    raise ValueError("two\\nlines")

def forgets(x):
    x + 1

def pair(x):
    return x, x

def of_integers(x):
    return np.zeros(2, dtype=complex)

def with_math(x):
    return math.sin(x[0])

def of_two(a, b):
    return a

def undefined(x):
    return x * np.nan

class Holder:
    @staticmethod
    def inner(x):
        return 2.0 * x
'''


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """Run the command in a directory with ``things.py`` and some files; gives exit code, stdout, stderr."""
    (tmp_path / "things.py").write_text(MODULE)
    (tmp_path / "broken.py").write_text("x = (")
    (tmp_path / "needs.py").write_text("import module_that_is_not_there")
    (tmp_path / "leaves.py").write_text("raise SystemExit(3)")
    (tmp_path / "junk.npy").write_text("junk")
    np.save(tmp_path / "rows.npy", np.array([[1.0, 2.0, 3.0], [4.0, 5.0, 7.0]]))
    np.save(tmp_path / "integers.npy", np.arange(3))
    np.save(tmp_path / "words.npy", np.array(["a"]))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = {*sys.modules}

    def call(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as left:
            cli.main(arguments)
        for name in {*sys.modules} - before:
            if name in ("things", "broken", "needs", "leaves"):
                del sys.modules[name]
        out, err = capsys.readouterr()
        code = left.value.code
        assert isinstance(code, int)
        return code, out, err

    return call


# --- check ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("function", "at", "options", "expected"),
    [
        ("things:product", "1,2,3", [], "x has shape (3,), y has shape (2,); 6 entries"),
        ("things.py:product", "1,2,3", ["--executor", "numpy"], "6 of 6 comparisons agree to 1e-06"),
        ("./things.py:product", "[1, 2, 3]", ["--tolerance", "1e-4"], "agree to 0.0001"),
        ("things:Holder.inner", "2", [], "x has shape (), y has shape (); 1 entries"),
        ("things:Holder.inner", "2,", [], "x has shape (1,), y has shape (1,); 1 entries"),
        ("things:matrix", "[[1,2,3],[3,4,6]]", [], "x has shape (2, 3), y has shape (3, 3); 54 entries"),
        ("things:matrix", "rows.npy", [], "54 of 54 comparisons agree"),
        ("things:scalar", "-1,2e0", [], "row (), column ("),
        ("things:stencil", "1,2,4,8,16,32,64,128", ["--format", "csr"], "18 entries are stored"),
        ("things:stencil", "1,2,4,8,16,32,64,128", ["--format", "csr"], "(3 directions"),
        ("things:stencil", "1,2,4,8,16,32,64,128", ["--sample", "2"], "(2 directions"),
        ("numpy:sin", "0.5", [], "0.87758256189037"),
    ],
)
def test_check_agrees(run: Run, function: str, at: str, options: list[str], expected: str) -> None:
    code, out, err = run("check", function, "--at", at, *options)
    assert code == 0
    assert expected in out
    assert "fine: " in out
    assert err == ""


def test_check_names_the_worst_entry_of_a_wrong_jacobian(run: Run) -> None:
    code, out, err = run("check", "things:disguised", "--at", "1,2,3")
    assert code == 1
    assert "worst entry: row (1,), column (1,): jacobian 4, differences 4.5" in out
    assert "WRONG: 1 of 6 comparisons differ by more than 1e-06" in out
    assert err == ""


def test_check_does_not_call_it_fine_where_nothing_can_be_compared(run: Run) -> None:
    code, out, _ = run("check", "things:undefined", "--at", "1,2,3")
    assert code == 1
    assert "UNDECIDED" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["check", "nowhere:f", "--at", "1"], "there is no module called 'nowhere'"),
        (["check", "nowhere.py:f", "--at", "1"], "there is no file 'nowhere.py'"),
        (["check", "things.deeper:f", "--at", "1"], "'things.deeper'"),
        (["check", "things", "--at", "1"], "write module:function"),
        (["check", ":f", "--at", "1"], "write module:function"),
        (["check", "things:nothing", "--at", "1"], "things has nothing called 'nothing'"),
        (["check", "things:number", "--at", "1"], "'number' in things is not a function but of type int"),
        (["check", "broken:f", "--at", "1"], "importing broken raised SyntaxError"),
        (["check", "needs:f", "--at", "1"], "'module_that_is_not_there' (needs.py, line 1)"),
        (["check", "leaves:f", "--at", "1"], "importing leaves raised SystemExit"),
        (["check", "things:product", "--at", "a,b"], "--at 'a,b' is neither numbers"),
        (["check", "things:product", "--at", ""], "is neither numbers"),
        (["check", "things:product", "--at", "[1,[2]]"], "is neither numbers"),
        (["check", "things:product", "--at", "[1,2"], "is neither numbers"),
        (["check", "things:product", "--at", "1e400,1,2"], "x must be finite"),
        (["check", "things:product", "--at", "missing.npy"], "there is no file 'missing.npy'"),
        (["check", "things:product", "--at", "junk.npy"], "'junk.npy' cannot be read as an array"),
        (["check", "things:product", "--at", "words.npy"], "'words.npy' does not hold an array of real numbers"),
        (["check", "things:product", "--at", "integers.npy"], "dtype int64, and only floats have a derivative"),
        (["check", "things:product", "--at", "1,2"], "things:product raised ValueError"),
        (["check", "things:raises", "--at", "1"], "things:raises raised ValueError: two lines (things.py, line "),
        (["check", "things:of_two", "--at", "1"], "missing 1 required positional argument"),
        (["check", "things:forgets", "--at", "1"], "must return one array of real numbers, not None"),
        (["check", "things:pair", "--at", "1"], "must return one array of real numbers, not something of type tuple"),
        (["check", "things:of_integers", "--at", "1"], "not an array of dtype complex128"),
        (["check", "things:with_math", "--at", "1,2"], "np.sin for math.sin"),
        (["check", "things:product", "--at", "1,2,3", "--format", "coo"], "--format must be dense or csr"),
        (["check", "things:product", "--at", "1,2,3", "--executor", "gpu"], "--executor must be auto, numpy or native"),
        (["check", "things:product", "--at", "1,2,3", "--tolerance", "0"], "the tolerance must be between 0 and 1"),
        (["check", "things:product", "--at", "1,2,3", "--tolerance", "x"], "--tolerance"),
        (["check", "things:product", "--at", "1,2,3", "--sample", "0"], "at least one direction"),
        (["check", "things:product"], "--at"),
        (["check"], "MODULE:FUNCTION"),
        (["check", "things:product", "--at", "1,2,3", "--bogus"], "--bogus"),
        (["bogus"], "bogus"),
    ],
)
def test_bad_input_gets_one_sentence_and_exit_code_2(run: Run, arguments: list[str], expected: str) -> None:
    code, out, err = run(*arguments)
    assert code == 2
    assert expected in err
    assert err.startswith("jacana: ")
    assert err.count("\n") == 1
    assert out == ""


def test_native_without_llvmlite_is_refused(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "native_available", lambda: False)
    code, _, err = run("check", "things:product", "--at", "1,2,3", "--executor", "native")
    assert code == 2
    assert "needs llvmlite" in err


# --- demo -----------------------------------------------------------------------------------------------------------


def test_demo_runs_and_says_what_it_found(run: Run) -> None:
    code, out, err = run("demo", "--quick")
    assert code == 0, out
    assert err == ""
    assert "array([15., 18., 21., 24., 27.], dtype=float32)" in out
    assert "NIST Thurber" in out
    assert "of 54 runs have at least 6 correct digits" in " ".join(out.split())
    assert "one 2 x 9 block (camera) and one 2 x 3 block (point) per observation" in out
    assert "finite differences in 12 directions agree" in out
    assert max(map(len, out.splitlines())) <= cli.PLAIN_WIDTH


def test_demo_fails_when_a_part_of_it_is_wrong(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(question, "answer", lambda: question.QuestionReport(">>> 1 + 1\n3", ok=False))
    monkeypatch.setattr(cli, "_show_nist", lambda console, full: True)
    monkeypatch.setattr(cli, "_show_bundle", lambda console, quick: True)
    code, out, _ = run("demo")
    assert code == 1
    assert "not as it should be" in out


def test_question_is_answered() -> None:
    report = question.answer()
    assert report.ok
    assert report.session.count(">>> ") == len(question.PROGRAM.splitlines())


def test_bundle_report_without_llvmlite(monkeypatch: pytest.MonkeyPatch) -> None:
    from rich.console import Console

    from jacana.datasets import bal

    monkeypatch.setattr(bundle, "native_available", lambda: False)
    monkeypatch.setattr(bundle, "SECONDS", 0.0)
    report = bundle.examine(bal.load().first(200))
    assert [timing.executor for timing in report.timings] == ["numpy"]
    assert report.ok
    console = Console(width=100)
    with console.capture() as captured:
        console.print(bundle.render(report))
    assert "The native executor is left out: it needs llvmlite (pip install 'jacana[native]')." in captured.get()


def test_bundle_report_sees_foreign_entries(monkeypatch: pytest.MonkeyPatch) -> None:
    from jacana.datasets import bal

    problem = bal.load().first(50)
    matrix = jacana.jacobian(problem.residual, format="csr")(problem.x0)
    assert bundle._has_blocks(problem, matrix)
    matrix = matrix.copy()
    matrix.indices = np.sort(matrix.indices.copy().reshape(-1, 12) + np.arange(12) // 11, axis=1).ravel()
    assert not bundle._has_blocks(problem, matrix)


# --- the rest -------------------------------------------------------------------------------------------------------


def test_version(run: Run) -> None:
    assert run("--version") == (0, f"jacana {jacana.__version__}\n", "")


def test_help_without_arguments(run: Run) -> None:
    code, out, err = run()
    assert (code, err) == (0, "")
    assert "demo" in out
    assert "check" in out


def _command(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "jacana", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(Path(jacana.__file__).parents[1])}
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=cwd, env=environment)


def test_python_m_jacana(tmp_path: Path) -> None:
    (tmp_path / "things.py").write_text(MODULE)
    good = _command("check", "things:product", "--at", "1,2,3", cwd=tmp_path)
    assert (good.returncode, good.stderr) == (0, "")
    bad = _command("check", "things:raises", "--at", "1,2,3", cwd=tmp_path)
    assert bad.returncode == 2
    assert "Traceback" not in bad.stderr


def test_reader_that_stops_early_is_no_traceback() -> None:
    command = [sys.executable, "-m", "jacana", "--help"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    with process.stderr:
        assert process.stderr.read() == ""
    process.wait(timeout=60)


def test_importing_jacana_does_not_import_the_command_line() -> None:
    program = "import sys, jacana; print(*sorted({'typer', 'rich', 'jacana.cli', 'jacana.report'} & {*sys.modules}))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == ""


# --- cache


def test_cache_shows_finds_and_clears(run, tmp_path, monkeypatch):
    from jacana.run import store

    monkeypatch.setenv("JACANA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("JACANA_CACHE_MEGABYTES", "2")
    assert run("cache", "path") == (0, f"{tmp_path / 'cache'}\n", "")
    assert run("cache") == (
        0,
        f"directory  {tmp_path / 'cache'}\nprograms   0, 0.0 MiB of at most 2.0 MiB\n",
        "",
    )
    for k in range(3):
        store.keep(bytes([k]) * 24, b"e" * 16, {}, b"x" * 2**19)
    code, out, _ = run("cache", "show")
    assert code == 0
    assert "programs   3, 1.5 MiB of at most 2.0 MiB" in out
    assert "used       last 2" in out
    assert run("cache", "clear") == (0, "removed 3 files\n", "")
    assert store.entries() == []


def test_cache_that_is_off_or_not_ones_own(run, tmp_path, monkeypatch):
    monkeypatch.setenv("JACANA_CACHE_DIR", "")
    assert "no compiled programs are kept" in run("cache")[1]
    assert run("cache", "path")[1] == "\n"
    assert run("cache", "clear")[1] == "removed 0 files\n"
    if not hasattr(os, "getuid"):
        return
    tmp_path.chmod(0o777)
    monkeypatch.setenv("JACANA_CACHE_DIR", str(tmp_path))
    assert "(not used: other users can write to it" in run("cache")[1]
    code, _, err = run("cache", "clear")
    assert code == 2 and "nothing was removed" in err
    assert run("cache", "melt") == (
        2,
        "",
        "jacana: the action must be show, path or clear, not 'melt'\n",
    )

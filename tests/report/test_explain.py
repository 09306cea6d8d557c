"""What is told in words: every number in it is one that was counted elsewhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import jacana as jc
from jacana import cli
from jacana.report import explain as module
from jacana.run import native_available


def stencil(u: Any) -> Any:
    return np.exp(u[1:-1]) * u[2:]


def looks(x: Any) -> Any:
    return np.sin(x) if x[0] > 0 and np.sum(x) < 10 else x


def told(*args: Any, **kwargs: Any) -> str:
    return " ".join(str(jc.explain(*args, **kwargs)).split())


def test_explanation_of_a_stencil() -> None:
    found = jc.explain(stencil, np.ones(1000))
    assert repr(found) == str(found)
    assert max(map(len, str(found).splitlines())) <= module.WIDTH
    text = " ".join(str(found).split())
    assert text.startswith("jacobian of stencil: 998 x 1,000 recorded Running stencil once")
    assert "4 operations (2 movement and 2 elementwise) on 1 argument. It looked at no value" in text
    assert "a sum of 2 terms with 1,996 of 998,000 entries" in text
    assert "It is banded: 0 below and 2 above the diagonal." in text
    chosen = found.structure.orders[0]
    assert f"for about {chosen.cost:,.0f} multiplications" in text
    assert 'format="auto" stores it as csr: 0.2% of 998,000 entries are structural' in text
    if native_available():
        assert "makes 1 kernel of them, with loops 998 (2 jobs), and no NumPy call." in text


def test_guards_masks_blocks_and_calls() -> None:
    text = told(looks, np.ones(3))
    assert "It looked at 2 values (the result of greater was True; the result of less was True)" in text
    assert "It is block-diagonal: 3 of 1 x 1." in text
    assert "where a mask is true" in told(lambda x: np.where(x > 0, x * x, 1.0), np.ones(3))
    if native_available():
        text = told(lambda x: np.linalg.solve(np.diag(x) + 1.0, x), np.arange(1.0, 5.0))
        assert "to NumPy (" in text
        assert " solve" in text or " inv" in text


def test_transforms_and_argnums() -> None:
    text = told(jc.hessian(lambda x: np.sum(x[1:] * x[:-1])), np.ones(40))
    assert text.startswith("hessian of <lambda>: 40 x 40")
    assert jc.explain(lambda a, b: a * b, np.ones(2), np.ones(2), argnums=1).structure.columns == {"b": range(2)}
    assert "There was nothing between" in told(lambda x: x, np.ones(2))
    with pytest.raises(jc.InvalidInputError, match="has no structure"):
        jc.explain(jc.trace(lambda x: x), np.ones(2))


def test_formats() -> None:
    assert "stores it as operator: storing would take" in told(lambda x: x * np.sum(x), np.ones(5000))
    assert "stores it as dense: 100% of the entries" in told(lambda x: np.ones((80, 80)) @ x, np.ones(80))


def test_without_llvmlite_and_too_long_to_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "native_available", lambda: False)
    assert "The native executor would fuse them: pip install 'jacana[native]'." in told(stencil, np.ones(9))
    monkeypatch.setattr(module, "native_available", lambda: True)
    monkeypatch.setattr(module, "MAX_PLANNED", 2)
    assert "too long to plan" in told(stencil, np.ones(9))


# --- the command ----------------------------------------------------------------------------------------------------

MODULE = """
import numpy as np

def stencil(x):
    return x[2:] - 2.0 * x[1:-1] ** 2 + x[:-2]

def energy(x):
    return np.sum(x[1:] * x[:-1])

def pair(x):
    return {"a": x, "b": np.sum(x)}

def asarray(x):
    return np.fft.fft(x)

def none(x):
    return None
"""


def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        cli.main(["structure", *arguments])
    out, err = capsys.readouterr()
    assert isinstance(left.value.code, int)
    return left.value.code, out, err


@pytest.fixture
def things(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "things_to_show.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "things_to_show", raising=False)
    return "things_to_show.py"


def test_command_shows_a_structure(things: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = command(capsys, f"{things}:stencil", "--at", "1,2,4,8,16,32")
    assert (code, err) == (0, "")
    assert out.startswith("jacobian of stencil\n  shape      4 x 6\n")
    assert "│·•••··│" in out
    assert "{i: 4}  J[i, i + 1] += -4*x[i + 1]" in out
    code, out, _ = command(capsys, f"{things}:energy", "--at", "1,2,4", "--of", "hessian")
    assert code == 0
    assert "│·•·│\n  │•·•│\n  │·•·│" in out
    code, out, _ = command(capsys, f"{things}:stencil", "--at", "1,2,4,8", "--of", "gauss_newton", "--explain")
    assert code == 0
    assert out.startswith("gauss_newton of stencil: 4 x 4\n\nrecorded  Running stencil once")
    code, out, _ = command(capsys, f"{things}:pair", "--at", "1,2")
    assert code == 0
    assert "rows       y['a'] [0:2], y['b'] [2:3]" in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["stencil", "--at", "1,2,4,8", "--of", "inverse"], "--of must be one of jacobian, hessian, gauss_newton"),
        (["stencil", "--at", "1,2,4,8", "--of", "hessian"], "hessian needs a function with one scalar result"),
        (["stencil", "--at", "1,b"], "is neither numbers"),
        (["missing", "--at", "1"], "has nothing called 'missing'"),
        (["none", "--at", "1"], "returned None"),
    ],
)
def test_command_refuses_in_one_sentence(
    things: str, capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    code, out, err = command(capsys, f"{things}:{arguments[0]}", *arguments[1:])
    assert (code, out) == (2, "")
    assert err.startswith("jacana: ") and err.count("\n") == 1
    assert expected in err


def test_importing_jacana_imports_no_report() -> None:
    program = (
        "import sys, jacana; print('explain' in dir(jacana), 'jacana.report' in sys.modules, callable(jacana.explain))"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(jc.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.split() == ["True", "False", "True"]

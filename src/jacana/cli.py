"""The command ``jacana``: ``demo`` shows the main job on real data, ``check`` compares a Jacobian with differences,
``structure`` shows what a Jacobian looks like, ``cache`` what compiled programs are kept on disk.

Bad input ends with one sentence on standard error and exit code 2; a Jacobian that is wrong with exit code 1.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NoReturn

import numpy as np
import typer
from rich.console import Console
from rich.text import Text

from . import __version__
from .errors import JacanaError
from .run import executor, native_available

__all__ = ["app", "main"]

WRONG, BAD_INPUT = 1, 2
PLAIN_WIDTH = 100  # columns of output that goes to a file or a pipe

app = typer.Typer(
    name="jacana",
    help="Exact, whole, structured Jacobians of plain NumPy code.",
    add_completion=False,
    no_args_is_help=False,
    pretty_exceptions_enable=False,
)


class _BadInputError(Exception):
    """What the user gave cannot be used; the message is the sentence that is printed."""


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command with ``arguments`` (those of the process by default) and leave with its exit code."""
    try:
        code = app(args=None if arguments is None else list(arguments), prog_name="jacana", standalone_mode=False)
        sys.stdout.flush()
    except _BadInputError as problem:
        _complain(str(problem))
        code = BAD_INPUT
    except BrokenPipeError:
        # Whoever read the output has seen enough. Nothing more can be written, not even when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = WRONG
    except (KeyboardInterrupt, typer.Abort):
        code = 130
    except Exception as problem:
        # The parser's own complaints (an unknown option, a missing argument) have this method, under every typer.
        sentence = getattr(problem, "format_message", None)
        if sentence is None:
            raise
        _complain(f"{sentence().rstrip('.')} (see jacana --help)")
        code = BAD_INPUT
    sys.exit(code if isinstance(code, int) else 0)


def _complain(sentence: str) -> None:
    print(f"jacana: {' '.join(sentence.split())}", file=sys.stderr)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"jacana {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _common(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and exit.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    if context.invoked_subcommand is None:
        print(context.get_help())


# --- demo -----------------------------------------------------------------------------------------------------------


@app.command()
def demo(
    quick: Annotated[bool, typer.Option("--quick", help="A tenth of the bundle adjustment.")] = False,
    full: Annotated[bool, typer.Option("--full", help="List all 54 NIST runs.")] = False,
) -> None:
    """The main job on real data: the whole Jacobian as x.grad, a certified fit, a bundle adjustment."""
    begin = time.perf_counter()
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = PLAIN_WIDTH
    outcomes = [_show_question(console), _show_nist(console, full), _show_bundle(console, quick)]
    console.rule(style="dim")
    if not all(outcomes):
        console.print("Something above is not as it should be.", style="bold red")
        raise typer.Exit(WRONG)
    console.print(f"Everything above was computed and checked just now, in {time.perf_counter() - begin:.1f} s.")


def _show_question(console: Console) -> bool:
    from .report import question

    console.rule("1. The whole Jacobian as x.grad")
    console.print("y = W x has three outputs. How does one get dy/dx, and not the rows of W summed together?\n")
    report = question.answer()
    for line in report.session.splitlines():
        console.print(Text(line, style="bold" if line.startswith((">>> ", "... ")) else ""))
    console.print()
    return report.ok


def _show_nist(console: Console, full: bool) -> bool:
    from .datasets import nist
    from .optimize import least_squares
    from .report.nist import fit_table, run_all, summary_table

    console.rule("2. Nonlinear regression against certified values")
    problem = nist.load("Thurber")
    console.print(
        f"jc.least_squares on the NIST problem {problem.name}: {len(problem.y)} observations, "
        f"{len(problem.certified_values)} parameters, from the far start; the Jacobian is derived from the model.\n"
    )
    console.print(fit_table(problem, least_squares(problem.residual, problem.starts[0])))
    begin = time.perf_counter()
    runs = run_all()
    seconds = time.perf_counter() - begin
    if full:
        console.print(summary_table(runs))
    good = sum(run.digits >= 6 for run in runs)
    least = min(runs, key=lambda run: run.digits)
    console.print(
        f"\nAll 27 NIST problems from both starts, {seconds:.1f} s: {good} of {len(runs)} runs have at least 6 correct "
        f"digits of every parameter; the fewest are {least.digits:.1f} ({least.problem}, start {least.start}).\n"
    )
    return good >= 48


def _show_bundle(console: Console, quick: bool) -> bool:
    from .datasets import bal
    from .report import bundle

    console.rule("3. The Jacobian of a real bundle adjustment")
    problem = bal.load()
    report = bundle.examine(problem.first(len(problem.observations) // 10) if quick else problem)
    console.print(bundle.render(report))
    console.print()
    return report.ok


# --- check ----------------------------------------------------------------------------------------------------------


@app.command()
def check(
    function: Annotated[
        str,
        typer.Argument(metavar="MODULE:FUNCTION", help="What to check; MODULE is a module or the path of a .py file."),
    ],
    at: Annotated[
        str,
        typer.Option("--at", metavar="X", help='Where: 1,2,3 or a number, JSON such as "[[1,2],[3,4]]", or file.npy.'),
    ],
    format: Annotated[str, typer.Option("--format", metavar="dense|csr", help="How jacana stores it.")] = "dense",
    tolerance: Annotated[
        float | None,
        typer.Option("--tolerance", metavar="T", help="Relative, for each entry; 1e-6, or 1e-3 for float32 arrays."),
    ] = None,
    run_on: Annotated[
        str, typer.Option("--executor", metavar="auto|numpy|native", help="What computes the Jacobian.")
    ] = "auto",
    sample: Annotated[
        int | None, typer.Option("--sample", metavar="N", help="Compare in N directions only, evenly spread.")
    ] = None,
) -> None:
    """Compare the Jacobian of a function with finite differences and name the worst entry.

    Exit code 0: they agree; 1: they do not; 2: the comparison cannot be made.
    """
    called = _load(function)
    x = _parse_point(at)
    _try_out(called, x, function)
    if format not in ("dense", "csr"):
        raise _BadInputError(f"--format must be dense or csr, not {format!r}")
    if run_on not in ("auto", "numpy", "native"):
        raise _BadInputError(f"--executor must be auto, numpy or native, not {run_on!r}")
    if run_on == "native" and not native_available():
        raise _BadInputError("the native executor needs llvmlite: pip install 'jacana[native]'")
    from .report.check import compare

    try:
        with executor(run_on):  # type: ignore[arg-type]
            found = compare(called, x, format=format, tolerance=tolerance, sample=sample)  # type: ignore[arg-type]
    except JacanaError as problem:
        raise _BadInputError(str(problem)) from None
    except Exception as problem:
        raise _BadInputError(f"differentiating {function} raised {_described(problem)}") from None
    _show_comparison(found, function)
    if not found.ok:
        raise typer.Exit(WRONG)


def _show_comparison(found: Any, name: str) -> None:
    print(f"{name}: x has shape {found.x_shape}, y has shape {found.y_shape}; {found.stored:,} entries are stored")
    worst = found.worst
    if worst is None:
        print("there is nothing to compare")
        return
    print(
        f"worst entry: row {worst.row}, column {worst.column}: jacobian {worst.jacobian:.15g}, "
        f"differences {worst.difference:.15g} +- {worst.uncertainty:.1e}, relative error {worst.error:.1e}"
    )
    if found.wrong:
        verdict = f"WRONG: {found.wrong:,} of {found.compared:,} comparisons differ by more than {found.tolerance:g}"
    elif not found.ok:
        verdict = f"UNDECIDED: differences say nothing about any of {found.compared:,} entries to {found.tolerance:g}"
    else:
        agreeing = found.compared - found.unresolved
        verdict = f"fine: {agreeing:,} of {found.compared:,} comparisons agree to {found.tolerance:g}"
    if found.unresolved and found.unresolved < found.compared:
        verdict += f", {found.unresolved:,} could not be decided"
    print(f"{verdict} ({found.directions:,} directions, {found.evaluations:,} evaluations)")


# --- structure ------------------------------------------------------------------------------------------------------


@app.command()
def structure(
    function: Annotated[
        str,
        typer.Argument(metavar="MODULE:FUNCTION", help="What to show; MODULE is a module or the path of a .py file."),
    ],
    at: Annotated[
        str,
        typer.Option("--at", metavar="X", help='Where: 1,2,3 or a number, JSON such as "[[1,2],[3,4]]", or file.npy.'),
    ],
    of: Annotated[
        str, typer.Option("--of", metavar="jacobian|hessian|gauss_newton", help="Which matrix.")
    ] = "jacobian",
    explained: Annotated[bool, typer.Option("--explain", help="Tell in words what was done and why.")] = False,
) -> None:
    """Show the structure of the Jacobian of a function: pattern, terms, order of elimination, format.

    Exit code 0: it is shown; 2: there is none to show.
    """
    called = _load(function)
    x = _parse_point(at)
    _try_out(called, x, function)
    from . import gauss_newton, hessian, jacobian

    transforms: dict[str, Callable[..., Any]] = {
        "jacobian": jacobian,
        "hessian": hessian,
        "gauss_newton": gauss_newton,
    }
    if of not in transforms:
        raise _BadInputError(f"--of must be one of {', '.join(transforms)}, not {of!r}")
    transform = transforms[of](called)
    try:
        if explained:
            from .report.explain import explain

            text = str(explain(transform, x))
        else:
            text = str(transform.structure(x))
    except JacanaError as problem:
        raise _BadInputError(str(problem)) from None
    except Exception as problem:
        raise _BadInputError(f"differentiating {function} raised {_described(problem)}") from None
    Console(highlight=False, soft_wrap=True).print(Text(text))


# --- cache ----------------------------------------------------------------------------------------------------------


@app.command()
def cache(
    action: Annotated[
        str, typer.Argument(metavar="[show|path|clear]", help="List what is kept, print where, or remove it.")
    ] = "show",
) -> None:
    """Show or clear the compiled programs that are kept on disk for other processes.

    The directory is JACANA_CACHE_DIR (empty or 0: nothing is kept), else the user's cache directory; the size is
    limited to JACANA_CACHE_MEGABYTES (256). Exit code 0: done; 2: there is no such action.
    """
    from .run import store

    path = store.directory()
    problem = None if path is None else store.objection(path)
    match action:
        case "path":
            print("" if path is None else path)
        case "clear":
            if problem is not None:
                raise _BadInputError(f"{str(path)!r} is not used, so nothing was removed: {problem}")
            removed = store.clear()
            print(f"removed {removed:,} {'file' if removed == 1 else 'files'}")
        case "show":
            _show_cache(path, problem)
        case _:
            raise _BadInputError(f"the action must be show, path or clear, not {action!r}")


def _show_cache(path: Path | None, problem: str | None) -> None:
    from .run import store

    if path is None:
        print("no compiled programs are kept: JACANA_CACHE_DIR is empty or 0, or there is no home directory")
        return
    print(f"directory  {path}{f' (not used: {problem})' if problem is not None else ''}")
    found = store.entries()
    total = sum(entry.size for entry in found)
    print(f"programs   {len(found):,}, {total / 2**20:.1f} MiB of at most {store.limit() / 2**20:,.1f} MiB")
    if found:
        newest, oldest = (time.strftime("%Y-%m-%d %H:%M", time.localtime(e.used)) for e in (found[0], found[-1]))
        print(f"used       last {newest}, least recently {oldest}")


# --- what the commands share ----------------------------------------------------------------------------------------


def _load(name: str) -> Callable[[Any], Any]:
    """The function called ``module:function``, with the current directory on the path as for ``python -c``."""
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise _BadInputError(f"{name!r} does not name a function: write module:function or path/to/file.py:function")
    directory = os.getcwd()
    if directory not in sys.path:
        sys.path.insert(0, directory)
    try:
        found: Any = _load_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except ModuleNotFoundError as problem:
        if problem.name is not None and (place == problem.name or place.startswith(f"{problem.name}.")):
            raise _BadInputError(f"there is no module called {problem.name!r} here") from None
        raise _BadInputError(f"importing {place} raised {_described(problem)}") from None
    except _BadInputError:
        raise
    except (Exception, SystemExit) as problem:
        raise _BadInputError(f"importing {place} raised {_described(problem)}") from None
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise _BadInputError(f"{place} has nothing called {attribute!r}")
        found = getattr(found, part)
    if not callable(found):
        raise _BadInputError(f"{attribute!r} in {place} is not a function but of type {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise _BadInputError(f"there is no file {str(path)!r}")
    sys.path.insert(0, str(path.parent.resolve()))  # what stands beside the file can be imported by it
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module


def _parse_point(text: str) -> np.ndarray[Any, Any]:
    """The array that ``--at`` stands for; numbers that are typed are floats, those of a file are what they are."""
    if text.endswith(".npy"):
        try:
            array = np.load(text, allow_pickle=False)
        except FileNotFoundError:
            raise _BadInputError(f"there is no file {text!r}") from None
        except (OSError, ValueError) as problem:
            raise _BadInputError(f"{text!r} cannot be read as an array: {problem}") from None
        if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
            raise _BadInputError(f"{text!r} does not hold an array of real numbers")
        return array
    try:
        nest = json.loads(text) if text.lstrip().startswith("[") else _listed(text)
        array = np.array(nest, dtype=np.float64)
    except (ValueError, TypeError):
        raise _BadInputError(
            f"--at {text!r} is neither numbers (1,2,3), nor a list in JSON ([[1,2],[3,4]]), nor a .npy file"
        ) from None
    return array


def _listed(text: str) -> float | list[float]:
    """``1,2,3`` and ``1,`` are vectors, ``1`` is a number."""
    if "," not in text:
        return float(text)
    return [float(part) for part in text.rstrip().removesuffix(",").split(",")]


def _try_out(function: Callable[[Any], Any], x: np.ndarray[Any, Any], name: str) -> None:
    """Call the plain function once, so that its own mistakes are told from jacana's refusals."""
    if x.dtype.kind != "f":
        raise _BadInputError(
            f"--at holds an array of dtype {x.dtype}, and only floats have a derivative; use .astype(float)"
        )
    try:
        with np.errstate(all="ignore"):
            function(x.copy())
    except (Exception, SystemExit) as problem:
        raise _BadInputError(f"{name} raised {_described(problem)}") from None


def _described(problem: BaseException) -> str:
    """``ValueError: what it says (file.py, line 3)``."""
    where = ""
    if not isinstance(problem, SyntaxError):  # which says itself where it is
        library = (sysconfig.get_path("stdlib"), sysconfig.get_path("purelib"), str(Path(__file__).parent), "<frozen")
        frames = [f for f in traceback.extract_tb(problem.__traceback__) if not f.filename.startswith(library)]
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
    message = f"{type(problem).__name__}: {problem}" if str(problem) else type(problem).__name__
    return f"{message}{where}"

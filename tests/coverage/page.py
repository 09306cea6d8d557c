"""The table of docs/coverage.md: ``python tests/coverage/page.py`` writes it anew."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import scipy
import scipy.fft
import scipy.linalg
import scipy.special

sys.path.insert(0, str(Path(__file__).parent))

import calls_data
import calls_methods
import calls_numpy
import calls_options
import calls_scipy

PAGE = Path(__file__).parents[2] / "docs" / "coverage.md"

HEAD = """# What can be differentiated

One call of every public function, with what becomes of its derivative. Each call is made by a test, which compares the
value with that of the library itself and the whole Jacobian with differences of the sixth order; the page is written
by `python tests/coverage/page.py`, and a test fails if it is stale, or if a function is missing. The calls were made
with x, y: vectors; s: a number; A: a matrix 2 x 3; T: 4 x 2; G: 3 x 3; S: symmetric and positive definite; each call
is differentiated by all of these that it names. (`sc`: scipy.special, `la`: scipy.linalg, `fft`: scipy.fft.) A plain
number among the arguments of a special function may be one by which there is no rule: if it depends on what is
differentiated by, the call is refused.

*zero* means: integers, booleans or steps, whose derivative is zero wherever there is one. They can be computed with,
and a program that decides by them is recorded anew when they change. *refused* means: an error that names the line and
says what to write instead.

"""


class Library(NamedTuple):
    """One namespace: its calls, which have derivative zero, which are refused, and what is not about numbers."""

    name: str
    calls: Mapping[str, str]
    steps: set[str]
    refused: Mapping[str, str]
    apart: Mapping[str, str]
    setup: str = ""
    public: Any = None

    def state(self, name: str) -> str:
        return "refused" if name in self.refused else "zero" if name in self.steps else "differentiated"

    def listed(self) -> set[str]:
        """Every name that is accounted for."""
        return {*self.calls, *self.refused, *" ".join(self.apart.values()).split()}


def public(module: Any) -> set[str]:
    """The names that a module offers, without modules and classes of errors."""
    return {
        name
        for name in getattr(module, "__all__", dir(module))
        if not isinstance(getattr(module, name, None), type) or not issubclass(getattr(module, name), BaseException)
    }


# Modules of old that SciPy still lists among its functions.
OLD = {"basic", "decomp", "decomp_cholesky", "decomp_lu", "decomp_qr", "decomp_schur", "decomp_svd", "matfuncs", "misc",
       "special_matrices"}  # fmt: skip

# What the newest versions no longer have, and the oldest that are supported still do: refused, or under a newer name.
GONE = {
    "in1d", "trapz", "_get_promotion_state", "_no_nep50_warning", "_set_promotion_state", "itemset", "newbyteorder",
    "ptp", "tostring", "clpmn", "lpmn", "lpn", "sph_harm", "kron",
}  # fmt: skip

LIBRARIES = [
    Library(
        "numpy",
        calls_numpy.NUMPY,
        calls_numpy.NUMPY_STEPS,
        calls_numpy.NUMPY_REFUSED,
        calls_numpy.NOT_ABOUT_NUMBERS,
        public=public(np),
    ),
    Library(
        "numpy.linalg",
        calls_numpy.LINALG,
        calls_numpy.LINALG_STEPS,
        {},
        {},
        public=public(np.linalg) - {"LinAlgError"},
    ),
    Library("numpy.fft", calls_numpy.FFT, set(), {}, {}, public=public(np.fft)),
    Library(
        "scipy.special",
        calls_scipy.SPECIAL,
        calls_scipy.SPECIAL_STEPS,
        calls_scipy.SPECIAL_REFUSED,
        calls_scipy.SPECIAL_APART,
        setup="import scipy.special as sc",
        public=public(scipy.special),
    ),
    Library(
        "scipy.linalg",
        calls_scipy.LINALG,
        calls_scipy.LINALG_STEPS,
        calls_scipy.LINALG_REFUSED,
        calls_scipy.LINALG_APART,
        setup="import scipy.linalg as la",
        public={n for n in public(scipy.linalg) if not isinstance(getattr(scipy.linalg, n), ModuleType)} - OLD,
    ),
    Library(
        "scipy.fft",
        calls_scipy.FFT,
        set(),
        {},
        calls_scipy.FFT_APART,
        setup="import scipy.fft as fft",
        public=public(scipy.fft),
    ),
    Library("Methods of ufuncs", calls_methods.UFUNC_METHODS, calls_methods.UFUNC_STEPS, {}, {}),
    Library("Options and lists", calls_options.OPTIONS, calls_options.OPTIONS_STEPS, {}, {}),
    Library("numpy.polynomial", calls_options.POLYNOMIAL, set(), {}, {}),
    Library(
        "scipy.ndimage and scipy.signal",
        calls_options.FILTERS | calls_data.LINEAR_FILTERS,
        set(),
        calls_options.FILTERS_REFUSED,
        {},
        setup="import scipy.ndimage as ndi, scipy.signal as sg",
    ),
    Library(
        "scipy.spatial.distance",
        calls_data.DISTANCES,
        set(),
        calls_data.DISTANCES_REFUSED,
        {},
        setup="import scipy.spatial.distance as sd",
    ),
    Library(
        "scipy.stats",
        calls_data.DISTRIBUTIONS,
        set(),
        calls_data.DISTRIBUTIONS_REFUSED,
        {},
        setup="import scipy.stats as st",
        # Before, these two were no formula in SciPy, and are refused.
        public=None
        if scipy.__version__ >= "1.17"
        else set(calls_data.DISTRIBUTIONS) - {"cauchy.logpdf", "lognorm.logpdf"},
    ),
    Library("Complex numbers", calls_options.COMPLEX, set(), {}, {}, setup="import scipy.special as sc"),
    Library(
        "scipy.spatial.transform.Rotation",
        calls_options.ROTATION,
        set(),
        calls_options.ROTATION_REFUSED,
        {},
        setup="from scipy.spatial.transform import Rotation as R",
        public=None if scipy.__version__ >= "1.17" else set(),  # compiled before, and refused
    ),
    Library(
        "numpy.ndarray",
        calls_methods.METHODS,
        calls_methods.METHODS_STEPS,
        calls_methods.METHODS_REFUSED,
        calls_methods.METHODS_NOT,
        setup="import copy",
        public=set(dir(np.ndarray)),
    ),
]


def _summary() -> Iterator[str]:
    yield "| | differentiated | zero | refused | nothing to differentiate |"
    yield "|---|---|---|---|---|"
    for library in LIBRARIES:
        states = [library.state(name) for name in (*library.calls, *library.refused)]
        apart = len(" ".join(library.apart.values()).split())
        counts = " | ".join(str(states.count(s)) for s in ("differentiated", "zero", "refused"))
        yield f"| {library.name} | {counts} | {apart} |"


def _section(library: Library) -> Iterator[str]:
    yield f"\n## {library.name}\n"
    yield "| | call | derivative |"
    yield "|---|---|---|"
    calls = {**library.calls, **library.refused}
    for name in sorted(calls, key=lambda n: (n.strip("_").lower(), n)):
        call = calls[name].replace("|", "\\|")
        yield f"| `{name}` | `{call}` | {library.state(name)} |"
    if library.apart:
        yield "\nNothing to differentiate:\n"
        for reason, names in library.apart.items():
            yield f"* {reason}: {', '.join(f'`{n}`' for n in sorted(names.split()))}"


def text() -> str:
    """The whole page."""
    return HEAD + "\n".join([*_summary(), *(line for library in LIBRARIES for line in _section(library))]) + "\n"


if __name__ == "__main__":
    PAGE.write_text(text(), encoding="utf-8")

"""Print the oldest versions that pyproject.toml admits, as constraints for pip: ``python tools/oldest.py > file``.

Of what jacana needs to run, and of its extras ``native`` and ``plot``; tools that only tests need may be new.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

EXTRAS = ("native", "plot")


def oldest(requirements: list[str]) -> list[str]:
    """``name>=version`` as ``name==version``."""
    found = []
    for requirement in requirements:
        match = re.fullmatch(r"([\w.-]+)\s*>=\s*([\w.]+)", requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} has no lower bound of the form name>=version")
        found.append("{}=={}".format(*match.groups()))
    return found


if __name__ == "__main__":
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    given = [*project["dependencies"], *(r for extra in EXTRAS for r in project["optional-dependencies"][extra])]
    print("\n".join(oldest(given)))

"""Fixtures of several rooms. Being here also puts this folder on the path: ``from support import ...``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from jacana.run import native_available


@pytest.fixture(params=["lanes of this machine", "four lanes"])
def lanes(request: Any) -> Iterator[None]:
    """Machines without AVX-512 have four lanes; their code runs here too."""
    if not native_available():
        if request.param == "four lanes":
            pytest.skip("there are no lanes without llvmlite")
        yield
        return
    from jacana.run.native.engine import machine

    target = machine()
    before = target.lanes
    if request.param == "four lanes":
        if before == 4:
            pytest.skip("this machine has four lanes")
        target.lanes = 4
    try:
        yield
    finally:
        target.lanes = before

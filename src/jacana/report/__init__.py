"""Results for reading: tables and progress in a terminal, made with rich.

`jacana.report.nist` compares fits with the certified values of the NIST regressions.
"""

from . import nist

__all__ = ["nist"]

"""Reference problems with certified answers, to test and time against.

`jacana.datasets.nist` holds the 27 nonlinear regressions of the NIST Statistical Reference Datasets.
"""

from . import nist

__all__ = ["nist"]

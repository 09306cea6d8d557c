"""Reference problems with certified answers, to test and time against.

`nist` holds the 27 nonlinear regressions of the NIST Statistical Reference Datasets, `more_wild` the 53 problems of
Moré and Wild.
"""

from . import more_wild, nist

__all__ = ["more_wild", "nist"]

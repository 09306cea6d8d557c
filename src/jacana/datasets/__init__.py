"""Reference problems to test and time against.

`jacana.datasets.nist` holds the 27 nonlinear regressions of the NIST Statistical Reference Datasets with their
certified answers, `jacana.datasets.bal` a bundle adjustment, `jacana.datasets.posegraph` pose graphs.
"""

from . import bal, nist, posegraph

__all__ = ["bal", "nist", "posegraph"]

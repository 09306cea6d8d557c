"""Reference problems to test and time against.

`jacana.datasets.nist` holds the 27 nonlinear regressions of the NIST Statistical Reference Datasets with their
certified answers, `jacana.datasets.more_wild` the 53 problems of Moré and Wild,
`jacana.datasets.more_garbow_hillstrom` 57 and 10 with bounds, `jacana.datasets.bal` a bundle adjustment,
`jacana.datasets.posegraph` pose graphs.
"""

from . import bal, more_garbow_hillstrom, more_wild, nist, posegraph

__all__ = ["bal", "more_garbow_hillstrom", "more_wild", "nist", "posegraph"]

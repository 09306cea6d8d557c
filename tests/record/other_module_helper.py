"""A module of a user's that has taken a function of SciPy by name."""

from scipy.linalg import expm


def flow(M):
    """The exponential, by a second function."""
    return _twice(M)


def _twice(M):
    return expm(2.0 * M)

"""Recording: plain NumPy code in, graph nodes out."""

from . import (
    choosing,
    complex_arithmetic,
    complex_factors,
    complex_functions,
    complex_order,
    complex_spectra,
    contraction,
    convolution,
    creation,
    distances,
    distributions,
    elementwise,
    factorizations,
    filters,
    fourier,
    functional,
    histograms,
    indexing,
    interpolation,
    joining,
    linalg,
    linear_filters,
    matrices,
    methods,
    missing,
    movement,
    norms,
    quantiles,
    reduction,
    rotations,
    scipy_linalg,
    scipy_special,
    sets,
    statistics,
    ufuncs,
)
from .complex import ComplexVariable
from .foreign import stand_in
from .leaves import leaf_of, leaf_value
from .lift import operand
from .recording import Recording, current_recording, guard, record
from .table import is_complex
from .variable import Variable, as_node, raw, wrap_node

# Each of these modules enters its functions in the tables of ``table`` when it is imported.
_TABLES = (
    choosing, complex_arithmetic, complex_factors, complex_functions, complex_order, complex_spectra, contraction,
    convolution, creation, distances, distributions, elementwise, factorizations, filters, fourier, functional,
    histograms, indexing, interpolation, joining, linalg, linear_filters, matrices, missing, movement, norms,
    quantiles, reduction, rotations, scipy_linalg, scipy_special, sets, statistics, ufuncs,
)  # fmt: skip

__all__ = [
    "ComplexVariable",
    "Recording",
    "Variable",
    "as_node",
    "current_recording",
    "guard",
    "is_complex",
    "leaf_of",
    "leaf_value",
    "operand",
    "raw",
    "record",
    "stand_in",
    "wrap_node",
]

methods.install()

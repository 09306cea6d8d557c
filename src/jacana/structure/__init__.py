"""Terms: composition, addition, contraction; and the formats that the final terms are stored in."""

from .formats import blocks_node, dense_node, diagonal_terms, gram_terms, selected_rows, transposed
from .sparse import SPARSE_FORMATS, SparsePlan, sparse_plan
from .terms import Terms, add_terms, compose, normalise

__all__ = [
    "SPARSE_FORMATS",
    "SparsePlan",
    "Terms",
    "add_terms",
    "blocks_node",
    "compose",
    "dense_node",
    "diagonal_terms",
    "gram_terms",
    "normalise",
    "selected_rows",
    "sparse_plan",
    "transposed",
]

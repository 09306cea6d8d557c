"""Terms: composition, addition, contraction; and the formats that the final terms are stored in."""

from .formats import SparsePlan, dense_node, sparse_plan
from .terms import Terms, add_terms, compose, normalise

__all__ = ["SparsePlan", "Terms", "add_terms", "compose", "dense_node", "normalise", "sparse_plan"]

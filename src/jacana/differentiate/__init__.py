"""Derivatives as passes over the graph: elimination in any order, and what is made of its terms."""

from .derivatives import dense_jacobians, jvp_nodes, sparse_jacobian, vjp_nodes
from .eliminate import Elimination, Order, eliminate

__all__ = ["Elimination", "Order", "dense_jacobians", "eliminate", "jvp_nodes", "sparse_jacobian", "vjp_nodes"]

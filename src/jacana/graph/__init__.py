"""The array program: interned nodes, index expressions, one record for each operation."""

from . import ops
from .node import REGISTRY, Node, Operation, Term, topological

__all__ = ["REGISTRY", "Node", "Operation", "Term", "ops", "topological"]

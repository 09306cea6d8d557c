"""From a graph to steps: what gets a buffer, what is fused, what is left to NumPy."""

from .jobs import Call, Group, Job, Kernel, NativePlan
from .native_plan import plan_native

__all__ = ["Call", "Group", "Job", "Kernel", "NativePlan", "plan_native"]

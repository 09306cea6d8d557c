"""From a graph to steps: what gets a buffer, what is fused, what is left to NumPy."""

from .native_plan import Call, Job, Kernel, NativePlan, plan_native

__all__ = ["Call", "Job", "Kernel", "NativePlan", "plan_native"]

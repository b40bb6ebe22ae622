"""What a training step costs: images/s, memory and kernels of every way to compute it, and a conventional loop beside."""

from .steps import benchmark

__all__ = ["benchmark"]

"""What a training step costs: images/s and memory of every way to compute it."""

from .steps import benchmark

__all__ = ["benchmark"]

"""What a training step costs: images/s and memory of every way to compute it, and of a plain PyTorch loop."""

from .steps import benchmark

__all__ = ["benchmark"]

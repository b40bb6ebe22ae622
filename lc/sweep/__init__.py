"""Many runs: workers on all GPUs of a machine, NVIDIA's Multi-Process Service, and the status of all experiments."""

from .workers import sweep

__all__ = ["sweep"]

"""Many runs: processes on all GPUs of a machine, the status of experiments, a machine's check."""

from .workers import sweep

__all__ = ["sweep"]

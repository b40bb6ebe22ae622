"""Many runs: processes on all GPUs of a machine, the status of all experiments, and the check of a machine."""

from .workers import sweep

__all__ = ["sweep"]

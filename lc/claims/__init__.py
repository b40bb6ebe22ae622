"""The paper's 32 empirical claims as data (`claims`), their effects in the rows (`effects`), and the verdicts (`verdict`)."""

from .claims import CLAIMS, report, verdicts

__all__ = ["CLAIMS", "report", "verdicts"]

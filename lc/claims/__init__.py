"""The paper's 32 empirical claims, and the verdicts of this project's rows on them (notebook 15).

`claims` has them as data, `effects` goes from rows to the effect of each, `statistics` has the intervals, and `verdict` decides.
"""

from .claims import CLAIMS, report, verdicts

__all__ = ["CLAIMS", "report", "verdicts"]

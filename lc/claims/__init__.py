"""The paper's empirical claims as functions, and the verdicts of this project's rows on them.

A claim is a function from the `cells` of its networks to the parts that it states something about
(`off_the_shelf`, `combinations`, `data_sets_and_kernels`). What decides it is written down there
before any number is seen. The verdicts (`verdict`, `report`) are computed at every call.
"""

from . import combinations, data_sets_and_kernels, off_the_shelf  # noqa: F401  (they fill CLAIMS)
from .report import COLORS, box, own_numbers, verdict_text, verdicts
from .verdict import CLAIMS, DECISIVE, UNDECIDED

CLAIMS.sort(key=lambda each: (int(each.number.rstrip("abcde")), each.number))

__all__ = ["CLAIMS", "COLORS", "DECISIVE", "UNDECIDED", "box", "own_numbers", "verdict_text",
           "verdicts"]

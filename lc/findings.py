"""What this project finds beyond the paper: differences between few runs, and what they decide."""

from dataclasses import dataclass
from functools import reduce
from operator import add

import numpy as np

from .analysis import effect_of
from .tables import number
from .utils.shown import Shown, framed

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"
COLORS = {HOLDS: "#009E73", FAILS: "#CC79A7", OPEN: "#666666"}


@dataclass(frozen=True)
class Estimate:
    """A difference, the ends of its 95 % interval, and the number of seeds; nan if unknown."""

    value: float
    low: float
    high: float
    n: int


def difference(a, b, spread, column="accuracy"):
    """The difference of the means of two networks' runs, a - b: a `combination` of both."""
    return combination([(1, a), (-1, b)], spread, column)


def combination(terms, spread, column="accuracy"):
    """A sum of weighted means of networks' runs, with the interval of its `effects.Effect`.

    Args:
        terms: `(weight, a network's rows)` for each network.
        spread: of `analysis.seed_spread`, of the same column.

    Returns:
        An `Estimate`, all nan with `n` = 0 if a network has no runs.
    """
    if not all(len(rows) for _, rows in terms):
        return Estimate(np.nan, np.nan, np.nan, 0)
    effect = reduce(add, (
        effect_of(rows.set_index("seed")[column], pooled=spread[rows["frozen"].iloc[0]]) * weight
        for weight, rows in terms))
    return Estimate(effect.value, *effect.interval(), effect.n)


def above(estimate, least=0.0):
    """Whether a difference is above `least`: `OPEN` unless all of its interval is on one side."""
    return HOLDS if estimate.low > least else FAILS if estimate.high < least else OPEN


def within(estimate, most):
    """Whether a difference is nearer to zero than `most`, on the same terms as `above`."""
    if -most < estimate.low and estimate.high < most:
        return HOLDS
    return FAILS if estimate.low > most or estimate.high < -most else OPEN


def points(estimate, digits=1, unit="points"):
    """A difference as text: "+3.1 points (95 %: +2.2 to +4.0; n = 2)".

    With one seed, it says that the interval is of the spread of other networks.
    """
    if not estimate.n:
        return "no row yet"
    value, low, high = (number(each, digits, sign="+")
                        for each in (estimate.value, estimate.low, estimate.high))
    ends = "no interval" if np.isnan(estimate.low) else f"95 %: {low} to {high}"
    source = "" if estimate.n > 1 or np.isnan(estimate.low) else ", spread of other networks"
    return f"{value} {unit} ({ends}; n = {estimate.n}{source})"


class Box(Shown):
    """What runs say of a finding, as HTML and as text.

    It holds if all differences are on its side, and does not hold if one is on the other side. One
    seed decides nothing.

    Args:
        finding: a sentence.
        changes: `{what: Estimate}`, the differences that decide it.
        judge: tells of a difference whether it is on the finding's side, as `above`.
        text: the options of `points`.
    """

    def __init__(self, finding, changes, judge=above, **text):
        verdicts = {judge(estimate) for estimate in changes.values()}
        points_to = HOLDS if verdicts == {HOLDS} else FAILS if FAILS in verdicts else OPEN
        seeds = min((estimate.n for estimate in changes.values()), default=0)
        self.verdict = points_to if seeds > 1 else OPEN
        known = not any(np.isnan(estimate.low) for estimate in changes.values())
        said = f"; the spread of other networks says: {points_to}" if known else ""
        why = {0: ", since rows are missing", 1: f", with one seed{said}"}.get(seeds, "")
        lines = [(what, points(estimate, **text)) for what, estimate in changes.items()]
        box = framed(COLORS[self.verdict], f"{finding}: {self.verdict}{why}", lines)
        super().__init__(box.html, box.text)

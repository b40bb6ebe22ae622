"""What this project finds beyond the paper: differences between few runs, and what they decide."""

from html import escape

import numpy as np
from scipy import stats

from .analysis import Estimate

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"
COLORS = {HOLDS: "#009E73", FAILS: "#CC79A7", OPEN: "#666666"}


def seed_spread(rows, column="accuracy"):
    """How much seeds differ: a column's variance within a network, over all that have several.

    Returns:
        The variance and its degrees of freedom; nan and 0 if no network has two seeds.
    """
    groups = rows.groupby(["profile", "dataset", "model", "frozen"])[column]
    weights = groups.size() - 1
    freedom = weights.sum()
    return ((groups.var() * weights).sum() / freedom if freedom else np.nan), freedom


def difference(a, b, spread):
    """The difference of the means of two Series of runs, a - b, as an `analysis.Estimate`.

    The interval is Student's with the variance of `seed_spread`, so single seeds have one too. It
    takes the runs as independent, also if they share a seed. Without runs on either side, all is
    nan and `n` is 0.
    """
    n = min(len(a), len(b))
    if not n:
        return Estimate(np.nan, np.nan, np.nan, 0)
    (variance, freedom), value = spread, a.mean() - b.mean()
    error = (variance * (1 / len(a) + 1 / len(b))) ** 0.5
    half = stats.t.ppf(0.975, freedom) * error if freedom else np.nan
    return Estimate(value, value - half, value + half, n)


def above(estimate, least=0.0):
    """Whether a difference is above `least`: `OPEN` unless all of its interval is on one side."""
    return HOLDS if estimate.low > least else FAILS if estimate.high < least else OPEN


def within(estimate, most):
    """Whether a difference is nearer to zero than `most`, on the same terms as `above`."""
    if -most < estimate.low and estimate.high < most:
        return HOLDS
    return FAILS if estimate.low > most or estimate.high < -most else OPEN


def points(estimate, digits=1, unit="points"):
    """A difference as text: "+3.1 points (95 %: +2.2 to +4.0; n = 2)"."""
    if not estimate.n:
        return "no row yet"
    value, low, high = (f"{round(x, digits) + 0.0:+.{digits}f}".replace("-", "−")
                        for x in (estimate.value, estimate.low, estimate.high))
    ends = "no interval" if np.isnan(estimate.low) else f"95 %: {low} to {high}"
    return f"{value} {unit} ({ends}; n = {estimate.n})"


class Box:
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
        why = {0: ", since rows are missing",
               1: f", with one seed; the spread of other networks says: {points_to}"}.get(seeds, "")
        self.title = f"{finding}: {self.verdict}{why}"
        self.lines = {what: points(estimate, **text) for what, estimate in changes.items()}

    def __repr__(self):
        return "\n".join([self.title, *(f"  {what}: {text}" for what, text in self.lines.items())])

    def _repr_html_(self):
        color, lines = COLORS[self.verdict], "".join(
            f"<div><b>{escape(what)}:</b> {escape(text)}</div>"
            for what, text in self.lines.items())
        return (f'<div style="border-left: 4px solid {color}; padding: 0 0 0 0.8em; '
                f'margin: 0.8em 0; text-align: left; white-space: normal">'
                f'<div style="color: {color}"><b>{escape(self.title)}</b></div>{lines}</div>')

"""What this project finds beyond the paper: differences between few runs, and what they decide."""

import numpy as np

from .analysis import effect_of
from .effects import Effect, combined
from .tables import number
from .utils.shown import Shown, framed

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"
COLORS = {HOLDS: "#009E73", FAILS: "#CC79A7", OPEN: "#666666"}


def difference(a, b, spread, column="accuracy"):
    """The difference of the means of two networks' runs, a - b: a `combination` of both."""
    return combination([(1, a), (-1, b)], spread, column)


def combination(terms, spread, column="accuracy"):
    """A sum of weighted means of networks' runs, as an `effects.Effect`; empty if one has no runs.

    Args:
        terms: `(weight, a network's rows)` for each network.
        spread: of `analysis.seed_spread`, of the same column.
    """
    if not all(len(rows) for _, rows in terms):
        return Effect({})
    return combined((weight, effect_of(rows, column, spread)) for weight, rows in terms)


def judge(effect, least=0.0, most=np.inf):
    """Whether an effect is between `least` and `most`; `OPEN` if its interval has both sides."""
    low, high = effect.interval()
    if least < low and high < most:
        return HOLDS
    return FAILS if low > most or high < least else OPEN


def points(effect, digits=1, unit="points"):
    """An effect as text: "+3.1 points (95 %: +2.2 to +4.0; n = 2)"."""
    if not effect.n:
        return "no row yet"
    value, low, high = (number(each, digits, sign="+")
                        for each in (effect.value, *effect.interval()))
    known = not np.isnan(effect.low)
    ends = f"95 %: {low} to {high}" if known else "no interval"
    source = ", spread of other networks" if known and effect.n == 1 else ""
    return f"{value} {unit} ({ends}; n = {effect.n}{source})"


class Box(Shown):
    """What runs say of a finding, as HTML and as text.

    It holds if all effects are on its side, and does not hold if one is on the other side. One seed
    decides nothing.

    Args:
        effects: `{what: Effect}`, those that decide it.
        judge: a function as `findings.judge`.
        text: the options of `points`.
    """

    def __init__(self, finding, effects, judge=judge, **text):
        verdicts = {judge(effect) for effect in effects.values()}
        points_to = HOLDS if verdicts == {HOLDS} else FAILS if FAILS in verdicts else OPEN
        seeds = min((effect.n for effect in effects.values()), default=0)
        self.verdict = points_to if seeds > 1 else OPEN
        known = not any(np.isnan(effect.low) for effect in effects.values())
        said = f"; the spread of other networks says: {points_to}" if known else ""
        why = {0: ", since rows are missing", 1: f", with one seed{said}"}.get(seeds, "")
        lines = [(what, points(effect, **text)) for what, effect in effects.items()]
        box = framed(COLORS[self.verdict], f"{finding}: {self.verdict}{why}", lines)
        super().__init__(box.html, box.text)

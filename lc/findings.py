"""What this project finds beyond the paper: effects of few runs, and what they decide."""

import numpy as np

from .tables import number, told_apart
from .utils.shown import framed

HOLDS, FAILS, OPEN = "holds", "does not hold", "not decided"
COLORS = {HOLDS: "#009E73", FAILS: "#CC79A7", OPEN: "#666666"}


def side(effect, least=0.0, most=np.inf):
    """Whether an effect is between `least` and `most`; `OPEN` if its interval has both sides."""
    low, high = effect.interval()
    if least < low and high < most:
        return HOLDS
    return FAILS if low > most or high < least else OPEN


def judge(effect, least=0.0, most=np.inf):
    """The `side` of an effect of several seeds: a single one decides nothing."""
    return side(effect, least, most) if effect.n > 1 else OPEN


def points(effect, digits=1, unit="points"):
    """An effect as text: "+3.1 points (95 %: +2.2 to +4.0; n = 2)"."""
    if not effect.n:
        return "no row yet"
    numbers = effect.value, *effect.interval()
    digits = told_apart(numbers[1:], digits)
    value, low, high = (number(each, digits, sign="+") for each in numbers)
    known = not np.isnan(effect.low)
    ends = f"95 %: {low} to {high}" if known else "no interval"
    source = ", spread of other networks" if known and effect.borrowed else ""
    return f"{value} {unit} ({ends}; n = {effect.n}{source})"


def box(finding, effects, side=side, **text):
    """What runs say of a finding, as `Shown`.

    It holds if all intervals are on its side. It does not hold if one interval is on the other
    side. An interval of one seed decides neither.

    Args:
        effects: `{what: Effect}`, those that decide it.
        side: a function as `findings.side`.
        text: the options of `points`.
    """
    sides = [(side(effect), effect) for effect in effects.values()]
    verdicts = {verdict for verdict, _ in sides}
    verdict = HOLDS if verdicts == {HOLDS} else FAILS if FAILS in verdicts else OPEN
    seeds, why = min((effect.n for effect in effects.values()), default=0), ""
    if seeds < 2 and not any(each == FAILS and effect.n > 1 for each, effect in sides):
        known = not any(np.isnan(effect.low) for effect in effects.values())
        source = "the spread of other networks" if any(
            effect.borrowed for effect in effects.values()) else "the interval"
        said = f"; {source} says: {verdict}" if known else ""
        why = f", with one seed{said}" if seeds else ", since rows are missing"
        verdict = OPEN
    lines = [(what, points(effect, **text)) for what, effect in effects.items()]
    return framed(COLORS[verdict], f"{finding}: {verdict}{why}", lines)

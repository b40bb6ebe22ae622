"""What a claim of the paper is, and the verdict of the rows on it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from .. import study
from ..analysis import answered
from ..effects import Crossing, Effect
from ..findings import OPEN as UNDECIDED
from .cells import Cells, arrays, spread

AS_IN_PAPER, CONTRARY = "as in the paper", "contrary to the paper"
ABOVE, BELOW = (0, np.inf), (-np.inf, 0)  # the paper expects an effect above or below zero
DECISIVE = "paper", "short"  # the profiles with the paper's networks and all images
RECIPE = ("paper",)  # of claims that hold for the paper's recipe alone
TINY = "quick"  # its direction is often not that of longer training, so it decides nothing
LEVEL = 0.05  # of a verdict on one claim
MARGIN = 0.5  # points, ours: the published spreads over seeds reach 0.74 (Table 1)


@dataclass(frozen=True)
class Part:
    """One effect that a claim makes a statement about."""

    label: str  # what it is, such as "at E = 8"
    effect: Effect | Crossing
    unit: str = "points"
    expected: tuple = ABOVE  # the range if the claim is true; one end is infinite for a side
    margin: float = 0.0  # by how much the effect may miss a finite range; a place in doublings

    def holds(self, level):
        """Whether the effect is on the expected side at this level; of a finite range and its
        margin, by two one-sided tests."""
        finite = np.isfinite(self.expected).all()
        low, high = self._interval(1 - 2 * level if finite else 1 - level)
        least, most = self._range
        return bool(low > least and high < most)

    def fails(self, level):
        """Whether the interval of confidence 1 - level lies outside of the range and its margin.

        An end beyond the tested places lies anywhere from the last of them on.
        """
        low, high = self._interval(1 - level)
        if isinstance(self.effect, Crossing):
            first, last = self._scale(self.effect.x[[0, -1]])
            low, high = np.minimum(low, last), np.maximum(high, first)
        least, most = self._range
        return bool(low > most or high < least)

    @property
    def distances(self):
        """How far the effect and the ends of its interval lie on the claim's side of the nearest
        bound; the effect comes first, and then the less favourable end."""
        value, low, high = self._scale(self.effect.value), *self._interval(0.95)
        least, most = self._range
        if value - least > most - value:
            return np.array([most - value, most - high, most - low])
        return np.array([value - least, low - least, high - least])

    @property
    def scaled(self):
        """The `distances` in half-widths of the interval, or nan without a finite interval."""
        low, high = self._interval(0.95)
        if not (np.isfinite([low, high]).all() and high > low):
            return np.full(3, np.nan)
        return self.distances / ((high - low) / 2)

    @property
    def unclear(self):
        """The `Crossing.unclear` of a place, else None."""
        return self.effect.unclear if isinstance(self.effect, Crossing) else None

    @property
    def _range(self):
        least, most = self._scale(self.expected)
        return least - self.margin, most + self.margin

    def _interval(self, confidence):
        if self.unclear:
            return np.nan, np.nan
        return self._scale(self.effect.interval(max(confidence, 0)))

    def _scale(self, values):
        """Effects as they are, places as their log2."""
        if not isinstance(self.effect, Crossing):
            return values
        with np.errstate(divide="ignore"):
            return np.log2(values)


def at_each(label, curve, unit="points", **more):
    """A `Part` for each x of a curve, such as "plain minus frozen LC at E = 8"."""
    return [Part(f"{label} = {x}", effect, unit, **more) for x, effect in curve.items()]


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims. It is true if every part is as expected."""

    number: str  # in the paper's order; claims of one sentence that are judged apart have a letter
    notebook: str  # that it belongs to, such as "03"
    where: str  # in the paper
    title: str
    runs: Callable  # from a profile to the runs of an experiment
    needs: tuple  # the roles whose runs it needs
    profiles: tuple = DECISIVE  # that may decide it: the paper's numbers hold for its recipe alone
    published: Cells | None = None  # the paper's own means, where it prints them
    reason: str = ""  # for runs that contradict it, if one is known
    parts: Callable | None = None  # from `Cells`; raises LookupError if they lack a network
    text: str = ""
    statistic: str = ""  # that decides it

    def epochs(self, profile):
        return self.runs(profile)[0].recipe.epochs


CLAIMS = []


def claim(*names, **options):
    """Adds a `Claim` to `CLAIMS`, with these fields and a function that gives its parts.

    The function's docstring is the claim, in our words, and in a second paragraph its statistic.
    """
    def add(parts):
        text, _, statistic = (" ".join(each.split()) for each in parts.__doc__.partition("\n\n"))
        CLAIMS.append(Claim(*names, **options, parts=parts, text=text, statistic=statistic))
        return parts

    return add


def judge(parts, level=LEVEL):
    """The verdict on a claim at an error rate of `level`: as in the paper if every part holds,
    contrary if one of m parts fails at level / m."""
    if parts and all(part.holds(level) for part in parts):
        return AS_IN_PAPER
    return CONTRARY if any(part.fails(level / len(parts)) for part in parts) else UNDECIDED


def p_value(parts):
    """The smallest level at which the rows decide the claim, 1 if they do at none; within 1 %."""
    if judge(parts, 0.999) == UNDECIDED:
        return 1.0
    low, high = 1e-15, 0.999
    while high > 1.01 * low:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if judge(parts, middle) == UNDECIDED else (low, middle)
    return high


def holm(p_values, level=LEVEL):
    """Which of several hypotheses survive Holm's correction over all of them, as an array."""
    order = np.argsort(p_values, kind="stable")
    passed = np.array(p_values)[order] <= level / np.arange(len(order), 0, -1)
    survive = np.empty(len(order), bool)
    survive[order] = np.logical_and.accumulate(passed)
    return survive


def weakest(parts):
    """The part that is least on the claim's side: the nearest to failing.

    Parts that make the claim contrary come first. Then a part without a finite interval is the
    least if it is on the other side, else it is not.
    """
    def place(part):
        known = not np.isnan(part.scaled[0])
        distance = part.scaled[0] if known else part.distances[0]
        if part.fails(LEVEL / len(parts)):
            return -2, distance
        return (0 if known else 1 if distance > 0 else -1), distance

    return min(parts, key=place)


def found(claim):
    """What the largest profile that has its runs says of a claim: `(profile, parts, why)`.

    Without such a profile, it is "none" with no parts. `why` says what a decisive one lacks. Tiny
    runs are left out where longer ones exist, however few: these may say the opposite.
    """
    of = {profile: rows_of(claim, profile) for profile in (*DECISIVE, TINY)}
    longer = any(covered for _, covered in map(of.get, DECISIVE))
    why = "no rows"
    if longer:
        epochs = " or ".join(str(claim.epochs(profile)) for profile in reversed(DECISIVE))
        why = f"too few networks with {epochs} epochs"
    for profile in DECISIVE if longer else (TINY,):
        rows, covered = of[profile]
        if covered < study.COVERED:
            continue
        try:
            return profile, claim.parts(Cells(rows)), why
        except LookupError as error:
            why = f"runs of {claim.epochs(profile)} epochs have {error.args[0]}"
    return "none", [], why


def rows_of(claim, profile):
    """The rows of a claim's networks in a profile, for `Cells`, and the share that has any."""
    runs, rows = stored(claim.runs, profile)
    rows = rows[rows["role"].isin(claim.needs)]
    return rows, study.covered([run for run in runs if role(run) in claim.needs], rows)


@lru_cache
def stored(experiment, profile):
    """The runs of an experiment, and their rows for `Cells`."""
    runs = {run.id: run for run in experiment(profile)}
    rows, _ = study.found_and_missing(list(runs.values()))
    return list(runs.values()), rows.assign(role=[role(runs[run_id]) for run_id in rows["id"]])


def role(run):
    """The role of a run's network, such as "LC frozen"."""
    kind = "LC" if run.architecture.expansion else "plain"
    return f"{kind} {'frozen' if run.frozen else 'learnable'}"


def forget():
    """Lets the next verdicts read the results anew."""
    for each in (stored, arrays, spread, answered):
        each.cache_clear()

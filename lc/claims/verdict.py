"""What a claim of the paper is, and the verdict of the rows on it. The claims themselves are in `lc.claims.claims`."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

import numpy as np

from .. import study
from ..analysis import Estimate, number
from ..imagenet.run import SIZES
from .effects import weakest

AS_IN_PAPER, CONTRARY, UNDECIDED = "as in the paper", "contrary to the paper", "not decided by these rows"
ABOVE, BELOW = (0, np.inf), (-np.inf, 0)  # the paper expects an effect above or below zero
PROFILES = tuple(name for name in study.PROFILES if name != "smoke")
PLACES = "E", "W", "D"  # units of effects that are places on a logarithmic axis
DIGITS = dict.fromkeys(PLACES, 0) | {"points": 2, "half-widths": 1, "FVE": 3, "log10": 3}


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims."""

    number: int  # 1 to 32, in the order of the paper
    notebook: str  # that it belongs to, such as "03"
    where: str  # its place in the paper
    title: str  # a few words, for a figure
    text: str  # what the paper claims, in our words
    statistic: str  # what decides it
    experiment: Callable  # of `study`: from a profile to runs
    needs: tuple  # the roles of the networks whose rows it needs
    parts: Callable  # from rows to a list of estimates, of which the weakest counts; LookupError if a network lacks rows
    unit: str = "points"  # of the effect, one of DIGITS
    expected: tuple = ABOVE  # the range of the effect if the claim is true; one end is infinite if the claim is about a side
    profiles: tuple = PROFILES  # those whose rows may decide it: a number of the paper holds for the paper's recipe alone


def decide(estimate, expected):
    """The verdict on an effect.

    A claim about a side of a bound is decided if the whole interval lies on one side. A claim about a range is contradicted if
    the interval lies wholly outside. It is confirmed if the interval reaches into the range, is finite and excludes zero, since
    an interval that contains everything confirms nothing.
    """
    low, high, (least, most) = estimate.low, estimate.high, expected
    if low > most or high < least:
        return CONTRARY
    within = low > least and high < most
    confirmed = within if np.isinf(expected).any() else np.isfinite([low, high]).all() and not low <= 0 <= high
    return AS_IN_PAPER if confirmed else UNDECIDED  # nan, too, is neither above nor below


def judged(claim):
    """The row of a claim in `claims.verdicts`, from the largest profile that has its runs."""
    for profile in PROFILES:
        with suppress(LookupError):
            found = weakest(claim.parts(_rows(claim, profile)))
            if not np.isnan(found.value):
                break
    else:
        found, profile = Estimate(np.nan, np.nan, np.nan, 0), "none"
    return dict(number=claim.number, where=claim.where, title=claim.title, claim=claim.text,
                statistic=f"{claim.statistic}. The paper expects {_range(claim)}.", effect=_effect(claim, found, profile),
                value=found.value, low=found.low, high=found.high, n=found.n, profile=profile,
                verdict=decide(found, claim.expected) if profile in claim.profiles else UNDECIDED, **_scaled(claim, found))


def _rows(claim, profile):
    """The rows of the networks that a claim needs, with the errors that their test images leave.

    Raises:
        LookupError: if the profile has rows of less than three quarters of the networks, as for the figures.
    """
    runs = {run.id: run for run in claim.experiment(profile) if _role(run) in claim.needs}
    rows, _ = study.found_and_missing(list(runs.values()))
    if study.covered(runs.values(), rows) < study.COVERED:
        raise LookupError(profile)
    images = rows["id"].map(lambda run_id: _images(runs[run_id]))
    tested, trained = (binomial_error(rows[column], count) for column, count in (
        ("accuracy", images), ("train_accuracy", np.minimum(rows["train_images"], 10_000))))
    return rows.assign(role=[_role(runs[run_id]) for run_id in rows["id"]], accuracy_error=tested,
                       robust_accuracy_error=binomial_error(rows["robust_accuracy"], images),
                       generalisation=rows["train_accuracy"] - rows["accuracy"], generalisation_error=np.hypot(tested, trained))


def binomial_error(percent, images):
    """The standard error, in points, of an accuracy in percent that was measured on so many images."""
    return 100 * np.sqrt(percent / 100 * (1 - percent / 100) / images)


def _role(run):
    return ("LC " if run.architecture.expansion else "plain ") + ("frozen" if run.frozen else "learnable")


def _images(run):
    """The number of test images of a run."""
    if run.dataset in SIZES:
        return 50 * (run.recipe.classes or SIZES[run.dataset][0])  # of each class, in ImageNet and in Tiny-ImageNet
    return run.recipe.test_images or {"svhn": 26_032}.get(run.dataset, 10_000)


def _range(claim):
    low, high = claim.expected
    if claim.unit in PLACES:
        return f"{claim.unit} between {low:.3g} and {high:.3g}"
    amount = f"more than {low:g}" if np.isinf(high) else f"less than {high:g}" if np.isinf(low) else f"{low:g} to {high:g}"
    return f"{amount} {claim.unit}"


def _effect(claim, found, profile):
    """The effect and its interval as text, with what limits them."""
    if profile == "none":
        return "no profile has rows of the runs that it needs"
    value, low, high = (number(each, DIGITS[claim.unit]) for each in (found.value, found.low, found.high))
    notes = ["no interval" if np.isnan(found.low) else f"95 %: {low} to {high}"]
    if found.n == 1:
        notes.append("one seed: direction only")
    if profile not in claim.profiles:
        notes.append(f"a number for rows of {' or '.join(claim.profiles)}")
    effect = f"{claim.unit}: {value}" if claim.unit in PLACES else f"{value} {claim.unit}"
    return f"{effect} ({'; '.join(notes)})"


def _scaled(claim, found):
    """Distances from the nearest bound of the expected range; nan if the interval has no finite width."""
    scale = (lambda places: np.log2(np.maximum(places, 0))) if claim.unit in PLACES else np.asarray
    with np.errstate(divide="ignore", invalid="ignore"):
        (value, low, high), (least, most) = scale([found.value, found.low, found.high]), scale(claim.expected)
        distances = np.array([value, low, high]) - least if value - least <= most - value else most - np.array([value, high, low])
        half = (high - low) / 2 if np.isfinite([low, high]).all() else np.nan
        return dict(zip(("scaled", "scaled_low", "scaled_high"), distances / half))

"""What a claim of the paper is, and the verdict of the rows on it. The claims themselves are in `lc.claims.claims`."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from .. import study
from ..imagenet.run import SIZES
from .statistics import binomial_error

AS_IN_PAPER, CONTRARY, UNDECIDED = "as in the paper", "contrary to the paper", "not decided by these rows"
PLAIN, PLAIN_FROZEN, LEARNABLE, FROZEN = "plain learnable", "plain frozen", "LC learnable", "LC frozen"  # the roles of networks
PROFILES = tuple(name for name in study.PROFILES if name != "smoke")
TEST_IMAGES = {"cifar10": 10_000, "cifar100": 10_000, "fashion-mnist": 10_000, "svhn": 26_032, "imagenet": 50_000,
               "tiny-imagenet-40": 2_000}
PLACES = {"E", "W", "D"}  # units of effects that are places on a logarithmic axis


@dataclass(frozen=True)
class Claim:
    """One of the paper's claims.

    Args:
        number: 1 to 32, in the order of the paper.
        notebook: the notebook that it belongs to, such as "03".
        where: its place in the paper.
        title: a few words, for a figure.
        text: what the paper claims, in our words.
        statistic: what decides it.
        unit: of the effect: "points" of accuracy, "E" and the like for places on an axis, "FVE", "log10", "half-widths".
        expected: the range in which the effect lies if the claim is true; one end is infinite if the claim is about a side.
        needs: the roles of the networks whose rows it needs.
        experiment: a function of `study` from a profile to runs; None if no experiment here trains what the claim is about.
        estimate: a function from rows to a `statistics.Estimate`. It raises LookupError if the rows lack a network.
        profiles: those whose rows may decide it. A number of the paper holds for the paper's recipe alone.
    """

    number: int
    notebook: str
    where: str
    title: str
    text: str
    statistic: str
    unit: str
    expected: tuple
    needs: tuple
    experiment: Callable | None
    estimate: Callable | None
    profiles: tuple = PROFILES


def decide(estimate, expected):
    """The verdict on an effect.

    A claim about a side of a bound is decided if the whole interval lies on one side. A claim about a range is contradicted if
    the interval lies wholly outside. It is confirmed if the interval reaches into the range, is finite and excludes zero, since
    an interval that contains everything confirms nothing.
    """
    (low, high), (least, most) = (estimate.low, estimate.high), expected
    if np.isnan(low) or np.isnan(high):
        return UNDECIDED
    if low > most or high < least:
        return CONTRARY
    if np.isinf(expected).any():
        confirmed = low > least and high < most
    else:
        confirmed = np.isfinite([low, high]).all() and not low <= 0 <= high
    return AS_IN_PAPER if confirmed else UNDECIDED


def judged(claim):
    """The row of a claim in `claims.verdicts`, from the largest profile that has its runs."""
    row = dict(number=claim.number, where=claim.where, title=claim.title, claim=claim.text,
               statistic=f"{claim.statistic}. The paper expects {_range(claim)}.")
    for profile in PROFILES if claim.experiment else ():
        try:
            found = claim.estimate(_rows(claim, profile))
        except LookupError:
            continue
        if np.isnan(found.value):
            continue
        verdict = decide(found, claim.expected) if profile in claim.profiles else UNDECIDED
        return row | dict(effect=_effect(claim, found, profile), value=found.value, low=found.low, high=found.high, n=found.n,
                          profile=profile, verdict=verdict) | _scaled(claim, found)
    effect = "no profile has rows of the runs that it needs" if claim.experiment else "no experiment here trains it"
    nothing = dict.fromkeys(("scaled", "scaled_low", "scaled_high"), np.nan)
    return row | dict(effect=effect, value=np.nan, low=np.nan, high=np.nan, n=0, profile="none", verdict=UNDECIDED) | nothing


def _rows(claim, profile):
    """The rows of the networks that a claim needs, with the errors that their test images leave.

    Raises:
        LookupError: if the profile has rows of less than three quarters of the networks, as for the figures.
    """
    runs = [run for run in claim.experiment(profile) if _role(run) in claim.needs]
    rows, _ = study.found_and_missing(runs)
    network = ["dataset", "model", "frozen"]
    if len(rows[network].drop_duplicates()) < study.COVERED * len({(run.dataset, run.model, run.frozen) for run in runs}):
        raise LookupError(profile)
    by_id = {run.id: run for run in runs}
    images = rows["id"].map(lambda run_id: _images(by_id[run_id]))
    rows = rows.assign(role=[_role(by_id[run_id]) for run_id in rows["id"]])
    for column in ("accuracy", "robust_accuracy"):
        rows[f"{column}_error"] = binomial_error(rows[column], images)
    trained = binomial_error(rows["train_accuracy"], np.minimum(rows["train_images"], 10_000))
    return rows.assign(generalisation=rows["train_accuracy"] - rows["accuracy"],
                       generalisation_error=np.hypot(rows["accuracy_error"], trained))


def _role(run):
    return ("LC " if run.architecture.expansion else "plain ") + ("frozen" if run.frozen else "learnable")


def _images(run):
    """The number of test images of a run."""
    images, classes = TEST_IMAGES[run.dataset], getattr(run.recipe, "classes", None)
    if classes:
        images = images * classes // SIZES[run.dataset][0]
    return min(images, getattr(run.recipe, "test_images", None) or images)


def _range(claim):
    (low, high), unit = claim.expected, claim.unit
    if unit in PLACES:
        return f"{unit} between {low:.3g} and {high:.3g}"
    if np.isinf(high):
        return f"more than {low:g} {unit}"
    return f"less than {high:g} {unit}" if np.isinf(low) else f"{low:g} to {high:g} {unit}"


def _effect(claim, found, profile):
    """The effect and its interval as text, with what limits them."""
    def number(value):
        if np.isinf(value):
            return "beyond all tested" if value > 0 else "below all tested"
        digits = {"points": 2, "half-widths": 1}.get(claim.unit, 0 if claim.unit in PLACES else 3)
        return f"{round(value, digits) + 0.0:.{digits}f}"  # 0.0 is added so that nothing is -0

    value = f"{claim.unit}: {number(found.value)}" if claim.unit in PLACES else f"{number(found.value)} {claim.unit}"
    notes = ["no interval" if np.isnan(found.low) else f"95 %: {number(found.low)} to {number(found.high)}"]
    if found.n == 1:
        notes.append("one seed: direction only")
    if profile not in claim.profiles:
        notes.append(f"a number for rows of {' or '.join(claim.profiles)}")
    return f"{value} ({'; '.join(notes)})"


def _scaled(claim, found):
    """Distances from the nearest bound of the expected range; nan if the interval has no finite width."""
    scale = (lambda places: np.log2(np.maximum(places, 0))) if claim.unit in PLACES else np.asarray
    with np.errstate(divide="ignore", invalid="ignore"):
        (value, low, high), (least, most) = scale([found.value, found.low, found.high]), scale(claim.expected)
        distances = np.array([value - least, low - least, high - least])
        if value - least > most - value:
            distances = np.array([most - value, most - high, most - low])
        half = (high - low) / 2 if np.isfinite([low, high]).all() else np.nan
        return dict(zip(("scaled", "scaled_low", "scaled_high"), distances / half))

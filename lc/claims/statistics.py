"""The statistics that decide the claims. Each returns an `Estimate`: an effect and its 95 % interval.

A sample is a DataFrame indexed by seed with the columns `value` and `error`. The error is the standard error that the finite
number of test images alone gives the value; it is nan if the value is no share of images.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from ..analysis import crossing_of


@dataclass(frozen=True)
class Estimate:
    """An effect, the ends of its 95 % interval (nan if unknown), and the number of seeds behind it."""

    value: float
    low: float
    high: float
    n: int


def binomial_error(percent, images):
    """The standard error, in points, of an accuracy in percent that was measured on so many images."""
    return 100 * np.sqrt(percent / 100 * (1 - percent / 100) / images)


def minus(a, b):
    """The sample of the differences a - b within a seed, of the seeds that both have."""
    a, b = a.align(b, join="inner", axis=0)
    return pd.DataFrame({"value": a["value"] - b["value"], "error": np.hypot(a["error"], b["error"])})


def average(samples):
    """The sample of the means over several samples within a seed, of the seeds that all have."""
    samples = list(samples)
    both = pd.concat(samples, axis=1, join="inner", keys=range(len(samples))).swaplevel(axis=1)
    return pd.DataFrame({"value": both["value"].mean(axis=1),
                         "error": (both["error"] ** 2).sum(axis=1, skipna=False) ** 0.5 / len(samples)})


def student(sample):
    """The mean of a sample with Student's interval. The interval of one seed is normal and knows the test images' error alone.

    Applied to `minus`, this is the interval of a difference paired by seed.

    Returns:
        An `Estimate`; all nan for an empty sample.
    """
    n, mean = len(sample), sample["value"].mean()
    half = _quantile(n - 1) * sample["value"].sem() if n > 1 else _quantile() * sample["error"].mean()
    return Estimate(mean, mean - half, mean + half, n)


def welch(a, b):
    """The difference of the means of two samples, a - b, with Welch's interval: for networks that share no weights.

    If either has one seed, the interval is normal and knows the test images' error alone.

    Returns:
        An `Estimate` whose `n` is the smaller number of seeds.
    """
    n, difference = min(len(a), len(b)), a["value"].mean() - b["value"].mean()
    if n > 1:
        parts = np.array([part["value"].var() / len(part) for part in (a, b)])
        freedom = parts.sum() ** 2 / max((parts ** 2 / (len(a) - 1, len(b) - 1)).sum(), np.finfo(float).tiny)
        half = _quantile(max(freedom, 1)) * parts.sum() ** 0.5
    else:
        half = _quantile() * sum((part["error"] ** 2).mean() / max(len(part), 1) for part in (a, b)) ** 0.5
    return Estimate(difference, difference - half, difference + half, n)


def slope(samples, draws=10_000):
    """The slope of a least-squares line through the means, bootstrapped over seeds.

    Percentiles of so few seeds are too narrow. The interval is therefore widened, as Student's is against the normal one and
    as the unbiased standard deviation is against the biased one. The interval of one seed is as in `student`.

    Args:
        samples: `{x: sample}`. Only seeds that every x has are used.

    Returns:
        An `Estimate`, per unit of x.
    """
    x = np.array(list(samples), float)
    curves = pd.concat([sample["value"] for sample in samples.values()], axis=1, join="inner")
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum() if len(x) > 1 else np.full(1, np.nan)
    slopes, n = curves.to_numpy() @ weights, len(curves)
    if n > 1:
        drawn = np.random.default_rng(0).choice(slopes, (draws, n)).mean(axis=1)
        widening = _quantile(n - 1) / _quantile() * (n / (n - 1)) ** 0.5
        low, high = slopes.mean() + widening * (np.quantile(drawn, [0.025, 0.975]) - slopes.mean())
        return Estimate(slopes.mean(), low, high, n)
    errors = np.array([sample["error"].reindex(curves.index).mean() for sample in samples.values()])
    half = _quantile() * np.sqrt((weights ** 2 * errors ** 2).sum())
    value = slopes.mean() if n else np.nan
    return Estimate(value, value - half, value + half, n)


def first_below(estimates):
    """The first x at which an effect is below zero, in the tested order: where frozen networks pass others as E grows.

    Args:
        estimates: `{x: Estimate}` in ascending order of x.

    Returns:
        An `Estimate` of x: `value` is the first whose mean lies below zero, `high` the first whose whole interval does, and
        `low` the first whose interval reaches below zero. They are inf if there is none among those tested.
    """
    def first(end):
        return float(next((x for x, estimate in estimates.items() if getattr(estimate, end) < 0), np.inf))

    return Estimate(first("value"), first("low"), first("high"), min(estimate.n for estimate in estimates.values()))


def crossing(gaps):
    """Where gaps close as x grows, interpolated against log x (Figure 6).

    The ends of the interval are where the two curves of the gaps' own ends close. Unlike `break_even`, which asks where a curve
    first closes, this leaves the place open if no gap differs from zero.

    Args:
        gaps: `{x: Estimate}` in ascending order of x.

    Returns:
        An `Estimate` of x. Beyond all tested, `value` and `high` are inf and `low` is the largest x tested. Below all tested,
        `value` and `low` are -inf and `high` is the smallest.
    """
    x = np.array(list(gaps), float)
    value, low, high = (float(crossing_of(x, np.array([getattr(gap, end) for gap in gaps.values()])))
                        for end in ("value", "low", "high"))
    return Estimate(value, min(low, x[-1]), max(high, x[0]), min(gap.n for gap in gaps.values()))


def weakest(estimates):
    """The estimate of the smallest of several effects, each of which a claim expects above a bound.

    Its ends are the smallest ends. If `low` is above the bound, so are all intervals. If `high` is below it, so is one interval;
    that one of many is so by chance is not corrected for.
    """
    values = np.array([(each.value, each.low, each.high, each.n) for each in estimates])
    *effect, n = values.min(axis=0)
    return Estimate(*map(float, effect), int(n))


def standardised(estimate):
    """An estimate in units of its interval's half-width, so that effects of different units can be compared."""
    half = (estimate.high - estimate.low) / 2 or np.nan
    return Estimate(estimate.value / half, estimate.low / half, estimate.high / half, estimate.n)


def _quantile(freedom=None):
    """Half the width of a 95 % interval in standard errors: normal, or Student's with so many degrees of freedom."""
    return stats.norm.ppf(0.975) if freedom is None else stats.t.ppf(0.975, freedom)

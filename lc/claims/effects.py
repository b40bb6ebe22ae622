"""From rows to the effects that decide the claims, each an `analysis.Estimate` with its 95 % interval.

Rows have the column `role`, and `<column>_error` for shares of images. A sample is a DataFrame indexed by seed with the columns
`value` and `error`: the standard error that the finite number of test images alone gives the value, or nan. A curve is
`{x: sample}` in ascending order of x. Its samples share the variance over seeds, because the few seeds of one network tell
little of it. All functions raise LookupError if the rows lack a network.
"""

from itertools import pairwise

import numpy as np
import pandas as pd
from scipy import stats

from .. import paper, results
from ..analysis import Estimate, centre_to_border, student, welch

PLAIN, PLAIN_FROZEN, LEARNABLE, FROZEN = "plain learnable", "plain frozen", "LC learnable", "LC frozen"  # the roles of networks
LOSS, LEAD, PLAIN_LOSS = (LEARNABLE, FROZEN), (FROZEN, LEARNABLE), (PLAIN, PLAIN_FROZEN)  # the first role minus the second


def curve(rows, role, column="accuracy", x="expansion"):
    """The curve of a role. Plain networks have the expansion 0."""
    rows = rows[rows["role"] == role].dropna(subset=column)
    if rows.empty:
        raise LookupError(f"no rows of {role}")
    samples = pd.DataFrame({"value": rows[column], "error": rows.get(f"{column}_error", np.nan)}).set_index(rows["seed"])
    return pooled({value: samples[(rows[x] == value).to_numpy()] for value in sorted(rows[x].unique())})


def pooled(samples):
    """The same curve, each sample with its `spread`: the variance over seeds, pooled over the curve, and its degrees of freedom."""
    freedom = sum(len(sample) - 1 for sample in samples.values())
    squares = sum(((sample["value"] - sample["value"].mean()) ** 2).sum() for sample in samples.values())
    for sample in samples.values():
        sample.attrs["spread"] = squares / max(freedom, 1), freedom
    return samples


def gap(rows, roles=LOSS, column="accuracy", x="expansion"):
    """The curve of the first role minus the second, within a seed; by default what freezing costs LC networks."""
    a, b = (curve(rows, role, column, x) for role in roles)
    differences = {value: minus(a[value], b[value]) for value in a if value in b and len(minus(a[value], b[value]))}
    if not differences:
        raise LookupError(f"no seed has both {' and '.join(roles)}")
    return pooled(differences)


def losses(rows, chosen):
    """What freezing costs the off-the-shelf networks of which `chosen` is true: a list of samples."""
    return [loss for name, loss in gap(rows, PLAIN_LOSS, x="model").items() if chosen(name)]


def by_kernel(rows, roles, column="accuracy"):
    """The curve against k of the mean of `gap` over the expansions that every kernel size has."""
    of_each = {k: gap(part, roles, column) for k, part in rows.groupby("kernel_size")}
    shared = sorted(set.intersection(*map(set, of_each.values())))
    return pooled({k: average(differences[e] for e in shared) for k, differences in of_each.items()})


def with_centre(rows, name):
    """The rows with `centre`: log10 of the centre over the border in each run's variance map, or in its filters' mean squares."""
    maps = (results.load_arrays(run)[name].astype(float) for run in rows["id"])
    maps = ((each ** 2).mean((0, 1)) if each.ndim == 4 else each for each in maps)
    return rows.assign(centre=[np.log10(centre_to_border(each)) for each in maps])


def minus(a, b):
    """The sample of the differences a - b within a seed, of the seeds that both have."""
    a, b = a.align(b, join="inner", axis=0)
    return pd.DataFrame({"value": a["value"] - b["value"], "error": np.hypot(a["error"], b["error"])})


def average(samples):
    """The sample of the means over several samples within a seed, of the seeds that all have."""
    values, errors = _columns(samples)
    return pd.DataFrame({"value": values.mean(axis=1), "error": (errors ** 2).sum(axis=1, skipna=False) ** 0.5 / values.shape[1]})


def _columns(samples):
    """The values and the errors of several samples, each as a DataFrame with a row for each seed that all have."""
    samples = list(samples) or [pd.DataFrame(columns=["value", "error"], dtype=float)]
    return [pd.concat([sample[name] for sample in samples], axis=1, join="inner") for name in ("value", "error")]


def mean(sample):
    """The mean of a sample with Student's interval: paired by seed if the sample is a difference."""
    return student(sample["value"], sample["error"].mean(), sample.attrs.get("spread"))


def apart(a, b):
    """The difference of two samples, a - b, with Welch's interval."""
    error = sum((each["error"] ** 2).mean() / max(len(each), 1) for each in (a, b)) ** 0.5
    return welch(a["value"], b["value"], error, [each.attrs.get("spread") for each in (a, b)])


def each(statistic, samples):
    """`{x: Estimate}` of a curve."""
    return {x: statistic(sample) for x, sample in samples.items()}


def more(rows, *pairs, column="accuracy", x="expansion"):
    """The differences between two cells, for each pair of cells of which the first is claimed to be above the second.

    A cell is a role, with all samples of its curve, or (role, place), where the place is a value of x, `min` or `max`.
    """
    def samples(cell):
        role, place = (cell, None) if isinstance(cell, str) else cell
        whole = curve(rows, role, column, x)
        return whole.values() if place is None else [whole[place(whole) if callable(place) else place]]

    return [apart(a, b) for above, below in pairs for a in samples(above) for b in samples(below)]


def slope(samples, log=True, draws=10_000):
    """The slope of a least-squares line through a curve's means against x or its log2, bootstrapped over seeds that every x has.

    The deviations from the means are drawn anew, from all of the curve. Percentiles of so few seeds are too narrow. The interval
    is therefore widened, as Student's is against the normal one and as the unbiased standard deviation is against the biased
    one. The interval of one seed is normal.
    """
    x = np.array(list(samples), float)
    x = np.log2(x) if log else x
    values, errors = _columns(samples.values())
    weights = (x - x.mean()) / ((x - x.mean()) ** 2).sum() if len(x) > 1 else np.full(1, np.nan)
    slopes, n = values @ weights, len(values)
    if n < 2:
        return student(slopes, np.linalg.norm(errors * weights))
    deviations = (values - values.mean()).to_numpy().ravel()
    drawn = np.random.default_rng(0).choice(deviations, (draws, n, len(x))).mean(axis=1) @ weights
    widening = stats.t.ppf(0.975, len(x) * (n - 1)) / stats.norm.ppf(0.975) * (n / (n - 1)) ** 0.5
    low, high = slopes.mean() + widening * np.quantile(drawn, [0.025, 0.975])
    return Estimate(slopes.mean(), low, high, n)


def first_below(estimates):
    """The first x at which an effect is below zero, in the tested order: where frozen networks pass others as E grows.

    `value` is the first x whose mean lies below zero, `high` the first whose whole interval does, and `low` the first whose
    interval reaches below zero. They are inf if there is none among those tested.
    """
    places = [float(next((x for x, estimate in estimates.items() if getattr(estimate, end) < 0), np.inf))
              for end in ("value", "low", "high")]
    return Estimate(*places, min(estimate.n for estimate in estimates.values()))


def weakest(estimates):
    """The estimate of the smallest of several effects, each of which a claim expects above a bound.

    Its ends are the smallest ends. If `low` is above the bound, so are all intervals. If `high` is below it, so is one interval;
    that one of many is so by chance is not corrected for.
    """
    values = np.array([(each.value, each.low, each.high, each.n) for each in estimates])
    if not len(values):
        raise LookupError("no network has the runs")
    *effect, n = values.min(axis=0)
    return Estimate(*map(float, effect), int(n))


# The effects of single claims. Those of several parts are lists, of which the weakest counts.

def spread_when_frozen(rows):
    def spread(role):
        ordered = sorted(curve(rows, role, x="model").values(), key=lambda sample: sample["value"].mean())
        return minus(ordered[-1], ordered[0])

    return [mean(minus(spread(PLAIN_FROZEN), spread(PLAIN)))]


def robust_rise(rows, column="robust_accuracy"):
    frozen = curve(rows, FROZEN, column)
    *_, before, last = [None, *frozen]
    return [slope(frozen), mean(gap(rows, LEAD, column)[last]),
            *more(rows, ((FROZEN, last), (FROZEN, before)), ((FROZEN, last), PLAIN), column=column)]


def diverse_but_less_robust(rows):
    rows = rows[rows["expansion"].isin((0, *paper.DIVERSE_BUT_LESS_ROBUST_AT))]
    parts = more(rows, (FROZEN, PLAIN), column="fve_last") + more(rows, (PLAIN, FROZEN), column="robust_accuracy")
    halves = [(part.high - part.low) / 2 or np.nan for part in parts]  # the common unit of entropy and accuracy
    return [Estimate(part.value / half, part.low / half, part.high / half, part.n) for part, half in zip(parts, halves)]


def order_of_table_1(rows):
    roles = [curve(rows, role, x="dataset") for role in (FROZEN, PLAIN, LEARNABLE)]
    shared = [name for name in roles[0] if all(name in samples for samples in roles)]
    return [mean(average(minus(above[name], below[name]) for name in shared)) for above, below in pairwise(roles)]


def collapse_of_large_kernels(rows):
    learnable = pooled({k: average(curve(part, LEARNABLE, "fve_last").values()) for k, part in rows.groupby("kernel_size")})
    return [apart(learnable[3], sample) for k, sample in learnable.items() if k > 3]

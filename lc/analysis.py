"""From rows to what a figure draws and a table says: means over seeds, gaps, differences, break-evens, matched filters, hours."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats
from scipy.optimize import linear_sum_assignment

from .data import TITLES
from .imagenet import NETWORKS
from .models import OFF_THE_SHELF, Architecture

BASELINES = {("cifar10", name) for name in (*OFF_THE_SHELF, "ResNet-20-16")} | {
    (dataset, name) for dataset in ("imagenet", "tiny-imagenet-40") for name in NETWORKS if name != "ResNet-18d"}


def summary(table, *columns):
    """Means and standard deviations over seeds.

    Returns:
        A DataFrame with a row for each data set, model and `frozen`, ordered by kernel size, depth, width and expansion:
        `dataset`, `model`, the fields of `models.Architecture`, `frozen`, `learnable_parameters`, `n`, and for each of
        `columns` its mean under its own name and its standard deviation as `<column>_std` (nan for one seed).
    """
    groups = table.groupby(["dataset", "model", *Architecture._fields, "frozen"])
    return _means(groups, columns, learnable_parameters=groups["learnable_parameters"].first())


def gaps(table, column="accuracy"):
    """What is lost by freezing: `column` of the learnable run minus that of the frozen one, paired by seed.

    Returns:
        A DataFrame as `summary` makes it, without `frozen`, of the networks that have both runs: `gap` and `gap_std` in points.
    """
    keys = ["dataset", "model", *Architecture._fields]
    learnable, frozen = (table[table["frozen"] == kind].set_index([*keys, "seed"])[column] for kind in (False, True))
    difference = (learnable - frozen).dropna().rename("gap").reset_index()
    return _means(difference.groupby(keys), ["gap"])


def differences(table, column):
    """What bf16 changes: the mean of `column` over the runs in bf16 minus that over the runs in fp32, for each network.

    Two 95 % intervals: Welch's, which takes the two variances as they are and the runs as independent, and Student's of
    the differences between runs of one seed. What rounding changes in the first steps, training enlarges; where it is too
    short for runs of one seed to part, the first interval is wider than it need be.

    Args:
        table: rows of `study.precision`, told apart by their column `precision`.

    Returns:
        A DataFrame with a row for each data set, model and `frozen`: `n_fp32` and `n_bf16`, runs; `fp32` and `bf16`, means;
        `difference`; `low` and `high`, the ends of Welch's interval; `paired_low` and `paired_high`, of the seeds that have both
        runs. What there are too few runs for is nan.
    """
    keys, kinds = ["dataset", "model", "frozen"], ["fp32", "bf16"]
    groups = table.groupby([*keys, "precision"])[column]
    n, mean, variance = (part.unstack().reindex(columns=kinds)
                         for part in (groups.size(), groups.mean(), groups.var() / groups.size()))
    both, difference = variance.sum(axis=1, skipna=False), mean["bf16"] - mean["fp32"]
    freedom = both ** 2 / (variance ** 2 / (n - 1)).sum(axis=1, skipna=False)
    half = stats.t.ppf(0.975, freedom) * both ** 0.5
    by_seed = table.set_index([*keys, "seed", "precision"])[column].unstack().reindex(columns=kinds)
    pairs = (by_seed["bf16"] - by_seed["fp32"]).groupby(keys)
    paired, paired_half = pairs.mean(), stats.t.ppf(0.975, pairs.count() - 1) * pairs.sem()
    return n.fillna(0).astype(int).add_prefix("n_").join(mean).assign(
        difference=difference, low=difference - half, high=difference + half, paired_low=paired - paired_half,
        paired_high=paired + paired_half).reset_index()


def _means(groups, columns, **more):
    parts = dict(more, n=groups.size())
    for column in columns:
        parts[column], parts[f"{column}_std"] = groups[column].mean(), groups[column].std()
    means = pd.DataFrame(parts).reset_index()
    return means.sort_values(["kernel_size", "depth", "width", "expansion"], kind="stable").reset_index(drop=True)


def first_above(curve, other):
    """The least expansion at which one curve is above another, number or curve: the paper's kind of break-even in Section 4.1.

    Args:
        curve, other: pandas Series indexed by expansion, in ascending order; `other` may be a number.

    Returns:
        The expansion, or None if there is none among those tested.
    """
    above = curve[curve > (other.reindex(curve.index) if isinstance(other, pd.Series) else other)]
    return int(above.index[0]) if len(above) else None


@dataclass(frozen=True)
class BreakEven:
    """Where a gap closes, `at`, and its 90 % interval: inf beyond and -inf below all values tested, nan if it cannot be told."""

    at: float
    low: float
    high: float

    def __str__(self):
        if np.isnan(self.at):
            return "unknown: there is no network with both runs"
        at, low, high = ({np.inf: "beyond all tested", -np.inf: "below all tested"}.get(value, f"{value:.0f}")
                         for value in (self.at, self.low, self.high))
        return f"{at} ({'one seed: no interval' if np.isnan(self.low) else f'90 % interval: {low} to {high}'})"


def break_even(gaps, x, draws=10_000):
    """Where frozen networks catch up with learnable ones as `x` grows (Figure 6), by interpolation against log x.

    The interval is that of the crossing when each mean gap is drawn anew from what its seeds say of it: Student's t
    with n - 1 degrees of freedom about the mean, scaled by the standard error.

    Args:
        gaps: a table of `gaps`; its rows with one seed make the interval unknown.
        x: a column of it, "width", "depth" or "expansion".

    Returns:
        A `BreakEven`, of the first crossing.
    """
    gaps = gaps.sort_values(x)
    values, mean = gaps[x].to_numpy(float), gaps["gap"].to_numpy()
    if not len(gaps):
        return BreakEven(np.nan, np.nan, np.nan)
    at = _crossing(values, mean)
    if (gaps["n"] < 2).any():
        return BreakEven(at, np.nan, np.nan)
    n = gaps["n"].to_numpy()
    t = np.random.default_rng(0).standard_t(n - 1, (draws, len(n)))
    crossings = [_crossing(values, drawn) for drawn in mean + t * gaps["gap_std"].to_numpy() / np.sqrt(n)]
    low, high = np.quantile(crossings, [0.05, 0.95], method="inverted_cdf")
    return BreakEven(at, low, high)


def _crossing(x, gap):
    closed = np.flatnonzero(gap <= 0)
    if not len(closed):
        return np.inf
    i = closed[0]
    return -np.inf if i == 0 else np.exp(np.interp(0, gap[[i, i - 1]], np.log(x)[[i, i - 1]]))


def outside_both_spreads(mean, spread, published):
    """Whether a mean differs from a published one by more than both spreads; a spread of nan counts as none."""
    return abs(mean - published.mean) > max(np.nan_to_num(spread), published.spread or 0)


def matched(rows):
    """Reorder each row's filters so that the same ones stand below each other (Figures 7 and 10).

    Networks number their filters at random. The last row's are put in order of their norm; then each row, from the
    bottom up, is matched with the one below: the assignment with the largest sum of cosine similarities.

    Args:
        rows: a list of arrays `[c_out, c_in, k, k]` of one shape.

    Returns:
        The same list, each array reordered along its first axis.
    """
    below = rows[-1][np.argsort(-np.linalg.norm(rows[-1].reshape(len(rows[-1]), -1), axis=1))]
    ordered = [below]
    for row in reversed(rows[:-1]):
        a, b = (filters.reshape(len(filters), -1) for filters in (below, row))
        similarity = (a @ b.T) / (np.linalg.norm(a, axis=1)[:, None] * np.linalg.norm(b, axis=1) + 1e-12)
        below = row[linear_sum_assignment(similarity, maximize=True)[1]]
        ordered.append(below)
    return ordered[::-1]


def hours(table):
    """What runs cost (Table 4), from their own rows.

    Returns:
        A DataFrame with a row for each line of Table 4 that has runs, one more for those of `study.precision`, and each device:
        `line`, `device`, `runs`, `hours` (the sum of the runs' own times, evaluation included), `runs_per_hour`, `energy` (kWh;
        nan unless every run recorded it).
    """
    def line(row):
        if row["profile"].endswith(("-fp32", "-bf16")):
            return "Precision"
        if row["between"]:
            return "Ablation"
        # The paper's baselines are those of Section 3; that its other lines include plain networks is our reading.
        baseline = (row["dataset"], row["model"]) in BASELINES
        return f"{'Baseline' if baseline else 'LC'} {TITLES.get(row['dataset'], row['dataset'])}"

    groups = table.assign(line=[line(row) for _, row in table.iterrows()]).groupby(["line", "device"])
    costs = pd.DataFrame({"runs": groups.size(), "hours": groups["seconds"].sum() / 3600,
                          "energy": groups["energy"].agg(lambda used: used.sum(skipna=False)) / 1000}).reset_index()
    costs.insert(4, "runs_per_hour", costs["runs"] / costs["hours"])
    return costs


def centre_to_border(values):
    """How much larger the centre of a map `[k, k]` is than the mean of its border: 1 for a uniform map."""
    k = len(values)
    border = (values.sum() - values[1:-1, 1:-1].sum()) / (4 * k - 4)
    return float(values[k // 2, k // 2] / border)


# Statistics of the claims (`lc.claims`). A sample below is a DataFrame indexed by seed with the columns `value` and `error`: the
# standard error that the finite number of test images alone gives the value, nan if the value is no share of images.

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
    value, low, high = (float(_crossing(x, np.array([getattr(gap, end) for gap in gaps.values()])))
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

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
    return _means(gaps_by_seed(table, column).groupby(["dataset", "model", *Architecture._fields]), ["gap"])


def gaps_by_seed(table, column="accuracy"):
    """As `gaps`, with a row for each network and seed that has both runs."""
    keys = ["dataset", "model", *Architecture._fields, "seed"]
    learnable, frozen = (table[table["frozen"] == kind].set_index(keys)[column] for kind in (False, True))
    return (learnable - frozen).dropna().rename("gap").reset_index()


def accuracies(table, rows, roles):
    """Mean accuracies as a table of the paper has them, keyed by role and not by network.

    Args:
        table: rows of one or several profiles, of which each gets lines of its own.
        rows, roles: functions from a row to the line and the column of the paper's table, as text.

    Returns:
        A DataFrame with the columns `row`, `role`, `accuracy`, `spread` (nan for one seed), `n` and `source` (the profile).
    """
    keyed = table.assign(row=[rows(row) for _, row in table.iterrows()], role=[roles(row) for _, row in table.iterrows()])
    groups = keyed.groupby(["row", "role", "profile"], sort=False)["accuracy"]
    found = groups.agg(accuracy="mean", spread="std", n="size").reset_index()
    return found.rename(columns={"profile": "source"})


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
    at = crossing_of(values, mean)
    if (gaps["n"] < 2).any():
        return BreakEven(at, np.nan, np.nan)
    n = gaps["n"].to_numpy()
    t = np.random.default_rng(0).standard_t(n - 1, (draws, len(n)))
    crossings = [crossing_of(values, drawn) for drawn in mean + t * gaps["gap_std"].to_numpy() / np.sqrt(n)]
    low, high = np.quantile(crossings, [0.05, 0.95], method="inverted_cdf")
    return BreakEven(at, low, high)


def crossing_of(x, gap):
    closed = np.flatnonzero(gap <= 0)
    if not len(closed):
        return np.inf
    i = closed[0]
    return -np.inf if i == 0 else np.exp(np.interp(0, gap[[i, i - 1]], np.log(x)[[i, i - 1]]))


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

"""From rows to what figures draw and tables say: means, gaps, intervals, matched filters."""

from functools import lru_cache

import numpy as np
from scipy.optimize import linear_sum_assignment

from . import results
from .effects import Crossing, Effect, of_seeds
from .names import Architecture
from .run import PROFILES

# What rows of several seeds share, and the order of the networks in tables
NETWORK = ["profile", "epochs", "dataset", "model", *Architecture._fields]
ORDER = ["profile", "kernel_size", "depth", "width", "expansion"]
# Which of a run's arrays tell what it got right. The accuracy on training images has no such part.
ANSWERS = {"accuracy": "right", "robust_accuracy": "robust", "generalisation": "right"}


def summary(table, *columns, by=(*NETWORK, "frozen")):
    """Means and standard deviations over seeds.

    Returns:
        A DataFrame with a row for each combination of `by`, the largest profile first: these, `n`,
        and of each of `columns` the mean, and the standard deviation as `<column>_std` (nan for one
        seed).
    """
    groups = table.groupby(list(by))
    means = groups.size().rename("n").to_frame()
    for column in columns:
        means[column], means[f"{column}_std"] = groups[column].mean(), groups[column].std()
    order = [column for column in ORDER if column in by]
    return means.reset_index().sort_values(order, key=_ranks, kind="stable", ignore_index=True)


def _ranks(column):
    """What a column is sorted by: profiles by their size, those of ImageNet's own names first."""
    sizes = {name: i for i, name in enumerate(PROFILES)}
    return column.map(sizes).fillna(-1) if column.name == "profile" else column


def gaps(table):
    """What freezing costs, of networks that have both runs: `summary` of the `gaps_by_seed`."""
    return summary(gaps_by_seed(table), "gap", by=NETWORK)


def gaps_by_seed(table):
    """What freezing costs: the accuracy of the learnable run minus that of the frozen one.

    Returns:
        A DataFrame with a row for each network and seed that has both runs: these, and `gap`.
    """
    values = table.set_index([*NETWORK, "seed"])["accuracy"]
    frozen = table["frozen"].to_numpy(bool)
    return (values[~frozen] - values[frozen]).dropna().rename("gap").reset_index()


def seed_spread(rows, column="accuracy"):
    """How much seeds differ: a column's variance within a network, over all that have several.

    It is of the paper's networks. Those that start otherwise differ otherwise over seeds: filters
    at shuffled positions have their largest variance at another place for each.

    Returns:
        `{frozen: (variance, degrees of freedom)}`, since frozen and learnable networks differ in
        it; nan and 0 if none has two seeds.
    """
    rows, spread = rows[~rows["model"].str.contains("~")], {}
    for frozen in (False, True):
        networks = rows[rows["frozen"] == frozen].groupby(["profile", "dataset", "model"])[column]
        weights = networks.size() - 1
        freedom = weights.sum()
        variance = (networks.var() * weights).sum() / freedom if freedom else np.nan
        spread[frozen] = variance, freedom
    return spread


def effect_of(rows, spread, column="accuracy"):
    """The `effects.Effect` of a column of one network's rows; unknown without any.

    Args:
        spread: of `seed_spread`, of the same column.
    """
    if rows.empty:
        return Effect({})
    answers = {seed: 100 * each for seed, each in zip(
        rows["seed"], (answered(run_id, column) for run_id in rows["id"])) if each is not None}
    return of_seeds(dict(zip(rows["seed"], rows[column])), pooled=spread[rows["frozen"].iloc[0]],
                    answers=answers, images=rows["dataset"].iloc[0])


@lru_cache(maxsize=1024)
def answered(run_id, column):
    """Which test images a run got right, 0 or 1 for each, for a column that counts them; None if it
    is not stored. At the end, up to seven zeros fill the last byte."""
    try:
        return np.unpackbits(results.load_arrays(run_id)[ANSWERS[column]])
    except (KeyError, results.ResultsError):  # of another column, an old run, or the rows alone
        return None


def break_even(rows, x):
    """Where frozen networks catch up with learnable ones (Figure 6), as `effects.Crossing`.

    Args:
        rows: of one profile.
        x: what grows: "width", "depth" or "expansion".
    """
    return Crossing({place: of_seeds(part.set_index("seed")["gap"])
                     for place, part in gaps_by_seed(rows).groupby(x)})


def matched(rows):
    """Reorder filters so that the same ones stand below each other (Figures 7 and 10).

    The last row's are put in order of their norm; then each row, from the bottom up, is matched
    with the one below: the assignment with the largest sum of cosine similarities.

    Args:
        rows: a list of arrays `[c_out, c_in, k, k]` of one shape; each is reordered along c_out.
    """
    below = rows[-1][np.argsort(-_norms(rows[-1]))]
    ordered = [below]
    for row in reversed(rows[:-1]):
        products = below.reshape(len(below), -1) @ row.reshape(len(row), -1).T
        similarity = products / (_norms(below)[:, None] * _norms(row) + 1e-12)
        below = row[linear_sum_assignment(similarity, maximize=True)[1]]
        ordered.append(below)
    return ordered[::-1]


def _norms(filters):
    return np.linalg.norm(filters.reshape(len(filters), -1), axis=1)


def central_share(values, size=3):
    """The share of a map in its central square (Figures 7, 8b, 10): of a uniform one size² / k².

    Args:
        values: `[k, k]`, the mean square (or variance) of weights at each position, with k odd.
        size: the side of the square, in pixels.
    """
    edge = max(0, (len(values) - size) // 2)
    inside = slice(edge, len(values) - edge)
    return float(values[inside, inside].sum() / values.sum())

"""From rows to what figures draw and tables say: means, gaps, intervals, matched filters."""

from functools import lru_cache
from typing import NamedTuple

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


class Spread(NamedTuple):
    """What the runs of a profile and data set tell of one column: variances and their degrees of
    freedom, nan and 0 where they are unknown."""

    seeds: dict  # {frozen: of a network over its seeds}
    images: tuple = (np.nan, 0)  # of one run over the test images, as far as runs do not share it


def spread_of(rows, column="accuracy"):
    """How much a column differs between seeds, and between test images.

    Over seeds, it is the variance within a network, over all that have several, for frozen and for
    learnable networks. It is of the paper's networks: those that start otherwise differ otherwise
    over seeds. Filters at shuffled positions have their largest variance at another place for each.

    Args:
        rows: of one data set, since only answers to the same images can be compared.
    """
    rows, seeds = rows[~rows["model"].str.contains("~")], {}
    for frozen in (False, True):
        networks = rows[rows["frozen"] == frozen].groupby(["profile", "dataset", "model"])[column]
        weights = networks.size() - 1
        freedom = weights.sum()
        variance = (networks.var() * weights).sum() / freedom if freedom else np.nan
        seeds[frozen] = variance, freedom
    answers = [each for each in map(answered, rows["id"], [column] * len(rows)) if each is not None]
    if len(answers) < 2:
        return Spread(seeds)
    images = len(answers[0])
    return Spread(seeds, (100 ** 2 * np.var(answers, axis=0, ddof=1).mean() / images, images - 1))


@lru_cache(maxsize=1024)
def answered(run_id, column):
    """Which test images a run got right, 0 or 1 for each, for a column that counts them; None if it
    is not stored."""
    try:
        return np.unpackbits(results.load_arrays(run_id)[ANSWERS[column]])
    except (KeyError, results.ResultsError):  # of another column, an old run, or the rows alone
        return None


def effect_of(rows, spread, column="accuracy"):
    """The `effects.Effect` of a column of one network's rows; unknown without any.

    Args:
        spread: of `spread_of`, of the same column.
    """
    if rows.empty:
        return Effect({})
    answers = [answered(run_id, column) for run_id in rows["id"]]
    known = all(each is not None for each in answers)
    return of_seeds(dict(zip(rows["seed"], rows[column])),
                    pooled=spread.seeds[rows["frozen"].iloc[0]], unshared=spread.images,
                    images=rows["dataset"].iloc[0],
                    answers=100 * np.mean(answers, axis=0) if known else None)


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

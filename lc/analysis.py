"""From rows to what figures draw and tables say: means, gaps, intervals, matched filters, hours."""

import numpy as np
import pandas as pd
from scipy.optimize import linear_sum_assignment

from .data import TITLES
from .effects import Cell, Crossing, Effect
from .imagenet import NETWORKS
from .models import OFF_THE_SHELF, Architecture
from .run import PROFILES

# What rows of several seeds share, and the order of the networks in tables
NETWORK = ["profile", "dataset", "model", *Architecture._fields]
ORDER = ["profile", "kernel_size", "depth", "width", "expansion"]


def summary(table, *columns):
    """Means and standard deviations over seeds.

    Returns:
        A DataFrame with a row for each profile (the largest first), data set, model and `frozen`:
        these and the fields of `models.Architecture`, `learnable_parameters`, `n`, and for each of
        `columns` its mean under its own name and its standard deviation as `<column>_std` (nan for
        one seed).
    """
    groups = table.groupby([*NETWORK, "frozen"])
    return _means(groups, columns, learnable_parameters=groups["learnable_parameters"].first())


def gaps(table, column="accuracy"):
    """What freezing costs: `column` of the learnable run minus that of the frozen one, by seed.

    Returns:
        A DataFrame as `summary` makes it, without `frozen`, of the networks that have both runs:
        `gap` and `gap_std` in points.
    """
    return _means(gaps_by_seed(table, column).groupby(NETWORK), ["gap"])


def gaps_by_seed(table, column="accuracy"):
    """As `gaps`, with a row for each network and seed that has both runs."""
    values = table.set_index([*NETWORK, "seed"])[column]
    frozen = table["frozen"].to_numpy(bool)
    return (values[~frozen] - values[frozen]).dropna().rename("gap").reset_index()


def _means(groups, columns, **more):
    parts = dict(more, n=groups.size())
    for column in columns:
        parts[column], parts[f"{column}_std"] = groups[column].mean(), groups[column].std()
    means = pd.DataFrame(parts).reset_index()
    return means.sort_values(ORDER, key=_ranks, kind="stable", ignore_index=True)


def _ranks(column):
    """What a column is sorted by: profiles by their size, those of ImageNet's own names first."""
    if column.name != "profile":
        return column
    return column.map({name: i for i, name in enumerate(PROFILES)}).fillna(-1)


def accuracies(table, rows, roles):
    """Mean accuracies as a table of the paper has them, keyed by role and not by network.

    Args:
        table: rows of one or several profiles, of which each gets lines of its own.
        rows, roles: functions from a row to the line and the column of the paper's table, as text.

    Returns:
        A DataFrame with the columns `row`, `role`, `accuracy`, `spread` (nan for one seed), `n`,
        `epochs` and `source` (the profile).
    """
    keys = [table.apply(rows, axis=1).rename("row"), table.apply(roles, axis=1).rename("role"),
            table["profile"].rename("source")]
    return table.groupby(keys, sort=False).agg(
        accuracy=("accuracy", "mean"), spread=("accuracy", "std"), n=("accuracy", "size"),
        epochs=("epochs", "first")).reset_index()


def largest_profiles(cells):
    """`accuracies` of the largest profile that has every role, and of larger ones, for each line.

    It is for tables whose lines are not compared with each other, such as Table 1.
    """
    size = _ranks(cells["source"].rename("profile"))
    whole = cells.groupby(["row", "source"])["role"].transform("nunique") == cells["role"].nunique()
    largest = size[whole].groupby(cells["row"]).min()
    return cells[size <= cells["row"].map(largest).fillna(np.inf)]


def differences(table, column):
    """What bf16 changes: the mean of `column` in bf16 minus that in fp32, for each network.

    Rounding differences grow during training. In short trainings, runs with one seed stay
    correlated: then Welch's interval, which takes runs as independent, is too wide, and Student's
    of the differences within a seed is not.

    Args:
        table: rows of `study.precisions`, told apart by their column `precision`.

    Returns:
        A DataFrame with a row for each data set, model and `frozen`: `n_fp32` and `n_bf16`, runs;
        `fp32` and `bf16`, means; `difference`; `low` and `high`, the ends of Welch's interval;
        `paired_low` and `paired_high`, those of Student's. What has too few runs is nan.
    """
    keys, found = ["dataset", "model", "frozen"], []
    for key, part in table.groupby(keys):
        by_seed = part.set_index(["seed", "precision"])[column].unstack()
        by_seed = by_seed.reindex(columns=["fp32", "bf16"])
        fp32, bf16 = by_seed["fp32"].dropna(), by_seed["bf16"].dropna()
        both, free, paired = by_seed.dropna(), (np.nan, np.nan), (np.nan, np.nan)
        if len(fp32) and len(bf16):
            free = (_unpaired(bf16) - _unpaired(fp32)).interval()
        if len(both):
            paired = (effect_of(both["bf16"]) - effect_of(both["fp32"])).interval()
        found.append((*key, len(fp32), len(bf16), fp32.mean(), bf16.mean(),
                      bf16.mean() - fp32.mean(), *free, *paired))
    return pd.DataFrame(found, columns=[*keys, "n_fp32", "n_bf16", "fp32", "bf16", "difference",
                                        "low", "high", "paired_low", "paired_high"])


def _unpaired(values):
    """The effect of values that do not share their seeds with others."""
    return Effect({Cell(values.mean(), len(values), values.var()): 1.0})


def seed_spread(rows, column="accuracy"):
    """How much seeds differ: a column's variance within a network, over all that have several.

    Returns:
        The variance and its degrees of freedom; nan and 0 if no network has two seeds.
    """
    groups = rows.groupby(["profile", "dataset", "model", "frozen"])[column]
    weights = groups.size() - 1
    freedom = weights.sum()
    return ((groups.var() * weights).sum() / freedom if freedom else np.nan), freedom


def effect_of(values, **more):
    """The `effects.Effect` of a Series of one network's values, indexed by seed."""
    return Effect({Cell.of(values.to_dict(), **more): 1.0})


def break_even(rows, x):
    """Where frozen networks catch up with learnable ones as `x` grows (Figure 6).

    Args:
        rows: of one profile.
        x: a field of `models.Architecture`: "width", "depth" or "expansion".

    Returns:
        An `effects.Crossing`.
    """
    gaps = gaps_by_seed(rows)
    spread = seed_spread(gaps.assign(frozen=False), "gap")
    return Crossing({place: effect_of(part.set_index("seed")["gap"], pooled=spread)
                     for place, part in gaps.groupby(x)})


def matched(rows):
    """Reorder filters so that the same ones stand below each other (Figures 7 and 10).

    Networks number their filters at random. The last row's are put in order of their norm; then
    each row, from the bottom up, is matched with the one below: the assignment with the largest sum
    of cosine similarities.

    Args:
        rows: a list of arrays `[c_out, c_in, k, k]` of one shape.

    Returns:
        The same list, each array reordered along its first axis.
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


def hours(table):
    """What runs cost (Table 4), from their own rows.

    Returns:
        A DataFrame with a row for each line of Table 4 that has runs (those of `study.precisions`
        and of `study.decay` have one each), each profile and each device: `line`, `profile` (the
        largest first), `device`, `runs`, `hours` (the sum of the runs' own times, evaluation
        included), `runs_per_hour`.
    """
    profiles = table["profile"].str.split("-decay").str[0].rename("profile")
    groups = table.groupby([table.apply(_line_of_table_4, axis=1).rename("line"), profiles,
                            "device"])
    costs = pd.DataFrame({"runs": groups.size(), "hours": groups["seconds"].sum() / 3600})
    costs = costs.assign(runs_per_hour=costs["runs"] / costs["hours"]).reset_index()
    return costs.sort_values(["line", "profile"], key=_ranks, kind="stable", ignore_index=True)


def _line_of_table_4(row):
    """The paper's baselines are those of Section 3. That its other lines include plain networks is
    our reading."""
    if row["profile"].endswith(("-fp32", "-bf16")):
        return "Precision"
    if "-decay" in row["profile"]:
        return "Weight decay"
    if row["between"]:
        return "Ablation"
    baselines = {"cifar10": {*OFF_THE_SHELF, "ResNet-20-16"}}
    baselines |= dict.fromkeys(["imagenet", "tiny-imagenet-40"], {*NETWORKS} - {"ResNet-18d"})
    kind = "Baseline" if row["model"] in baselines.get(row["dataset"], ()) else "LC"
    return f"{kind} {TITLES.get(row['dataset'], row['dataset'])}"


def central_share(values, size=3):
    """The share of the energy at the centre of a map (Figures 7, 8b and 10).

    A uniform map has size² / k², so 0.11 for k = 9 and 0.36 for k = 5. A map no larger than
    `size` has 1.

    Args:
        values: `[k, k]`, the mean square (or variance) of weights at each position, with k odd.
        size: the side of the central square, in pixels.
    """
    edge = max(0, (len(values) - size) // 2)
    inside = slice(edge, len(values) - edge)
    return float(values[inside, inside].sum() / values.sum())


def concentration(values):
    """The share of the energy at the centre of a map, over that of a uniform map (Figure 8b).

    It is 1 if no position is preferred. The centre is 3 x 3, or 1 x 1 for k = 3.

    Args:
        values: `[k, k]`, as for `central_share`.
    """
    size = 3 if len(values) > 3 else 1
    return central_share(values, size) * len(values) ** 2 / size ** 2

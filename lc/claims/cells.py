"""From rows, or from the paper's published means, to the cells that claims compare."""

from functools import lru_cache

import numpy as np
import pandas as pd

from .. import paper, results
from ..analysis import central_share, effect_of, seed_spread
from ..effects import of_mean
from ..names import architecture

# The roles of networks
PLAIN, PLAIN_FROZEN = "plain learnable", "plain frozen"
LEARNABLE, FROZEN = "LC learnable", "LC frozen"
LC, ALL = (LEARNABLE, FROZEN), (PLAIN, LEARNABLE, FROZEN)


class Cells:
    """The networks of one profile that a claim compares.

    Args:
        rows: those of `study.found_and_missing`, with the column `role`.
    """

    def __init__(self, rows):
        self.rows = rows

    def curve(self, role, column="accuracy", x="expansion"):
        """`{x: Effect}` of a role, in ascending order of x, of a column as in `measured`.

        Plain networks have the expansion 0. Without any rows, it raises LookupError.
        """
        rows = self.rows[self.rows["role"] == role]
        rows = rows.assign(**{column: measured(rows, column)}).dropna(subset=column)
        if rows.empty:
            raise LookupError(f"no runs of {role} networks")
        keys = ["profile", "dataset"] + ["kernel_size"] * (column in BY_KERNEL)
        return {at: effect_of(part, spread(column, *part[keys].iloc[0]), column)
                for at, part in rows.groupby(x)}

    def plain(self, column="accuracy"):
        """The plain network, all of it learned."""
        return self.curve(PLAIN, column)[0]

    def below_plain(self, role, column="accuracy"):
        """The curve of the plain network minus a role."""
        plain = self.plain(column)
        return {at: plain - effect for at, effect in self.curve(role, column).items()}

    def gap(self, a=LEARNABLE, b=FROZEN, column="accuracy", x="expansion"):
        """The curve of one role minus another where both have runs; by default what freezing costs.

        If they share no x, it raises LookupError.
        """
        a, b = self.curve(a, column, x), self.curve(b, column, x)
        if not a.keys() & b.keys():
            raise LookupError("no network with both runs")
        return {at: a[at] - b[at] for at in a if at in b}

    def by_kernel(self):
        """`{k: Cells}` of each kernel size."""
        return {k: Cells(rows) for k, rows in self.rows.groupby("kernel_size")}


class PublishedCells(Cells):
    """The paper's own means, `{(role, x): paper.Published}` of one table."""

    def __init__(self, means):
        self.means = means

    def curve(self, role, column="accuracy", x="expansion"):
        return {at: published(mean) for (of, at), mean in self.means.items() if of == role}


def at(curve, x, name="E = "):
    """The effect of a curve at x. Raises LookupError if the curve lacks it."""
    if x not in curve:
        raise LookupError(f"no {name}{x}")
    return curve[x]


def ends(curve):
    """The effects at the smallest and at the largest x."""
    return curve[min(curve)], curve[max(curve)]


def published(mean):
    """The effect of a published mean: its ± is taken as the standard deviation over its seeds.

    The paper does not state the number of seeds of Table 3: it is taken as that of the others.
    """
    return of_mean(mean.mean, paper.SEEDS, mean.spread ** 2)


def measured(rows, column):
    """A column of rows, or a number made of several columns or of a run's arrays.

    `generalisation` is the accuracy on training images minus that on test images.
    """
    if column == "generalisation":
        return rows["train_accuracy"] - rows["accuracy"]
    if column in rows:
        return rows[column]
    of = OF_ARRAYS[column]
    return pd.Series([of(arrays(run_id)) for run_id in rows["id"]], rows.index, float)


def centre(arrays):
    """log2 of the variance at the centre of the map over its mean: 0 if the map is uniform."""
    values = arrays["variance_map"].astype(float)
    middle = len(values) // 2
    return np.log2(values[middle, middle] / values.mean())


def first_share(arrays):
    """The share of the first layer's energy in the central 3 x 3, nan if kernels are no larger."""
    energy = (arrays["first"].astype(float) ** 2).mean((0, 1))
    return central_share(energy) if len(energy) > 3 else np.nan


@lru_cache(maxsize=1024)
def arrays(run_id):
    """The arrays of a run."""
    return results.load_arrays(run_id)


OF_ARRAYS = {"centre": centre, "first_share": first_share}
# What has another range for each kernel size, and so differs otherwise over seeds
BY_KERNEL = {*OF_ARRAYS, "fve_first", "fve_last"}


@lru_cache
def spread(column, profile, dataset, kernel_size=None):
    """The `analysis.seed_spread` of all rows of a profile and data set, and of a kernel size."""
    rows = results.load_table()
    rows = rows[(rows["profile"] == profile) & (rows["dataset"] == dataset)]
    if kernel_size:
        rows = rows[[architecture(name).kernel_size == kernel_size for name in rows["model"]]]
    rows = rows.assign(**{column: measured(rows, column)})
    return seed_spread(rows.dropna(subset=column), column)

"""The tables of the notebooks, as text."""

import numpy as np
import pandas as pd

from .data import TITLES
from .run import PROFILES

LABELS = {True: "Frozen random", False: "Learnable"}
LINES = TITLES | {"": "nothing", "+ReLU": "ReLU", "+BN": "BatchNorm", "+BN+ReLU": "BatchNorm + ReLU"}  # of Tables 1 and 3


def signed(value):
    """A number of points with its sign and one decimal; "0.0" without a sign if it rounds to zero."""
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def plus_minus(means, column):
    """A column of `analysis.summary` as text: "mean ± standard deviation", the mean alone for one seed, a dash for none."""
    return ["–" if mean != mean else f"{mean:.2f}" if spread != spread else f"{mean:.2f} ± {spread:.2f}"
            for mean, spread in zip(means[column], means[f"{column}_std"])]


def side_by_side(means, columns, *index, gaps=None):
    """A table of `analysis.summary` as text: a row for each value of `index`, frozen and learnable as columns.

    Args:
        columns: a column of `means`, or several by title.
        gaps: of `analysis.gaps`; adds a column "Gap".
    """
    titles = {"": columns} if isinstance(columns, str) else columns
    parts = []
    for title, column in titles.items():
        labels = [f"{label}, {title}" if title else label for label in LABELS.values()]
        cells = means.assign(filters=means["frozen"].map(dict(zip(LABELS, labels))), text=plus_minus(means, column))
        part = cells.set_index([*index, "filters"])["text"].unstack("filters", fill_value="–", sort=False)
        parts.append(part.reindex(columns=labels, fill_value="–"))
    table = pd.concat(parts, axis=1).rename_axis(columns=None)
    if gaps is not None:
        known = dict(zip(gaps.set_index(list(index)).index, plus_minus(gaps, "gap")))
        table["Gap"] = [known.get(key, "–") for key in table.index]
    return table


def paper_table(here, published):
    """Table 1 or 3 as text, shaped as the paper's: roles as columns, and for each line the rows here above the paper's.

    Args:
        here, published: as for `plots.beside_paper`.
    """
    rows = beside(here, published).rename(columns={"spread": "accuracy_std"})
    cells = rows.assign(text=plus_minus(rows, "accuracy")).set_index(["line", "source", "role"])["text"]
    table = cells.unstack("role", fill_value="–", sort=False)
    return table.reindex(columns=list(dict.fromkeys(published["role"]))).rename_axis(index=["", ""], columns=None)


def beside(here, published):
    """Both tables in one, in the order of the paper's lines and roles, with the rows of the largest profile first."""
    rows = pd.concat([here.assign(source="here, " + here["source"]), published[published["row"].isin(set(here["row"]))]])
    order = {name: i for i, name in enumerate([*published["row"], *published["role"], *(f"here, {name}" for name in PROFILES)])}
    rows = rows.sort_values(["row", "source", "role"], key=lambda names: names.map(order).fillna(np.inf), kind="stable")
    return rows.assign(line=rows["row"].map(lambda row: LINES.get(row, row)))

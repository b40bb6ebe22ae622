"""The tables of the notebooks, as text."""

import numpy as np
import pandas as pd

from .data import TITLES
from .imagenet.run import RECIPES
from .paper import PUBLISHED
from .run import PROFILES
from .utils.shown import Shown

LABELS = {True: "Frozen random", False: "Learnable"}
LINES = TITLES | {"": "nothing", "+ReLU": "ReLU", "+BN": "BatchNorm",
                  "+BN+ReLU": "BatchNorm + ReLU"}  # of Tables 1 and 3


def told(rows):
    """The epochs and the number of seeds of rows as text: "15 epochs, n = 1 to 3"."""
    networks = rows.groupby(["profile", "dataset", "model", "frozen"])
    return epochs_and_seeds(rows["epochs"], networks.size())


def epochs_and_seeds(epochs, seeds):
    epochs, seeds = sorted(set(epochs)), sorted(set(seeds))
    n = f"{seeds[0]} to {seeds[-1]}" if len(seeds) > 2 else " or ".join(map(str, seeds))
    return f"{' or '.join(map(str, epochs))} epochs, n = {n}"


def caption(rows, network):
    """What a figure shows: "ResNet-LC-20-16x{E}, CIFAR-10, 15 epochs, n = 2"."""
    pictures = []
    for dataset, profile in rows[["dataset", "profile"]].drop_duplicates().values:
        few = "imagenet" in dataset and RECIPES[profile].classes
        title = TITLES.get(dataset, dataset)
        pictures.append(f"{title.partition(',')[0]}, {few} classes" if few else title)
    return ", ".join([network, *dict.fromkeys(pictures), told(rows)])


def family(rows, *vary):
    """The common name of CIFAR networks, with a letter for what varies: "ResNet-LC-20-16x{E}".

    Args:
        vary: columns that a figure varies, even if there are rows of one value only.
    """
    lc = rows[rows["expansion"] > 0]
    named = lc if len(lc) else rows

    def part(column, letter):
        values = set(named[column])
        return str(*values) if len(values) == 1 and column not in vary else f"{{{letter}}}"

    name = f"{part('depth', 'D')}-{part('width', 'W')}"
    name = f"ResNet-LC-{name}x{part('expansion', 'E')}" if len(lc) else f"ResNet-{name}"
    kernel = part("kernel_size", "k")
    return name if kernel == "3" else f"{name}-k{kernel}"


def fold_out(rows, build):
    """A table of rows that no figure shows, which unfolds at a click. None if there are no rows.

    Args:
        build: a function from rows to a table.
    """
    if rows.empty:
        return None
    profiles = " and ".join(rows["profile"].unique())
    title, table = f"Not in the figure: {len(rows)} rows of {profiles} ({told(rows)})", build(rows)
    html = f"<details><summary>{title}</summary>\n{table.to_html()}\n</details>"
    return Shown(html, f"{title}\n{table.to_string()}")


def number(value, digits, sign=""):
    """A number as text, with the minus sign of print and never "−0.0".

    Args:
        sign: "+" if positive numbers have one, too.
    """
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}".replace("-", "−")


def signed(value):
    """A number of points with its sign and one decimal; "0.0" has no sign."""
    return "0.0" if abs(value) < 0.05 else f"{value:+.1f}".replace("-", "−")


def plus_minus(means, column):
    """A column of `analysis.summary` as text: "mean ± standard deviation".

    One seed gives the mean alone, none a dash.
    """
    def text(mean, spread):
        if np.isnan(mean):
            return "–"
        return f"{mean:.2f}" if np.isnan(spread) else f"{mean:.2f} ± {spread:.2f}"

    return [text(*both) for both in zip(means[column], means[f"{column}_std"])]


def side_by_side(means, columns, *index, gaps=None):
    """A table of `analysis.summary` as text: a row for each value of `index`, a column for a kind.

    Args:
        columns: a column of `means`, or several by title.
        gaps: of `analysis.gaps`; adds a column "Gap".
    """
    if isinstance(columns, str):
        columns = {"": columns}
    parts = []
    for title, column in columns.items():
        labels = [f"{label}, {title}" if title else label for label in LABELS.values()]
        cells = means.assign(filters=means["frozen"].map(dict(zip(LABELS, labels))),
                             text=plus_minus(means, column))
        part = cells.set_index([*index, "filters"])["text"]
        part = part.unstack("filters", fill_value="–", sort=False)
        parts.append(part.reindex(columns=labels, fill_value="–"))
    table = pd.concat(parts, axis=1).rename_axis(columns=None)
    if gaps is not None:
        known = dict(zip(gaps.set_index(list(index)).index, plus_minus(gaps, "gap")))
        table["Gap"] = [known.get(key, "–") for key in table.index]
    return table


def span(values):
    """The least and the largest of some numbers as text, "0.58 to 0.65"; a dash without any."""
    values = [value for value in values if not np.isnan(value)]
    ends = dict.fromkeys(f"{each:.2f}" for each in (min(values), max(values))) if values else ["–"]
    return " to ".join(ends)


def paper_table(here, published):
    """Table 1 or 3 as text, with the paper's lines and columns. Rows here stand above the paper's.

    Args:
        here, published: as for `dots.beside_paper`.
    """
    rows = beside(here, published).rename(columns={"spread": "accuracy_std"})
    cells = rows.assign(text=plus_minus(rows, "accuracy"))
    cells = cells.set_index(["line", "label", "role"])["text"]
    table = cells.unstack("role", fill_value="–", sort=False)
    table = table.reindex(columns=list(dict.fromkeys(published["role"])))
    return table.rename_axis(index=["", ""], columns=None)


def beside(here, published):
    """Both tables in one, in the order of the paper's lines and roles, the largest profile first.

    All of the paper's lines are there, also those that `here` lacks.
    Two columns are added: `line`, the title of a row, and `label`, whose numbers they are:
    "here, 15 epochs, n = 2" or "the paper, 75 epochs, n ≥ 4".
    """
    labels = {name: f"here, {epochs_and_seeds(part['epochs'], part['n'])}"
              for name, part in here.groupby("source")}
    rows = pd.concat([here, published])
    order = [*published["row"], *published["role"], *PROFILES, PUBLISHED]
    order = {name: i for i, name in enumerate(order)}
    rows = rows.sort_values(["row", "source", "role"], kind="stable",
                            key=lambda names: names.map(order).fillna(np.inf))
    return rows.assign(line=[LINES.get(row, row) for row in rows["row"]],
                       label=[labels.get(source, source) for source in rows["source"]])

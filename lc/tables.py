"""The tables of the notebooks, as text."""

import numpy as np
import pandas as pd

from .analysis import gaps as gaps_of
from .analysis import summary
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
    pictures = [images_of(*each) for each in rows[["dataset", "profile"]].values]
    return ", ".join([network, *dict.fromkeys(pictures), told(rows)])


def images_of(dataset, profile):
    """A data set's title, with the number of classes if a profile takes only some of them."""
    title = TITLES.get(dataset, dataset)
    few = "imagenet" in dataset and profile in RECIPES and RECIPES[profile].classes
    return f"{title.partition(',')[0]}, {few} classes" if few else title


def family(rows, *vary):
    """The common name of CIFAR networks, with a letter for what varies: "ResNet-LC-20-16x{E}".

    The columns `vary` have one even if all rows have the same value.
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
    """The table `build(rows)` of rows that no figure shows, which unfolds at a click.

    None if there are no rows.
    """
    if rows.empty:
        return None
    title, table = f"Not in the figure: {len(rows)} rows ({told(rows)})", build(rows)
    html = f"<details><summary>{title}</summary>\n{table.to_html()}\n</details>"
    return Shown(html, f"{title}\n{table.to_string()}")


def number(value, digits, sign=""):
    """A number as text, with the minus sign of print, never "−0.0", and a dash for nan.

    With `sign` "+", positive numbers have one, too.
    """
    if np.isnan(value):
        return "–"
    return f"{round(value, digits) + 0.0:{sign}.{digits}f}".replace("-", "−")


def told_apart(ends, digits):
    """The digits of an interval's ends: one more where an end that is not zero would look so."""
    return digits + any(round(end, digits) == 0 != end for end in ends)


def plus_minus(means, column):
    """A column of `analysis.summary` as text: "91.39 ± 0.29", of one seed the mean alone."""
    return ["–" if np.isnan(mean) else f"{mean:.2f} ± {spread:.2f}".removesuffix(" ± nan")
            for mean, spread in zip(means[column], means[f"{column}_std"])]


def side_by_side(rows, columns, *index, gaps=False):
    """The means of rows as text: a row for each value of `index`, a column for a kind of filters.

    Rows of other epochs have lines of their own.

    Args:
        columns: a column, or several by title.
        gaps: adds a column "Gap", what freezing costs.
    """
    if isinstance(columns, str):
        columns = {"": columns}
    index, means = ["epochs", *index], summary(rows, *columns.values())
    parts = {f"{label}, {title}" if title else label: (means[means["frozen"] == frozen], column)
             for title, column in columns.items() for frozen, label in LABELS.items()}
    if gaps:
        parts["Gap"] = gaps_of(rows), "gap"
    texts = {title: pd.Series(plus_minus(part, column), part.set_index(index).index, dtype=object)
             for title, (part, column) in parts.items()}
    return pd.DataFrame(texts, means.set_index(index).index.unique()).fillna("–")


def span(values, digits=2):
    """The least and the largest of some numbers as text, "0.58 to 0.65"; a dash without any."""
    values = [value for value in values if not np.isnan(value)] or [np.nan]
    return " to ".join(dict.fromkeys(number(each, digits) for each in (min(values), max(values))))


def paper_table(here, published):
    """Table 1 or 3 as text, with the paper's lines and columns. Rows here stand above the paper's.

    Args:
        here, published: as for `beside`.
    """
    rows = beside(here, published)
    cells = rows.assign(text=plus_minus(rows, "accuracy")).set_index(["line", "label", "role"])
    table = cells["text"].unstack("role", fill_value="–", sort=False)
    table = table.reindex(columns=published["role"].unique())
    return table.rename_axis(index=["", ""], columns=None)


def beside(here, published):
    """Both tables in one, in the order of the paper's lines and roles, the largest profile first.

    Two columns are added: `line`, the title of a row, and `label`, whose numbers they are, such as
    "here, 15 epochs, n = 2".

    Args:
        here: of `analysis.summary` by `row`, `role`, `profile` and `epochs`.
        published: of `paper.table_1` or `paper.table_3`.
    """
    labels = {name: f"here, {epochs_and_seeds(part['epochs'], part['n'])}"
              for name, part in here.groupby("profile")}
    seeds = published["n"].iloc[0]
    seeds = "not stated" if np.isnan(seeds) else f"= {seeds}"
    labels[PUBLISHED] = f"{PUBLISHED}, 75 epochs, n {seeds}"
    names = [*published["row"], *published["role"], *PROFILES, PUBLISHED]
    order = {name: i for i, name in enumerate(names)}
    rows = pd.concat([here, published]).sort_values(
        ["row", "profile", "role"], kind="stable", key=lambda each: each.map(order))
    return rows.assign(line=[LINES.get(row, row) for row in rows["row"]],
                       label=[labels[profile] for profile in rows["profile"]])

"""Dot plots: networks below each other (Figure 1), and the dots of the paper's Tables 1 and 3."""

import seaborn as sns

from .analysis import gaps
from .names import combines
from .paper import PUBLISHED
from .plots import BASELINE, COLORS, FROZEN, LEARNABLE, mark, name_marks
from .tables import LABELS, number

ROLE_COLORS = {"Plain": BASELINE, "LC, learnable": LEARNABLE, "LC, frozen random": FROZEN,
               "Learnable": LEARNABLE, "Frozen random": FROZEN}


def by_network(axes, table, larger):
    """Figure 1: each network's accuracy, learnable and frozen, and what freezing changes in points.

    Networks whose blocks combine their spatial filters stand above a dotted line.

    Args:
        table, larger: the curves and marks of `study.collect`.
    """
    size = table.groupby("model")["learnable_parameters"].max()
    names = sorted(size.index, key=lambda name: (not combines(name), size[name]))
    means = table.groupby(["model", "frozen"])["accuracy"].mean().unstack().reindex(names)
    axes.hlines(range(len(names)), means.min(axis=1), means.max(axis=1), color="0.75",
                linewidth=2, zorder=1)
    sns.pointplot(table.assign(filters=table["frozen"].map(LABELS)), x="accuracy", y="model",
                  order=names, hue="filters", hue_order=LABELS.values(), palette=COLORS.values(),
                  errorbar="sd", capsize=0.2, linestyle="none", markersize=5, ax=axes)
    for name, gap in gaps(table).set_index("model")["gap"].reindex(names).dropna().items():
        change = number(-gap, 1, "+") if abs(gap) >= 0.05 else "0.0"
        axes.annotate(change, (means.loc[name].mean(), names.index(name)), xytext=(0, 4),
                      textcoords="offset points", ha="center", fontsize=7)
    larger = larger[larger["model"].isin(names)]
    name_marks(axes, larger, table)
    for (profile, name, frozen), part in larger.groupby(["profile", "model", "frozen"]):
        mark(axes, [part["accuracy"].mean()], [names.index(name)], profile, COLORS[frozen])
    combined = sum(map(combines, names))
    if 0 < combined < len(names):
        axes.axhline(combined - 0.5, color=BASELINE, linestyle=":")
    axes.set(xlabel="Validation accuracy [%]", ylabel="", ylim=(len(names) - 0.5, -0.7))
    axes.margins(x=0.08)
    if axes.get_legend():
        axes.get_legend().remove()


def dot(axes, row, y):
    """A row of `tables.beside` at its accuracy: filled if it was trained here, open in the paper.

    Its colour tells the role; bars show the standard deviation over seeds.
    """
    axes.errorbar(row.accuracy, y, xerr=row.accuracy_std, capsize=2, color=ROLE_COLORS[row.role],
                  linewidth=0.8, **_look(row.profile))


def name_dots(axes, rows):
    """A line of the legend for each recipe of `tables.beside`."""
    for profile, label in rows[["profile", "label"]].drop_duplicates().values:
        axes.plot([], [], color="black", label=label, **_look(profile))


def _look(profile):
    look = dict(marker="o", markersize=4.5, linestyle="")
    if profile == "paper":
        look |= dict(marker="*", markersize=8)
    if profile == PUBLISHED:
        look |= dict(markerfacecolor="white")
    return look

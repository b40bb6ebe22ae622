"""Dot plots: networks below each other (Figure 1), and the paper's Tables 1 and 3."""

import numpy as np
import seaborn as sns

from .names import combines
from .paper import PUBLISHED
from .plots import BASELINE, COLORS, FROZEN, LEARNABLE, mark, name_marks
from .tables import LABELS, LINES, beside, signed

ROLE_COLORS = {"Plain": BASELINE, "LC, learnable": LEARNABLE, "LC, frozen random": FROZEN,
               "Learnable": LEARNABLE, "Frozen random": FROZEN}


def by_network(axes, table, gaps, larger):
    """Figure 1: each network's accuracy, learnable and frozen, and what freezing changes in points.

    Networks whose blocks combine their spatial filters stand above a dotted line.

    Args:
        table, larger: the curves and marks of `study.collect`.
        gaps: of `analysis.gaps`.
    """
    size = table.groupby("model")["learnable_parameters"].max()
    names = sorted(size.index, key=lambda name: (not combines(name), size[name]))
    means = table.groupby(["model", "frozen"])["accuracy"].mean().unstack().reindex(names)
    axes.hlines(range(len(names)), means.min(axis=1), means.max(axis=1), color="0.75",
                linewidth=2, zorder=1)
    sns.pointplot(table.assign(filters=table["frozen"].map(LABELS)), x="accuracy", y="model",
                  order=names, hue="filters", hue_order=LABELS.values(), palette=COLORS.values(),
                  errorbar="sd", capsize=0.2, linestyle="none", markersize=5, ax=axes)
    changes = dict(zip(gaps["model"], gaps["gap"]))
    for y, name in enumerate(names):
        if name in changes:
            axes.annotate(signed(-changes[name]), (means.loc[name].mean(), y), xytext=(0, 4),
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


def beside_paper(axes, here, published):
    """Table 1 as dots: a colour for each role, filled markers here, open ones for the paper's.

    Args:
        axes: one for each line of the paper's table, and for each that only `here` has.
        here: of `analysis.accuracies`.
        published: of `paper.table_1`.
    """
    rows, roles = beside(here, published), list(dict.fromkeys(published["role"]))
    for axis, (line, part) in zip(axes, rows.groupby("line", sort=False)):
        for row in part.itertuples():
            aside = -0.2 if row.source == PUBLISHED else 0.2
            _dot(axis, row, roles.index(row.role) + aside)
        axis.set(ylim=(len(roles) - 0.3, -0.7), title=line)
        axis.set_yticks(range(len(roles)), roles)
        axis.margins(x=0.1)
    _name_dots(axes[0], rows)
    axes[-1].set_xlabel("Validation accuracy [%]")


def between_convolutions(axes, here, published):
    """Table 3 as dots, a line for each operation between the convolutions.

    The paper's recipe is on the right. Both axes span as many points, to compare effects by eye.

    Args:
        axes: two.
        here: of `analysis.accuracies`.
        published: of `paper.table_3`.
    """
    rows, lines = beside(here, published), list(dict.fromkeys(published["row"]))
    papers = rows["source"].isin(["paper", PUBLISHED])
    ranges = []
    for axis, part in zip(axes, (rows[~papers], rows[papers])):
        for row in part.itertuples():
            aside = (0.12 if row.role == "Learnable" else -0.12) + 0.06 * (row.source == PUBLISHED)
            _dot(axis, row, lines.index(row.row) + aside)
        axis.set(xlabel="Validation accuracy [%]", ylim=(len(lines) - 0.5, -0.5))
        axis.set_yticks(range(len(lines)), [LINES[line] for line in lines])
        spread = part["spread"].fillna(0)
        ranges.append(((part["accuracy"] - spread).min(), (part["accuracy"] + spread).max()))
    for role in dict.fromkeys(published["role"]):
        axes[1].plot([], [], color=ROLE_COLORS[role], linewidth=4, label=role)
    _name_dots(axes[1], rows)
    axes[0].set_visible(not papers.all())
    reach = 0.55 * np.nanmax([high - low for low, high in ranges]) or 1
    for axis, (low, high) in zip(axes, ranges):
        if not np.isnan(low):
            axis.set_xlim((low + high) / 2 - reach, (low + high) / 2 + reach)


def _dot(axis, row, y):
    axis.errorbar(row.accuracy, y, xerr=row.spread, capsize=2, color=ROLE_COLORS[row.role],
                  linewidth=0.8, **_look(row.source))


def _name_dots(axis, rows):
    for source, label in rows[["source", "label"]].drop_duplicates().values:
        axis.plot([], [], color="black", label=label, **_look(source))


def _look(source):
    look = dict(marker="o", markersize=4.5, linestyle="")
    if source == "paper":
        look |= dict(marker="*", markersize=8)
    if source == PUBLISHED:
        look |= dict(markerfacecolor="white")
    return look

"""One look for all figures: seaborn's statistical plots with the project's colours, labels and axes."""

import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.patheffects import withStroke

from .analysis import centre_to_border
from .models import combines
from .paper import PUBLISHED
from .tables import LABELS, beside, signed
from .utils.files import ROOT

FROZEN, LEARNABLE, BASELINE = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito's colour-blind-safe blue and vermilion
COLORS = {True: FROZEN, False: LEARNABLE}
PLAIN = {False: ("Plain network, learnable", BASELINE, "--"), True: ("Plain network, frozen random", FROZEN, ":")}
AXES = {"expansion": "LC expansion E", "width": "Network width W", "depth": "Network depth D",
        "learnable_parameters": "Learnable parameters"}
ROLE_COLORS = {"Plain": BASELINE, "LC, learnable": LEARNABLE, "LC, frozen random": FROZEN, "Learnable": LEARNABLE,
               "Frozen random": FROZEN}
COLUMN = 3.4  # inches: the width of a column in the paper

STYLE = {
    "figure.dpi": 150, "savefig.dpi": 300, "figure.constrained_layout.use": True,
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "lines.linewidth": 1.2, "lines.markersize": 4, "image.cmap": "gray",
}


def use_style():
    """Sets matplotlib to the project's style."""
    matplotlib.rcdefaults()
    plt.rcParams.update(STYLE)


def figures_folder():
    """The folder that figures are written to: $LC_FIGURES_DIR, else `build/figures` of this project."""
    return Path(os.environ.get("LC_FIGURES_DIR") or ROOT / "build" / "figures")


def save(figure, name):
    """Writes `name.png` and `name.pdf` without dates, so that the same figure gives the same bytes."""
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def against(axes, table, x, column, ylabel, larger=None):
    """Draws a column of the rows against `x` on a logarithmic axis: means of the LC networks, and plain networks as lines.

    Bars show the standard deviation over seeds.

    Args:
        table: of `study.collect`.
        x: "expansion", "width", "depth" or "learnable_parameters".
        larger: rows of larger profiles, of `study.larger_rows`. They have marks of their own.
    """
    lc, plain = table[table["expansion"] > 0], table[table["expansion"] == 0]
    for frozen, (label, color, line) in PLAIN.items() if x == "expansion" else ():
        for mean in plain.loc[plain["frozen"] == frozen, [column]].mean().dropna():
            axes.axhline(mean, color=color, linestyle=line, label=label)
    if len(lc):
        sns.lineplot(_labelled(lc), x=x, y=column, hue="filters", hue_order=LABELS.values(), palette=COLORS.values(), marker="o",
                     markeredgewidth=0, errorbar="sd", err_style="bars", err_kws={"capsize": 2}, ax=axes)
    if x == "learnable_parameters":
        for frozen, (_, color, _) in PLAIN.items():
            sns.scatterplot(plain[plain["frozen"] == frozen], x=x, y=column, color=color, marker="D", s=16, ax=axes)
        _name_expansions(axes, lc, column)
        axes.set_xscale("log")
        axes.margins(0.15)
    else:
        log_ticks(axes, {*lc[x]} | ({*larger.loc[larger["expansion"] > 0, x]} if larger is not None else set()))
    if larger is not None:
        _marks(axes, larger, x, column)
    axes.set(xlabel=AXES[x], ylabel=ylabel)
    axes.get_legend() and axes.get_legend().remove()


def log_ticks(axes, values):
    """A logarithmic x axis with ticks at the values. Axes that share it need the values of all of them."""
    values = sorted(values)
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, [f"{value}" if len(values) <= 6 or i % 2 == 0 else "" for i, value in enumerate(values)])
    axes.xaxis.minorticks_off()


def _marks(axes, larger, x, column):
    """Rows of larger profiles. A plain network has no expansion, so its mark stands at the right edge."""
    _name_marks(axes, larger, ["model", "frozen"])
    for (profile, expansion, frozen), rows in larger.groupby(["profile", "expansion", "frozen"]):
        at_edge = x == "expansion" and not expansion
        where = dict(transform=axes.get_yaxis_transform(), clip_on=False) if at_edge else {}
        for place, part in rows.groupby(x):
            color = COLORS[frozen] if expansion else PLAIN[frozen][1]
            _mark(axes, [1.0 if at_edge else place], [part[column].mean()], profile, color, **where)


def _mark(axes, x, y, profile, color, **options):
    """The mark of a larger profile: a star for the paper's recipe, a plus for `short`."""
    axes.plot(x, y, "P" if profile == "short" else "*", color=color, markersize=6 if profile == "short" else 9,
              markeredgecolor="black", markeredgewidth=0.6, zorder=4, linestyle="", **options)


def _name_marks(axes, larger, network):
    """A line of the legend for each larger profile. The columns `network` tell networks apart."""
    for profile, rows in larger.groupby("profile"):
        seeds = " or ".join(map(str, sorted(set(rows.groupby(network).size()))))
        _mark(axes, [], [], profile, "white", label=f"{profile} profile, n = {seeds}")


def _name_expansions(axes, lc, column):
    """Writes E beside the points: left of the frozen curve, below the learnable one, every second one if there are many."""
    for frozen, curve in lc.groupby(["frozen", "expansion"])[["learnable_parameters", column]].mean().groupby("frozen"):
        for i, ((_, expansion), (parameters, value)) in enumerate(curve.iterrows()):
            if len(curve) <= 5 or i % 2 == 0:
                axes.annotate(f"x{expansion}", (parameters, value), textcoords="offset points", fontsize=6, zorder=5,
                              ha="right" if frozen else "center", xytext=(-3, 3) if frozen else (0, -9), color=COLORS[frozen],
                              path_effects=[withStroke(linewidth=2, foreground="white")])


def legend(figure, axes, columns=3):
    """One legend below the figure with the labels of all its axes."""
    handles = {}
    for each in np.ravel(axes):
        handles |= dict(zip(*reversed(each.get_legend_handles_labels())))
    handles = {label: handle for label, handle in handles.items() if label not in ("way", "filters")}  # seaborn's headings
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def break_even(axes, at):
    """A vertical line at a break-even, an `analysis.Estimate`, or "undetermined" if there is none among the tested values."""
    found = np.isfinite(at.value)
    if found:
        axes.axvline(at.value, color="black", linestyle=":", linewidth=0.8)
    axes.text(0.98, 0.04, f"break-even: {at.value:.0f}" if found else "break-even: undetermined", fontsize=7, ha="right",
              transform=axes.transAxes)


def gaps_by_kernel(axes, gaps, larger):
    """Figure 8a: the gap of each seed (learnable minus frozen, of `analysis.gaps_by_seed`) by expansion and kernel size.

    Args:
        larger: the gaps in larger profiles. They have marks of their own.
    """
    gaps, larger = gaps[gaps["expansion"] > 0], larger[larger["expansion"] > 0]
    sizes, expansions = (sorted({*gaps[column], *larger[column]}) for column in ("kernel_size", "expansion"))
    colors, places = sns.color_palette("viridis_r", len(sizes) + 1)[1:], np.linspace(-0.15, 0.15, len(sizes))
    sns.pointplot(gaps.assign(k=[f"k = {k}" for k in gaps["kernel_size"]]), x="expansion", y="gap", hue="k", order=expansions,
                  hue_order=[f"k = {k}" for k in sizes], palette=colors or None,
                  dodge=0.3 if len(sizes) > 1 else False, errorbar="sd", capsize=0.1, linewidth=1.2, markersize=3, ax=axes)
    _name_marks(axes, larger, ["model"])
    for (profile, k, expansion), part in larger.groupby(["profile", "kernel_size", "expansion"]):
        i = sizes.index(k)
        _mark(axes, [expansions.index(expansion) + places[i]], [part["gap"].mean()], profile, colors[i])
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    axes.set(xlabel=AXES["expansion"], ylabel="Learnable − frozen [points]", xlim=(-0.5, max(1, len(expansions)) - 0.5))
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def by_network(axes, table, gaps, larger, combines=combines):
    """Figure 1: the accuracy of each network, learnable and frozen, and what freezing changes in points.

    Above the dotted line stand networks whose blocks combine their spatial filters.

    Args:
        table, gaps: of `study.collect` and `analysis.gaps`.
        larger: rows of larger profiles, of `study.larger_rows`. They have marks of their own.
        combines: tells of a network's name whether it combines them.
    """
    size = table.groupby("model")["learnable_parameters"].max()
    names = sorted(size.index, key=lambda name: (not combines(name), size[name]))
    means = table.groupby(["model", "frozen"])["accuracy"].mean().unstack().reindex(names)
    axes.hlines(range(len(names)), means.min(axis=1), means.max(axis=1), color="0.75", linewidth=2, zorder=1)
    sns.pointplot(_labelled(table), x="accuracy", y="model", order=names, hue="filters", hue_order=LABELS.values(),
                  palette=COLORS.values(), errorbar="sd", capsize=0.2, linestyle="none", markersize=5, ax=axes)
    changes = dict(zip(gaps["model"], gaps["gap"]))
    for y, name in enumerate(names):
        if name in changes:
            axes.annotate(signed(-changes[name]), (means.loc[name].mean(), y), textcoords="offset points", xytext=(0, 5),
                          ha="center", fontsize=7)
    larger = larger[larger["model"].isin(names)]
    _name_marks(axes, larger, ["model", "frozen"])
    for (profile, name, frozen), part in larger.groupby(["profile", "model", "frozen"]):
        _mark(axes, [part["accuracy"].mean()], [names.index(name)], profile, COLORS[frozen])
    combined = sum(map(combines, names))
    if 0 < combined < len(names):
        axes.axhline(combined - 0.5, color=BASELINE, linestyle=":")
    axes.set(xlabel="Validation accuracy [%]", ylabel="")
    axes.margins(x=0.08)
    axes.get_legend() and axes.get_legend().remove()


def beside_paper(axes, here, published):
    """Tables 1 and 3 as dot plots: a colour for each role, a marker for each profile (filled), the paper's numbers open.

    Args:
        axes: one for each line of the table.
        here: of `analysis.accuracies`.
        published: of `paper.table_1` or `paper.table_3`. Lines of which `here` has no row are left out.
    """
    rows = beside(here, published)
    roles = list(dict.fromkeys(published["role"]))
    looks = {source: dict(marker={"here, paper": "*", "here, quick": "s"}.get(source, "o"), linestyle="",
                          markersize=8 if source == "here, paper" else 4.5) for source in dict.fromkeys(rows["source"])}
    for source, look in looks.items():  # for the legend
        axes[0].plot([], [], color="black", markerfacecolor="white" if source == PUBLISHED else "black", label=source, **look)
    for axis, (line, part) in zip(axes, rows.groupby("line", sort=False)):
        for row in part.itertuples():
            ours, color = row.source != PUBLISHED, ROLE_COLORS[row.role]
            axis.errorbar(row.accuracy, roles.index(row.role) + (0.12 if ours else -0.12), xerr=row.spread, capsize=2,
                          color=color, markerfacecolor=color if ours else "white", linewidth=0.8, **looks[row.source])
        axis.set(ylim=(len(roles) - 0.3, -0.7), title=line)
        axis.set_yticks(range(len(roles)), roles)
        axis.margins(x=0.1)
    axes[-1].set_xlabel("Validation accuracy [%]")


def filter_rows(axes, rows, labels):
    """Filters as images, a row for each network (Figures 7 and 10).

    The colours are the weights of the three input channels, as the network sees them. Each row has one symmetric scale, on
    which grey is 0. Filters of one input channel are grey.

    Args:
        rows: a list of arrays `[c_out, 3 or 1, k, k]`, of one shape.
        labels: a text for each row.
    """
    count, _, k, _ = rows[0].shape
    canvas = np.ones((len(rows) * (k + 1) - 1, count * (k + 1) - 1, 3))
    for y, filters in enumerate(rows):
        scaled = 0.5 + 0.5 * filters.astype(float) / np.abs(filters).max()
        for x, image in enumerate(scaled.transpose(0, 2, 3, 1)):
            canvas[y * (k + 1):y * (k + 1) + k, x * (k + 1):x * (k + 1) + k] = image
    axes.imshow(canvas, interpolation="nearest")
    axes.set_yticks([y * (k + 1) + (k - 1) / 2 for y in range(len(rows))], labels)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)


def heat_maps(figure, axes, maps):
    """Figure 8b: variance by position, learned above and frozen below, a column for each kernel size, on one scale around 1.

    The number above each map is the variance at the centre over the mean variance at the border.

    Args:
        axes: `[2, columns]`.
        maps: `{(kernel size, frozen): [k, k]}`.
    """
    reach = max(abs(values - 1).max() for values in maps.values())
    for column, k in enumerate(sorted({k for k, _ in maps})):
        for row, frozen in enumerate((False, True)):
            cell = axes[row, column]
            cell.set_axis_off()
            if (k, frozen) in maps:
                sns.heatmap(maps[k, frozen], cmap="vlag", vmin=1 - reach, vmax=1 + reach, square=True, cbar=False, ax=cell)
                cell.set_title(f"k = {k}: {centre_to_border(maps[k, frozen]):.2f}", fontsize=7)
            if column == 0:
                cell.text(-0.2, 0.5, LABELS[frozen], rotation=90, va="center", ha="right", transform=cell.transAxes)
    image = next(cell.collections[0] for cell in axes.flat if cell.collections)
    figure.colorbar(image, ax=axes, label="Variance", shrink=0.8)


def costs(axes, steps, column, ylabel):
    """Images/s or memory of a training step against E, a curve for each way to compute it; the plain network as a line.

    Args:
        steps: rows of `results/speed.csv` of one device with the columns `expansion`, `filters` and `way`.
    """
    lc, plain = steps[steps["expansion"] > 0], steps[(steps["expansion"] == 0)]
    ways = list(dict.fromkeys(steps["way"]))
    sns.lineplot(lc, x="expansion", y=column, hue="way", hue_order=ways, style="filters", markers=True,
                 palette=sns.color_palette("colorblind", len(ways)), ax=axes)
    for value in plain.loc[~plain["frozen"] & (plain["way"] == ways[0]), column]:
        axes.axhline(value, color=BASELINE, linestyle="--", label="plain network, this project")
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    axes.set_xticks(sorted(set(lc["expansion"])), sorted(set(lc["expansion"])))
    axes.set(xlabel=AXES["expansion"], ylabel=ylabel)
    axes.get_legend().remove()


def _labelled(table):
    return table.assign(filters=table["frozen"].map(LABELS))

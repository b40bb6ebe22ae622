"""One look for all figures: colours, labels, the style, and files that come out the same every time."""

import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .analysis import outside_both_spreads
from .data import TITLES
from .models import combines
from .utils.files import ROOT

FROZEN, LEARNABLE, BASELINE = "#0072B2", "#D55E00", "#555555"  # Okabe and Ito's colour-blind-safe blue and vermilion
LABELS = {True: "Frozen random", False: "Learnable"}
COLORS = {True: FROZEN, False: LEARNABLE}
COLUMN = 3.4  # inches: a figure as wide as a paper's column

STYLE = {
    "figure.dpi": 150, "savefig.dpi": 300, "figure.constrained_layout.use": True,
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "legend.fontsize": 7, "legend.frameon": False,
    "axes.spines.top": False, "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "lines.linewidth": 1.2, "lines.markersize": 4, "image.cmap": "gray",
}


def use_style():
    """Set matplotlib to the project's style."""
    matplotlib.rcdefaults()
    plt.rcParams.update(STYLE)


def figures_folder():
    """Where figures are written: $LC_FIGURES_DIR, else `figures` of this project."""
    return Path(os.environ.get("LC_FIGURES_DIR") or ROOT / "figures")


def save(figure, name):
    """Write `name.png` and `name.pdf`, without dates, so that the same figure gives the same bytes."""
    folder = figures_folder()
    folder.mkdir(parents=True, exist_ok=True)
    figure.savefig(folder / f"{name}.png", metadata={"Software": None})
    figure.savefig(folder / f"{name}.pdf", metadata={"CreationDate": None, "Creator": None, "Producer": None})


def against(axes, means, x, column, ylabel):
    """A column of `analysis.summary` against `x`, "expansion", "width" or "depth", on a logarithmic axis: frozen and
    learnable curves of the LC networks, the plain network as a line.

    Shades and bars show the standard deviation over seeds.
    """
    for _, row in _plain(means).iterrows():
        axes.axhline(row[column], color=BASELINE, linestyle="--", label="Baseline (no LC), learnable")
        mean, spread = row[column], row[f"{column}_std"]
        axes.axhspan(mean - spread, mean + spread, color=BASELINE, alpha=0.15, linewidth=0)
    _lc_curves(axes, means, x, column)
    _logarithmic(axes, x, means.loc[means["expansion"] > 0, x])
    axes.set_ylabel(ylabel)


def against_parameters(axes, means, column, ylabel):
    """A column of `analysis.summary` against the learnable parameters, on a logarithmic axis; each LC point bears its E."""
    _lc_curves(axes, means, "learnable_parameters", column)
    for _, row in means[means["expansion"] > 0].iterrows():
        axes.annotate(f"x{row['expansion']}", (row["learnable_parameters"], row[column]), textcoords="offset points",
                      xytext=(4, -9 if row["frozen"] else 4), fontsize=6, color=COLORS[row["frozen"]])
    plain = _plain(means)
    axes.errorbar(plain["learnable_parameters"], plain[column], plain[f"{column}_std"], color=BASELINE, marker="*", zorder=3,
                  markersize=8, linestyle="", capsize=2, label="Baseline (no LC), learnable")
    axes.set_xscale("log")
    axes.margins(0.12)
    axes.set_xlabel("Learnable parameters")
    axes.set_ylabel(ylabel)


def gaps_by_kernel(axes, gaps):
    """Figure 8a: the gap of `analysis.gaps` against the expansion, a curve for each kernel size; darker is larger."""
    gaps = gaps[gaps["expansion"] > 0]
    sizes = sorted(gaps["kernel_size"].unique())
    for i, k in enumerate(sizes):
        curve = gaps[gaps["kernel_size"] == k]
        axes.errorbar(curve["expansion"], curve["gap"], curve["gap_std"], marker="osD^vP"[i % 6], capsize=2, label=f"k = {k}",
                      color=plt.get_cmap("viridis_r")(0.15 + 0.8 * i / max(len(sizes) - 1, 1)))
    axes.axhline(0, color=BASELINE, linewidth=0.8)
    _logarithmic(axes, "expansion", gaps["expansion"])
    axes.set_ylabel("Learnable − frozen [points]")
    if sizes:
        axes.legend(ncols=2)


def by_network(axes, means, gaps, combines=combines):
    """Figure 1: accuracy of networks side by side, frozen and learnable, what freezing changes in points above each.

    Right of the vertical line stand those that combine their spatial filters.

    Args:
        means, gaps: of `analysis.summary` and `analysis.gaps`.
        combines: says of a network's name whether it combines them.
    """
    size = means.groupby("model")["learnable_parameters"].max()
    names = sorted(size.index, key=lambda name: (combines(name), size[name]))
    for side, frozen in ((-0.2, True), (0.2, False)):
        rows = means[means["frozen"] == frozen].set_index("model").reindex(names)
        axes.bar([i + side for i in range(len(names))], rows["accuracy"], 0.38, yerr=rows["accuracy_std"], capsize=2,
                 color=COLORS[frozen], label=LABELS[frozen], error_kw={"linewidth": 0.8})
    tops = means.groupby("model")["accuracy"].max()
    for _, row in gaps.iterrows():
        change = f"{-row['gap']:+.1f}".replace("-", "−")
        axes.annotate(change, (names.index(row["model"]), tops[row["model"]]), textcoords="offset points", xytext=(0, 5),
                      ha="center", fontsize=7)
    left = sum(not combines(name) for name in names)
    if 0 < left < len(names):
        axes.axvline(left - 0.5, color=BASELINE, linestyle=":")
    axes.set_xticks(range(len(names)), names, rotation=30, ha="right", rotation_mode="anchor")
    axes.grid(visible=False, axis="x")
    axes.margins(y=0.12)
    axes.set_ylabel("Validation accuracy [%]")


def filter_rows(axes, rows, labels):
    """Filters as images, a row for each network (Figures 7 and 10).

    RGB as the network sees it: the weights of the three input channels, on one symmetric scale a row, grey is 0. Filters
    of one input channel are grey.

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
    """Figure 8b: variance by position, learned above and frozen below, a column for each kernel size, one scale.

    Args:
        axes: `[2, columns]`.
        maps: `{(kernel size, frozen): [k, k]}`.
    """
    top = max(values.max() for values in maps.values())
    for column, k in enumerate(sorted({k for k, _ in maps})):
        for row, frozen in enumerate((False, True)):
            cell = axes[row, column]
            cell.set(xticks=[], yticks=[])
            cell.grid(visible=False)
            cell.spines[:].set_visible(False)
            if (k, frozen) in maps:
                image = cell.imshow(maps[k, frozen], cmap="viridis", vmin=0, vmax=top)
            if column == 0:
                cell.set_ylabel(LABELS[frozen])
        axes[0, column].set_title(f"k = {k}")
    figure.colorbar(image, ax=axes, label="Variance", shrink=0.8)


def _logarithmic(axes, x, values):
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(values)))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.minorticks_off()
    axes.set_xlabel({"expansion": "LC expansion E", "width": "Network width W", "depth": "Network depth D"}[x])


def _lc_curves(axes, means, x, column):
    for frozen in (True, False):
        curve = means[(means["expansion"] > 0) & (means["frozen"] == frozen)]
        axes.errorbar(curve[x], curve[column], curve[f"{column}_std"], color=COLORS[frozen], marker="o", capsize=2,
                      label=LABELS[frozen])


def _plain(means):
    return means[(means["expansion"] == 0) & ~means["frozen"]]


def plus_minus(means, column):
    """A column of `analysis.summary` as text, "mean ± standard deviation"; of a single seed the mean alone."""
    return [f"{mean:.2f}" if spread != spread else f"{mean:.2f} ± {spread:.2f}"
            for mean, spread in zip(means[column], means[f"{column}_std"])]


def side_by_side(means, columns, *index, gaps=None):
    """A table of `analysis.summary` as text: a row for each value of `index`, frozen and learnable as columns.

    Args:
        columns: a column of `means`, or several by title, each a pair of columns then.
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


def beside_paper(means, published):
    """A table of accuracies of `analysis.summary` beside published ones: every run of either.

    A star marks a mean that differs from the paper's by more than both standard deviations.

    Args:
        published: `{(data set, model, frozen): Published}`.
    """
    keys = list(zip(means["dataset"], means["model"], means["frozen"]))
    here = dict(zip(keys, plus_minus(means, "accuracy")))
    for key, mean, spread in zip(keys, means["accuracy"], means["accuracy_std"]):
        if key in published and outside_both_spreads(mean, spread, published[key]):
            here[key] += " *"
    lines = [(TITLES.get(dataset, dataset), model, LABELS[frozen], here.get((dataset, model, frozen), "missing"),
              str(published.get((dataset, model, frozen), ""))) for dataset, model, frozen in dict.fromkeys([*published, *here])]
    names = ["Data set", "Network", "Spatial filters"]
    return pd.DataFrame(lines, columns=[*names, "Here", "Paper"]).set_index(names)

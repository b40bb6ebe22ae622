"""One look for all figures: colours, labels, the style, and files that come out the same every time."""

import os
from pathlib import Path

import matplotlib
import matplotlib.pyplot as plt

from .run import ROOT

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


def against_expansion(axes, means, column, ylabel):
    """A column of `study.summary` against the expansion E: frozen and learnable curves, the plain network as a line.

    Shades and bars show the standard deviation over seeds.
    """
    for _, row in _plain(means).iterrows():
        axes.axhline(row[column], color=BASELINE, linestyle="--", label="Baseline (no LC), learnable")
        mean, spread = row[column], row[f"{column}_std"]
        axes.axhspan(mean - spread, mean + spread, color=BASELINE, alpha=0.15, linewidth=0)
    _lc_curves(axes, means, "expansion", column)
    axes.set_xscale("log", base=2)
    axes.set_xticks(sorted(set(means["expansion"]) - {0}))
    axes.xaxis.set_major_formatter("{x:.0f}")
    axes.xaxis.minorticks_off()
    axes.set_xlabel("LC expansion E")
    axes.set_ylabel(ylabel)


def against_parameters(axes, means, column, ylabel):
    """A column of `study.summary` against the learnable parameters, on a logarithmic axis; each LC point bears its E."""
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


def _lc_curves(axes, means, x, column):
    for frozen in (True, False):
        curve = means[(means["expansion"] > 0) & (means["frozen"] == frozen)]
        axes.errorbar(curve[x], curve[column], curve[f"{column}_std"], color=COLORS[frozen], marker="o", capsize=2,
                      label=LABELS[frozen])


def _plain(means):
    return means[(means["expansion"] == 0) & ~means["frozen"]]


def plus_minus(means, column):
    """A column of `study.summary` as text, "mean ± standard deviation"; of a single seed the mean alone."""
    return [f"{mean:.2f}" if spread != spread else f"{mean:.2f} ± {spread:.2f}"
            for mean, spread in zip(means[column], means[f"{column}_std"])]

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
    "lines.linewidth": 1.2, "lines.markersize": 4, "image.cmap": "gray", "svg.hashsalt": "lc",
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

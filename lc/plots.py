"""One look for all figures: seaborn's plots with the project's colours, labels and axes."""

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.ticker import MaxNLocator
from matplotlib.transforms import ScaledTranslation

from .tables import LABELS, told
from .utils.files import figures_folder

# Okabe and Ito's colour-blind-safe blue and vermilion
FROZEN, LEARNABLE, BASELINE = "#0072B2", "#D55E00", "#555555"
COLORS = {True: FROZEN, False: LEARNABLE}
PLAIN = {False: ("Plain network, learnable", BASELINE, "--"),
         True: ("Plain network, frozen random", FROZEN, ":")}
AXES = {"expansion": "LC expansion E", "width": "Network width W", "depth": "Network depth D",
        "learnable_parameters": "Learnable parameters"}
COLUMN = 3.4  # inches: the width of a column in the paper
DODGE = 4  # points by which marks of one place stand aside
FAR = 10  # points of accuracy, at least, between the parts of a broken axis
CURVE = dict(marker="o", markeredgewidth=0, errorbar="sd", err_style="bars",
             err_kws={"capsize": 2})

STYLE = {
    "figure.dpi": 150, "savefig.dpi": 300, "figure.constrained_layout.use": True,
    "font.size": 8, "figure.titlesize": 8, "axes.titlesize": 8, "axes.labelsize": 8,
    "legend.fontsize": 7, "legend.frameon": False, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.3, "grid.linewidth": 0.5,
    "lines.linewidth": 1.2, "lines.markersize": 4, "image.cmap": "gray",
}


def use_style():
    """Sets matplotlib to the project's style."""
    matplotlib.rcdefaults()
    plt.rcParams.update(STYLE)


def save(figure, name):
    """Writes `name.png` and `name.pdf` without dates: the same figure gives the same bytes.

    Where they cannot be written, it says so in a line, and the figure is only drawn.
    """
    folder = figures_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        figure.savefig(folder / f"{name}.png", metadata={"Software": None})
        figure.savefig(folder / f"{name}.pdf",
                       metadata={"CreationDate": None, "Creator": None, "Producer": None})
    except OSError as error:
        print(f"{name} is drawn and not kept: {folder} cannot be written "
              f"({error.strerror or error}); set LC_FIGURES_DIR to a folder that can")


def against(axes, table, x, column, ylabel, larger=None):
    """Draws a column against `x` on a logarithmic axis: LC networks, and plain ones as lines.

    Bars show the standard deviation over seeds. If the plain network with frozen filters lies far
    below all others, the y axis is broken in between.

    Args:
        table, larger: the curves and marks of `study.collect`.
        x: "expansion", "width", "depth" or "learnable_parameters".
    """
    larger = table[:0] if larger is None else larger
    lc, plain = table[table["expansion"] > 0], table[table["expansion"] == 0]
    if x == "expansion":
        for frozen, mean in plain.groupby("frozen")[column].mean().dropna().items():
            label, color, line = PLAIN[frozen]
            axes.axhline(mean, color=color, linestyle=line, label=label)
    if len(lc):
        sns.lineplot(lc.assign(filters=lc["frozen"].map(LABELS)), x=x, y=column, hue="filters",
                     hue_order=LABELS.values(), palette=COLORS.values(), ax=axes, **CURVE)
    if x == "learnable_parameters":
        for frozen, (label, color, _) in PLAIN.items():
            sns.scatterplot(plain[plain["frozen"] == frozen], x=x, y=column, color=color,
                            marker="D", s=16, ax=axes)
        if len(plain):
            axes.plot([], [], "D", color="white", markeredgecolor="black", markeredgewidth=0.6,
                      label="Plain network")
        axes.set_xscale("log")
        axes.margins(0.15)
    else:
        log_ticks(axes, {*lc[x], *larger.loc[larger["expansion"] > 0, x]})
    if len(larger):
        _marks(axes, table, larger, x, column)
    axes.set(xlabel=AXES[x], ylabel=ylabel)
    if axes.get_legend():
        axes.get_legend().remove()
    if x in ("expansion", "learnable_parameters"):
        rows = pd.concat([table, larger]) if len(larger) else table
        means = rows.groupby(["expansion", "frozen", "profile"])[column].mean().reset_index()
        _break_below(axes, means[column], (means["expansion"] == 0) & means["frozen"])


def log_ticks(axes, values):
    """A logarithmic x axis with ticks at the values. Axes that share it need the values of all.

    A label that would touch the one to its right stands on a second line.
    """
    values = sorted(values)
    octaves = np.log2(values[-1] / values[0]) * 1.1 if len(values) > 1 else 1
    octave = axes.get_position().width * axes.figure.get_figwidth() * 72 / octaves  # in points
    labels, last = [], {"": np.inf, "\n": np.inf}
    for value in reversed(values):
        room = {line: np.log2(other / value) * octave - 2.8 * len(f"{value}{other}") - 3
                for line, other in last.items()}
        line = next((line for line in room if room[line] > 0), None)
        labels.append("" if line is None else f"{line}{value}")
        last |= {} if line is None else {line: value}
    axes.set_xscale("log", base=2)
    axes.set_xticks(values, labels[::-1])
    axes.xaxis.minorticks_off()


def _marks(axes, table, larger, x, column):
    """Rows of larger profiles. Against E, W or D, frozen ones stand a little to the left.

    Learnable ones stand to the right. A plain network has no expansion: it is at the right edge.
    Against parameters, marks are smaller, with the plain network at the back.
    """
    name_marks(axes, larger, table)
    at_edge = (larger["expansion"] == 0) & (x == "expansion")
    if x != "learnable_parameters":
        low, high = axes.get_xlim()
        room = 1.9 * max({*table[x], *larger[x]}) if at_edge.any() else 1
        axes.set_xlim(low / 1.3, max(high * 1.1, room))
    for (profile, lc, frozen), rows in larger.groupby(
            ["profile", larger["expansion"] > 0, "frozen"]):
        means = rows.groupby(x)[column].mean()
        color = COLORS[frozen] if lc else PLAIN[frozen][1]
        if not lc and x == "expansion":
            edge = axes.get_yaxis_transform()
            mark(axes, [1.0], means, profile, color, transform=edge)
            axes.annotate("plain", (1.0, means.iloc[0]), (6, 0), xycoords=edge, va="center",
                          textcoords="offset points", fontsize=6, color=color)
            continue
        parameters = x == "learnable_parameters"
        aside = 0 if parameters else -DODGE if frozen else DODGE
        where = axes.transData + ScaledTranslation(aside / 72, 0, axes.figure.dpi_scale_trans)
        if len(means) > 1:
            axes.plot(means.index, means, color=color, linewidth=0.6, transform=where)
        mark(axes, means.index, means, profile, color, 0.7 if parameters else 1, transform=where)
        axes.update_datalim(np.column_stack([means.index, means]))
    axes.autoscale_view(scalex=False)


def mark(axes, x, y, profile, color, size=1, clip_on=False, **options):
    """The mark of a larger profile: a star for the paper's recipe, a plus for `short`.

    `size` is a factor.
    """
    marker, points = ("P", 6) if profile == "short" else ("*", 9)
    axes.plot(x, y, marker, color=color, markeredgecolor="black", markersize=size * points,
              markeredgewidth=0.6, zorder=4, linestyle="", clip_on=clip_on, **options)


def name_marks(axes, larger, table):
    """A line of the legend for each larger profile. It says a depth or width that no curve has."""
    for profile, rows in larger.groupby("profile"):
        named = [f"{column} {rows[column].iloc[0]}, " for column in ("depth", "width")
                 if rows[column].nunique() == 1 and not set(rows[column]) & set(table[column])]
        # the layout would make room for an empty line at (0, 0) if it were not clipped
        mark(axes, [], [], profile, "white", clip_on=True, label="".join(named) + told(rows))


def _break_below(axes, values, low):
    """Breaks the y axis above the values where `low` is true, if all others lie far above them.

    Far is `FAR`, and three tenths of the whole.
    """
    below, above = values[low].dropna(), values[~low].dropna()
    gap = above.min() - below.max()  # nan if either is empty
    if not gap > max(FAR, 0.3 * (values.max() - values.min())):
        return
    bottom, low, reach = below.min(), below.max(), above.max() - above.min()
    top = max(above.max(), axes.dataLim.y1) + 0.1 * reach
    high = above.min() - 0.08 * reach
    height = top - high
    places = {top: top, high: high, low: high - 0.12 * height}  # {value: where it stands}
    if bottom < low:
        places[bottom] = places[low] - 0.12 * height
    places[bottom - 1] = places[bottom] - 0.08 * height  # the end of the axis
    numbers, heights = map(sorted, (places, places.values()))
    axes.set_yscale("function", functions=(lambda y: np.interp(y, numbers, heights),
                                           lambda y: np.interp(y, heights, numbers)))
    axes.set_ylim(bottom - 1, top)
    upper = [y for y in MaxNLocator(5).tick_values(high, top) if high <= y <= top]
    axes.set_yticks([*sorted({round(bottom), round(low)}), *upper])
    axes.yaxis.set_major_formatter("{x:.0f}" if all(y == round(y) for y in upper) else "{x:.1f}")
    axes.yaxis.minorticks_off()
    ends = [low + share * (high - low) for share in (0.35, 0.65)]
    where = dict(transform=axes.get_yaxis_transform(), clip_on=False, zorder=10)
    axes.plot([0, 0], ends, color="white", linewidth=3, **where)
    axes.plot([0, 0], ends, color="black", linestyle="", marker=[(-1, -0.5), (1, 0.5)],
              markersize=7, markeredgewidth=0.8, **where)


def legend(figure, axes, columns=3):
    """One legend below the figure with the labels of all its axes."""
    handles = {}
    for each in np.ravel(axes):
        handles |= dict(zip(*reversed(each.get_legend_handles_labels())))
    for heading in ("way", "filters"):  # seaborn's
        handles.pop(heading, None)
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=columns)


def break_even(axes, at):
    """A vertical line at an `analysis.break_even`, and above the axes where it lies."""
    if 0 < at.value < np.inf and not at.unclear:
        axes.axvline(at.value, color="black", linestyle=":", linewidth=0.8)
    axes.set_title(f"break-even: {at.text()}", loc="right", fontsize=7)


def filter_rows(axes, rows, labels):
    """Filters as images, a row for each network (Figures 7 and 10).

    Each row has one symmetric scale, on which mid-grey is 0.

    Args:
        rows: arrays `[c_out, 3 or 1, k, k]` of one shape; three channels are red, green and blue.
        labels: a text for each row.
    """
    scaled = np.stack(rows).astype(float)
    count, _, channels, k, _ = scaled.shape
    scaled = 0.5 + 0.5 * scaled / np.abs(scaled).max((1, 2, 3, 4), keepdims=True)
    framed = np.pad(scaled, [(0, 0)] * 3 + [(0, 1)] * 2, constant_values=1)
    canvas = framed.transpose(0, 3, 1, 4, 2).reshape(count * (k + 1), -1, channels)[:-1, :-1]
    axes.imshow(canvas.repeat(3 // channels, axis=2), interpolation="nearest")
    axes.set_yticks([y * (k + 1) + (k - 1) / 2 for y in range(count)], labels)
    axes.set_xticks([])
    axes.tick_params(length=0)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)

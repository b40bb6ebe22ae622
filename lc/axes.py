"""Axes that matplotlib does not have: logarithmic ticks that do not touch, and a broken y axis."""

import numpy as np
from matplotlib.ticker import MaxNLocator

FAR = 10  # points of accuracy


def log_ticks(axes, values):
    """A logarithmic x axis with ticks at the values. Axes that share it need the values of all.

    A label that would touch the next one, counted from the largest, stands on a second line.
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


def break_below(axes, values, low):
    """Breaks the y axis above the values where `low` is true, if all others lie far above them.

    Far is `FAR`, and three tenths of the whole. The empty part between then takes a tenth of the
    height, and so do the low values if they differ.

    Args:
        values, low: Series of one length.
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

"""Filters of frozen networks by E, beside those that the plain network learned (Figures 7, 10)."""

import numpy as np
import pandas as pd

from .. import analysis, results
from ..names import Architecture, architecture
from ..run import COLUMNS
from ..utils.shown import Shown
from .page import fill, packed

SHOWN = 8  # filters of a layer


def filters(table):
    """A slider over E, and a choice of the kernel size and of the layer, first or last.

    Filters of the first layer stand above those of the plain network that are most like them
    (`analysis.matched`). Of the last layer it shows the kernels with the largest norm.

    Args:
        table: of `results.load_table`. Of each kernel size, the networks with the most E are taken.

    Returns:
        A `Shown`, whose text has accuracies and similarities, or says that rows are missing.
    """
    rows = _networks(table)
    sizes = {int(k): _of_size(part) for k, part in rows.groupby("kernel_size")}
    sizes = {k: shown for k, shown in sizes.items() if shown}
    if not sizes:
        missing = "No frozen LC network has a row beside that of its plain, learnable network."
        return Shown(f"<p>{missing}</p>", missing)
    lines = ["kernel  E     accuracy  similarity of the first layer's filters to learned ones"]
    for k, shown in sizes.items():
        for row in shown["frozen"]:
            e, accuracy = row["E"] or "none", row.get("accuracy", "–")
            lines.append(f"{k} × {k}   {e:4}  {accuracy:>8}  {row['similarity']:.2f}")
    return Shown(fill("filters", sizes), "\n".join(lines))


def _networks(table):
    """The rows of CIFAR-ResNets on CIFAR-10, one seed of each, with the parts of their names."""
    table = table.loc[table["dataset"] == "cifar10", [*COLUMNS]].sort_values("seed")
    table = table.drop_duplicates(["model", "frozen", "profile"])
    parts = pd.DataFrame(map(architecture, table["model"]), table.index, Architecture._fields)
    as_usual = (parts[["between", "initial"]] == "").all(axis=1)
    return table.join(parts)[(parts["depth"] > 0) & as_usual]


def _of_size(rows):
    """What there is to show of a kernel size: of the profile, depth and width with the most E."""
    found = {}
    for (_, *base), part in rows.groupby(["profile", "depth", "width"]):
        plain = part[(part["expansion"] == 0) & ~part["frozen"]]
        frozen = part[(part["expansion"] > 0) & part["frozen"]].sort_values("expansion")
        if len(plain) and len(frozen):
            found[len(frozen), part["epochs"].max(), *base] = plain.iloc[0], frozen
    if not found:
        return None
    plain, frozen = found[max(found)]
    learned = results.load_arrays(plain["id"])
    noise = {name: np.random.default_rng(0).uniform(-1, 1, learned[name].shape)
             for name in ("first", "last") if name in learned}
    shown = [dict(E=0, **_drawn(noise, learned))]
    for row in frozen.itertuples():
        arrays = results.load_arrays(row.id)
        shown.append(dict(E=row.expansion, accuracy=row.accuracy, **_drawn(arrays, learned)))
    return dict(network=plain["model"], accuracy=plain["accuracy"], epochs=int(plain["epochs"]),
                filters=len(learned["first"]), frozen=shown, **_drawn(learned, learned))


def _drawn(arrays, learned):
    """Filters as text, and the mean cosine of those of the first layer and the learned ones."""
    first, target = analysis.matched([each["first"].astype(float) for each in (arrays, learned)])
    axes = 1, 2, 3
    norms = np.sqrt((first**2).sum(axes) * (target**2).sum(axes) + 1e-12)
    cosines = (first * target).sum(axes) / norms
    last = dict(last=packed(arrays["last"][:SHOWN])) if "last" in arrays else {}
    return dict(first=packed(first[:SHOWN]), similarity=float(cosines.mean()), **last)

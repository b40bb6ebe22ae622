"""The table `results/speed.csv`: a row for each network and way to compute its training step."""

import math
from pathlib import Path

import pandas as pd

from ..models import architecture
from ..utils.files import replacing, results_folder

# `started` is the time when the benchmark began. `copy_gb_per_s` is what a copy of a large tensor reads and writes. `path` is one
# of `steps.PATHS`. `memory_mib` are tensors at the peak, with weights and momentum. `kernels` are operations on a CPU.
# `gigabytes` is what the operations read and write, one by one.
COLUMNS = ["started", "device", "torch", "git", "precision", "copy_gb_per_s", "model", "frozen", "path", "batch", "milliseconds",
           "memory_mib", "kernels", "gigabytes", "images_per_second"]
KEYS = ["device", "precision", "model", "frozen", "path", "batch"]
RATIOS = ["of_plain", "of_unfolded", "of_loop", "memory_of_plain"]


def load_table(folder=None):
    """The rows of `speed.csv` as a DataFrame, empty if there is no file yet.

    Args:
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.

    Raises:
        ValueError: if the file has other columns.
    """
    path = _path(folder)
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} has other columns than this version of lc writes; move the file away")
    return table


def save(rows, folder=None):
    """Writes rows (dicts) to `speed.csv`. A row of the same device, precision, network, path and batch is replaced."""
    table = pd.DataFrame([*load_table(folder).to_dict("records"), *rows], columns=COLUMNS)
    with replacing(_path(folder)) as f:
        table.drop_duplicates(KEYS, keep="last").to_csv(f, index=False, float_format="%.6g")


def family(model):
    """What a plain network shares with its LC networks: depth, width and kernel size. Off-the-shelf: the name."""
    parsed = architecture(model)
    return (parsed.depth, parsed.width, parsed.kernel_size) if parsed.depth else model


def with_ratios(table):
    """Adds to rows of `speed.csv` their ratios to rows that were measured together with them, nan where there is none.

    Returns:
        The table with the columns `RATIOS`. The first three are of images/s: to the plain, learnable network of the same
        depth, width and kernel size, to the same network through its expanded features, and to the same network in the
        plain PyTorch loop. The last is of memory, to the plain, learnable network.
    """
    rows, none = table.to_dict("records"), dict.fromkeys(COLUMNS, math.nan)
    found = {_case(row): row for row in rows}
    found |= {_case(row, model=family(row["model"])): row for row in rows if not architecture(row["model"]).expansion}
    for row in rows:
        plain = found.get(_case(row, model=family(row["model"]), frozen=False), none)
        row["memory_of_plain"] = row["memory_mib"] / plain["memory_mib"]
        for ratio, other in {"of_plain": plain, "of_unfolded": found.get(_case(row, path="unfolded"), none),
                             "of_loop": found.get(_case(row, path="loop"), none)}.items():
            row[ratio] = row["images_per_second"] / other["images_per_second"]
    return pd.DataFrame(rows, columns=COLUMNS + RATIOS)


def _case(row, **other):
    return tuple((row | other)[column] for column in ("started", "model", "frozen", "path"))


def _path(folder):
    return Path(folder or results_folder()) / "speed.csv"

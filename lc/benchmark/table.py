"""The table `results/speed.csv`: a row for each network and way to compute its training step."""

import math

import pandas as pd

from ..models import architecture
from ..utils.files import replacing, results_folder

# `started` is the time when the benchmark began. `path` is one of `steps.PATHS`, `batch` the images of a step, of all
# its networks. `memory_mib` are tensors at the peak, with weights and momentum.
COLUMNS = ["started", "device", "torch", "git", "precision", "model", "frozen", "path", "batch", "milliseconds", "memory_mib",
           "images_per_second"]
KEYS = ["device", "precision", "model", "frozen", "path", "batch"]
RATIOS = ["of_plain", "of_unfolded", "of_loop", "memory_of_plain"]


def load_table(folder=None):
    """The rows of `speed.csv` as a DataFrame, empty if there is no file yet.

    Args:
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.

    Raises:
        ValueError: if the file has other columns.
    """
    path = results_folder(folder) / "speed.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} has other columns than this version of lc writes, or a spreadsheet saved it "
                         "without commas; move the file away")
    return table


def save(rows, folder=None):
    """Writes rows (dicts) to `speed.csv`. A row of the same device, precision, network, path and batch is replaced."""
    table = pd.DataFrame([*load_table(folder).to_dict("records"), *rows], columns=COLUMNS)
    with replacing(results_folder(folder) / "speed.csv") as f:
        table.drop_duplicates(KEYS, keep="last").to_csv(f, index=False, float_format="%.6g")


def with_ratios(table):
    """Adds to rows of `speed.csv` their ratios to rows that were measured together with them, nan where there is none.

    Returns:
        The table with the columns `RATIOS`. The first three are of images/s: to the plain, learnable network of the same
        depth, width and kernel size, to the same network through its expanded features, and to the same network in the
        plain PyTorch loop. The last is of memory, to the plain, learnable network.
    """
    rows = table.to_dict("records")
    for row in rows:
        depth, width, expansion, kernel_size, *_ = architecture(row["model"])
        row["shape"] = (depth, width, kernel_size) if depth else row["model"]
        row["is"] = {row["path"]} if expansion or row["frozen"] else {row["path"], "plain"}

    def ratios(column, other, *keys):
        of_other = {tuple(row[key] for key in keys): row[column] for row in rows if other in row["is"]}
        return [row[column] / of_other.get(tuple(row[key] for key in keys), math.nan) for row in rows]

    return table.assign(of_plain=ratios("images_per_second", "plain", "started", "shape", "path"),
                        of_unfolded=ratios("images_per_second", "unfolded", "started", "model", "frozen"),
                        of_loop=ratios("images_per_second", "loop", "started", "model", "frozen"),
                        memory_of_plain=ratios("memory_mib", "plain", "started", "shape", "path"))


def sweep_options(table):
    """The options of `lc sweep` that train most images a second, from the rows of one benchmark; empty text if none does.

    A path counts if every network that was measured as a single CUDA graph was measured with it too, and if it is at
    least 2 % faster over all of them.
    """
    def seconds(path):
        part = table[table["path"] == path]
        return dict(zip(zip(part["model"], part["frozen"]), 1 / part["images_per_second"]))

    single = seconds("graph")
    times = {path: sum(seconds(path).values()) for path in table["path"].unique()
             if single.keys() and seconds(path).keys() == single.keys()}
    faster = {path: time for path, time in times.items() if 1.02 * time < times["graph"]}
    together = min((path for path in faster if path.startswith("graphs-")), key=faster.get, default="")
    return " ".join(["--fuse"] * ("fused" in faster) + [together.replace("graphs-", "--together ")] * bool(together))

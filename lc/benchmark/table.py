"""The table `results/speed.csv`: a row for each network and way to compute its training step."""

import math

import pandas as pd

from ..names import architecture
from ..utils.files import replacing, results_folder

# `started`: when the benchmark began. `path`: one of `steps.PATHS`. `batch`: images of a step, of
# all its networks. `memory_mib`: tensors at the peak, with weights and momentum.
COLUMNS = ["started", "device", "torch", "git", "precision", "model", "frozen", "path", "batch",
           "milliseconds", "memory_mib", "images_per_second"]
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
        raise ValueError(f"{path} has other columns than this version of lc writes; move it away")
    return table


def save(rows):
    """Writes rows (dicts) to `speed.csv`. They replace rows with the same `KEYS`."""
    table = pd.DataFrame([*load_table().to_dict("records"), *rows], columns=COLUMNS)
    with replacing(results_folder() / "speed.csv") as f:
        table.drop_duplicates(KEYS, keep="last").to_csv(f, index=False, float_format="%.6g")


def with_ratios(table):
    """Adds to rows of `speed.csv` the columns `RATIOS`, nan where there is nothing to compare.

    Only rows that were measured together are compared. The ratios of images/s are to the plain,
    learnable network of the same depth, width and kernel size, to the same network through its
    expanded features, and to the same network in the plain PyTorch loop. The ratio of memory is to
    the plain, learnable network.
    """
    rows = table.to_dict("records")
    for row in rows:
        depth, width, expansion, kernel_size, *_ = architecture(row["model"])
        row["shape"] = (depth, width, kernel_size) if depth else row["model"]
        row["plain"] = not expansion and not row["frozen"]
    plain = [row for row in rows if row["plain"]]
    unfolded, loop = ([row for row in rows if row["path"] == path] for path in ("unfolded", "loop"))

    def ratios(column, others, *keys):
        values = {tuple(row[key] for key in keys): row[column] for row in others}
        return [row[column] / values.get(tuple(row[key] for key in keys), math.nan) for row in rows]

    same_shape = "started", "shape", "path"
    same_network = "started", "model", "frozen"
    return table.assign(
        of_plain=ratios("images_per_second", plain, *same_shape),
        of_unfolded=ratios("images_per_second", unfolded, *same_network),
        of_loop=ratios("images_per_second", loop, *same_network),
        memory_of_plain=ratios("memory_mib", plain, *same_shape))


def sweep_options(table):
    """The options of `lc sweep` that train most images a second, from the rows of one benchmark.

    A path counts if every network that was measured as a single CUDA graph was measured with it
    too, and if it is at least 2 % faster over all of them. The text is empty if none is.
    """
    rates = table.pivot_table("images_per_second", ["model", "frozen"], "path")
    if "graph" not in rates:
        return ""
    times = (1 / rates[rates["graph"].notna()]).sum(skipna=False)  # nan if a network is missing
    faster = times[1.02 * times < times["graph"]]
    options = ["--fuse"] if "fused" in faster else []
    together = faster[faster.index.str.startswith("graphs-")]
    if len(together):
        options.append(together.idxmin().replace("graphs-", "--together "))
    return " ".join(options)

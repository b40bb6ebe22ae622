"""The table `results/speed.csv`: a row for each network and way to compute its training step."""

import math

import pandas as pd

from ..names import architecture
from ..utils.check import one_line
from ..utils.files import lock, replacing, results_folder

# `started`: when the benchmark began. `path`: one of `steps.PATHS`. `batch`: images of a step, of
# all its networks. `memory_mib`: tensors at the peak, with weights and momentum.
COLUMNS = ["started", "device", "torch", "git", "precision", "model", "frozen", "path", "batch",
           "milliseconds", "memory_mib", "images_per_second"]
KEYS = ["device", "precision", "model", "frozen", "path", "batch"]
RATIOS = ["of_plain", "of_unfolded", "of_loop", "memory_of_plain"]


def load_table(folder=None):
    """The rows of `speed.csv` as a DataFrame, empty if there is no file yet.

    `folder` is that of the results: see `results_folder`. Raises ValueError if the file is damaged
    or has other columns.
    """
    path = results_folder(folder) / "speed.csv"
    try:
        table = pd.read_csv(path)
    except (FileNotFoundError, NotADirectoryError):
        return pd.DataFrame(columns=COLUMNS)
    except (pd.errors.EmptyDataError, pd.errors.ParserError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read ({one_line(error)}); move it away") from None
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} has other columns than this version of lc writes; move it away")
    return table


def save(rows):
    """Writes rows (dicts) to `speed.csv`. They replace rows with the same `KEYS`."""
    path = results_folder() / "speed.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with lock(path.with_suffix(".csv.lock")), replacing(path) as f:
        table = pd.DataFrame([*load_table().to_dict("records"), *rows], columns=COLUMNS)
        table.drop_duplicates(KEYS, keep="last").to_csv(f, index=False, float_format="%.6g")


def with_ratios(table):
    """Adds to rows of `speed.csv` the columns `RATIOS`, nan where there is nothing to compare.

    Only rows that were measured together are compared: images/s with those of the plain, learnable
    network of the same depth, width and kernel size, of the same network through its expanded
    features, and of the same network in the conventional loop; memory with the plain network's.
    """
    rows = table.to_dict("records")
    for row in rows:
        depth, width, expansion, kernel_size, *_ = architecture(row["model"])
        row["shape"] = (depth, width, kernel_size) if depth else row["model"]
        row["plain"] = not expansion and not row["frozen"]

    def ratios(column, to, value, *keys):
        others = {tuple(row[key] for key in keys): row[column] for row in rows if row[to] == value}
        return [row[column] / others.get(tuple(row[key] for key in keys), math.nan) for row in rows]

    shape, network = ("started", "shape", "path"), ("started", "model", "frozen")
    return table.assign(
        of_plain=ratios("images_per_second", "plain", True, *shape),
        of_unfolded=ratios("images_per_second", "path", "unfolded", *network),
        of_loop=ratios("images_per_second", "path", "loop", *network),
        memory_of_plain=ratios("memory_mib", "plain", True, *shape))


def sweep_options(table):
    """The options of `lc sweep` that train most images a second, from one benchmark's rows.

    A path counts if it is at least 2 % faster over all networks that were measured as a single CUDA
    graph. The text is empty if none is.
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

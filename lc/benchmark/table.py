"""What training steps cost, as `results/speed.csv` has it: a row for each way to compute the step of one network."""

import math
from dataclasses import dataclass, fields
from pathlib import Path

import pandas as pd

from ..utils.files import replacing
from ..models import architecture
from ..utils.files import results_folder


@dataclass
class Step:
    """A row of `speed.csv`."""

    started: str  # when the benchmark was: only what has this in common was measured together
    device: str
    torch: str
    git: str
    precision: str
    copy_gb_per_s: float  # that a copy of a large tensor reads and writes on this device
    model: str
    frozen: bool
    path: str  # of benchmark.PATHS
    batch: int  # images
    milliseconds: float = math.inf
    memory_mib: float = math.nan  # tensors at the peak, weights and momentum included
    kernels: int = 0  # on a CPU: operations
    gigabytes: float = math.nan  # that the operations of a step read and write, one by one

    @property
    def images_per_second(self):
        return 1000 * self.batch / self.milliseconds


COLUMNS = [*(f.name for f in fields(Step)), "images_per_second"]
KEYS = ["device", "precision", "model", "frozen", "path", "batch"]


def to_table(steps):
    """A DataFrame of steps."""
    return pd.DataFrame([[getattr(step, column) for column in COLUMNS] for step in steps], columns=COLUMNS)


def load(folder=None):
    """The rows of `speed.csv`, a DataFrame; none if there is no such file.

    Args:
        folder: where it lies; by default $LC_RESULTS_DIR, else `results` of this project.

    Raises:
        ValueError: if the file is another.
    """
    path = _path(folder)
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} has other columns than this version of lc writes; move the file away")
    return table


def keep(before, steps, folder=None):
    """Write `speed.csv`: the rows of `before`, but for those that `steps` replace, and these."""
    table = pd.DataFrame([*before.values.tolist(), *to_table(steps).values.tolist()], columns=COLUMNS)
    with replacing(_path(folder)) as f:
        table.drop_duplicates(KEYS, keep="last").to_csv(f, index=False, float_format="%.6g")


def shape(model):
    """What a plain network has in common with its LC networks, by name; an off-the-shelf one shares its own with none."""
    parsed = architecture(model)
    return (parsed.depth, parsed.width, parsed.kernel_size) if parsed.depth else model


def ratios(table):
    """Rows of `speed.csv` beside those measured together with them.

    Returns:
        The table with four more columns: images/s as a multiple of the plain, learnable network of the same depth, width and
        kernel size (`of_plain`), of the same network through its expanded features (`of_unfolded`) and by the conventional
        loop (`of_loop`), and memory as a multiple of the plain network's (`memory_of_plain`). nan where there is none.
    """
    rows = table.to_dict("records")
    by_key = {_key(row): row for row in rows}
    plain = {(row["started"], shape(row["model"])): row["model"] for row in rows if not architecture(row["model"]).expansion}

    def ratio(row, column="images_per_second", **other):
        reference = by_key.get(_key(row | other))
        return row[column] / reference[column] if reference else math.nan

    found = []
    for row in rows:
        reference = dict(model=plain.get((row["started"], shape(row["model"]))), frozen=False)
        found.append(row | dict(
            of_plain=ratio(row, **reference), of_unfolded=ratio(row, path="unfolded"), of_loop=ratio(row, path="loop"),
            memory_of_plain=ratio(row, "memory_mib", **reference)))
    return pd.DataFrame(found, columns=[*COLUMNS, "of_plain", "of_unfolded", "of_loop", "memory_of_plain"])


def _key(row):
    return tuple(row[column] for column in ("started", "model", "frozen", "path"))


def _path(folder):
    return Path(folder or results_folder()) / "speed.csv"

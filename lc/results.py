"""The store: `results/runs.csv`, a sorted row for each run, and `results/filters/<id>.npz`, its small arrays.

A row is written after its arrays, and the whole file is replaced at once under a lock: a kill at any moment leaves the
store as it was before or after, and two processes may write to it at the same time.
"""

import csv
import io
import math
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import FileLock, Timeout

from .data import save_npz
from .files import replacing
from .run import COLUMNS, OPTIONAL, results_folder, run_id


class ResultsError(ValueError):
    """A store that is damaged, or was written by another version of `lc`."""


def load(folder=None):
    """All rows as a pandas DataFrame, sorted by id.

    Args:
        folder: the store; by default $LC_RESULTS_DIR, else `results` of this project.

    Raises:
        ResultsError: if the file is damaged or from another version, naming the line.
    """
    return pd.DataFrame(read(folder).values(), columns=list(COLUMNS))


def read(folder=None):
    """All rows as `{id: {column: value}}`; empty if there is no store yet. Raises as `load`."""
    path = Path(folder or results_folder()) / "runs.csv"
    if not path.exists():
        return {}
    rows = {}
    with open(path, newline="", encoding="utf-8") as f:
        lines = csv.reader(f, strict=True)
        try:
            header = next(lines, [])
            for what, names in (("unknown", [c for c in header if c not in COLUMNS]),
                                ("missing", [c for c in COLUMNS if c not in {*header, *OPTIONAL}])):
                if names:
                    raise ResultsError(f"{path}, line 1: {what} column {names[0]!r}; another version of lc wrote this file: "
                                       "use that version, or move the file away")
            for fields in lines:
                where = f"{path}, line {lines.line_num}"
                row = _parse(header, fields, where)
                if row["id"] in rows:
                    raise ResultsError(f"{where}: a second row for {row['id']}; delete one of the two")
                rows[row["id"]] = row
        except (csv.Error, UnicodeDecodeError) as error:
            raise ResultsError(f"{path}, line {lines.line_num}: {error}; repair or delete the line") from None
    return rows


def append(result, folder=None):
    """Record a `Result`: its arrays, then its row, which replaces an earlier row of the same id; its checkpoint goes.

    Raises:
        ResultsError: if the store is damaged; it is left as it is.
    """
    folder = Path(folder or results_folder())
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        rows = read(folder)
        save_npz(arrays_path(result.id, folder), **result.arrays)
        rows[result.id] = result.row()
        _write(rows, folder)
    checkpoint_path(result.id, folder).unlink(missing_ok=True)


def load_arrays(run_id, folder=None):
    """The arrays of a run as `filters.summarize` made them: `{name: array}`.

    Raises:
        ResultsError: if the run has none or they are damaged.
    """
    path = arrays_path(run_id, folder)
    try:
        with np.load(path, allow_pickle=False) as f:
            return {name: f[name] for name in f.files}
    except Exception as error:  # a damaged archive raises whatever zipfile, zlib or numpy come upon
        raise ResultsError(f"{path}: no readable arrays of {run_id} ({error}); train the run again") from None


def arrays_path(run_id, folder=None):
    return Path(folder or results_folder()) / "filters" / f"{run_id}.npz"


def checkpoint_path(run_id, folder=None):
    """Where a run that is being trained for this store keeps its checkpoint."""
    return Path(folder or results_folder()) / ".checkpoints" / f"{run_id}.pt"


def merge(source, folder=None, replace=False):
    """Take over the runs of another store.

    Args:
        source: the other store's folder.
        replace: for a run in both stores, take the other's; by default this store's stays.

    Returns:
        Two lists of ids: taken over, and in both with different values.

    Raises:
        ResultsError: if either store is damaged, or the other has no rows; this one is left as it is.
    """
    folder, source = Path(folder or results_folder()), Path(source)
    theirs = read(source)
    if not theirs:
        raise ResultsError(f"{source} has no runs.csv with rows to merge")
    folder.mkdir(parents=True, exist_ok=True)
    with _lock(folder):
        rows = read(folder)
        differing = [i for i in theirs if i in rows and _format(rows[i]) != _format(theirs[i])]
        taken = [i for i in theirs if i not in rows] + (differing if replace else [])
        for run_id in taken:
            save_npz(arrays_path(run_id, folder), **load_arrays(run_id, source))
            rows[run_id] = theirs[run_id]
        _write(rows, folder)
    return taken, differing


@contextmanager
def claim(run_id, folder=None):
    """Whether this process is now the only one to train a run, for as long as the context lasts."""
    lock = FileLock(Path(folder or results_folder()) / ".claims" / f"{run_id.replace('/', '-')}.lock", timeout=0)
    Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
    try:
        lock.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        lock.release()


def _lock(folder):
    return FileLock(folder / "runs.csv.lock")


def _write(rows, folder):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(_format(rows[run_id]) for run_id in sorted(rows))
    with replacing(folder / "runs.csv") as f:
        f.write(text.getvalue().encode())


def _format(row):
    return ["" if value is None or value != value else f"{value:.6g}" if isinstance(value, float) else str(value)
            for value in (row[column] for column in COLUMNS)]


def _parse(header, fields, where):
    if len(fields) != len(header):
        raise ResultsError(f"{where}: {len(fields)} fields instead of {len(header)}; repair or delete the line")
    row = {}
    for column, text in zip(header, fields):
        kind = COLUMNS[column]
        try:
            if kind is bool:
                row[column] = {"True": True, "False": False}[text]
            elif kind is float:
                row[column] = float(text) if text else math.nan
            else:
                row[column] = kind(text)
        except (ValueError, KeyError):
            raise ResultsError(f"{where}: {column} cannot be {text!r}; repair or delete the line") from None
    expected = run_id(*(row[column] for column in ("dataset", "model", "frozen", "profile", "seed")))
    if row["id"] != expected:
        raise ResultsError(f"{where}: the id {row['id']!r} does not fit the row, which is of {expected}")
    return {column: row.get(column, math.nan) for column in COLUMNS}

"""The store: `results/runs.csv`, a sorted row for each run, and `results/filters/<id>.npz`, its small arrays.

A row is written after its arrays, and the whole file is replaced at once under a lock: a kill at any moment leaves the
store as it was before or after, and two processes may write to it at the same time.

Its locks are the kernel's (flock), which end with the process that holds them; on NFS, Linux turns them into locks that the
server keeps for all clients (not where it is mounted with nolock or local_lock). Where there are none, nothing is written.
"""

import csv
import errno
import io
import math
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
from filelock import Timeout

from .check import one_line
from .data import open_npz, save_npz
from .files import lock, partial, replacing
from .run import COLUMNS, ID, OPTIONAL, results_folder, run_id

ROOM = 1 << 20  # bytes that the disk must take before a run is trained


class ResultsError(ValueError):
    """A store that is damaged, cannot be written, or was written by another version of `lc`."""


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
    try:
        file = open(path, newline="", encoding="utf-8")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror}); name a folder that holds results, or none yet") from None
    rows = {}
    with file as f:
        lines = csv.reader(f, strict=True)
        try:
            header = next(lines, [])
            for what, names in (("unknown", [c for c in header if c not in COLUMNS]),
                                ("missing", [c for c in COLUMNS if c not in {*header, *OPTIONAL}])):
                if names:
                    raise ResultsError(f"{path}, line 1: {what} column {names[0][:40]!r}; another version of lc wrote this file: "
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
        ResultsError: if the store is damaged or cannot be written; its rows are left as they are.
    """
    folder = Path(folder or results_folder())
    with _writing(folder):
        rows = read(folder)
        save_npz(arrays_path(result.id, folder), **result.arrays)
        rows[result.id] = result.row()
        _write(rows, folder)
        kept = checkpoint_path(result.id, folder)
        for path in (kept, partial(kept)):
            path.unlink(missing_ok=True)


def load_arrays(run_id, folder=None):
    """The arrays of a run as `filters.summarize` made them: `{name: array}`.

    Raises:
        ResultsError: if the run has none or they are damaged.
    """
    path = arrays_path(run_id, folder)
    try:
        with open_npz(path) as f:
            return {name: f[name] for name in f.files}
    except Exception as error:  # a damaged archive raises whatever zipfile, zlib or numpy come upon
        raise ResultsError(f"{path}: no readable arrays of {run_id} ({one_line(error)}); train the run again") from None


def arrays_path(run_id, folder=None):
    return _path(folder, "filters", run_id, ".npz")


def checkpoint_path(run_id, folder=None):
    """Where a run that is being trained for this store keeps its checkpoint."""
    return _path(folder, ".checkpoints", run_id, ".pt")


def _path(folder, kind, run_id, suffix):
    """Of a file of a run, never outside of the store."""
    if not ID.fullmatch(str(run_id)):
        raise ResultsError(f"{run_id!r} is not the id of a run, such as cifar10/ResNet-20-16/frozen/paper/seed0")
    return Path(folder or results_folder()) / kind / f"{run_id}{suffix}"


def merge(source, folder=None, replace=False):
    """Take over the runs of another store.

    Args:
        source: the other store's folder.
        replace: for a run in both stores, take the other's; by default this store's stays.

    Returns:
        Two lists of ids: taken over, and in both with different values.

    Raises:
        ResultsError: if either store is damaged, the other has no rows, both are one, or this one cannot be written; its rows
            are left as they are.
    """
    folder, source = Path(folder or results_folder()), Path(source)
    if source.resolve() == folder.resolve():
        raise ResultsError(f"{source} is the store to merge into: name another one")
    theirs = read(source)
    if not theirs:
        raise ResultsError(f"{source} has no runs.csv with rows to merge")
    with _writing(folder):
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
    """Whether this process is now the only one to train a run, for as long as the context lasts.

    Raises:
        ResultsError: if the store cannot be written.
    """
    folder = Path(folder or results_folder())
    claimed = lock(folder / ".claims" / f"{run_id.replace('/', '-')}.lock", timeout=0)
    try:
        with _disk(folder):
            Path(claimed.lock_file).parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder, suffix=".partial") as f:  # before hours of training, not after
                f.write(bytes(ROOM))
            claimed.acquire()
    except Timeout:
        yield False
        return
    try:
        yield True
    finally:
        claimed.release()


@contextmanager
def _writing(folder):
    """The lock of the store, which is made if it is not there."""
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / "runs.csv.lock"):
            yield


@contextmanager
def _disk(folder):
    """What the disk does not do becomes a `ResultsError` that names the store."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        no_locks = error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
        reason = "its file system has no locks" if no_locks else error.strerror or error
        raise ResultsError(f"{folder} cannot be written: {reason}; the rows in it are as they were") from None


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
    if not ID.fullmatch(expected):
        raise ResultsError(f"{where}: {expected!r} is not the id of a run; repair or delete the line")
    return {column: row.get(column, math.nan) for column in COLUMNS}

"""The results folder: `runs.csv`, a row for each run, and `filters/<id>.npz`, its small arrays.

Arrays are written before their row, and files are replaced as a whole under a lock of the kernel
(flock): a kill leaves the rows as they were before or after, and processes may write at once. A
kill while a run is recorded a second time may leave its old row beside its new arrays. Rows of the
`smoke` profile only show that everything runs, and by default go to `build/results`.
"""

import csv
import errno
import os
import tempfile
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import Timeout

from .run import COLUMNS, ID, OPTIONAL, run_id
from .utils.check import one_line
from .utils.files import (ROOT, check_replaceable, lock, open_npz, replacing, results_folder,
                          save_npz, unfinished)

SCRATCH = ROOT / "build" / "results"
ROOM = 1 << 20  # bytes for which the disk must have room
CONFLICT = "<<<<<<<", "=======", ">>>>>>>"  # what git writes between the rows of two sides
READ = {bool: {"True": True, "False": False}.__getitem__, int: int, str: str,
        float: lambda text: float(text or "nan")}
FORMER = "energy"  # a column that files of earlier versions have


class ResultsError(ValueError):
    """The results are damaged, cannot be written, or were written by another version of `lc`."""


def load_table(folder=None):
    """All rows as a pandas DataFrame, sorted by id, those of `build/results` last.

    Args:
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project, and
            `build/results` with its rows of the `smoke` profile.

    Raises ResultsError if the file is damaged or of another version, naming the line.
    """
    return pd.DataFrame(load_rows(folder).values(), columns=list(COLUMNS))


def load_rows(folder=None):
    """All rows as `{id: {column: value}}`, none if there is no file. Raises as `load_table`."""
    if folder is None and not os.environ.get("LC_RESULTS_DIR"):
        return load_rows(results_folder()) | load_rows(SCRATCH)
    path = results_folder(folder) / "runs.csv"
    try:
        file = path.stat()
        return dict(_read(path, (file.st_ino, file.st_mtime_ns, file.st_size)))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ResultsError(f"{path} cannot be read ({error.strerror}); name a folder that holds "
                           "results, or none yet") from None


@lru_cache(maxsize=4)
def _read(path, version):
    """The rows of one version of the file, which is read once."""
    header, rows = None, {}
    with path.open(newline="", encoding="utf-8-sig") as file:  # a spreadsheet may put a mark first
        lines = csv.reader(file, strict=True)
        try:
            for fields in lines:
                if "".join(fields[:1]).startswith(CONFLICT):
                    raise ValueError("a merge conflict: keep both sides without the markers")
                if header is None:
                    header = _checked(fields)
                    continue
                row = _row(header, fields)
                if row["id"] in rows:
                    raise ValueError(f"a second row for {row['id']}")
                rows[row["id"]] = row
            if header is None:
                raise ValueError("the file is empty")
        except (ValueError, csv.Error) as error:  # also of text that is not UTF-8
            raise ResultsError(
                f"{path}, line {lines.line_num}: {one_line(error)}; repair or delete the line, or "
                "restore the file if a spreadsheet or another version of lc saved it") from None
    return rows


def _checked(header):
    for i, name in enumerate(header):
        if name not in {*COLUMNS, FORMER} or name in header[:i]:
            raise ValueError(f"unknown column {name[:40]!r}")
    for name in COLUMNS:
        if name not in {*header, *OPTIONAL}:
            raise ValueError(f"missing column {name!r}")
    return header


def _row(header, fields):
    if len(fields) != len(header):
        raise ValueError(f"{len(fields)} fields, not {len(header)}")
    texts, row = dict(zip(header, fields)), {}
    for name, kind in COLUMNS.items():
        try:
            row[name] = READ[kind](texts.get(name, ""))
        except (ValueError, KeyError):
            raise ValueError(f"{name} cannot be {texts[name]!r}") from None
    expected = run_id(*(row[name] for name in ("dataset", "model", "frozen", "profile", "seed")))
    if row["id"] != expected or not ID.fullmatch(expected):
        raise ValueError(f"the id {row['id']!r} does not fit the row")
    return row


def append(result, folder=None):
    """Records a `Result` in place of an earlier one of the same id, and deletes its checkpoint.

    Raises ResultsError, the rows unchanged, if they are damaged or cannot be written.
    """
    folder = folder_of(result.id, folder)
    with _writing(folder):
        rows = load_rows(folder) | {result.id: result.row()}
        save_npz(arrays_path(result.id, folder), **result.arrays)
        _write(rows, folder)
        kept = checkpoint_path(result.id, folder)
        for path in (kept, unfinished(kept)):
            path.unlink(missing_ok=True)


def load_arrays(run_id, folder=None):
    """The arrays of a run, `{name: array}`: of `filters.summarize`, and its answers to the test.

    Raises ResultsError if there are none or they are damaged.
    """
    path = arrays_path(run_id, folder)
    try:
        with open_npz(path) as f:
            arrays = {name: f[name] for name in f.files}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise ResultsError(f"{path}: no readable arrays ({one_line(error)}); train the run "
                           "again") from None
    return {name: array.astype(np.float32) if array.dtype == np.float16 else array
            for name, array in arrays.items()}


def arrays_path(run_id, folder=None):
    return _path(folder, "filters", run_id, ".npz")


def checkpoint_path(run_id, folder=None):
    """The checkpoint file of a run that is being trained for this results folder."""
    return _path(folder, ".checkpoints", run_id, ".pt")


def _path(folder, kind, run_id, suffix):
    """The path of a run's file, which is never outside of the folder."""
    if not ID.fullmatch(str(run_id)):
        raise ResultsError(f"{run_id!r} is not the id of a run, such as "
                           "cifar10/ResNet-20-16/frozen/paper/seed0")
    return folder_of(run_id, folder) / kind / f"{run_id}{suffix}"


def folder_of(run_id, folder):
    """The folder of a run: `folder`, else $LC_RESULTS_DIR, else one of the project."""
    chosen = results_folder(folder)  # raises where there is no project
    named = folder or os.environ.get("LC_RESULTS_DIR")
    return chosen if named or "/smoke" not in run_id else SCRATCH


def merge(source, folder=None, replace=False):
    """Takes over the runs of another results folder, `source`, each into its `folder_of`.

    Args:
        replace: for a run that both have, take the other's row. By default this folder's stays.

    Returns:
        Two lists of ids: those taken over, and those that both have with different values.

    Raises ResultsError, the rows unchanged, if either folder is damaged, `source` has no rows or is
    this folder, or this one cannot be written.
    """
    source = results_folder(source)
    theirs = load_rows(source)
    if not theirs:
        raise ResultsError(f"{source} has no runs.csv with rows to merge")
    taken, differing, parts = [], [], {}
    for run_id in theirs:
        parts.setdefault(folder_of(run_id, folder), []).append(run_id)
    if source.resolve() in {each.resolve() for each in parts}:
        raise ResultsError(f"{source} is the results folder to merge into: name another one")
    for into, ids in parts.items():
        for run_id in ids if replace else {*ids} - load_rows(into).keys():
            load_arrays(run_id, source)  # they must be whole
    for into, ids in parts.items():
        with _writing(into):
            rows = load_rows(into)
            other = [i for i in ids if i in rows and repr(rows[i]) != repr(theirs[i])]
            new = [i for i in ids if i not in rows] + (other if replace else [])
            for run_id in new:
                with replacing(arrays_path(run_id, into)) as f:
                    f.write(arrays_path(run_id, source).read_bytes())
            _write(rows | {run_id: theirs[run_id] for run_id in new}, into)
        taken, differing = taken + new, differing + other
    return taken, differing


def check_writable(folder):
    """Raises ResultsError if a results folder cannot be written: now, not after hours of work."""
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder, suffix=".partial") as f:
            f.write(bytes(ROOM))


@contextmanager
def claim(run_id, folder=None):
    """Yields whether this process alone may train a run, for as long as the context lasts.

    Raises ResultsError if the results cannot be written.
    """
    folder = folder_of(run_id, folder)
    claimed = lock(folder / ".claims" / f"{run_id.replace('/', '-')}.lock", timeout=0)
    check_writable(folder)
    try:
        with _disk(folder):
            Path(claimed.lock_file).parent.mkdir(exist_ok=True)
            for path in (folder / "runs.csv", folder / "filters" / f"{run_id}.npz"):
                check_replaceable(path)
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
    """Holds the lock of the results folder, which is made if it is not there."""
    with _disk(folder):
        folder.mkdir(parents=True, exist_ok=True)
        with lock(folder / "runs.csv.lock"):
            yield


@contextmanager
def _disk(folder):
    """Turns an error of the disk into a `ResultsError` that names the folder or file."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        path, reason = folder, error.strerror or error
        if error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
            reason = "its file system has no locks"
        if error.errno in (errno.EACCES, errno.EISDIR, errno.EINVAL, errno.EMLINK):
            path = Path(error.filename or folder)  # others are the whole disk's
            while not os.path.lexists(path):  # nor below a folder that one may not enter
                path = path.parent
        if error.errno == errno.EACCES and path.lstat().st_uid != os.geteuid():
            reason += ("; another user made it: set LC_RESULTS_DIR to a folder of your own, or let "
                       "each user of this one set umask 002 and run chmod -R g+w on their files")
        raise ResultsError(f"{path} cannot be written: {reason}; the rows are as they "
                           "were") from None


def _write(rows, folder):
    """Replaces `runs.csv` by these rows, sorted by id."""
    table = pd.DataFrame([rows[each] for each in sorted(rows)], columns=list(COLUMNS))
    with replacing(folder / "runs.csv") as f:
        table.to_csv(f, index=False, float_format="%.6g", lineterminator="\n")

"""The results folder: `runs.csv`, a row for each run, and `filters/<id>.npz`, its small arrays.

A run's arrays are written before its row, and files are replaced as a whole under a lock of the
kernel (flock). A kill at any moment leaves the folder as it was before or after, and two processes
may write to it at once. Rows of the `smoke` profile only show that everything runs, so by default
they go to `build/results`.
"""

import errno
import io
import os
import re
import tempfile
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from filelock import Timeout

from .filters import drawn
from .run import COLUMNS, ID, OPTIONAL, run_id
from .utils.check import one_line
from .utils.files import (ROOT, check_replaceable, lock, open_npz, replacing, results_folder,
                          save_npz, unfinished)

SCRATCH = ROOT / "build" / "results"
ROOM = 1 << 20  # bytes that the disk must take before a run is trained
CONFLICT = b"<<<<<<<", b"=======", b">>>>>>>"  # what git writes between the rows of two sides
# What a column's text must match, and how it is read
TEXTS = {
    bool: ("True|False", "True".__eq__),
    int: (r"\d+", int),
    float: (r"((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf|nan)?", lambda text: float(text or "nan")),
    str: (".*", str),
}
SPREADSHEET = ("a spreadsheet saved it; restore the file, or save it as UTF-8 with commas between "
               "the fields, decimal points, and True or False")
FORMER = ["energy"]  # columns that files of earlier versions have


class ResultsError(ValueError):
    """The results are damaged, cannot be written, or were written by another version of `lc`."""


def load_table(folder=None):
    """All rows as a pandas DataFrame, sorted by id.

    Args:
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.

    Raises:
        ResultsError: if the file is damaged or of another version, naming the line.
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
    content = path.read_bytes()
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise ResultsError(f"{path} is in UTF-16: {SPREADSHEET}")
    if other := re.match(rb'(\xef\xbb\xbf)?"?id"?(;|\t)', content):
        separator = "semicolons" if other[2] == b";" else "tabs"
        raise ResultsError(f"{path} has {separator} between its fields: {SPREADSHEET}")
    for number, line in enumerate(content.splitlines(), 1):
        if line.startswith(CONFLICT):
            raise ResultsError(f"{path}, line {number}: a merge conflict; keep the rows of both "
                               "sides and delete the markers")
    try:
        # The engine "c" would fill up a line that was cut off. Some spreadsheets put a byte order
        # mark at the start.
        cells = pd.read_csv(io.BytesIO(content), header=None, dtype=str, keep_default_na=False,
                            skip_blank_lines=False, encoding="utf-8-sig", engine="python")
    except pd.errors.EmptyDataError:
        raise ResultsError(f"{path} is empty; restore it, or delete it to start without "
                           "rows") from None
    except ValueError as error:  # not UTF-8, an open quote, or too many fields
        raise ResultsError(f"{path}: {one_line(error)}; repair or delete the line") from None
    header = cells.iloc[0].tolist()
    _check_columns(header, path)
    table = cells[1:].set_axis(header, axis=1)

    def refuse(wrong, what, column="id"):
        """Raises ResultsError for the first line that is wrong, with its value in a column."""
        if wrong.any():
            line = wrong.idxmax()
            raise ResultsError(f"{path}, line {line + 1}: {what.format(table.loc[line, column])}; "
                               "repair or delete the line")

    refuse(table.isna().any(axis=1), f"fewer than {len(header)} fields")
    parsed = pd.DataFrame(index=table.index)
    for name, kind in COLUMNS.items():
        pattern, parse = TEXTS[kind]
        texts = table[name] if name in table else pd.Series("", table.index)
        if kind is bool and texts.isin(["TRUE", "FALSE"]).any():
            raise ResultsError(f"{path}: {name} is TRUE or FALSE, not True or False: {SPREADSHEET}")
        refuse(~texts.str.fullmatch(pattern), f"{name} cannot be {{!r}}", name)
        parsed[name] = texts.map(parse)
    identity = parsed[["dataset", "model", "frozen", "profile", "seed"]]
    expected = [run_id(*row) for row in identity.itertuples(index=False)]
    refuse(table["id"] != expected, "the id {!r} does not fit the row")
    refuse(~table["id"].str.fullmatch(ID), "{!r} is not the id of a run")
    refuse(table["id"].duplicated(), "a second row for {}")
    return {row["id"]: row for row in parsed.to_dict("records")}


def _check_columns(header, path):
    """Raises ResultsError if the columns are not those of this version, or of an earlier one."""
    known = {*COLUMNS, *FORMER}
    unknown = [name for i, name in enumerate(header) if name not in known or name in header[:i]]
    missing = [name for name in COLUMNS if name not in {*header, *OPTIONAL}]
    if unknown or missing:
        kind, name = ("unknown", unknown[0][:40]) if unknown else ("missing", missing[0])
        raise ResultsError(f"{path}, line 1: {kind} column {name!r}; another version of lc wrote "
                           "this file: use that version, or move the file away")


def append(result, folder=None):
    """Records a `Result`: its arrays, then its row, in place of an earlier one of the same id.

    Its checkpoint is deleted.

    Raises:
        ResultsError: if the results are damaged or cannot be written. The rows are then unchanged.
    """
    folder = folder_of(result.id, folder)
    with _writing(folder):
        rows = load_rows(folder)
        save_npz(arrays_path(result.id, folder), **result.arrays)
        rows[result.id] = result.row()
        _write(rows, folder)
        kept = checkpoint_path(result.id, folder)
        for path in (kept, unfinished(kept)):
            path.unlink(missing_ok=True)


def load_arrays(run_id, folder=None):
    """The arrays of a run, `{name: array}`: of `filters.summarize`, and its answers to the test.

    Raises:
        ResultsError: if the run has no arrays or they are damaged.
    """
    path = arrays_path(run_id, folder)
    try:
        with open_npz(path) as f:
            arrays = {name: f[name] for name in f.files}
    except Exception as error:  # zipfile, zlib and numpy raise many kinds
        raise ResultsError(f"{path}: no readable arrays of {run_id} ({one_line(error)}); train the "
                           "run again") from None
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
    chosen = results_folder(folder)
    by_default = not folder and not os.environ.get("LC_RESULTS_DIR")
    return SCRATCH if by_default and "/smoke" in run_id else chosen


def merge(source, folder=None, replace=False):
    """Takes over the runs of another results folder.

    Args:
        source: the other folder.
        replace: for a run that both have, take the other's row. By default this folder's stays.

    Returns:
        Two lists of ids: those taken over, and those that both have with different values.

    Raises:
        ResultsError: if either folder is damaged, the other has no rows, both are the same, or this
            one cannot be written. Its rows are then unchanged.
    """
    folder, source = results_folder(folder), results_folder(source)
    if source.resolve() == folder.resolve():
        raise ResultsError(f"{source} is the results folder to merge into: name another one")
    theirs = load_rows(source)
    if not theirs:
        raise ResultsError(f"{source} has no runs.csv with rows to merge")
    with _writing(folder):
        rows = load_rows(folder)
        differing = [i for i in theirs if i in rows and repr(rows[i]) != repr(theirs[i])]
        taken = [i for i in theirs if i not in rows] + (differing if replace else [])
        for each in taken:
            save_npz(arrays_path(each, folder), **drawn(load_arrays(each, source)))
            rows[each] = theirs[each]
        _write(rows, folder)
    return taken, differing


@contextmanager
def claim(run_id, folder=None):
    """Yields whether this process alone may train a run, for as long as the context lasts.

    Raises:
        ResultsError: if the results cannot be written.
    """
    folder = folder_of(run_id, folder)
    claimed = lock(folder / ".claims" / f"{run_id.replace('/', '-')}.lock", timeout=0)
    try:
        with _disk(folder):
            Path(claimed.lock_file).parent.mkdir(parents=True, exist_ok=True)
            # better before hours of training than after
            with tempfile.TemporaryFile(dir=folder, suffix=".partial") as f:
                f.write(bytes(ROOM))
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
    """Turns an error of the disk into a `ResultsError` that names the folder, or the file in it."""
    try:
        yield
    except Timeout:
        raise
    except OSError as error:
        no_locks = error.errno in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP)
        reason = "its file system has no locks" if no_locks else error.strerror or error
        where, rows = error.filename, folder
        if error.errno not in (errno.EACCES, errno.EISDIR, errno.EINVAL, errno.EMLINK) or not where:
            where = folder  # the whole disk's error
        while not os.path.lexists(where) and where != os.path.dirname(where):
            where = os.path.dirname(where)  # what cannot be made in a folder is the folder's error
        if os.path.realpath(where) == os.path.realpath(folder):
            where, rows = folder, "it"
        if error.errno == errno.EACCES and os.stat(where).st_uid != os.geteuid():
            reason += ("; another user made it: set LC_RESULTS_DIR to a folder of your own, or, "
                       "where a group shares this one, each sets umask 002 and runs chmod -R g+w "
                       "on what they made before")
        raise ResultsError(f"{where} cannot be written: {reason}; the rows in {rows} are as they "
                           "were") from None


def _write(rows, folder):
    """Replaces `runs.csv` by these rows, sorted by id."""
    table = pd.DataFrame([rows[each] for each in sorted(rows)], columns=list(COLUMNS))
    with replacing(folder / "runs.csv") as f:
        table.to_csv(f, index=False, float_format="%.6g", lineterminator="\n")

"""Where the project keeps its files, how a file is replaced as a whole, and locks that end with their process."""

import inspect
import os
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from filelock import FileLock

ROOT = Path(__file__).resolve().parent.parent.parent

# filelock 3.30 and later would fall back to a lock file, which outlives a process that is killed.
_KERNEL_LOCK_ONLY = {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters else {}


def is_project():
    """Whether `lc` lies in its project's folder, and not where an installation copied it to."""
    about = ROOT / "pyproject.toml"
    return about.is_file() and 'name = "lc-companion"' in about.read_text(encoding="utf-8")


def results_folder():
    """The folder of the results: $LC_RESULTS_DIR, else `results` of this project."""
    return Path(os.environ.get("LC_RESULTS_DIR") or ROOT / "results")


def lock(path, timeout=-1):
    """A lock of the kernel (flock). It ends with the process that holds it."""
    return FileLock(path, timeout, **_KERNEL_LOCK_ONLY)


@contextmanager
def replacing(path):
    """Yields a binary file that replaces `path` at the end. After an error, `path` is unchanged.

    Only one process at a time may write to a path. A process that is killed leaves `unfinished(path)`, which the next
    writer overwrites.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(unfinished(path), "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(unfinished(path), path)
    except BaseException as error:
        unfinished(path).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # the error of a full disk names no file
            error.filename = str(path)
        raise


def unfinished(path):
    """The file that is written before it replaces `path`."""
    return path.with_name(path.name + ".partial")


def save_npz(path, **arrays):
    """Writes a `.npz` file as a whole."""
    with replacing(path) as f:
        np.savez_compressed(f, **arrays)


def open_npz(path):
    """Opens a `.npz` file. `np.load` would open other files too and advise pickle for them."""
    return np.lib.npyio.NpzFile(os.fspath(path), allow_pickle=False)

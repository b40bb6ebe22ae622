"""Files that are whole or not there, and locks that end with their process."""

import inspect
import os
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

# filelock below 3.30 does not have the choice
_NO_SOFT_LOCK = {"fallback_to_soft": False} if "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters else {}


def lock(path, timeout=-1):
    """A lock of the kernel: a lock file that stands for one where there is none would outlive a process that is killed."""
    return FileLock(path, timeout, **_NO_SOFT_LOCK)


@contextmanager
def replacing(path):
    """A binary file to write, which takes the place of `path` at the end; after an error `path` is what it was.

    One writer of a path at a time. What a killed one left half-written lies in `partial(path)` until the next.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial(path), "wb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        os.replace(partial(path), path)
    except BaseException as error:
        partial(path).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # a full disk does not say whose
            error.filename = str(path)
        raise


def partial(path):
    """What is written in the place of `path` until it is whole."""
    return path.with_name(path.name + ".partial")

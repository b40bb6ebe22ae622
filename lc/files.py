"""Files that are whole or not there."""

import os
from contextlib import contextmanager
from pathlib import Path


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

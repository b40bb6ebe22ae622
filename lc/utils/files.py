"""Where files lie, how a file is replaced as a whole, and locks that end with their process."""

import errno
import inspect
import os
import shutil
import stat
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock

ROOT = Path(__file__).resolve().parents[2]


def is_project():
    """Whether `lc` lies in its project's folder, and not where an installation copied it to."""
    about = ROOT / "pyproject.toml"
    return about.is_file() and 'name = "lc-companion"' in about.read_text(encoding="utf-8")


def no_project(or_else=""):
    """What to do where there is no project folder, as text for an error."""
    return (f"{ROOT} is no folder of the project, but where lc was installed: clone the project "
            f"and install it with `pip install -e .`{or_else}")


def expanded(path):
    """A path with the user's home folder for `~`. Raises ValueError if that is not known."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise ValueError(f"{path}: the home folder is not known; write the path without "
                         "~") from None


def results_folder(folder=None):
    """The folder of the results: `folder`, else $LC_RESULTS_DIR, else `results` of this project.

    Raises ValueError if `lc` would need its project folder, and does not lie there.
    """
    if chosen := folder or os.environ.get("LC_RESULTS_DIR"):
        return expanded(chosen)
    if not is_project():
        raise ValueError(no_project(", or set LC_RESULTS_DIR to a folder for results of your own"))
    return ROOT / "results"


def figures_folder():
    """The folder of the figures: $LC_FIGURES_DIR, else `build/figures` of this project.

    Where there is no project, it lies in the results folder or where one works.
    """
    if chosen := os.environ.get("LC_FIGURES_DIR"):
        return expanded(chosen)
    folder = ROOT if is_project() else expanded(os.environ.get("LC_RESULTS_DIR") or ".")
    return folder / "build" / "figures"


def lock(path, timeout=-1):
    """A lock of the kernel (flock). It ends with the process that holds it."""
    # filelock 3.30 and later would fall back to a lock file, which outlives a killed process
    falls_back = "fallback_to_soft" in inspect.signature(FileLock.__init__).parameters
    return FileLock(path, timeout, **({"fallback_to_soft": False} if falls_back else {}))


@contextmanager
def replacing(path):
    """Yields a binary file that replaces `path` at the end. After an error, `path` is unchanged.

    A link stays a link: its file is replaced, whose mode, group, access list and, as far as this
    user may, owner stay. Only one process at a time may write to a path. One that is killed leaves
    `unfinished(path)`, which the next writer replaces.

    Raises OSError as `check_replaceable`, or if the disk is full or not writable.
    """
    path = Path(os.path.realpath(expanded(path)))
    path.parent.mkdir(parents=True, exist_ok=True)
    check_replaceable(path)
    try:
        unfinished(path).unlink(missing_ok=True)  # it may be another user's
        with open(unfinished(path), "xb") as f:
            yield f
            f.flush()
            os.fsync(f.fileno())
        if path.exists():
            _keep_attributes(path, unfinished(path))
        os.replace(unfinished(path), path)
    except BaseException as error:
        unfinished(path).unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:  # as of a full disk
            error.filename = str(path)
        raise


def check_replaceable(path):
    """Raises OSError if a path's file must not be replaced, or not as a whole."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return
    if stat.S_ISDIR(there.st_mode):
        number, why = errno.EISDIR, os.strerror(errno.EISDIR)
    elif not stat.S_ISREG(there.st_mode):
        number, why = errno.EINVAL, "it is no regular file"
    elif not there.st_mode & 0o222 or not os.access(path, os.W_OK):  # root may write all files
        number, why = errno.EACCES, os.strerror(errno.EACCES)
    elif there.st_nlink > 1:
        number, why = errno.EMLINK, ("it has other names (hard links), which would keep the old "
                                     "content; copy it to a file of its own")
    else:
        return
    raise OSError(number, why, str(path))


def _keep_attributes(old, new):
    there = os.stat(old)
    try:
        os.chown(new, there.st_uid, there.st_gid)
    except PermissionError:
        with suppress(PermissionError):
            os.chown(new, -1, there.st_gid)
    shutil.copystat(old, new)
    os.utime(new)  # it was written now


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

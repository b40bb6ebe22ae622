"""Executes notebooks with papermill, and makes a page of each with nbconvert."""

import traceback
from concurrent.futures import ThreadPoolExecutor

import nbconvert
import papermill
from tqdm.auto import tqdm

from ..study import where
from ..utils.check import one_line
from ..utils.files import ROOT, check_replaceable, expanded, no_project

NOTEBOOKS = ROOT / "notebooks"
COMMON = {"profile", "train", "data_dir", "device"}  # parameters of all that read results


def chosen(names, parameters):
    """The notebooks whose names begin so, or all: `{path: those of the parameters that it has}`.

    A name may also be the path of a notebook.

    Raises ValueError if a name or a parameter is unknown.
    """
    if not NOTEBOOKS.is_dir():
        raise ValueError(no_project())
    paths = sorted(NOTEBOOKS.glob("*.ipynb"))
    names = [_stem(name) for name in names]
    for name in names:
        if not any(path.stem.startswith(name) for path in paths):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(p.stem for p in paths)}")
    notebooks = {}
    for path in [p for p in paths if not names or p.stem.startswith(tuple(names))]:
        known = papermill.inspect_notebook(path)
        for name in parameters.keys() - known.keys() - COMMON:
            raise ValueError(f"{path.stem} has no parameter {name!r}; known: {', '.join(known)}")
        notebooks[path] = {name: value for name, value in parameters.items() if name in known}
    return notebooks


def _stem(name):
    """A name as it is, or that of the notebook with this path. Raises ValueError for another."""
    path = expanded(name)
    if path.suffix != ".ipynb":
        return name
    if path.name != name and path.resolve().parent != NOTEBOOKS.resolve():
        raise ValueError(f"{name} is no notebook of {NOTEBOOKS}: only these can be named")
    return path.stem


def execute(notebooks, out, at_once):
    """Executes them into `out/<name>.ipynb`, `.html` and `.log`: `{name: its error or None}`."""
    with ThreadPoolExecutor(at_once) as pool:
        ends, errors = pool.map(lambda each: _execute_one(*each, out), notebooks.items()), {}
        for path, error in tqdm(zip(notebooks, ends), total=len(notebooks), leave=False,
                                disable=None, mininterval=0, miniters=1):
            errors[path.stem] = error
            tqdm.write(f"{path.stem}: {error or 'done'}")
    return errors


def _execute_one(path, parameters, out):
    target, page = out / path.name, out / f"{path.stem}.html"
    with open(target.with_suffix(".log"), "w", encoding="utf-8") as log:
        try:
            for old in (target, page):
                check_replaceable(old)
                old.unlink(missing_ok=True)
            try:  # the log level is the kernel's: it prints an error if it is shut down while busy
                papermill.execute_notebook(
                    path, target, parameters, kernel_name="python3", language="python",
                    progress_bar=False, stdout_file=log, stderr_file=log,
                    extra_arguments=["--log-level=CRITICAL"])
            finally:
                if target.exists():
                    page.write_text(nbconvert.HTMLExporter().from_filename(str(target))[0], "utf-8")
        except Exception as error:  # such as an error of a cell, a dead kernel or a full disk
            traceback.print_exc(file=log)
            return one_line(f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else error)
        finally:
            print(where(parameters.get("profile", "paper")), file=log)

"""Executes notebooks with papermill, and makes a page of each with nbconvert."""

import json
import traceback
from concurrent.futures import ThreadPoolExecutor

import nbconvert
import papermill
from tqdm.auto import tqdm

from .. import study, sweep
from ..data import DataUnavailable
from ..training import Stopped, TrainingError
from ..utils.check import one_line
from ..utils.files import ROOT, check_replaceable, no_project
from ..utils.signals import stop_on_signals

NOTEBOOKS = ROOT / "notebooks"
COMMON = {"profile", "train", "data_dir", "device"}  # parameters of all that read results


def chosen(names, parameters):
    """The notebooks whose names begin so, or all. ValueError for an unknown name or parameter."""
    if not NOTEBOOKS.is_dir():
        raise ValueError(no_project())
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        if not any(path.stem.startswith(name) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(p.stem for p in notebooks)}")
    paths = [p for p in notebooks if not names or p.stem.startswith(tuple(names))]
    for path in paths:
        known = papermill.inspect_notebook(path)
        for name in parameters.keys() - known.keys() - COMMON:
            raise ValueError(f"{path.stem} has no parameter {name!r}; known: {', '.join(known)}")
    return paths


def train_before(paths, parameters, workers):
    """Trains the experiments of notebooks with all workers: `{"training": None or the error}`."""
    metadata = [json.loads(path.read_text("utf-8"))["metadata"].get("lc", {}) for path in paths]
    shown = {name for each in metadata for name in each.get("experiments", [])}
    names = [name for name in study.EXPERIMENTS if name in shown or "everything" in shown]
    if not names:
        return {}
    error = None
    with stop_on_signals() as stop:
        try:
            sweep.sweep(names, parameters["profile"], workers=workers, stop=stop,
                        data_dir=parameters.get("data_dir"), device=parameters["device"])
        except (TrainingError, DataUnavailable) as failure:  # other notebooks may need no such run
            error = str(failure)
            print(f"training: {error}", flush=True)
        if stop():
            raise Stopped
    return {"training": error}


def execute(paths, out, parameters, at_once):
    """Executes notebooks into `out/<name>.ipynb`, `.html`, `.log`: `{name: None or its error}`."""
    with ThreadPoolExecutor(at_once) as pool:
        done, outcome = pool.map(lambda path: _execute_one(path, out, parameters), paths), {}
        for path, error in tqdm(zip(paths, done), total=len(paths), leave=False, disable=None):
            outcome[path.stem] = error
            tqdm.write(f"{path.stem}: {error or 'done'}")
    return outcome


def _execute_one(path, out, parameters):
    target, page = out / path.name, out / f"{path.stem}.html"
    known = papermill.inspect_notebook(path)
    own = {name: value for name, value in parameters.items() if name in known}
    with open(target.with_suffix(".log"), "w", encoding="utf-8") as log:
        try:
            for old in (target, page):
                check_replaceable(old)
                old.unlink(missing_ok=True)
            try:  # the log level is the kernel's: it prints an error if it is shut down while busy
                papermill.execute_notebook(
                    path, target, own, kernel_name="python3", language="python",
                    progress_bar=False, stdout_file=log, stderr_file=log,
                    extra_arguments=["--log-level=CRITICAL"])
            finally:
                if target.exists():
                    page.write_text(nbconvert.HTMLExporter().from_filename(str(target))[0], "utf-8")
        except Exception as error:  # such as an error of a cell, a dead kernel or a full disk
            traceback.print_exc(file=log)
            return one_line(f"{error.ename}: {error.evalue}" if hasattr(error, "ename") else error)
        finally:
            print(study.where(own.get("profile", "paper")), file=log)

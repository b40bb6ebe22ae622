"""Executes notebooks with papermill, and makes an HTML page of each with nbconvert."""

import ast
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import nbconvert
import nbformat
import papermill
from tqdm.auto import tqdm

from ..utils import check
from ..utils.files import ROOT, check_replaceable, expanded, no_project

NOTEBOOKS = ROOT / "notebooks"
COMMON = {"profile", "train", "data_dir", "device"}  # the parameters of all notebooks


def execute(names=(), out=None, workers=None, /, **parameters):
    """Executes notebooks, each into `out/<name>.ipynb`, `.html` and `.log`. It prints a table of the errors at the end.

    If a notebook fails, the others are still executed. Two run at a time if they only read results. With `train`, all GPUs
    first train the experiments that the notebooks' metadata name, and the notebooks then run one at a time. Notebooks that get
    a parameter of their own, such as a list, train by themselves.

    Args:
        names: the beginnings of notebooks' names, such as "03"; all notebooks if there is none.
        out: a folder; by default `build/notebooks` of this project.
        workers: the number of processes that train; by default one for each GPU.
        parameters: values for the notebooks' parameters cells, which check them. A parameter that is None keeps its default.

    Returns:
        `{name: None or its error}`. The training before the notebooks has the name "training".

    Raises:
        ValueError: before anything runs, if a name or parameter is unknown, `out` cannot be made, or
            this is no project folder, which has the notebooks. If they train, also as `lc.sweep.sweep`.
        Stopped: if a signal ended the training.
    """
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if not NOTEBOOKS.is_dir():
        raise ValueError(no_project())
    out = expanded(out) if out else ROOT / "build" / "notebooks"
    if workers is not None:
        check.integer("workers", workers)
    if out.resolve() == NOTEBOOKS.resolve():
        raise ValueError(f"the notebooks in {out} would be overwritten; choose another folder")
    notebooks, experiments = sorted(NOTEBOOKS.glob("*.ipynb")), set()
    for name in names:
        if not any(path.name.startswith(name) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(path.stem for path in notebooks)}")
    paths = [path for path in notebooks if not names or path.name.startswith(tuple(names))]
    for path in paths:
        known = papermill.inspect_notebook(path)
        for name in parameters.keys() - known.keys():
            raise ValueError(f"{path.stem} has no parameter {name!r}; known: {', '.join(known) or 'none'}")
        experiments.update(nbformat.read(path, as_version=4).metadata.get("lc", {}).get("experiments", []))
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"{out} cannot be made ({error.strerror}); choose another folder with --out") from None
    trains = parameters.get("train") is True
    outcome = _train(experiments, parameters, workers) if trains and parameters.keys() <= COMMON else {}
    with ThreadPoolExecutor(1 if trains else 2) as pool:
        done = pool.map(partial(_execute_one, out, parameters), paths)
        for path, result in tqdm(zip(paths, done), total=len(paths), unit="notebook", ncols=110, leave=False, disable=None):
            outcome[path.stem] = result
            tqdm.write(f"{path.stem}: {result[0] or 'done'}")
    width = max(map(len, ["notebook", *outcome]))
    print(f"\n{'notebook':{width}}  state   seconds  error")
    for name, (error, seconds) in outcome.items():
        print(f"{name:{width}}  {'failed' if error else 'done':6}  {seconds:7.1f}  {error or ''}".rstrip())
    print(f"notebooks, pages and logs: {out}", flush=True)
    return {name: error for name, (error, _) in outcome.items()}


def literal(text):
    """The value of a word on the command line: a literal of Python, such as a list, and otherwise the word itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _train(experiments, parameters, workers):
    """Trains what the results lack of the experiments. Returns `{"training": (None or the error, seconds)}`."""
    from ..data import DataUnavailable
    from ..study import EXPERIMENTS
    from ..sweep import sweep
    from ..training import Stopped, TrainingError
    from ..utils.signals import stop_on_signals

    names = [name for name in EXPERIMENTS if name in experiments or "everything" in experiments]
    if not names:
        return {}
    began, failure = time.monotonic(), None
    with stop_on_signals() as stop:
        try:
            sweep(names, parameters.get("profile", "paper"), workers=workers, data_dir=parameters.get("data_dir") or None,
                  device=parameters.get("device", "auto"), stop=stop)
        except (TrainingError, DataUnavailable) as error:  # some notebooks may not need the runs that failed
            failure = check.one_line(error)
        if stop():
            raise Stopped
    return {"training": (failure, time.monotonic() - began)}


def _execute_one(out, parameters, path):
    """Executes a notebook and makes its page. Returns its error or None, and the seconds."""
    began, failure, target = time.monotonic(), None, out / path.name
    with open(target.with_suffix(".log"), "w", encoding="utf-8") as log:
        try:
            for old in (target, target.with_suffix(".html")):
                check_replaceable(old)
                old.unlink(missing_ok=True)
            try:
                # The log level is the kernel's. jupyter_client interrupts a kernel before it shuts it down, and the kernel
                # would print an error if it is still busy with its last message.
                papermill.execute_notebook(path, target, parameters, kernel_name="python3", language="python",
                                           progress_bar=False, stdout_file=log, stderr_file=log,
                                           extra_arguments=["--log-level=CRITICAL"])
            finally:
                if target.exists():
                    page = nbconvert.HTMLExporter().from_filename(str(target))[0]
                    target.with_suffix(".html").write_text(page, encoding="utf-8")
        except Exception as error:  # such as an error of a cell, a dead kernel or a full disk
            traceback.print_exc(file=log)
            failure = f"{error.ename}: {error.evalue}" if isinstance(error, papermill.PapermillExecutionError) else error
    return failure and check.one_line(failure), time.monotonic() - began

"""Executes notebooks with papermill, and makes an HTML page of each with nbconvert."""

import ast
import time
import traceback
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

import nbconvert
import nbformat
import papermill
from tqdm.auto import tqdm

from ..utils import check
from ..utils.files import ROOT

NOTEBOOKS = ROOT / "notebooks"
TYPES = {"bool": {bool}, "int": {int}, "float": {float, int}, "str": {str}}  # what a parameter with this annotation may be


def execute(names=(), out=None, workers=None, /, **parameters):
    """Executes notebooks, each into `out/<name>.ipynb`, `.html` and `.log`. It prints a table of the errors at the end.

    If a notebook fails, the others are still executed. Two run at a time if they only read results. If they train, all GPUs
    first train the experiments that the notebooks' metadata name. The notebooks then run one at a time.

    Args:
        names: the beginnings of notebooks' names, such as "03"; all notebooks if there is none.
        out: a folder; by default `build/notebooks` of this project.
        workers: the number of processes that train; by default one for each GPU.
        parameters: values for the notebooks' parameters cells. A parameter that is None keeps its default.

    Returns:
        `{name: None or its error}`. The training before the notebooks has the name "training".

    Raises:
        ValueError: before anything runs, if a name or parameter is unknown or a value has the wrong type. If the notebooks
            train, also as `lc.sweep.sweep`.
        OSError: before anything runs, if `out` cannot be made.
        Stopped: if a signal ended the training.
    """
    parameters = {name: value for name, value in parameters.items() if value is not None}
    out = Path(out or ROOT / "build" / "notebooks")
    if workers is not None:
        check.integer("workers", workers)
    if out.resolve() == NOTEBOOKS.resolve():
        raise ValueError(f"the notebooks in {out} would be overwritten; choose another folder")
    paths, experiments = _chosen(names), set()
    for path in paths:
        try:
            known = papermill.inspect_notebook(path)
            experiments.update(nbformat.read(path, as_version=4).metadata.get("lc", {}).get("experiments", []))
        except Exception:  # a damaged file can raise anything, and does so again when it is executed
            continue
        _check(path.stem, parameters, known)
    out.mkdir(parents=True, exist_ok=True)
    outcome = _train(experiments, parameters, workers) if parameters.get("train") else {}
    outcome |= _execute_all(paths, out, parameters)
    width = max(map(len, ["notebook", *outcome]))
    print(f"\n{'notebook':{width}}  state   seconds  error")
    for name, (error, seconds) in outcome.items():
        print(f"{name:{width}}  {'failed' if error else 'done':6}  {seconds:7.1f}  {error or ''}".rstrip())
    print(f"notebooks, pages and logs: {out}", flush=True)
    return {name: error for name, (error, _) in outcome.items()}


def literal(text):
    """The value of a word on the command line: a literal of Python, true, false or null, and otherwise the word itself."""
    try:
        return ast.literal_eval({"true": "True", "false": "False", "null": "None"}.get(text, text))
    except (ValueError, SyntaxError):
        return text


def _chosen(names):
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(path.stem for path in notebooks)}")
    return [path for path in notebooks if not names or path.name.startswith(tuple(names))]


def _check(notebook, parameters, known):
    for name, value in parameters.items():
        if name not in known:
            raise ValueError(f"{notebook} has no parameter {name!r}; known: {', '.join(known) or 'none'}")
        wanted = known[name]["inferred_type_name"]
        if wanted in TYPES and type(value) not in TYPES[wanted]:
            raise ValueError(f"parameter {name} of {notebook} must be of type {wanted}, not {value!r}")


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


def _execute_all(paths, out, parameters):
    """Executes the notebooks. Returns `{name: (None or its error, seconds)}`, in the order of the paths."""
    with ThreadPoolExecutor(1 if parameters.get("train") else 2) as pool:
        names = {pool.submit(_execute_one, path, out / path.name, parameters): path.stem for path in paths}
        try:
            for ended in tqdm(as_completed(names), total=len(names), unit="notebook", ncols=110, leave=False, disable=None):
                tqdm.write(f"{names[ended]}: {ended.result()[0] or 'done'}")
        except BaseException:  # after Ctrl-C no other notebook begins
            pool.shutdown(cancel_futures=True)
            raise
    return {name: ended.result() for ended, name in names.items()}


def _execute_one(path, target, parameters):
    """Executes a notebook and makes its page. Returns its error or None, and the seconds."""
    began, failure = time.monotonic(), None
    page = target.with_suffix(".html")
    try:
        for old in (target, page):
            old.unlink(missing_ok=True)
        with open(target.with_suffix(".log"), "w", encoding="utf-8") as log:
            try:
                # The log level is the kernel's. jupyter_client interrupts a kernel before it shuts it down, and the kernel
                # would print an error if it is still busy with its last message.
                papermill.execute_notebook(path, target, parameters, kernel_name="python3", language="python",
                                           progress_bar=False, stdout_file=log, stderr_file=log,
                                           extra_arguments=["--log-level=CRITICAL"])
            except Exception:
                traceback.print_exc(file=log)
                raise
            finally:
                if target.exists():
                    page.write_text(nbconvert.HTMLExporter().from_filename(str(target))[0], encoding="utf-8")
    except papermill.PapermillExecutionError as error:
        failure = f"{error.ename}: {' '.join(error.evalue.split())}"
    except Exception as error:  # such as a dead kernel or a full disk
        failure = check.one_line(error)
    return failure, time.monotonic() - began

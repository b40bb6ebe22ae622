"""Executing notebooks without a person: papermill runs them, nbconvert makes a page of each."""

import ast
import json
import logging
import re
import threading
import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import nbconvert
import nbformat
import papermill
from tqdm import tqdm

from ..utils import check
from ..utils.files import ROOT

NOTEBOOKS = ROOT / "notebooks"


@dataclass
class Job:
    """A notebook to execute, or what kept it from it."""

    name: str
    path: Path | None = None
    collects: tuple = ()  # names of experiments
    target: Path | None = None
    error: str | None = None
    seconds: float = 0.0


def execute(names=(), out=None, pattern="{name}", workers=None, /, **parameters):
    """Execute notebooks, each into `out/<name>.ipynb`, `.html` and `.log`; one that fails does not stop the others.

    Two at a time where they only read: starting one takes longer than drawing its figure. Where they train, the
    experiments that they collect are trained first, on all GPUs, and then one is executed at a time: it trains only what
    a list of its own adds. The kernel is this Python's, whatever a notebook says. A table of what became of each ends it.

    Args:
        names: the beginnings of notebooks' names, such as "03"; all notebooks if there is none.
        out: a folder; by default `build/notebooks` of this project.
        pattern: of the outputs' names, from the notebook's name and its parameters, such as "{name}-{profile}".
        workers: how many processes train; by default one a GPU.
        parameters: of the notebooks' parameters cell; those that are None keep their default.

    Returns:
        `{name: None or the error that stopped it}`; the name of what was trained before is "training".

    Raises:
        ValueError: before anything runs, for a name that no notebook has; for a parameter that one of them does not have,
            or of the wrong type; for a pattern with unknown fields, or by which one output would overwrite another, or a
            notebook, or lie outside of `out`; if training, for whatever `workers.sweep` checks.
        OSError: before anything runs, if `out` cannot be made.
        Stopped: a signal ended the training.
    """
    parameters = {name: value for name, value in parameters.items() if value is not None}
    if workers is not None:
        check.integer("workers", workers)
    out = Path(out or ROOT / "build" / "notebooks")
    jobs = _jobs(_chosen(names), out, pattern, parameters)
    out.mkdir(parents=True, exist_ok=True)
    training = _train(jobs, parameters, workers) if parameters.get("train") else []
    _run([job for job in jobs if not job.error], parameters)
    jobs = training + jobs
    _print_summary(jobs)
    return {job.name: job.error for job in jobs}


def literal(text):
    """The value that a word of a command line stands for: a literal of JSON or Python, else the text itself."""
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, TypeError):
            pass
    return text


def _chosen(names):
    notebooks = sorted(NOTEBOOKS.glob("*.ipynb"))
    for name in names:
        if not any(path.name.startswith(name) for path in notebooks):
            raise ValueError(f"no notebook {name!r}; known: {', '.join(path.stem for path in notebooks)}")
    return [path for path in notebooks if not names or path.name.startswith(tuple(names))]


def _jobs(paths, out, pattern, parameters):
    """A job for each notebook, checked as `execute` says; a file that cannot be read has an error already."""
    jobs = []
    for path in paths:
        job = Job(path.stem, path)
        jobs.append(job)
        try:
            notebook = nbformat.read(path, as_version=4)
            known = _parameters(notebook)
            source = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
        except Exception as error:  # a damaged file raises whatever nbformat and Python's parser come upon
            job.error = f"unreadable: {error}"
            continue
        _check(path.stem, parameters, known)
        job.target = _target(path.stem, out, pattern, {"name": path.stem} | known | parameters | {"name": path.stem})
        job.collects = tuple(re.findall(r"study\.collect\(\s*study\.(\w+)", source))
    taken = {path.resolve(): path.stem for path in NOTEBOOKS.glob("*.ipynb")}
    for job in jobs:
        if job.target and taken.setdefault(job.target.resolve(), job) is not job:
            raise ValueError(f"{job.name} would overwrite another notebook at {job.target}; choose another folder or pattern")
    return jobs


def _parameters(notebook):
    """What the cell tagged `parameters` sets: `{name: value}`, None for what is not a constant."""
    known = {}
    cells = [cell.source for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    for node in ast.parse(cells[0] if cells else "").body:
        if isinstance(node, (ast.Assign, ast.AnnAssign)):
            for target in getattr(node, "targets", None) or [node.target]:
                known[ast.unparse(target)] = node.value.value if isinstance(node.value, ast.Constant) else None
    return known


def _check(name, parameters, known):
    for parameter, value in parameters.items():
        if parameter not in known:
            raise ValueError(f"{name} has no parameter {parameter!r}; known: {', '.join(known) or 'none'}")
        kind = type(known[parameter])
        if kind in (bool, int, float, str) and type(value) is not kind and (kind, type(value)) != (float, int):
            raise ValueError(f"parameter {parameter} of {name} must be of type {kind.__name__}, not {value!r}")


def _target(name, out, pattern, fields):
    try:
        stem = pattern.format(**fields)
    except (LookupError, AttributeError, TypeError, ValueError):
        raise ValueError(f"pattern {pattern!r} gives {name} no name; its fields: {', '.join(fields)}") from None
    target = out / f"{stem}.ipynb"
    if not stem or stem.endswith("/") or not target.resolve().is_relative_to(out.resolve()):
        raise ValueError(f"pattern {pattern!r} gives {name} no name in {out}")
    return target


def _train(jobs, parameters, workers):
    """Train what the notebooks collect; returns a job that tells of it, if there was anything to train."""
    from ..data import DataUnavailable
    from ..utils.signals import stop_on_signals
    from ..study import EXPERIMENTS
    from ..training import Stopped, TrainingError
    from ..sweep.workers import sweep

    collected = {name for job in jobs for name in job.collects}
    experiments = [name for name in EXPERIMENTS if name in collected or "everything" in collected]
    if not experiments:
        return []
    job, start = Job("training"), time.monotonic()
    with stop_on_signals() as stop:
        try:
            sweep(experiments, parameters.get("profile", "paper"), workers=workers, data_dir=parameters.get("data_dir") or None,
                  device=parameters.get("device", "auto"), stop=stop)
        except (TrainingError, DataUnavailable) as error:  # a notebook that needs none of these runs can do without them
            job.error = str(error)
        if stop():
            raise Stopped
    job.seconds = time.monotonic() - start
    return [job]


def _run(jobs, parameters):
    """Execute the notebooks, with the time that is left shown on a terminal."""
    with (tqdm(total=len(jobs), unit="notebook", smoothing=0, ncols=110, leave=False, disable=None) as bar,
          ThreadPoolExecutor(1 if parameters.get("train") else 2) as pool):
        pending = {pool.submit(_run_one, job, parameters): job for job in jobs}
        try:
            while pending:
                for ended in wait(pending, timeout=1, return_when=FIRST_COMPLETED).done:
                    ended.result()
                    job = pending.pop(ended)
                    tqdm.write(f"{job.name}: {_first_line(job.error) or 'done'}")
                    bar.update()
                bar.refresh()
        except BaseException:  # Ctrl-C: those that run end, no other begins
            pool.shutdown(cancel_futures=True)
            raise


def _run_one(job, parameters):
    start, target = time.monotonic(), job.target
    target.parent.mkdir(parents=True, exist_ok=True)
    for suffix in (".ipynb", ".html"):  # of an earlier execution
        target.with_suffix(suffix).unlink(missing_ok=True)
    with _log(target.with_suffix(".log")) as log:
        try:
            try:
                papermill.execute_notebook(job.path, target, parameters, kernel_name="python3", language="python",
                                           progress_bar=False, log_output=True)
            finally:
                if target.exists():
                    page, _ = nbconvert.HTMLExporter().from_filename(str(target))
                    target.with_suffix(".html").write_text(page, encoding="utf-8")
        except papermill.PapermillExecutionError as error:
            job.error = f"{error.ename}: {error.evalue}"
            log.error(error)
        except Exception as error:  # a dead kernel, a full disk, ...
            job.error = str(error) or type(error).__name__
            log.exception(job.error)
    job.seconds = time.monotonic() - start


@contextmanager
def _log(path):
    """Papermill's logger, with what it logs in this thread written to a file: cells, what they print, errors."""
    thread, logger = threading.get_ident(), logging.getLogger("papermill")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    handler = logging.FileHandler(path, mode="w", encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    handler.addFilter(lambda record: record.thread == thread)
    logger.addHandler(handler)
    try:
        yield logger
    finally:
        logger.removeHandler(handler)
        handler.close()


def _first_line(error):
    return (error or "").partition("\n")[0]


def _print_summary(jobs):
    width = max(map(len, ["notebook", *(job.name for job in jobs)]))
    print(f"\n{'notebook':{width}}  state   seconds  output, or error")
    for job in jobs:
        what = _first_line(job.error) or job.target or ""
        print(f"{job.name:{width}}  {'failed' if job.error else 'done':6}  {job.seconds:7.1f}  {what}", flush=True)

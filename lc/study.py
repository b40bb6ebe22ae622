"""How a notebook or a sweep gets the runs of an experiment: read what there is, train the rest."""

import ast
import atexit
import itertools
import math
import os
import sys
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from . import hours, networks, results
from .data import DataError, DataUnavailable, load_data
from .experiments import (GRIDS, decay, figure1a, figure4, figure6a, figure6b, figure8, figure8b,
                          initialisation, precisions, table1, table3, twin)
from .fast.in_turn import in_turn
from .fast.trainer import stepwise
from .imagenet.experiments import figure1b, table2
from .imagenet.run import ImageNetRun
from .names import Architecture
from .run import Stopped, TrainingError, recipe_named
from .utils import check
from .utils.checkpoint import CheckpointError
from .utils.device import resolve_device, resolve_precision
from .utils.files import figures_folder
from .utils.log import kernel

# In the order of training
EXPERIMENTS = {f.__name__: f for f in (
    figure4, table1, figure8, figure6a, figure6b, table3, initialisation, decay, figure8b, twin,
    precisions, figure1a, table2, figure1b)}
TINY = "quick", "smoke"  # profiles that show that everything runs, and a direction at best
COVERED = 3 / 4  # of an experiment's networks: a figure shows a profile with rows of as many
FLAGS = {"true": True, "false": False}  # papermill passes `-p train true` as text


def everything(profile="paper", names=(), seeds=None):
    """The runs of the named experiments, or of all if none is named, each once.

    `seeds` take the place of the profile's. Raises ValueError if a name is unknown.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    runs = (EXPERIMENTS[name](profile, seeds=seeds) for name in names or EXPERIMENTS)
    return list(dict.fromkeys(itertools.chain.from_iterable(runs)))


def check_parameters(profile="paper", train=False, data_dir="", device="auto", **others):
    """Checks a notebook's parameters, also those that papermill injected, before anything runs.

    Under papermill, its log ends with the folders of the figures and of the rows.

    Args:
        others: integers of at least 0, or None. `collect` checks what is for its experiment.

    Raises:
        ValueError: if the profile or the device is unknown, a value has the wrong type, or
            papermill was given a parameter that the notebook does not have.
    """
    check_names(getattr(sys.modules["__main__"], "In", []))
    recipe_named(profile, GRIDS)
    resolve_device(device)
    check.kind("parameter data_dir", data_dir, str, "text")
    if str(train).lower() not in FLAGS:
        raise ValueError(f"parameter train must be true or false, not {train!r}")
    for name, value in others.items():
        if value is not None:
            check.integer(f"parameter {name}", value, 0)
    parent = Path(f"/proc/{os.getppid()}/cmdline")
    if parent.exists() and "papermill" in parent.read_text():
        # from here on, a line would stand in the middle of papermill's bar
        atexit.register(lambda: print(f"\n{where(profile)}", file=sys.__stderr__, flush=True))


def check_names(cells):
    """Raises ValueError if papermill was given a parameter that the notebook does not declare.

    papermill itself only logs it.

    Args:
        cells: the code of the cells that ran. papermill's own follows that of the declarations.
    """
    for declarations, cell in itertools.pairwise(cells):
        if cell.startswith("# Parameters\n"):
            known = _assigned(declarations)
            for name in _assigned(cell):
                if name not in known:
                    raise ValueError(f"this notebook has no parameter {name!r}; known: "
                                     f"{', '.join(known)}")


def _assigned(code):
    """The names to which code assigns."""
    return [node.id for node in ast.walk(ast.parse(code))
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)]


def where(profile="paper"):
    """The folders of the figures and of the rows of a profile, as text."""
    said = f"Figures: {figures_folder()}."
    with suppress(ValueError):  # outside of the project's folder there may be none for rows
        said += f" Rows: {results.folder_of(f'/{profile}', None)}."
    return said


class Rows(NamedTuple):
    """The rows of an experiment that a notebook shows, as DataFrames."""

    curves: pd.DataFrame  # of one profile
    marks: pd.DataFrame  # of longer recipes, which cover too few networks for curves
    others: pd.DataFrame  # of tiny runs, or of other data sets: for tables alone

    @property
    def shown(self):
        """What figures show, the longest recipe first."""
        return _joined([self.marks, self.curves])


def collect(experiment, profile="paper", train=False, data_dir="", device="auto", **lists):
    """The rows of an experiment for a notebook, as `Rows`. It prints in a line which they are.

    The curves are of the largest profile that covers three quarters of the networks, frozen and
    learnable counted apart. Tiny runs are curves only if a reader asked for them, or if there are
    no others: accuracies of longer ones are far higher. Marks are of the curves' data sets.

    Args:
        experiment: such as `figure4`.
        train: whether to train what is missing first.
        lists: the experiment's own arguments, such as `expansions`.

    Raises:
        ValueError: if the profile has no run of the experiment, or the results have no row of it.
            Otherwise as `train_missing`.
    """
    recipe_named(profile, GRIDS)
    train_if(train, experiment(profile, **lists), data_dir, device)
    names = list(GRIDS)
    names = names[:-1] if profile == "paper" else names[:names.index(profile) + 1]
    runs = {name: experiment(name, **lists) for name in names}
    found = {name: found_and_missing(runs[name])[0] for name in names}
    drawn = _largest(runs, found) if profile == "paper" else profile
    curves = found[drawn]
    what = "any experiment" if experiment is everything else experiment.__name__
    if not runs[drawn]:
        raise ValueError(f"profile {profile!r} has no runs of {what}; take another one")
    if curves.empty:
        raise ValueError(f"the results have no run of {what} in profile {profile!r}; set "
                         "train = True")
    others = _joined([found[name] for name in names if name != drawn])
    longer = [] if drawn in TINY else names[:names.index(drawn)]
    marked = others["profile"].isin({run.recipe.profile for name in longer for run in runs[name]})
    marked &= others["dataset"].isin(curves["dataset"])
    rows = Rows(curves, others[marked], others[~marked])
    print(_told(rows, len(runs[drawn])))
    return rows


def train_if(train, runs, data_dir="", device="auto"):
    """Trains the runs that the results lack if a notebook's parameter `train` is true."""
    if FLAGS[str(train).lower()]:
        # bars only where a person has this notebook open, who could answer a prompt
        train_missing(runs, data_dir=data_dir or None, device=device,
                      progress=getattr(kernel(), "_allow_stdin", None))


def _largest(runs, found):
    """The profile of the curves of the paper's experiment: see `collect`."""
    share = {name: covered(runs[name], found[name]) for name in runs}
    longer = {name: len(_networks(found[name]["id"])) for name in runs if name not in TINY}
    drawn = next((name for name in runs if share[name] >= COVERED), max(share, key=share.get))
    return max(longer, key=longer.get) if drawn in TINY and any(longer.values()) else drawn


def _told(rows, wanted):
    """Which rows a notebook shows of how many that are wanted, in a line."""
    def epochs(part):
        return f"{', '.join(map(str, sorted(part['epochs'].unique())))} epochs"

    seeds = rows.curves["seed"].nunique()
    said = (f"Shown: {epochs(rows.curves)}, {seeds} seed{'s' * (seeds > 1)}, "
            f"{len(rows.curves)} of {wanted} runs.")
    also = [f"{len(part)} run{'s' * (len(part) > 1)} of {epochs(part)}"
            for part in (rows.marks, rows.others) if len(part)]
    return said + f" Also read: {' and '.join(also)}." * bool(also)


def _joined(tables):
    """Several tables of rows below each other."""
    return pd.concat([each for each in tables if len(each)] or tables[:1])


def _networks(ids):
    """The networks of some runs, frozen and learnable counted apart."""
    return {run_id.rpartition("/")[0] for run_id in ids}


def covered(runs, table):
    """The share of the networks of `runs` of which the table has a row."""
    return len(_networks(table["id"])) / max(1, len(_networks(run.id for run in runs)))


def found_and_missing(runs):
    """The rows of `runs`, with the fields of `names.Architecture`, and the runs without a row."""
    table, by_id = results.load_table(), {run.id: run for run in runs}
    table = table[table["id"].isin(by_id)].reset_index(drop=True)
    shapes = [by_id.pop(run_id).architecture for run_id in table["id"]]
    return table.join(pd.DataFrame(shapes, columns=Architecture._fields)), list(by_id.values())


def train_missing(runs, *, expected=None, device="auto", precision="auto", fuse=False, together=1,
                  time_limit=None, save=None, unfolded=False, data_dir=None, progress=None,
                  stop=None):
    """Trains the runs that the results lack, and records each as it ends; returns their ids.

    It prints before about how long they take. Several processes may work on one results folder:
    each skips what another one is training. An interrupted run continues from its checkpoint.

    Args:
        expected: the seconds of each run, from a caller that has checked the rest.
        device, precision, fuse, together, time_limit, save, unfolded, data_dir: as for the command
            `lc sweep`. At the time limit, in minutes, it ends as with `stop`.
        progress: whether to show bars; by default on a terminal. Else the log has a line a run.
        stop: a function that is called after every step. If it returns True, the current runs are
            checkpointed (ImageNet: after the last full epoch) and this ends.

    Raises:
        ValueError: before any training, if an option is bad, the results are damaged or cannot be
            written, or no data set can be had. If only some cannot, a warning names them.
        TrainingError: at the end, naming each run that failed. The others are trained, unless
            nothing can be written any more.
    """
    if expected is None:
        check_options(time_limit, save, together)
        resolve_precision(precision, resolve_device(device))
        runs = available(found_and_missing(runs)[1], data_dir)
        expected = hours.announce(runs, resolve_device(device))
    began, trained, failed, stopped = time.monotonic(), [], [], False
    deadline = began + (math.inf if time_limit is None else 60 * time_limit)
    shows_bars = sys.stderr.isatty() if progress is None else progress

    def end():
        return stopped or time.monotonic() > deadline or stop and stop()

    def one(i, run):
        nonlocal stopped
        with results.claim(run.id) as mine:
            if not mine or run.id in results.load_rows():
                return
            if not shows_bars:
                hours.log_run(i, runs, expected, began)
            try:
                result = yield from stepwise_run(
                    run, device=device, precision=precision, fuse=fuse, data_dir=data_dir,
                    progress=progress, stop=end, label=f"{i + 1}/{len(runs)} ",
                    checkpoint=results.checkpoint_path(run.id))
                if save:
                    networks.save_network(result, Path(save) / f"{run.id}.safetensors", unfolded)
                results.append(result)
            except (TrainingError, CheckpointError, DataError) as error:
                failed.append(str(error))
            except (results.ResultsError, OSError) as error:  # later runs could not be kept either
                failed.append(f"{run.id}: {error}")
                stopped = True
            except Stopped:
                stopped = True
            else:
                trained.append(run.id)

    not_ended = itertools.takewhile(lambda _: not end(), enumerate(runs))
    in_turn(itertools.starmap(one, not_ended), together, resolve_device(device))
    if failed:
        raise TrainingError("; ".join(failed))
    return trained


def stepwise_run(run, *, fuse=False, **options):
    """A training of either kind, as a generator that pauses after each step, but on ImageNet."""
    if isinstance(run, ImageNetRun):
        from .imagenet.training import train_imagenet  # timm takes seconds to import
        return train_imagenet(run, **options)
    return (yield from stepwise(run, fuse=fuse, **options))


def find_data(run, data_dir=None):
    """Raises DataError if a run's data set is damaged or cannot be had. It opens no image."""
    if isinstance(run, ImageNetRun):
        from .imagenet.images import find  # timm takes seconds to import
        find(run.dataset, data_dir)
    else:
        load_data(run.dataset, data_dir)


def check_options(time_limit=None, save=None, together=1, **_):
    """Raises ValueError if `train_missing` cannot have these options."""
    check.number("the time limit in minutes", time_limit or 0, 0, math.inf)
    check.integer("together", together)
    if save:
        networks.check_folder(save)


def available(runs, data_dir=None):
    """The runs whose data set can be had. A warning names the other data sets.

    Raises DataUnavailable if there is no such run.
    """
    unavailable = {}
    for run in {(type(run), run.dataset): run for run in runs}.values():
        try:
            find_data(run, data_dir)
        except DataUnavailable as error:
            unavailable[run.dataset] = error
    left = [run for run in runs if run.dataset not in unavailable]
    if unavailable and not left:
        raise next(iter(unavailable.values()))
    for dataset, error in unavailable.items():
        warnings.warn(f"the runs on {dataset} are left out: {error}", stacklevel=3)
    return left

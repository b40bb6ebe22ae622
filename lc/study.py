"""How a notebook or a sweep gets the runs of an experiment: read what the results have, train what they lack."""

import itertools
import math
import sys
import time
import warnings
from pathlib import Path

import pandas as pd

from . import experiments, hours, networks, results
from .data import DataUnavailable, load_data
from .experiments import (decay, figure1a, figure4, figure6a, figure6b, figure8, figure8b, initialisation, precisions,
                          table1, table3, twin)
from .fast import in_turn, stepwise
from .imagenet import ImageNetRun
from .imagenet.experiments import figure1b, table2
from .models import Architecture
from .run import recipe_named
from .training import Stopped, TrainingError
from .utils import check
from .utils.checkpoint import CheckpointError
from .utils.device import resolve_device, resolve_precision

# In the order of training
EXPERIMENTS = {f.__name__: f for f in (figure4, table1, figure8, figure6a, figure6b, table3, initialisation, decay,
                                       figure8b, twin, precisions, figure1a, table2, figure1b)}
PROFILES = tuple(experiments.GRIDS)  # from the paper's to the smallest; those on ImageNet have the same names
COVERED = 3 / 4  # the share of an experiment's networks that a profile must have rows of for a figure to show it
LISTED = 8  # networks that a notebook names of those that are missing, or of a larger profile
FLAGS = {"true": True, "false": False}  # papermill passes `-p train true` as text


def everything(profile="paper", names=(), seeds=None):
    """The runs of the named experiments, or of all if none is named, each once.

    Args:
        seeds: a list of seeds in place of the profile's.

    Raises:
        ValueError: if the profile or an experiment is unknown.
    """
    recipe_named(profile, experiments.GRIDS)
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    return list(dict.fromkeys(run for name in names or EXPERIMENTS for run in EXPERIMENTS[name](profile, seeds=seeds)))


def check_parameters(profile, train, data_dir, device, **others):
    """Checks a notebook's parameters, also those that papermill injected, before anything else runs.

    Args:
        others: the parameters that only this notebook has. Integers must be at least 0. `collect` checks lists.

    Raises:
        ValueError: if the profile or the device is unknown, or a value has the wrong type.
    """
    for name, value in dict(profile=profile, data_dir=data_dir, device=device).items():
        if not isinstance(value, str):
            raise ValueError(f"parameter {name} must be text, not {value!r}")
    for name, value in others.items():
        if value is not None and not isinstance(value, (list, tuple)) and not str(value).startswith("["):
            check.integer(f"parameter {name}", value, 0)
    if str(train).lower() not in FLAGS:
        raise ValueError(f"parameter train must be true or false, not {train!r}")
    recipe_named(profile, experiments.GRIDS)
    resolve_device(device)


def collect(experiment, profile="paper", train=False, data_dir="", device="auto", **lists):
    """The rows of an experiment for a notebook. It prints which rows they are and which are missing.

    If `train` is set, what is missing is trained first. If the results cover too little of the `paper` profile (less than
    three quarters of the networks, frozen and learnable counted apart), the rows are those of the next smaller profile.

    Args:
        experiment: such as `figure4`.
        lists: the experiment's own arguments, such as `expansions`.

    Returns:
        A DataFrame of the rows.

    Raises:
        ValueError: if the results have no row of the experiment. Otherwise as `train_missing`.
    """
    if FLAGS[str(train).lower()]:
        train_missing(experiment(profile, **lists), data_dir=data_dir or None, device=device, progress=watched())
    tried = []
    for name in PROFILES[:-1] if profile == "paper" else [profile]:
        runs = experiment(name, **lists)
        table, missing = found_and_missing(runs)
        tried.append((covered(runs, table), name, runs, table, missing))
        if tried[-1][0] >= COVERED:
            break
    _, name, runs, table, missing = max(tried, key=lambda each: each[0])
    table.attrs["profile"] = name
    if table.empty:
        raise ValueError(f"the results have no run of this experiment in profile {profile!r}; set train = True")
    if name != profile:
        print(f"Rows of the {name} profile: the results have too few of the paper's recipe.")
    epochs, images = (", ".join(str(n) for n in sorted(table[column].unique())) for column in ("epochs", "train_images"))
    n = table["seed"].nunique()
    print(f"Profile {name}: {len(table)} of {len(runs)} runs, {epochs} epochs of {images} images, {n} seed{'s' * (n > 1)}.")
    _name("missing", [run.id for run in missing], f", which `python -m lc status --profile {name}` lists")
    return table


def covered(runs, table):
    """The share of the networks of `runs`, frozen and learnable counted apart, of which the table has a row of any seed."""
    networks, found = ({run_id.rpartition("/")[0] for run_id in ids} for ids in ((run.id for run in runs), table["id"]))
    return len(found) / max(1, len(networks))


def larger_rows(experiment, table, **lists):
    """The rows of profiles larger than the one that `collect` shows, and prints which they are. Figures mark them."""
    larger = PROFILES[:PROFILES.index(table.attrs["profile"])]
    found = [found_and_missing(experiment(name, **lists))[0] for name in larger]
    found = pd.concat([rows for rows in found if len(rows)] or [table[:0]])
    _name("of a larger profile, shown apart", found["id"])
    return found


def _name(what, ids, where=""):
    """Prints the first of some runs, and how many there are if it leaves some out."""
    lines = by_seeds(ids)
    for text in lines[:LISTED]:
        print(f"{what}: {text}")
    if lines[LISTED:]:
        print(f"{what}: {len(ids)} runs in all{where}")


def watched():
    """Whether a person has this notebook open: unlike papermill, JupyterLab can answer a prompt. None outside of a notebook."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    kernel = getattr(shell, "kernel", None)
    return kernel and kernel._allow_stdin


def by_seeds(ids):
    """The ids of runs as text. Those that differ only in the seed share a line: `.../paper/seed0 seed1`."""
    seeds = {}
    for run_id in ids:
        network, _, seed = run_id.rpartition("/")
        seeds.setdefault(network, []).append(seed)
    return [f"{network}/{' '.join(seeds[network])}" for network in seeds]


def found_and_missing(runs, folder=None):
    """The rows of `runs` in the results, with the fields of `models.Architecture` added, and the runs without a row."""
    table, by_id = results.load_table(folder), {run.id: run for run in runs}
    table = table[table["id"].isin(by_id)].reset_index(drop=True)
    shapes = pd.DataFrame([by_id[run_id].architecture for run_id in table["id"]], columns=Architecture._fields)
    have = set(table["id"])
    return table.join(shapes), [run for run in runs if run.id not in have]


def train_missing(runs, folder=None, *, data_dir=None, device="auto", precision="auto", **options):
    """Trains the runs that the results lack, and records each as it ends.

    Before, it prints about how long they take. Several processes may work on one results folder: a run that another
    one is training is skipped. If a run fails, the others are still trained. An interrupted run continues from its
    checkpoint.

    Args:
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.
        data_dir, device, precision: as for `lc.train`.
        options: as for `train_each`.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: before any training, if the limit, device, precision or `save` is bad, the results are damaged or
            cannot be written, or no data set can be had. If only some can be had, their runs are trained and a
            warning names the others.
        TrainingError: at the end, if runs failed, naming each.
    """
    check_options(**options)
    _, missing = found_and_missing(runs, folder)
    where = resolve_device(device)
    resolve_precision(precision, where)
    missing = available(missing, data_dir)
    expected = hours.announce(missing, where, folder)
    return train_each(missing, expected, folder, data_dir=data_dir, device=device, precision=precision, **options)


def train_each(runs, expected, folder=None, *, device="auto", fuse=False, together=1, time_limit=None, save=None,
               unfolded=False, progress=None, stop=None, **options):
    """Trains runs that no other process trains and that have no row yet, as `train_missing`, without its checks.

    Args:
        expected: the seconds that each run adds to the time of all.
        fuse: as for `lc.train`.
        together: how many runs are trained at once in this process, a step of each in turn: see `in_turn`.
        time_limit: stop after this many minutes. The current runs are checkpointed (ImageNet: last full epoch). An
            epoch that a GPU has queued and an evaluation are finished.
        save: a folder for the trained networks, one `<run's id>.safetensors` for each: see `save_network`.
        unfolded: whether they keep their LC-Blocks.
        progress: whether to show progress bars; by default on a terminal. Without them, the log has a line for each
            run (`hours.log`).
        stop: a function that is called after every step. If it returns True, the current runs are checkpointed and
            this ends.
        options: `data_dir` and `precision`, as for `lc.train`.
    """
    began, trained, failed, stopped = time.monotonic(), [], [], []
    deadline = began + (math.inf if time_limit is None else 60 * time_limit)
    silent = sys.stderr.isatty() if progress is None else progress

    def end():
        return bool(stopped) or time.monotonic() > deadline or stop is not None and stop()

    def say_which(i, run):
        done = sum(expected[:i])
        pace = (time.monotonic() - began) / done if done else 1.0
        ends = time.localtime(time.time() + pace * sum(expected[i:]))
        hours.log().info("run %d of %d: %s; the last ends at about %s", i + 1, len(runs), run.id,
                         time.strftime("%Y-%m-%d %H:%M", ends))

    def one(i, run):
        with results.claim(run.id, folder) as mine:
            if not mine or run.id in results.load_rows(folder):
                return
            if not silent:
                say_which(i, run)
            try:
                result = yield from stepwise_run(
                    run, device=device, fuse=fuse, progress=progress, label=f"{i + 1}/{len(runs)} ",
                    checkpoint=results.checkpoint_path(run.id, folder), stop=end, **options)
            except (TrainingError, CheckpointError, results.ResultsError) as error:
                failed.append(str(error))
                return
            except Stopped:
                stopped.append(run.id)
                return
            if save:
                networks.save_network(result, Path(save) / f"{run.id}.safetensors", unfolded)
            results.append(result, folder)
        trained.append(run.id)

    waiting = (one(i, run) for i, run in itertools.takewhile(lambda _: not end(), enumerate(runs)))
    in_turn(waiting, together, resolve_device(device))
    if failed:
        raise TrainingError("; ".join(failed))
    return trained


def stepwise_run(run, *, fuse=False, **options):
    """Trains and evaluates a run of either kind, as a generator that pauses after each step, but for ImageNet.

    See `lc.train` and `train_imagenet`, where `fuse` has no effect.
    """
    if isinstance(run, ImageNetRun):
        from .imagenet.training import train_imagenet  # timm takes seconds to import
        return train_imagenet(run, **options)
    return (yield from stepwise(run, fuse=fuse, **options))


def find_data(run, data_dir=None):
    """Raises DataError if a run's data set cannot be had or is damaged. Of an image folder it looks only whether it is there."""
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

    Raises:
        DataUnavailable: if no data set can be had.
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

"""How a notebook or a sweep gets the runs of an experiment: read what the results have, train what they lack."""

import ast
import math
import sys
import time
import warnings
from pathlib import Path

import pandas as pd

from . import experiments, networks, results
from .data import DataUnavailable
from .experiments import figure1a, figure4, figure6a, figure6b, figure8, initialisation, pairs, precisions, table1, table3
from .imagenet.experiments import figure1b, table2
from .models import Architecture
from .run import recipe_named
from .training import Stopped, TrainingError
from .utils import check
from .utils.checkpoint import CheckpointError
from .utils.device import resolve_device, resolve_precision

# In the order of training
EXPERIMENTS = {f.__name__: f for f in (figure4, table1, figure8, figure6a, figure6b, table3, initialisation, precisions,
                                       figure1a, table2, figure1b)}
PROFILES = tuple(experiments.GRIDS)  # from the paper's to the smallest; those on ImageNet have the same names
COVERED = 3 / 4  # the share of an experiment's networks that a profile must have rows of for a figure to show it

__all__ = ["EXPERIMENTS", "PROFILES", "available", "by_seeds", "check_parameters", "collect", "everything", "figure1a", "figure1b",
           "figure4", "figure6a", "figure6b", "figure8", "found_and_missing", "initialisation", "larger_rows", "pairs", "precisions",
           "table1", "table2", "table3", "train_missing"]


def everything(profile="paper", names=(), seeds=None):
    """The runs of the named experiments, or of all if none is named, each once.

    Args:
        seeds: a list of seeds in place of the profile's.

    Raises:
        ValueError: if the profile or an experiment is unknown.
    """
    recipe_named(profile, dict.fromkeys(PROFILES))
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    return list(dict.fromkeys(run for name in names or EXPERIMENTS for run in EXPERIMENTS[name](profile, seeds=seeds)))


def check_parameters(profile, train, data_dir, device, **others):
    """Checks a notebook's parameters, including those that papermill injected, before anything else runs.

    Args:
        others: the parameters that only this notebook has. Integers must be at least 0. Lists are checked by `collect`.

    Raises:
        ValueError: if a parameter, the profile or the device is unknown, or a value has the wrong type.
    """
    known = dict(profile=profile, train=train, data_dir=data_dir, device=device, **others)
    for cell in sys.modules["__main__"].__dict__.get("In", []):
        if cell.startswith("# Parameters\n"):  # papermill's own cell; papermill only logs names that the notebook lacks
            names = {target.id for node in ast.parse(cell).body if isinstance(node, ast.Assign) for target in node.targets}
            if names - set(known):
                raise ValueError(f"unknown parameter {min(names - set(known))!r}; known: {', '.join(known)}")
    for name in ("profile", "data_dir", "device"):
        if not isinstance(known[name], str):
            raise ValueError(f"parameter {name} must be text, not {known[name]!r}")
    for name, value in others.items():
        is_list = isinstance(value, (list, tuple)) or str(value).startswith("[")  # papermill -p passes a list as text
        if value is not None and not is_list:
            check.integer(f"parameter {name}", value, 0)
    _flag(train)
    recipe_named(profile, dict.fromkeys(PROFILES))
    resolve_device(device)


def _flag(train):
    flags = {"true": True, "false": False}  # papermill passes `-p train true` as text
    if str(train).lower() not in flags:
        raise ValueError(f"parameter train must be true or false, not {train!r}")
    return flags[str(train).lower()]


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
    if _flag(train):
        train_missing(experiment(profile, **lists), data_dir=data_dir or None, device=device, progress=_watched())
    shown = None
    for name in PROFILES[:-1] if profile == "paper" else [profile]:
        runs = experiment(name, **lists)
        table, missing = found_and_missing(runs)
        share = _share(runs, missing)
        if shown is None or share > shown[0]:
            shown = share, name, runs, table, missing
        if share >= COVERED:
            break
    share, name, runs, table, missing = shown
    table.attrs["profile"] = name
    if table.empty:
        raise ValueError(f"the results have no run of this experiment in profile {profile!r}; set train = True")
    if name != profile:
        print(f"Rows of the {name} profile: the results have too few of the paper's recipe.")
    epochs, images = (", ".join(str(n) for n in sorted(table[column].unique())) for column in ("epochs", "train_images"))
    n = table["seed"].nunique()
    print(f"Profile {name}: {len(table)} of {len(runs)} runs, {epochs} epochs of {images} images, {n} seed{'s' * (n > 1)}.")
    for text in by_seeds(missing):
        print(f"missing: {text}")
    return table


def larger_rows(experiment, table, **lists):
    """The rows of profiles larger than the one that `collect` shows, and prints which they are. Figures mark them as stars."""
    larger = PROFILES[:PROFILES.index(table.attrs["profile"])]
    found = pd.concat([found_and_missing(experiment(name, **lists))[0] for name in larger] or [table[:0]])
    for run_id in found["id"]:
        print(f"of a larger profile, shown apart: {run_id}")
    return found


def _share(runs, missing):
    """The share of the networks, frozen and learnable counted apart, that have a row of any seed."""
    networks = {run.id.rpartition("/")[0] for run in runs}
    found = {run.id.rpartition("/")[0] for run in set(runs) - set(missing)}
    return len(found) / max(len(networks), 1)


def _watched():
    """True in a notebook that a person has open: unlike papermill and nbconvert, JupyterLab can answer a prompt."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return getattr(getattr(shell, "kernel", None), "_allow_stdin", False) or None


def by_seeds(runs):
    """The ids of runs as text. Those that differ only in the seed share a line: `.../paper/seed0 seed1`."""
    seeds = {}
    for run in runs:
        network, _, seed = run.id.rpartition("/")
        seeds.setdefault(network, []).append(seed)
    return [f"{network}/{' '.join(seeds[network])}" for network in seeds]


def found_and_missing(runs, folder=None):
    """The rows of `runs` in the results, with the fields of `models.Architecture` added, and the runs without a row."""
    table, by_id = results.load_table(folder), {run.id: run for run in runs}
    table = table[table["id"].isin(by_id)].reset_index(drop=True)
    shapes = pd.DataFrame([by_id[run_id].architecture for run_id in table["id"]], columns=Architecture._fields)
    have = set(table["id"])
    return table.join(shapes), [run for run in runs if run.id not in have]


def train_missing(runs, folder=None, *, data_dir=None, device="auto", precision="auto", fuse=False, time_limit=None,
                  save=None, unfolded=False, progress=None, stop=None):
    """Trains the runs that the results lack, one after another. Each is recorded as it ends.

    Several processes may work on one results folder. A run that another process is training is skipped. If a run fails, the
    others are still trained. An interrupted run continues from its checkpoint.

    Args:
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.
        data_dir, device, precision, fuse, progress: as for `lc.train`.
        save: a folder for the trained networks, one `<run's id>.safetensors` for each: see `save_network`.
        unfolded: whether they keep their LC-Blocks.
        time_limit: stop after this many minutes. The current run is checkpointed (ImageNet: last full epoch). A new run
            starts only if the longest so far would still fit. An epoch that a GPU has queued and an evaluation are finished.
        stop: a function that is called after every step. If it returns True, the current run is checkpointed and this ends.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: before any training, if the limit, device, precision or `save` is bad, the results are damaged or cannot
            be written, or no data set can be had. If only some can be had, their runs are trained and a warning names the others.
        TrainingError: at the end, if runs failed, naming each.
    """
    start, longest = time.monotonic(), 0.0
    check.number("the time limit in minutes", time_limit or 0, 0, math.inf)
    _, missing = found_and_missing(runs, folder)
    resolve_precision(precision, resolve_device(device))
    if save:
        networks.check_folder(save)
    missing = available(missing, data_dir)
    trained, failed = [], []

    def end():
        return time_limit is not None and time.monotonic() - start > 60 * time_limit or stop is not None and stop()

    for i, run in enumerate(missing, 1):
        began = time.monotonic()
        if time_limit is not None and began - start + longest > 60 * time_limit:
            break
        with results.claim(run.id, folder) as mine:
            if not mine or run.id in results.load_rows(folder):
                continue
            try:
                result = run.train(data_dir=data_dir, device=device, precision=precision, fuse=fuse, progress=progress,
                                   label=f"{i}/{len(missing)} ", checkpoint=results.checkpoint_path(run.id, folder), stop=end)
            except Stopped:
                break
            except (TrainingError, CheckpointError) as error:
                failed.append(str(error))
                continue
            if save:
                networks.save_network(result, Path(save) / f"{run.id}.safetensors", unfolded)
            results.append(result, folder)
        trained.append(run.id)
        longest = max(longest, time.monotonic() - began)
    if failed:
        raise TrainingError("; ".join(failed))
    return trained


def available(runs, data_dir=None):
    """The runs whose data set can be had. A warning names the other data sets.

    Raises:
        DataUnavailable: if no data set can be had.
    """
    unavailable = {}
    for run in {(type(run), run.dataset): run for run in runs}.values():
        try:
            run.find_data(data_dir)
        except DataUnavailable as error:
            unavailable[run.dataset] = error
    left = [run for run in runs if run.dataset not in unavailable]
    if unavailable and not left:
        raise next(iter(unavailable.values()))
    for dataset, error in unavailable.items():
        warnings.warn(f"the runs on {dataset} are left out: {error}", stacklevel=3)
    return left

"""How to have the runs of the paper's experiments: read what the store has of them, train what it lacks."""

import ast
import math
import sys
import time
import warnings
from functools import partial

import pandas as pd

from . import check, imagenet, results
from .checkpoint import CheckpointError
from .data import DataUnavailable, load_data
from .experiments import (EXPERIMENTS, GRIDS, PROFILES, everything, figure1a, figure1b, figure4, figure6a, figure6b, figure8,
                          pairs, precision, profiles, table1, table2, table3)
from .imagenet.photos import find
from .imagenet.training import train as train_photos
from .machine import resolve_device, resolve_precision
from .models import Architecture
from .run import profile as recipe_of
from .training import Stopped, TrainingError, train

__all__ = ["EXPERIMENTS", "GRIDS", "PROFILES", "everything", "figure1a", "figure1b", "figure4", "figure6a", "figure6b", "figure8",
           "pairs", "precision", "profiles", "table1", "table2", "table3", "available", "by_seeds", "check_parameters", "collect",
           "rows", "train_missing"]


def check_parameters(profile, train, data_dir, device, **others):
    """Check a notebook's parameters before anything else is done, those that papermill injected included.

    Args:
        others: the parameters that only this notebook has, whole numbers of at least 0.

    Raises:
        ValueError: an unknown parameter, profile or device, or a value of the wrong type.
    """
    known = dict(profile=profile, train=train, data_dir=data_dir, device=device, **others)
    for cell in sys.modules["__main__"].__dict__.get("In", []):
        if cell.startswith("# Parameters\n"):  # papermill's own cell; it only logs names that the notebook does not have
            names = {target.id for node in ast.parse(cell).body if isinstance(node, ast.Assign) for target in node.targets}
            if names - set(known):
                raise ValueError(f"unknown parameter {min(names - set(known))!r}; known: {', '.join(known)}")
    for name in ("profile", "data_dir", "device"):
        if not isinstance(known[name], str):
            raise ValueError(f"parameter {name} must be text, not {known[name]!r}")
    for name, value in others.items():
        check.whole(f"parameter {name}", value, 0)
    _flag(train)
    recipe_of(profile, dict.fromkeys(PROFILES))
    resolve_device(device)


def _flag(train):
    flags = {"true": True, "false": False}  # papermill passes `-p train true` as text
    if str(train).lower() not in flags:
        raise ValueError(f"parameter train must be true or false, not {train!r}")
    return flags[str(train).lower()]


def collect(experiment, profile="paper", train=False, data_dir="", device="auto", **lists):
    """The rows for a notebook, which is told in print what they are: trained first if `train`, else from the store.

    Where the store has no row of the `paper` profile, those of a smaller one stand in: `short` (ImageNet), `quick`.

    Args:
        experiment: such as `figure4`.
        lists: the experiment's own arguments, such as `expansions`.

    Returns:
        A DataFrame of the rows. Raises as `train_missing`, and ValueError if there is not one row to show.
    """
    runs = experiment(profile, **lists)
    if _flag(train):
        train_missing(runs, data_dir=data_dir or None, device=device)
    table, missing = rows(runs)
    smaller = [name for name in ("short", "quick") if name in profiles(experiment)] if profile == "paper" else []
    while table.empty and smaller:
        profile = smaller.pop(0)
        runs = experiment(profile, **lists)
        table, missing = rows(runs)
        if not table.empty:
            print(f"Rows of the {profile} profile, for the direction of the effect: none of the paper's recipe yet.")
    if table.empty:
        raise ValueError(f"the results have no run of this experiment in profile {profile!r}; set train = True")
    epochs, images = (", ".join(str(n) for n in sorted(table[column].unique())) for column in ("epochs", "train_images"))
    n = table["seed"].nunique()
    print(f"Profile {profile}: {len(table)} of {len(runs)} runs, {epochs} epochs of {images} images, "
          f"{n} seed{'s' * (n > 1)}.")
    for text in by_seeds(missing):
        print(f"missing: {text}")
    return table


def by_seeds(runs):
    """The ids of runs as text, those that differ in the seed alone as one: `.../paper/seed0 seed1`."""
    seeds = {}
    for run in runs:
        network, seed = run.id.rsplit("/", 1)
        seeds.setdefault(network, []).append(seed)
    return [f"{network}/{' '.join(seeds[network])}" for network in seeds]


def rows(runs, folder=None):
    """The rows of `runs` that the store has, with the fields of `models.Architecture` added, and the runs that it lacks."""
    table, by_id = results.load(folder), {run.id: run for run in runs}
    table = table[table["id"].isin(by_id)].reset_index(drop=True)
    shapes = pd.DataFrame([by_id[run_id].architecture for run_id in table["id"]], columns=Architecture._fields)
    have = set(table["id"])
    return table.join(shapes), [run for run in runs if run.id not in have]


def train_missing(runs, folder=None, *, data_dir=None, device="auto", precision="auto", fuse=False, time_limit=None,
                  progress=None, stop=None):
    """Train the runs that the store lacks, one after another, each recorded as it ends.

    Several processes may work on one store: a run that another one is training is passed over. A run that cannot be
    trained does not keep the others from it. One that was cut off goes on from its checkpoint in the store.

    Args:
        folder: the store; by default $LC_RESULTS_DIR, else `results` of this project.
        data_dir, device, precision, fuse, progress: as for `train`; what is not of photographs is fused.
        time_limit: minutes after which the run in training is left as a checkpoint (of photographs, that of its last whole
            epoch); no run is started that would not end by then, judged by the longest so far. Steps that a GPU has queued,
            an epoch at most, and an evaluation that has begun come to their end.
        stop: a function, asked after every step; when it says True, the run in training is left as a checkpoint.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: before any training, for a bad limit, device, precision or data set, for a store that is damaged or cannot
            be written, or if no data set can be had. If only some can, their runs are trained; a warning names the others.
        TrainingError: at the end, if runs failed, naming each.
    """
    start, longest = time.monotonic(), 0.0
    check.number("the time limit in minutes", time_limit or 0, 0, math.inf)
    _, missing = rows(runs, folder)
    resolve_precision(precision, resolve_device(device))
    missing = available(missing, data_dir)
    trained, failed = [], []

    def end():
        return time_limit is not None and time.monotonic() - start > 60 * time_limit or stop is not None and stop()

    for i, run in enumerate(missing, 1):
        began = time.monotonic()
        if time_limit is not None and began - start + longest > 60 * time_limit:
            break
        with results.claim(run.id, folder) as mine:
            if not mine or run.id in results.read(folder):
                continue
            try:
                train_it = train_photos if isinstance(run, imagenet.Run) else partial(train, fuse=fuse)
                result = train_it(run, data_dir=data_dir, device=device, precision=precision, progress=progress,
                                  label=f"{i}/{len(missing)} ", checkpoint=results.checkpoint_path(run.id, folder), stop=end)
            except Stopped:
                break
            except (TrainingError, CheckpointError) as error:
                failed.append(str(error))
                continue
            results.append(result, folder)
        trained.append(run.id)
        longest = max(longest, time.monotonic() - began)
    if failed:
        raise TrainingError("; ".join(failed))
    return trained


def available(runs, data_dir=None):
    """The runs whose data set can be had; a warning names the sets that cannot.

    Raises:
        DataUnavailable: if none can.
    """
    unavailable = {}
    for photos, dataset in dict.fromkeys((isinstance(run, imagenet.Run), run.dataset) for run in runs):
        try:
            find(dataset, data_dir) if photos else load_data(dataset, data_dir)
        except DataUnavailable as error:
            unavailable[dataset] = error
    left = [run for run in runs if run.dataset not in unavailable]
    if unavailable and not left:
        raise next(iter(unavailable.values()))
    for dataset, error in unavailable.items():
        warnings.warn(f"the runs on {dataset} are left out: {error}", stacklevel=3)
    return left

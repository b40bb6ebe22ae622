"""The paper's experiments as data: which runs make up each figure, and how to have them all."""

import ast
import sys
import time

import pandas as pd

from . import results
from .data import load_data
from .machine import resolve_device, resolve_precision
from .models import expansion_of
from .run import Run
from .run import profile as recipe_of
from .training import TrainingError, train

SEEDS = {"paper": (0, 1, 2, 3), "quick": (0, 1), "smoke": (0,)}
EXPANSIONS = {"paper": (1, 2, 4, 8, 16, 32, 64, 128, 256), "quick": (1, 2, 8, 32, 128), "smoke": (1, 8)}


def figure4(profile="paper", expansions=None, seeds=None):
    """Figures 4, 5 and 7: ResNet-LC-20-16x{E}, frozen and learnable, and the plain ResNet-20-16, on CIFAR-10.

    The plain network is trained frozen, too: without linear combinations, random filters fail. Runs are in the order to
    train them in: whole seeds first. The smoke profile takes the handwritten digits.
    """
    recipe_of(profile)
    models = ["ResNet-20-16", *(f"ResNet-LC-20-16x{e}" for e in expansions or EXPANSIONS[profile])]
    return grid(models, "digits" if profile == "smoke" else "cifar10", profile, seeds)


EXPERIMENTS = {"figure4": figure4}


def grid(models, dataset, profile, seeds=None):
    """Every model, learnable and frozen, with every seed; by default the profile's seeds.

    Raises:
        ValueError: for an unknown profile or model.
    """
    recipe = recipe_of(profile)
    return [Run(model, dataset, frozen, seed, recipe)
            for seed in seeds or SEEDS[profile] for model in models for frozen in (False, True)]


def check_parameters(profile, train, data_dir, device, **others):
    """Check a notebook's parameters before anything else is done, those that papermill injected included.

    Args:
        others: the parameters that only this notebook has.

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
    _flag(train)
    recipe_of(profile)
    resolve_device(device)


def _flag(train):
    flags = {"true": True, "false": False}  # papermill passes `-p train true` as text
    if str(train).lower() not in flags:
        raise ValueError(f"parameter train must be true or false, not {train!r}")
    return flags[str(train).lower()]


def collect(experiment, profile="paper", train=False, data_dir="", device="auto", **lists):
    """The rows for a notebook, which is told in print what they are: trained first if `train`, else from the store.

    Where the store has no row of the `paper` profile, those of `quick` stand in.

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
    if table.empty and profile == "paper":
        profile = "quick"
        runs = experiment(profile, **lists)
        table, missing = rows(runs)
        print("Rows of the quick profile, for the direction of the effect: none of the paper's recipe yet.")
    if table.empty:
        raise ValueError(f"the results have no run of this experiment in profile {profile!r}; set train = True")
    recipe = recipe_of(profile)
    print(f"Profile {profile}: {len(table)} of {len(runs)} runs, {recipe.epochs} epochs of {table['train_images'].max()} "
          f"images, {table['seed'].nunique()} seeds.")
    for run in missing:
        print(f"missing: {run.id}")
    return table


def summary(table, *columns):
    """Means and standard deviations over seeds.

    Returns:
        A DataFrame with a row for each model and `frozen`, in the order of expansion: `model`, `frozen`, `expansion`
        (0 for a network without LC-Blocks), `learnable_parameters`, `n`, and for each of `columns` its mean under its
        own name and its standard deviation as `<column>_std` (nan for one seed).
    """
    groups = table.groupby(["model", "frozen"])
    parts = {"learnable_parameters": groups["learnable_parameters"].first(), "n": groups.size()}
    for column in columns:
        parts[column], parts[f"{column}_std"] = groups[column].mean(), groups[column].std()
    means = pd.DataFrame(parts).reset_index()
    means.insert(2, "expansion", means["model"].map(expansion_of))
    return means.sort_values(["expansion", "frozen"]).reset_index(drop=True)


def first_above(curve, other):
    """The least expansion at which one curve is above another, number or curve: where the paper reads its break-evens.

    Args:
        curve, other: pandas Series indexed by expansion, in ascending order; `other` may be a number.

    Returns:
        The expansion, or None if there is none among those tested.
    """
    above = curve[curve > (other.reindex(curve.index) if isinstance(other, pd.Series) else other)]
    return int(above.index[0]) if len(above) else None


def rows(runs, folder=None):
    """The rows of `runs` that the store has, as a DataFrame, and the runs that it lacks."""
    wanted = {run.id: run for run in runs}
    table = results.load(folder)
    table = table[table["id"].isin(wanted)]
    have = set(table["id"])
    return table.reset_index(drop=True), [run for run in runs if run.id not in have]


def train_missing(runs, folder=None, *, data_dir=None, device="auto", precision="auto", time_limit=None, progress=None):
    """Train the runs that the store lacks, one after another, each recorded as it ends.

    Several processes may work on one store: a run that another one is training is passed over. A run that cannot be
    trained does not keep the others from it.

    Args:
        folder: the store; by default $LC_RESULTS_DIR, else `results` of this project.
        time_limit: minutes after which no run is started that would not end, judged by the longest so far.

    Returns:
        The ids of the runs that were trained.

    Raises:
        ValueError: for a bad device, precision, data set or store, before any training.
        TrainingError: at the end, if runs failed, naming each.
    """
    start, longest = time.monotonic(), 0.0
    _, missing = rows(runs, folder)
    resolve_precision(precision, resolve_device(device))
    for dataset in {run.dataset for run in missing}:
        load_data(dataset, data_dir)
    trained, failed = [], []
    for i, run in enumerate(missing, 1):
        began = time.monotonic()
        if time_limit is not None and began - start + longest > 60 * time_limit:
            break
        with results.claim(run.id, folder) as mine:
            if not mine or run.id in results.read(folder):
                continue
            try:
                result = train(run, data_dir=data_dir, device=device, precision=precision, progress=progress,
                               label=f"{i}/{len(missing)} ")
            except TrainingError as error:
                failed.append(str(error))
                continue
            results.append(result, folder)
        trained.append(run.id)
        longest = max(longest, time.monotonic() - began)
    if failed:
        raise TrainingError("; ".join(failed))
    return trained

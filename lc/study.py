"""The paper's experiments as data: which runs make up each figure, and how to have them all."""

import time

from . import results
from .data import load_data
from .run import Run, profile as recipe_of
from .training import TrainingError, resolve_device, resolve_precision, train

SEEDS = {"paper": (0, 1, 2, 3), "quick": (0, 1), "smoke": (0,)}
EXPANSIONS = {"paper": (1, 2, 4, 8, 16, 32, 64, 128, 256), "quick": (1, 2, 8, 32, 128), "smoke": (1, 8)}


def figure4(profile="paper", expansions=None, seeds=None):
    """Figures 4, 5 and 7: ResNet-LC-20-16x{E}, frozen and learnable, and the plain ResNet-20-16, on CIFAR-10.

    The plain network is trained frozen, too: without linear combinations, random filters fail. Runs are in the order to
    train them in: whole seeds first. The smoke profile takes the handwritten digits.
    """
    models = ["ResNet-20-16", *(f"ResNet-LC-20-16x{e}" for e in expansions or EXPANSIONS.get(profile, EXPANSIONS["paper"]))]
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

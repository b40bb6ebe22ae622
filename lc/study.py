"""The paper's experiments as data: which runs make up each figure and table, and how to have them all."""

import ast
import math
import sys
import time
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace

import pandas as pd

from . import check, results
from .checkpoint import CheckpointError
from .data import DataUnavailable, load_data
from .machine import resolve_device, resolve_precision
from .models import Architecture, architecture
from .run import Run
from .run import profile as recipe_of
from .training import Stopped, TrainingError, train


@dataclass(frozen=True)
class Grid:
    """What the experiments vary; by default what the paper does, whose networks the docstrings below name."""

    seeds: tuple = (0, 1, 2, 3)
    dataset: str = "cifar10"
    networks: tuple = ("ResNet-14", "ResNet-18", "ResNet-34", "ResNet-20", "ResNet-50", "ResNet-101", "Wide-ResNet-50x2",
                       "MobileNet-v2")
    network_seeds: tuple = (0, 1, 2, 3)
    depth: int = 20  # wherever the depth is not what varies
    expansions: tuple = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    widths: tuple = (16, 32, 64, 128)
    depths: tuple = (20, 32, 44, 56, 110, 164, 260)
    datasets: tuple = ("cifar10", "cifar100", "fashion-mnist", "svhn")
    datasets_expansion: int = 128
    kernel_sizes: tuple = (3, 5, 7, 9)
    kernel_expansions: tuple = (1, 2, 4, 8, 16, 32, 64, 128)
    kernel_width: int = 16
    between_expansion: int = 64


GRIDS = {
    "paper": Grid(),
    # each experiment in under 20 minutes on two CPU cores
    "quick": Grid(seeds=(0, 1), networks=("ResNet-14", "ResNet-20", "MobileNet-v2"), network_seeds=(0,), depth=8,
                  expansions=(1, 2, 8, 32, 128), widths=(8, 16, 32), depths=(8, 14, 20), datasets_expansion=8,
                  kernel_expansions=(1, 8), kernel_width=8, between_expansion=2),
    "smoke": Grid(seeds=(0,), dataset="digits", networks=("ResNet-20", "MobileNet-v2"), network_seeds=(0,), depth=8,
                  expansions=(1, 8), widths=(8, 16), depths=(8, 14), datasets=("digits",), datasets_expansion=8,
                  kernel_sizes=(3, 5), kernel_expansions=(1, 8), kernel_width=8, between_expansion=2),
}


def figure4(profile="paper", expansions=None, seeds=None):
    """Figures 4 and 5: ResNet-LC-20-16x{E}, frozen and learnable, and the plain ResNet-20-16.

    The plain network is trained frozen, too: without linear combinations, random filters fail.
    """
    grid = _grid(profile, expansions=expansions, seeds=seeds)
    models = [f"ResNet-{grid.depth}-16", *(f"ResNet-LC-{grid.depth}-16x{e}" for e in grid.expansions)]
    return pairs(models, grid.dataset, profile, grid.seeds)


def table1(profile="paper", datasets=None, expansion=None, seeds=None):
    """Table 1: the plain ResNet-20-16 and one ResNet-LC-20-16x{E}, frozen and learnable, on other data sets."""
    grid = _grid(profile, datasets=datasets, datasets_expansion=expansion, seeds=seeds)
    models = [f"ResNet-{grid.depth}-16", f"ResNet-LC-{grid.depth}-16x{grid.datasets_expansion}"]
    return _lc_and_learnable([run for dataset in grid.datasets for run in pairs(models, dataset, profile, grid.seeds)])


def figure8(profile="paper", kernel_sizes=None, expansions=None, seeds=None):
    """Figures 7, 8, 10, 11 and 12: kernel sizes k, by expansion E, frozen and learnable, and the plain network."""
    grid = _grid(profile, kernel_sizes=kernel_sizes, kernel_expansions=expansions, seeds=seeds)
    shape = f"{grid.depth}-{grid.kernel_width}"
    models = [f"ResNet{kind}-k{k}" for k in grid.kernel_sizes
              for kind in (f"-{shape}", *(f"-LC-{shape}x{e}" for e in grid.kernel_expansions))]
    return _lc_and_learnable(pairs(models, grid.dataset, profile, grid.seeds))


def figure6a(profile="paper", widths=None, seeds=None):
    """Figure 6a: ResNet-LC-20-{W}x1, frozen and learnable."""
    grid = _grid(profile, widths=widths, seeds=seeds)
    models = [f"ResNet-LC-{grid.depth}-{w}x1" for w in grid.widths]
    return pairs(models, grid.dataset, profile, grid.seeds)


def figure6b(profile="paper", depths=None, seeds=None):
    """Figure 6b: ResNet-LC-{D}-16x1, frozen and learnable."""
    grid = _grid(profile, depths=depths, seeds=seeds)
    return pairs([f"ResNet-LC-{d}-16x1" for d in grid.depths], grid.dataset, profile, grid.seeds)


def table3(profile="paper", expansion=None, seeds=None):
    """Table 3: ResNet-LC-20-16x{E} with nothing, ReLU, BatchNorm or both between the convolutions of each LC-Block."""
    grid = _grid(profile, between_expansion=expansion, seeds=seeds)
    models = [f"ResNet-LC-{grid.depth}-16x{grid.between_expansion}{between}" for between in ("", "+ReLU", "+BN", "+BN+ReLU")]
    return pairs(models, grid.dataset, profile, grid.seeds)


def figure1a(profile="paper", networks=None, seeds=None):
    """Figure 1a: off-the-shelf networks, frozen and learnable."""
    grid = _grid(profile, networks=networks, network_seeds=seeds)
    return pairs(grid.networks, grid.dataset, profile, grid.network_seeds)


# In the order to train them in
EXPERIMENTS = {f.__name__: f for f in (figure4, table1, figure8, figure6a, figure6b, table3, figure1a)}


def everything(profile="paper", names=()):
    """The runs of the named experiments, of all if none is named, each once.

    Raises:
        ValueError: for an unknown profile or experiment.
    """
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    return list(dict.fromkeys(run for name in names or EXPERIMENTS for run in EXPERIMENTS[name](profile)))


def pairs(models, dataset, profile, seeds):
    """Every model, learnable and frozen, with every seed; whole seeds first, to have something to see early.

    Raises:
        ValueError: for an unknown profile or model.
    """
    runs = (Run(model, dataset, frozen, seed, profile) for seed in seeds for model in models for frozen in (False, True))
    return list(dict.fromkeys(runs))


def _lc_and_learnable(runs):
    """Without the plain networks that are frozen."""
    return [run for run in runs if architecture(run.model).expansion or not run.frozen]


def _grid(profile, **own):
    """The grid of a profile, with lists and numbers of one's own, checked, where these are not None."""
    recipe_of(profile)
    grid, own = GRIDS[profile], {name: value for name, value in own.items() if value is not None}
    for name, value in own.items():
        default = getattr(grid, name)
        if isinstance(default, int):
            check.whole(name, value)
        elif not isinstance(value, Collection) or isinstance(value, str) or not len(value):
            raise ValueError(f"{name} must be a list such as {list(default)}, or None for just this, not {value!r}")
        elif isinstance(default[0], int):
            for each in value:
                check.whole(f"each of {name}", each, 0)
    return replace(grid, **own)


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
    images = ", ".join(str(n) for n in sorted(table["train_images"].unique()))
    n = table["seed"].nunique()
    print(f"Profile {profile}: {len(table)} of {len(runs)} runs, {recipe_of(profile).epochs} epochs of {images} images, "
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
    table = results.load(folder)
    table = table[table["id"].isin({run.id for run in runs})].reset_index(drop=True)
    shapes = pd.DataFrame([architecture(name) for name in table["model"]], columns=Architecture._fields)
    have = set(table["id"])
    return table.join(shapes), [run for run in runs if run.id not in have]


def train_missing(runs, folder=None, *, data_dir=None, device="auto", precision="auto", time_limit=None, progress=None,
                  stop=None):
    """Train the runs that the store lacks, one after another, each recorded as it ends.

    Several processes may work on one store: a run that another one is training is passed over. A run that cannot be
    trained does not keep the others from it. One that was cut off goes on from its checkpoint in the store.

    Args:
        folder: the store; by default $LC_RESULTS_DIR, else `results` of this project.
        time_limit: minutes after which no run is started that would not end, judged by the longest so far.
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
    for i, run in enumerate(missing, 1):
        began = time.monotonic()
        if time_limit is not None and began - start + longest > 60 * time_limit:
            break
        with results.claim(run.id, folder) as mine:
            if not mine or run.id in results.read(folder):
                continue
            try:
                result = train(run, data_dir=data_dir, device=device, precision=precision, progress=progress,
                               label=f"{i}/{len(missing)} ", checkpoint=results.checkpoint_path(run.id, folder), stop=stop)
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
    for dataset in dict.fromkeys(run.dataset for run in runs):
        try:
            load_data(dataset, data_dir)
        except DataUnavailable as error:
            unavailable[dataset] = error
    left = [run for run in runs if run.dataset not in unavailable]
    if unavailable and not left:
        raise next(iter(unavailable.values()))
    for dataset, error in unavailable.items():
        warnings.warn(f"the runs on {dataset} are left out: {error}", stacklevel=3)
    return left

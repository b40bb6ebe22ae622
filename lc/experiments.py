"""The experiments as data: the runs of each figure and table. ImageNet's are in `lc.imagenet`."""

import ast
import re
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain

from .names import ABLATIONS, architecture
from .run import DECAYED, Run, recipe_named
from .utils import check


@dataclass(frozen=True)
class Grid:
    """What the experiments of a profile vary, by default `paper`, whose grids docstrings name."""

    seeds: tuple = (0, 1, 2, 3)
    finding_seeds: tuple = (0, 1, 2, 3)  # of `initialisation` and `decay`
    dataset: str = "cifar10"
    networks: tuple = ("ResNet-14", "ResNet-18", "ResNet-34", "ResNet-20", "ResNet-50",
                       "ResNet-101", "Wide-ResNet-50x2", "MobileNet-v2")
    network_seeds: tuple = (0, 1, 2, 3)
    depth: int = 20  # of every network whose depth does not vary, but for these:
    small_depth: int = 20  # of Figures 6a and 8 and Table 3
    expansions: tuple = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    widths: tuple = (16, 32, 64, 128, 256)  # the paper ends at 128, where the break-even is
    depths: tuple = (20, 32, 44, 56, 110, 164, 260, 308)  # the paper ends at 260
    datasets: tuple = ("cifar10", "cifar100", "fashion-mnist", "svhn")
    datasets_expansion: int = 128
    kernel_sizes: tuple = (3, 5, 7, 9)
    kernel_expansions: tuple = (1, 2, 4, 8, 16, 32, 64, 128)
    kernel_width: int = 16
    initial_expansions: tuple = (1, 8, 64)
    initial_kernel_sizes: tuple = (3, 5, 7, 9)
    map_depth: int = 20
    map_kernel_sizes: tuple = (3, 5, 7, 9)
    # twice the recipe's shrinks a plain network's filters as fast as decay of both factors does
    decays: tuple = ("2e-2", "1e-2", "5e-3", "1e-3", "1e-4")
    between_expansion: int = 64
    precision_seeds: tuple = (0, 1, 2, 3)
    precision_expansion: int = 128
    precision_epochs: int = 75


# What the name of a field of one experiment begins with; its argument has none of it
OF_ONE = re.compile("(between|datasets|finding|initial|kernel|map|network|precision)_"
                    "(?=kernel_sizes|expansion|seeds)")
GRIDS = {
    "paper": Grid(),
    # up to three hours a run on a CPU core with bf16 instructions; it compares no precisions
    "short": Grid(
        seeds=(0, 1), finding_seeds=(0, 1, 2), network_seeds=(0,),
        networks=("ResNet-14", "ResNet-18", "ResNet-20", "ResNet-50", "MobileNet-v2"),
        small_depth=8, expansions=(1, 2, 4, 8, 32, 128), widths=(16, 32, 64),
        depths=(8, 20, 32, 56, 110), kernel_expansions=(1, 8, 64), initial_expansions=(1, 8),
        initial_kernel_sizes=(7,), map_kernel_sizes=(3, 5, 7), between_expansion=8,
        precision_seeds=()),
    # each experiment in at most 20 minutes on two CPU cores; a CPU without bf16 instructions
    # takes about eight times as long to emulate them
    "quick": Grid(
        seeds=(0, 1), finding_seeds=(0, 1), network_seeds=(0,),
        networks=("ResNet-14", "ResNet-20", "MobileNet-v2"), depth=8, small_depth=8,
        expansions=(1, 2, 8, 32, 128), widths=(8, 16, 32), depths=(8, 14, 20),
        datasets_expansion=8, kernel_expansions=(1, 8), kernel_width=8, initial_expansions=(1, 8),
        map_kernel_sizes=(3, 5, 7), between_expansion=2, precision_epochs=2),
    "smoke": Grid(
        seeds=(0,), finding_seeds=(0,), network_seeds=(0,), dataset="digits",
        networks=("ResNet-20", "MobileNet-v2"), depth=8, small_depth=8, expansions=(1, 8),
        widths=(8, 16), depths=(8, 14), datasets=("digits",), datasets_expansion=8,
        kernel_sizes=(3, 5), kernel_expansions=(1, 8), kernel_width=8, initial_expansions=(1, 8),
        initial_kernel_sizes=(3, 5), map_depth=14, map_kernel_sizes=(3, 5),
        decays=("1e-2", "1e-3"), between_expansion=2, precision_seeds=(0, 1),
        precision_expansion=8, precision_epochs=1),
}


def figure4(profile="paper", expansions=None, seeds=None):
    """Figures 4 and 5: ResNet-LC-20-16x{E} and the plain ResNet-20-16, frozen and learnable."""
    grid = grid_of(GRIDS, profile, expansions=expansions, seeds=seeds)
    models = [f"ResNet-LC-{grid.depth}-16x{e}" for e in grid.expansions]
    return pairs([f"ResNet-{grid.depth}-16", *models], grid.dataset, profile, grid.seeds)


def table1(profile="paper", datasets=None, expansion=None, seeds=None):
    """Table 1: the plain ResNet-20-16, learnable, and ResNet-LC-20-16x{E}, on all data sets."""
    grid = grid_of(GRIDS, profile, datasets=datasets, datasets_expansion=expansion, seeds=seeds)
    models = [f"ResNet-{grid.depth}-16", f"ResNet-LC-{grid.depth}-16x{grid.datasets_expansion}"]
    runs = [pairs(models, dataset, profile, grid.seeds) for dataset in grid.datasets]
    return _without_frozen_plain(chain.from_iterable(runs))


def figure8(profile="paper", kernel_sizes=None, expansions=None, seeds=None):
    """Figures 7, 8, 10, 11 and 12: LC networks by k and E, and the plain networks, learnable."""
    grid = grid_of(GRIDS, profile, kernel_sizes=kernel_sizes, kernel_expansions=expansions,
                   seeds=seeds)
    return _by_kernel(grid, profile, grid.kernel_sizes, grid.kernel_expansions, [""], grid.seeds)


def initialisation(profile="paper", kernel_sizes=None, expansions=None, seeds=None):
    """Not in the paper: Figure 8's networks, and LC networks with each of `lc.names.ABLATIONS`.

    These are frozen, and with "covariance" learnable too. Large kernels come first.
    """
    grid = grid_of(GRIDS, profile, initial_kernel_sizes=kernel_sizes,
                   initial_expansions=expansions, finding_seeds=seeds)
    kinds = "", *(f"~{kind}" for kind in ABLATIONS)
    runs = _by_kernel(grid, profile, sorted(grid.initial_kernel_sizes, reverse=True),
                      grid.initial_expansions, kinds, grid.finding_seeds)
    return [run for run in runs if run.frozen or run.architecture.initial in ("", "covariance")]


def _by_kernel(grid, profile, sizes, expansions, kinds, seeds):
    """LC networks of these kernel sizes, and of each the plain network, learnable."""
    shape, models = f"{grid.small_depth}-{grid.kernel_width}", []
    for k in sizes:
        models.append(f"ResNet-{shape}-k{k}")
        models += [f"ResNet-LC-{shape}x{e}-k{k}{kind}" for e in expansions for kind in kinds]
    return _without_frozen_plain(pairs(models, grid.dataset, profile, seeds))


def decay(profile="paper", decays=None, seeds=None):
    """Not in the paper: ResNet-LC-20-16x8 and the plain ResNet-20-16, learnable, by weight decay.

    The LC network is also trained frozen, and learnable with decay of one factor of each LC-Block
    or of their product. `decays` are text such as "5e-3", as in the profile `short-decay5e-3`.
    """
    grid = grid_of(GRIDS, profile, decays=decays, finding_seeds=seeds)
    plain, combined = f"ResNet-{grid.depth}-16", f"ResNet-LC-{grid.depth}-16x8"
    for each in grid.decays:
        if not re.fullmatch("[1-9]e-[1-9]", str(each)):
            raise ValueError(f"each of decays must be text such as '5e-3', not {each!r}")
    varied = [(model, frozen, f"decay{each}") for each in grid.decays
              for model, frozen in ((combined, False), (combined, True), (plain, False))]
    varied += [(combined, False, f"decay-{part}") for part in DECAYED[1:]]
    return [Run(model, grid.dataset, frozen, seed, f"{profile}-{change}")
            for seed in grid.finding_seeds for model, frozen, change in varied]


def figure8b(profile="paper", kernel_sizes=None, seeds=None):
    """Figure 8b: ResNet-LC-20-16x1-k{k}, at the paper's depth, which Figure 8 may not have.

    The paper does not say its E.
    """
    grid = grid_of(GRIDS, profile, map_kernel_sizes=kernel_sizes, seeds=seeds)
    shape = f"{grid.map_depth}-{grid.kernel_width}"
    models = [f"ResNet-LC-{shape}x1-k{k}" for k in grid.map_kernel_sizes]
    return pairs(models, grid.dataset, profile, grid.seeds)


def twin(profile="paper", seeds=None):
    """Not in the paper, but after Section 6: the plain ResNet-20-16, and its twin.

    This is an LC network that starts as the same function.
    """
    grid = grid_of(GRIDS, profile, seeds=seeds)
    models = [f"ResNet-{grid.depth}-16", f"ResNet-LC-{grid.depth}-16x1~identity"]
    return pairs(models, grid.dataset, profile, grid.seeds)


def figure6a(profile="paper", widths=None, seeds=None):
    """Figure 6a: ResNet-LC-20-{W}x1, frozen and learnable."""
    grid = grid_of(GRIDS, profile, widths=widths, seeds=seeds)
    models = [f"ResNet-LC-{grid.small_depth}-{w}x1" for w in grid.widths]
    return pairs(models, grid.dataset, profile, grid.seeds)


def figure6b(profile="paper", depths=None, seeds=None):
    """Figure 6b: ResNet-LC-{D}-16x1, frozen and learnable."""
    grid = grid_of(GRIDS, profile, depths=depths, seeds=seeds)
    return pairs([f"ResNet-LC-{d}-16x1" for d in grid.depths], grid.dataset, profile, grid.seeds)


def table3(profile="paper", expansion=None, seeds=None):
    """Table 3: ResNet-LC-20-16x{E} with nothing, ReLU, BatchNorm or both in each LC-Block."""
    grid = grid_of(GRIDS, profile, between_expansion=expansion, seeds=seeds)
    shape = f"{grid.small_depth}-16x{grid.between_expansion}"
    models = [f"ResNet-LC-{shape}{between}" for between in ("", "+ReLU", "+BN", "+BN+ReLU")]
    return pairs(models, grid.dataset, profile, grid.seeds)


def figure1a(profile="paper", networks=None, seeds=None):
    """Figure 1a: off-the-shelf networks, frozen and learnable."""
    grid = grid_of(GRIDS, profile, networks=networks, network_seeds=seeds)
    return pairs(grid.networks, grid.dataset, profile, grid.network_seeds)


def precisions(profile="paper", seeds=None):
    """Not in the paper: ResNet-20-16, learnable, and ResNet-LC-20-16x128, frozen, in fp32 and bf16.

    The profiles are `paper-fp32` and `paper-bf16`.
    """
    grid = grid_of(GRIDS, profile, precision_seeds=seeds)
    recipes = [replace(recipe_named(profile), profile=f"{profile}-{kind}", precision=kind,
                       epochs=grid.precision_epochs) for kind in ("fp32", "bf16")]
    networks = ((f"ResNet-{grid.depth}-16", False),
                (f"ResNet-LC-{grid.depth}-16x{grid.precision_expansion}", True))
    return [Run(model, grid.dataset, frozen, seed, recipe)
            for seed in grid.precision_seeds for model, frozen in networks for recipe in recipes]


def pairs(models, dataset, recipe, seeds, kind=Run):
    """Every model, learnable and frozen, with every seed, as runs of `kind`. Whole seeds first."""
    return list(dict.fromkeys(kind(model, dataset, frozen, seed, recipe) for seed in seeds
                              for model in models for frozen in (False, True)))


def grid_of(grids, profile, **own):
    """The grid of a profile, with the values of `own` that are not None in place of its own.

    A value may be text such as "[1, 3]", from papermill. Raises ValueError if the profile is
    unknown, or a value has not the type of the grid's.
    """
    grid = recipe_named(profile, grids)
    own = {name: value for name, value in own.items() if value is not None}
    for name, value in own.items():
        if isinstance(value, str):
            with suppress(ValueError, SyntaxError):
                own[name] = value = ast.literal_eval(value)
        default, said = getattr(grid, name) or (0,), OF_ONE.sub("", name)
        if isinstance(default, int):
            check.integer(said, value)
        elif not isinstance(value, Collection) or isinstance(value, str) or not len(value):
            raise ValueError(f"{said} must be a list such as {list(default)}, or None for the "
                             f"profile's, not {value!r}")
        elif isinstance(default[0], int):
            for each in value:
                check.integer(f"each of {said}", each, 0)
    return replace(grid, **own)


def _without_frozen_plain(runs):
    return [run for run in runs if architecture(run.model).expansion or not run.frozen]

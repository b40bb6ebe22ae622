"""The paper's experiments as data: which runs make up each figure and table."""

from collections.abc import Collection
from dataclasses import dataclass, replace

from . import check
from .imagenet import Run as ImageNetRun
from .models import architecture
from .run import Run
from .run import profile as recipe_of


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
    widths: tuple = (16, 32, 64, 128, 256)  # the paper ends at 128, where the break-even is
    depths: tuple = (20, 32, 44, 56, 110, 164, 260, 308)  # the paper ends at 260
    datasets: tuple = ("cifar10", "cifar100", "fashion-mnist", "svhn")
    datasets_expansion: int = 128
    kernel_sizes: tuple = (3, 5, 7, 9)
    kernel_expansions: tuple = (1, 2, 4, 8, 16, 32, 64, 128)
    kernel_depth: int = 20
    kernel_width: int = 16
    between_expansion: int = 64
    precision_seeds: tuple = (0, 1, 2, 3)
    precision_expansion: int = 128
    precision_epochs: int = 75


GRIDS = {
    "paper": Grid(),
    # the paper's networks where a CPU core with bf16 instructions takes minutes for a run; no precision runs
    "short": Grid(seeds=(0, 1), networks=("ResNet-14", "ResNet-18", "ResNet-20", "ResNet-50", "MobileNet-v2"), network_seeds=(0,),
                  expansions=(1, 2, 8, 32, 128), widths=(16, 32, 64), depths=(20, 32, 56, 110), kernel_expansions=(1, 8, 64),
                  kernel_depth=8, between_expansion=2, precision_seeds=()),
    # each experiment in under 20 minutes on two CPU cores, but for those on photographs
    "quick": Grid(seeds=(0, 1), networks=("ResNet-14", "ResNet-20", "MobileNet-v2"), network_seeds=(0,), depth=8,
                  expansions=(1, 2, 8, 32, 128), widths=(8, 16, 32), depths=(8, 14, 20), datasets_expansion=8,
                  kernel_expansions=(1, 8), kernel_depth=8, kernel_width=8, between_expansion=2,
                  precision_epochs=2),  # a CPU without bf16 takes about eight times as long to emulate it
    "smoke": Grid(seeds=(0,), dataset="digits", networks=("ResNet-20", "MobileNet-v2"), network_seeds=(0,), depth=8,
                  expansions=(1, 8), widths=(8, 16), depths=(8, 14), datasets=("digits",), datasets_expansion=8,
                  kernel_sizes=(3, 5), kernel_expansions=(1, 8), kernel_depth=8, kernel_width=8, between_expansion=2,
                  precision_seeds=(0, 1), precision_expansion=8, precision_epochs=1),
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
    shape = f"{grid.kernel_depth}-{grid.kernel_width}"
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


def precision(profile="paper", seeds=None):
    """Not in the paper: the plain ResNet-20-16, learnable, and ResNet-LC-20-16x128, frozen, each in fp32 and in bf16.

    Their profiles are `paper-fp32` and `paper-bf16`: the recipe is the paper's; in the other profiles, it has fewer epochs.
    """
    grid = _grid(profile, precision_seeds=seeds)
    recipes = [replace(recipe_of(profile), profile=f"{profile}-{kind}", precision=kind, epochs=grid.precision_epochs)
               for kind in ("fp32", "bf16")]
    networks = (f"ResNet-{grid.depth}-16", False), (f"ResNet-LC-{grid.depth}-16x{grid.precision_expansion}", True)
    return [Run(model, grid.dataset, frozen, seed, recipe)
            for seed in grid.precision_seeds for model, frozen in networks for recipe in recipes]


@dataclass(frozen=True)
class PhotoGrid:
    """What the ImageNet experiments vary, and on what; by default what the paper does."""

    seeds: tuple = (0,)
    dataset: str = "imagenet"
    recipe: str = "a2"
    networks: tuple = ("ResNet-18", "ResNet-50", "ResNet-50d", "ResNeXt-50-32x4d", "Wide-ResNet-50x2", "MobileNet-v2",
                       "MobileNet-v3-S", "MobileNet-v3-L")
    expansions: tuple = (1, 8, 64, 128)


_TINY = PhotoGrid(dataset="tiny-imagenet-40", recipe="short", networks=("ResNet-18", "ResNet-50"), expansions=(1, 8, 64))
PHOTO_GRIDS = {
    "paper": PhotoGrid(),
    "short": _TINY,  # 40 classes of ImageNet at 64 px, for a GPU
    "quick": replace(_TINY, recipe="quick"),  # ten of them, an hour and a half on two CPU cores, most of it for x64
    "smoke": PhotoGrid(dataset="digits-folder", recipe="smoke", networks=("ResNet-18", "MobileNet-v3-S"), expansions=(1,)),
}


def figure1b(profile="paper", networks=None, seeds=None):
    """Figure 1b: off-the-shelf networks on ImageNet, frozen and learnable."""
    grid = _grid(profile, PHOTO_GRIDS, networks=networks, seeds=seeds)
    return _photo_pairs(grid.networks, grid)


def table2(profile="paper", expansions=None, seeds=None):
    """Table 2: ResNet-18d on ImageNet, plain and with LC-Blocks of each expansion E, frozen and learnable."""
    grid = _grid(profile, PHOTO_GRIDS, expansions=expansions, seeds=seeds)
    return _photo_pairs(["ResNet-18d", *(f"ResNet-18d-LCx{e}" for e in grid.expansions)], grid)


# In the order to train them in
EXPERIMENTS = {f.__name__: f for f in (figure4, table1, figure8, figure6a, figure6b, table3, precision, figure1a, table2,
                                     figure1b)}
PROFILES = tuple(dict.fromkeys([*GRIDS, *PHOTO_GRIDS]))


def profiles(experiment):
    """The names of the profiles that an experiment knows."""
    return tuple(PHOTO_GRIDS if experiment in (figure1b, table2) else GRIDS)


def everything(profile="paper", names=(), seeds=None):
    """The runs of the named experiments, of all that know the profile if none is named, each once.

    Args:
        seeds: a list of seeds in place of the profile's.

    Raises:
        ValueError: for an unknown profile or experiment.
    """
    if profile not in PROFILES:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(PROFILES)}")
    for name in names:
        if name not in EXPERIMENTS:
            raise ValueError(f"unknown experiment {name!r}; known: {', '.join(EXPERIMENTS)}")
    chosen = [EXPERIMENTS[name] for name in names] or [f for f in EXPERIMENTS.values() if profile in profiles(f)]
    return list(dict.fromkeys(run for experiment in chosen for run in experiment(profile, seeds=seeds)))


def pairs(models, dataset, profile, seeds):
    """Every model, learnable and frozen, with every seed; whole seeds first, to have something to see early.

    Raises:
        ValueError: for an unknown profile or model.
    """
    return _pairs(Run, models, dataset, profile, seeds)


def _photo_pairs(models, grid):
    return _pairs(ImageNetRun, models, grid.dataset, grid.recipe, grid.seeds)


def _pairs(kind, models, dataset, recipe, seeds):
    runs = (kind(model, dataset, frozen, seed, recipe) for seed in seeds for model in models for frozen in (False, True))
    return list(dict.fromkeys(runs))


def _lc_and_learnable(runs):
    """Without the plain networks that are frozen."""
    return [run for run in runs if architecture(run.model).expansion or not run.frozen]


def _grid(profile, grids=GRIDS, **own):
    """The grid of a profile, with lists and numbers of one's own, checked, where these are not None."""
    grid, own = recipe_of(profile, grids), {name: value for name, value in own.items() if value is not None}
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

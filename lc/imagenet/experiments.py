"""The ImageNet experiments as data: the runs of Figure 1b and Table 2."""

from dataclasses import dataclass, replace

from ..experiments import grid_of, pairs
from .networks import NETWORKS
from .run import ImageNetRun


@dataclass(frozen=True)
class ImageNetGrid:
    """What the experiments of a profile vary, and on which images. The defaults are the paper's."""

    seeds: tuple = (0,)
    dataset: str = "imagenet"
    recipe: str = "a2"
    networks: tuple = tuple(name for name in NETWORKS if name != "ResNet-18d")
    expansions: tuple = (1, 8, 64, 128)


_TINY = ImageNetGrid(dataset="tiny-imagenet-40", recipe="short",
                     networks=("ResNet-18", "ResNet-50"), expansions=(1, 8, 64))
IMAGENET_GRIDS = {
    "paper": ImageNetGrid(),
    "short": _TINY,  # 40 classes of ImageNet at 64 px, on a GPU
    "quick": replace(_TINY, recipe="quick"),  # ten of them, 1.5 hours on two CPU cores
    "smoke": ImageNetGrid(dataset="digits-folder", recipe="smoke",
                          networks=("ResNet-18", "MobileNet-v3-S"), expansions=(1,)),
}


def figure1b(profile="paper", networks=None, seeds=None):
    """Figure 1b: off-the-shelf networks on ImageNet, frozen and learnable."""
    grid = grid_of(IMAGENET_GRIDS, profile, networks=networks, seeds=seeds)
    return pairs(grid.networks, grid.dataset, grid.recipe, grid.seeds, ImageNetRun)


def table2(profile="paper", expansions=None, seeds=None):
    """Table 2: ResNet-18d on ImageNet, plain and with LC-Blocks, frozen and learnable."""
    grid = grid_of(IMAGENET_GRIDS, profile, expansions=expansions, seeds=seeds)
    models = ["ResNet-18d", *(f"ResNet-18d-LCx{e}" for e in grid.expansions)]
    return pairs(models, grid.dataset, grid.recipe, grid.seeds, ImageNetRun)

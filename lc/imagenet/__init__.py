"""The ImageNet sections: off-the-shelf networks (Figure 1b) and ResNet-18d with LC-Blocks (Table 2), on any image folder.

Networks, LAMB, Mixup, RandAugment, repeated augmentation and the schedule are timm's; what is said here is which, with which
values, and what is frozen.
"""

from .networks import NETWORKS, build_model
from .recipe import RECIPES, Recipe, Run

__all__ = ["NETWORKS", "RECIPES", "Recipe", "Run", "build_model"]

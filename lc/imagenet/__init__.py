"""The ImageNet sections: off-the-shelf networks (Figure 1b) and ResNet-18d with LC-Blocks (Table 2), on any image folder.

Networks, LAMB, Mixup, RandAugment, repeated augmentation and the schedule are timm's; what is said here is which, with which
values, and what is frozen.
"""

import warnings

from .networks import NETWORKS, build_model
from .run import RECIPES, Recipe, Run

warnings.filterwarnings("ignore", "IProgress not found")  # of a progress bar for notebooks that timm imports and nobody sees

__all__ = ["NETWORKS", "RECIPES", "Recipe", "Run", "build_model"]

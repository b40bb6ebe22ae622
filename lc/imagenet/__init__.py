"""The ImageNet sections: off-the-shelf networks (Figure 1b) and ResNet-18d with LC-Blocks (Table 2), on any image folder.

Networks, LAMB, Mixup, RandAugment, repeated augmentation and the schedule are timm's. This folder chooses among them, sets
their values, and freezes the spatial convolutions.
"""

from .networks import NETWORKS, build_imagenet_model
from .run import RECIPES, ImageNetRecipe, ImageNetRun

__all__ = ["NETWORKS", "RECIPES", "ImageNetRecipe", "ImageNetRun", "build_imagenet_model"]

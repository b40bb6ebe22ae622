"""The ImageNet sections: Figure 1b and Table 2, on any image folder.

Networks, LAMB, Mixup, RandAugment, repeated augmentation and the schedule are timm's.
"""

from .networks import NETWORKS, build_imagenet_model
from .run import RECIPES, ImageNetRecipe, ImageNetRun

__all__ = ["NETWORKS", "RECIPES", "ImageNetRecipe", "ImageNetRun", "build_imagenet_model"]

"""What an ImageNet run is: a network, an image folder, frozen or learnable, a recipe, a seed."""

import math
from dataclasses import dataclass, replace

from ..run import Run, check_part, complete
from ..utils import check
from .networks import parse

SIZES = {  # classes, training images
    "imagenet": (1000, 1_281_167),
    "tiny-imagenet-40": (40, 20_000),
    "digits-folder": (10, 1_437),
}


@dataclass(frozen=True)
class ImageNetRecipe:
    """The hyperparameters of a training on images. The defaults are procedure A2 (Appendix A).

    Sources: [RSB] Wightman, Touvron and Jegou, "ResNet strikes back" (2021), Table 2, column A2;
    [timm] where the table leaves a value open, its authors' command for timm's training script, or
    that script's default. LAMB has timm's defaults: betas 0.9 and 0.999, eps 1e-6, gradient norm at
    most 1. There is no moving average, label smoothing, colour jitter, random erasing or dropout.
    The checkpoint with the best top-1 accuracy counts.

    Raises:
        ValueError: if nothing can be trained with a value.
    """

    profile: str = "a2"  # part of a run's id: change it with any other value
    image_size: int = 224  # pixels, in training and validation [RSB]
    crop_ratio: float = 0.95  # validation: the centre of an image of image_size / crop_ratio [RSB]
    epochs: int = 300  # [RSB]
    batch_size: int = 2048  # of an optimiser step, over all processes [RSB]
    learning_rate: float = 5e-3  # of LAMB, at the end of the warm-up [RSB]
    warmup_epochs: int = 5  # linear, counted in `epochs` [RSB]
    warmup_learning_rate: float = 1e-4  # at its start [timm]
    min_learning_rate: float = 1e-6  # at the end of the cosine [timm]
    step_on_epochs: bool = True  # when the learning rate changes; else at each step [timm]
    weight_decay: float = 0.02  # not on biases and normalisation [RSB; timm]
    target_threshold: float = 0.2  # BCE: a mixed label above it counts as 1, others as 0 [timm]
    drop_path: float = 0.05  # stochastic depth [RSB]
    repeats: int = 3  # repeated augmentation: a third of the images, each three times [RSB; timm]
    rand_augment: str | None = "rand-m7-mstd0.5-inc1"  # 7 / 0.5 [RSB; timm]
    mixup: float = 0.1  # alpha [RSB]
    cutmix: float = 1.0  # alpha; a mini-batch has one of the two, probability 1/2 [RSB; timm]
    classes: int | None = None  # only the first n classes, by name
    images_per_class: int | None = None  # only the first n training images of each class, by name
    min_crop: float = 0.08  # smallest part of the image's area in a training crop [timm]
    # of training images: "bilinear", "bicubic", or "random", which is one of the two [timm]
    interpolation: str = "random"

    def __post_init__(self):
        check_part(self.profile)
        if self.interpolation not in ("bilinear", "bicubic", "random"):
            raise ValueError("interpolation must be bilinear, bicubic or random, not "
                             f"{self.interpolation!r}")
        check.fields(self, check.integer, "epochs batch_size repeats classes images_per_class")
        check.fields(self, check.integer, "image_size", 32)
        check.fields(self, check.integer, "warmup_epochs", 0, self.epochs - 1)
        check.fields(self, check.number, "learning_rate", 0, math.inf, "()")
        check.fields(self, check.number, "crop_ratio min_crop", 0, 1, "(]")
        check.fields(self, check.number, "target_threshold drop_path", 0, 1, "[)")
        check.fields(self, check.number, "warmup_learning_rate min_learning_rate weight_decay "
                     "mixup cutmix", 0, math.inf, "[)")


_SHORT = ImageNetRecipe(
    "short", image_size=64, epochs=20, batch_size=256, warmup_epochs=2, step_on_epochs=False,
    drop_path=0.0, repeats=1, rand_augment=None, mixup=0.0, cutmix=0.0, min_crop=0.35,
    interpolation="bicubic")
RECIPES = {
    "a2": ImageNetRecipe(),
    # a small data set in minutes on a GPU: A2's regularisation would need more epochs
    "short": _SHORT,
    # shows the direction of the effect, on two CPU cores
    "quick": replace(
        _SHORT, profile="quick", classes=10, images_per_class=154, epochs=5, batch_size=128,
        learning_rate=1e-2, warmup_epochs=1),
    # only shows that everything runs, in seconds
    "smoke": replace(
        _SHORT, profile="smoke", image_size=32, images_per_class=16, epochs=2, batch_size=32,
        warmup_epochs=0),
}


@dataclass(frozen=True)
class ImageNetRun(Run):
    """One training run on images: as `lc.Run`, with other names.

    The model is one that `build_imagenet_model` knows, the data set an image folder (see
    `images.find`), and the recipe an `ImageNetRecipe` or the name of one of `RECIPES`.
    """

    recipe: ImageNetRecipe = ImageNetRecipe()

    def __post_init__(self):
        parse(self.model)
        complete(self, self.model, ImageNetRecipe, RECIPES)

    @property
    def training_images(self):
        """The images of one epoch. A folder of your own counts as large as ImageNet."""
        classes, images = SIZES.get(self.dataset, SIZES["imagenet"])
        of_a_class = min(self.recipe.images_per_class or math.inf, images / classes)
        return (self.recipe.classes or classes) * of_a_class

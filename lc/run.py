"""What a training run is, and what it leaves behind."""

import math
import re
from dataclasses import dataclass, field, fields, replace

from .data import TRAINING_IMAGES
from .names import architecture, canonical_name
from .utils import check

PRECISIONS = "auto", "fp32", "bf16"
DECAYED = "factors", "spatial", "pointwise", "product"
PART = r"\w[\w.-]*"  # of an id, and so of a path: never ".."
ID = re.compile(rf"{PART}/\w[\w.+~-]*/(frozen|learnable)/{PART}/seed\d+")


class TrainingError(RuntimeError):
    """A run could not be trained to its end. Nothing of it is recorded."""


class Stopped(Exception):
    """A run was asked to stop before its end. Its checkpoint, if any, holds what was done."""


def check_part(value):
    """Raises ValueError if the value cannot be part of a run's id."""
    if not re.fullmatch(PART, value if isinstance(value, str) else ""):
        raise ValueError(f"{value!r} cannot be part of a run's id: use letters, digits, . _ -")


@dataclass(frozen=True)
class Recipe:
    """The hyperparameters of a training, by default the paper's at low resolution (Appendix A).

    SGD with Nesterov momentum; the learning rate falls along a cosine; the last checkpoint is
    evaluated. Where the paper says nothing, the choice is ours: the rate falls to 0 step by step,
    and every learned parameter decays.

    Raises ValueError if nothing can be trained with a value.
    """

    profile: str = "paper"  # names the recipe in a run's id: with other values, use another name
    epochs: int = 75
    batch_size: int = 256  # the smaller last mini-batch is kept
    learning_rate: float = 1e-2
    momentum: float = 0.9
    weight_decay: float = 1e-2
    # What it acts on in LC-Blocks: both factors, one of them, or only their product. The text of a
    # run, which checkpoints compare, leaves it out: the profile names it.
    decayed: str = field(default="factors", repr=False, kw_only=True)
    label_smoothing: float = 0.1
    train_images: int | None = None  # only the first n
    test_images: int | None = None  # only the first n
    # "auto" leaves it to the device and --precision. "fp32" also disables CUDA graphs.
    precision: str = "auto"

    def __post_init__(self):
        check_part(self.profile)
        check.fields(self, check.integer, "epochs batch_size train_images test_images")
        check.fields(self, check.number, "learning_rate", 0, math.inf, "()")
        check.fields(self, check.number, "momentum", 0, 1, "()")
        check.fields(self, check.number, "weight_decay", 0, math.inf, "[)")
        check.fields(self, check.number, "label_smoothing", 0, 1)
        for name, known in (("precision", PRECISIONS), ("decayed", DECAYED)):
            if (value := getattr(self, name)) not in known:
                raise ValueError(f"{name} must be one of {', '.join(known)}, not {value!r}")


# From the paper's to the smallest
PROFILES = {
    "paper": Recipe(),
    # nearly the paper's number of steps (11,730 of 14,700), in a fifth of its epochs
    "short": Recipe("short", epochs=15, batch_size=64),
    # shows the direction of the effect, in minutes on a CPU core
    "quick": Recipe("quick", epochs=4, batch_size=32, train_images=5000, test_images=2000),
    # only shows that everything runs, in seconds
    "smoke": Recipe("smoke", epochs=4, batch_size=32, train_images=512),
}
# The end of a profile's name
DECAY = re.compile(rf"(\w+)-decay((?P<value>[1-9]e-[1-9])|-(?P<part>{'|'.join(DECAYED[1:])}))")


@dataclass(frozen=True)
class Run:
    """One training run. `cifar10/ResNet-LC-20-16x128/frozen/paper/seed0` is such a run's `id`.

    Args:
        model: a name that `build_model` knows; kept in its canonical spelling.
        dataset: a name that `load_data` knows.
        frozen: whether the spatial convolutions stay at their random initialisation.
        recipe: a `Recipe`, or the name of a profile.

    Raises ValueError if a name or a value is not right, a recipe differs from the profile whose
    name it has, or the product is to decay in a network that has none.
    """

    model: str
    dataset: str
    frozen: bool
    seed: int
    recipe: Recipe = Recipe()

    def __post_init__(self):
        complete(self, canonical_name(self.model), Recipe, PROFILES)
        if self.recipe.decayed == "product" and self.architecture.between:
            raise ValueError(f"{self.model} has operations between the convolutions of its "
                             "LC-Blocks, so there is no product to decay: choose another recipe")

    @property
    def id(self):
        return run_id(self.dataset, self.model, self.frozen, self.recipe.profile, self.seed)

    @property
    def architecture(self):
        """The `names.Architecture` of its network."""
        return architecture(self.model)

    @property
    def training_images(self):
        """The images of one epoch. A data set of your own counts as large as CIFAR."""
        return min(self.recipe.train_images or math.inf, TRAINING_IMAGES.get(self.dataset, 50_000))


def complete(run, model, kind, profiles):
    """Checks a new run, and sets its network's name and its recipe, of class `kind`."""
    if not isinstance(run.recipe, kind):
        object.__setattr__(run, "recipe", recipe_named(run.recipe, profiles))
    object.__setattr__(run, "model", model)
    check_part(run.dataset)
    if not isinstance(run.frozen, bool):  # 1 would be read back from a row as another value
        raise ValueError(f"frozen must be True or False, not {run.frozen!r}")
    if find_recipe(run.recipe.profile, profiles) not in (None, run.recipe):
        raise ValueError(f"this recipe is not the profile {run.recipe.profile!r}: "
                         "give it a profile name of its own")
    check.fields(run, check.integer, "seed", 0, 2 ** 63 - 1)


def run_id(dataset, model, frozen, profile, seed):
    """A run's key in the results."""
    return f"{dataset}/{model}/{'frozen' if frozen else 'learnable'}/{profile}/seed{seed}"


def recipe_named(profile, known=PROFILES):
    """The recipe of a profile. Raises ValueError if it is unknown.

    At low resolution the name may end in another weight decay, as "short-decay1e-3", or in what it
    acts on in LC-Blocks, as "short-decay-spatial".
    """
    recipe = find_recipe(profile, known) if isinstance(profile, str) else None
    if recipe is None:
        raise ValueError(f"unknown profile {profile!r}; known: {', '.join(known)}")
    return recipe


def find_recipe(profile, known):
    """As `recipe_named`, but None if the name is free for a recipe of your own."""
    parsed = DECAY.fullmatch(profile)
    recipe = known.get(parsed[1]) if parsed else None
    if not isinstance(recipe, Recipe):
        return known.get(profile)
    if parsed["part"]:
        return replace(recipe, profile=profile, decayed=parsed["part"])
    decay = float(parsed["value"])
    same = decay == recipe.weight_decay
    return recipe if same else replace(recipe, profile=profile, weight_decay=decay)


@dataclass
class Result:
    """What a run leaves: its row in `results/runs.csv`, small arrays, and the trained network."""

    id: str
    model: str
    dataset: str
    frozen: bool
    profile: str
    seed: int
    accuracy: float  # percent of the test images
    robust_accuracy: float  # percent, under FGSM with eps = 1/255 (Section 4.1)
    train_loss: float  # mean of the last epoch
    learnable_parameters: int
    total_parameters: int
    fve_first: float  # filter variance entropy H of the first spatial layer's combined filters
    fve_last: float
    fve_first_normalized: float  # divided by the randomness threshold; nan unless 3x3
    fve_last_normalized: float
    epochs: int
    train_images: int
    seconds: float  # the whole run: set-up, training, evaluation
    images_per_second: float  # of training alone
    device: str
    precision: str
    torch: str
    git: str
    accuracy_top5: float = math.nan  # percent with the right class among the first five
    setup_seconds: float = math.nan  # of `seconds`, those before the first step
    train_accuracy: float = math.nan  # percent of the first 10,000 training images, not augmented
    # {name: numpy array}: see `filters.summarize`
    arrays: dict = field(default_factory=dict, repr=False, compare=False)
    network: object = field(default=None, repr=False, compare=False)
    classes: tuple = field(default=(), repr=False, compare=False)  # their names
    mean: tuple = field(default=(), repr=False, compare=False)  # of images in [0, 1], by channel
    std: tuple = field(default=(), repr=False, compare=False)

    def row(self):
        """The columns of `results/runs.csv`."""
        return {name: getattr(self, name) for name in COLUMNS}


COLUMNS = {f.name: f.type for f in fields(Result) if f.compare}
# Columns that older rows lack, nan there
OPTIONAL = {"accuracy_top5", "setup_seconds", "train_accuracy"}

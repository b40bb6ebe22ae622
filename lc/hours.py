"""How long runs take on a device, by its rows of the same network or of the most similar ones."""

import math
import time
from dataclasses import replace
from functools import cache
from heapq import nsmallest
from statistics import median

import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from . import results
from .experiments import GRIDS
from .imagenet.run import RECIPES, ImageNetRun
from .models import build_model
from .run import PROFILES, Recipe, Run, find_recipe
from .utils.device import device_name, own_randomness, resolve_precision, said_name, to_device
from .utils.log import log

MEASURED = Run("ResNet-8-16", "cifar10", False, 0, "quick")
COUNTED = 64  # pixels of the images for which an ImageNet network's operations are counted


def estimator(device, folder=None):
    """A function that estimates the seconds of a run on a device, and its source as text.

    The seconds an image come from the device's rows of the same network, of the same profile if
    there are any. Without them, they come from the three rows of the networks nearest in cost, in
    proportion to the cost. Without any row of the device, ten steps are measured.
    """
    name = device_name(device)
    rows = [row for row in results.load_rows(folder).values() if row["device"] == name]
    known = [(run, row["seconds"] / _pixels(run)) for row in rows if (run := _run_of(row))]
    source = "rows of this device"
    if not known:
        known, source = [(MEASURED, _measured(device))], f"ten steps of {MEASURED.model} just now"

    def seconds(run):
        same = [(other, rate) for other, rate in known
                if (type(other), other.model) == (type(run), run.model)]
        if same:
            profile = [(other, rate) for other, rate in same
                       if other.recipe.profile == run.recipe.profile]
            return _pixels(run) * median(rate for _, rate in profile or same)
        family = known
        if run.architecture.depth:  # counting the operations of the other networks takes seconds
            family = [pair for pair in known if pair[0].architecture.depth] or known

        def distance(pair):
            other, _ = pair
            return (other.recipe.profile != run.recipe.profile,
                    abs(math.log(cost(other) / cost(run))))

        nearest = nsmallest(3, family, key=distance)
        return _pixels(run) * cost(run) * median(rate / cost(other) for other, rate in nearest)

    return seconds, source


def _run_of(row):
    """The run of a row, or None if nothing is known of its images or its network."""
    what = [row[column] for column in ("model", "dataset", "frozen", "seed")]
    profile = row["profile"]
    if math.isnan(row["accuracy_top5"]):
        own = Recipe(profile, epochs=row["epochs"], train_images=row["train_images"])
        return Run(*what, find_recipe(profile, PROFILES) or own)
    return ImageNetRun(*what, profile) if profile in RECIPES else None


def _pixels(run):
    """What the run's time grows with: the images of all epochs, on ImageNet times their pixels."""
    return run.training_images * run.recipe.epochs * getattr(run.recipe, "image_size", 1) ** 2


@cache
def cost(run):
    """About the operations of one forward pass on an image, on ImageNet on one of its pixels."""
    depth, width, expansion, kernel, between, *_ = run.architecture
    name = run.model.partition("-LCx")[0]
    if depth:
        image, combining = 2 * 32 ** 2 * width ** 2 * kernel ** 2 * (depth - 2), width / 42
    elif isinstance(run, ImageNetRun):
        image = _operations(name, True) / COUNTED ** 2
        combining = 3 * (224 / run.recipe.image_size) ** 2
    else:
        image, combining = _operations(name, False), 1.0
    if between:  # every image passes E times as many filters
        return image * expansion
    # filters are combined once a mini-batch
    return image * (1 + combining * expansion / min(256, run.recipe.batch_size))


@cache
def _operations(name, imagenet):
    """The operations of a forward pass of a network off the shelf on an image."""
    if imagenet:
        from .imagenet.networks import build_imagenet_model as build  # timm takes seconds to import
    else:
        build = build_model
    size = COUNTED if imagenet else 32
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        build(name).eval()(torch.empty(1, 3, size, size))
    return counter.get_total_flops()


def _measured(device, steps=10):
    """Seconds an image of a training without the optimiser, whose import takes a second."""
    batch = 2048 if device.type == "cuda" else 32  # a small one would measure launches of kernels
    bf16 = resolve_precision("auto", device) == "bf16"
    with own_randomness(0, device), torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        network = to_device(build_model(MEASURED.model), device)
        images = torch.randn(batch, 3, 32, 32, device=device)
        labels = torch.zeros(batch, dtype=torch.int64, device=device)
        for step in range(1 + steps):
            if step == 1:  # the first one allocates memory
                began = time.perf_counter()
            loss = F.cross_entropy(network(images), labels)
            loss.backward()
            loss.item()  # waits for the device
    return (time.perf_counter() - began) / (steps * batch)


def announce(runs, device, folder=None, workers=1, gpus=1):
    """Prints how many runs there are, on which device, and about how long they all take.

    Where that is more than an hour on a CPU, it names the largest profile in which these networks
    take less. It prints nothing if there is no run.

    Args:
        workers: the number of processes. They share the threads of a CPU. On a GPU each is taken to
            be as fast as all that share it.
        gpus: on how many GPUs they are.

    Returns:
        The seconds that each run adds to the time of all.
    """
    if not runs:
        return []
    at_once, threads = (gpus if device.type == "cuda" else workers), torch.get_num_threads()
    try:
        if device.type == "cpu":
            torch.set_num_threads(max(1, threads // workers))
        seconds, source = estimator(device, folder)
        name = said_name(device)
    finally:
        torch.set_num_threads(threads)
    expected = [seconds(run) / at_once for run in runs]
    said = f"{len(runs)} run{'s' * (len(runs) > 1)} on {f'{gpus} x ' * (gpus > 1)}{name}"
    said += f", by {workers} workers" * (workers > 1)
    said += f": about {_words(sum(expected))}, estimated from {source}."
    if device.type == "cpu" and sum(expected) > 3600:
        for profile in list(GRIDS)[1:]:
            smaller = sum(seconds(replace(run, recipe=profile)) for run in runs) / at_once
            if smaller < 3600:
                said += f" The profile {profile} would take about {_words(smaller)}."
                break
    print(said, flush=True)
    return expected


def _words(seconds):
    if seconds >= 3600:
        return f"{seconds / 3600:.1f} hours"
    return f"{max(1, round(seconds / 60))} min"


def log_run(i, runs, expected, began):
    """Logs that the i-th of some runs begins, and about when the last one ends.

    Args:
        expected: the seconds of each run.
        began: when the first began, by `time.monotonic`.
    """
    done = sum(expected[:i])
    pace = (time.monotonic() - began) / done if done else 1.0
    ends = time.localtime(time.time() + pace * sum(expected[i:]))
    log("run %d of %d: %s; the last ends at about %s", i + 1, len(runs), runs[i].id,
        time.strftime("%Y-%m-%d %H:%M", ends))

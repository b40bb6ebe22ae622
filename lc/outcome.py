"""What a trained network leaves: its accuracies, its filters and its row of the results."""

import math

import numpy as np
import torch
from torch import nn

from . import evaluate, filters
from .blocks import fold
from .data import to_unit
from .run import Result


def measure(network, data, recipe, device):
    """What the evaluation of a trained network leaves, as arguments of `to_result`.

    Its `answers` have one bit a test image: whether its class was found, clean and attacked.
    """
    attacked = nn.Sequential(evaluate.Normalize(data.mean, data.std), fold(network)).to(device)

    def first(images, labels, n):
        return to_unit(images[:n].to(device)), labels[:n].to(device)

    test = first(data.x_test, data.y_test, recipe.test_images)
    train = first(data.x_train, data.y_train, min(10_000, recipe.train_images or 10_000))
    right = evaluate.right(attacked, *test)
    robust = evaluate.right(attacked, *test, eps=1 / 255)
    return {"accuracy": evaluate.percent(right), "robust_accuracy": evaluate.percent(robust),
            "train_accuracy": evaluate.accuracy(attacked, *train),
            "answers": {"right": np.packbits(right.cpu()), "robust": np.packbits(robust.cpu())}}


def to_result(run, network, trained, spent, images, answers, **measured):
    """The `Result` of a run.

    Args:
        network, trained: the one that was evaluated, whose filters are summarised, and the one
            whose parameters are counted.
        spent: of a `Meter`.
        images: how many were seen in training, over all epochs.
        answers, measured: further arrays and columns.
    """
    first, *_, last = filters.combined_filters(network).values()
    normalized = [filters.variance_entropy(w, normalize=True) if w.shape[-1] == 3 else math.nan
                  for w in (first, last)]
    parameters = list(trained.parameters())
    return Result(
        id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen,
        profile=run.recipe.profile, seed=run.seed,
        learnable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        total_parameters=sum(p.numel() for p in parameters),
        fve_first=filters.variance_entropy(first), fve_last=filters.variance_entropy(last),
        fve_first_normalized=normalized[0], fve_last_normalized=normalized[1],
        epochs=run.recipe.epochs, seconds=spent["seconds"],
        images_per_second=images / spent["training"], torch=torch.__version__,
        setup_seconds=spent["setup"], arrays=filters.summarize(network) | answers, network=network,
        **measured)

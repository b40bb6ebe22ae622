"""What the results have, what they lack, and how long the rest would take on this device."""

import math
from functools import cache, cached_property
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from .. import results, study
from ..utils.device import device_name, resolve_device

def report(experiments=(), profile=None, folder=None, device="auto"):
    """Yields the state of each experiment as lines of text; where a profile is named, also the ids of its missing runs.

    Hours are those of one run after another, judged by this device's rows: of the same network in the same profile where
    there are any, else in proportion to the floating-point operations of a forward pass.

    Raises:
        ValueError: for an unknown experiment, profile or device, or a damaged store.
    """
    study.everything(profile or "paper", experiments)  # checks the names
    runs = {(chosen, name): study.everything(chosen, [name])
            for chosen in ([profile] if profile else study.PROFILES) for name in experiments or study.EXPERIMENTS}
    rows, name = results.load_rows(folder), device_name(resolve_device(device))
    seconds = _Seconds([row for row in rows.values() if row["device"] == name])
    yield f"{'experiment':12} {'profile':8} {'rows':>4} {'runs':>5} {'hours left':>11}"
    for (chosen, experiment), wanted in runs.items():
        missing = [run for run in wanted if run.id not in rows]
        hours = sum(map(seconds, missing)) / 3600
        left = "-" if not missing else "?" if math.isnan(hours) else f"{hours:.2f}"
        yield f"{experiment:12} {chosen:8} {len(wanted) - len(missing):4} {len(wanted):5} {left:>11}"
        if profile:
            yield from (f"  missing: {text}" for text in study.by_seeds(missing))
    yield (f"hours: on {name}, from its rows" if seconds.rows else
           f"hours: not known, since no row is of this device ({name}); train a run here to have them estimated")
    if not profile:
        yield "--profile NAME lists the missing runs"


def spent(rows):
    """What runs took in sum, whoever trained them at the same time: seconds of set-up, of training, and of evaluation.

    Args:
        rows: an iterable of rows, as `results.load_rows` gives them. One without `setup_seconds` makes set-up and evaluation nan.
    """
    parts = [(row["seconds"], row["setup_seconds"], row["epochs"] * row["train_images"] / row["images_per_second"])
             for row in rows]
    seconds, setup, training = (sum(part) for part in zip(*parts)) if parts else (0.0, 0.0, 0.0)
    return setup, training, seconds - setup - training


class _Seconds:
    """Estimates the seconds of a run on the device that `rows` are of; nan without any."""

    def __init__(self, rows):
        self.rows = rows
        self.known = {(row["model"], row["dataset"], row["profile"]): row["seconds"] for row in rows}

    def __call__(self, run):
        return (self.known.get((run.model, run.dataset, run.recipe.profile))
                or self.per_operation * flops(run) * run.training_images * run.recipe.epochs)

    @cached_property
    def per_operation(self):
        kinds = {(run.model, run.dataset, run.recipe.profile): run for name in study.PROFILES for run in study.everything(name)}
        by_kind = {kinds[kind]: seconds for kind, seconds in self.known.items() if kind in kinds}
        return median(seconds / run.training_images / run.recipe.epochs / flops(run) for run, seconds in by_kind.items()) if by_kind \
            else math.nan


@cache
def flops(run):
    """Floating-point operations of a forward pass in training for one image, with folding once a mini-batch."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        network, shape = run.sample()
        network.train()(torch.empty(shape))
    return counter.get_total_flops() / shape[0]

"""Training one network by the paper's recipe (Appendix A), from its initialisation to its row of the results."""

import math
import time
import warnings
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import nn

from . import evaluate, filters, fused
from .blocks import fold, freeze_spatial
from .checkpoint import Checkpoint, CheckpointError
from .data import data_folder, load_data, to_unit
from .machine import device_name, energy_meter, git_version, out_of_memory, resolve_device, resolve_precision
from .models import build_model
from .progress import Progress
from .run import Result, Run
from .trainer import Trainer, TrainingError


TRAIN_ACCURACY_IMAGES = 10_000


class Stopped(Exception):
    """A run that was asked to stop before its end; its checkpoint, if it has one, holds what was done."""


def train(run, *, data_dir=None, device="auto", precision="auto", graph=True, fuse=False, progress=None, label="",
          checkpoint=None, stop=None):
    """Train and evaluate one run.

    Args:
        run: a `Run`.
        data_dir: as for `load_data`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: "fp32", "bf16" (autocast; weights, their combination and the optimiser stay fp32), or "auto": bf16
            where the device computes it natively. A recipe's own precision takes its place. Evaluation never uses autocast.
        graph: on a GPU, run each step as one CUDA graph; this and `fuse` not where the recipe's own precision is "fp32".
        fuse: compile what stands between a CIFAR-ResNet's convolutions, and the augmentation; for a GPU, a CPU is slower so.
        progress: show a progress line; by default where a person watches.
        label: stands before the progress line.
        checkpoint: a file. It is written every two minutes, and a training that finds it goes on from there; deleting it
            when the result is recorded is the caller's.
        stop: a function, asked after every step; when it says True, the checkpoint is written and the training ends.

    Returns:
        A `Result` with the row for `results/runs.csv`, the arrays for `results/filters/` and the trained network.
        On one machine's CPU, the same run gives the same bits, in one go or in several.

    Raises:
        ValueError: no `Run`, unknown device, precision or data set, nothing to compile with, or a checkpoint that is damaged or
            of another run, before any training.
        TrainingError: a loss that is not finite, or out of memory.
        Stopped: `stop` said so.
    """
    if not isinstance(run, Run):
        raise ValueError(f"train takes an lc.Run, such as lc.Run('ResNet-20-16', 'cifar10', frozen=True, seed=0), not {run!r}")
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    if run.recipe.precision != "auto":
        precision = run.recipe.precision
        graph, fuse = graph and precision != "fp32", fuse and precision != "fp32"
    if fuse:
        fused.check(device)
    kept = Checkpoint(checkpoint, f"{run}, {precision}, {device.type}")
    saved = kept.load()
    meter = Meter(device)
    data = _data(run.dataset, data_dir)

    def after_step():
        stopping = stop is not None and stop()
        if stopping or kept.due():
            meter.lap("training")
            kept.save({"trainer": trainer.state(), "spent": meter.spent})
        if stopping:
            raise Stopped(run.id)

    try:
        with own_randomness(run.seed, device):
            network = build_model(run.model, len(data.classes), data.channels)
            if run.frozen:
                freeze_spatial(network)
            trainer = Trainer(network, data, run.recipe, run.seed, device, precision, fuse)
            if graph and device.type == "cuda":
                _capture_or_say(trainer, run)
            if saved:
                trainer.load(saved["trainer"])
                meter.add(saved["spent"])
            meter.lap("setup")
            total = trainer.n * run.recipe.epochs
            with Progress(total, f"{label}{run.id}", progress, trainer.images_done()) as bar:
                while trainer.epochs < run.recipe.epochs:
                    loss = trainer.epoch(bar, after_step)
            meter.lap("training")
        accuracies = _accuracies(network.eval(), data, run.recipe, device)
    except TrainingError as error:
        raise TrainingError(f"{run.id}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from None
    except RuntimeError as error:
        if out_of_memory(error):
            raise TrainingError(f"{run.id}: out of memory on {device}; nothing was recorded. Use a device with more "
                                "memory or stop what else runs there") from error
        raise
    meter.lap()
    return to_result(run, network, network, meter.spent, **accuracies, train_loss=loss,
                     train_images=trainer.n, images=total, device=device_name(device), precision=precision)


def to_result(run, network, trained, spent, images, **measured):
    """The `Result` of a run.

    Args:
        network: what was evaluated, and whose filters are looked at.
        trained: the network that was trained, whose parameters are counted; the same, or with other weights or LC-Blocks.
        spent: of a `Meter`.
        images: seen in training, over all epochs.
        measured: the other columns.
    """
    arrays = filters.summarize(network)
    weights = list(filters.combined_filters(network).values())
    normalized = [filters.variance_entropy(w, normalize=True) if w.shape[-1] == 3 else float("nan")
                  for w in (weights[0], weights[-1])]
    parameters = list(trained.parameters())
    return Result(
        id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen, profile=run.recipe.profile, seed=run.seed,
        learnable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        total_parameters=sum(p.numel() for p in parameters),
        fve_first=float(arrays["fve"][0]), fve_last=float(arrays["fve"][-1]),
        fve_first_normalized=normalized[0], fve_last_normalized=normalized[1],
        epochs=run.recipe.epochs, seconds=spent["seconds"], images_per_second=images / spent["training"],
        torch=torch.__version__, git=git_version(), energy=spent["energy"], setup_seconds=spent["setup"], arrays=arrays,
        network=network, **measured)


class Meter:
    """What a run costs: seconds, those of set-up and of training among them, and watt hours; from before it was cut off, too."""

    def __init__(self, device):
        began = time.monotonic()  # before the meter starts the driver of a GPU
        self.energy = energy_meter(device)
        self.spent = {"seconds": 0.0, "setup": 0.0, "training": 0.0, "energy": 0.0}
        self.last = began, self.energy()

    def lap(self, part=None):
        """Count what was spent since the last lap, on "setup", "training" or anything else."""
        before, self.last = self.last, (time.monotonic(), self.energy())
        seconds, energy = self.last[0] - before[0], self.last[1] - before[1]
        self.add({"seconds": seconds, "setup": seconds * (part == "setup"), "training": seconds * (part == "training"),
                  "energy": energy})

    def add(self, spent):
        """Count what else was spent; a part that is not told of makes its sum unknown (nan)."""
        self.spent = {name: self.spent[name] + spent.get(name, math.nan) for name in self.spent}


@contextmanager
def own_randomness(seed, device):
    """PyTorch's generators, seeded, as they were afterwards: initialisation and dropout draw from them."""
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in cuda)):
            generator.manual_seed(seed)
        yield


def _data(name, data_dir):
    """As `load_data`; for the runs of a sweep, a file is read once, as long as it stays the same."""
    folder = data_folder(data_dir)
    path = folder / f"{name}.npz"
    return _read_once(name, folder, path.stat().st_mtime_ns if path.exists() else None)


@lru_cache(maxsize=1)
def _read_once(name, folder, changed):
    return load_data(name, folder)


def _accuracies(network, data, recipe, device):
    """Clean and robust accuracy in percent of the recipe's test images, and clean of its first training images."""
    attacked = nn.Sequential(evaluate.Normalize(data.mean, data.std), fold(network)).to(device)
    seen = slice(min(TRAIN_ACCURACY_IMAGES, recipe.train_images or len(data.x_train)))
    test, train = ((to_unit(x[part].to(device)), y[part].to(device))
                   for x, y, part in ((data.x_test, data.y_test, slice(recipe.test_images)), (data.x_train, data.y_train, seen)))
    return {"accuracy": evaluate.accuracy(attacked, *test),
            "robust_accuracy": evaluate.fgsm_accuracy(attacked, *test, eps=1 / 255),
            "train_accuracy": evaluate.accuracy(attacked, *train)}


def _capture_or_say(trainer, run):
    try:
        trainer.capture()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        trainer.graphs.clear()
        warnings.warn(f"{run.id}: no CUDA graph could be captured ({error}); training step by step, which is slower")

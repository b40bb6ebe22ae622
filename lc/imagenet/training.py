"""Training on images, with one process or many: each epoch validates, and the best one counts."""

from copy import deepcopy
from math import isfinite, nan
from statistics import fmean

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN  # for any data set, as timm does
from timm.data import IMAGENET_DEFAULT_STD as STD
from timm.utils import distribute_bn
from torch import nn
from tqdm.auto import tqdm

from .. import evaluate
from ..blocks import fold
from ..conversion import freeze_spatial
from ..data import DataError
from ..outcome import to_result
from ..run import Stopped, TrainingError
from ..training import named_errors
from ..utils import check
from ..utils.checkpoint import Checkpoint, CheckpointError
from ..utils.device import (Meter, arithmetic, check_defaults, device_name, own_randomness,
                            resolve_precision)
from .images import find, open_folder, training_batches, validation_batches
from .networks import build_imagenet_model, parse
from .processes import gathered, joined, rank, world
from .run import ImageNetRun
from .step import ImageNetTrainer

BATCH = 256  # images of a process at a time: A2's batch of 2048 on eight GPUs


def train_imagenet(run, *, data=None, data_dir=None, device="auto", precision="auto", batch=None,
                   workers=None, progress=None, label="", log=None, checkpoint=None, stop=None):
    """Trains and evaluates one run. Under `torchrun`, all processes train it together.

    Args are as for `lc.train`, but:
        run: an `ImageNetRun`.
        data: the image folder, by default that of the run's data set: see `images.find`.
        device: each of several processes takes the GPU of its local rank.
        precision: also "fp16" with a gradient scaler: "auto" on a GPU, as in A2.
        batch: images of a process at a time, over which BatchNorm normalises, by default at most
            256. Gradients accumulate to the recipe's batch.
        workers: each process's workers that read images, by default 8 on a GPU, none on a CPU.
        log: is called with a line of text after each epoch.
        checkpoint: is written after each epoch. All processes must see it.
        stop: for a single process. It writes no checkpoint.

    Returns:
        A `Result`, whose accuracies and folded network are those of the epoch with the best top-1
        accuracy. With as many processes and workers, a CPU gives the same bits, interrupted or not.

    Raises:
        ValueError: as `lc.train`, or if the batch does not divide the recipe's or the image folder
            is incomplete; later, if an image cannot be read.
        TrainingError, Stopped: as `lc.train`.
    """
    if not isinstance(run, ImageNetRun):
        raise ValueError(f"train_imagenet takes an lc.imagenet.ImageNetRun, not {run!r}")
    check_defaults()
    with joined(device) as device:
        on_gpu = device.type == "cuda"
        if precision == "auto" and on_gpu:
            precision = "fp16"
        precision = resolve_precision(precision, device, "fp16")
        batch = _mini_batch(run.recipe, batch)
        torch.backends.cudnn.benchmark |= on_gpu  # as timm: the images' sizes do not change
        workers = (8 if on_gpu else 0) if workers is None else check.integer("workers", workers, 0)
        train, val = open_folder(data or find(run.dataset, data_dir), run.recipe)
        kept = Checkpoint(checkpoint, f"{run}, {len(train.classes)} classes, batches of {batch}, "
                                      f"{precision}, {device.type}")
        saved = kept.load()
        if len(set(gathered(saved and saved["epochs"]))) > 1:
            raise CheckpointError(f"{kept.path}: not all processes see the same checkpoint; the "
                                  "results must lie on a file system that all nodes share")
        way_out = "Use a smaller --batch: the recipe's is kept, by accumulating gradients"
        try:
            with (named_errors(run, device, way_out), own_randomness(run.seed, device),
                  arithmetic(precision, device)):
                training = Training(run, train, val, device, precision, batch, workers)
                if saved:
                    training.load(saved)
                hidden = None if progress is None else not progress  # None: a terminal shows it
                with tqdm(total=run.recipe.epochs * training.steps, unit=" images", leave=False,
                          initial=training.epochs * training.steps, desc=f"{label}{run.id}",
                          unit_scale=run.recipe.batch_size, disable=rank() > 0 or hidden) as bar:
                    while training.epochs < run.recipe.epochs:
                        line, state = training.epoch(bar, stop), training.state()
                        if rank() == 0:
                            kept.save(state)
                            if log:
                                log(line)
                return training.result(kept.git)
        except DataError as error:
            # a worker's message holds its traceback; the last line is the error's own
            raise DataError(str(error).strip().rpartition("DataError: ")[2]) from None


def _mini_batch(recipe, batch):
    """A process's mini-batch. Raises ValueError if it does not fit the recipe."""
    if batch is None:
        batch = max(1, min(BATCH, recipe.batch_size // world()))
    check.integer("batch", batch)
    if recipe.batch_size % (batch * world()):
        raise ValueError(f"the recipe's batch of {recipe.batch_size} is no multiple of {world()} x "
                         f"{batch} (processes x --batch); choose another --batch")
    if batch % 2 and recipe.mixup + recipe.cutmix > 0:
        raise ValueError(f"batches of {batch} cannot be mixed in pairs: Mixup and CutMix need an "
                         "even number of images")
    return batch


class Training:
    """One run in this process: its trainer, its best epoch, its cost."""

    def __init__(self, run, train, val, device, precision, batch, workers):
        self.meter = Meter()
        self.run, self.train, self.val = run, train, val
        self.device, self.precision = device, precision
        self.reading = dict(batch=batch, device=device, workers=workers)
        recipe, self.classes = run.recipe, tuple(train.classes)
        network = build_imagenet_model(run.model, len(self.classes), recipe.drop_path)
        if run.frozen:
            freeze_spatial(network)
        network.to(device, memory_format=torch.channels_last)
        accumulate = recipe.batch_size // (batch * world())
        self.steps = len(self._batches(0)) // accumulate
        if not self.steps:
            raise DataError(
                f"{train.root}: {len(train)} images are fewer than the {recipe.batch_size} of a "
                "step; use a recipe with a smaller batch_size")
        self.trainer = ImageNetTrainer(
            network, len(self.classes), recipe, self.steps, device, precision, accumulate)
        self.epochs, self.loss, self.best = 0, nan, {"accuracy": -1.0}
        self.meter.lap("setup")

    def _batches(self, epoch):
        return training_batches(self.train, self.run.recipe, self.run.seed, epoch, **self.reading)

    def epoch(self, bar, stop):
        """Trains an epoch, validates, and returns a line of text about both."""
        batches, losses = iter(self._batches(self.epochs)), []
        for _ in range(self.steps):
            losses.append(self.trainer.step(batches))
            bar.update()
            if stop is not None and stop():
                raise Stopped(self.run.id)
        losses = sum(gathered(torch.stack(losses).tolist()), [])
        self.epochs += 1
        finite = [loss for loss in losses if isfinite(loss)]
        # fp16's gradient scaler skips a step that overflows
        if len(finite) < (1 if self.precision == "fp16" else len(losses)):
            raise TrainingError(f"the loss was not finite in epoch {self.epochs}; nothing was "
                                "recorded. Lower the learning rate or check the data")
        self.loss = fmean(finite)
        self.meter.lap("training")
        top1, top5 = self._validate()
        self.meter.lap()
        recipe, best = self.run.recipe, self.best
        rate = self.epochs * self.steps * recipe.batch_size / self.meter.spent["training"]
        return (f"epoch {self.epochs}/{recipe.epochs}: loss {self.loss:.4f}, top-1 {top1:.2f}, "
                f"top-5 {top5:.2f} (best top-1 {best['accuracy']:.2f} in epoch {best['epoch']}), "
                f"{rate:.0f} images/s")

    def _validate(self):
        """The top-1 and top-5 accuracy in percent. Keeps the best network so far."""
        if world() > 1:
            distribute_bn(self.trainer.network, world(), reduce=True)
        with arithmetic("fp32", self.device):  # as `lc.fold` combines the filters later
            network = fold(self.trainer.network)
        right = self._right(network)
        top1, top5 = map(evaluate.percent, right.T)
        if top1 > self.best["accuracy"]:
            weights = {name: value.cpu() for name, value in network.state_dict().items()}
            self.best = {"accuracy": top1, "accuracy_top5": top5, "epoch": self.epochs,
                         "network": weights, "right": right[:, 0]}
        return top1, top5

    def _right(self, network, attack=False):
        """Whether the first class, and one of the first five, is right: `[images, 2]`."""
        model = nn.Sequential(evaluate.Normalize(MEAN, STD), network).to(self.device).eval()
        mine = []

        def answers(images, labels):
            if attack:
                images = evaluate.fgsm(model, images, labels, 1 / 255)
            with torch.no_grad():
                first = model(images).topk(min(5, len(self.classes))).indices
            hits = first == labels[:, None]
            return torch.stack([hits[:, 0], hits.any(1)], 1)

        with arithmetic("fp32", self.device):
            for images, labels in validation_batches(self.val, **self.reading):
                images = images.contiguous(memory_format=torch.channels_last)
                # attacked in fp32, they take more memory than in training
                mine.append(evaluate.in_mini_batches(answers, len(images), images, labels).cpu())
        right = torch.empty(len(self.val), 2, dtype=torch.bool)
        for i, part in enumerate(gathered(torch.cat(mine))):
            right[i::world()] = part  # as `validation_batches` deals them
        return right

    def state(self):
        """What a checkpoint holds."""
        return {"trainer": self.trainer.state(), "epochs": self.epochs, "loss": self.loss,
                "best": self.best, "spent": self.meter.spent}

    def load(self, state):
        """Continues from a checkpoint."""
        self.trainer.load(state["trainer"])
        self.epochs, self.loss = state["epochs"], state["loss"]
        self.best = deepcopy(state["best"])  # the file will be replaced
        if rank() == 0:
            self.meter.add(state["spent"])

    def result(self, git):
        """The `Result` of the best epoch, trained by the code of these commits."""
        network = build_imagenet_model(parse(self.run.model)[0], len(self.classes))
        network.load_state_dict(self.best["network"])
        robust = self._right(network, attack=True)[:, 0]
        device = device_name(self.device)
        self.meter.lap()
        return to_result(
            self.run, network, self.trainer.network, self.meter.spent,
            images=self.run.recipe.epochs * self.steps * self.run.recipe.batch_size,
            answers={"right": np.packbits(self.best["right"]), "robust": np.packbits(robust)},
            accuracy=self.best["accuracy"], accuracy_top5=self.best["accuracy_top5"],
            robust_accuracy=evaluate.percent(robust), train_loss=self.loss,
            train_images=len(self.train), precision=self.precision, git=git,
            device=device if world() == 1 else f"{world()} x {device}",
            classes=self.classes, mean=MEAN, std=STD)

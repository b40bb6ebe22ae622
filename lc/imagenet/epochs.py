"""The epochs of a training on images: each trains and validates, and the best one counts."""

from copy import deepcopy
from math import isfinite, nan
from statistics import fmean

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN  # for any data set, as timm does
from timm.data import IMAGENET_DEFAULT_STD as STD
from timm.utils import distribute_bn
from torch import nn

from .. import evaluate
from ..blocks import fold
from ..conversion import freeze_spatial
from ..data import DataError
from ..outcome import to_result
from ..run import Stopped, TrainingError
from ..utils.device import Meter, arithmetic, device_name
from .images import training_batches, validation_batches
from .networks import build_imagenet_model, parse
from .processes import gathered, rank, world
from .step import ImageNetTrainer


class Training:
    """One run in this process: its trainer, its best epoch so far, and what it costs."""

    def __init__(self, run, train, val, device, precision, batch, workers):
        self.meter = Meter()
        self.run, self.train, self.val = run, train, val
        self.device, self.precision = device, precision
        self.reading = dict(batch=batch, device=device, workers=workers)
        recipe, classes = run.recipe, len(train.classes)
        network = build_imagenet_model(run.model, classes, recipe.drop_path)
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
            network, classes, recipe, self.steps, device, precision, accumulate)
        self.epochs, self.loss, self.best = 0, nan, {"accuracy": -1.0}
        self.meter.lap("setup")

    def _batches(self, epoch):
        return training_batches(self.train, self.run.recipe, self.run.seed, epoch, **self.reading)

    def epoch(self, bar, stop):
        """Trains an epoch, validates the network, and returns a line of text about both."""
        self._train(bar, stop)
        self.meter.lap("training")
        top1, top5 = self._validate()
        self.meter.lap()
        recipe, best = self.run.recipe, self.best
        rate = self.epochs * self.steps * recipe.batch_size / self.meter.spent["training"]
        return (f"epoch {self.epochs}/{recipe.epochs}: loss {self.loss:.4f}, top-1 {top1:.2f}, "
                f"top-5 {top5:.2f} (best top-1 {best['accuracy']:.2f} in epoch {best['epoch']}), "
                f"{rate:.0f} images/s")

    def _train(self, bar, stop):
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
            raise TrainingError(f"{self.run.id}: the loss was not finite in epoch {self.epochs}; "
                                "nothing was recorded. Lower the learning rate or check the data")
        self.loss = fmean(finite)

    def _validate(self):
        """The top-1 and top-5 accuracy in percent. Keeps the network if it is the best so far."""
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
        """Whether the first class, and one of the first five, is right: bool `[images, 2]`."""
        model = nn.Sequential(evaluate.Normalize(MEAN, STD), network).to(self.device).eval()
        mine = []
        with arithmetic("fp32", self.device):
            for images, labels in validation_batches(self.val, **self.reading):
                images = images.contiguous(memory_format=torch.channels_last)
                if attack:
                    images = evaluate.fgsm(model, images, labels, 1 / 255)
                with torch.no_grad():
                    first = model(images).topk(min(5, len(self.val.classes))).indices
                hits = first == labels[:, None]
                mine.append(torch.stack([hits[:, 0], hits.any(1)], 1).cpu())
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

    def result(self):
        """The `Result` of the best epoch."""
        network = build_imagenet_model(parse(self.run.model)[0], len(self.train.classes))
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
            train_images=len(self.train), precision=self.precision,
            device=device if world() == 1 else f"{world()} x {device}",
            classes=tuple(self.train.classes), mean=MEAN, std=STD)

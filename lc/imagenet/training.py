"""Training on images, with one process or many, from the initialisation to the row of the results."""

import random
import warnings
from contextlib import contextmanager
from math import isfinite, nan
from pathlib import Path
from statistics import fmean

import numpy as np
import torch
from safetensors.torch import save
from timm.utils import distribute_bn
from torch import nn
from tqdm.auto import tqdm

from .. import evaluate
from ..blocks import fold, freeze_spatial
from ..data import DataError
from ..training import Stopped, TrainingError, to_result
from ..utils import check
from ..utils.checkpoint import Checkpoint, CheckpointError
from ..utils.device import Meter, arithmetic, device_name, out_of_memory, own_randomness, resolve_precision
from ..utils.files import replacing
from .images import check_images, find, first_three, open_folder, steps_an_epoch, training_loader, validation_loader
from .networks import build_model, parse
from .processes import gathered, joined
from .run import Run
from .step import MEAN, STD, Trainer

BATCH = 256  # images of a process at a time: A2's batch of 2048 on eight GPUs


def train(run, *, data=None, data_dir=None, device="auto", precision="auto", batch=None, workers=None, progress=None, label="",
          log=None, checkpoint=None, stop=None):
    """Trains and evaluates one run. Under `torchrun`, all processes train it together.

    The randomness of a step depends on the seed and the step alone. With the same `batch`, one process, which accumulates
    gradients, computes the same step as many processes.

    Args:
        run: a `lc.imagenet.Run`.
        data: the image folder, by default that of the run's data set: see `images.find`.
        data_dir, progress, label: as for `lc.train`.
        device: as for `lc.train`. Each of several processes takes the GPU of its local rank.
        precision: "fp32", "bf16" or "fp16" (autocast, with a gradient scaler for fp16), or "auto": fp16 on a GPU, as in A2.
            Evaluation never uses autocast.
        batch: images of a process at a time, over which BatchNorm normalises. By default 256, or fewer if the process's part
            of the recipe's batch is smaller. If it is larger, gradients accumulate.
        workers: worker processes that read images, for each process. By default 8 on a GPU, none on a CPU.
        log: a function that is called with a line of text after each epoch.
        checkpoint: a file that is written after each epoch and from which training continues. All processes must see it. The
            file `.best.safetensors` beside it holds the weights of the best epoch's network, folded, under timm's names.
        stop: a function that a single process calls after every step. If it returns True, training ends.

    Returns:
        A `Result`. Its accuracies and its network, folded, are those of the epoch with the best top-1 accuracy. On one
        machine's CPU the same run gives the same bits, also if it was interrupted.

    Raises:
        ValueError: before any training, if `run` is no `Run`, the device or precision is unknown, the batch does not divide
            the recipe's, the image folder is incomplete, an image cannot be read, or the checkpoint is damaged or of another
            run.
        TrainingError: if the loss is not finite, or memory runs out.
        Stopped: if `stop` returned True.
    """
    if not isinstance(run, Run):
        raise ValueError("train takes an lc.imagenet.Run, such as lc.imagenet.Run('ResNet-18d', 'imagenet', frozen=True, seed=0),"
                         f" not {run!r}")
    with joined(device) as process:
        on_gpu = process.device.type == "cuda"
        precision = resolve_precision("fp16" if precision == "auto" and on_gpu else precision, process.device, "fp16")
        batch = _images_at_a_time(run.recipe, batch, process.world)
        workers = check.integer("workers", 8 * on_gpu if workers is None else workers, 0)
        images = open_folder(data or find(run.dataset, data_dir), run.recipe.classes, run.recipe.images_per_class)
        kept = Checkpoint(checkpoint, f"{run}, batches of {batch}, {precision}, {process.device.type}")
        saved = _load(kept, images)
        shown = progress if process.rank == 0 else False
        if not saved:
            faults = sum(gathered(check_images(images, process.rank, process.world, workers, shown)), [])
            if faults:
                raise DataError(first_three(faults, "; "))
        try:
            with _own_state(run.seed, process.device), arithmetic(precision, process.device):
                training = _Training(run, images, process, precision, batch, workers, kept)
                if saved:
                    training.load(saved)
                    del saved  # some gigabytes
                an_epoch = training.steps * run.recipe.batch_size
                with tqdm(total=run.recipe.epochs * an_epoch, initial=training.epochs * an_epoch, desc=f"{label}{run.id}",
                          unit=" images", unit_scale=True, leave=False, disable=None if shown is None else not shown) as bar:
                    while training.epochs < run.recipe.epochs:
                        training.epoch(bar, stop if process.world == 1 else None)
                        if log and process.rank == 0:
                            log(training.line())
                return training.result()
        except RuntimeError as error:
            if out_of_memory(error):
                raise TrainingError(f"{run.id}: out of memory on {process.device}; nothing was recorded. Use a smaller --batch: "
                                    "the recipe's is kept, by accumulating gradients") from error
            raise


class _Training:
    """One run in this process: the epochs, the best of them, and their costs."""

    def __init__(self, run, images, process, precision, batch, workers, kept):
        self.run, self.images, self.process, self.precision, self.kept = run, images, process, precision, kept
        self.batch, self.shares = batch, run.recipe.batch_size // batch  # each step takes one mini-batch of each share
        self.device = process.device
        self.reading = dict(rank=process.rank, world=process.world, workers=workers, pin=self.device.type == "cuda")
        self.meter = Meter(self.device)
        self.steps = steps_an_epoch(images, run.recipe, batch, self.shares)
        network = build_model(run.model, len(images.classes), run.recipe.drop_path)
        if run.frozen:
            freeze_spatial(network)
        network.to(self.device, memory_format=torch.channels_last)
        self.trainer = Trainer(network, len(images.classes), run.recipe, self.steps, self.device, precision,
                               accumulate=self.shares // process.world)
        self.epochs, self.loss, self.accuracies = 0, nan, ()
        self.best = {"accuracy": -1.0}
        self.meter.lap("setup")

    def epoch(self, bar, stop):
        """Trains one epoch, validates the network, and writes the checkpoint."""
        batches = training_loader(self.images, self.run.recipe, self.run.seed, self.epochs, self.batch, self.shares,
                                  **self.reading)
        losses = []
        for _ in range(self.steps):
            losses.append(self.trainer.step(batches))
            bar.update(self.run.recipe.batch_size)
            if stop is not None and stop():
                raise Stopped(self.run.id)
        losses = sum(gathered(torch.stack(losses).tolist()), [])
        self.meter.lap("training")
        self.epochs += 1
        finite = [loss for loss in losses if isfinite(loss)]
        if len(finite) < (1 if self.precision == "fp16" else len(losses)):  # fp16's gradient scaler skips a step that overflows
            raise TrainingError(f"{self.run.id}: the loss was not finite in epoch {self.epochs}; nothing was recorded. Lower the "
                                "learning rate or check the data")
        self.loss = fmean(finite)
        self._validate()
        self.meter.lap()
        spent = self._spent()
        if self.process.rank == 0:
            self.kept.save({"trainer": self.trainer.state(), "epochs": self.epochs, "loss": self.loss, "best": self.best,
                            "spent": spent, "classes": len(self.images.classes)})

    def _validate(self):
        if self.process.world > 1:
            distribute_bn(self.trainer.network, self.process.world, reduce=True)
        network = fold(self.trainer.network)
        self.accuracies = self._evaluate(network)
        if self.accuracies[0] > self.best["accuracy"]:
            weights = {name: value.cpu() for name, value in network.state_dict().items()}
            self.best = dict(zip(("accuracy", "accuracy_top5"), self.accuracies), epoch=self.epochs, network=weights)
            self._write_best()

    def _evaluate(self, network, attack=False):
        """Top-1 and top-5 accuracy on the validation images in percent, with `attack` under FGSM (eps = 1/255)."""
        model = nn.Sequential(evaluate.Normalize(MEAN, STD), network).to(self.device).eval()
        five = min(5, len(self.images.classes))
        correct = torch.zeros(2, dtype=torch.int64, device=self.device)
        for images, labels in validation_loader(self.images, self.run.recipe, self.batch, **self.reading):
            images = (images.to(self.device).float() / 255).contiguous(memory_format=torch.channels_last)
            labels = labels.to(self.device)
            if attack:
                images = evaluate.fgsm(model, images, labels, 1 / 255)
            with torch.no_grad():
                right = model(images).topk(five).indices == labels[:, None]
            correct += torch.stack([right[:, 0].sum(), right.sum()])
        return [100 * sum(counts) / len(self.images.val) for counts in zip(*gathered(correct.tolist()))]

    def _write_best(self):
        """Writes the best network so far. If the disk is full or read-only, this warns and the training continues."""
        if self.process.rank == 0 and self.kept.path:
            path = best_path(self.kept.path)
            try:
                with replacing(path) as f:
                    f.write(save({name: value.contiguous() for name, value in self.best["network"].items()}))
            except OSError as error:
                warnings.warn(f"{path}: the best network could not be written ({check.one_line(error)[:80]})", stacklevel=2)

    def _spent(self):
        return self.meter.spent | {"energy": sum(gathered(self.meter.spent["energy"]))}  # of all GPUs

    def load(self, saved):
        """Continues from a checkpoint."""
        self.trainer.load(saved["trainer"])
        self.epochs, self.loss = saved["epochs"], saved["loss"]
        weights = {name: value.clone() for name, value in saved["best"]["network"].items()}  # the file can then be replaced
        self.best = saved["best"] | {"network": weights}
        self._write_best()
        if self.process.rank == 0:
            self.meter.add(saved["spent"])

    def line(self):
        """The last epoch in a line of text."""
        rate = self.epochs * self.steps * self.run.recipe.batch_size / self.meter.spent["training"]
        top1, top5 = self.accuracies
        return (f"epoch {self.epochs}/{self.run.recipe.epochs}: loss {self.loss:.4f}, top-1 {top1:.2f}, top-5 {top5:.2f} "
                f"(best top-1 {self.best['accuracy']:.2f} in epoch {self.best['epoch']}), {rate:.0f} images/s")

    def result(self):
        """The `Result` of the best epoch."""
        network = build_model(parse(self.run.model)[0], len(self.images.classes))
        network.load_state_dict(self.best["network"])
        robust_accuracy = self._evaluate(network, attack=True)[0]
        self.meter.lap()
        recipe, world = self.run.recipe, self.process.world
        return to_result(self.run, network, self.trainer.network, self._spent(), accuracy=self.best["accuracy"],
                         accuracy_top5=self.best["accuracy_top5"], robust_accuracy=robust_accuracy, train_loss=self.loss,
                         train_images=len(self.images.train), images=recipe.epochs * self.steps * recipe.batch_size,
                         device=f"{world} x " * (world > 1) + device_name(self.device), precision=self.precision)


def best_path(checkpoint):
    """The file of the best network, beside the checkpoint of its training."""
    return Path(checkpoint).with_suffix(".best.safetensors")


def _images_at_a_time(recipe, batch, world):
    """The mini-batch of a process: `batch`, or the default if it is None. Raises ValueError if it does not fit the recipe."""
    if batch is None:
        batch = max(1, min(BATCH, recipe.batch_size // world))
    check.integer("batch", batch)
    shares, rest = divmod(recipe.batch_size, batch)
    if rest or not shares or shares % world:
        raise ValueError(f"{world} process{'es' * (world > 1)} with batches of {batch} cannot make the recipe's batch of "
                         f"{recipe.batch_size}: it must be a multiple of {world} x {batch}; choose another --batch")
    if batch % 2 and recipe.mixup + recipe.cutmix > 0:
        raise ValueError(f"batches of {batch} cannot be mixed in pairs: Mixup and CutMix need an even number of images")
    return batch


def _load(kept, images):
    """The state in the checkpoint, or None. Raises CheckpointError if it is of another training or not all processes see it."""
    saved = kept.load()
    if saved and saved["classes"] != len(images.classes):
        raise CheckpointError(f"{kept.path}: checkpoint of {saved['classes']} classes, but {images.folder} has "
                              f"{len(images.classes)}; delete it to train from the start, or give the data set a name of its own")
    if len(set(gathered(saved and saved["epochs"]))) > 1:
        raise CheckpointError(f"{kept.path}: not all processes see the same checkpoint; the results must lie on a file system "
                              "that all nodes share")
    return saved


@contextmanager
def _own_state(seed, device):
    """Seeds PyTorch, lets cuDNN find its fastest kernels by trial as timm's script does, and restores both at the end.

    The generators of Python and NumPy, from which Mixup and the augmentation draw, are restored too.
    """
    python, numpy, benchmark = random.getstate(), np.random.get_state(), torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        with own_randomness(seed, device):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.backends.cudnn.benchmark = benchmark

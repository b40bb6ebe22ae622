"""Training on images, with one process or many, from the initialisation to the row of the results."""

from copy import deepcopy
from math import isfinite, nan
from statistics import fmean

import numpy as np
import torch
from timm.data import IMAGENET_DEFAULT_MEAN as MEAN, IMAGENET_DEFAULT_STD as STD  # for any data set, as timm does
from timm.utils import distribute_bn
from torch import nn
from tqdm.auto import tqdm

from .. import evaluate
from ..blocks import fold
from ..conversion import freeze_spatial
from ..data import DataError
from ..outcome import to_result
from ..training import Stopped, TrainingError
from ..utils import check
from ..utils.checkpoint import Checkpoint, CheckpointError
from ..utils.device import Meter, arithmetic, device_name, out_of_memory, own_randomness, resolve_precision
from .images import find, open_folder, training_batches, validation_batches
from .networks import build_imagenet_model, parse
from .processes import gathered, joined, rank, world
from .run import ImageNetRun
from .step import ImageNetTrainer

BATCH = 256  # images of a process at a time: A2's batch of 2048 on eight GPUs


def train_imagenet(run, *, data=None, data_dir=None, device="auto", precision="auto", batch=None, workers=None,
                   progress=None, label="", log=None, checkpoint=None, stop=None):
    """Trains and evaluates one run. Under `torchrun`, all processes train it together.

    Args:
        run: an `ImageNetRun`.
        data: the image folder, by default that of the run's data set: see `images.find`.
        data_dir, progress, label: as for `lc.train`.
        device: as for `lc.train`. Each of several processes takes the GPU of its local rank.
        precision: "fp32", "bf16" or "fp16" (autocast, with a gradient scaler for fp16), or "auto": fp16 on a GPU, as in A2.
            Evaluation never uses autocast.
        batch: images of a process at a time, over which BatchNorm normalises. By default 256, or fewer if the process's part
            of the recipe's batch is smaller. If the part is larger, gradients accumulate.
        workers: worker processes that read images, for each process. By default 8 on a GPU, none on a CPU.
        log: a function that is called with a line of text after each epoch.
        checkpoint: a file that is written after each epoch and from which training continues. All processes must see it.
        stop: a function that a single process calls after every step. If it returns True, training ends.

    Returns:
        A `Result`. Its accuracies and its network, folded, are those of the epoch with the best top-1 accuracy. On one
        machine's CPU the same run with as many processes and workers gives the same bits, also if it was interrupted.

    Raises:
        ValueError: before any training, if `run` is no `ImageNetRun`, the device or precision is unknown, the batch does not divide
            the recipe's, the image folder is incomplete, or the checkpoint is damaged or of another run. During the training,
            if an image cannot be read.
        TrainingError: if the loss is not finite, or memory runs out.
        Stopped: if `stop` returned True.
    """
    if not isinstance(run, ImageNetRun):
        raise ValueError("train_imagenet takes an ImageNetRun, such as lc.imagenet.ImageNetRun('ResNet-18d', "
                         f"'imagenet', frozen=True, seed=0), not {run!r}")
    with joined(device) as device:
        on_gpu = device.type == "cuda"
        precision = resolve_precision("fp16" if precision == "auto" and on_gpu else precision, device, "fp16")
        batch = _images_at_a_time(run.recipe, batch)
        torch.backends.cudnn.benchmark |= on_gpu  # as in timm's script: the sizes of the images do not change
        workers = check.integer("workers", 8 * on_gpu if workers is None else workers, 0)
        images = open_folder(data or find(run.dataset, data_dir), run.recipe)
        kept = Checkpoint(checkpoint, f"{run}, {len(images[0].classes)} classes, batches of {batch}, {precision}, {device.type}")
        saved = kept.load()
        if len(set(gathered(saved and saved["epochs"]))) > 1:
            raise CheckpointError(f"{kept.path}: not all processes see the same checkpoint; the results must lie on a file "
                                  "system that all nodes share")
        try:
            with own_randomness(run.seed, device), arithmetic(precision, device):
                training = _Training(run, *images, device, precision, batch, workers)
                if saved:
                    training.load(saved)
                silent = rank() > 0 or (None if progress is None else not progress)
                with tqdm(total=run.recipe.epochs * training.steps, initial=training.epochs * training.steps, unit=" images",
                          unit_scale=run.recipe.batch_size, desc=f"{label}{run.id}", leave=False, disable=silent) as bar:
                    while training.epochs < run.recipe.epochs:
                        line, state = training.epoch(bar, stop), training.state()
                        if rank() == 0:
                            kept.save(state)
                            if log:
                                log(line)
                return training.result()
        except DataError as error:  # a worker's message holds its traceback; the last line is the error's own
            raise DataError(str(error).strip().splitlines()[-1].rpartition("DataError: ")[2]) from None
        except RuntimeError as error:
            if out_of_memory(error):
                raise TrainingError(f"{run.id}: out of memory on {device}; nothing was recorded. Use a smaller --batch: "
                                    "the recipe's is kept, by accumulating gradients") from error
            raise


class _Training:
    """One run in this process: the epochs, the best of them, and their costs."""

    def __init__(self, run, train, val, device, precision, batch, workers):
        self.meter = Meter()
        self.run, self.train, self.val, self.device, self.precision = run, train, val, device, precision
        self.reading = dict(batch=batch, device=device, workers=workers)
        network = build_imagenet_model(run.model, len(train.classes), run.recipe.drop_path)
        if run.frozen:
            freeze_spatial(network)
        network.to(device, memory_format=torch.channels_last)
        accumulate = run.recipe.batch_size // (batch * world())
        self.steps = len(training_batches(train, run.recipe, run.seed, 0, **self.reading)) // accumulate
        if not self.steps:
            raise DataError(f"{train.root}: {len(train)} images are fewer than the {run.recipe.batch_size} of a step; use a "
                            "recipe with a smaller batch_size")
        self.trainer = ImageNetTrainer(network, len(train.classes), run.recipe, self.steps, device, precision, accumulate)
        self.epochs, self.loss, self.best = 0, nan, {"accuracy": -1.0}
        self.meter.lap("setup")

    def epoch(self, bar, stop):
        """Trains one epoch, validates the network, and returns a line of text about both."""
        batches = iter(training_batches(self.train, self.run.recipe, self.run.seed, self.epochs, **self.reading))
        losses = []
        for _ in range(self.steps):
            losses.append(self.trainer.step(batches))
            bar.update()
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
        if world() > 1:
            distribute_bn(self.trainer.network, world(), reduce=True)
        with arithmetic("fp32", self.device):  # as `lc.fold` combines the filters later
            network = fold(self.trainer.network)
        right = self._evaluate(network)
        top1, top5 = map(evaluate.percent, right.T)
        if top1 > self.best["accuracy"]:
            weights = {name: value.cpu() for name, value in network.state_dict().items()}
            self.best = {"accuracy": top1, "accuracy_top5": top5, "epoch": self.epochs,
                         "network": weights, "right": right[:, 0]}
        self.meter.lap()
        rate = self.epochs * self.steps * self.run.recipe.batch_size / self.meter.spent["training"]
        return (f"epoch {self.epochs}/{self.run.recipe.epochs}: loss {self.loss:.4f}, top-1 {top1:.2f}, top-5 {top5:.2f} "
                f"(best top-1 {self.best['accuracy']:.2f} in epoch {self.best['epoch']}), {rate:.0f} images/s")

    def _evaluate(self, network, attack=False):
        """Whether the first class, and one of the first five, is right: bool `[validation images, 2]`.

        With `attack`, the images are attacked by FGSM (eps = 1/255).
        """
        model = nn.Sequential(evaluate.Normalize(MEAN, STD), network).to(self.device).eval()
        found = []
        with arithmetic("fp32", self.device):
            for images, labels in validation_batches(self.val, **self.reading):
                images = images.contiguous(memory_format=torch.channels_last)
                if attack:
                    images = evaluate.fgsm(model, images, labels, 1 / 255)
                with torch.no_grad():
                    best = model(images).topk(min(5, len(self.val.classes))).indices
                    hits = best == labels[:, None]
                found.append(torch.stack([hits[:, 0], hits.any(1)], 1).cpu())
        right = torch.empty(len(self.val), 2, dtype=torch.bool)
        for i, part in enumerate(gathered(torch.cat(found))):
            right[i::world()] = part  # as `validation_batches` deals them
        return right

    def state(self):
        """What a checkpoint holds."""
        return {"trainer": self.trainer.state(), "epochs": self.epochs, "loss": self.loss, "best": self.best,
                "spent": self.meter.spent}

    def load(self, state):
        """Continues from a checkpoint."""
        self.trainer.load(state["trainer"])
        self.epochs, self.loss, self.best = state["epochs"], state["loss"], deepcopy(state["best"])  # the file will be replaced
        if rank() == 0:
            self.meter.add(state["spent"])

    def result(self):
        """The `Result` of the best epoch."""
        network = build_imagenet_model(parse(self.run.model)[0], len(self.train.classes))
        network.load_state_dict(self.best["network"])
        robust = self._evaluate(network, attack=True)[:, 0]
        answers = {"right": np.packbits(self.best["right"]), "robust": np.packbits(robust)}
        self.meter.lap()
        return to_result(self.run, network, self.trainer.network, self.state()["spent"], accuracy=self.best["accuracy"],
                         accuracy_top5=self.best["accuracy_top5"], robust_accuracy=evaluate.percent(robust),
                         answers=answers, train_loss=self.loss,
                         train_images=len(self.train), images=self.run.recipe.epochs * self.steps * self.run.recipe.batch_size,
                         device=f"{world()} x " * (world() > 1) + device_name(self.device), precision=self.precision,
                         classes=tuple(self.train.classes), mean=MEAN, std=STD)


def _images_at_a_time(recipe, batch):
    """The mini-batch of a process: `batch`, or the default if it is None. Raises ValueError if it does not fit the recipe."""
    batch = max(1, min(BATCH, recipe.batch_size // world())) if batch is None else check.integer("batch", batch)
    if recipe.batch_size % (batch * world()):
        raise ValueError(f"{world()} process{'es' * (world() > 1)} with batches of {batch} cannot make the recipe's batch of "
                         f"{recipe.batch_size}: it must be a multiple of {world()} x {batch}; choose another --batch")
    if batch % 2 and recipe.mixup + recipe.cutmix > 0:
        raise ValueError(f"batches of {batch} cannot be mixed in pairs: Mixup and CutMix need an even number of images")
    return batch

"""Training on photographs, by one process or by many, from the initialisation to the row of the results."""

import random
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import nn
from tqdm.auto import tqdm

from ..utils import check
from .. import evaluate
from ..blocks import fold, freeze_spatial
from ..utils.check import one_line
from ..utils.checkpoint import Checkpoint, CheckpointError
from ..data import DataError
from ..utils.files import replacing
from ..utils.device import Meter, device_name, out_of_memory, own_randomness, resolve_precision
from ..training import TrainingError
from ..training import Stopped, to_result
from .networks import build_model, plain_name
from .images import check_images, find, open_folder, steps_an_epoch, training_loader, validation_loader
from .processes import gathered, joined, total
from .run import Run
from .step import MEAN, STD, Trainer

BATCH = 256  # images of a process at a time: what A2's batch of 2048 leaves each of eight GPUs


def train(run, *, data=None, data_dir=None, device="auto", precision="auto", batch=None, workers=None, progress=None, label="",
          log=None, checkpoint=None, stop=None):
    """Train and evaluate one run; under `torchrun`, together with the other processes.

    All randomness of a step follows from the seed and the step, not from the processes that share it: with batches of one size, a
    step is the same on one process, which accumulates gradients, as on many.

    Args:
        run: a `lc.imagenet.Run`.
        data: the image folder; by default that of the run's data set, see `photos.find`.
        data_dir: where that is looked for, as for `load_data`.
        device: as for `lc.train`; each of several processes takes the GPU of its local rank.
        precision: "fp32", "bf16" or "fp16" (autocast, fp16 with a gradient scaler; other products then use TF32), or "auto":
            fp16 on a GPU, as A2 does. Evaluation never uses autocast.
        batch: images of a process at a time, which is what BatchNorm sees; by default 256, or what the recipe's batch leaves each
            process. Where the processes together take fewer than the recipe's batch, gradients accumulate.
        workers: processes that read images, for each process; by default none on a CPU, 8 on a GPU.
        progress, label: of the progress line, as for `lc.train`.
        log: a function that is given a line of text at the end of each epoch.
        checkpoint: a file, written after each epoch; a training that finds it goes on from there. Beside it, a file
            `.best.safetensors` holds the network with the best top-1 accuracy so far, its LC-Blocks folded: the weights of the
            plain network, as timm knows it. All processes must see the file.
        stop: a function, asked by a single process after every step; when it says True, the training ends.

    Returns:
        A `Result`: `accuracy`, `accuracy_top5` and `network`, folded, are those of the epoch with the best top-1. On one
        machine's CPU, the same run gives the same bits, in one go or in several.

    Raises:
        ValueError: no `Run`, unknown device or precision, a batch that does not divide the recipe's; an image folder that is not
            whole, or an image that cannot be read; a checkpoint that is damaged or of another run. All before any training.
        TrainingError: a loss that is not finite, or out of memory.
        Stopped: `stop` said so.
    """
    if not isinstance(run, Run):
        raise ValueError("train takes an lc.imagenet.Run, such as lc.imagenet.Run('ResNet-18d', 'imagenet', frozen=True, seed=0),"
                         f" not {run!r}")
    with joined(device) as process:
        on_gpu = process.device.type == "cuda"
        precision = resolve_precision("fp16" if precision == "auto" and on_gpu else precision, process.device, "fp16")
        batch, replicas = _deal(run.recipe, batch, process.world)
        workers = check.integer("workers", 8 * on_gpu if workers is None else workers, 0)
        photos = open_folder(data or find(run.dataset, data_dir), run.recipe.classes, run.recipe.images_per_class)
        kept = Checkpoint(checkpoint, f"{run}, batches of {batch}, {precision}, {process.device.type}")
        saved = _load(kept, photos)
        shown = progress if process.rank == 0 else False
        if not saved:
            faults = sum(gathered(check_images(photos, process.rank, process.world, workers, shown)), [])
            if faults:
                raise DataError("; ".join(faults[:3]) + (f"; and {len(faults) - 3} more" if faults[3:] else ""))
        try:
            with _own_randomness(run.seed, process.device), _fast_kernels(precision):
                training = _Training(run, photos, process, precision, batch, replicas, workers, kept)
                if saved:
                    training.load(saved)
                    del saved  # some gigabytes
                with tqdm(total=training.images(run.recipe.epochs), initial=training.images(training.epochs),
                          desc=f"{label}{run.id}", unit=" images", unit_scale=True, leave=False,
                          disable=None if shown is None else not shown) as bar:
                    while training.epochs < run.recipe.epochs:
                        training.epoch(bar, stop if process.world == 1 else None)
                        if log and process.rank == 0:
                            log(training.line())
                return training.result()
        except (TrainingError, Stopped) as error:
            raise type(error)(": ".join(filter(None, (run.id, str(error))))) from None
        except RuntimeError as error:
            if out_of_memory(error):
                raise TrainingError(f"{run.id}: out of memory on {process.device}; nothing was recorded. Use a smaller --batch: "
                                    "the recipe's is kept, by accumulating gradients") from error
            raise


class _Training:
    """One run under way in this process: whole epochs, the best of them, and what they cost."""

    def __init__(self, run, photos, process, precision, batch, replicas, workers, kept):
        self.run, self.photos, self.precision, self.kept = run, photos, precision, kept
        self.batch, self.replicas = batch, replicas
        self.device, self.rank, self.world = process
        self.reading = dict(rank=self.rank, world=self.world, workers=workers, pin=self.device.type == "cuda")
        self.meter = Meter(self.device)
        self.steps = steps_an_epoch(photos, run.recipe, batch, replicas)
        network = build_model(run.model, len(photos.classes), run.recipe.drop_path)
        if run.frozen:
            freeze_spatial(network)
        network.to(self.device, memory_format=torch.channels_last)
        self.trainer = Trainer(network, len(photos.classes), run.recipe, self.steps, self.device, precision,
                               replicas // self.world)
        self.epochs, self.loss, self.now = 0, float("nan"), ()
        self.best = {"accuracy": -1.0}
        self.meter.lap("setup")

    def images(self, epochs):
        return epochs * self.steps * self.batch * self.replicas

    def epoch(self, bar, stop):
        """Train one epoch, validate, and keep the state."""
        batches = training_loader(self.photos, self.run.recipe, self.run.seed, self.epochs, self.batch, self.replicas,
                                  **self.reading)
        losses = []
        for _ in range(self.steps):
            losses.append(self.trainer.step(batches))
            bar.update(self.batch * self.replicas)
            if stop is not None and stop():
                raise Stopped
        losses = torch.stack(losses).double().cpu()
        self.meter.lap("training")
        self.epochs += 1
        finite = losses[losses.isfinite()]
        mean, count, others = total([finite.sum().item(), len(finite), len(losses) - len(finite)], self.device)
        if others if self.precision != "fp16" else not count:  # a gradient scaler passes over single steps that overflow
            raise TrainingError(f"the loss was not finite in epoch {self.epochs}; nothing was recorded. Lower the learning rate "
                                "or check the data")
        self.loss = mean / count
        self._validate()
        self.meter.lap()
        spent = self.meter.spent | {"energy": self._energy()}
        if self.rank == 0:
            self.kept.save({"trainer": self.trainer.state(), "epochs": self.epochs, "loss": self.loss, "best": self.best,
                            "spent": spent, "classes": len(self.photos.classes)})

    def _validate(self):
        from timm.utils import distribute_bn

        if self.world > 1:
            distribute_bn(self.trainer.network, self.world, reduce=True)
        network = nn.Sequential(evaluate.Normalize(MEAN, STD), fold(self.trainer.network)).to(self.device).eval()
        five = min(5, len(self.photos.classes))

        def hits(images, labels):
            with torch.no_grad():
                right = network(images).topk(five).indices == labels[:, None]
            return torch.stack([right[:, 0].sum(), right.sum()])

        self.now = self._percent(hits, 2)
        if self.now[0] > self.best["accuracy"]:
            weights = {name: value.cpu() for name, value in network[1].state_dict().items()}
            self.best = {"accuracy": self.now[0], "accuracy_top5": self.now[1], "epoch": self.epochs, "network": weights}
            self._keep_best()

    def _keep_best(self):
        if self.rank == 0 and self.kept.path:
            _save_weights(self.best["network"], best_path(self.kept.path))

    def _percent(self, hits, things):
        """Percent of the validation images for which `hits(images in [0, 1], labels)` counts each of some things."""
        sums = torch.zeros(things, dtype=torch.float64, device=self.device)
        for images, labels in validation_loader(self.photos, self.run.recipe, self.batch, **self.reading):
            images, labels = images.to(self.device).float() / 255, labels.to(self.device)
            sums += hits(images.contiguous(memory_format=torch.channels_last), labels)
        return [100 * right / len(self.photos.val) for right in total(sums.tolist(), self.device)]

    def _energy(self):
        return total([self.meter.spent["energy"]], self.device)[0]

    def load(self, saved):
        self.trainer.load(saved["trainer"])
        self.epochs, self.loss = saved["epochs"], saved["loss"]
        weights = {name: value.clone() for name, value in saved["best"]["network"].items()}  # not in the file's own memory
        self.best = saved["best"] | {"network": weights}
        self._keep_best()
        if self.rank == 0:
            self.meter.add(saved["spent"])

    def line(self):
        """How the last epoch went."""
        return (f"epoch {self.epochs}/{self.run.recipe.epochs}: loss {self.loss:.4f}, top-1 {self.now[0]:.2f}, top-5 "
                f"{self.now[1]:.2f} (best top-1 {self.best['accuracy']:.2f} in epoch {self.best['epoch']}), "
                f"{self.images(self.epochs) / self.meter.spent['training']:.0f} images/s")

    def result(self):
        best = build_model(plain_name(self.run.model), len(self.photos.classes))
        best.load_state_dict(self.best["network"])
        attacked = nn.Sequential(evaluate.Normalize(MEAN, STD), best).to(self.device).eval()

        def hits(images, labels):
            images = evaluate.fgsm(attacked, images, labels, 1 / 255)
            with torch.no_grad():
                return (attacked(images).argmax(1) == labels).sum()

        robust, = self._percent(hits, 1)
        self.meter.lap()
        return to_result(self.run, best, self.trainer.network, self.meter.spent | {"energy": self._energy()},
                         accuracy=self.best["accuracy"], accuracy_top5=self.best["accuracy_top5"], robust_accuracy=robust,
                         train_loss=self.loss, train_images=len(self.photos.train), images=self.images(self.run.recipe.epochs),
                         device=f"{self.world} x " * (self.world > 1) + device_name(self.device), precision=self.precision)


def best_path(checkpoint):
    """Where the best network of a training with that checkpoint lies."""
    return Path(checkpoint).with_suffix(".best.safetensors")


def _save_weights(weights, path):
    """Where the disk is full or read-only, this is said aloud, and the training goes on."""
    from safetensors.torch import save

    try:
        with replacing(path) as f:
            f.write(save({name: value.contiguous() for name, value in weights.items()}))
    except OSError as error:
        warnings.warn(f"{path}: the best network could not be written ({one_line(error)[:80]})", stacklevel=2)


def _deal(recipe, batch, world):
    """Images of a process at a time, and how many such batches make a step.

    Raises:
        ValueError: if they cannot make the recipe's batch, or cannot be mixed in pairs.
    """
    if batch is None:
        batch = max(1, min(BATCH, recipe.batch_size // world))
    check.integer("batch", batch)
    replicas, rest = divmod(recipe.batch_size, batch)
    if rest or not replicas or replicas % world:
        raise ValueError(f"{world} process{'es' * (world > 1)} with batches of {batch} cannot make the recipe's batch of "
                         f"{recipe.batch_size}: it must be a multiple of {world} x {batch}; choose another --batch")
    if batch % 2 and recipe.mixup + recipe.cutmix > 0:
        raise ValueError(f"batches of {batch} cannot be mixed in pairs: Mixup and CutMix need an even number of images")
    return batch, replicas


def _load(kept, photos):
    """What the checkpoint holds, the same in all processes; None without one.

    Raises:
        CheckpointError: if it is not of this training, or only some processes see it.
    """
    saved = kept.load()
    if saved and saved["classes"] != len(photos.classes):
        raise CheckpointError(f"{kept.path}: checkpoint of {saved['classes']} classes, but {photos.folder} has "
                              f"{len(photos.classes)}; delete it to train from the start, or give the data set a name of its own")
    if len(set(gathered(saved and saved["epochs"]))) > 1:
        raise CheckpointError(f"{kept.path}: not all processes see the same checkpoint; the results must lie on a file system "
                              "that all nodes share")
    return saved


@contextmanager
def _own_randomness(seed, device):
    """As `own_randomness`, with the generators of Python and NumPy as they were afterwards: Mixup and augmentation use them."""
    states = random.getstate(), np.random.get_state()
    try:
        with own_randomness(seed, device):
            yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


@contextmanager
def _fast_kernels(precision):
    """As timm's training script: cuDNN chooses by trial and, where half precision is allowed, products outside of autocast use
    TF32, those of the combined filters among them."""
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.benchmark
    if precision != "fp32":
        torch.set_float32_matmul_precision("high")
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        torch.backends.cudnn.benchmark = before[1]

"""Training on images, with one process or many."""

import torch
from tqdm.auto import tqdm

from ..data import DataError
from ..run import TrainingError
from ..utils import check
from ..utils.checkpoint import Checkpoint, CheckpointError
from ..utils.device import arithmetic, out_of_memory, own_randomness, resolve_precision
from .epochs import Training
from .images import find, open_folder
from .processes import gathered, joined, rank, world
from .run import ImageNetRun

BATCH = 256  # images of a process at a time: A2's batch of 2048 on eight GPUs


def train_imagenet(run, *, data=None, data_dir=None, device="auto", precision="auto", batch=None,
                   workers=None, progress=None, label="", log=None, checkpoint=None, stop=None):
    """Trains and evaluates one run. Under `torchrun`, all processes train it together.

    Args:
        run: an `ImageNetRun`.
        data: the image folder, by default that of the run's data set: see `images.find`.
        data_dir, progress, label: as for `lc.train`.
        device: as for `lc.train`. Each of several processes takes the GPU of its local rank.
        precision: as for `lc.train`, or "fp16" with a gradient scaler: "auto" on a GPU, as in A2.
        batch: images of a process at a time, over which BatchNorm normalises, by default at most
            256. Gradients accumulate to the recipe's batch.
        workers: each process's workers that read images, by default 8 on a GPU, none on a CPU.
        log: a function that is called with a line of text after each epoch.
        checkpoint: a file that is written after each epoch and from which training continues. All
            processes must see it.
        stop: as for `lc.train`, for a single process. It writes no checkpoint.

    Returns:
        A `Result`. Its accuracies and its network, folded, are those of the epoch with the best
        top-1 accuracy. On one machine's CPU the same run with as many processes and workers gives
        the same bits, also if it was interrupted.

    Raises:
        ValueError: before any training, as `lc.train`, or if the batch does not divide the recipe's
            or the image folder is incomplete. During the training, if an image cannot be read.
        TrainingError, Stopped: as `lc.train`.
    """
    if not isinstance(run, ImageNetRun):
        raise ValueError(
            "train_imagenet takes an ImageNetRun, such as lc.imagenet.ImageNetRun('ResNet-18d', "
            f"'imagenet', frozen=True, seed=0), not {run!r}")
    with joined(device) as device:
        on_gpu = device.type == "cuda"
        if precision == "auto" and on_gpu:
            precision = "fp16"
        precision = resolve_precision(precision, device, "fp16")
        batch = _mini_batch(run.recipe, batch)
        torch.backends.cudnn.benchmark |= on_gpu  # as timm: the images' sizes do not change
        if workers is None:
            workers = 8 if on_gpu else 0
        check.integer("workers", workers, 0)
        train, val = open_folder(data or find(run.dataset, data_dir), run.recipe)
        kept = Checkpoint(checkpoint, f"{run}, {len(train.classes)} classes, batches of {batch}, "
                                      f"{precision}, {device.type}")
        saved = kept.load()
        if len(set(gathered(saved and saved["epochs"]))) > 1:
            raise CheckpointError(f"{kept.path}: not all processes see the same checkpoint; the "
                                  "results must lie on a file system that all nodes share")
        try:
            with own_randomness(run.seed, device), arithmetic(precision, device):
                training = Training(run, train, val, device, precision, batch, workers)
                if saved:
                    training.load(saved)
                _train_all_epochs(training, kept, progress, label, log, stop)
                return training.result()
        except DataError as error:
            # a worker's message holds its traceback; the last line is the error's own
            last = str(error).strip().splitlines()[-1]
            raise DataError(last.rpartition("DataError: ")[2]) from None
        except RuntimeError as error:
            if out_of_memory(error):
                raise TrainingError(
                    f"{run.id}: out of memory on {device}; nothing was recorded. Use a smaller "
                    "--batch: the recipe's is kept, by accumulating gradients") from error
            raise


def _train_all_epochs(training, kept, progress, label, log, stop):
    recipe, first = training.run.recipe, rank() == 0
    hidden = None if progress is None else not progress  # None: on a terminal it is shown
    with tqdm(total=recipe.epochs * training.steps, initial=training.epochs * training.steps,
              desc=f"{label}{training.run.id}", unit=" images", unit_scale=recipe.batch_size,
              leave=False, disable=hidden if first else True) as bar:
        while training.epochs < recipe.epochs:
            line, state = training.epoch(bar, stop), training.state()
            if first:
                kept.save(state)
                if log:
                    log(line)


def _mini_batch(recipe, batch):
    """A process's mini-batch. Raises ValueError if it does not fit the recipe."""
    if batch is None:
        batch = max(1, min(BATCH, recipe.batch_size // world()))
    check.integer("batch", batch)
    if recipe.batch_size % (batch * world()):
        processes = "1 process" if world() == 1 else f"{world()} processes"
        raise ValueError(f"{processes} with batches of {batch} cannot make the recipe's batch of "
                         f"{recipe.batch_size}: it must be a multiple of {world()} x {batch}; "
                         "choose another --batch")
    if batch % 2 and recipe.mixup + recipe.cutmix > 0:
        raise ValueError(f"batches of {batch} cannot be mixed in pairs: Mixup and CutMix need an "
                         "even number of images")
    return batch

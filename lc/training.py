"""Training one network by the paper's recipe (Appendix A), from its initialisation to its row."""

import math
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .blocks import LCBlock
from .conversion import freeze_spatial
from .data import draw_epoch, gather, load_data, pad
from .models import build_model
from .outcome import measure, to_result
from .run import Run, Stopped, TrainingError
from .utils.checkpoint import Checkpoint
from .utils.device import (Meter, arithmetic, check_defaults, device_name, index_of,
                           out_of_memory, own_randomness, resolve_device, resolve_precision,
                           to_device)


def make_batch(images, labels, plan, rows, size, mean, std):
    """The images and labels of some rows of a plan: see `data.draw_epoch`."""
    plan = plan[rows]
    return ((gather(images, plan, size) - mean) / std).permute(0, 3, 1, 2), labels[plan[:, 0]]


class Trainer:
    """A network, its data and its optimiser on one device, and the step that trains it.

    All that a step reads or writes lies on the device, so a CUDA graph can hold it. What is random
    is drawn once an epoch on the CPU, so a seed means the same on every device.
    """

    def __init__(self, network, data, recipe, seed, device, precision):
        self.network = to_device(network, device).train()
        self.recipe, self.device, self.precision = recipe, device, precision
        self.generator = torch.Generator().manual_seed(seed)

        images = data.x_train[:recipe.train_images].to(device)
        self.n, self.size, self.augment = len(images), images.shape[1], data.augment
        self.images = pad(images) if data.augment else images
        self.labels = data.y_train[:recipe.train_images].to(device)
        dtype = next(network.parameters()).dtype
        self.mean = 255 * torch.tensor(data.mean, dtype=dtype, device=device)
        self.std = 255 * torch.tensor(data.std, dtype=dtype, device=device)

        self.batches = [len(part) for part in torch.arange(self.n).split(recipe.batch_size)]
        steps = len(self.batches) * recipe.epochs
        cosine = torch.cos(torch.pi * (torch.arange(steps, dtype=torch.float64) / steps))
        self.schedule = (recipe.learning_rate / 2 * (1 + cosine)).float().to(device)
        self.learning_rate = torch.tensor(recipe.learning_rate, device=device)
        self.optimizer = torch.optim.SGD(
            self.decayed_groups(), lr=self.learning_rate,
            momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay, fused=True)

        self.plan = torch.zeros(self.n, 4, dtype=torch.int64, device=device)  # this epoch's
        self.along = torch.arange(recipe.batch_size, device=device)
        self.row = torch.zeros(1, dtype=torch.int64, device=device)  # of the plan, the next step's
        self.count = torch.zeros(1, dtype=torch.int64, device=device)  # steps done
        self.losses = torch.zeros(steps, device=device)
        self.epochs = 0  # whole epochs done: what the host knows
        self.position = 0  # steps done in this epoch

    def learned(self):
        """The tensors to optimise."""
        return [p for p in self.network.parameters() if p.requires_grad]

    def factors(self):
        """The LC-Blocks' spatial and pointwise weights: two lists."""
        blocks = [m for m in self.network.modules() if isinstance(m, LCBlock)]
        return [b.spatial.weight for b in blocks], [b.pointwise.weight for b in blocks]

    def products(self):
        """The LC-Blocks' combined filters, the products of these weights."""
        return [m.combined_weight() for m in self.network.modules() if isinstance(m, LCBlock)]

    def decayed_groups(self):
        """The optimiser's groups: what does not decay has one of its own."""
        learned = self.learned()
        if self.recipe.decayed == "factors":
            return [{"params": learned}]
        spatial, pointwise = self.factors()
        decay = {"spatial": spatial, "pointwise": pointwise}.get(self.recipe.decayed, [])
        spared = {*spatial, *pointwise} - {*decay}
        groups = [{"params": [p for p in learned if p not in spared]},
                  {"params": [p for p in learned if p in spared], "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def decayed(self, loss):
        """The loss, with the decay of the combined filters if these are to decay."""
        if self.recipe.decayed != "product":
            return loss
        squares = sum(filters.square().sum() for filters in self.products())
        return loss + self.recipe.weight_decay / 2 * squares

    def forward(self, images):
        """The logits in training mode."""
        return self.network(images)

    def next_batch(self, batch, make=make_batch):
        """The next images, augmented and normalised, `[batch, c, h, w]`, and their labels."""
        rows = self.row + self.along[:batch]
        return make(self.images, self.labels, self.plan, rows, self.size, self.mean, self.std)

    def step(self, batch):
        """One optimisation step on the next `batch` images of the plan."""
        images, labels = self.next_batch(batch)
        bf16 = self.precision == "bf16"
        with arithmetic(self.precision, self.device):
            with torch.autocast(self.device.type, torch.bfloat16, bf16, cache_enabled=False):
                loss = F.cross_entropy(self.forward(images), labels,
                                       label_smoothing=self.recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            self.decayed(loss).backward()
        self.learning_rate.copy_(self.schedule[self.count][0])
        self.optimizer.step()
        self.losses.index_copy_(0, self.count, loss.detach().float()[None])
        self.row += batch
        self.count += 1

    def steps(self, after_step=None):
        """A generator: an epoch, or what `load` leaves of it. It returns the mean loss.

        It pauses after each step, and calls `after_step` with the number of images. It raises
        TrainingError if a loss was not finite or a step was not taken.
        """
        if self.position == 0:
            self.plan.copy_(draw_epoch(self.n, self.augment, self.generator))
            self.row.zero_()
        for batch in self.batches[self.position:]:
            self.step(batch)
            self.position += 1
            if after_step:
                after_step(batch)
            yield
        start = len(self.batches) * self.epochs
        end = start + len(self.batches)
        done = self.count.item()  # the only time in an epoch that the host waits for the device
        if done != end:
            raise TrainingError(f"{self.device} took {done} of {end} steps; nothing was recorded. "
                                "Check it by `lc doctor`")
        losses = self.losses[start:end].cpu()
        for step, loss in enumerate(losses.tolist(), start + 1):
            if not math.isfinite(loss):
                raise TrainingError(f"the loss became {loss} at step {step} of "
                                    f"{len(self.schedule)}; nothing was recorded. Lower the "
                                    "learning rate or check the data")
        self.epochs, self.position = self.epochs + 1, 0
        return losses.mean().item()

    def state(self):
        """Everything that the remaining steps depend on."""
        return {
            "tensors": [*self.network.state_dict().values(),
                        self.plan, self.row, self.count, self.losses],
            "momentum": [self.optimizer.state[p].get("momentum_buffer") for p in self.optimized()],
            "generators": [g.get_state() for g in self.generators()],
            "done": (self.epochs, self.position),
        }

    def load(self, state):
        """Continues from a `state()`, in place: captured graphs see it. Raises ValueError."""
        tensors, optimized = self.state()["tensors"], self.optimized()
        saved, momenta = state["tensors"], state["momentum"]
        if ([t.shape for t in tensors] != [t.shape for t in saved] or len(momenta) != len(optimized)
                or any(m is not None and m.shape != p.shape for p, m in zip(optimized, momenta))):
            raise ValueError("checkpoint of another network, data set or choice of --fuse")
        for tensor, value in zip(tensors, saved):
            tensor.copy_(value)
        for p, value in zip(optimized, momenta):
            if value is not None:
                kept = self.optimizer.state[p]
                kept.setdefault("momentum_buffer", torch.empty_like(p)).copy_(value)
        for generator, value in zip(self.generators(), state["generators"]):
            generator.set_state(value)
        self.epochs, self.position = state["done"]

    def optimized(self):
        """The tensors that the optimiser has, in its order."""
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def generators(self):
        """The generator of order and augmentation, and PyTorch's own, of dropout."""
        if self.device.type == "cuda":
            return self.generator, torch.cuda.default_generators[index_of(self.device)]
        return self.generator, torch.default_generator


def finish(steps):
    """What a generator returns at its end."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


@contextmanager
def named_errors(run, device, way_out):
    """Names the run in the errors of its training, and the way out if memory runs out."""
    try:
        yield
    except TrainingError as error:
        raise TrainingError(f"{run.id}: {error}") from None
    except RuntimeError as error:
        if not out_of_memory(error):
            raise
        raise TrainingError(f"{run.id}: out of memory on {device}; nothing was recorded. "
                            f"{way_out}") from error


def stepwise(trainer_class, run, *, data_dir=None, device="auto", precision="auto",
             progress=None, label="", checkpoint=None, stop=None):
    """Trains and evaluates one run, as a generator that pauses after each step.

    Args:
        trainer_class: `Trainer`, or a subclass of it.
        data_dir: as for `load_data`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: "fp32", "bf16" (autocast; weights and the optimiser stay fp32), or "auto" (bf16
            if the device computes it natively). A recipe's own goes first. Evaluation is in fp32.
        progress: whether to show a progress bar, with `label` before the run's id; by default on a
            terminal only.
        checkpoint: a file, written every two minutes, from which training continues. The caller
            deletes it.
        stop: called after every step. If it returns True, training ends with a checkpoint.

    Returns:
        A `Result`. On one machine's CPU the same run gives the same bits, interrupted or not.

    Raises:
        ValueError: before any training, if an argument is unknown, PyTorch's default dtype or
            device was changed, gradients are off, or the checkpoint is damaged or of another run.
        TrainingError: if a loss is not finite, or memory runs out.
        Stopped: if `stop` returned True.
    """
    if type(run) is not Run:  # nor one on ImageNet
        raise ValueError("train takes an lc.Run, such as lc.Run('ResNet-20-16', 'cifar10', "
                         f"frozen=True, seed=0), not {run!r}")
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    check_defaults()
    precision = precision if run.recipe.precision == "auto" else run.recipe.precision
    kept = Checkpoint(checkpoint, f"{run}, {precision}, {device.type}")
    saved = kept.load()
    meter = Meter()
    data = load_data(run.dataset, data_dir)

    def after_step(images):
        bar.update(images)
        stopping = stop is not None and stop()
        if stopping or kept.due():
            meter.lap("training")
            kept.save({"trainer": trainer.state(), "spent": meter.spent})
        if stopping:
            raise Stopped(run.id)

    way_out = "Use a device with more memory or stop what else runs there"
    with named_errors(run, device, way_out), own_randomness(run.seed, device):
        network = build_model(run.model, len(data.classes), data.channels)
        if run.frozen:
            freeze_spatial(network)
        trainer = trainer_class(network, data, run.recipe, run.seed, device, precision)
        if saved:
            try:
                trainer.load(saved["trainer"])
            except ValueError as error:
                raise kept.error(error) from None
            meter.add(saved["spent"])
        meter.lap("setup")
        total = trainer.n * run.recipe.epochs
        done = trainer.n * trainer.epochs + sum(trainer.batches[:trainer.position])
        silent = None if progress is None else not progress
        with tqdm(total=total, initial=done, desc=f"{label}{run.id}", unit=" images",
                  unit_scale=True, leave=False, disable=silent) as bar:
            while trainer.epochs < run.recipe.epochs:
                loss = yield from trainer.steps(after_step)
        meter.lap("training")
        measured = measure(network.eval(), data, run.recipe, device)
    meter.lap()
    return to_result(run, network, network, meter.spent, **measured, train_loss=loss,
                     train_images=trainer.n, images=total, device=device_name(device),
                     precision=precision, git=kept.git, classes=data.classes, mean=data.mean,
                     std=data.std)

"""Training one network by the paper's recipe (Appendix A), from its initialisation to its row."""

import math

import torch
import torch.nn.functional as F
from tqdm.auto import tqdm

from .blocks import LCBlock
from .conversion import freeze_spatial
from .data import draw_epoch, gather, load_data, pad
from .models import build_model
from .outcome import measure, to_result
from .run import Run, Stopped, TrainingError
from .utils.checkpoint import Checkpoint, CheckpointError
from .utils.device import (Meter, arithmetic, device_name, out_of_memory, own_randomness,
                           resolve_device, resolve_precision, to_device)


def make_batch(images, labels, plan, rows, size, mean, std):
    """The images and labels of some rows of an epoch's plan: see `data.draw_epoch`."""
    plan = plan[rows]
    return ((gather(images, plan, size) - mean) / std).permute(0, 3, 1, 2), labels[plan[:, 0]]


class Trainer:
    """A network, its data and its optimiser on one device, and the step that trains it.

    All that a step reads or writes lies on the device, the position in the schedule too, so a CUDA
    graph can hold it. The data set stays uint8. Order, crops and flips are drawn once an epoch on
    the CPU, so a seed means the same on every device.

    Args:
        network: takes normalised images in its parameters' dtype; it is moved to the device. Its
            parameters with `requires_grad` are trained.
        seed: for the order, crops and flips.
        precision: "fp32" or "bf16".
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

        full, rest = divmod(self.n, recipe.batch_size)
        self.batches = [recipe.batch_size] * full + [rest] * (rest > 0)
        steps = len(self.batches) * recipe.epochs
        cosine = torch.cos(torch.pi * (torch.arange(steps, dtype=torch.float64) / steps))
        self.schedule = (recipe.learning_rate / 2 * (1 + cosine)).float().to(device)
        self.learning_rate = torch.tensor(recipe.learning_rate, device=device)
        self.optimizer = torch.optim.SGD(
            self.decayed_groups(), lr=self.learning_rate,
            momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay, fused=True)

        # this epoch's order and augmentation: see `draw_epoch`
        self.plan = torch.zeros(self.n, 4, dtype=torch.int64, device=device)
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
        """Lists of the LC-Blocks' spatial weights, pointwise weights and products, as optimised.

        Raises:
            ValueError: if a block has no combined filters.
        """
        blocks = [m for m in self.network.modules() if isinstance(m, LCBlock)]
        return ([b.spatial.weight for b in blocks], [b.pointwise.weight for b in blocks],
                [b.combined_weight() for b in blocks])

    def decayed_groups(self):
        """The optimiser's groups: those tensors that do not decay have one of their own."""
        learned, decayed = self.learned(), self.recipe.decayed
        if decayed == "factors":
            return [{"params": learned}]
        spatial, pointwise, _ = self.factors()
        spared = {*(pointwise if decayed != "pointwise" else []),
                  *(spatial if decayed != "spatial" else [])}
        groups = [{"params": [p for p in learned if p not in spared]},
                  {"params": [p for p in learned if p in spared], "weight_decay": 0.0}]
        return [group for group in groups if group["params"]]

    def product_decay(self):
        """The term of the loss by which the combined filters decay."""
        combined = self.factors()[2]
        return self.recipe.weight_decay / 2 * sum(filters.square().sum() for filters in combined)

    def forward(self, images):
        """The network's logits in training mode."""
        return self.network(images)

    def next_batch(self, batch, make=make_batch):
        """The next `batch` images, augmented and normalised, `[batch, c, h, w]`, and labels."""
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
            decayed = loss + self.product_decay() if self.recipe.decayed == "product" else loss
            decayed.backward()
        self.learning_rate.copy_(self.schedule[self.count][0])
        self.optimizer.step()
        self.losses.index_copy_(0, self.count, loss.detach().float()[None])
        self.row += batch
        self.count += 1

    def steps(self, after_step=None):
        """One pass over the training images, or what `load` leaves of it, pausing after each step.

        Args:
            after_step: called after each step with its number of images.

        Returns:
            The mean loss over the pass.

        Raises:
            TrainingError: if a loss was not finite, naming the step, or a step was not taken.
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
        end = len(self.batches) * (self.epochs + 1)
        start = end - len(self.batches)
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
        """Continues from a `state()`, in place, so that captured graphs see the change.

        Raises:
            CheckpointError: if the state is of another network, data set or number of steps.
        """
        tensors, optimized = self.state()["tensors"], self.optimized()
        saved, momenta = state["tensors"], state["momentum"]
        if ([t.shape for t in tensors] != [t.shape for t in saved] or len(momenta) != len(optimized)
                or any(m is not None and m.shape != p.shape for p, m in zip(optimized, momenta))):
            raise CheckpointError("checkpoint of another network or data set; delete it to train "
                                  "from the start")
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
        """The generator of order and augmentation, and PyTorch's own, which dropout draws from."""
        if self.device.type == "cuda":
            return self.generator, torch.cuda.default_generators[self.device.index or 0]
        return self.generator, torch.default_generator


def finish(steps):
    """Runs a generator to its end, and returns what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def stepwise(trainer_class, run, *, data_dir=None, device="auto", precision="auto",
             progress=None, label="", checkpoint=None, stop=None):
    """Trains and evaluates one run, as a generator that pauses after each step.

    Args:
        trainer_class: `Trainer`, or a subclass of it.
        data_dir: as for `load_data`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: "fp32", "bf16" (autocast; weights and the optimiser stay fp32), or "auto" (bf16
            if the device computes it natively). A recipe's own goes first. Evaluation is in fp32.
        progress: whether to show a progress bar; by default on a terminal only.
        label: text before the run's id in the progress bar.
        checkpoint: a file that is written every two minutes and from which training continues. The
            caller deletes it.
        stop: called after every step. If it returns True, training ends with a checkpoint.

    Returns:
        A `Result`. On one machine's CPU the same run gives the same bits, interrupted or not.

    Raises:
        ValueError: before any training, if `run` is no `Run`, the device, precision or data set is
            unknown, or the checkpoint is damaged or of another run.
        TrainingError: if a loss is not finite, or memory runs out.
        Stopped: if `stop` returned True.
    """
    if type(run) is not Run:  # nor one on ImageNet
        raise ValueError("train takes an lc.Run, such as lc.Run('ResNet-20-16', 'cifar10', "
                         f"frozen=True, seed=0), not {run!r}")
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
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

    try:
        with own_randomness(run.seed, device):
            network = build_model(run.model, len(data.classes), data.channels)
            if run.frozen:
                freeze_spatial(network)
            trainer = trainer_class(network, data, run.recipe, run.seed, device, precision)
            if saved:
                trainer.load(saved["trainer"])
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
    except TrainingError as error:
        raise TrainingError(f"{run.id}: {error}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{checkpoint}: {error}") from None
    except RuntimeError as error:
        if out_of_memory(error):
            raise TrainingError(f"{run.id}: out of memory on {device}; nothing was recorded. Use "
                                "a device with more memory or stop what else runs "
                                "there") from error
        raise
    meter.lap()
    return to_result(run, network, network, meter.spent, **measured, train_loss=loss,
                     train_images=trainer.n, images=total, device=device_name(device),
                     precision=precision, classes=data.classes, mean=data.mean, std=data.std)

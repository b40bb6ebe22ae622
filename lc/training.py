"""Training one network by the paper's recipe (Appendix A), whole on one device."""

import time
import warnings

import torch
import torch.nn.functional as F
from torch import nn

from . import evaluate, filters
from .blocks import fold, freeze_spatial
from .data import draw_epoch, gather, load_data, pad, to_unit
from .machine import device_name, energy_meter, git_version, resolve_device, resolve_precision
from .models import build_model
from .progress import Progress
from .run import Result


class TrainingError(RuntimeError):
    """A run that could not be trained to its end; nothing of it is recorded."""


class Trainer:
    """A network, its data and its optimiser on one device, and the step that trains it.

    Everything that a step reads or writes lies on the device, the position in the schedule included, so that a step
    takes no arguments from the host and a CUDA graph can hold the whole of it. The data set stays uint8; the order,
    crops and flips are drawn once an epoch, on the CPU, so that a seed means the same on every device.

    Args:
        network: takes normalised images in its parameters' dtype; those with `requires_grad` are
            trained. It is moved to the device.
        data: a `Data`.
        seed: of the order, crops and flips.
        device: a `torch.device`.
        precision: "fp32" or "bf16".
    """

    def __init__(self, network, data, recipe, seed, device, precision):
        # Images are channels last everywhere; weights on a GPU only, since a CPU's fused SGD would copy them at every step.
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.network = network.to(device, memory_format=layout).train()
        self.recipe, self.device, self.precision = recipe, device, precision
        self.generator = torch.Generator().manual_seed(seed)

        images = data.x_train[:recipe.train_images]
        self.n, self.size, self.augment = len(images), images.shape[1], data.augment
        self.images = (pad(images) if data.augment else images).to(device)
        self.labels = data.y_train[:recipe.train_images].to(device)
        dtype = next(network.parameters()).dtype
        self.mean = 255 * torch.tensor(data.mean, dtype=dtype, device=device)
        self.std = 255 * torch.tensor(data.std, dtype=dtype, device=device)

        full, rest = divmod(self.n, recipe.batch_size)
        self.batches = [recipe.batch_size] * full + [rest] * (rest > 0)
        steps = len(self.batches) * recipe.epochs
        progress = torch.arange(steps, dtype=torch.float64) / steps
        self.schedule = (recipe.learning_rate / 2 * (1 + torch.cos(torch.pi * progress))).float().to(device)
        self.learning_rate = torch.tensor(recipe.learning_rate, device=device)
        self.optimizer = torch.optim.SGD(
            [p for p in self.network.parameters() if p.requires_grad], lr=self.learning_rate,
            momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay, fused=True)

        self.plan = torch.zeros(self.n, 4, dtype=torch.int64, device=device)  # this epoch's order and augmentation
        self.along = torch.arange(recipe.batch_size, device=device)
        self.row = torch.zeros(1, dtype=torch.int64, device=device)  # position in the epoch, in images
        self.count = torch.zeros(1, dtype=torch.int64, device=device)  # steps done
        self.losses = torch.zeros(steps, device=device)
        self.graphs = {}

    def next_batch(self, batch):
        """The next `batch` images of the plan, augmented and normalised, `[batch, c, h, w]`, and their labels."""
        plan = self.plan[self.row + self.along[:batch]]
        images = ((gather(self.images, plan, self.size) - self.mean) / self.std).permute(0, 3, 1, 2)
        return images, self.labels[plan[:, 0]]

    def step(self, batch):
        """One optimisation step on the next `batch` images of the plan."""
        images, labels = self.next_batch(batch)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
            loss = F.cross_entropy(self.network(images), labels, label_smoothing=self.recipe.label_smoothing)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.learning_rate.copy_(self.schedule[self.count][0])
        self.optimizer.step()
        self.losses.index_copy_(0, self.count, loss.detach().float()[None])
        self.row += batch
        self.count += 1

    def epoch(self, progress):
        """One pass over the training images.

        Returns:
            The mean loss over its steps.

        Raises:
            TrainingError: if a loss was not finite, naming the step.
        """
        self.plan.copy_(draw_epoch(self.n, self.augment, self.generator))
        self.row.zero_()
        for batch in self.batches:
            self.graphs[batch].replay() if batch in self.graphs else self.step(batch)
            progress.update(batch)
        done = self.count.item()  # the one wait for the device in an epoch
        losses = self.losses[done - len(self.batches):done].cpu()
        if not losses.isfinite().all():
            step = done - len(self.batches) + int((~losses.isfinite()).nonzero()[0])
            raise TrainingError(f"the loss became {self.losses[step].item()} at step {step + 1} of {len(self.schedule)}; "
                                "nothing was recorded. Lower the learning rate or check the data")
        return losses.mean().item()

    def capture(self):
        """Record the step of each batch size as a CUDA graph; training goes on as if nothing had been run yet."""
        with torch.cuda.device(self.device):
            for batch in sorted(set(self.batches), reverse=True):
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    self.warm_up(batch)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    self.step(batch)
                self.graphs[batch] = graph

    def warm_up(self, batch, steps=3):
        """Run a few steps, so that libraries choose their algorithms, and undo them: weights, statistics and momentum."""
        state = [*self.network.parameters(), *self.network.buffers(), self.row, self.count, self.losses]
        saved = [tensor.detach().clone() for tensor in state]
        for _ in range(steps):
            self.row.zero_(), self.count.zero_()  # never past the end of a short training
            self.step(batch)
        with torch.no_grad():
            for tensor, value in zip(state, saved):
                tensor.copy_(value)
            for momentum in self.optimizer.state.values():
                momentum["momentum_buffer"].zero_()  # as good as none: the first step adds the gradient to it
        self.optimizer.zero_grad(set_to_none=True)


def train(run, *, data_dir=None, device="auto", precision="auto", graph=True, progress=None, label=""):
    """Train and evaluate one run.

    Args:
        run: a `Run`.
        data_dir: as for `load_data`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        precision: "fp32", "bf16" (autocast; weights, their combination and the optimiser stay fp32), or "auto": bf16
            where the device computes it natively. Evaluation never uses autocast.
        graph: on a GPU, run each step as one CUDA graph.
        progress: show a progress line; by default where a person watches.
        label: stands before the progress line.

    Returns:
        A `Result` with the row for `results/runs.csv`, the arrays for `results/filters/` and the trained network.
        On one machine's CPU, the same run gives the same bits.

    Raises:
        ValueError: unknown device, precision or data set, before any training.
        TrainingError: a loss that is not finite, or out of memory.
    """
    start = time.monotonic()
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    energy = energy_meter(device)
    used_before = energy()
    data = load_data(run.dataset, data_dir)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(run.seed)
            network = build_model(run.model, len(data.classes), data.channels)
        if run.frozen:
            freeze_spatial(network)
        trainer = Trainer(network, data, run.recipe, run.seed, device, precision)
        if graph and device.type == "cuda":
            _capture_or_say(trainer, run)
        total = trainer.n * run.recipe.epochs
        with Progress(total, f"{label}{run.id}", progress) as bar:
            training = time.monotonic()
            for _ in range(run.recipe.epochs):
                loss = trainer.epoch(bar)
            training = time.monotonic() - training
        accuracy, robust_accuracy = _accuracies(network.eval(), data, run.recipe.test_images, device)
    except TrainingError as error:
        raise TrainingError(f"{run.id}: {error}") from None
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
            raise TrainingError(f"{run.id}: out of memory on {device}; nothing was recorded. Use a device with more "
                                "memory or stop what else runs there") from error
        raise
    arrays = filters.summarize(network)
    weights = list(filters.combined_filters(network).values())
    normalized = [filters.variance_entropy(w, normalize=True) if w.shape[-1] == 3 else float("nan")
                  for w in (weights[0], weights[-1])]
    parameters = list(network.parameters())
    return Result(
        id=run.id, model=run.model, dataset=run.dataset, frozen=run.frozen, profile=run.recipe.profile, seed=run.seed,
        accuracy=accuracy, robust_accuracy=robust_accuracy, train_loss=loss,
        learnable_parameters=sum(p.numel() for p in parameters if p.requires_grad),
        total_parameters=sum(p.numel() for p in parameters),
        fve_first=float(arrays["fve"][0]), fve_last=float(arrays["fve"][-1]),
        fve_first_normalized=normalized[0], fve_last_normalized=normalized[1],
        epochs=run.recipe.epochs, train_images=trainer.n,
        seconds=time.monotonic() - start, images_per_second=total / training,
        device=device_name(device), precision=precision, torch=torch.__version__, git=git_version(),
        energy=energy() - used_before,
        arrays=arrays, network=network)


def _accuracies(network, data, test_images, device):
    """Clean and robust accuracy in percent of the first `test_images` test images, or of all."""
    attacked = nn.Sequential(evaluate.Normalize(data.mean, data.std), fold(network)).to(device)
    images, labels = to_unit(data.x_test[:test_images].to(device)), data.y_test[:test_images].to(device)
    return evaluate.accuracy(attacked, images, labels), evaluate.fgsm_accuracy(attacked, images, labels, eps=1 / 255)


def _capture_or_say(trainer, run):
    try:
        trainer.capture()
    except RuntimeError as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        trainer.graphs.clear()
        warnings.warn(f"{run.id}: no CUDA graph could be captured ({error}); training step by step, which is slower")

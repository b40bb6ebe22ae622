"""The training step by the paper's recipe (Appendix A), with all that it reads and writes on one device."""

import torch
import torch.nn.functional as F

from .checkpoint import CheckpointError
from .data import draw_epoch, gather, pad
from .fused import compiled
from .fused import fuse as fuse_network
from .machine import arithmetic
from .stacks import Stacks


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
        fuse: whether what stands between a CIFAR-ResNet's convolutions is compiled, and the augmentation.
    """

    def __init__(self, network, data, recipe, seed, device, precision, fuse=False):
        # Images are channels last everywhere; weights on a GPU only, since a CPU's fused SGD would copy them at every step.
        layout = torch.channels_last if device.type == "cuda" else torch.contiguous_format
        self.network = network.to(device, memory_format=layout).train()
        self.recipe, self.device, self.precision = recipe, device, precision
        self.stacks = Stacks(self.network, torch.bfloat16 if precision == "bf16" else None)
        self.generator = torch.Generator().manual_seed(seed)
        self.batch_of = compiled(_batch) if fuse and fuse_network(self.network) else _batch

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
        progress = torch.arange(steps, dtype=torch.float64) / steps
        self.schedule = (recipe.learning_rate / 2 * (1 + torch.cos(torch.pi * progress))).float().to(device)
        self.learning_rate = torch.tensor(recipe.learning_rate, device=device)
        self.optimizer = torch.optim.SGD(
            self.stacks.learned(), lr=self.learning_rate,
            momentum=recipe.momentum, nesterov=True, weight_decay=recipe.weight_decay, fused=True)

        self.plan = torch.zeros(self.n, 4, dtype=torch.int64, device=device)  # this epoch's order and augmentation
        self.along = torch.arange(recipe.batch_size, device=device)
        self.row = torch.zeros(1, dtype=torch.int64, device=device)  # position in the epoch, in images
        self.count = torch.zeros(1, dtype=torch.int64, device=device)  # steps done
        self.losses = torch.zeros(steps, device=device)
        self.epochs, self.position = 0, 0  # whole epochs done, and steps done in this one: what the host knows
        self.graphs = {}

    def next_batch(self, batch):
        """The next `batch` images of the plan, augmented and normalised, `[batch, c, h, w]`, and their labels."""
        return self.batch_of(self.images, self.labels, self.plan, self.row, self.along[:batch], self.size, self.mean, self.std)

    def step(self, batch):
        """One optimisation step on the next `batch` images of the plan."""
        images, labels = self.next_batch(batch)
        with arithmetic(self.precision, self.device):
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False):
                loss = F.cross_entropy(self.stacks(images), labels, label_smoothing=self.recipe.label_smoothing)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
        self.learning_rate.copy_(self.schedule[self.count][0])
        self.optimizer.step()
        self.losses.index_copy_(0, self.count, loss.detach().float()[None])
        self.row += batch
        self.count += 1

    def epoch(self, progress, after_step=None):
        """One pass over the training images, or the rest of it after `load`.

        Args:
            after_step: called after each step.

        Returns:
            The mean loss over its steps.

        Raises:
            TrainingError: if a loss was not finite, naming the step.
        """
        if self.position == 0:
            self.plan.copy_(draw_epoch(self.n, self.augment, self.generator))
            self.row.zero_()
        for batch in self.batches[self.position:]:
            self.graphs[batch].replay() if batch in self.graphs else self.step(batch)
            self.position += 1
            progress.update(batch)
            if after_step:
                after_step()
        self.epochs, self.position = self.epochs + 1, 0
        done = self.count.item()  # the one wait for the device in an epoch
        losses = self.losses[done - len(self.batches):done].cpu()
        if not losses.isfinite().all():
            step = done - len(self.batches) + int((~losses.isfinite()).nonzero()[0])
            raise TrainingError(f"the loss became {self.losses[step].item()} at step {step + 1} of {len(self.schedule)}; "
                                "nothing was recorded. Lower the learning rate or check the data")
        return losses.mean().item()

    def state(self):
        """All that the steps to come depend on."""
        return {
            "tensors": [*self.network.state_dict().values(), self.plan, self.row, self.count, self.losses],
            "momentum": [self.optimizer.state[p].get("momentum_buffer") for p in self._learned()],
            "generators": [g.get_state() for g in self._generators()],
            "done": (self.epochs, self.position),
        }

    def load(self, state):
        """Take up the training that `state()` told of, in place, so that captured graphs see it.

        Raises:
            CheckpointError: if it is not of this network, data set and number of steps.
        """
        mine = self.state()["tensors"]
        of_mine = [p for p, value in zip(self._learned(), state["momentum"]) if value is not None]
        of_theirs = [value for value in state["momentum"] if value is not None]
        if [t.shape for t in [*mine, *of_mine]] != [t.shape for t in [*state["tensors"], *of_theirs]]:
            raise CheckpointError("checkpoint of another network or data set; delete it to train from the start")
        for tensor, value in zip(mine, state["tensors"]):
            tensor.copy_(value)
        for p, value in zip(self._learned(), state["momentum"]):
            if "momentum_buffer" in self.optimizer.state[p]:
                self.optimizer.state[p]["momentum_buffer"].copy_(value)
            elif value is not None:
                self.optimizer.state[p]["momentum_buffer"] = value.to(p.device).clone(memory_format=torch.preserve_format)
        for generator, value in zip(self._generators(), state["generators"]):
            generator.set_state(value)
        self.epochs, self.position = state["done"]

    def images_done(self):
        return self.epochs * self.n + sum(self.batches[:self.position])

    def _learned(self):
        return self.optimizer.param_groups[0]["params"]

    def _generators(self):
        """Of the order and augmentation, and PyTorch's own, of dropout."""
        own = torch.cuda.default_generators[self.device.index or 0] if self.device.type == "cuda" else torch.default_generator
        return self.generator, own

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
        """Run a few steps, so that libraries choose their algorithms, and undo them: weights, statistics, momentum, dropout."""
        dropout = self._generators()[1]
        drawn = dropout.get_state()
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
        dropout.set_state(drawn)


def _batch(images, labels, plan, row, along, size, mean, std):
    plan = plan[row + along]
    return ((gather(images, plan, size) - mean) / std).permute(0, 3, 1, 2), labels[plan[:, 0]]

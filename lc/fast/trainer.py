"""The training step for a GPU. On a CPU without `fuse` it is the core's own step."""

import warnings
from functools import partial

import torch

from .. import training
from ..training import Trainer, make_batch
from ..utils.device import resolve_device, to_device
from .compiled_regions import compile_regions, compiled, require_compiler
from .stacked_weights import StackedWeights


def train(run, *, device="auto", graph=True, fuse=False, **options):
    """Trains and evaluates one run in the fastest way that its device allows.

    Args:
        run: an `lc.Run`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        graph: on a GPU, run each step as one CUDA graph.
        fuse: compile BatchNorm, addition and ReLU of a CIFAR-ResNet, and the augmentation. A CPU is slower with it.
        options: `data_dir`, `precision`, `progress`, `label`, `checkpoint` and `stop`, as for `lc.training.train`, which
            describes the result and the errors. A recipe whose own precision is "fp32" disables `graph` and `fuse`.

    Raises:
        ValueError: as `lc.training.train`, or if `fuse` is asked for and this machine cannot compile. Nothing has run then.
    """
    where = resolve_device(device)
    if isinstance(run, training.Run) and run.recipe.precision == "fp32":
        graph = fuse = False
    if fuse:
        require_compiler(where)
    own_step = where.type == "cpu" and not fuse
    return training.train(run, device=device, trainer=Trainer if own_step else partial(FastTrainer, graph=graph, fuse=fuse),
                          **options)


class FastTrainer(Trainer):
    """A `Trainer` with stacked weights, on a GPU by default with one CUDA graph for each size of mini-batch.

    Args:
        graph: whether to capture CUDA graphs, on a GPU. If that fails, this warns and trains step by step.
        fuse: whether to compile regions of a CIFAR-ResNet, and the augmentation.
    """

    def __init__(self, network, data, recipe, seed, device, precision, *, graph=True, fuse=False):
        self.stacks = StackedWeights(to_device(network, device).train(), torch.bfloat16 if precision == "bf16" else None)
        self.fused = fuse and compile_regions(self.stacks.skeleton) > 0
        self.graphs = {}
        super().__init__(network, data, recipe, seed, device, precision)
        if graph and device.type == "cuda":
            try:
                self.capture()
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self.graphs.clear()
                warnings.warn(f"no CUDA graph could be captured ({error}); training step by step, which is slower", stacklevel=2)

    def learned(self):
        return self.stacks.learned()

    def forward(self, images):
        return self.stacks(images)

    def next_batch(self, batch):
        make = compiled(make_batch) if self.fused else make_batch
        return make(self.images, self.labels, self.plan, self.row + self.along[:batch], self.size, self.mean, self.std)

    def step(self, batch):
        self.graphs[batch].replay() if batch in self.graphs else super().step(batch)

    def capture(self):
        """Captures the step of each size of mini-batch as a CUDA graph. Training then continues as if nothing had run."""
        with torch.cuda.device(self.device):
            for batch in sorted(set(self.batches), reverse=True):
                stream = torch.cuda.Stream()
                stream.wait_stream(torch.cuda.current_stream())
                with torch.cuda.stream(stream):
                    self.warm_up(batch)
                torch.cuda.current_stream().wait_stream(stream)
                graph = torch.cuda.CUDAGraph()
                with torch.cuda.graph(graph):
                    super().step(batch)
                self.graphs[batch] = graph

    def warm_up(self, batch, steps=3):
        """Runs a few steps, in which libraries choose their algorithms, and restores weights, statistics and momentum."""
        _, dropout = self.generators()
        drawn = dropout.get_state()
        state = [*self.network.parameters(), *self.network.buffers(), self.row, self.count, self.losses]
        saved = [tensor.detach().clone() for tensor in state]
        for _ in range(steps):
            self.row.zero_(), self.count.zero_()  # a short training has fewer steps than these
            super().step(batch)
        with torch.no_grad():
            for tensor, value in zip(state, saved):
                tensor.copy_(value)
            for momentum in self.optimizer.state.values():
                momentum["momentum_buffer"].zero_()  # the same as none: the first step adds the gradient to it
        self.optimizer.zero_grad(set_to_none=True)
        dropout.set_state(drawn)

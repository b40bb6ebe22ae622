"""The training step for a GPU. On a CPU without `fuse` it is the core's own step."""

import warnings
from functools import partial

import torch

from .. import training
from ..run import TrainingError
from ..training import Trainer, finish, make_batch
from ..utils.check import one_line
from ..utils.device import out_of_memory, resolve_device, to_device
from ..utils.fresh_process import in_fresh_process
from .compiled_regions import compile_regions, compiled, require_compiler
from .stacked_weights import StackedWeights

failed_captures = []  # the runs whose step this process could not capture


class CaptureError(RuntimeError):
    """No CUDA graph could be captured. The process should compute nothing more on the GPU."""


def train(run, **options):
    """Trains and evaluates one run in the fastest way that its device allows.

    Args:
        run: an `lc.Run`.
        device: "auto" (a GPU if there is one), "cpu", "cuda", "cuda:1", ...
        graph: on a GPU, by default, run each step as one CUDA graph. If its capture fails, this
            warns, and the run and later ones are trained step by step in processes of their own:
            a failed capture may leave its process in no state to compute.
        fuse: compile BatchNorm, addition and ReLU of a CIFAR-ResNet, and the augmentation. A CPU
            is slower with it.
        options: `data_dir`, `precision`, `progress`, `label`, `checkpoint` and `stop`, as for
            `lc.training.stepwise`, which describes the result and the errors. A recipe whose own
            precision is "fp32" disables `graph` and `fuse`.

    Raises:
        ValueError: before any training, as `lc.training.stepwise`, or if `fuse` is asked for and
            this machine cannot compile.
    """
    return finish(stepwise(run, **options))


def stepwise(run, *, device="auto", graph=True, fuse=False, **options):
    """The same as a generator that pauses after each step."""
    where = resolve_device(device)
    if type(run) is training.Run and run.recipe.precision == "fp32":
        graph = fuse = False
    if fuse:
        require_compiler(where)
    if where.type == "cpu" and not fuse:
        return (yield from training.stepwise(Trainer, run, device=device, **options))
    if not (graph and failed_captures):
        try:
            fast = partial(FastTrainer, graph=graph, fuse=fuse)
            return (yield from training.stepwise(fast, run, device=device, **options))
        except CaptureError as error:
            failed_captures.append(run.id)
            warnings.warn(f"{error}; training step by step in a process of its own, which is "
                          "slower", stacklevel=2)
    try:
        return in_fresh_process(train, run, device=device, graph=False, fuse=fuse, **options)
    except ChildProcessError as error:
        raise TrainingError(f"{run.id}: {error}") from None


class FastTrainer(Trainer):
    """A `Trainer` with stacked weights, on a GPU with a CUDA graph for each size of mini-batch."""

    def __init__(self, network, data, recipe, seed, device, precision, *, graph=True, fuse=False):
        dtype = torch.bfloat16 if precision == "bf16" else None
        self.stacks = StackedWeights(to_device(network, device).train(), dtype)
        self.fused = fuse and compile_regions(self.stacks.skeleton) > 0
        self.graphs = {}
        super().__init__(network, data, recipe, seed, device, precision)
        if graph and device.type == "cuda":
            self.capture()

    def learned(self):
        return self.stacks.learned()

    def factors(self):
        return self.stacks.factors()

    def products(self):
        return self.stacks.products()

    def forward(self, images):
        return self.stacks(images)

    def next_batch(self, batch):
        return super().next_batch(batch, compiled(make_batch) if self.fused else make_batch)

    def step(self, batch):
        self.graphs[batch].replay() if batch in self.graphs else self.launch(batch)

    def launch(self, batch):
        """A step operation by operation. cuDNN takes for each shape the fastest algorithm."""
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
        try:
            super().step(batch)
        finally:
            torch.backends.cudnn.benchmark = before

    def capture(self):
        """Captures the step of each size of mini-batch as a CUDA graph, or raises CaptureError.

        Training then continues as if nothing had run.
        """
        try:
            with torch.cuda.device(self.device):
                stream, current = torch.cuda.Stream(), torch.cuda.current_stream()
                stream.wait_stream(current)
                with torch.cuda.stream(stream):  # PyTorch 2.11 leaves it only here after an error
                    for batch in sorted(set(self.batches), reverse=True):
                        self.warm_up(batch)
                        graph = torch.cuda.CUDAGraph()
                        # by default the stream is of the GPU on which the process captured first
                        with torch.cuda.graph(graph, stream=stream):
                            self.launch(batch)
                        self.graphs[batch] = graph
                current.wait_stream(stream)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            why = one_line(error)[:200]
            raise CaptureError(f"no CUDA graph could be captured ({why})") from error

    def warm_up(self, batch, steps=3):
        """Runs a few steps, in which libraries choose their algorithms, and undoes them."""
        _, dropout = self.generators()
        drawn = dropout.get_state()
        state = [*self.network.parameters(), *self.network.buffers(),
                 self.row, self.count, self.losses]
        saved = [tensor.detach().clone() for tensor in state]
        try:
            for _ in range(steps):
                self.row.zero_(), self.count.zero_()  # a short training has fewer steps than these
                self.launch(batch)
        finally:
            with torch.no_grad():
                for tensor, value in zip(state, saved):
                    tensor.copy_(value)
                for momentum in filter(None, self.optimizer.state.values()):
                    # the same as none: the first step adds the gradient to it
                    momentum["momentum_buffer"].zero_()
            self.optimizer.zero_grad(set_to_none=True)
            dropout.set_state(drawn)

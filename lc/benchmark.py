"""How fast a training step is, and how much memory it takes: everything measured in one run, so that ratios hold."""

import gc
import os
import time

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from . import check
from .blocks import freeze_spatial, unfold
from .data import Data
from .machine import device_name, out_of_memory, resolve_device, resolve_precision
from .models import build_model, canonical_name
from .run import Recipe
from .trainer import Trainer

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or the profiler, which counts memory, talks to the terminal
MODELS = ("ResNet-20-16", *(f"ResNet-LC-20-16x{e}" for e in (1, 8, 32, 128)))
ROUNDS = 3  # each case is timed once a round, and its best round taken: what else runs on a machine only ever slows
EPOCH = 16  # steps, on random images
UNFOLDED_CPU_BATCH = 16  # the expanded features of a whole batch would not fit, and images/s hardly depend on it


def benchmark(device="auto", precision="auto", batch=256, models=MODELS, seconds=2.0):
    """Print images/s and peak memory of training steps, folded and unfolded, and of the data pipeline alone.

    Args:
        device, precision: as for `train`.
        batch: images a step; the unfolded reference takes 16 on a CPU.
        models: names; the first is what the others are compared with.
        seconds: how long to time each case in each round; at least one step.

    Returns:
        `{(model, "frozen" or "learnable", "lc" or "unfolded"): images/s}`, of the cases that fitted.

    Raises:
        ValueError: unknown device, precision or model, a batch below 1, or a first model that does not fit.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    check.whole("batch", batch)
    models = [canonical_name(model) for model in models]
    if not models:
        raise ValueError("no model to measure: give at least one name")
    print(f"{device_name(device)}, torch {torch.__version__}, {precision}")
    cases, memory = {}, {}
    for model in models:
        for kind in ("learnable", "frozen"):
            for path in ("lc", "unfolded") if "-LC-" in model else ("lc",):
                size = UNFOLDED_CPU_BATCH if path == "unfolded" and device.type == "cpu" else batch
                try:
                    trainer = _trainer(model, kind, path, size, device, precision)
                    memory[model, kind, path] = _peak_memory(trainer)
                    if device.type == "cuda" and path == "lc":  # a graph would keep the unfolded features' memory
                        trainer.capture()
                    cases[model, kind, path] = trainer
                except RuntimeError as error:
                    if not out_of_memory(error):
                        raise
                    print(f"{model} {kind}, {path}: {size} images do not fit on {device}")
                    gc.collect(), torch.cuda.empty_cache()
    if (models[0], "learnable", "lc") not in cases:
        raise ValueError(f"{models[0]}, which the others are compared with, does not fit on {device}; use a smaller batch")
    rates = {case: [] for case in cases}
    for _ in range(ROUNDS):
        for case, trainer in cases.items():
            rates[case].append(_rate(trainer, _train_step, seconds))
    rates = {case: max(values) for case, values in rates.items()}

    plain = rates[models[0], "learnable", "lc"]
    print(f"\n{'network':27} {'spatial':9} {'path':8} {'batch':>5} {'images/s':>9} {'of plain':>8} {'of unfolded':>11} "
          f"{'MiB':>7} {'MiB/image':>9}")
    for case, rate in rates.items():
        model, kind, path = case
        size = cases[case].recipe.batch_size
        unfolded = rates.get((model, kind, "unfolded")) if path == "lc" else None
        print(f"{model:27} {kind:9} {path:8} {size:5} {rate:9.1f} {rate / plain:8.2f} "
              f"{f'{rate / unfolded:.1f}x' if unfolded else '':>11} {memory[case]:7.0f} {memory[case] / size:9.2f}")
    trainer = cases[models[0], "learnable", "lc"]
    data_rate = _rate(trainer, lambda trainer: trainer.next_batch(batch), seconds)
    print(f"\ndata pipeline alone: {data_rate:.0f} images/s, {data_rate / plain:.0f} times the plain network's training")
    if device.type == "cuda":
        _print_bandwidth(trainer, plain / batch, device)
    return rates


def _trainer(model, kind, path, batch, device, precision):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (EPOCH * batch, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (EPOCH * batch,), generator=generator)
    data = Data("random", images, labels, images, labels, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, augment=True)
    network = build_model(model)
    if kind == "frozen":
        freeze_spatial(network)
    if path == "unfolded":
        network = unfold(network)
    return Trainer(network, data, Recipe("benchmark", epochs=1, batch_size=batch), 0, device, precision)


def _train_step(trainer):
    batch = trainer.recipe.batch_size
    trainer.graphs[batch].replay() if batch in trainer.graphs else trainer.step(batch)


def _rate(trainer, step, seconds):
    """Images/s of repeated steps, after one that is not timed: it takes up the memory that the case before gave back."""
    _rewind(trainer)
    step(trainer)
    steps = 0
    _wait(trainer.device)
    start = time.perf_counter()
    while not steps or time.perf_counter() - start < seconds:
        _rewind(trainer)
        for _ in range(1 if trainer.device.type == "cpu" else EPOCH):
            step(trainer)
            steps += 1
        _wait(trainer.device)  # or the host would run ahead of the clock
    return steps * trainer.recipe.batch_size / (time.perf_counter() - start)


def _rewind(trainer):
    trainer.row.zero_()
    trainer.count.zero_()


def _wait(device):
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _peak_memory(trainer):
    """MiB of tensors at the peak of one step, weights and momentum included; the second step, when momentum exists."""
    _rewind(trainer)
    _train_step(trainer)
    trainer.optimizer.zero_grad()  # what is freed in the measured step was then allocated in it
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(trainer.device)
        before = torch.cuda.memory_allocated(trainer.device)
        _train_step(trainer)
        peak = torch.cuda.max_memory_allocated(trainer.device) - before
    else:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            _train_step(trainer)
        events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
        level = peak = 0
        for event in sorted(events, key=lambda e: e.start_ns()):
            level += event.nbytes()
            peak = max(peak, level)
    kept = [*trainer.network.parameters(), *trainer.network.buffers(),
            *(state["momentum_buffer"] for state in trainer.optimizer.state.values())]
    return (peak + sum(t.nbytes for t in kept)) / 2**20


class _Traffic(TorchDispatchMode):
    """Counts the bytes that each operation reads and writes, views aside: what an eager step moves through memory."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        read = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        written = [t for t in tree_leaves(out) if isinstance(t, torch.Tensor)]
        storages = {t.untyped_storage().data_ptr() for t in read}
        is_view = not function._schema.is_mutable and all(t.untyped_storage().data_ptr() in storages for t in written)
        if not is_view:
            self.bytes += sum(t.nbytes for t in read + written)
        return out


def _print_bandwidth(trainer, steps_per_second, device):
    with _Traffic() as traffic:
        _rewind(trainer)
        trainer.step(trainer.recipe.batch_size)
    source = torch.empty(2**30, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    target.copy_(source)
    start.record()
    for _ in range(20):
        target.copy_(source)
    end.record()
    _wait(device)
    copied = 20 * 2 * 2**30 / (start.elapsed_time(end) / 1000)
    moved = traffic.bytes * steps_per_second
    print(f"copy bandwidth {copied / 1e12:.2f} TB/s; a plain step's operations read and write {traffic.bytes / 1e9:.2f} GB: "
          f"{moved / 1e12:.2f} TB/s, {moved / copied:.0%} of it")

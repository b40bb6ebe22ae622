"""Measures what training steps cost, all in one run, so that their ratios hold."""

import itertools
import math
import os
import time
from functools import partial
from types import SimpleNamespace

import pandas as pd
import torch
from torch.profiler import ProfilerActivity, profile
from tqdm.auto import tqdm

from ..blocks import unfold
from ..conversion import freeze_spatial
from ..data import Data
from ..fast.trainer import FastTrainer
from ..models import build_model
from ..names import architecture, canonical_name
from ..results import check_writable
from ..run import Recipe
from ..training import Trainer
from ..utils import check
from ..utils.device import (device_name, git_version, out_of_memory, resolve_device,
                            resolve_precision, said_name)
from ..utils.files import check_replaceable, results_folder
from .plain_loop import plain_loop
from .table import COLUMNS, RATIOS, load_table, save, sweep_options, with_ratios

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler would print messages of its own
CHUNK = 16  # steps on a GPU between two looks at the clock
ROUNDS = 3  # of timing every case; its best counts, as other programs only slow a step down
UNFOLDED_CPU_BATCH = 16  # more expanded features would not fit; images/s hardly depend on it
MODELS = "ResNet-20-16", "ResNet-LC-20-16x1", "ResNet-LC-20-16x8", "ResNet-LC-20-16x128"
TOGETHER = {f"graphs-{n}": n for n in (2, 4, 8)}
PATHS = (
    "eager",  # operation by operation
    "graph",  # as one CUDA graph, as `train` does on a GPU
    "fused",  # the same, with BatchNorm, addition and ReLU compiled
    *TOGETHER,  # n networks in turn, each as one graph on its own stream, as with --together n
    "unfolded",  # through the expanded features, operation by operation
    "loop",  # by a conventional PyTorch loop: DataLoader, fp32, operation by operation
)
ON_A_GPU = {"graph", "fused", *TOGETHER}
KIND = {True: "frozen", False: "learnable"}


def benchmark(device="auto", precision="auto", batch=256, models=None, paths=None, seconds=1.0):
    """Measures training steps, prints them with ratios, and keeps them in `speed.csv`.

    The arguments are the options of `lc benchmark`. Each network is measured frozen and learnable.
    On a CPU, the unfolded ones take 16 images a step.

    Returns:
        A DataFrame of the cases that fitted: see `table.with_ratios`.

    Raises:
        ValueError: before anything is measured, if an argument is unknown, `speed.csv` has other
            columns or cannot be written; if nothing fits.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    check.integer("batch", batch)
    check.number("seconds", seconds, 0, math.inf, "[)")
    possible = [path for path in PATHS if device.type == "cuda" or path not in ON_A_GPU]
    if unknown := [path for path in paths or () if path not in possible]:
        raise ValueError(f"unknown path {unknown[0]!r}; known on {device}: {', '.join(possible)}")
    names = [canonical_name(name) for name in models or MODELS]
    load_table()  # raises its errors now
    check_writable(results_folder())
    check_replaceable(results_folder() / "speed.csv")
    about = dict(started=time.strftime("%Y-%m-%d %H:%M:%S"), device=device_name(device),
                 torch=torch.__version__, git=git_version())
    print(f"{said_name(device)}, torch {torch.__version__}, {precision}")
    cases = [about | case for case in _cases(names, paths or possible, device, precision, batch)]
    rows = _measure(cases, device, seconds)
    if not rows:
        raise ValueError(f"nothing of this fits on {device}; use a smaller batch")
    table = with_ratios(pd.DataFrame(rows, columns=COLUMNS))
    shown = table.assign(frozen=table["frozen"].map(KIND), memory_mib=table["memory_mib"].round())
    shown = shown[["model", "frozen", "path", *COLUMNS[8:], *RATIOS]]
    text = shown.to_string(index=False, float_format="{:.2f}".format, na_rep="")
    print(f"\n{text}", flush=True)
    if options := sweep_options(table):
        print(f"most images a second: lc sweep {options}", flush=True)
    save(rows)
    return table


def _cases(names, paths, device, precision, batch):
    """What is measured, as rows without their measurements."""
    for name, frozen, path in itertools.product(names, (False, True), paths):
        network, images = architecture(name), batch * TOGETHER.get(path, 1)
        # only LC-Blocks unfold, and only CIFAR-ResNets are fused
        if path == "unfolded" and not network.expansion or path == "fused" and not network.depth:
            continue
        if path == "unfolded" and device.type == "cpu":
            images = min(batch, UNFOLDED_CPU_BATCH)
        yield dict(precision="fp32" if path == "loop" else precision,
                   model=name, frozen=frozen, path=path, batch=images)


def _measure(cases, device, seconds):
    """Measures cases in turns. The rows of those that fitted."""
    rows, steps = [], []
    for case in tqdm(cases, "setting up", unit="case", leave=False, disable=None):
        try:
            memory, step = _set_up(case, device)
        except RuntimeError as error:
            why = check.one_line(error)  # of "fused": nothing can be compiled here
            if out_of_memory(error):
                why = f"{case['batch']} images do not fit on {device}"
            elif case["path"] != "fused":
                raise
            print(f"{case['model']} {KIND[case['frozen']]}, {case['path']}: {why}")
        else:
            rows.append(case | {"memory_mib": memory / 2**20})
            steps.append(step)
        torch.cuda.empty_cache()
    times = [math.inf] * len(steps)
    for _ in tqdm(range(ROUNDS), "measuring", unit="round", leave=False, disable=None):
        times = [min(best, seconds_of(step, device, seconds)) for best, step in zip(times, steps)]
    return [row | dict(milliseconds=1000 * best, images_per_second=row["batch"] / best)
            for row, best in zip(rows, times)]


def _set_up(case, device):
    """The bytes that a step needs, and a function that takes the next step."""
    if n := TOGETHER.get(case["path"]):  # a step of each in turn, as `in_turn` lets them
        one = case | {"path": "graph", "batch": case["batch"] // n}
        memories, steps = zip(*(_set_up(one, device) for _ in range(n)))
        streams = [torch.cuda.Stream(device) if device.type == "cuda" else None for _ in steps]

        def all_steps():
            for stream, step in zip(streams, steps):
                with torch.cuda.stream(stream):
                    step()

        return sum(memories), all_steps
    trainer, step = make_step(case, device)
    step()  # makes the momentum
    trainer.optimizer.zero_grad()  # so that the measured step allocates the gradients itself
    memory = peak_memory(step, device)
    kept = [*trainer.network.parameters(), *trainer.network.buffers(),
            *(state["momentum_buffer"] for state in trainer.optimizer.state.values())]
    if case["path"] in ("graph", "fused"):
        trainer.capture()
    return memory + sum(tensor.nbytes for tensor in kept), step


def make_step(case, device):
    """What trains a network on random images, without a CUDA graph yet, and its next step."""
    path, batch = case["path"], case["batch"]
    images = torch.randint(256, (CHUNK * batch, 32, 32, 3), dtype=torch.uint8)
    labels = torch.randint(10, (len(images),))
    data = Data("random", images, labels, images, labels, tuple("0123456789"),
                (0.5,) * 3, (0.25,) * 3, augment=True)
    recipe = Recipe("benchmark", epochs=1, batch_size=batch)
    with device:  # a CPU takes long to draw many weights, and their values do not matter
        network = build_model(case["model"])
    if case["frozen"]:
        freeze_spatial(network)
    if path == "loop":
        loop = plain_loop(network, data, recipe, device)
        return SimpleNamespace(network=network, optimizer=next(loop)), partial(next, loop)
    if path == "unfolded":
        network = unfold(network)
    kind = Trainer  # as `train` does on a CPU
    if device.type == "cuda":
        kind = partial(FastTrainer, graph=False, fuse=path == "fused")
    trainer = kind(network, data, recipe, 0, device, case["precision"])
    positions = itertools.cycle(range(CHUNK))

    def step():
        if next(positions) == 0:  # the images are used up
            trainer.row.zero_(), trainer.count.zero_()
        trainer.step(batch)

    return trainer, step


def seconds_of(step, device, seconds):
    """The mean seconds of a step that is repeated for about `seconds`."""
    wait = torch.get_device_module(device).synchronize
    chunk = CHUNK if device.type == "cuda" else 1
    step()  # allocates memory
    wait(device)
    steps, start = 0, time.perf_counter()
    while not steps or time.perf_counter() - start < seconds:
        for _ in range(chunk):
            step()
        wait(device)  # the host would run ahead of the clock
        steps += chunk
    return (time.perf_counter() - start) / steps


def peak_memory(step, device):
    """The bytes of tensors that a step allocates at its peak, besides those that were there."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        step()
    events = sorted((event for event in profiled.profiler.kineto_results.events()
                     if event.name() == "[memory]"), key=lambda event: event.start_ns())
    return max(itertools.accumulate((event.nbytes() for event in events), initial=0))

"""How fast a training step is, and how much memory it takes: everything measured in one run, so that ratios hold."""

import gc
import math
import time

import torch
from tqdm.auto import tqdm

from ..blocks import freeze_spatial, unfold
from ..data import Data
from ..fast import FastTrainer
from ..models import architecture, build_model, canonical_name
from ..run import Recipe
from ..utils import check
from ..utils.device import device_name, git_version, out_of_memory, resolve_device, resolve_precision
from . import table
from .measure import CHUNK, Operations, copy_bandwidth, kernels, peak_memory, seconds_of
from .plain_loop import Loop
from .table import Step

ROUNDS = 3  # each case is timed once a round, and its best round taken: what else runs on a machine only ever slows
UNFOLDED_CPU_BATCH = 16  # the expanded features of a whole batch would not fit, and images/s hardly depend on it
KINDS = ("", "x1", "x8", "x128")  # plain, and with LC-Blocks
SHAPES = [(20, 16, 3), (20, 16, 9), (20, 64, 3), (20, 128, 3), (110, 16, 3)]  # depth, width, kernel size; on a CPU the first
PATHS = {
    "eager": "operation by operation",
    "graph": "as one CUDA graph, as `train` does on a GPU",
    "fused": "the same, with BatchNorm, addition and ReLU compiled",
    "unfolded": "through the expanded features, operation by operation",
    "loop": "by a conventional loop: DataLoader, fp32, operation by operation",
}


def benchmark(device="auto", precision="auto", batch=256, models=None, paths=None, seconds=1.0, folder=None):
    """Measure training steps, print a table of them with ratios, and keep it in `speed.csv`.

    Args:
        device, precision: as for `train`.
        batch: images a step; the unfolded reference takes 16 on a CPU.
        models: names; by default ResNet-{D}-{W}, plain and with LC-Blocks of E = 1, 8, 128, in all `SHAPES` on a GPU, on a CPU
            in the first. Networks of one shape are measured in turns.
        paths: names of `PATHS`; by default all that the device can do, the slow references for networks of the first shape
            only, the compiled one on a GPU only.
        seconds: how long to time each case in each of three rounds; at least one step.
        folder: where `speed.csv` lies; by default $LC_RESULTS_DIR, else `results` of this project. Rows of the same device,
            precision, network, path and batch are replaced, all others stay.

    Returns:
        A DataFrame of the cases that fitted, with their ratios: see `table.ratios`.

    Raises:
        ValueError: unknown device, precision, model or path, a batch below 1, or a `speed.csv` that is none, before anything
            is measured; if nothing fits.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    check.integer("batch", batch)
    gpu = device.type == "cuda"
    names = models or [f"ResNet{'-LC' * bool(e)}-{d}-{w}{e}-k{k}" for d, w, k in SHAPES[:None if gpu else 1] for e in KINDS]
    possible = [path for path in PATHS if gpu or path not in ("graph", "fused")]
    for path in paths or ():
        if path not in possible:
            raise ValueError(f"unknown path {path!r}; known on {device}: {', '.join(possible)}")
    before, shapes = table.load(folder), {}
    for name in map(canonical_name, names):
        shapes.setdefault(table.shape(name), []).append(name)
    about = dict(started=time.strftime("%Y-%m-%d %H:%M:%S"), device=device_name(device), torch=torch.__version__,
                 git=git_version(), copy_gb_per_s=copy_bandwidth(device) / 1e9)
    print("{device}, torch {torch}, {}; a copy moves {copy_gb_per_s:.0f} GB/s".format(precision, **about))
    done = []
    for i, names in enumerate(shapes.values()):
        wanted = paths or [path for path in possible if i == 0 or path not in ("unfolded", "loop")]
        cases = [(name, frozen, path) for name in names for frozen in (False, True) for path in wanted if _differs(name, path)]
        done += _measure(cases, batch, device, precision, about, seconds)
        if done:  # after each shape, for a run may be cut off
            table.keep(before, done, folder)
    if not done:
        raise ValueError(f"nothing of this fits on {device}; use a smaller batch")
    return table.ratios(table.to_table(done))


def _differs(name, path):
    """Whether a path is another one for this network: only LC-Blocks unfold, only CIFAR-ResNets are fused."""
    shape = architecture(name)
    return bool(shape.expansion if path == "unfolded" else shape.depth if path == "fused" else True)


def _measure(cases, batch, device, precision, about, seconds):
    """The steps of networks of one shape, timed in turns, printed."""
    steps, runs = [], []
    for name, frozen, path in tqdm(cases, "setting up", unit="case", leave=False, disable=None):
        gc.collect()  # what was measured before, or did not fit
        torch.cuda.empty_cache()
        size = min(batch, UNFOLDED_CPU_BATCH) if path == "unfolded" and device.type == "cpu" else batch
        step = Step(**about, precision="fp32" if path == "loop" else precision, model=name, frozen=frozen, path=path, batch=size)
        try:
            runs.append(_set_up(step, device))
            steps.append(step)
        except RuntimeError as error:
            if not out_of_memory(error) and path != "fused":
                raise
            why = f"{size} images do not fit on {device}" if out_of_memory(error) else f"not compiled ({check.one_line(error)})"
            print(f"{name} {'frozen' if frozen else 'learnable'}, {path}: {why}")
    for _ in tqdm(range(ROUNDS), "measuring", unit="round", leave=False, disable=None):
        for step, run in zip(steps, runs):
            step.milliseconds = min(step.milliseconds, 1000 * seconds_of(run, device, seconds))
    _print(steps)
    return steps


def _set_up(step, device):
    """Count the memory, kernels and bytes of a step; returns a function that takes it."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (CHUNK * step.batch, 32, 32, 3), dtype=torch.uint8, generator=generator)
    labels = torch.randint(10, (len(images),), generator=generator)
    data = Data("random", images, labels, images, labels, tuple("0123456789"), (0.5,) * 3, (0.25,) * 3, augment=True)
    recipe = Recipe("benchmark", epochs=1, batch_size=step.batch)
    with device:  # what the weights are does not matter, and drawing many takes a CPU long
        network = build_model(step.model)
    if step.frozen:
        freeze_spatial(network)
    if step.path == "loop":
        trainer = Loop(network, data, recipe, device)
        run = trainer.step
    else:
        trainer = FastTrainer(unfold(network) if step.path == "unfolded" else network, data, recipe, 0, device, step.precision,
                              graph=False, fuse=step.path == "fused")
        run = _repeatable(trainer)
    run()  # now momentum exists
    trainer.optimizer.zero_grad()  # what is freed in the measured step was then allocated in it
    peak = peak_memory(run, device)
    kept = [*trainer.network.parameters(), *trainer.network.buffers(),
            *(state["momentum_buffer"] for state in trainer.optimizer.state.values())]
    step.memory_mib = (peak + sum(t.nbytes for t in kept)) / 2**20
    if step.path not in ("graph", "fused"):
        with Operations() as operations:
            run()
        step.kernels, step.gigabytes = operations.count, operations.bytes / 1e9
    else:
        trainer.capture()
    if device.type == "cuda":
        step.kernels = kernels(run, device)
    return run


def _repeatable(trainer):
    """A function that takes the next step, from the first image again where the images end."""
    batch = trainer.recipe.batch_size

    def run():
        if trainer.position == CHUNK:
            trainer.row.zero_(), trainer.count.zero_()
            trainer.position = 0
        trainer.position += 1
        trainer.step(batch)

    return run


def _print(steps):
    print(f"\n{'network':24} {'spatial':9} {'path':8} {'batch':>5} {'images/s':>9} {'ms':>8} {'of plain':>8} {'of unfolded':>11} "
          f"{'of loop':>8} {'MiB':>7} {'of plain':>8} {'kernels':>7} {'GB':>6}")
    for row in table.ratios(table.to_table(steps)).itertuples():
        print(f"{row.model:24} {'frozen' if row.frozen else 'learnable':9} {row.path:8} {row.batch:5} "
              f"{row.images_per_second:9.1f} {row.milliseconds:8.2f} {_ratio(row.of_plain):>8} {_ratio(row.of_unfolded):>11} "
              f"{_ratio(row.of_loop):>8} {row.memory_mib:7.0f} {_ratio(row.memory_of_plain):>8} {row.kernels:7} "
              f"{row.gigabytes:6.2f}", flush=True)


def _ratio(value):
    return "" if math.isnan(value) else f"{value:.2f}"

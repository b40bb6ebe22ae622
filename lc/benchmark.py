"""How fast a training step is, and how much memory it takes: everything measured in one run, so that ratios hold."""

import gc
import math
from dataclasses import dataclass, field, fields
from pathlib import Path

import pandas as pd
import torch
from tqdm import tqdm

from . import check
from .blocks import freeze_spatial, unfold
from .conventional import Loop
from .data import Data
from .files import replacing
from .machine import device_name, git_version, out_of_memory, resolve_device, resolve_precision
from .measure import CHUNK, Operations, copy_bandwidth, kernels, peak_memory, seconds_of
from .models import architecture, build_model, canonical_name
from .run import Recipe, results_folder
from .trainer import Trainer

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


@dataclass
class Step:
    """A row of `speed.csv`: one way to compute the training step of one network, and what it costs."""

    device: str
    torch: str
    git: str
    precision: str
    copy_gb_per_s: float  # that a copy of a large tensor reads and writes on this device
    model: str
    frozen: bool
    path: str  # of PATHS
    batch: int  # images
    milliseconds: float = math.inf
    memory_mib: float = math.nan  # tensors at the peak, weights and momentum included
    kernels: int = 0  # on a CPU: operations
    gigabytes: float = math.nan  # that the operations of a step read and write, one by one
    run: object = field(default=None, repr=False)  # takes one step

    @property
    def images_per_second(self):
        return 1000 * self.batch / self.milliseconds


KEYS = ["device", "precision", "model", "frozen", "path", "batch"]
COLUMNS = [*(f.name for f in fields(Step) if f.name != "run"), "images_per_second"]


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
        A list of `Step`, of the cases that fitted.

    Raises:
        ValueError: unknown device, precision, model or path, a batch below 1, or a `speed.csv` that is none, before anything
            is measured; if nothing fits.
    """
    device = resolve_device(device)
    precision = resolve_precision(precision, device)
    check.whole("batch", batch)
    gpu = device.type == "cuda"
    names = models or [f"ResNet{'-LC' * bool(e)}-{d}-{w}{e}-k{k}" for d, w, k in SHAPES[:None if gpu else 1] for e in KINDS]
    possible = [path for path in PATHS if gpu or path not in ("graph", "fused")]
    for path in paths or ():
        if path not in possible:
            raise ValueError(f"unknown path {path!r}; known on {device}: {', '.join(possible)}")
    table, shapes = _load(folder), {}
    for name in map(canonical_name, names):
        shapes.setdefault(_shape(name), []).append(name)
    copied = copy_bandwidth(device) / 1e9
    print(f"{device_name(device)}, torch {torch.__version__}, {precision}; a copy moves {copied:.0f} GB/s")
    done = []
    for i, names in enumerate(shapes.values()):
        wanted = paths or [path for path in possible if i == 0 or path not in ("unfolded", "loop")]
        cases = [(name, frozen, path) for name in names for frozen in (False, True) for path in wanted if _differs(name, path)]
        done += _measure(cases, batch, device, precision, copied, seconds)
        if done:  # after each shape, for a run may be cut off
            _keep(table, done, folder)
    if not done:
        raise ValueError(f"nothing of this fits on {device}; use a smaller batch")
    return done


def _shape(name):
    shape = architecture(name)
    return shape.depth, shape.width, shape.kernel_size


def _differs(name, path):
    """Whether a path is another one for this network: only LC-Blocks unfold, only CIFAR-ResNets are fused."""
    shape = architecture(name)
    return bool(shape.expansion if path == "unfolded" else shape.depth if path == "fused" else True)


def _measure(cases, batch, device, precision, copied, seconds):
    """The steps of networks of one shape, timed in turns, printed."""
    about = device_name(device), torch.__version__, git_version()
    steps = []
    for name, frozen, path in tqdm(cases, "setting up", unit="case", leave=False, disable=None):
        size = min(batch, UNFOLDED_CPU_BATCH) if path == "unfolded" and device.type == "cpu" else batch
        step = Step(*about, "fp32" if path == "loop" else precision, copied, name, frozen, path, size)
        try:
            _set_up(step, device)
            steps.append(step)
        except RuntimeError as error:
            if not out_of_memory(error) and path != "fused":
                raise
            why = f"{size} images do not fit on {device}" if out_of_memory(error) else f"not compiled ({check.one_line(error)})"
            print(f"{name} {'frozen' if frozen else 'learnable'}, {path}: {why}")
            _free()
    for _ in tqdm(range(ROUNDS), "measuring", unit="round", leave=False, disable=None):
        for step in steps:
            step.milliseconds = min(step.milliseconds, 1000 * seconds_of(step.run, device, seconds))
    _print(steps)
    for step in steps:
        step.run = None
    _free()
    return steps


def _free():
    gc.collect()
    torch.cuda.empty_cache()


def _set_up(step, device):
    """Make the step, and count its memory, kernels and bytes."""
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
        step.run = trainer.step
    else:
        trainer = Trainer(unfold(network) if step.path == "unfolded" else network, data, recipe, 0, device, step.precision,
                          fuse=step.path == "fused")
        step.run = _repeatable(trainer)
    step.run()  # now momentum exists
    trainer.optimizer.zero_grad()  # what is freed in the measured step was then allocated in it
    peak = peak_memory(step.run, device)
    kept = [*trainer.network.parameters(), *trainer.network.buffers(),
            *(state["momentum_buffer"] for state in trainer.optimizer.state.values())]
    step.memory_mib = (peak + sum(t.nbytes for t in kept)) / 2**20
    if step.path not in ("graph", "fused"):
        with Operations() as operations:
            step.run()
        step.kernels, step.gigabytes = operations.count, operations.bytes / 1e9
    else:
        trainer.capture()
    if device.type == "cuda":
        step.kernels = kernels(step.run, device)


def _repeatable(trainer):
    """A function that takes the next step, from the first image again where the images end."""
    batch = trainer.recipe.batch_size

    def run():
        if trainer.position == CHUNK:
            trainer.row.zero_(), trainer.count.zero_()
            trainer.position = 0
        trainer.position += 1
        trainer.graphs[batch].replay() if batch in trainer.graphs else trainer.step(batch)

    return run


def _print(steps):
    print(f"\n{'network':24} {'spatial':9} {'path':8} {'batch':>5} {'images/s':>9} {'ms':>8} {'of plain':>8} {'of unfolded':>11} "
          f"{'of loop':>8} {'MiB':>7} {'of plain':>8} {'kernels':>7} {'GB':>6}")
    by = {(step.model, step.frozen, step.path): step for step in steps}
    for step in steps:
        plain = next((s for s in steps if "-LC-" not in s.model and not s.frozen and s.path == step.path), None)
        unfolded, loop = (by.get((step.model, step.frozen, path)) for path in ("unfolded", "loop"))
        print(f"{step.model:24} {'frozen' if step.frozen else 'learnable':9} {step.path:8} {step.batch:5} "
              f"{step.images_per_second:9.1f} {step.milliseconds:8.2f} {_ratio(step, plain):>8} {_ratio(step, unfolded):>11} "
              f"{_ratio(step, loop):>8} {step.memory_mib:7.0f} {_ratio(step, plain, 'memory_mib'):>8} {step.kernels:7} "
              f"{step.gigabytes:6.2f}", flush=True)


def _ratio(step, other, what="images_per_second"):
    """To another step, of the same batch where it is not of rates."""
    if not other or what != "images_per_second" and other.batch != step.batch:
        return ""
    return f"{getattr(step, what) / getattr(other, what):.2f}"


def _load(folder):
    """What `speed.csv` has."""
    path = Path(folder or results_folder()) / "speed.csv"
    table = pd.read_csv(path) if path.exists() else pd.DataFrame(columns=COLUMNS)
    if list(table.columns) != COLUMNS:
        raise ValueError(f"{path} has other columns than this version of lc writes; move the file away")
    return table


def _keep(table, steps, folder):
    path = Path(folder or results_folder()) / "speed.csv"
    rows = [[getattr(step, column) for column in COLUMNS] for step in steps]
    table = pd.DataFrame([*table.values.tolist(), *rows], columns=COLUMNS)
    with replacing(path) as f:
        table.drop_duplicates(KEYS, keep="last").to_csv(f, index=False, float_format="%.6g")

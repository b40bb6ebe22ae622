"""Whether a machine is right before hours of training: devices, data sets, results, ten steps."""

import os
import warnings

import torch

from .. import results
from ..blocks import fold, unfold
from ..data import KNOWN, data_folder, load_data
from ..fast.trainer import train
from ..run import Recipe, Run
from ..utils.check import one_line
from ..utils.device import arithmetic, resolve_device, resolve_precision, said_name, seen_by_driver

RECIPE = Recipe("doctor", epochs=1, batch_size=32, learning_rate=0.05, train_images=320,
                test_images=64)
RUN = Run("ResNet-LC-8-8x2", "digits", True, 0, RECIPE)
# How far apart losses may be where another device or precision rounds differently. Without learning
# the loss is 0.046 larger.
NEAR = 0.02
SAME = 0.001  # the same for the same kernels as a CUDA graph, and for outputs of a folded network


def examine(data_dir=None):
    """Yields what this machine has: whether it is right, and a line. It downloads nothing."""
    yield True, f"PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}"
    usable, said = _tried(lambda: resolve_device("auto") and seen_by_driver() or "no NVIDIA GPU")
    yield usable, said
    known, folder = _tried(lambda: data_folder(data_dir))
    yield from _data_sets(folder) if known else [(False, folder)]
    yield _tried(_results)
    gpus = range(usable * torch.cuda.device_count())
    yield from _trainings([torch.device("cpu"), *(torch.device("cuda", i) for i in gpus)])


def _tried(examination):
    """Whether a function raises nothing, and what it returns or raises."""
    try:
        return True, examination()
    except Exception as error:  # drivers and libraries raise many kinds
        return False, one_line(error)


def _data_sets(folder):
    """The data sets in a folder, and those of the paper that it lacks."""
    readable, there = _tried(lambda: sorted(os.listdir(folder)) if folder.exists() else [])
    if not readable:
        yield False, there
        return
    for name in [name.removesuffix(".npz") for name in there if name.endswith(".npz")]:
        yield _tried(lambda: f"{name}.npz: {len(load_data(name, folder).x_train)} training images")
    if missing := [name for name in KNOWN if f"{name}.npz" not in there]:
        above = next(each for each in (folder, *folder.parents) if each.exists())
        writable = os.access(above, os.W_OK | os.X_OK)
        remedy = "a run downloads its data set" if writable else "you may not write them there"
        yield True, f"not in {folder}: {', '.join(missing)}; {remedy}"
    if "imagenet" not in there:
        yield True, f"not in {folder}: imagenet, for Table 2 and Figure 1b as in the paper"


def _results():
    rows = results.load_rows()
    with results.claim(RUN.id):  # writes
        return f"results: {len(rows)} rows, and more can be written"


def _trainings(devices):
    """The devices, and ten steps on each in every way, compared with the first one's."""
    reference = None
    for device in devices:
        right, said = _tried(
            lambda: f"{said_name(device)}, precision {resolve_precision('auto', device)}")
        yield right, f"{device}: {said}"
        last = None
        ways = [("fp32", False), ("auto", False)] + [("auto", True)] * (device.type == "cuda")
        for precision, graph in ways:
            way = f"ten steps on {device} in {precision}{', as one CUDA graph' * graph}"
            right, found = _tried(lambda: _train(device, precision, graph))
            if not right:
                yield False, f"{way}: {found}"
                continue
            loss, apart = found
            reference = reference or loss
            expected, tolerance = (last, SAME) if graph and last else (reference, NEAR)
            last = loss
            right = abs(loss - expected) <= tolerance
            yield right, f"{way}: loss {loss:.4f}" + f", not {expected:.4f}" * (not right)
            if apart > SAME:
                yield False, (f"{way}: folded, the network's outputs differ by {apart:.1e} of the "
                              "largest")


def _train(device, precision, graph):
    """The mean loss of ten steps, and how far the network's outputs change when it is folded."""
    with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        warnings.filterwarnings("error", message="no CUDA graph")
        result = train(RUN, device=str(device), precision=precision, graph=graph, progress=False)
        with torch.no_grad(), arithmetic("fp32", device):
            images = torch.rand(64, 1, 32, 32).to(device)
            blocks, folded = (way(result.network).to(device).eval()(images)
                              for way in (unfold, fold))
        return result.train_loss, ((blocks - folded).abs().max() / blocks.abs().max()).item()

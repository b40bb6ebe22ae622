"""Whether this machine is right, before a sweep of hours: its devices, data sets and results, and trainings of ten steps."""

import os
import shutil
import warnings

import torch

from .. import results
from ..data import data_folder, load_data
from ..fast import train
from ..imagenet.run import SIZES
from ..run import Recipe, Run
from ..utils.check import one_line
from ..utils.device import device_name, resolve_device, resolve_precision, seen_by_driver
from .mps import CONTROL

RECIPE = Recipe("doctor", epochs=1, batch_size=32, learning_rate=0.05, train_images=320, test_images=64)
RUN = Run("ResNet-LC-8-8x2", "digits", True, 0, RECIPE)
NEAR = 0.02  # of the mean loss: another device or precision rounds differently, and without learning it is 0.046 larger
SAME = 0.001  # of the mean loss: the same kernels, one by one or as a CUDA graph


def examine(data_dir=None, folder=None):
    """Yields what this machine has, each as whether it is right and a line of text.

    Args:
        data_dir: as for `load_data`. Nothing is downloaded.
        folder: the results folder; by default $LC_RESULTS_DIR, else `results` of this project.
    """
    devices = [torch.device("cpu"), *(torch.device("cuda", i) for i in range(torch.cuda.device_count()))]
    yield True, f"PyTorch {torch.__version__}, built for CUDA {torch.version.cuda}"
    try:
        resolve_device("auto")
        yield True, seen_by_driver() or "no NVIDIA GPU"
    except ValueError as error:
        del devices[1:]
        yield False, str(error)
    for device in devices:
        try:
            yield True, f"{device}: {device_name(device)}, precision {resolve_precision('auto', device)}"
            if device.type == "cuda":
                yield True, "{}: {:.1f} of {:.1f} GiB free".format(device, *(n / 2**30 for n in torch.cuda.mem_get_info(device)))
        except (RuntimeError, ValueError) as error:
            yield False, f"{device}: {one_line(error)}"
    if devices[1:]:
        service = "running" if "CUDA_MPS_PIPE_DIRECTORY" in os.environ else "installed" if shutil.which(CONTROL) else "missing"
        yield True, f"NVIDIA's Multi-Process Service: {service}; without it, workers on one GPU take turns"
    yield from _data_sets(data_folder(data_dir))
    try:
        rows = results.load_rows(folder)
        with results.claim(RUN.id, folder):  # writes
            yield True, f"results: {len(rows)} rows, and more can be written"
    except results.ResultsError as error:
        yield False, str(error)
    yield from _trainings(devices)


def _data_sets(folder):
    yield True, f"image folders in {folder}: {', '.join(name for name in SIZES if (folder / name).is_dir()) or 'none'}"
    for path in sorted(folder.glob("*.npz")):
        try:
            data = load_data(path.stem, folder)
            yield True, f"{path.name}: {len(data.x_train)} training images, {len(data.classes)} classes"
        except ValueError as error:
            yield False, str(error)


def _trainings(devices):
    """Trains on each device in fp32 and in its own precision, on a GPU also as one CUDA graph, and compares the losses."""
    reference = None
    for device in devices:
        last = None
        for precision, graph in [("fp32", False), ("auto", False), ("auto", True)][:3 if device.type == "cuda" else 2]:
            way = f"ten steps on {device} in {precision}{', as one CUDA graph' * graph}"
            try:
                loss = _train(device, precision, graph)
            except Exception as error:  # drivers and libraries raise many kinds
                yield False, f"{way}: {one_line(error)}"
                continue
            expected, tolerance = (last, SAME) if graph and last else (reference or loss, NEAR)
            reference, last = reference or loss, loss
            right = abs(loss - expected) <= tolerance
            yield right, f"{way}: loss {loss:.4f}" + f", not {expected:.4f}" * (not right)


def _train(device, precision, graph):
    """The mean loss of ten steps."""
    with warnings.catch_warnings(), torch.backends.cudnn.flags(enabled=True, deterministic=True):
        warnings.filterwarnings("error", message="no CUDA graph")
        return train(RUN, device=str(device), precision=precision, graph=graph, progress=False).train_loss

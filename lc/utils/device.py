"""The device of a run: what it is called, the precision and randomness it computes with, and what a run costs on it."""

import math
import os
import platform
import re
import subprocess
import time
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import torch

from .files import ROOT


def resolve_device(device="auto"):
    """The `torch.device` of that name. "auto" is a GPU if there is one.

    Raises:
        ValueError: if the device is unknown or not on this machine.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not re.fullmatch("cpu|cuda(:[0-9]+)?", str(device)):
        raise ValueError(f"unknown device {device!r}; known: auto, cpu, cuda, cuda:0, ...")
    kind, _, index = str(device).partition(":")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device {device!r} is not on this machine; use auto or cpu")
    return torch.device(device)


def resolve_precision(precision, device, *others):
    """The precision of that name. "auto" is bf16 if the device computes it natively, else fp32.

    Args:
        others: further precisions that the caller knows, such as "fp16".

    Raises:
        ValueError: if the precision is unknown.
    """
    known = ("auto", "fp32", "bf16", *others)
    if precision not in known:
        raise ValueError(f"unknown precision {precision!r}; known: {', '.join(known)}")
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device)[0] >= 8 else "fp32"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "fp32"


@contextmanager
def arithmetic(precision, device):
    """Lets a GPU use TF32 (10 bits of mantissa) for fp32 products, unless `precision` is "fp32".

    With bf16 (7 bits), the only fp32 products are those that combine filters (Equation 4).
    """
    if device.type != "cuda":
        yield
        return
    convolutions, products = torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()
    torch.backends.cudnn.allow_tf32 = precision != "fp32"
    torch.set_float32_matmul_precision("highest" if precision == "fp32" else "high")
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = convolutions
        torch.set_float32_matmul_precision(products)


def to_device(network, device):
    """Moves a network to its device: channels_last on a GPU, contiguous on a CPU, whose fused SGD would copy other weights."""
    return network.to(device, memory_format=torch.channels_last if device.type == "cuda" else torch.contiguous_format)


@contextmanager
def own_randomness(seed, device):
    """Seeds PyTorch's generators for initialisation and dropout, and restores them at the end."""
    cuda = [device.index or 0] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        for generator in (torch.default_generator, *(torch.cuda.default_generators[i] for i in cuda)):
            generator.manual_seed(seed)
        yield


def out_of_memory(error):
    """Whether an exception says that a tensor, or a library's own memory, did not fit into the memory of its device."""
    texts = "out of memory", "ALLOC_FAILED", "ALLOCATION_FAILED", "can't allocate memory", "calculation overflowed"
    return isinstance(error, torch.OutOfMemoryError) or isinstance(error, RuntimeError) and any(t in str(error) for t in texts)


def device_name(device):
    """The name of the hardware, as in the column `device` of the results."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model} CPU, {torch.get_num_threads()} threads"


def energy_meter(device):
    """A function that returns the energy in watt hours that the device has used so far, or nan if it is not counted.

    NVML counts the energy of the whole GPU. Runs that share a GPU each report all of it.
    """
    if device.type == "cuda":
        try:
            import pynvml

            pynvml.nvmlInit()
            handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(device).uuid}")
            pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)
            return lambda: pynvml.nvmlDeviceGetTotalEnergyConsumption(handle) / 3.6e6  # of millijoules
        except Exception:  # there is no NVML, or it does not count this GPU or this part of a GPU
            pass
    return lambda: math.nan


class Meter:
    """Counts a run's total, set-up and training seconds and its energy, including what was spent before an interruption."""

    def __init__(self, device):
        began = time.monotonic()  # starting a GPU's driver, which the meter does, counts
        self.energy = energy_meter(device)
        self.spent = {"seconds": 0.0, "setup": 0.0, "training": 0.0, "energy": 0.0}
        self.last = began, self.energy()

    def lap(self, part=None):
        """Adds what was spent since the last lap. `part` is "setup", "training" or None for anything else."""
        before, self.last = self.last, (time.monotonic(), self.energy())
        seconds, energy = self.last[0] - before[0], self.last[1] - before[1]
        self.add({"seconds": seconds, "setup": seconds * (part == "setup"), "training": seconds * (part == "training"),
                  "energy": energy})

    def add(self, spent):
        """Adds what was spent earlier. A part that is missing there becomes unknown (nan)."""
        self.spent = {name: self.spent[name] + spent.get(name, math.nan) for name in self.spent}


@cache
def git_version():
    """The commit of this code, with "-dirty" if `lc` was changed since. Without a git repository: $LC_GIT."""
    def git(*arguments):
        return subprocess.run(["git", "-C", ROOT, *arguments], capture_output=True, text=True)

    try:
        head = git("rev-parse", "--short=10", "HEAD")
        if head.returncode == 0:
            return head.stdout.strip() + ("-dirty" if git("status", "--porcelain", "lc").stdout else "")
    except OSError:
        pass
    return os.environ.get("LC_GIT", "unknown")
